"""One pace for many daemons: slots are taken from a schedule in the database, a few at a time and just ahead of need.

Daemons that each kept a part of the pace would have to know of each other at every moment, and a part that one of them
has no use for would be lost. Here each request has its own slot, whoever sends it; a daemon that dies loses the few
milliseconds of slots that it had taken.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from watchdog.clock import Clock
from watchdog.errors import DatabaseError

AHEAD_SECONDS: Final = 0.1
"""How long before its last slot a lane takes more, and how many slots it takes at once: as many as fit in here."""

LATE_SECONDS: Final = 0.03
"""A slot that is missed by more is lost: used late, it would crowd the next one. The pace's headroom is for this."""

_DATABASE_AGAIN_SECONDS: Final = 0.5

Reserve = Callable[[int, float], Awaitable[float]]
"""Takes a number of slots and the seconds between them; returns in how many seconds the first of them is."""


class SharedLane:
    """Those who wait for one AppId's slots. ``reserve`` may raise DatabaseError; it is asked again."""

    def __init__(self, reserve: Reserve, clock: Clock) -> None:
        self._reserve = reserve
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slots: deque[float] = deque()
        self._rate = 0.0
        self._dispatching: asyncio.Task[None] | None = None

    async def depart(self, rate: float) -> None:
        """Return when a slot has come, at ``rate`` a second; first come, first served."""
        self._rate = rate
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._dispatching is None:
            self._dispatching = asyncio.create_task(self._dispatch())
        await waiter

    async def _dispatch(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits, whatever it is
            while self._wanted():
                self._waiting.popleft().set_exception(error)
        finally:
            self._dispatching = None

    async def _serve(self) -> None:
        taking: asyncio.Task[None] | None = None
        try:
            while True:
                now = self._clock.monotonic()
                self._release(now)
                if not (wanted := self._wanted()):
                    return
                runs_out = not self._slots or self._slots[-1] - now < AHEAD_SECONDS
                if taking is None and runs_out and wanted > len(self._slots):
                    taking = asyncio.create_task(self._take(wanted - len(self._slots)))
                # Slots come due while more are taken: a slow database makes nobody late.
                events: list[asyncio.Task[None]] = [] if taking is None else [taking]
                if self._slots:
                    events.append(asyncio.create_task(self._clock.sleep(max(0.0, self._slots[0] - now))))
                done, pending = await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                for sleeping in pending - {taking}:
                    sleeping.cancel()
                if taking in done:
                    await taking
                    taking = None
        finally:
            if taking is not None:
                taking.cancel()

    def _wanted(self) -> int:
        """How many still wait: who was cancelled takes no slot."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return sum(not waiter.done() for waiter in self._waiting)

    async def _take(self, most: int) -> None:
        slots = min(most, max(1, int(self._rate * AHEAD_SECONDS)))
        interval = 1 / self._rate
        try:
            first = await self._reserve(slots, interval)
        except DatabaseError:
            # Whoever has no database has nothing to send either; that it is away is the daemon's to say.
            await self._clock.sleep(_DATABASE_AGAIN_SECONDS)
            return
        first += self._clock.monotonic()
        self._slots.extend(first + number * interval for number in range(slots))

    def _release(self, now: float) -> None:
        while self._slots and self._slots[0] <= now:
            slot = self._slots.popleft()
            if now - slot <= LATE_SECONDS and self._wanted():
                self._waiting.popleft().set_result(None)
