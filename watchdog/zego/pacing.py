"""How fast requests may leave: one pace per key (an AppId, or a room), slowed down when the vendor says so.

The vendor counts requests per second. So that no second of its clock sees more than allowed, requests leave in evenly
spaced slots at 98 % of the rate. Of the other two percent, one makes up for our own late wake-ups and one for what the
network compresses on the way. This is the only limiter in the program; ``slots`` has the schedule.

A request takes its slot when it is ready to leave. ``admitted`` lets it get ready a tenth of a second before, so that a
committed attempt hardly waits and a slow AppId occupies nothing that others need.

A throttling reply halves the rate: at most once a second, because one burst is answered by a burst of such replies, and
never below a sixteenth. Other replies bring the rate back, from the slowest to the full one in about thirty seconds.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from watchdog.clock import Clock
from watchdog.zego.slots import ALONE, IN_COMPANY, Lane, local_schedule

_LANES_KEPT: Final = 10_000
_SLOWEST: Final = 1 / 16
_SECONDS_BETWEEN_CHANGES: Final = 1.0
_SECONDS_TO_RECOVER: Final = 30.0

Depart = Callable[[], Awaitable[None]]


K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)
K = TypeVar("K", bound=Hashable)


class Schedule(Protocol[K_contra]):
    """The schedule that several daemons share; see ``store.pace``."""

    async def __call__(self, key: K_contra, /, seconds: float, catch_up_seconds: float) -> float:
        """Reserve the next free ``seconds``; return in how many seconds they begin. May raise DatabaseError."""


class Pace(Generic[K]):
    """The pace of every key, an AppId for example; belongs to one event loop."""

    def __init__(self, requests_per_second: float, *, clock: Clock, schedule: Schedule[K] | None = None) -> None:
        """Allow that many requests a second for each key; 0 sets no limit, and then nothing slows down either.

        All daemons with the same ``schedule`` keep the rate together.
        """
        self._full = requests_per_second
        self._share = 1.0
        self._lanes: dict[K, _Lane] = {}
        self._schedule = schedule
        self._clock = clock

    async def depart(self, key: K) -> None:
        """Return when a request of ``key`` may leave; first come, first served. One that is cancelled takes no slot."""
        if self._full > 0:
            await self._lane(key).slots.depart()

    @asynccontextmanager
    async def admitted(self, key: K) -> AsyncIterator[Depart]:
        """Wait until a request of ``key`` should get ready; yields what to await just before it leaves."""
        if self._full <= 0:
            yield _at_once
            return
        slots = self._lane(key).slots
        await slots.enter()
        is_admitted = True

        def leave() -> None:
            nonlocal is_admitted
            if is_admitted:
                is_admitted = False
                slots.leave()

        async def depart() -> None:
            await slots.depart()
            leave()

        try:
            yield depart
        finally:
            leave()

    def throttled(self, key: K) -> None:
        """Halve the rate of ``key``: the vendor refused a request as one too many."""
        if self._lane(key).slow_down(self._clock.monotonic()):
            self._set_pace(key)

    def answered(self, key: K) -> None:
        """Raise the rate of ``key`` a little, if it was slowed down: the vendor did not complain of the pace."""
        if self._lane(key).speed_up(self._clock.monotonic()):
            self._set_pace(key)

    def rate(self, key: K) -> float:
        """Return how many requests a second of ``key`` this daemon may send at present; infinite without a limit.

        Of a shared pace this is the daemon's fair part; it may use what the others leave.
        """
        if self._full <= 0:
            return math.inf
        return self._full * self._share * self._lane(key).slowdown

    def set_rate(self, requests_per_second: float) -> None:
        """Allow another rate from now on, also for requests that wait; see ``__init__``."""
        self._full = requests_per_second
        self._set_all()

    def set_share(self, fraction: float) -> None:
        """Reckon with this part, in (0, 1], of every rate: other daemons take the rest.

        Without a shared schedule this daemon keeps to its part.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"a share of the pace is above 0 and at most 1, not {fraction}")
        self._share = fraction
        self._set_all()

    def _lane(self, key: K) -> "_Lane":
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.is_idle}
            reserve = local_schedule(self._clock) if self._schedule is None else partial(self._schedule, key)
            lane = self._lanes[key] = _Lane(Lane(reserve, self._clock))
            self._set_pace(key)
        return lane

    def _set_all(self) -> None:
        for key in self._lanes:
            self._set_pace(key)

    def _set_pace(self, key: K) -> None:
        if self._full <= 0:
            return
        lane, rate = self._lanes[key], self.rate(key)
        if self._schedule is None:
            lane.slots.set_pace(rate, ALONE)
        else:
            lane.slots.set_pace(self._full * lane.slowdown, ALONE if self._share == 1.0 else IN_COMPANY)


class _Lane:
    """One key's slots, and how much it is slowed down at present."""

    __slots__ = ("_changed_at", "slots", "slowdown")

    def __init__(self, slots: Lane) -> None:
        self.slots = slots
        self.slowdown = 1.0
        self._changed_at = -math.inf

    @property
    def is_idle(self) -> bool:
        return self.slowdown == 1.0 and self.slots.is_idle

    def slow_down(self, now: float) -> bool:
        if now - self._changed_at < _SECONDS_BETWEEN_CHANGES:
            return False
        self.slowdown = max(_SLOWEST, self.slowdown / 2)
        self._changed_at = now
        return True

    def speed_up(self, now: float) -> bool:
        since = now - self._changed_at
        if self.slowdown == 1.0 or since < _SECONDS_BETWEEN_CHANGES:
            return False
        self.slowdown = min(1.0, self.slowdown + since / _SECONDS_TO_RECOVER)
        self._changed_at = now
        return True


async def _at_once() -> None:
    """Departs without a limit."""
