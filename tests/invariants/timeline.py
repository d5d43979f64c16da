"""One virtual time for several processes in one thread, each with an event loop of its own.

To the others, a process that no longer runs has crashed, without cleanup. One that runs again later was frozen.
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from watchdog.errors import WatchdogError

TURNS_AT_ONCE = 20_000
"""More turns of a loop than this without time passing are an endless loop of the code under test."""

_TURNS_FOR_NOTHING = 100
_TURN_SECONDS = 1e-6


class Livelock(WatchdogError):
    """A process runs in an endless loop while time stands still."""


class Timeline:
    """The time, in seconds from 0, and the events to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do ``what`` then, after everything that was requested earlier for the same moment."""
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), what))

    @property
    def next_at(self) -> float | None:
        return self._events[0][0] if self._events else None

    def happen(self) -> None:
        """Run every event whose time has come."""
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()


class ProcessLoop(asyncio.SelectorEventLoop):
    """The event loop of one process; its time is the Timeline's."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        super().__init__()

    def time(self) -> float:
        return self._timeline.now

    def settle(self, is_running: Callable[[], bool]) -> None:
        """Run until nothing can go on without time passing, or the process is stopped."""
        turns = 0
        while is_running() and ((at := self.next_at) is not None and at <= self._timeline.now):
            # One turn: the stop is noticed at its end.
            self.call_soon(self.stop)
            self.run_forever()
            turns += 1
            if turns > _TURNS_FOR_NOTHING:
                # As in reality, a wait for a rounding error ends.
                self._timeline.now += _TURN_SECONDS
            if turns > TURNS_AT_ONCE:
                raise Livelock(f"{turns} turns of the loop, and it is still {self._timeline.now:.3f} s")

    @property
    def next_at(self) -> float | None:
        """The time of the next callback; the present if one is ready."""
        # asyncio offers no other view of what is waiting; these two are as old as the module. A timer that has been
        # cancelled is told like the others: the turn that it costs removes it.
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined] # asyncio.BaseEventLoop's own
        if ready:
            return self._timeline.now
        return timers[0].when() if timers else None
