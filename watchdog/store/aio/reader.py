"""Reading beside the daemon's work: a thread and a connection of its own, so that no stop waits for it.

On SQLite a reader does not block writers, but while it reads the write-ahead log grows; so each call has a time limit.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import psycopg
import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.errors import DatabaseError, TooSlow
from watchdog.store.engine import place

R = TypeVar("R")

READ_SECONDS: Final = 2.0
"""How long a statement may take; on SQLite, all statements of a call together."""

_STEPS: Final = 50_000
"""SQLite's virtual machine looks at the clock after so many instructions: a few milliseconds."""


class Reader:
    """Reads in one thread with one connection, which cannot write."""

    def __init__(self, engine: sa.Engine, clock: Clock, *, read_seconds: float = READ_SECONDS) -> None:
        """``engine`` is ours alone and has one connection. PostgreSQL keeps the time limit of the engine itself."""
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._read_seconds = read_seconds
        self._until = float("inf")
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", self._limit)
            self._engine = engine
        else:
            self._engine = engine.execution_options(postgresql_readonly=True)

    async def call(self, work: Callable[[sa.Engine], R]) -> R:
        """Run ``work`` in the thread; raises what it raises, and TooSlow if it takes too long.

        A call that has begun goes on if its caller is cancelled.
        """
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._run, work)))

    async def close(self) -> None:
        """Wait for the running call; those that wait are cancelled."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._engine.dispose()

    def _run(self, work: Callable[[sa.Engine], R]) -> R:
        self._until = self._clock.monotonic() + self._read_seconds
        try:
            return work(self._engine)
        except DatabaseError as error:
            if _is_time_limit(error):
                raise TooSlow(f"{place(self._engine)}: reading took longer than {self._read_seconds:g} s") from error
            raise

    def _limit(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")
        connection.set_progress_handler(self._is_late, _STEPS)

    def _is_late(self) -> bool:
        return self._clock.monotonic() > self._until


def _is_time_limit(error: DatabaseError) -> bool:
    cause = getattr(error.__cause__, "orig", None)
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return True
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
