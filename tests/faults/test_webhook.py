"""Rows 65 to 67: events on their way to the webhook. None is lost, and a duplicate has the same ``webhook-id``."""

import asyncio
import json
import math
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.faults.harness import Daemon, Stage, fault
from tests.support.postgresql import Server
from tests.support.running import eventually, secret_file
from tests.zego.test_client import Conversation, read_request, serving

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DELIVERED: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """Verifies each request as the specification says; keeps the ids by task."""

    def __init__(self) -> None:
        self.url = ""
        self.ids: dict[str, list[str]] = {}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head, body = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
            event = Webhook(SECRET).verify(body, headers)
            self.ids.setdefault(event["data"]["task_id"], []).append(headers["webhook-id"])
            writer.write(DELIVERED)

    def has_all(self, tasks: Collection[str]) -> bool:
        return set(tasks) <= self.ids.keys()

    def audit(self, stage: Stage, tasks: Collection[str]) -> None:
        """Of each task one event, delivered once at least and always under one id."""
        written = Counter(row["task_id"] for row in events(stage))
        assert written == Counter(tasks)
        assert self.ids.keys() == set(tasks)
        assert {task: len(set(ids)) for task, ids in self.ids.items()} == dict.fromkeys(tasks, 1)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver.converse) as receiver.url:
        yield receiver


def notify(folder: Path, url: str) -> dict[str, object]:
    secret = secret_file(folder / "hook", SECRET)
    return {"url": url, "secret_file": secret, "events": ["task.stopped", "task.gone"], "request_timeout_seconds": 2}


def events(stage: Stage) -> list[dict[str, object]]:
    return stage.application.rows("SELECT * FROM zego_events ORDER BY id")


def are_marked(stage: Stage, tasks: Collection[str]) -> bool:
    return sum(row["delivered_at"] is not None for row in events(stage)) == len(tasks)


def end_leases(stage: Stage) -> None:
    """A lease of a dead daemon is half a minute; tests/services/test_notifier.py waits for it, in virtual time."""
    stage.application.execute("UPDATE zego_events SET wake_at = occurred_at WHERE wake_at IS NOT NULL")


@pytest.mark.parametrize("place", ["claimed", "answered", "commit", "committed"])
@fault(65, "killed with an event on its way to the webhook", quick=True, halts=math.inf)
async def test_killed_with_an_event_on_its_way(stage: Stage, place: str) -> None:
    async with receiving() as receiver:
        daemon = await stage.begin(faults=f"notify.{place}=kill", notify=notify(stage.folder, receiver.url))
        (task,) = await stage.abandon(1)
        await stage.strikes("it is dead", lambda: not daemon.alive)
        assert len(receiver.ids.get(task, ())) == (place != "claimed")
        assert are_marked(stage, [task] if place == "committed" else [])

        await daemon.start()
        await asyncio.to_thread(end_leases, stage)
        await stage.recovers("the event is delivered", lambda: are_marked(stage, [task]))
        assert len(receiver.ids[task]) == (2 if place in {"answered", "commit"} else 1)
        await stage.audit(stopped=[task], killed=True)
        receiver.audit(stage, [task])


@fault(66, "two daemons with a webhook, killed at random", halts=math.inf)
async def test_killed_at_random_none_is_lost(stage: Stage) -> None:
    chance = random.Random(66)  # noqa: S311 - a test's own
    async with receiving() as receiver:
        await stage.open(max_idle_seconds=900)
        window, hook = {"max_idle_seconds": 900}, notify(stage.folder, receiver.url)
        daemons = [stage.daemon(policy=window, notify=hook) for _ in range(2)]
        for daemon in daemons:
            await daemon.start()
        rooms: list[str] = []
        for _ in range(10):
            rooms += await stage.abandon(4)
            victim = chance.choice(daemons)
            await stage.clock.sleep(chance.uniform(0.5, 1.5))
            await victim.end(signal.SIGKILL)
            stage.struck()
            await victim.start()
        await stage.until("all have ended", lambda: stage.ended(rooms), seconds=120)
        await asyncio.to_thread(end_leases, stage)
        await stage.recovers("all events are delivered", lambda: are_marked(stage, rooms), seconds=60)
        for daemon in daemons:
            assert await daemon.end() == 0
        await stage.audit(stopped=rooms, killed=True)
        receiver.audit(stage, rooms)


