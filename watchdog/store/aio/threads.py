"""Worker threads for the calls of the database: the event loop never waits for SQL."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.errors import DatabaseError, DatabaseUnavailable

P = ParamSpec("P")
R = TypeVar("R")


class DatabaseThreads:
    """As many threads as the engine has connections: one on SQLite.

    A call that has begun is completed even if its caller is cancelled: a transaction is never torn apart.
    """

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        number = 1 if engine.dialect.name == "sqlite" else engine.pool.size()  # type: ignore[attr-defined] # QueuePool's
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="store")
        self._clock = clock
        self.pending = 0
        """How many calls have not returned yet."""
        self.answered_at = clock.monotonic()
        """When the last call returned or failed, on the monotonic clock."""
        self.errors = 0
        """How many calls have failed with a DatabaseError."""
        self.is_away = False
        """Whether the last call failed because the database is unavailable."""

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``method`` in a thread; raises what it raises."""
        running = asyncio.wrap_future(self._threads.submit(method, *args, **kwargs))
        self.pending += 1
        running.add_done_callback(self._came_back)
        return await asyncio.shield(running)

    def _came_back(self, running: asyncio.Future[Any]) -> None:
        self.pending -= 1
        self.answered_at = self._clock.monotonic()
        if running.cancelled():
            return
        error = running.exception()
        self.is_away = isinstance(error, DatabaseUnavailable)
        if isinstance(error, DatabaseError):
            self.errors += 1

    def close(self) -> None:
        """Wait for the running calls; blocks. Later calls raise RuntimeError."""
        self._threads.shutdown(wait=True)
