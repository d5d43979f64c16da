"""What the daemon's jobs do (``watchdog.daemon.lifecycle``), without its scheduler, which runs on real time."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.daemon.lifecycle import HEARTBEAT_SECONDS, REAP_SECONDS
from watchdog.services.poller import TICK_SECONDS
from watchdog.wiring.parts import Parts

_AFTER_PROGRESS_SECONDS: Final = 0.02


class Jobs:
    """One daemon's jobs. Each call of a job is one run and the wait after it; ``begin`` comes first.

    Set ``progress`` from the parts' ``on_progress``. ``ticks`` makes polling that many times rarer than the daemon's.
    """

    def __init__(self, parts: Parts, config: Config, clock: Clock, progress: asyncio.Event, *, ticks: int = 1) -> None:
        self._parts = parts
        self._config = config
        self._clock = clock
        self._progress = progress
        self._ticks = ticks
        self._trusted_since: datetime | None = None

    async def begin(self) -> list[Callable[[], Awaitable[None]]]:
        """Send the first heartbeat and return the jobs. Raises DatabaseError."""
        await self._beat(fresh=True)
        return [self.sweep, self.heartbeat, self.poll, self.reap]

    async def sweep(self) -> None:
        swept = await self._parts.sweeper.run_once()
        wait = self._config.schedule.poll_seconds
        if swept.wake_seconds is not None:
            wait = min(wait, swept.wake_seconds)
        if swept.due and swept.claimed:
            wait = min(wait, _AFTER_PROGRESS_SECONDS)
        try:
            async with asyncio.timeout(wait):
                await self._progress.wait()
        except TimeoutError:
            return
        self._progress.clear()
        await self._clock.sleep(_AFTER_PROGRESS_SECONDS)

    async def heartbeat(self) -> None:
        await self._clock.sleep(HEARTBEAT_SECONDS)
        await self._beat(fresh=False)

    async def _beat(self, *, fresh: bool) -> None:
        parts = self._parts
        gap_seconds = self._config.policy.gap_seconds
        pulse = await parts.storage.call(parts.storage.store.pulse, parts.daemon, gap_seconds, fresh=fresh)
        parts.storage.synchronise(pulse.now)
        if await parts.feed.check(-math.inf if parts.poller is None else parts.poller.answered_at):
            self._trusted_since = pulse.now
        parts.watch.watching_since = max(pulse.watching_since, self._trusted_since or pulse.watching_since)
        parts.guarding.look(active=parts.feed.active, daemons=1, released_until=None)

    async def poll(self) -> None:
        if self._parts.poller is not None:
            await self._parts.poller.begin()
        await self._clock.sleep(self._ticks * TICK_SECONDS)

    async def reap(self) -> None:
        storage = self._parts.storage
        await storage.call(self._parts.poll_store.prune)
        await storage.call(storage.store.reap, self._config.stop.lease_seconds)
        await self._clock.sleep(REAP_SECONDS)


@contextmanager
def silent_logs() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
