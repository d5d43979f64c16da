"""How fast requests may leave: one pace per AppId, slowed down when the vendor says so.

The vendor counts requests per second. So that no second of its clock sees more than allowed, requests leave evenly
spaced at 98 % of the rate, with next to no burst: of the two percent left, one pays for our own late wake-ups (which
the limiter makes up for with a burst that small) and one for what the network compresses on the way. What is
committed between its turn and its request leaves through a door besides: a slow commit lets go of many at once.

A throttling reply halves the rate, at most once a second, since one burst is answered by a burst of them, and never
below a sixteenth. Replies that do not throttle bring it back, from the slowest to the full rate in about thirty
seconds. This is the only limiter in the program.

Several daemons on one PostgreSQL share a pace: see ``shared_pace``.
"""

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from aiolimiter import AsyncLimiter

from watchdog.clock import Clock, SystemClock
from watchdog.zego.shared_pace import ALONE, IN_COMPANY, SharedLane

_HEADROOM: Final = 0.98
_HEADROOM_AT_THE_DOOR: Final = 0.985
"""More than before it, or a queue there would never end."""

_LONGEST_AT_THE_DOOR_SECONDS: Final = 1.0
"""Better throttled than sent on an answer that is older than it need be."""

_CATCH_UP_SECONDS: Final = 0.01
_SLOWEST: Final = 1 / 16
_SECONDS_BETWEEN_CHANGES: Final = 1.0
_SECONDS_TO_RECOVER: Final = 30.0


class Schedule(Protocol):
    """What several daemons take their slots from; see ``pace_store``."""

    async def __call__(self, app_id: int, seconds: float, catch_up_seconds: float) -> float:
        """Take the next free ``seconds``, and return in how many they begin; see there. May raise DatabaseError."""


class Pace:
    """The pace of every AppId; belongs to one event loop, whose clock it uses."""

    def __init__(
        self, requests_per_second: float, *, schedule: Schedule | None = None, clock: Clock | None = None
    ) -> None:
        """Allow that many requests a second for each AppId; 0 sets no limit, and then nothing slows down either.

        With a ``schedule``, which others use too, and the ``clock`` to wait by, they all keep to it together.
        """
        self._full = requests_per_second
        self._share = 1.0
        self._lanes: dict[int, _Lane] = {}
        self._schedule = schedule
        self._clock = clock or SystemClock()

    async def acquire(self, app_id: int) -> None:
        """Return when the next request of ``app_id`` may leave; first come, first served.

        A waiter that is cancelled takes no slot.
        """
        if self._full > 0:
            lane = self._lane(app_id)
            if lane.shared is not None:
                manners = ALONE if self._share == 1.0 else IN_COMPANY
                await lane.shared.depart(self._full * lane.slowdown, manners)
                return
            # One at a time inside the limiter: a change of pace then reaches everybody who is still waiting.
            async with lane.turn:
                await lane.depart(self.rate(app_id))

    async def leave(self, app_id: int) -> None:
        """Return when a request that has had its turn may go out of the door, where one follows another evenly.

        After a second at most.
        """
        if self._full > 0:
            lane = self._lane(app_id)
            await lane.leave(self._full * lane.slowdown * _HEADROOM_AT_THE_DOOR)

    def throttled(self, app_id: int) -> None:
        """Halve the rate of ``app_id``: the vendor refused a request as one too many."""
        self._lane(app_id).slow_down(asyncio.get_running_loop().time())

    def answered(self, app_id: int) -> None:
        """Let ``app_id`` go a little faster, if it was slowed down: the vendor did not complain of the pace."""
        self._lane(app_id).speed_up(asyncio.get_running_loop().time())

    def rate(self, app_id: int) -> float:
        """Return how many requests a second ``app_id`` may make at present; infinite where there is no limit.

        Of a shared pace that is this daemon's fair part; it may use what the others leave.
        """
        if self._full <= 0:
            return math.inf
        return self._full * self._share * self._lane(app_id).slowdown

    def set_rate(self, requests_per_second: float) -> None:
        """Allow another rate from now on, for whoever waits too; see ``__init__``."""
        self._full = requests_per_second

    def set_share(self, fraction: float) -> None:
        """Reckon with this part, in (0, 1], of every AppId's rate: other daemons take the rest.

        Without a schedule it is also what is kept to.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"a share of the pace is above 0 and at most 1, not {fraction}")
        self._share = fraction

    def _lane(self, app_id: int) -> "_Lane":
        lane = self._lanes.get(app_id)
        if lane is None:
            shared = None
            if self._schedule is not None:
                shared = SharedLane(partial(self._schedule, app_id), self._clock)
            lane = self._lanes[app_id] = _Lane(shared)
        return lane


class _Lane:
    """One AppId's limiter, and how much it is slowed down at present."""

    __slots__ = (
        "_changed_at",
        "_door",
        "_door_opens_at",
        "_last_departure",
        "_limiter",
        "_rate",
        "shared",
        "slowdown",
        "turn",
    )

    def __init__(self, shared: SharedLane | None) -> None:
        self.shared = shared
        self.turn = asyncio.Lock()
        self.slowdown = 1.0
        self._changed_at = -math.inf
        self._limiter: AsyncLimiter | None = None
        self._rate = 0.0
        self._last_departure = -math.inf
        self._door = asyncio.Lock()
        self._door_opens_at = -math.inf

    async def depart(self, rate: float) -> None:
        if self._limiter is None or rate != self._rate:
            self._limiter = await self._limiter_for(rate)
            self._rate = rate
        await self._limiter.acquire()
        self._last_departure = asyncio.get_running_loop().time()

    async def _limiter_for(self, rate: float) -> AsyncLimiter:
        """Make a limiter of that rate which goes on from the last departure instead of starting with a burst."""
        paced = rate * _HEADROOM
        capacity = 1 + rate * _CATCH_UP_SECONDS
        limiter = AsyncLimiter(capacity, capacity / paced)
        used = capacity - (asyncio.get_running_loop().time() - self._last_departure) * paced
        await limiter.acquire(max(0.0, used))
        return limiter

    async def leave(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            # One at a time, so that a time in which everybody was late is not made up for with a crowd.
            async with asyncio.timeout(_LONGEST_AT_THE_DOOR_SECONDS), self._door:
                opens_at = max(self._door_opens_at, loop.time() - _CATCH_UP_SECONDS)
                await asyncio.sleep(opens_at - loop.time())  # noqa: TID251 - by the event loop's time, as the limiter
                self._door_opens_at = max(opens_at, loop.time() - _CATCH_UP_SECONDS) + 1 / rate

    def slow_down(self, now: float) -> None:
        if now - self._changed_at >= _SECONDS_BETWEEN_CHANGES:
            self.slowdown = max(_SLOWEST, self.slowdown / 2)
            self._changed_at = now

    def speed_up(self, now: float) -> None:
        since = now - self._changed_at
        if self.slowdown < 1.0 and since >= _SECONDS_BETWEEN_CHANGES:
            self.slowdown = min(1.0, self.slowdown + since / _SECONDS_TO_RECOVER)
            self._changed_at = now
