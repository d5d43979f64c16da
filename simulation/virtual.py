"""Virtual time: it moves to the next timer when nothing else is left to do, so hours pass in seconds.

For code that waits on timers alone. Sockets and worker threads take real time, which virtual time would overtake:
use ``AtOnce`` instead of a thread pool. Tests use this module as well.
"""

import asyncio
import selectors
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import Any, Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_SQL_NOW: Final = "%Y-%m-%d %H:%M:%f000"
"""The one format that the product and its triggers use."""

_TURN_SECONDS: Final = 1e-9
"""What a turn of the loop takes, so that a wait shorter than a float's precision ends as well."""


class _SkippingSelector(selectors.DefaultSelector):
    """Moves the time instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        self.now += max(timeout, _TURN_SECONDS)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, in seconds from 0."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def hold_up(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as when something blocks the loop."""
        self._skipping.now += seconds


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def loop_seconds() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


class AtOnce(ThreadPoolExecutor):
    """Runs what it is given before ``submit`` returns."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a thread hands it on
            future.set_exception(error)
        return future


class VirtualClock:
    """A ``Clock`` that reads ``seconds``, by default the time of the running loop.

    ``now`` is the database's time; ``host_is_off_by`` is the error of the host's wall clock in seconds.
    """

    def __init__(self, seconds: Callable[[], float] = loop_seconds, *, start: datetime = START) -> None:
        self.host_is_off_by = 0.0
        self._seconds = seconds
        self._start = start
        self._start_unix = start.timestamp()

    def time(self) -> float:
        return self._start_unix + self._seconds() + self.host_is_off_by

    def monotonic(self) -> float:
        return self._seconds()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - virtual time

    @property
    def now(self) -> datetime:
        """The database's time."""
        return self._start + timedelta(seconds=self._seconds())


class Now(Protocol):
    """What tells a database's time."""

    @property
    def now(self) -> datetime: ...


class SqliteTime:
    """SQLite's ``strftime`` on a virtual time; fast for the one call that the product makes all the time."""

    def __init__(self, clock: Now) -> None:
        self._clock = clock
        self._sqlite = sqlite3.connect(":memory:", check_same_thread=False)
        self._lock = Lock()
        self._rewritten = lru_cache(maxsize=4096)(self._ask_sqlite)

    def govern(self, connection: sqlite3.Connection) -> None:
        """Make ``connection`` take its time from the clock."""
        connection.create_function("strftime", -1, self._strftime)

    def close(self) -> None:
        self._sqlite.close()

    def _strftime(self, text_format: str, moment: Any = "now", *modifiers: Any) -> Any:
        if moment is None or text_format != _SQL_NOW:
            return self._ask_sqlite(text_format, moment, *modifiers)
        if moment != "now":
            return self._rewritten(text_format, moment, *modifiers)
        seconds, _, unit = (*modifiers, "0 seconds")[0].partition(" ")
        if unit != "seconds" or len(modifiers) > 1:
            return self._ask_sqlite(text_format, moment, *modifiers)
        at = self._clock.now + timedelta(seconds=float(seconds))
        return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}000"

    def _ask_sqlite(self, text_format: str, moment: Any, *modifiers: Any) -> Any:
        if moment == "now":
            moment = f"{self._clock.now:%Y-%m-%d %H:%M:%S.%f}"
        marks = ", ".join("?" * (2 + len(modifiers)))
        with self._lock:
            return self._sqlite.execute(f"SELECT strftime({marks})", (text_format, moment, *modifiers)).fetchone()[0]
