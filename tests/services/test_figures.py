"""The figures of the database: what stands in it, and how little of anybody's time it takes to read."""

from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from tests.support.bench import Bench, bench, empty_room, value
from tests.support.time_travel import World
from watchdog.core.model import Status
from watchdog.daemon.metrics import Metrics
from watchdog.observer import Observer, Reading
from watchdog.services.figures import AT_ONCE_SECONDS, EVERY_SECONDS, LEISURE, LONG_PAUSE, PAUSE, DatabaseFigures
from watchdog.store.aio.calls import AsyncFigures
from watchdog.store.callbacks import CallbackStore, Speech
from watchdog.store.events import EventStore
from watchdog.store.figures import ROWS_AT_ONCE, FigureStore


def reader(it: Bench, observer: Observer, *, rows_at_once: int = ROWS_AT_ONCE) -> DatabaseFigures:
    storage = it.parts.storage
    figures = AsyncFigures(storage.threads, FigureStore(storage.engine, "", rows_at_once=rows_at_once))
    return DatabaseFigures(figures, storage.clock, observer, it.world.clock)


async def read_all(figures: DatabaseFigures, world: World) -> None:
    """Take steps until everything has been read, as of this moment or of a few later ones."""
    until = world.clock.monotonic() + EVERY_SECONDS
    while (wait := await figures.run_once()) + world.clock.monotonic() < until:
        world.advance(wait)


@pytest.mark.parametrize("rows_at_once", [1, 3, 4, 1000])
async def test_what_stands_in_the_database(world: World, rows_at_once: int) -> None:
    metrics = Metrics()
    assert value(metrics, "tasks", status="active") is None, "absent until it is known"
    assert value(metrics, "due_tasks") is None
    async with bench(world, metrics) as it:
        for task in ("ended 1", "ended 2"):
            world.app.start(task, "shared")
            world.app.release(task)
        world.app.start("unknown 1", "shared")
        world.app.start("unknown 2", "shared")
        world.app.start("occupied", "occupied", user_count=2)
        world.app.start("empty", "empty", user_count=2)
        world.advance(100)
        world.app.people("empty", 0)
        world.advance(10)
        await it.parts.sweeper._plan()
        world.advance(45)
        figures = reader(it, metrics, rows_at_once=rows_at_once)
        while await figures.run_once() == 0:
            pass
        assert value(metrics, "tasks", status="active") == 4
        assert value(metrics, "unknown_rooms") == 2
        assert value(metrics, "oldest_evidence_seconds") == 155
        assert value(metrics, "oldest_empty_room_seconds") == 55
        assert value(metrics, "due_tasks") == 1
        assert value(metrics, "due_lag_seconds") == (world.now - world.task("empty")["wake_at"]).total_seconds()
        assert value(metrics, "database_refreshed_timestamp_seconds") == world.clock.time()
        assert figures.known is not None
        active = figures.known.active
        assert (active.number, active.occupied, active.empty, active.unknown) == (4, 1, 1, 2)
        assert figures.known.counted_at == world.now
        assert figures.known.ended[Status.RELEASED] == 2
        assert (value(metrics, "sqlite_wal_bytes") is None) == (world.dialect == "postgresql")
        await read_all(figures, world)
    assert {status: value(metrics, "tasks", status=status) for status in ("active", "released", "failed")} == {
        "active": 4,
        "released": 2,
        "failed": 0,
    }


async def test_an_empty_database(world: World) -> None:
    metrics = Metrics()
    async with bench(world, metrics) as it:
        await read_all(reader(it, metrics), world)
    for name in ("unknown_rooms", "oldest_evidence_seconds", "oldest_empty_room_seconds", "due_tasks"):
        assert value(metrics, name) == 0, name
    assert value(metrics, "due_lag_seconds") == 0
    assert value(metrics, "rejoined_stops") == 0


async def test_who_came_back_within_the_day(world: World) -> None:
    metrics = Metrics()
    async with bench(world, metrics, zego={}) as it:
        for task in ("yesterday's", "back", "gone"):
            if task == "back":
                world.advance(86_000)
            await empty_room(it, task, task)
            await it.after(45)
            if task != "gone":
                callbacks = CallbackStore(world.engine, "host/1", 1)
                world.advance(10)
                callbacks.receive([Speech(1, task, task, world.now, is_person=True, discover=False)])
        world.advance(500)
        await read_all(reader(it, metrics), world)
    assert value(metrics, "rejoined_stops") == 1


async def test_events_that_are_not_delivered(world: World) -> None:
    metrics = Metrics()
    names = ("events_pending", "events_undelivered", "oldest_pending_event_seconds")
    async with bench(world, metrics) as it:
        await read_all(reader(it, metrics), world)
        assert [value(metrics, name) for name in names] == [0, 0, 0]
        EventStore(world.engine, "host/1").choose({"task.stopped": True})
        for task in ("given up", "delivered", "old", "new"):
            world.advance(10)
            world.app.start(task)
            world.app.change(task, status="stopped")
        world.app.execute(
            "UPDATE zego_events SET attempts = 1, wake_at = NULL WHERE task_id IN ('given up', 'delivered')"
        )
        world.app.execute("UPDATE zego_events SET delivered_at = occurred_at WHERE task_id = 'delivered'")
        await reader(it, metrics).run_once()
    assert [value(metrics, name) for name in names] == [2, 1, 10]


