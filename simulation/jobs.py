"""What the daemon's jobs do (``watchdog.daemon.lifecycle``), without its scheduler, which runs on real time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.services.heartbeat import HEARTBEAT_SECONDS
from watchdog.services.poller import TICK_SECONDS
from watchdog.services.reaper import REAP_SECONDS
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

    async def begin(self) -> list[Callable[[], Awaitable[None]]]:
        """Send the first heartbeat and return the jobs. Raises DatabaseError."""
        await self._parts.heartbeat.run_once()
        age = [self.age] if self._config.policy.max_age_seconds > 0 else []
        return [self.sweep, self.heartbeat, self.poll, self.reap, self.retain, *age]

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
        await self._parts.heartbeat.run_once()

    async def poll(self) -> None:
        if self._parts.poller is not None:
            await self._parts.poller.begin()
        await self._clock.sleep(self._ticks * TICK_SECONDS)

    async def reap(self) -> None:
        await self._parts.reaper.run_once()
        await self._clock.sleep(REAP_SECONDS)

    async def age(self) -> None:
        await self._clock.sleep(await self._parts.aging.step())

    async def retain(self) -> None:
        await self._clock.sleep(await self._parts.retention.run_once())


@contextmanager
def silent_logs() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
