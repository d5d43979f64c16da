"""The callback endpoint over real HTTP: what the sandbox sends arrives in the table, and nothing else does."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx2 as httpx
import pytest
import structlog

from tests.support.clock import SettableClock
from tests.support.running import APP_ID, SECRET, Application, eventually
from tests.support.store_steps import answer, begun, due, plan, send, take_one
from tests.support.time_travel import World
from watchdog.clock import SystemClock
from watchdog.config.loader import load
from watchdog.config.settings import Config, HttpConfig
from watchdog.core.callback_body import Fault
from watchdog.core.model import Outcome
from watchdog.core.signing import callback_signature
from watchdog.daemon.http_protocol import Turns
from watchdog.daemon.http_server import CALLBACK_PATH, CONCURRENT, HttpServer
from watchdog.daemon.lifecycle import Service
from watchdog.errors import ConfigError
from watchdog.sandbox import CallbackEncoding, Join, Leave, Sandbox, SendCallbacks, Speak, Start
from watchdog.services.callbacks import STATUS_OF_FAULT, CallbackIntake
from watchdog.store.callbacks import Callback, Received
from watchdog.store.tasks import Tasks
from watchdog.wiring import database as opening
from watchdog.wiring.parts import Parts
from watchdog.wiring.storage import Storage

CALLBACK_SECRET = "not-a-real-callback-secret"
JSON = "application/json"


def configured(url: str, sandbox: Sandbox | None = None, **zego: Any) -> Config:
    app = {"app_id": APP_ID, "server_secret": SECRET, "callback_secret": CALLBACK_SECRET}
    vendor = {} if sandbox is None else {"asr_url": sandbox.url, "rtc_url": sandbox.url}
    return Config.model_validate(
        {
            "database": {"url": url, "statement_timeout_seconds": 0.3},
            "zego": {"apps": [app]} | vendor | zego,
            "schedule": {"poll_seconds": 0.2, "occupancy_poll_seconds": 0},
            "http": {"listen": "127.0.0.1:0"},
        }
    )


class Bench:
    """The endpoint alone, on SQLite; ``healthy`` and ``ready`` are what it is told."""

    def __init__(self, intake: CallbackIntake, storage: Storage, application: Application) -> None:
        self.intake = intake
        self.storage = storage
        self.application = application
        self.healthy = self.ready = True
        self.server = HttpServer(
            ("127.0.0.1", 0),
            intake,
            is_healthy=lambda: self.healthy,
            not_ready=lambda: "" if self.ready else "starting",
            turns=Turns(SystemClock()),
            read_seconds=0.3,
        )
        self.http = httpx.AsyncClient(trust_env=False, timeout=10)

    async def post(self, body: bytes, content_type: str | None = JSON, path: str = CALLBACK_PATH) -> tuple[int, str]:
        headers = {} if content_type is None else {"Content-Type": content_type}
        reply = await self.http.post(self.server.url + path, content=body, headers=headers)
        return reply.status_code, reply.text.strip()

    async def repeat(self, body: bytes) -> tuple[int, str]:
        """Post as the vendor does, again while the answer is 503 or there is none.

        A slow machine may have no time for it at once, or close a connection that has been idle for 0.3 s.
        """
        answer = (503, "")
        async with asyncio.timeout(30):
            while answer[0] == 503:
                with contextlib.suppress(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    answer = await self.post(body)
        return answer

    async def connect(self, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = int(self.server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        await writer.drain()
        return reader, writer


@pytest.fixture
async def bench(sqlite_url: str) -> AsyncIterator[Bench]:
    application = Application(sqlite_url)
    config = configured(sqlite_url)
    engine = opening.engine(config.database)
    clock = SystemClock()
    parts = Parts(config, clock, engine, Tasks(engine, "").now())
    bench = Bench(parts.callbacks, parts.storage, application)
    bench.server.bind()
    await bench.server.start()
    yield bench
    await bench.http.aclose()
    await bench.server.stop()
    await parts.close()


def login(*, nonce: str = "123456", ago: float = 0, app_id: int = APP_ID, **fields: Any) -> dict[str, Any]:
    now = SystemClock().time() - ago
    timestamp = str(int(now))
    return {
        "event": "room_login",
        "appid": str(app_id),
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": callback_signature(CALLBACK_SECRET, timestamp, nonce),
        "room_id": "room",
        "room_seq": "1",
        "user_account": "alice",
        "session_id": "7",
        "login_time": str(int(now * 1000)),
        "user_role": "1",
    } | fields


def body_of(callback: dict[str, Any]) -> bytes:
    return json.dumps(callback).encode()


# What the vendor sends


@pytest.mark.parametrize("encoding", CallbackEncoding)
async def test_what_happens_at_the_vendor_arrives_in_the_table(sqlite_url: str, encoding: CallbackEncoding) -> None:
    application = Application(sqlite_url)
    async with Sandbox({APP_ID: SECRET}, callback_secrets={APP_ID: CALLBACK_SECRET}) as sandbox:
        config = configured(sqlite_url, sandbox)
        service = Service(config, SystemClock(), opening.engine(config.database))
        await service.start()
        assert service.http is not None
        sandbox.perform(SendCallbacks(url=service.http.url + CALLBACK_PATH, encoding=encoding))
        task = await application.start(sandbox, "room")

        def says(count: int | None, source: str | None = "callback", task: str = task) -> bool:
            rows = application.rows(f"SELECT * FROM zego_tasks WHERE task_id = '{task}'")
            return [(row["user_count"], row["user_count_source"]) for row in rows] == [(count, source)]

        try:
            sandbox.perform(Join(room="room", user="alice"))
            await eventually("alice has come", lambda: says(1))
            sandbox.perform(Join(room="room", user="bob"))
            await eventually("bob has come", lambda: says(2))
            sandbox.perform(Leave(room="room", user="alice"))
            sandbox.perform(Leave(room="room", user="bob"))
            await eventually("both have left", lambda: says(0))
            # This one is never registered by the application.
            lost = str(sandbox.perform(Start(room="lost"))["task_id"])
            sandbox.perform(Join(room="lost", user="carol"))
            sandbox.perform(Speak(room="lost", user="carol", text="Hello?"))
            await eventually("the lost task is found", lambda: says(1, task=lost))
            async with httpx.AsyncClient(trust_env=False) as http:
                for path in ("/healthz", "/readyz"):
                    assert (await http.get(service.http.url + path)).status_code == 200
            # A slow machine may have no time for one at once; the vendor repeats it.
            assert set(service.parts.callbacks.responses) - {"overloaded"} == {"accepted"}
        finally:
            hurry = asyncio.Event()
            hurry.set()
            await service.stop(hurry)


async def test_what_a_registered_agent_says_is_no_evidence(bench: Bench) -> None:
    bench.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    bench.application.execute(
        "INSERT INTO zego_tasks (task_id, room_id, kind, bot_user_id) VALUES ('agent', 'room', 'agent', 'helper')"
    )

    def said(user: str, nonce: str) -> bytes:
        timestamp = str(round(SystemClock().time() * 1000))
        signature = callback_signature(CALLBACK_SECRET, timestamp, nonce)
        seal = {"AppId": APP_ID, "Event": "ASRResult", "Nonce": nonce, "Timestamp": timestamp, "Signature": signature}
        return body_of(seal | {"TaskId": "t", "RoomId": "room", "Data": {"UserId": user, "Text": "Hello"}})

    for user, nonce, count in (("helper", "111111", None), ("alice", "222222", 1)):
        assert await bench.repeat(said(user, nonce)) == (200, "accepted")
        assert bench.application.rows("SELECT user_count FROM zego_tasks WHERE task_id = 't'") == [
            {"user_count": count}
        ]


async def test_1202_is_taken_in_and_other_exceptions_are_not(bench: Bench) -> None:
    bench.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")

    def exception(code: int, nonce: str) -> bytes:
        timestamp = str(round(SystemClock().time() * 1000))
        signature = callback_signature(CALLBACK_SECRET, timestamp, nonce)
        seal = {"AppId": APP_ID, "Event": "Exception", "Nonce": nonce, "Timestamp": timestamp, "Signature": signature}
        return body_of(seal | {"TaskId": "t", "RoomId": "room", "Data": {"Code": code, "Message": "idle"}})

    assert await bench.post(exception(1001, "1")) == (200, "ignored")
    assert bench.application.statuses() == {"t": "active"}
    assert await bench.post(exception(1202, "2")) == (200, "accepted")
    assert bench.application.statuses() == {"t": "auto_stopped"}
    assert await bench.post(exception(1202, "3")) == (200, "ignored")


# What is refused


async def test_a_copy_and_a_forged_body_under_the_same_signature(bench: Bench) -> None:
    bench.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    genuine = login()
    assert await bench.post(body_of(genuine)) == (200, "accepted")
    assert await bench.post(body_of(genuine)) == (200, "replayed")
    forged = genuine | {"event": "room_logout", "logout_time": str(int(genuine["login_time"]) + 1)}
    assert await bench.post(body_of(forged)) == (200, "suspicious")
    assert bench.application.rows("SELECT user_count FROM zego_tasks") == [{"user_count": 1}]
    assert bench.intake.responses == {"accepted": 1, "replayed": 1, "suspicious": 1}


# Made when the test runs, for they expire.
REFUSED: dict[str, tuple[Callable[[], bytes], str | None, tuple[int, str]]] = {
    "forged": (lambda: body_of(login(signature="0" * 40)), JSON, (401, "bad_signature")),
    "of another app": (lambda: body_of(login(app_id=99)), JSON, (401, "unknown_app")),
    "old": (lambda: body_of(login(ago=400)), JSON, (401, "expired")),
    "from the future": (lambda: body_of(login(ago=-400)), JSON, (401, "expired")),
    "empty": (lambda: b"", JSON, (400, "missing_field")),
    "half of it": (lambda: b"{", JSON, (400, "malformed")),
    "without a seal": (lambda: b'{"event": "room_login"}', JSON, (400, "missing_field")),
    "with a NUL": (lambda: body_of(login(user_account="a\0b")), JSON, (400, "out_of_range")),
    "a picture": (lambda: body_of(login()), "image/png", (400, "wrong_encoding")),
    "not UTF-8": (lambda: b'{"event": "\xff"}', JSON, (400, "wrong_encoding")),
    "large": (lambda: b" " * 70_000, JSON, (413, "too_large")),
    "huge": (lambda: b" " * 3_000_000, JSON, (413, "too_large")),
    "of a new type": (lambda: body_of(login(event="room_sneeze")), None, (200, "ignored")),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_refused_is_counted_and_changes_nothing(bench: Bench, what: str) -> None:
    make, content_type, expected = REFUSED[what]
    # Who is cut off while writing may not get to read the answer.
    with contextlib.suppress(httpx.TransportError) if what == "huge" else contextlib.nullcontext():
        assert await bench.post(make(), content_type) == expected
    assert bench.intake.responses == {expected[1]: 1}
    assert bench.application.rows("SELECT * FROM zego_callbacks_seen") == []
    assert bench.application.rows("SELECT * FROM zego_room_users") == []


def test_every_fault_has_a_status() -> None:
    assert set(STATUS_OF_FAULT) == set(Fault)


async def test_the_three_encodings_are_understood(bench: Bench) -> None:
    for nonce, encode, content_type in (
        ("1", json.dumps, JSON),
        ("2", lambda fields: quote_plus(json.dumps(fields)), JSON),
        ("3", urlencode, "application/x-www-form-urlencoded"),
    ):
        assert await bench.post(encode(login(nonce=nonce)).encode(), content_type) == (200, "accepted")


async def test_a_body_without_a_length_is_bounded_too(bench: Bench) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1000

    reply = await bench.http.post(bench.server.url + CALLBACK_PATH, content=drip(), headers={"Content-Type": JSON})
    assert (reply.status_code, reply.text) == (413, "too_large\n")


SLOW = f"POST {CALLBACK_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{"


async def test_a_slow_body_is_not_waited_for(bench: Bench) -> None:
    reader, writer = await bench.connect(SLOW)
    async with asyncio.timeout(30):
        reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert bench.intake.responses == {"too_slow": 1}


@pytest.mark.parametrize(
    "request_line",
    ["GET /healthz", "POST /readyz", "GET /metrics", "POST /nowhere", f"GET {CALLBACK_PATH}"],
)
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_body_that_drips_holds_no_connection_whatever_its_path(
    bench: Bench, request_line: str, framing: str
) -> None:
    reader, writer = await bench.connect(f"{request_line} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")
    reply = asyncio.create_task(reader.read())
    async with asyncio.timeout(30):
        while not reply.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b" " if "Length" in framing else b"1\r\n \r\n")
                await writer.drain()
            await asyncio.wait([reply], timeout=0.1)
    writer.close()
    with contextlib.suppress(ConnectionError):
        assert reply.result().startswith(b"HTTP/1.1 408 ")
    assert bench.intake.responses == {}


@pytest.mark.parametrize("head", ["", "POST / HTTP/1.1\r\nHost:", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\nPOST"])
async def test_a_slow_head_is_not_waited_for(bench: Bench, head: str) -> None:
    reader, writer = await bench.connect(head)
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()


async def test_a_sender_who_leaves_is_counted(bench: Bench) -> None:
    _, writer = await bench.connect(SLOW)
    writer.transport.abort()
    await eventually("it is noticed", lambda: bench.intake.responses["disconnected"] == 1)


async def test_too_many_at_once_are_told_to_come_again(bench: Bench) -> None:
    bench.server._read_seconds = 30  # longer than it takes to open the connections
    connections = [await bench.connect(SLOW) for _ in range(CONCURRENT)]
    await eventually("all are being answered", lambda: bench.server._callbacks == CONCURRENT)
    reply = await bench.http.post(bench.server.url + CALLBACK_PATH, content=body_of(login()))
    assert (reply.status_code, reply.text, reply.headers["Retry-After"]) == (503, "busy\n", "2")
    # Another connection would cost more than the answer.
    assert "Connection" not in reply.headers
    # Health is answered all the same.
    assert (await bench.http.get(bench.server.url + "/healthz")).status_code == 200
    for _, writer in connections:
        writer.close()
    await eventually("all have gone", lambda: bench.intake.responses["disconnected"] >= CONCURRENT)
    assert await bench.post(body_of(login())) == (200, "accepted")


async def test_who_is_told_to_come_again_and_sends_slowly_is_cut_off(bench: Bench) -> None:
    bench.server._callbacks = CONCURRENT
    reader, writer = await bench.connect(SLOW)
    async with asyncio.timeout(30):
        reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in reply.lower()


async def test_without_its_database_it_asks_for_another_try(bench: Bench) -> None:
    body = body_of(login())
    with closing(sqlite3.connect(bench.application.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reply = await bench.http.post(bench.server.url + CALLBACK_PATH, content=body)
        assert (reply.status_code, reply.text, reply.headers["Retry-After"]) == (503, "database_away\n", "2")
    assert await bench.post(body) == (200, "accepted")


async def test_after_a_commit_that_takes_too_long_it_asks_for_another_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_long(_callback: Callback) -> Received:
        raise TimeoutError("not committed after 5 s")

    monkeypatch.setattr(bench.intake._store, "submit", too_long)
    reply = await bench.http.post(bench.server.url + CALLBACK_PATH, content=body_of(login()))
    assert (reply.status_code, reply.text, reply.headers["Retry-After"]) == (503, "database_slow\n", "2")


async def test_while_stops_need_the_database_it_asks_for_another_try(bench: Bench) -> None:
    hold = threading.Event()
    (stop,) = await begun(bench.storage.threads.call(hold.wait, 10))
    with structlog.testing.capture_logs() as logs:
        for nonce in ("1", "2"):
            reply = await bench.http.post(bench.server.url + CALLBACK_PATH, content=body_of(login(nonce=nonce)))
            assert (reply.status_code, reply.text, reply.headers["Retry-After"]) == (503, "overloaded\n", "2")
            assert "Connection" not in reply.headers
    hold.set()
    await stop
    assert [(event["event"], event["kind"], event["count"]) for event in logs] == [
        ("callback_refused", "overloaded", 1)
    ]
    assert bench.intake.responses == {"overloaded": 2}
    assert bench.application.rows("SELECT * FROM zego_callbacks_seen") == []
    assert await bench.repeat(body_of(login(nonce="1"))) == (200, "accepted")


async def test_many_at_once_are_committed_before_they_are_accepted(bench: Bench) -> None:
    async def one(number: int) -> bool:
        user = f"user-{number}"
        assert await bench.repeat(body_of(login(nonce=str(number), user_account=user))) == (200, "accepted")
        found = bench.application.rows("SELECT user_id FROM zego_room_users")
        return user in {row["user_id"] for row in found}

    assert all(await asyncio.gather(*map(one, range(40))))


async def test_health_and_other_paths(bench: Bench) -> None:
    async def status(method: str, path: str) -> int:
        return (await bench.http.request(method, bench.server.url + path)).status_code

    assert [await status("GET", path) for path in ("/healthz", "/readyz", "/", CALLBACK_PATH)] == [200, 200, 404, 405]
    bench.healthy = bench.ready = False
    assert [await status("GET", path) for path in ("/healthz", "/readyz")] == [503, 503]


async def test_a_slash_at_the_end_is_no_other_path(bench: Bench) -> None:
    assert await bench.post(body_of(login()), path=CALLBACK_PATH + "/") == (200, "accepted")


async def test_callbacks_for_a_wrong_path_are_counted_and_told_of(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        for path in ("//callbacks/zego", "/callback/zego", "/%1B%5B2J" + "x" * 200):
            assert await bench.post(body_of(login()), path=path) == (404, "unknown_path")
    assert bench.intake.responses == {"unknown_path": 3}
    (event,) = logs
    assert (event["event"], event["kind"], event["status"]) == ("callback_refused", "unknown_path", 404)
    assert event["reason"] == "'//callbacks/zego' is no path of this server; callbacks go to /callbacks/zego"


async def test_nothing_of_a_request_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.post(body_of(login()), path=f"{CALLBACK_PATH}?signature=hush")
    assert "hush" not in caplog.text


async def test_an_address_that_is_taken_is_a_configuration_error(bench: Bench) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = taken.getsockname()
        server = HttpServer(address, bench.intake, is_healthy=lambda: True, not_ready=str, turns=Turns(SystemClock()))
        with pytest.raises(ConfigError, match=rf"http\.listen: cannot listen on 127\.0\.0\.1 port {address[1]}"):
            server.bind()


# In virtual time


async def test_a_refusal_is_logged_once_and_then_once_a_minute(world: World) -> None:
    config = configured("sqlite:///unused.db")
    parts = Parts(config, world.clock, world.engine, world.tasks.now())
    bad = body_of(login(signature="0" * 40))
    with structlog.testing.capture_logs() as logs:
        for seconds in (0, 1, 58, 1, 30, 31):
            world.advance(seconds)
            await parts.callbacks.receive(JSON, bad)
    assert [(event["event"], event["kind"], event["status"], event["count"]) for event in logs] == [
        ("callback_refused", "bad_signature", 401, 1),
        ("callback_refused", "bad_signature", 401, 3),
        ("callback_refused", "bad_signature", 401, 2),
    ]
    assert CALLBACK_SECRET not in str(logs)
    await parts.zego.aclose()
    parts.storage.close()


def utterance(clock: SettableClock, vendor_ahead_seconds: float, nonce: str) -> bytes:
    """What a user says now, sent by a vendor whose clock is ahead."""
    timestamp = str(round((clock.time() + vendor_ahead_seconds) * 1000))
    seal = {"Nonce": nonce, "Timestamp": timestamp, "Signature": callback_signature(CALLBACK_SECRET, timestamp, nonce)}
    data = {"UserId": "alice", "Text": "Hello?"}
    return body_of({"AppId": APP_ID, "Event": "ASRResult", "TaskId": "task", "RoomId": "task", "Data": data} | seal)


def arrival(clock: SettableClock, vendor_ahead_seconds: float, nonce: str) -> bytes:
    """Somebody comes now."""
    now = clock.time() + vendor_ahead_seconds
    seal = {"timestamp": str(int(now)), "signature": callback_signature(CALLBACK_SECRET, str(int(now)), nonce)}
    times = {"login_time": str(int(now * 1000)), "session_id": nonce}
    return body_of(login(nonce=nonce, room_id="task", user_account=f"user{nonce}") | seal | times)


@pytest.mark.parametrize("ahead", [30.0, 0.0, -30.0])
@pytest.mark.parametrize("sign_of_life", [utterance, arrival])
async def test_whatever_the_vendors_clock_says_only_what_comes_after_a_stop_is_a_return(
    world: World, ahead: float, sign_of_life: Callable[[SettableClock, float, str], bytes]
) -> None:
    parts = Parts(configured("sqlite:///unused.db"), world.clock, world.engine, world.tasks.now())

    def returned() -> list[Any]:
        return [row["rejoined_at"] for row in world.app.rows("SELECT rejoined_at FROM zego_rejoins")]

    async def receive(body: bytes) -> None:
        assert (await parts.callbacks.receive(JSON, body)).kind == "accepted"

    due(world, app_id=APP_ID)
    await receive(sign_of_life(world.clock, ahead, "1"))
    assert world.task("task")["user_count_at"] == world.now, "the first callback is taken for new"
    world.app.people("task", 0)
    plan(world, due=0)
    world.advance(10)
    late = sign_of_life(world.clock, ahead, "2")
    world.advance(1)
    attempt = send(world, take_one(world))
    parts.storage.ledger.store.record([answer(world, attempt, Outcome.STOPPED)])
    world.advance(1)
    await receive(late)
    assert returned() == [None], "sent before the stop, however late it arrives"
    await receive(sign_of_life(world.clock, ahead, "3"))
    assert returned() != [None]
    await parts.zego.aclose()
    parts.storage.close()


# Its configuration


def test_the_secret_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    for name, content in (("server", SECRET), ("callback", CALLBACK_SECRET)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    app = {"app_id": APP_ID, "server_secret_file": "server", "callback_secret_file": "callback"}
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"zego": {"apps": [app], "discover": "off"}}))
    zego = load(file, {}).zego
    assert [secret.get_secret_value() for secret in zego.apps[0].callback_secrets] == [CALLBACK_SECRET]
    assert zego.discover is False

    file.write_text(json.dumps({"zego": {"apps": [app | {"callback_secret": CALLBACK_SECRET}]}}))
    with pytest.raises(ConfigError, match=r"callback_secret: .* set callback_secret_file to its path") as caught:
        load(file, {})
    assert CALLBACK_SECRET not in str(caught.value)
    environ = {"ZEGO_WATCHDOG_ZEGO__APPS": json.dumps([app | {"callback_secret": CALLBACK_SECRET}])}
    with pytest.raises(ConfigError, match=f"app {APP_ID} has two callback secrets"):
        load(file, environ)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("", None),
        ("127.0.0.1:8765", ("127.0.0.1", 8765)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(listen: str, address: tuple[str, int] | None) -> None:
    assert HttpConfig(listen=listen).address == address


@pytest.mark.parametrize("listen", ["8765", ":8765", "127.0.0.1", "::1:80", "[1.2.3.4]:80", "h:65536", "http://h:80"])
def test_no_addresses(listen: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host and a port; write 127\.0\.0\.1:8765"):
        HttpConfig(listen=listen)
