"""One pace for many daemons: each takes spans of a schedule in the database just ahead of need, and keeps to them.

Daemons that each kept a part of the pace would have to know of each other at every moment, and a part that one of them
has no use for would be lost. Here each request has its own slot, whoever sends it. Who is alone takes half a second of
the schedule at a time, so that no request waits for the database; who has company takes what it has a use for. That
is a matter of manners only: one of whom nobody knows yet finds its slots behind those that are taken. A daemon that
dies loses what it had taken, less than a second of slots.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from watchdog.clock import Clock
from watchdog.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Manners:
    """How a daemon takes from the schedule."""

    headroom: float
    """The part of the allowed rate that slots are taken at; the rest pays for being late."""

    catch_up_seconds: float
    """How far behind the schedule may be made up for: nobody may have asked in time, for want of a moment to do so."""

    late_seconds: float
    """A slot that is missed by more is lost: used late, it would crowd the next one. The headroom is for this."""

    ahead_seconds: float
    """How long before the last slot it has it takes more."""

    at_once_seconds: float
    """How much it takes at once, or one slot, if that is longer."""

    only_what_is_needed: bool


ALONE: Final = Manners(
    headroom=0.98,
    catch_up_seconds=0.01,
    late_seconds=0.02,
    ahead_seconds=0.25,
    at_once_seconds=0.5,
    only_what_is_needed=False,
)
IN_COMPANY: Final = Manners(
    headroom=0.95,  # Each is late in its own way.
    catch_up_seconds=0.02,
    late_seconds=0.03,
    ahead_seconds=0.1,
    at_once_seconds=0.1,
    only_what_is_needed=True,
)

_DATABASE_AGAIN_SECONDS: Final = 0.5
_ROUNDING_SECONDS: Final = 1e-6
_JOIN_SECONDS: Final = 0.001
"""Spans that are no further apart follow on each other: nobody has a slot in between, slow as we may be ourselves."""

Reserve = Callable[[float, float], Awaitable[float]]
"""Takes seconds of the schedule; returns in how many they begin, which may be up to the second argument ago."""


@dataclass(slots=True)
class _Span:
    """A part of the schedule that is ours, by the monotonic clock: its next slot begins at ``slot``."""

    slot: float
    until: float


class SharedLane:
    """Those who wait for one AppId's slots. ``reserve`` may raise DatabaseError; it is asked again."""

    def __init__(self, reserve: Reserve, clock: Clock) -> None:
        self._reserve = reserve
        self._clock = clock
        self._manners = ALONE
        self._interval = 0.0
        self._spans: deque[_Span] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._dispatching: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None

    async def depart(self, rate: float, manners: Manners) -> None:
        """Return when a slot has come, of ``rate`` a second less the headroom; first come, first served."""
        self._manners = manners
        self._interval = 1 / (rate * manners.headroom)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        now = self._clock.monotonic()
        self._release(now)
        self._take_ahead(now)
        if self._dispatching is None and not waiter.done():
            self._dispatching = asyncio.create_task(self._dispatch())
        await waiter

    async def _dispatch(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits, whatever it is
            while self._is_wanted():
                self._waiting.popleft().set_exception(error)
        finally:
            self._dispatching = None

    async def _serve(self) -> None:
        while True:
            now = self._clock.monotonic()
            self._release(now)
            if not self._is_wanted():
                return
            # Slots come due while more are taken: a slow database makes nobody late.
            taking = self._take_ahead(now)
            events = [] if taking is None else [taking]
            if (slot := self._next_slot(now)) is not None:
                events.append(asyncio.create_task(self._clock.sleep(max(0.0, slot - now))))
            done, pending = await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            for sleeping in pending - {taking}:
                sleeping.cancel()
            if taking in done:
                await taking

    def _is_wanted(self) -> bool:
        """Who was cancelled takes no slot."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _next_slot(self, now: float) -> float | None:
        while self._spans:
            span = self._spans[0]
            span.slot = max(span.slot, now - self._manners.late_seconds)
            if self._slots(span):
                return span.slot
            if len(self._spans) == 1 and span.slot < span.until:
                return None  # If what is taken next follows on this, the slot begins in here.
            self._spans.popleft()
        return None

    def _slots(self, span: _Span) -> int:
        return max(0, int((span.until - span.slot + _ROUNDING_SECONDS) / self._interval))

    def _release(self, now: float) -> None:
        has_come = now + _ROUNDING_SECONDS
        while self._is_wanted() and (slot := self._next_slot(now)) is not None and slot <= has_come:
            self._spans[0].slot += self._interval
            self._waiting.popleft().set_result(None)

    def _take_ahead(self, now: float) -> asyncio.Task[None] | None:
        """Begin to take more if it is time to, and return whatever is being taken."""
        if self._taking is None and (slots := self._missing(now)):
            self._taking = asyncio.create_task(self._take(slots * self._interval))
        return self._taking

    def _missing(self, now: float) -> int:
        manners = self._manners
        if self._next_slot(now) is not None:
            last_slot = self._spans[-1].until - self._interval
            if last_slot - now >= manners.ahead_seconds:
                return 0
        at_once = max(1, int(manners.at_once_seconds / self._interval))
        if not manners.only_what_is_needed:
            return at_once
        wanted = sum(not waiter.done() for waiter in self._waiting) - sum(map(self._slots, self._spans))
        return min(at_once, max(0, wanted))

    async def _take(self, seconds: float) -> None:
        try:
            slot = await self._reserve(seconds, self._manners.catch_up_seconds) + self._clock.monotonic()
            last = self._spans[-1] if self._spans else None
            if last is not None and slot - last.until < _JOIN_SECONDS:
                last.until = slot + seconds
            else:
                self._spans.append(_Span(slot, slot + seconds))
        except DatabaseError:
            # Whoever has no database has nothing to send either; that it is away is the daemon's to say.
            await self._clock.sleep(_DATABASE_AGAIN_SECONDS)
        finally:
            self._taking = None
