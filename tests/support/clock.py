"""The clock that a test sets; tests without one run on the event loop's virtual time (``simulation.virtual``)."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from simulation.virtual import START, VirtualClock


class SettableClock(VirtualClock):
    """A ``Clock`` that stands still until ``advance``; ``now`` is the time of the databases that follow it.

    ``sleep`` advances it. With ``sleepers_wait``, a sleeper waits until the test has advanced it far enough.
    ``step_seconds`` is by how much each reading of ``monotonic`` advances it.
    """

    def __init__(self, start: datetime | float = START, *, sleepers_wait: bool = False) -> None:
        """Start at a datetime, or at a Unix time in seconds; ``monotonic`` starts at 0."""
        if not isinstance(start, datetime):
            start = datetime.fromtimestamp(start, UTC)
        super().__init__(self._elapsed_seconds, start=start)
        self.step_seconds = 0.0
        self.slept: list[float] = []
        # Microseconds in an integer: ten steps of 0.1 s are one second.
        self._elapsed = timedelta()
        self._followers: list[Callable[[datetime], None]] = []
        self._sleepers: list[tuple[timedelta, asyncio.Event]] | None = [] if sleepers_wait else None
        self._is_waited_for = asyncio.Event()

    def _elapsed_seconds(self) -> float:
        return self._elapsed.total_seconds()

    def monotonic(self) -> float:
        if self.step_seconds:
            self.advance(self.step_seconds)
        return super().monotonic()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._sleepers is None:
            self.advance(seconds)
            await asyncio.sleep(0)  # noqa: TID251 - no time, but as with the real clock others have their turn
            return
        woken = asyncio.Event()
        self._sleepers.append((self._elapsed + timedelta(seconds=seconds), woken))
        self._is_waited_for.set()
        await woken.wait()

    async def asleep(self) -> None:
        """Return when something has begun to wait since the last ``advance``."""
        await self._is_waited_for.wait()

    def advance(self, seconds: float) -> None:
        self._elapsed += timedelta(seconds=seconds)
        self._is_waited_for.clear()
        for at, woken in self._sleepers or ():
            if at <= self._elapsed:
                woken.set()
        for follow in self._followers:
            follow(self.now)

    def advance_to(self, seconds: float) -> None:
        """Set ``monotonic`` to ``seconds``."""
        self.advance(seconds - self._elapsed.total_seconds())

    def followed_by(self, follow: Callable[[datetime], None]) -> None:
        """Call ``follow`` with the present and every later moment."""
        self._followers.append(follow)
        follow(self.now)
