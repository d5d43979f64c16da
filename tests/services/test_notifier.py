"""The notifier: claim, POST, conclude, on both databases in virtual time. The receiver is a handler of the test's."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.time_travel import World
from watchdog.core.webhook import FIRST_WAIT_SECONDS, GIVE_UP_SECONDS, LONGEST_WAIT_SECONDS, Result
from watchdog.errors import ConfigError, DatabaseUnavailable
from watchdog.observer import Observer
from watchdog.services import notifier
from watchdog.services.notifier import BATCH, OFF_SECONDS, POLL_SECONDS, Notifications, Notifier
from watchdog.store.aio.calls import AsyncEvents
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.events import EventStore
from watchdog.store.records import Delivery, Event
from watchdog.webhook.client import Target, WebhookClient

TYPES = {"task.stopped": True, "task.failed": False}
CONCURRENCY = 3

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Counts(Observer):
    def __init__(self) -> None:
        self.results: list[Result] = []

    def delivery(self, result: Result) -> None:
        self.results.append(result)


class Receiver:
    """Answers with ``status``; keeps each event's id and the task it is about."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.got: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append((request.headers["webhook-id"], json.loads(request.content)["data"]["task_id"]))
        return httpx.Response(self.status, headers=self.headers)

    @property
    def tasks(self) -> list[str]:
        return [task_id for _, task_id in self.got]


