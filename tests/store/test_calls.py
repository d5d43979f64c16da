"""The calls of the store as coroutines."""

import threading

from tests.support.time_travel import World
from watchdog.store.aio.calls import AsyncTasks
from watchdog.store.aio.threads import DatabaseThreads


async def test_the_calls_of_the_store_run_in_a_thread(world: World) -> None:
    threads = DatabaseThreads(world.engine, world.clock)
    tasks = AsyncTasks(threads, world.tasks)
    assert await tasks.now() == world.now
    assert await tasks.claim_one("none", "token", lease_seconds=1) is None
    assert await tasks.together(lambda _: threading.get_ident()) != threading.get_ident()
    threads.close()
