"""Worker threads for the calls of the database: the event loop never waits for SQL, and stops never for other work.

Calls on the way of a stop run as soon as a thread is free. Calls in the ``background`` (callbacks, polling, retention,
figures) get what is left: SQLite's only thread while nothing else runs or waits, PostgreSQL's threads but two.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.errors import DatabaseError, DatabaseUnavailable, RowLocked

P = ParamSpec("P")
R = TypeVar("R")

_KEPT_FREE: Final = 2
"""Threads that background calls leave free, if there are more: one claims, one commits."""


class Threads(Protocol):
    """What runs the store's calls."""

    @property
    def is_away(self) -> bool:
        """Whether the last call failed because the database is unavailable."""

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``method`` in a thread; raises what it raises."""


class DatabaseThreads:
    """As many threads as the engine has connections: one on SQLite.

    A call that has begun is completed even if its caller is cancelled: a transaction is never torn apart.
    """

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._number = 1 if engine.dialect.name == "sqlite" else engine.pool.size()  # type: ignore[attr-defined] # QueuePool's
        self._threads = ThreadPoolExecutor(self._number, thread_name_prefix="store")
        self._clock = clock
        self.background = BackgroundCalls(self, max(1, self._number - _KEPT_FREE))
        self.pending = 0
        """How many calls have been handed to a thread and have not returned yet."""
        self.answered_at = clock.monotonic()
        """When the last call returned or failed, on the monotonic clock."""
        self.errors = 0
        """How many calls have failed with a DatabaseError."""
        self.is_away = False
        """Whether the last call failed because the database is unavailable."""

    @property
    def is_free(self) -> bool:
        """Whether a call that is made now begins at once."""
        return self.pending < self._number

    @property
    def serves_stops(self) -> bool:
        """Whether a call is under way that is not in the background."""
        return self.pending > self.background.running

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``method`` in a thread; raises what it raises."""
        return await asyncio.shield(self.begin(method, *args, **kwargs))

    def begin(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """As ``call``; returns its future."""
        running = asyncio.wrap_future(self._threads.submit(method, *args, **kwargs))
        self.pending += 1
        if running.done():
            # From Python 3.14 on it may be.
            self._came_back(running)
        else:
            running.add_done_callback(self._came_back)
        return running

    def _came_back(self, running: asyncio.Future[Any]) -> None:
        self.pending -= 1
        self.answered_at = self._clock.monotonic()
        if not running.cancelled():
            error = running.exception()
            self.is_away = isinstance(error, DatabaseUnavailable) and not isinstance(error, RowLocked)
            self.errors += isinstance(error, DatabaseError)
        self.background.admit()

    def close(self) -> None:
        """Wait for the running calls; blocks. Later calls raise RuntimeError."""
        self._threads.shutdown(wait=True)


class BackgroundCalls:
    """The calls that give way: at most ``most`` run at a time, and each begins only when a thread is free."""

    def __init__(self, threads: DatabaseThreads, most: int) -> None:
        self._threads = threads
        self._most = most
        self.running = 0
        """How many of them have been handed to a thread and have not returned yet."""
        self._waiting: deque[tuple[asyncio.Future[asyncio.Future[Any]], Callable[[], Any]]] = deque()

    @property
    def is_away(self) -> bool:
        return self._threads.is_away

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``method`` in a thread that is left; raises what it raises. A caller that is cancelled waits no more."""
        begun: asyncio.Future[asyncio.Future[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((begun, partial(method, *args, **kwargs)))
        self.admit()
        return await asyncio.shield(await begun)

    def admit(self) -> None:
        """Begin as many calls as there is room for."""
        while self._waiting and self.running < self._most and self._threads.is_free:
            begun, work = self._waiting.popleft()
            if begun.done():
                continue
            try:
                running = self._threads.begin(work)
            except RuntimeError as error:
                begun.set_exception(error)
                continue
            self.running += 1
            running.add_done_callback(self._came_back)
            begun.set_result(running)

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self.running -= 1
        self.admit()