@pytest.mark.parametrize("database_url", ["own_postgresql"], indirect=True)
@fault(66, "PostgreSQL restarted while events are delivered", halts=math.inf)
async def test_the_database_restarts_while_events_are_delivered(stage: Stage, own_server: Server) -> None:
    async with receiving() as receiver:
        await stage.begin(notify=notify(stage.folder, receiver.url))
        rooms = await stage.abandon(20)
        await stage.until("some are delivered", lambda: len(receiver.ids) > 2)
        await asyncio.to_thread(own_server.stop, "immediate")
        stage.struck()
        await asyncio.to_thread(own_server.start)
        await stage.until("all have ended", lambda: stage.ended(rooms), seconds=60)
        await asyncio.to_thread(end_leases, stage)
        await stage.recovers("all events are delivered", lambda: are_marked(stage, rooms), seconds=60)
        await stage.audit(stopped=rooms)
        receiver.audit(stage, rooms)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await reader.read()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")


async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(b"HTTP/1.1 307 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")


async def overflow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 1073741824\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100_000:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.001)  # noqa: TID251 - it is slow by the wall clock


@pytest.mark.parametrize("receiver", [hang, refuse, gone, redirect, overflow, drip], ids=lambda one: one.__name__)
@fault(67, "a receiver that hangs, refuses, redirects, overflows or drips, while rooms empty")
async def test_a_bad_receiver_delays_no_stop(stage: Stage, receiver: Conversation) -> None:
    async with serving(receiver) as url:
        daemon = await stage.begin(notify=notify(stage.folder, url))
        rooms: list[str] = []
        for _ in range(5):
            rooms += await stage.abandon(10)
            await stage.clock.sleep(0.5)
            stage.struck()
        await stage.recovers("all are stopped", lambda: stage.ended(rooms))
        await stage.until("it has been tried", lambda: any(row["attempts"] for row in events(stage)))
        assert not daemon.events("job_failed")
        assert not any(row["delivered_at"] for row in events(stage))
        if receiver is gone:
            await stage.until("it says so", lambda: bool(daemon.events("webhook_suspended")))
        # It is in the way neither of a shutdown nor of the events' next attempt.
        assert await daemon.end() == 0
        await stage.audit(stopped=rooms)
    async with receiving() as good:
        daemon.configure(notify={"url": good.url})
        await daemon.start()
        await asyncio.to_thread(end_leases, stage)
        await stage.until("all are delivered", lambda: are_marked(stage, rooms))
        good.audit(stage, rooms)


async def reloaded(daemon: Daemon, **sections: dict[str, object]) -> None:
    before = len(daemon.events("reloaded"))
    daemon.configure(**sections)
    daemon.send(signal.SIGHUP)
    await eventually("it has reloaded", lambda: len(daemon.events("reloaded")) > before)


@fault(67, "the webhook's secret is rotated, and its address changed, while events are delivered", quick=True)
async def test_a_secret_is_rotated_without_a_gap(stage: Stage) -> None:
    new = "whsec_" + "QUJD" * 8
    heads: list[tuple[str, bytes]] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await read_request(reader))
            writer.write(DELIVERED)

    def is_accepted(secret: str) -> bool:
        head, body = heads[-1]
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        try:
            return bool(json.loads(body) == Webhook(secret).verify(body, headers))
        except WebhookVerificationError:
            return False

    rooms: list[str] = []
    async with serving(note) as url, receiving() as other:
        daemon = await stage.begin(notify=notify(stage.folder, url))
        for number, (content, accepted) in enumerate(
            [(SECRET, [SECRET]), (f"{new}\n{SECRET}", [SECRET, new]), (new, [new])]
        ):
            secret_file(stage.folder / "hook", content)
            await reloaded(daemon)
            stage.struck()
            rooms += await stage.abandon(1)
            await stage.until("it is delivered", lambda: len(heads) == number + 1)  # noqa: B023 - used at once
            assert [secret for secret in (SECRET, new) if is_accepted(secret)] == accepted
        secret_file(stage.folder / "hook", SECRET)
        await reloaded(daemon, notify={"url": other.url})
        rooms += await stage.abandon(1)
        await stage.until("the new address has it", lambda: other.has_all(rooms[-1:]))
    await stage.audit(stopped=rooms)
    assert SECRET.removeprefix("whsec_") not in daemon.log.read_text()
