"""``events``, ``events redeliver`` and ``events test``, the last with real receivers on this machine."""

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook

from tests.support.operator import Operator
from tests.support.running import Application
from tests.zego.test_client import read_request, serving
from watchdog.core.events import EventType, sample
from watchdog.store.engine import open_engine
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Instance

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "a-token-in-the-url"


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


@pytest.fixture
def operator(application: Application, tmp_path: Path) -> Operator:
    return with_webhook(Operator(tmp_path, application.url), f"http://127.0.0.1:1/{TOKEN}")


def with_webhook(operator: Operator, url: str, **keys: Any) -> Operator:
    secret = operator.file.parent / "webhook_secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    operator.sections["notify"] = {"url": url, "secret_file": str(secret), "events": ["all"], **keys}
    return operator


def ended(application: Application, *task_ids: str) -> None:
    application.execute("DELETE FROM zego_event_types")
    application.execute("INSERT INTO zego_event_types (type, webhook) VALUES ('task.stopped', true)")
    for task_id in task_ids:
        application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, 'lecture')", task_id)
        application.execute("UPDATE zego_tasks SET status = 'stopped' WHERE task_id = ?", task_id)


def give_up(application: Application, task_id: str, error: str = "HTTP 500: no") -> int:
    application.execute(
        "UPDATE zego_events SET wake_at = NULL, attempts = 9, error = ? WHERE task_id = ?", error, task_id
    )
    (found,) = [row for row in application.rows("SELECT id, task_id FROM zego_events") if row["task_id"] == task_id]
    return int(found["id"])


# The list


def test_the_newest_event_comes_first(operator: Operator, application: Application) -> None:
    ended(application, "1", "2")
    give_up(application, "1")
    shown = operator.types("events", COLUMNS="100").stdout.splitlines()
    assert shown[0].split() == ["ID", "WHEN", "EVENT", "TASK", "WEBHOOK", "TRIES", "HANDLED"]
    assert re.fullmatch(r" *\d+  \S+ \S+Z  task\.stopped  2     to be delivered .*", shown[1])
    assert "UNDELIVERED" in shown[2]
    assert shown[3].strip() == "HTTP 500: no"
    newest, oldest = operator.sees("events")
    assert (newest["task_id"], oldest["task_id"], oldest["data"]["room_id"]) == ("2", "1", "lecture")
    assert operator.sees("events", "--undelivered") == [oldest]
    assert operator.sees("events", "--task", "2") == [newest]
    assert operator.sees("events", "--limit", "1") == [newest]


def test_no_event_is_a_message(operator: Operator, application: Application) -> None:
    del application
    assert (operator.types("events").stdout, operator.sees("events")) == ("", [])
    assert "No event yet" in operator.types("events").stderr
    assert "No event of task 7 is undelivered" in operator.types("events", "--undelivered", "--task", "7").stderr
    operator.sections["notify"] = {}
    assert "notify.events is empty" in operator.types("events").stderr


# Sent again


def test_events_are_sent_again(operator: Operator, application: Application) -> None:
    ended(application, "1", "2", "3")
    first, second = give_up(application, "1"), give_up(application, "2", "HTTP 410: gone")
    give_up(application, "3")
    unknown = operator.types("events", "redeliver", str(first), "99999")
    assert (unknown.exit_code, "there is no event 99999" in unknown.stderr) == (1, True)
    assert len(operator.sees("events", "--undelivered")) == 3
    done = operator.types("events", "redeliver", str(first), str(second), str(first))
    assert (done.exit_code, done.stdout) == (0, "2 events will be sent again\n")
    assert "answered 410" in done.stderr
    assert "No daemon is alive" in done.stderr
    assert [row["task_id"] for row in operator.sees("events", "--undelivered")] == ["3"]
    assert operator.sees("events", "redeliver", "--undelivered") == {"redelivered": 1}
    assert operator.types("events", "redeliver", "--undelivered").stdout == "no event is undelivered\n"
    assert {row["wake_at"] is not None for row in operator.sees("events")} == {True}


