"""Calls in worker threads: what they raise, and what is counted."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.store_steps import begun
from tests.support.time_travel import World
from watchdog.errors import DatabaseError, DatabaseUnavailable
from watchdog.store.aio.threads import DatabaseThreads


@pytest.fixture
async def threads(world: World) -> AsyncIterator[DatabaseThreads]:
    threads = DatabaseThreads(world.engine, world.clock)
    yield threads
    threads.close()


async def test_a_call_that_fails_raises_what_the_store_raised(threads: DatabaseThreads) -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(DatabaseError, match="because"):
        await threads.call(fail, DatabaseError("because"))
    assert (threads.errors, threads.is_away) == (1, False)
    with pytest.raises(DatabaseUnavailable):
        await threads.call(fail, DatabaseUnavailable("away"))
    assert (threads.errors, threads.is_away) == (2, True)
    await threads.call(threading.get_ident)
    assert (threads.errors, threads.is_away, threads.pending) == (2, False, 0)


async def test_a_call_is_completed_though_its_caller_is_cancelled(world: World, threads: DatabaseThreads) -> None:
    gate = threading.Event()
    (leaving,) = await begun(threads.call(gate.wait, 10))
    world.advance(5)
    leaving.cancel()
    await begun()
    assert (leaving.cancelled(), threads.pending) == (True, 1)
    gate.set()
    await threads.call(threading.get_ident)
    while threads.pending:
        await begun()
    assert threads.answered_at == world.clock.monotonic()


async def test_a_call_in_the_background_begins_only_when_nothing_else_would_wait_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite there is one thread: calls on the way of a stop are never behind more than one other call."""
    threads, gate, begun_in_order = DatabaseThreads(world.engine, world.clock), threading.Event(), list[str]()
    begin = threads.begin

    def noting(method: Any, *args: Any) -> asyncio.Future[Any]:
        begun_in_order.append("stop" if args else "background")
        return begin(method, *args)

    monkeypatch.setattr(threads, "begin", noting)
    number = 1 if world.engine.dialect.name == "sqlite" else world.engine.pool.size()  # type: ignore[attr-defined] # QueuePool's
    at_first = max(1, number - 2)
    background = await begun(*(threads.background.call(gate.wait, 10) for _ in range(10)))
    assert threads.pending == at_first
    stops = await begun(*(threads.call(gate.wait, 10) for _ in range(6)))
    gate.set()
    await asyncio.gather(*background, *stops)
    assert begun_in_order == ["background"] * at_first + ["stop"] * 6 + ["background"] * (10 - at_first)
    threads.close()


async def test_a_cancelled_call_in_the_background_is_not_begun(world: World) -> None:
    threads, gate = DatabaseThreads(world.engine, world.clock), threading.Event()
    calls = [threads.background.call(gate.wait, 10) for _ in range(10)]
    running = await begun(*calls)
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    gate.set()
    assert await threads.background.call(threading.get_ident)
    while threads.pending:
        await begun()
    threads.close()
