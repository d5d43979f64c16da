"""A schedule of slots: each request leaves in a slot of its own, evenly spaced.

Slots are cut from spans of time, and spans are reserved just ahead of need: in this process where it paces alone, in
the database where several daemons share a pace. There each request has its own slot, whichever daemon sends it; fixed
shares would have to be adjusted all the time, and a share that a daemon does not need would be lost. A daemon that is
alone reserves half a second at a time, so that no request waits for the database. With company it reserves only what it
needs. A newcomer that the others do not know yet gets slots behind those that are taken. A daemon that dies loses the
slots that it had reserved, less than a second of them.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from watchdog.clock import Clock
from watchdog.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Reservation:
    """How a lane reserves slots. Durations in seconds."""

    headroom: float
    """The part of the allowed rate that is used; the rest makes up for late departures."""

    catch_up_seconds: float
    """How far in the past a span may begin, when the process could not reserve in time."""

    late_seconds: float
    """A slot that is missed by more is lost: a request that uses it would follow the next one too closely."""

    ahead_seconds: float
    """How long before its last slot a lane reserves more."""

    at_once_seconds: float
    """How much a lane reserves at once; one slot if that is longer."""

    only_what_is_needed: bool
    """Whether to reserve no more slots than requests wait."""


ALONE: Final = Reservation(
    headroom=0.98,
    catch_up_seconds=0.01,
    late_seconds=0.02,
    ahead_seconds=0.25,
    at_once_seconds=0.5,
    only_what_is_needed=False,
)
IN_COMPANY: Final = Reservation(
    headroom=0.95,  # each daemon is late in its own way
    catch_up_seconds=0.02,
    late_seconds=0.03,
    ahead_seconds=0.1,
    at_once_seconds=0.1,
    only_what_is_needed=True,
)

READY_SECONDS: Final = 0.1
"""How long before its slot a request is admitted, to get ready."""

_DATABASE_AGAIN_SECONDS: Final = 0.5
_ROUNDING_SECONDS: Final = 1e-6
_JOIN_SECONDS: Final = 0.001
"""Spans that are no further apart follow on each other: there is no slot of another daemon between them."""

Reserve = Callable[[float, float], Awaitable[float]]
"""Reserves so many seconds of the schedule, beginning at most the second argument ago; returns in how many."""


def local_schedule(clock: Clock) -> Reserve:
    """Return a schedule of this process alone."""
    next_at = -math.inf

    async def reserve(seconds: float, catch_up_seconds: float) -> float:
        nonlocal next_at
        now = clock.monotonic()
        begins_at = max(next_at, now - catch_up_seconds)
        next_at = begins_at + seconds
        return begins_at - now

    return reserve


@dataclass(slots=True)
class _Span:
    """A reserved part of the schedule, by the monotonic clock; its next slot begins at ``slot``."""

    slot: float
    until: float


class Lane:
    """The requests that wait for slots of one schedule. ``reserve`` may raise DatabaseError; it is called again."""

    def __init__(self, reserve: Reserve, clock: Clock) -> None:
        self._reserve = reserve
        self._clock = clock
        self._reservation = ALONE
        self._interval = math.inf
        self._spans: deque[_Span] = deque()
        self._entering: deque[asyncio.Future[None]] = deque()
        self._admitted = 0
        self._departing: deque[asyncio.Future[None]] = deque()
        self._dispatching: asyncio.Task[None] | None = None
        self._sleeping: asyncio.Task[None] | None = None
        self._sleeps_until = math.inf
        self._reserving: asyncio.Task[None] | None = None

    def set_pace(self, requests_per_second: float, reservation: Reservation) -> None:
        """Cut slots for this rate, less the headroom, from now on; requests that wait are served by it too."""
        self._reservation = reservation
        self._interval = 1 / (requests_per_second * reservation.headroom)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and every reserved slot is over."""
        now = self._clock.monotonic()
        is_used = self._admitted or self._entering or self._departing
        return not is_used and all(span.until <= now for span in self._spans)

    async def enter(self) -> None:
        """Return when a request should get ready, because a slot for it is near; then it departs or leaves.

        First come, first served.
        """
        waiter = self._queue(self._entering)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """An admitted request has departed, or will not depart."""
        self._admitted -= 1
        self._look_again()

    async def depart(self) -> None:
        """Return when a slot has come; first come, first served. A request that is cancelled takes no slot."""
        await self._queue(self._departing)

    def _queue(self, queue: deque[asyncio.Future[None]]) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        self._look_again()
        if self._dispatching is None and not waiter.done():
            self._dispatching = asyncio.create_task(self._dispatch())
        return waiter

    def _look_again(self) -> None:
        now = self._clock.monotonic()
        self._release(now)
        self._reserve_ahead(now)
        if self._sleeping is not None and (wake_at := self._wake_at(now)) is not None and wake_at < self._sleeps_until:
            self._sleeping.cancel()

    async def _dispatch(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - handed to every request that waits, whatever it is
            for queue in (self._entering, self._departing):
                while _first(queue) is not None:
                    queue.popleft().set_exception(error)
        finally:
            self._dispatching = None

    async def _serve(self) -> None:
        while True:
            now = self._clock.monotonic()
            self._release(now)
            if _first(self._departing) is None and _first(self._entering) is None:
                return
            # Slots come due while more are reserved, so a slow database delays no request.
            reserving = self._reserve_ahead(now)
            events = [] if reserving is None else [reserving]
            if (wake_at := self._wake_at(now)) is not None:
                self._sleeps_until = wake_at
                self._sleeping = asyncio.create_task(self._clock.sleep(max(0.0, wake_at - now)))
                events.append(self._sleeping)
            try:
                done, _ = await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if self._sleeping is not None:
                    self._sleeping.cancel()
                    self._sleeping = None
            if reserving in done:
                await reserving

    def _wake_at(self, now: float) -> float | None:
        moments = []
        if self._departing and (slot := self._slot(now)) is not None:
            moments.append(slot)
        if self._entering and (slot := self._slot(now, self._admitted)) is not None:
            moments.append(slot - READY_SECONDS)
        elif self._entering and self._spans:
            # The slot is not reserved yet: when more is.
            moments.append(self._spans[-1].until - self._interval - self._reservation.ahead_seconds + _ROUNDING_SECONDS)
        return min(moments, default=None)

    def _slot(self, now: float, number: int = 0) -> float | None:
        """Return when the slot after so many others begins, None if it is not reserved yet."""
        if self._next_slot(now) is not None:
            for span in self._spans:
                if number < (slots := self._slots(span)):
                    return span.slot + number * self._interval
                number -= slots
        return None

    def _next_slot(self, now: float) -> float | None:
        while self._spans:
            span = self._spans[0]
            span.slot = max(span.slot, now - self._reservation.late_seconds)
            if self._slots(span):
                return span.slot
            if len(self._spans) == 1 and span.slot < span.until:
                return None  # If the next span follows on this one, the slot begins in here.
            self._spans.popleft()
        return None

    def _slots(self, span: _Span) -> int:
        return max(0, int((span.until - span.slot + _ROUNDING_SECONDS) / self._interval))

    def _release(self, now: float) -> None:
        has_come = now + _ROUNDING_SECONDS
        while _first(self._departing) and (slot := self._next_slot(now)) is not None and slot <= has_come:
            self._spans[0].slot += self._interval
            self._departing.popleft().set_result(None)
        is_near = has_come + READY_SECONDS
        while _first(self._entering) and (slot := self._slot(now, self._admitted)) is not None and slot <= is_near:
            self._admitted += 1
            self._entering.popleft().set_result(None)

    def _reserve_ahead(self, now: float) -> asyncio.Task[None] | None:
        """Begin to reserve more if it is time to, and return the reservation under way."""
        if self._reserving is None and (slots := self._missing(now)):
            self._reserving = asyncio.create_task(self._take(slots * self._interval))
        return self._reserving

    def _missing(self, now: float) -> int:
        reservation = self._reservation
        if self._next_slot(now) is not None:
            last_slot = self._spans[-1].until - self._interval
            if last_slot - now >= reservation.ahead_seconds:
                return 0
        at_once = max(1, int(reservation.at_once_seconds / self._interval))
        if not reservation.only_what_is_needed:
            return at_once
        # An admitted request is not among the departing ones for as long as it gets ready.
        departing = sum(not waiter.done() for waiter in self._departing)
        wanted = max(departing, self._admitted) + sum(not waiter.done() for waiter in self._entering)
        return min(at_once, max(0, wanted - sum(map(self._slots, self._spans))))

    async def _take(self, seconds: float) -> None:
        try:
            slot = await self._reserve(seconds, self._reservation.catch_up_seconds) + self._clock.monotonic()
            last = self._spans[-1] if self._spans else None
            if last is not None and slot - last.until < _JOIN_SECONDS:
                last.until = slot + seconds
            else:
                self._spans.append(_Span(slot, slot + seconds))
        except DatabaseError:
            # Without a database there is nothing to send either; the sweep reports that it is away.
            await self._clock.sleep(_DATABASE_AGAIN_SECONDS)
        finally:
            self._reserving = None


def _first(queue: deque[asyncio.Future[None]]) -> asyncio.Future[None] | None:
    """Return the first request that still waits; those that were cancelled go."""
    while queue and queue[0].done():
        queue.popleft()
    return queue[0] if queue else None