class Daemon:
    """One daemon's notifier, with connections of its own to the database."""

    def __init__(self, world: World, handler: Handler, instance: str = "host/1") -> None:
        self.store = EventStore(world.another_store(instance).engine, instance)
        self.threads = DatabaseThreads(self.store.engine, world.clock)
        self.counts = Counts()
        self.handler = handler
        database_clock = DatabaseClock(world.clock)
        database_clock.synchronise(world.now)
        self.target = Target("https://hooks.test/", (b"k" * 24,), concurrency=CONCURRENCY)
        self.notifier = Notifier(
            notifications=Notifications(TYPES, self.target),
            events=AsyncEvents(self.threads.background, self.store),
            database_clock=database_clock,
            clock=world.clock,
            connect=lambda target: WebhookClient(target, world.clock, transport=httpx.MockTransport(self._answer)),
            observer=self.counts,
            chance=lambda: 0.5,
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = self.handler(request)
        return answer if isinstance(answer, httpx.Response) else await answer

    async def run_once(self) -> float:
        return await self.notifier.run_once()


@contextmanager
def failing(engine: sa.Engine, table: str) -> Iterator[list[bool]]:
    """Let UPDATEs of a table fail as if the database were away, until the list is emptied."""
    on = [True]

    def fail(_: object, __: object, statement: str, *___: object) -> None:
        if on and statement.startswith(f"UPDATE {table} SET"):
            raise DatabaseUnavailable("the database is away")

    sa.event.listen(engine, "before_cursor_execute", fail)
    yield on
    sa.event.remove(engine, "before_cursor_execute", fail)


def end(world: World, *task_ids: str, status: str = "stopped") -> None:
    for task_id in task_ids:
        world.app.start(task_id)
        world.app.change(task_id, status=status)


def rows(world: World, *columns: str) -> list[Sequence[Any]]:
    found = world.app.rows("SELECT * FROM zego_events ORDER BY id")
    return [tuple(row[name] for name in columns) for row in found]


def are_delivered(world: World) -> list[bool]:
    return [at is not None for (at,) in rows(world, "delivered_at")]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def daemon(world: World, receiver: Receiver) -> Daemon:
    made = Daemon(world, receiver)
    await made.notifier.prepare()
    return made


async def test_an_event_is_delivered_once(world: World, daemon: Daemon, receiver: Receiver) -> None:
    end(world, "t")
    end(world, "u", status="failed")
    assert await daemon.run_once() == POLL_SECONDS
    assert await daemon.run_once() == POLL_SECONDS
    assert receiver.tasks == ["t"], "the other type is only written"
    assert rows(world, "task_id", "attempts", "wake_at", "claimed_by", "error") == [
        ("t", 1, None, None, None),
        ("u", 0, None, None, None),
    ]
    assert are_delivered(world) == [True, False]
    assert daemon.counts.results == [Result.DELIVERED]


async def test_more_events_than_one_claim_takes(world: World, daemon: Daemon, receiver: Receiver) -> None:
    names = [f"task-{number}" for number in range(BATCH + 10)]
    end(world, *names)
    assert await daemon.run_once() == POLL_SECONDS
    assert sorted(receiver.tasks) == sorted(names)
    assert all(are_delivered(world))


async def test_as_many_requests_at_a_time_as_are_allowed(world: World) -> None:
    under_way, most = 0, 0

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _turn in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - others have their turn
        under_way -= 1
        return httpx.Response(200)

    daemon = Daemon(world, slow)
    await daemon.notifier.prepare()
    end(world, *(f"task-{number}" for number in range(20)))
    await daemon.run_once()
    assert most == CONCURRENCY
    assert all(are_delivered(world))


async def test_an_event_that_is_refused_is_sent_again_later_with_the_same_id(
    world: World, daemon: Daemon, receiver: Receiver
) -> None:
    receiver.status = 500
    end(world, "t", "u")
    with capture_logs() as logs:
        await daemon.run_once()
    assert receiver.tasks == ["t", "u"], "one event's failure is not that of others"
    assert rows(world, "attempts", "error") == [(1, "HTTP 500"), (1, "HTTP 500")]
    assert [log["event"] for log in logs] == ["event_refused", "event_refused"]
    world.advance(FIRST_WAIT_SECONDS - 1)
    assert await daemon.run_once() == POLL_SECONDS
    assert len(receiver.got) == 2
    world.advance(1)
    receiver.status = 200
    await daemon.run_once()
    assert receiver.got[2:] == receiver.got[:2]
    assert are_delivered(world) == [True, True]
    assert rows(world, "attempts", "error") == [(2, None), (2, None)]


async def test_an_event_is_given_up_after_a_day(world: World, daemon: Daemon, receiver: Receiver) -> None:
    receiver.status = 400
    end(world, "t")
    began, step = world.now, 600
    with capture_logs() as logs:
        while rows(world, "wake_at") != [(None,)]:
            await daemon.run_once()
            world.advance(step)
    assert 0 <= (world.now - began).total_seconds() - GIVE_UP_SECONDS <= 2 * step
    (gave_up,) = (log for log in logs if log["event"] == "event_undelivered")
    ((event_id, attempts),) = rows(world, "id", "attempts")
    assert gave_up == {
        "log_level": "error",
        "event": "event_undelivered",
        "event_id": event_id,
        "type": "task.stopped",
        "task_id": "t",
        "attempts": attempts,
        "error": "HTTP 400",
        "next_step": f"correct the receiver, then: zego-watchdog events redeliver {event_id}",
    }
    assert len(receiver.got) == attempts
    assert daemon.store.redeliver([event_id]) == 1
    receiver.status = 200
    await daemon.run_once()
    assert are_delivered(world) == [True]
    assert len(set(receiver.got)) == 1


async def test_a_receiver_that_is_busy_is_left_alone_and_then_gets_one_probe(
    world: World, daemon: Daemon, receiver: Receiver
) -> None:
    receiver.status = 503
    names = [f"task-{number}" for number in range(20)]
    end(world, *names)
    with capture_logs() as logs:
        assert await daemon.run_once() == FIRST_WAIT_SECONDS
    assert [log["event"] for log in logs] == ["webhook_paused"]
    # With the first failure those that were in flight fail as well; the rest is given back without an attempt.
    assert len(receiver.got) <= CONCURRENCY
    assert sorted(attempts for (attempts,) in rows(world, "attempts")) == [0] * (20 - len(receiver.got)) + [1] * len(
        receiver.got
    )
    assert await daemon.run_once() == FIRST_WAIT_SECONDS
    sent = len(receiver.got)
    world.advance(FIRST_WAIT_SECONDS)
    with capture_logs() as logs:
        assert await daemon.run_once() == 2 * FIRST_WAIT_SECONDS
    assert (len(receiver.got), logs) == (sent + 1, [])
    world.advance(2 * FIRST_WAIT_SECONDS)
    receiver.status = 200
    with capture_logs() as logs:
        await daemon.run_once()
    assert [log["event"] for log in logs if log["log_level"] != "debug"] == ["webhook_answers_again"]
    world.advance(LONGEST_WAIT_SECONDS)
    await daemon.run_once()
    assert all(are_delivered(world))


async def test_retry_after_is_obeyed(world: World, daemon: Daemon, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "100"}
    end(world, "t")
    assert await daemon.run_once() == 100
    world.advance(99)
    assert await daemon.run_once() == 1
    assert len(receiver.got) == 1
    world.advance(1)
    receiver.status = 200
    await daemon.run_once()
    assert are_delivered(world) == [True]


async def test_410_suspends_delivery_until_a_reload(world: World, daemon: Daemon, receiver: Receiver) -> None:
    receiver.status = 410
    end(world, *(f"task-{number}" for number in range(20)))
    with capture_logs() as logs:
        assert await daemon.run_once() == OFF_SECONDS
    assert [log["event"] for log in logs] == ["webhook_suspended"], "once, though several were in flight"
    assert "reload or restart" in logs[0]["next_step"]
    assert daemon.notifier.is_suspended
    assert daemon.notifier.problem is not None
    sent = len(receiver.got)
    assert sent <= CONCURRENCY
    world.advance(2 * GIVE_UP_SECONDS)
    assert await daemon.run_once() == OFF_SECONDS
    assert len(receiver.got) == sent
    assert all(at is not None for (at,) in rows(world, "wake_at")), "they stay pending, for more than a day too"
    daemon.notifier.adopt(Notifications(TYPES, daemon.target))
    receiver.status = 200
    await daemon.run_once()
    assert all(are_delivered(world))
    assert daemon.notifier.problem is None


async def test_a_result_that_the_database_does_not_take_is_written_later(
    world: World, daemon: Daemon, receiver: Receiver
) -> None:
    """Otherwise each outage of the database would repeat what was delivered during it."""
    end(world, "t")

    def answer(request: httpx.Request) -> httpx.Response:
        on.append(True)
        return receiver(request)

    daemon.handler = answer
    with failing(daemon.store.engine, "zego_events") as on:
        on.clear()
        with pytest.raises(DatabaseUnavailable):
            await daemon.run_once()
        with pytest.raises(DatabaseUnavailable):
            await daemon.run_once()
        on.clear()
        await daemon.run_once()
    assert receiver.tasks == ["t"]
    assert are_delivered(world) == [True]


async def test_a_row_that_a_consumer_holds_does_not_hold_up_the_others(
    postgresql_world: World, receiver: Receiver
) -> None:
    world = postgresql_world
    daemon = Daemon(world, receiver)
    await daemon.notifier.prepare()
    sa.event.listen(daemon.store.engine, "connect", lambda connection, _: connection.execute("SET lock_timeout = 100"))
    daemon.store.engine.dispose()
    end(world, "t", "u", "v")
    consumer = world.connect()

    def answer(request: httpx.Request) -> httpx.Response:
        if not receiver.got:
            consumer.execute("BEGIN")
            consumer.execute("SELECT id FROM zego_events WHERE task_id = 'u' FOR UPDATE")
        return receiver(request)

    daemon.handler = answer
    assert await daemon.run_once() == POLL_SECONDS
    consumer.execute("ROLLBACK")
    assert are_delivered(world) == [True, False, True]
    world.advance(60)
    await daemon.run_once()
    assert are_delivered(world) == [True, True, True]
    assert len(set(receiver.got)) == 3


async def test_two_daemons_deliver_each_event_once(world: World, receiver: Receiver) -> None:
    daemons = [Daemon(world, receiver, f"host/{number}") for number in (1, 2)]
    for daemon in daemons:
        await daemon.notifier.prepare()
    names = [f"task-{number}" for number in range(2 * BATCH)]
    end(world, *names)
    for _ in range(3):
        await asyncio.gather(*(daemon.run_once() for daemon in daemons))
    assert sorted(receiver.tasks) == sorted(names)
    assert all(are_delivered(world))


async def test_a_daemon_that_dies_before_the_request_loses_no_event(
    world: World, daemon: Daemon, receiver: Receiver
) -> None:
    dead = EventStore(world.engine, "host/dead")
    end(world, "t")
    assert len(dead.claim(10, 45.0)[0]) == 1
    world.advance(44)
    await daemon.run_once()
    assert receiver.got == []
    world.advance(1)
    await daemon.run_once()
    assert receiver.tasks == ["t"]
    assert are_delivered(world) == [True]


async def test_a_daemon_that_dies_after_the_request_leaves_a_duplicate_with_the_same_id(
    world: World, daemon: Daemon, receiver: Receiver
) -> None:
    end(world, "t")
    dying = Daemon(world, receiver, "host/dying")

    def answer(request: httpx.Request) -> httpx.Response:
        on.append(True)
        return receiver(request)

    with failing(dying.store.engine, "zego_events") as on:
        on.clear()
        dying.handler = answer
        with pytest.raises(DatabaseUnavailable):
            await dying.run_once()
    world.advance(60)
    await daemon.run_once()
    assert receiver.tasks == ["t", "t"]
    assert len(set(receiver.got)) == 1
    assert are_delivered(world) == [True]
    # If it was only slow, its result comes too late and changes nothing.
    ((event_id,),) = rows(world, "id")
    assert dying.store.conclude([Delivery(event_id, delivered=False, error="late", wake_seconds=1.0)]) == 0


async def test_a_lease_outlives_every_request_that_begins_under_it(world: World) -> None:
    """A slow receiver: what has not begun in time is given back, and is not sent by two daemons."""
    got: list[str] = []
    seconds = Target("", ()).timeout_seconds - 1
    other, taken_over = EventStore(world.engine, "host/2"), list[Event]()

    async def slow(request: httpx.Request) -> httpx.Response:
        got.append(request.headers["webhook-id"])
        world.advance(seconds)
        taken_over.extend(other.claim(10, 60.0)[0])
        await asyncio.sleep(0)  # noqa: TID251 - others have their turn
        return httpx.Response(200)

    daemon = Daemon(world, slow)
    await daemon.notifier.prepare()
    end(world, *(f"task-{number}" for number in range(12)))
    for _ in range(20):
        await daemon.run_once()
    assert taken_over == []
    assert len(got) == len(set(got)) == 12
    assert other.claim(10, 1.0) == ((), None)
    assert {attempts for (attempts,) in rows(world, "attempts")} == {1}


async def test_a_daemon_that_stops_does_not_wait_for_a_receiver_that_hangs(world: World) -> None:
    begun = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    daemon = Daemon(world, hang)
    await daemon.notifier.prepare()
    end(world, *(f"task-{number}" for number in range(10)))
    running = asyncio.create_task(daemon.run_once())
    await begun.wait()
    with capture_logs() as logs:
        await daemon.notifier.close()
        assert await running == OFF_SECONDS
    assert logs == []
    assert len(EventStore(world.engine, "host/2").claim(20, 1.0)[0]) == 10, "all are due at once, for the next daemon"
    await daemon.notifier.aclose()


async def test_without_a_target_events_are_written_for_others(world: World, receiver: Receiver) -> None:
    daemon = Daemon(world, receiver)
    daemon.notifier.adopt(Notifications({"task.stopped": False}, None))
    assert await daemon.run_once() == OFF_SECONDS
    end(world, "t")
    assert await daemon.run_once() == OFF_SECONDS
    assert rows(world, "task_id", "wake_at") == [("t", None)]
    daemon.notifier.adopt(Notifications({}, None))
    await daemon.run_once()
    end(world, "u")
    assert rows(world, "task_id") == [("t",)]
    assert receiver.got == []


async def test_certificates_that_cannot_be_loaded_later_on_do_not_end_the_daemon(world: World, daemon: Daemon) -> None:
    def refuse(_: Target) -> WebhookClient:
        raise ConfigError("no certificates")

    daemon.notifier._connect = refuse
    daemon.notifier.adopt(Notifications(TYPES, daemon.target))
    end(world, "t")
    with capture_logs() as logs:
        assert await daemon.run_once() == notifier._UNUSABLE_SECONDS
    assert [(log["event"], log["error"]) for log in logs] == [("webhook_unusable", "no certificates")]
    assert rows(world, "attempts") == [(0,)]
