"""Calls in worker threads: what they raise, and what is counted."""

import threading
from collections.abc import AsyncIterator

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
