"""Recurring jobs on APScheduler that survive jumps of the wall clock.

APScheduler uses the wall clock: set back by an hour, it runs nothing for an hour; set forward by years, an interval
trigger counts every missed run. So each job is armed for one run at a time, and armed again if it is overdue by the
monotonic clock.

A process that wakes after seconds of sleep finds the processor's caches cold, and that costs more than a short job. So
a job that is due soon runs together with one that is due now.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from watchdog.clock import Clock

log = structlog.get_logger(__name__)

OVERDUE_SECONDS: Final = 1.0
"""A run that is so late is overdue. While a job runs, ``on_look`` is called as often."""

EARLY: Final = 0.2
"""The share of its wait by which a job may be early."""

_AFTER_FAILURE_SECONDS: Final = 1.0


class Jobs:
    """The jobs of one process. ``on_look`` is called when a run is overdue, and every second during a run."""

    def __init__(self, clock: Clock, *, on_look: Callable[[], None] = lambda: None) -> None:
        self.clock = clock
        # A late run still runs. Two instances, because a run arms the next one before it has ended, and APScheduler
        # would silently drop that; Recurring sees to it that only one works.
        self.scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 2, "misfire_grace_time": None}
        )
        self._on_look = on_look
        self._looked_at = clock.monotonic()
        self._next_look: asyncio.TimerHandle | None = None
        self._jobs: list[Recurring] = []

    def add(self, name: str, run: Callable[[], Awaitable[float]], *, may_be_early: bool = False) -> "Recurring":
        """Add a job that runs at the start and whenever it is armed. ``run`` returns the seconds until its next run.

        A job that ``may_be_early`` runs after another job if four fifths of its wait are over.
        """
        job = Recurring(self, name, run, may_be_early=may_be_early)
        self._jobs.append(job)
        return job

    @property
    def are_started(self) -> bool:
        return bool(self.scheduler.running)

    def start(self) -> None:
        self.scheduler.start()
        for job in self._jobs:
            job.arm(0.0)

    async def close(self) -> None:
        """Start no more runs, and wait for those that have begun."""
        # All at once: with the database away, each run may take long, and none may begin meanwhile.
        await asyncio.gather(*(job.close() for job in self._jobs))
        if self._next_look is not None:
            self._next_look.cancel()
        self.scheduler.shutdown(wait=False)

    def ran(self) -> None:
        """A job has run: run others that may be early."""
        for job in self._jobs:
            job.go_along()

    def watch(self) -> None:
        """Call ``look`` when the next run will be overdue, and every second during a run."""
        at = min((job.wanted_at for job in self._jobs if job.wanted_at is not None), default=self._looked_at)
        at += OVERDUE_SECONDS
        if any(job.is_running for job in self._jobs):
            at = min(at, self._looked_at + OVERDUE_SECONDS)
        if self._next_look is not None:
            self._next_look.cancel()
        wait = max(0.0, at - self.clock.monotonic())
        self._next_look = asyncio.get_running_loop().call_later(wait, self.look)

    def look(self) -> None:
        """Arm overdue jobs again."""
        self._looked_at = self.clock.monotonic()
        try:
            self._on_look()
            for job in self._jobs:
                job.rescue()
        finally:
            self.watch()


class Recurring:
    """One job, at most one run of it at a time; see ``Jobs.add``."""

    def __init__(self, jobs: Jobs, name: str, run: Callable[[], Awaitable[float]], *, may_be_early: bool) -> None:
        self.name = name
        self._jobs = jobs
        self._run = run
        self._clock = jobs.clock
        self._early_share = EARLY if may_be_early else 0.0
        self._early_seconds = 0.0
        self._wanted: float | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_running(self) -> bool:
        return not self._idle.is_set()

    @property
    def wanted_at(self) -> float | None:
        """When it runs next (monotonic); None if it is not armed, and during a run."""
        return None if self.is_running or self._closed else self._wanted

    def arm(self, seconds: float) -> None:
        """Run that many seconds from now, or earlier if it is already armed for earlier."""
        at = self._clock.monotonic() + seconds
        if self._wanted is not None and self._wanted <= at:
            return
        self._wanted, self._early_seconds = at, self._early_share * seconds
        if self._idle.is_set():
            self._schedule()

    def go_along(self) -> None:
        """Run now if it may be early and is due soon."""
        at = self.wanted_at
        if at is not None and 0 < at - self._clock.monotonic() <= self._early_seconds:
            self.arm(0.0)

    def rescue(self) -> None:
        """Arm again if the run is overdue by the monotonic clock."""
        if (at := self.wanted_at) is not None and (now := self._clock.monotonic()) - at >= OVERDUE_SECONDS:
            log.warning("job_overdue", job=self.name)
            self._wanted = now
            self._schedule()

    async def close(self) -> None:
        """Start no more runs, and wait for one that has begun."""
        self._closed = True
        await self._idle.wait()

    def _schedule(self) -> None:
        if self._wanted is None or self._closed:
            return
        delay = max(0.0, self._wanted - self._clock.monotonic())
        self._jobs.scheduler.add_job(
            self._once,
            "date",
            run_date=datetime.fromtimestamp(self._clock.time() + delay, UTC),
            id=self.name,
            replace_existing=True,
        )
        self._jobs.watch()

    async def _once(self) -> None:
        if not self._idle.is_set() or self._closed:
            return
        self._idle.clear()
        self._wanted = None
        again = _AFTER_FAILURE_SECONDS
        try:
            again = await self._run()
        except Exception:
            # An unexpected error must be logged, and must not end the job.
            log.exception("job_failed", job=self.name)
        finally:
            self.arm(again)
            self._idle.set()
            self._schedule()
            self._jobs.ran()
