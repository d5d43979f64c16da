"""Recurring jobs on a real APScheduler, with a process clock that can be wrong."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from watchdog.clock import SystemClock
from watchdog.jobs import Recurring, scheduler


class WrongClock(SystemClock):
    """The machine's clock, off by ``wall_seconds`` on the wall and by ``monotonic_seconds`` in lengths of time."""

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.monotonic_seconds = 0.0

    def time(self) -> float:
        return super().time() + self.wall_seconds

    def monotonic(self) -> float:
        return super().monotonic() + self.monotonic_seconds


class Counter:
    """A job that counts its runs."""

    def __init__(self, again: float = 3600) -> None:
        self.runs = 0
        self.again = again
        self.ran = asyncio.Event()

    async def __call__(self) -> float:
        self.runs += 1
        self.ran.set()
        return self.again

    async def next_run(self) -> None:
        async with asyncio.timeout(5):
            await self.ran.wait()
        self.ran.clear()


@pytest.fixture
async def running() -> AsyncIterator[AsyncIOScheduler]:
    started = scheduler()
    started.start()
    yield started
    started.shutdown(wait=False)


async def test_it_runs_again_when_it_wants_to(running: AsyncIOScheduler) -> None:
    job = Counter(again=0.01)
    Recurring("job", job, scheduler=running, clock=SystemClock()).arm(0)
    for _ in range(20):
        await job.next_run()
    assert job.runs >= 20, "a run that arms the next one at once must not lose it"


async def test_the_earlier_of_two_wishes_counts(running: AsyncIOScheduler) -> None:
    job = Counter()
    recurring = Recurring("job", job, scheduler=running, clock=SystemClock())
    recurring.arm(3600)
    recurring.arm(0.01)
    recurring.arm(1800)
    await job.next_run()


@pytest.mark.parametrize("seconds", [3600, 12 * 365 * 86400])
async def test_a_wall_clock_set_back_does_not_stop_it(running: AsyncIOScheduler, seconds: int) -> None:
    clock, job = WrongClock(), Counter()
    recurring = Recurring("job", job, scheduler=running, clock=clock)
    # Armed while the wall clock was ahead: to APScheduler the run is an hour, or years, away.
    clock.wall_seconds = seconds
    recurring.arm(0.01)
    clock.wall_seconds = 0
    assert not recurring.rescue()
    clock.monotonic_seconds = 2

    with structlog.testing.capture_logs() as logs:
        assert recurring.rescue()

    await job.next_run()
    assert logs == [{"event": "job_overdue", "log_level": "warning", "job": "job"}]


async def test_a_wall_clock_set_forward_by_years_runs_it_once(running: AsyncIOScheduler) -> None:
    clock, job = WrongClock(), Counter()
    recurring = Recurring("job", job, scheduler=running, clock=clock)
    clock.wall_seconds = -12 * 365 * 86400
    recurring.arm(3600)
    await job.next_run()
    assert job.runs == 1


async def test_a_run_that_breaks_is_said_and_does_not_end_it(running: AsyncIOScheduler) -> None:
    broken = asyncio.Event()

    async def breaks() -> float:
        broken.set()
        raise ZeroDivisionError

    clock = WrongClock()
    recurring = Recurring("job", breaks, scheduler=running, clock=clock)
    with structlog.testing.capture_logs() as logs:
        recurring.arm(0)
        async with asyncio.timeout(5):
            await broken.wait()
            await recurring.close()
    assert [(event["event"], event["job"]) for event in logs] == [("job_failed", "job")]
    clock.monotonic_seconds = 5
    assert recurring.rescue(), "nobody wants it to run again"


async def test_closing_waits_for_the_run_that_has_begun(running: AsyncIOScheduler) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow() -> float:
        begun.set()
        await finish.wait()
        return 0

    recurring = Recurring("job", slow, scheduler=running, clock=SystemClock())
    recurring.arm(0)
    await begun.wait()
    closing = asyncio.create_task(recurring.close())
    await asyncio.wait({closing}, timeout=0.01)
    assert not closing.done()
    finish.set()
    await closing
