"""Callbacks, committed in groups in what the stops leave of the database; more than that is refused.

A callback that cannot begin within a tenth of a second is refused rather than queued: the vendor repeats it. One
group is under way at a time, the larger the cheaper, and none is so large that a stop behind it would be late. On
PostgreSQL a second one begins when the first takes long: it may wait for a row.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from watchdog.clock import Clock
from watchdog.errors import DatabaseError, DatabaseUnavailable, Overloaded, RowLocked
from watchdog.store.aio.calls import AsyncCallbacks
from watchdog.store.callbacks import Callback, CallbackStore, Received

BEGIN_WITHIN_SECONDS: Final = 0.1
"""A callback whose group has not begun by then is refused."""

ANSWER_SECONDS: Final = 5.0
"""For a callback to be committed. After that its sender is told to repeat it; the call itself goes on."""

SLOW_SECONDS: Final = 0.03
"""Beside a group that takes longer another one begins, where there may be two."""

GROUP_SECONDS: Final = 0.015
"""A group that takes longer makes the next ones smaller: a stop may have to wait for it."""

ANSWERS_AT_ONCE: Final = 4
"""How many callbacks are answered in one turn of the event loop: a stop needs several turns."""

MOST: Final = 200
LEAST: Final = 50
"""Callbacks in a group; below ``LEAST`` most of the time is that of the commit itself."""


class _Waiting:
    """A callback, and the future of its result."""

    __slots__ = ("callback", "result", "until")

    def __init__(self, callback: Callback, until: float) -> None:
        self.callback = callback
        self.until = until
        """When it is refused unless its group has begun, by the event loop's clock."""
        self.result: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

    def succeed(self, result: Received) -> None:
        # Its caller may have left.
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class CallbackGroups:
    """``submit`` commits a callback together with others; at most ``at_once`` groups are under way."""

    def __init__(self, calls: AsyncCallbacks, clock: Clock, *, at_once: int = 1) -> None:
        self._calls = calls
        self._clock = clock
        self._at_once = at_once
        self._waiting: deque[_Waiting] = deque()
        """The event loop adds to it and removes from it, and threads take from it: each with one atomic call."""
        self._most = MOST
        self._turnaround_seconds = 0.0
        """How long a group has lately taken, with its wait for a thread."""
        self._workers: set[asyncio.Task[None] | None] = set()
        self._began_at = 0.0
        """When the newest group was asked for."""
        self._refusing: asyncio.TimerHandle | None = None

    async def submit(self, callback: Callback) -> Received:
        """Return the result after the commit. Raises Overloaded, DatabaseError, and TimeoutError."""
        groups_ahead = len(self._waiting) // (self._most * self._at_once)
        if groups_ahead * self._turnaround_seconds > BEGIN_WITHIN_SECONDS:
            raise Overloaded(f"{len(self._waiting)} callbacks wait, more than the database takes in so short a time")
        loop = asyncio.get_running_loop()
        one = _Waiting(callback, loop.time() + BEGIN_WITHIN_SECONDS)
        self._waiting.append(one)
        if not self._workers or (
            len(self._workers) < self._at_once and self._clock.monotonic() - self._began_at > SLOW_SECONDS
        ):
            self._workers.add(loop.create_task(self._work()))
        if self._refusing is None:
            self._refusing = loop.call_at(one.until, self._refuse)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await one.result
        except TimeoutError:
            raise TimeoutError(f"not committed after {ANSWER_SECONDS:g} s") from None

    def _refuse(self) -> None:
        """Refuse those that have waited too long. One timer for all: one for each would cost as much as its JSON."""
        now = asyncio.get_running_loop().time()
        self._refusing = None
        while (first := self._first()) is not None:
            if first.until > now:
                self._refusing = asyncio.get_running_loop().call_at(first.until, self._refuse)
                return
            with suppress(ValueError):  # else its group has just begun
                self._waiting.remove(first)
                patience = f"{BEGIN_WITHIN_SECONDS:g} s"
                first.fail(Overloaded(f"stops and other callbacks left no time for it within {patience}"))

    def _first(self) -> _Waiting | None:
        # A thread may take the only one at any moment.
        with suppress(IndexError):
            return self._waiting[0]
        return None

    async def _work(self) -> None:
        while self._waiting:
            group = list[_Waiting]()
            began = self._began_at = self._clock.monotonic()
            await self._commit(group)
            took = self._clock.monotonic() - began
            self._turnaround_seconds += (took - self._turnaround_seconds) / 4
        # Here, not when the task is done: who was just answered may submit the next one before that.
        self._workers.discard(asyncio.current_task())

    async def _commit(self, group: list[_Waiting]) -> None:
        """Commit a group, or if it is empty the callbacks that wait when a thread begins with it."""
        try:
            results, took = await self._calls.together(lambda store: self._receive(store, group))
        except Exception as error:  # noqa: BLE001 - each caller gets it
            await self._failed(group, error)
            return
        self._most = max(LEAST, self._most // 2) if took > GROUP_SECONDS else min(MOST, self._most + LEAST)
        for number, (one, result) in enumerate(zip(group, results, strict=True), 1):
            one.succeed(result)
            if number % ANSWERS_AT_ONCE == 0:
                # The loop sends these answers, and takes what the same senders send next; then stops have a turn.
                await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop

    def _receive(self, store: CallbackStore, group: list[_Waiting]) -> tuple[Sequence[Received], float]:
        """Commit, in a thread; return the results, and how many seconds it took."""
        began = self._clock.monotonic()
        if not group:
            with suppress(IndexError):
                while len(group) < self._most:
                    group.append(self._waiting.popleft())
        return store.receive([one.callback for one in group]), self._clock.monotonic() - began

    async def _failed(self, group: Sequence[_Waiting], error: Exception) -> None:
        """Try the halves of a group in which one callback may be to blame; else all callbacks get the error."""
        is_away = isinstance(error, DatabaseUnavailable) and not isinstance(error, RowLocked)
        if len(group) > 1 and isinstance(error, DatabaseError) and not is_away:
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                await self._commit(list(half))
            return
        if not group:
            # It could not begin: the threads have ended.
            group = list(self._waiting)
            self._waiting.clear()
        for one in group:
            one.fail(error)
