"""Recurring jobs on a real APScheduler, with a process clock that can be wrong."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from watchdog.clock import SystemClock
from watchdog.daemon.jobs import Jobs


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
        async with asyncio.timeout(30):
            await self.ran.wait()
        self.ran.clear()


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
def overdue_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """So late is wrong, for once; a busy machine is not."""
    seconds = 0.5
    monkeypatch.setattr("watchdog.daemon.jobs.OVERDUE_SECONDS", seconds)
    return seconds


@pytest.fixture
async def jobs(clock: WrongClock) -> AsyncIterator[Jobs]:
    started = Jobs(clock)
    started.start()
    yield started
    await started.close()


async def test_it_runs_again_when_it_wants_to(jobs: Jobs) -> None:
    job = Counter(again=0.01)
    jobs.add("job", job).arm(0)
    for _ in range(20):
        await job.next_run()
    assert job.runs >= 20, "a run that arms the next one at once must not lose it"


async def test_each_runs_at_the_start(clock: WrongClock) -> None:
    jobs, counters = Jobs(clock), [Counter(), Counter()]
    for number, counter in enumerate(counters):
        jobs.add(str(number), counter)
    jobs.start()
    assert jobs.are_started
    for counter in counters:
        await counter.next_run()
    await jobs.close()


async def test_the_earlier_of_two_wishes_counts(jobs: Jobs) -> None:
    job = Counter()
    recurring = jobs.add("job", job)
    recurring.arm(3600)
    recurring.arm(0.01)
    recurring.arm(1800)
    await job.next_run()


# Not to be woken for each


async def test_a_job_whose_time_is_near_goes_along_with_another(jobs: Jobs, clock: WrongClock) -> None:
    along, punctual, job = Counter(again=100), Counter(again=100), Counter()
    recurring = jobs.add("job", job)
    for name, counter in (("along", along), ("punctual", punctual)):
        jobs.add(name, counter, may_be_early=counter is along).arm(0)
        await counter.next_run()
    for seconds in (79, 3):
        assert along.runs == 1
        clock.monotonic_seconds += seconds
        for _ in range(3):
            recurring.arm(0)
            await job.next_run()
    await along.next_run()
    assert (along.runs, punctual.runs) == (2, 1)


# When the clock is wrong


@pytest.mark.parametrize("seconds", [3600, 12 * 365 * 86400])
async def test_a_wall_clock_set_back_does_not_stop_it(jobs: Jobs, clock: WrongClock, seconds: int) -> None:
    job = Counter()
    # Armed while the wall clock was ahead: to APScheduler the run is an hour, or years, away.
    clock.wall_seconds = seconds
    jobs.add("job", job).arm(0.01)
    clock.wall_seconds = 0

    with structlog.testing.capture_logs() as logs:
        jobs.look()
        assert logs == []
        clock.monotonic_seconds = 2
        jobs.look()

    await job.next_run()
    assert logs == [{"event": "job_overdue", "log_level": "warning", "job": "job"}]


async def test_what_is_overdue_is_noticed_by_itself(clock: WrongClock, overdue_seconds: float) -> None:
    looks: list[float] = []
    jobs, job = Jobs(clock, on_look=lambda: looks.append(clock.monotonic())), Counter()
    jobs.start()
    clock.wall_seconds = 3600
    recurring = jobs.add("job", job)
    recurring.arm(0.01)
    clock.wall_seconds = 0
    # Another one that goes on hides nothing.
    busy = Counter(again=0.01)
    jobs.add("busy", busy).arm(0)
    began = clock.monotonic()
    await job.next_run()
    assert job.runs == 1
    assert clock.monotonic() - began >= overdue_seconds
    assert len(looks) == 1, "where nothing is overdue there is nothing to look for"
    await jobs.close()


@pytest.mark.usefixtures("overdue_seconds")
async def test_a_look_that_breaks_is_not_the_last(clock: WrongClock) -> None:
    looked = asyncio.Event()

    def breaks() -> None:
        looked.set()
        raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    jobs = Jobs(clock, on_look=breaks)
    finish = asyncio.Event()

    async def slow() -> float:
        await finish.wait()
        return 3600

    jobs.add("slow", slow)
    jobs.start()
    for _ in range(2):
        async with asyncio.timeout(30):
            await looked.wait()
        looked.clear()
    finish.set()
    await jobs.close()


async def test_while_a_job_runs_there_are_looks(clock: WrongClock, overdue_seconds: float) -> None:
    looked, finish = asyncio.Event(), asyncio.Event()
    began = clock.monotonic()
    jobs = Jobs(clock, on_look=looked.set)

    async def slow() -> float:
        await finish.wait()
        return 3600

    jobs.add("slow", slow)
    busy = Counter(again=0.01)
    jobs.add("busy", busy)
    jobs.start()
    for _ in range(2):
        async with asyncio.timeout(30):
            await looked.wait()
        looked.clear()
    assert clock.monotonic() - began >= 2 * overdue_seconds
    finish.set()
    await jobs.close()


async def test_a_wall_clock_set_forward_by_years_runs_it_once(jobs: Jobs, clock: WrongClock) -> None:
    job = Counter()
    recurring = jobs.add("job", job)
    clock.wall_seconds = -12 * 365 * 86400
    recurring.arm(3600)
    await job.next_run()
    assert job.runs == 1


async def test_a_run_that_breaks_is_said_and_does_not_end_it(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.daemon.jobs._AFTER_FAILURE_SECONDS", 0.01)
    runs, again = 0, asyncio.Event()

    async def breaks() -> float:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ZeroDivisionError
        again.set()
        return 3600

    with structlog.testing.capture_logs() as logs:
        jobs.add("job", breaks).arm(0)
        async with asyncio.timeout(30):
            await again.wait()
    assert [(event["event"], event["job"]) for event in logs] == [("job_failed", "job")]


async def test_closing_waits_for_the_run_that_has_begun(clock: WrongClock) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow() -> float:
        begun.set()
        await finish.wait()
        return 0

    jobs = Jobs(clock)
    jobs.add("slow", slow)
    jobs.start()
    await begun.wait()
    closing = asyncio.create_task(jobs.close())
    await asyncio.wait({closing}, timeout=0.01)
    assert not closing.done()
    finish.set()
    await closing


async def test_closing_stops_all_jobs_at_once(clock: WrongClock) -> None:
    """A job that takes long to end must not let the others begin new runs meanwhile."""
    begun, finish, quick = asyncio.Event(), asyncio.Event(), Counter(again=0.001)

    async def slow() -> float:
        begun.set()
        await finish.wait()
        return 0

    jobs = Jobs(clock)
    jobs.add("slow", slow)
    jobs.add("quick", quick)
    jobs.start()
    await begun.wait()
    await quick.next_run()
    closing = asyncio.create_task(jobs.close())
    await asyncio.sleep(0.02)  # noqa: TID251 - real jobs in real time: the run under way ends
    before = quick.runs
    await asyncio.sleep(0.1)  # noqa: TID251 - a hundred runs, if they went on
    assert quick.runs == before
    finish.set()
    await closing
