"""Recurring jobs on APScheduler that a jumping wall clock cannot stop.

APScheduler goes by the wall clock: set back by an hour, it runs nothing for an hour; set forward by years, an interval
trigger counts every run it missed. So each job is armed for one run at a time, and what the monotonic clock says is
overdue is armed again.

A process that is woken after seconds of sleep finds nothing in the processor's caches, and that costs it many times
what it came to do. So a job whose time is near runs along with one whose time has come.
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
"""So late is wrong; and so often, while a job runs, ``on_look`` is called."""

EARLY: Final = 0.2
"""The share of its wait by which a job may be early."""

_AFTER_FAILURE_SECONDS: Final = 1.0


class Jobs:
    """The jobs of one process. ``on_look`` is called when a run is overdue, and every second while one goes on."""

    def __init__(self, clock: Clock, *, on_look: Callable[[], None] = lambda: None) -> None:
        self.clock = clock
        # In memory, and a late run runs late rather than never. Two instances, because a run that arms the next one has
        # not quite ended itself, and APScheduler would drop the next one in silence; that only one does anything is
        # Recurring's business.
        self.scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 2, "misfire_grace_time": None}
        )
        self._on_look = on_look
        self._looked_at = clock.monotonic()
        self._next_look: asyncio.TimerHandle | None = None
        self._jobs: list[Recurring] = []

    def add(self, name: str, run: Callable[[], Awaitable[float]], *, may_be_early: bool = False) -> "Recurring":
        """A job that runs when it is armed, or at the start. ``run`` returns the seconds until it wants to run again.

        One that ``may_be_early`` runs when another one has, if four fifths of its wait are over.
        """
        job = Recurring(self, name, run, may_be_early=may_be_early)
        self._jobs.append(job)
        return job

    @property
    def are_started(self) -> bool:
        return bool(self.scheduler.running)

    def start(self) -> None:
        """Run each of them now."""
        self.scheduler.start()
        for job in self._jobs:
            job.arm(0.0)

    async def close(self) -> None:
        """Run no more; returns when the runs that have begun are over."""
        for job in self._jobs:
            await job.close()
        if self._next_look is not None:
            self._next_look.cancel()
        self.scheduler.shutdown(wait=False)

    def ran(self) -> None:
        """One of them has; others may go along."""
        for job in self._jobs:
            job.go_along()

    def watch(self) -> None:
        """Look when the next run is overdue; while one goes on, as often as that."""
        at = min((job.wanted_at for job in self._jobs if job.wanted_at is not None), default=self._looked_at)
        at += OVERDUE_SECONDS
        if any(job.is_running for job in self._jobs):
            at = min(at, self._looked_at + OVERDUE_SECONDS)
        if self._next_look is not None:
            self._next_look.cancel()
        wait = max(0.0, at - self.clock.monotonic())
        self._next_look = asyncio.get_running_loop().call_later(wait, self.look)

    def look(self) -> None:
        """Arm again what is overdue."""
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
        """When it is to run next (monotonic); None where it is not, and while it runs."""
        return None if self.is_running or self._closed else self._wanted

    def arm(self, seconds: float) -> None:
        """Run that many seconds from now, or earlier if it is armed for earlier already."""
        at = self._clock.monotonic() + seconds
        if self._wanted is not None and self._wanted <= at:
            return
        self._wanted, self._early_seconds = at, self._early_share * seconds
        if self._idle.is_set():
            self._schedule()

    def go_along(self) -> None:
        """Run now if it may."""
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
        """Run no more; returns when a run that has begun is over."""
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
            # Whatever it is, it must neither end the job nor pass in silence.
            log.exception("job_failed", job=self.name)
        finally:
            self.arm(again)
            self._idle.set()
            self._schedule()
            self._jobs.ran()