def test_a_daemon_that_is_alive_is_no_reason_to_complain(operator: Operator, application: Application) -> None:
    ended(application, "1")
    number = give_up(application, "1")
    engine = open_engine(application.url)
    Heartbeats(engine).beat(Instance("host-1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    engine.dispose()
    assert operator.types("events", "redeliver", str(number)).stderr == ""


def test_without_a_webhook_nothing_is_sent_again(operator: Operator, application: Application) -> None:
    ended(application, "1")
    number = give_up(application, "1")
    operator.sections["notify"] = {"events": ["all"]}
    refused = operator.types("events", "redeliver", str(number))
    assert (refused.exit_code, "notify.url is empty" in refused.stderr) == (78, True)
    assert len(operator.sees("events", "--undelivered")) == 1


# The sample


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """Answers every request with a status, and keeps it."""

    def __init__(self, status: str, *headers: str, body: str = "") -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self._answer = ("\r\n".join(head) + f"\r\n\r\n{body}").encode()
        self.headers: dict[str, str] = {}
        self.body = b""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.headers = dict(line.lower().split(": ", 1) for line in head.strip().splitlines()[1:])
        # The signature is in base64: in its own letters.
        (self.headers["webhook-signature"],) = re.findall(r"(?im)^webhook-signature: (.*?)\r?$", head)
        self.body = await reader.readexactly(int(self.headers["content-length"]))
        writer.write(self._answer)
        await writer.drain()


@pytest.mark.parametrize("name", ["test", *EventType])
async def test_a_sample_is_signed_and_like_an_event(tmp_path: Path, name: str) -> None:
    """Without a database: it is that of another test."""
    receiver = Receiver("200 OK", body="thank you")
    async with serving(receiver.converse) as url:
        operator = with_webhook(Operator(tmp_path, "sqlite:////nowhere/x.db"), url)
        told = await operator.learns("events", "test", "--type", name)
        shown = await operator.does("events", "test", "--type", name)
    assert (told["delivered"], told["status"], told["answer"], told["next_step"]) == (True, 200, "thank you", None)
    assert f"event {name} to 127.0.0.1:" in shown.stdout
    assert re.search(r"answer +HTTP 200 after \d+ ms\nbody +thank you\n$", shown.stdout)
    got = Webhook(SECRET).verify(receiver.body, receiver.headers)
    assert got["type"] == name
    assert got["data"]["task_id"] == "sample"
    assert told["webhook_id"].startswith("zego_sample_")
    assert receiver.headers["webhook-id"].startswith("zego_sample_")


@pytest.mark.parametrize(
    ("status", "header", "code", "said"),
    [
        ("302 Found", "Location: /elsewhere", 1, "redirects are not followed"),
        ("401 Unauthorized", "", 1, "give it the secret of notify.secret_file"),
        ("404 Not Found", "", 1, "correct the path in notify.url"),
        ("410 Gone", "", 1, "reload the daemon"),
        ("413 Content Too Large", "", 1, "up to 20 kB"),
        ("500 Internal Server Error", "", 1, "the receiver's log"),
        ("500 Internal Server Error", "Retry-After: 5", 75, "is busy or down"),
        ("503 Service Unavailable", "", 75, "is busy or down"),
    ],
)
async def test_each_refusal_has_a_next_step(tmp_path: Path, status: str, header: str, code: int, said: str) -> None:
    receiver = Receiver(status, *([header] if header else []), body="because")
    async with serving(receiver.converse) as url:
        operator = with_webhook(Operator(tmp_path, "sqlite:////nowhere/x.db"), f"{url}{TOKEN}")
        found = await operator.does("events", "test")
    assert found.exit_code == code, found.output
    assert f"HTTP {status[:3]} after" in found.stdout
    assert "because" in found.stdout
    assert said in found.stdout
    assert TOKEN not in found.output
    assert SECRET not in found.output


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await read_request(reader)
    await asyncio.Event().wait()


async def speak_smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(b"220 mail\r\n")
    await writer.drain()


def certified_by_a_stranger() -> ssl.SSLContext:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server_side)
    return server_side


@pytest.mark.parametrize(
    ("url", "conversation", "code", "said"),
    [
        ("http://127.0.0.1:1/", None, 75, "nothing listens there"),
        ("http://receiver.invalid/", None, 75, "has no address here"),
        ("http://127.1:1/", None, 78, "notify.allowed_networks"),
        (None, hang, 75, "answer 2xx at once"),
        (None, speak_smtp, 75, "speaks HTTP"),
    ],
)
async def test_no_answer_has_a_next_step(
    tmp_path: Path, url: str | None, conversation: Conversation | None, code: int, said: str
) -> None:
    async with serving(conversation or hang) as served:
        operator = with_webhook(
            Operator(tmp_path, "sqlite:////nowhere/x.db"), url or served, request_timeout_seconds=0.2
        )
        found = await operator.does("events", "test")
    assert found.exit_code == code, found.output
    assert "no answer" in found.stdout
    assert said in found.stdout


async def test_a_certificate_of_a_stranger_is_named(tmp_path: Path) -> None:
    async with serving(hang, certified_by_a_stranger()) as url:
        operator = with_webhook(Operator(tmp_path, "sqlite:////nowhere/x.db"), url.replace("http:", "https:"))
        found = await operator.does("events", "test")
    assert found.exit_code == 1, found.output
    assert "signed by an authority that this machine trusts" in found.stdout


def test_without_a_url_there_is_nothing_to_test(tmp_path: Path) -> None:
    found = Operator(tmp_path, "sqlite:////nowhere/x.db").types("events", "test")
    assert (found.exit_code, "set notify.url" in found.stderr) == (78, True)


def test_every_type_has_a_sample() -> None:
    for event_type in (None, *EventType):
        data = sample(event_type, datetime(2026, 3, 1, 12, tzinfo=UTC), 7)
        assert json.loads(json.dumps(data)) == data
        assert data["app_id"] == 7
