"""Groups of callbacks: which are committed together, which are refused, and what each caller gets."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ParamSpec, TypeVar

import pytest
import sqlalchemy as sa

from simulation.virtual import START
from tests.support.clock import SettableClock
from tests.support.store_steps import begun
from tests.support.time_travel import World
from watchdog.errors import DatabaseError, DatabaseUnavailable, Overloaded, RowLocked
from watchdog.store.aio.callbacks import ANSWERS_AT_ONCE, LEAST, MOST, SLOW_SECONDS, CallbackGroups
from watchdog.store.aio.calls import AsyncCallbacks
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.callbacks import Callback, CallbackStore, Received, Speech
from watchdog.store.engine import reading, writing
from watchdog.store.tables import tasks

P = ParamSpec("P")
R = TypeVar("R")

APP = 1


def speech(task: str, room: str = "room") -> Speech:
    return Speech(APP, room, task, START, is_person=True, discover=True)


class Turns:
    """Threads that begin a call when the gate is open."""

    is_away = False

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        return method(*args, **kwargs)


class Committer(CallbackStore):
    """Notes the groups; a group with a task of ``errors`` fails."""

    def __init__(self, clock: SettableClock) -> None:
        self.clock = clock
        self.groups: list[list[str]] = []
        self.errors: dict[str, Exception] = {}
        self.takes_seconds = 0.0

    def receive(self, group: Sequence[Callback]) -> list[Received]:
        self.clock.advance(self.takes_seconds)
        names = [one.task_id for one in group if isinstance(one, Speech)]
        self.groups.append(names)
        for name in names:
            if name in self.errors:
                raise self.errors[name]
        return [Received(discovered=name == "new") for name in names]


class Bench:
    def __init__(self, at_once: int = 1) -> None:
        self.clock = SettableClock()
        self.turns = Turns()
        self.store = Committer(self.clock)
        self.groups = CallbackGroups(AsyncCallbacks(self.turns, self.store), self.clock, at_once=at_once)

    async def submit(self, *names: str) -> list[Received | BaseException]:
        return await asyncio.gather(*(self.groups.submit(speech(name)) for name in names), return_exceptions=True)


async def test_those_that_wait_for_a_thread_are_committed_together_and_each_gets_its_result() -> None:
    bench = Bench()
    bench.turns.gate.clear()
    (waiting,) = await begun(bench.submit("a", "new"))
    (later,) = await begun(bench.submit("c"))
    assert not waiting.done()
    bench.turns.gate.set()
    assert await waiting == [Received(), Received(discovered=True)]
    assert await later == [Received()]
    assert bench.store.groups == [["a", "new", "c"]]


async def test_between_answers_others_have_a_turn() -> None:
    """A stop needs several turns of the event loop: with all answers of a group in each of them it would be late."""
    bench, turn = Bench(), 0
    answered: Counter[int] = Counter()

    async def one(number: int) -> None:
        await bench.groups.submit(speech(str(number)))
        answered[turn] += 1

    all_of_them = asyncio.gather(*(one(number) for number in range(4 * ANSWERS_AT_ONCE)))
    async with asyncio.timeout(30):
        while not all_of_them.done():
            turn += 1
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop
    assert len(bench.store.groups) == 1
    assert max(answered.values()) == ANSWERS_AT_ONCE


async def test_one_that_cannot_begin_in_time_is_refused_and_never_committed() -> None:
    bench = Bench()
    bench.turns.gate.clear()
    (refused,) = await bench.submit("late")
    assert isinstance(refused, Overloaded)
    (waiting,) = await begun(bench.submit("next"))
    bench.turns.gate.set()
    assert await waiting == [Received()]
    assert bench.store.groups == [["next"]]


async def test_a_queue_that_takes_too_long_is_not_joined() -> None:
    bench = Bench()
    bench.store.takes_seconds = 0.06
    for number in range(10):
        await bench.submit(str(number))
    bench.turns.gate.clear()
    (waiting,) = await begun(bench.submit(*map(str, range(2 * LEAST))))
    (refused,) = await bench.submit("late")
    assert isinstance(refused, Overloaded)
    assert "wait" in str(refused)
    bench.turns.gate.set()
    assert await waiting == [Received()] * 2 * LEAST
    # Nothing waits any more: whatever the groups have taken, it is tried.
    assert await bench.submit("again") == [Received()]


async def test_groups_that_take_long_become_smaller_and_those_that_do_not_larger() -> None:
    bench = Bench()
    bench.store.takes_seconds = 0.016
    await bench.submit(*map(str, range(MOST + MOST // 2 + 1)))
    assert [len(group) for group in bench.store.groups] == [MOST, MOST // 2, 1]
    bench.store.takes_seconds = 0.001
    for _ in range(MOST // LEAST):
        await bench.submit("quick")
    await bench.submit(*map(str, range(MOST)))
    assert len(bench.store.groups[-1]) == MOST


@pytest.mark.parametrize("error", [DatabaseError("refused"), RowLocked("held")])
async def test_a_bad_one_gets_its_own_answer_and_harms_no_neighbour(error: DatabaseError) -> None:
    bench = Bench()
    bench.store.errors["bad"] = error
    results = await bench.submit("a", "b", "bad", "c", "d")
    assert results == [Received(), Received(), error, Received(), Received()]
    assert sorted(name for group in bench.store.groups if "bad" not in group for name in group) == ["a", "b", "c", "d"]


async def test_while_the_database_is_away_nobody_is_tried_again() -> None:
    bench = Bench()
    bench.store.errors["a"] = away = DatabaseUnavailable("away")
    assert await bench.submit("a", "b") == [away, away]
    assert bench.store.groups == [["a", "b"]]


async def test_a_caller_that_leaves_takes_nothing_with_it_and_its_error_is_no_noise() -> None:
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
    bench = Bench()
    bench.store.errors["a"] = DatabaseError("refused")
    bench.turns.gate.clear()
    leaving, staying = await begun(bench.groups.submit(speech("a")), bench.groups.submit(speech("b")))
    leaving.cancel()
    await begun()
    bench.turns.gate.set()
    assert await staying == Received()
    assert leaving.cancelled()
    assert noise == []


# With a database


@pytest.fixture
async def threads(world: World) -> AsyncIterator[DatabaseThreads]:
    threads = DatabaseThreads(world.engine, world.clock)
    yield threads
    threads.close()


def groups_of(world: World, threads: DatabaseThreads, at_once: int = 1) -> CallbackGroups:
    store = CallbackStore(world.engine, "host/1", APP)
    return CallbackGroups(AsyncCallbacks(threads.background, store), world.clock, at_once=at_once)


def watched(world: World) -> set[str]:
    with reading(world.engine) as connection:
        return set(connection.execute(sa.select(tasks.c.task_id)).scalars())


async def test_what_a_caller_was_told_is_committed(world: World, threads: DatabaseThreads) -> None:
    groups = groups_of(world, threads)
    found: dict[str, bool] = {}

    async def one(name: str) -> None:
        assert (await groups.submit(speech(name))).discovered
        found[name] = name in watched(world)

    await asyncio.gather(*(one(f"t{number}") for number in range(30)))
    assert found == {f"t{number}": True for number in range(30)}


async def test_one_that_the_database_refuses_is_undone_alone(world: World, threads: DatabaseThreads) -> None:
    groups = groups_of(world, threads)
    bad = speech("bad", room="")
    told = [speech("a"), speech("b"), bad, speech("c")]
    results = await asyncio.gather(*map(groups.submit, told), return_exceptions=True)
    assert [isinstance(result, DatabaseError) for result in results] == [False, False, True, False]
    assert watched(world) == {"a", "b", "c"}


async def test_a_stop_is_never_behind_more_than_one_group(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.store.aio.callbacks.BEGIN_WITHIN_SECONDS", 60.0)
    world, gate, order = sqlite_world, threading.Event(), list[str]()
    threads = DatabaseThreads(world.engine, world.clock)

    class Slow(CallbackStore):
        def receive(self, group: Sequence[Callback]) -> list[Received]:
            gate.wait(10)
            order.append(f"group of {len(group)}")
            return super().receive(group)

    groups = CallbackGroups(AsyncCallbacks(threads.background, Slow(world.engine, "host/1", APP)), world.clock)
    first = await begun(groups.submit(speech("first")))
    later = await begun(*(groups.submit(speech(f"t{number}")) for number in range(5)))
    stops = await begun(*(threads.call(order.append, "stop") for _ in range(3)))
    gate.set()
    await asyncio.gather(*first, *later, *stops)
    assert order == ["group of 1", "stop", "stop", "stop", "group of 5"]
    threads.close()


async def test_who_waits_too_long_for_a_commit_is_told_so_and_the_commit_goes_on(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchdog.store.aio.callbacks.ANSWER_SECONDS", 0.05)
    world, gate = sqlite_world, threading.Event()
    threads = DatabaseThreads(world.engine, world.clock)

    class Slow(CallbackStore):
        def receive(self, group: Sequence[Callback]) -> list[Received]:
            gate.wait(10)
            return super().receive(group)

    groups = CallbackGroups(AsyncCallbacks(threads.background, Slow(world.engine, "host/1", APP)), world.clock)
    with pytest.raises(TimeoutError, match=r"not committed after 0\.05 s"):
        await groups.submit(speech("slow"))
    assert watched(world) == set()
    monkeypatch.undo()
    gate.set()
    assert await groups.submit(speech("next")) == Received(discovered=True)
    assert watched(world) == {"slow", "next"}
    threads.close()


async def test_beside_a_group_that_takes_long_another_one_begins_where_there_may_be_two() -> None:
    bench = Bench(at_once=2)
    bench.turns.gate.clear()
    (first,) = await begun(bench.submit("a"))
    (quick,) = await begun(bench.submit("b"))
    assert bench.turns.waiting == 1
    bench.clock.advance(SLOW_SECONDS * 1.01)
    (late,) = await begun(bench.submit("c"))
    assert bench.turns.waiting == 2
    (later,) = await begun(bench.submit("d"))
    assert bench.turns.waiting == 2
    bench.turns.gate.set()
    assert [await one for one in (first, quick, late, later)] == [[Received()]] * 4


async def test_a_row_that_another_holds_costs_its_own_callbacks_an_answer_and_no_others(
    postgresql_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchdog.store.aio.callbacks.BEGIN_WITHIN_SECONDS", 60.0)
    world = postgresql_world
    threads = DatabaseThreads(world.engine, world.clock)
    groups = groups_of(world, threads)
    for name in ("held", "free"):
        world.app.start(name, name)
    other = world.another_store("host/2").engine
    with writing(other) as holding:
        holding.execute(sa.text("SELECT * FROM zego_tasks WHERE task_id = 'held' FOR UPDATE"))
        told = [speech("free", room="free"), speech("held", room="held")]
        results = await asyncio.gather(*map(groups.submit, told), return_exceptions=True)
    assert results[0] == Received()
    assert isinstance(results[1], RowLocked)
    assert not threads.is_away
    threads.close()


async def test_after_the_end_of_the_threads_nobody_waits(world: World) -> None:
    threads = DatabaseThreads(world.engine, world.clock)
    groups = groups_of(world, threads)
    threads.close()
    with pytest.raises(RuntimeError):
        await groups.submit(speech("t"))