async def first_round(world: World, figures: DatabaseFigures) -> None:
    """Everything is read once, resting no longer than it takes."""
    wait = took = 0.0
    while wait <= took * 1.001:
        world.advance(wait)
        began = world.clock.monotonic()
        wait = await figures.run_once()
        took = world.clock.monotonic() - began


async def test_who_has_just_started_the_daemon_need_not_wait_for_figures(world: World) -> None:
    metrics = Metrics()
    world.app.start("t", "room")
    async with bench(world, metrics) as it:
        sa.event.listen(world.engine, "after_cursor_execute", lambda *_: world.advance(0.05))
        figures = reader(it, metrics)
        began = world.clock.monotonic()
        await first_round(world, figures)
        assert world.clock.monotonic() - began < 2
    assert figures.known is not None
    assert value(metrics, "tasks", status="released") == 0, "the last of the five"


@pytest.mark.parametrize(("statement_seconds", "times"), [(0.1, PAUSE), (0.001, LONG_PAUSE)])
async def test_after_each_step_nothing_is_read_for_many_times_as_long(
    world: World, statement_seconds: float, times: int
) -> None:
    """A pause is the longer one where that is no longer than ten seconds."""
    metrics = Metrics()
    for number in range(9):
        world.app.start(str(number), f"room {number}")
    async with bench(world, metrics) as it:
        figures = reader(it, metrics, rows_at_once=3)
        sa.event.listen(world.engine, "after_cursor_execute", lambda *_: world.advance(statement_seconds))
        await first_round(world, figures)
        busy = idle = 0.0
        while world.clock.monotonic() < 4000:
            began = world.clock.monotonic()
            wait = await figures.run_once()
            took = world.clock.monotonic() - began
            assert wait >= times * took * 0.999
            busy, idle = busy + took, idle + wait
            world.advance(wait)
    assert busy / (busy + idle) < 1 / times
    assert value(metrics, "tasks", status="active") == 9


async def test_steps_that_are_short_are_taken_at_once(world: World) -> None:
    metrics = Metrics()
    world.app.start("t", "room")
    async with bench(world, metrics) as it:
        figures = reader(it, metrics)
        assert await figures.run_once() == EVERY_SECONDS
        world.advance(0.8 * EVERY_SECONDS)
        assert await figures.run_once() == EVERY_SECONDS, "early, and all of them again"
    assert [value(metrics, name) for name in ("due_tasks", "unknown_rooms", "rejoined_stops")] == [0, 1, 0]
    assert value(metrics, "tasks", status="released") == 0, "the last of the five"


async def test_a_long_step_is_taken_alone(world: World) -> None:
    metrics = Metrics()
    async with bench(world, metrics) as it:
        sa.event.listen(world.engine, "after_cursor_execute", lambda *_: world.advance(AT_ONCE_SECONDS))
        await reader(it, metrics).run_once()
    assert (value(metrics, "due_tasks"), value(metrics, "unknown_rooms")) == (0, None)


@pytest.mark.parametrize(("status", "low", "high"), [("active", LEISURE - 2, LEISURE), ("stopped", 20, 60)])
async def test_the_active_tasks_have_most_of_the_time(
    sqlite_world: World, status: str, low: float, high: float
) -> None:
    """Unless there are few: then those that have ended need not wait."""
    read: Counter[str] = Counter()

    class Counting(Observer):
        def show(self, name: str, value: Reading | Callable[[], Reading]) -> None:  # noqa: ARG002 - inherited
            read[name] += 1

    def takes_long(_: object, __: object, statement: str, *___: object) -> None:
        if "FROM zego_tasks" in statement and "_id > ?" in statement:
            sqlite_world.advance(0.01)

    for number in range(30):
        sqlite_world.app.start(str(number), f"room {number}")
    sqlite_world.app.execute("UPDATE zego_tasks SET status = ?", status)
    async with bench(sqlite_world) as it:
        figures = reader(it, Counting(), rows_at_once=1)
        sa.event.listen(sqlite_world.engine, "after_cursor_execute", takes_long)
        while sqlite_world.clock.monotonic() < 40_000:
            sqlite_world.advance(await figures.run_once())
    active = read["unknown_rooms"]
    ended = read["tasks"] - active
    # A step for each of thirty rows, and as many for those that are active.
    assert ended > 10
    assert low < active / ended < high


async def test_a_database_that_is_away_is_tried_again_and_the_figures_stay(sqlite_world: World) -> None:
    metrics = Metrics()
    sqlite_world.app.start("t")
    async with bench(sqlite_world, metrics) as it:
        figures = reader(it, metrics)
        await read_all(figures, sqlite_world)
        before = value(metrics, "database_refreshed_timestamp_seconds")
        sqlite_world.app.execute("ALTER TABLE zego_tasks RENAME TO zego_away")
        sqlite_world.advance(100)
        assert await figures.run_once() > 0
        assert value(metrics, "database_errors_total") == 1
        assert value(metrics, "database_refreshed_timestamp_seconds") == before
        assert value(metrics, "tasks", status="active") == 1
