"""Recurring jobs on APScheduler that a jumping wall clock cannot stop.

APScheduler goes by the wall clock: set back by an hour, it runs nothing for an hour; set forward by years, an interval
trigger counts every run it missed. So each job is armed for one run at a time, and ``rescue`` arms again what the
monotonic clock says is overdue.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from watchdog.clock import Clock

log = structlog.get_logger(__name__)

_OVERDUE_SECONDS: Final = 1.0
_AFTER_FAILURE_SECONDS: Final = 1.0


def scheduler() -> AsyncIOScheduler:
    """A scheduler that keeps its jobs in memory and runs a late job late rather than never.

    Two instances, because a run that arms the next one has not quite ended itself, and APScheduler would drop the next
    one in silence; that only one does anything is Recurring's business.
    """
    return AsyncIOScheduler(
        timezone=UTC, job_defaults={"coalesce": True, "max_instances": 2, "misfire_grace_time": None}
    )


class Recurring:
    """One job, at most one run of it at a time. ``run`` returns the seconds until it wants to run again."""

    def __init__(
        self, name: str, run: Callable[[], Awaitable[float]], *, scheduler: AsyncIOScheduler, clock: Clock
    ) -> None:
        self.name = name
        self._run = run
        self._scheduler = scheduler
        self._clock = clock
        self._wanted: float | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def arm(self, seconds: float) -> None:
        """Run that many seconds from now, or earlier if it is armed for earlier already."""
        at = self._clock.monotonic() + seconds
        if self._wanted is not None and self._wanted <= at:
            return
        self._wanted = at
        if self._idle.is_set():
            self._schedule()

    def rescue(self) -> bool:
        """Arm again if the run is overdue by the monotonic clock; True when it was."""
        overdue = (
            self._idle.is_set()
            and self._wanted is not None
            and self._clock.monotonic() > self._wanted + _OVERDUE_SECONDS
        )
        if overdue:
            log.warning("job_overdue", job=self.name)
            self._schedule()
        return overdue

    async def close(self) -> None:
        """Run no more; returns when a run that has begun is over."""
        self._closed = True
        await self._idle.wait()

    def _schedule(self) -> None:
        if self._wanted is None or self._closed:
            return
        delay = max(0.0, self._wanted - self._clock.monotonic())
        self._scheduler.add_job(
            self._once,
            "date",
            run_date=datetime.fromtimestamp(self._clock.time() + delay, UTC),
            id=self.name,
            replace_existing=True,
        )

    async def _once(self) -> None:
        if not self._idle.is_set() or self._closed:
            return
        self._idle.clear()
        self._wanted = None
        again = _AFTER_FAILURE_SECONDS
        try:
            again = await self._run()
        except Exception:
            # Whatever it is, it must neither end the job nor pass in silence.
            log.exception("job_failed", job=self.name)
        finally:
            self.arm(again)
            self._idle.set()
            self._schedule()
