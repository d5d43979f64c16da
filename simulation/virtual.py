"""Time that passes only when nobody has anything left to do.

The event loop's time and SQLite's are one number. ``VirtualLoop.run_to`` moves it from timer to timer, each time after
everything that can go on without time has gone on. Worker threads would have a time of their own, so there are none:
``AtOnce`` is the executor.
"""

import asyncio
import heapq
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_START_UNIX: Final = START.timestamp()
_SQL_NOW: Final = "%Y-%m-%d %H:%M:%f000"
"""The one format that the product and its triggers use."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time, in seconds from 0, stands still unless ``run_to`` moves it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[float] = []
        self._handles = 0
        super().__init__()

    def time(self) -> float:
        return self._now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        heapq.heappush(self._timers, when)
        return super().call_at(when, callback, *args, context=context)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._handles += 1
        return super().call_soon(callback, *args, context=context)

    async def run_to(self, end: float, check: Callable[[], None]) -> None:
        """Let time pass until ``end``; belongs to the one coroutine that owns the time.

        ``check`` raises what went wrong meanwhile.
        """
        while True:
            await self._quiet()
            check()
            while self._timers and self._timers[0] <= self._now:
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0] > end:
                break
            self._now = self._timers[0]
        self._now = end

    async def _quiet(self) -> None:
        """Return when nothing has been ready for two turns: in the first, timers may only have become ready."""
        turns = 0
        while turns < 2:
            before = self._handles
            await asyncio.sleep(0)  # noqa: TID251 - no time
            turns = turns + 1 if self._handles == before + 1 else 0


class AtOnce(ThreadPoolExecutor):
    """Does what it is given before ``submit`` returns."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a thread hands it on
            future.set_exception(error)
        return future


class VirtualClock:
    """The loop's time as a ``Clock``."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return _START_UNIX + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - the loop's time is not real

    @property
    def now(self) -> datetime:
        """The database's time."""
        return START + timedelta(seconds=self._loop.time())


class SqliteTime:
    """SQLite's ``strftime`` as of a VirtualClock, quick for what the product says all the time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._sqlite = sqlite3.connect(":memory:", check_same_thread=False)
        self._lock = Lock()
        self._rewritten = lru_cache(maxsize=4096)(self._ask_sqlite)

    def govern(self, connection: sqlite3.Connection) -> None:
        """Have ``connection`` take its time from the clock."""
        connection.create_function("strftime", -1, self._strftime)

    def close(self) -> None:
        self._sqlite.close()

    def _strftime(self, text_format: str, moment: Any = "now", modifier: str = "0 seconds") -> Any:
        if moment is None or text_format != _SQL_NOW:
            return self._ask_sqlite(text_format, moment, modifier)
        if moment != "now":
            return self._rewritten(text_format, moment, modifier)
        seconds, _, unit = modifier.partition(" ")
        if unit != "seconds":
            raise ValueError(f"the simulation does not understand the modifier {modifier!r}")
        at = self._clock.now + timedelta(seconds=float(seconds))
        return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}000"

    def _ask_sqlite(self, text_format: str, moment: Any, modifier: str) -> Any:
        if moment == "now":
            moment = f"{self._clock.now:%Y-%m-%d %H:%M:%S.%f}"
        with self._lock:
            return self._sqlite.execute("SELECT strftime(?, ?, ?)", (text_format, moment, modifier)).fetchone()[0]
