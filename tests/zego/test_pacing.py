import asyncio
import math
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from simulation.virtual import VirtualClock, VirtualLoop, loop_seconds, run_virtual
from watchdog.zego.pacing import Pace

APP, OTHER_APP = 1, 2


now, wait = loop_seconds, VirtualClock().sleep


def paced(rate: float) -> Pace[int]:
    return Pace[int](rate, clock=VirtualClock())


async def departures(pace: Pace[int], count: int, app_id: int = APP) -> list[float]:
    async def one() -> float:
        await pace.depart(app_id)
        return now()

    return list(await asyncio.gather(*(one() for _ in range(count))))


def most_within_a_second(times: list[float]) -> int:
    return max(sum(start <= time < start + 1 for time in times) for start in times)


@pytest.mark.parametrize("rate", [0.5, 1, 10, 200, 1000])
def test_the_rate_is_kept_and_no_second_sees_more(rate: float) -> None:
    async def scenario() -> None:
        times = await departures(paced(rate), max(20, int(3 * rate)))
        assert most_within_a_second(times) <= max(1, rate)
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(rate, rel=0.03)

    run_virtual(scenario())


def test_a_pause_saves_up_no_burst() -> None:
    async def scenario() -> None:
        pace = paced(10)
        await departures(pace, 5)
        await wait(60)
        assert most_within_a_second(await departures(pace, 30)) <= 10

    run_virtual(scenario())


@pytest.mark.parametrize("rate", [10, 500])
def test_who_was_held_up_together_leaves_one_by_one(rate: int) -> None:
    async def scenario() -> None:
        pace = paced(rate)

        async def one(commit_ends_at: float) -> float:
            await wait(commit_ends_at - now())
            await pace.depart(APP)
            return now()

        held_up = int(0.2 * rate)
        left = await asyncio.gather(*(one(1.0) for _ in range(held_up)), *(one(1 + n / rate) for n in range(held_up)))
        left = sorted(left)
        # A hundredth of a second may be made up for.
        some = 1 + rate // 10
        assert min(after - before for before, after in zip(left, left[some:], strict=False)) >= some / rate - 0.01
        assert max(left) <= 1.5

    run_virtual(scenario())


def test_who_was_late_at_the_door_together_does_not_crowd_the_next_second() -> None:
    async def scenario() -> None:
        pace, rate = paced(500), 500

        async def one() -> float:
            await pace.depart(APP)
            return now()

        async def held_up_at(moment: float) -> None:
            await wait(moment)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.hold_up(0.05)

        left: list[float] = []
        for _ in range(20):
            several, *_ = await asyncio.gather(asyncio.gather(*(one() for _ in range(60))), held_up_at(0.03))
            left += several
        assert most_within_a_second(left) <= rate

    run_virtual(scenario())


@pytest.mark.parametrize("rate", [1, 100, 500])
def test_no_more_get_ready_than_can_leave_within_a_tenth_of_a_second(rate: float) -> None:
    async def scenario() -> None:
        pace, ready, most = paced(rate), 0, 0

        async def one() -> float:
            nonlocal ready, most
            async with pace.admitted(APP) as depart:
                ready += 1
                most = max(most, ready)
                await wait(0.01)  # the commit
                await depart()
                ready -= 1
                departed_at = now()
                await wait(5.0)  # the reply, which keeps no other request back
            return departed_at

        times = sorted(await asyncio.gather(*(one() for _ in range(max(5, 2 * int(rate))))))
        # And in the hundredths of a second that may be made up for.
        assert 0.09 * rate <= most <= 2 + 0.125 * rate
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(rate, rel=0.03)

    run_virtual(scenario())


def test_a_request_that_breaks_off_makes_room_for_another() -> None:
    async def scenario() -> None:
        pace = paced(10)

        async def broken() -> None:
            async with pace.admitted(APP):
                await wait(0.01)
                raise RuntimeError("the row changed")

        await asyncio.gather(*(broken() for _ in range(20)), return_exceptions=True)
        waiting = [asyncio.ensure_future(broken()) for _ in range(20)]
        await wait(0.005)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with pace.admitted(APP) as depart:
            await depart()

    run_virtual(scenario())


def test_without_a_limit_everything_is_admitted() -> None:
    async def scenario() -> None:
        pace = paced(0)
        async with pace.admitted(APP) as depart, pace.admitted(APP), pace.admitted(APP):
            await depart()

    run_virtual(scenario())


def test_keys_that_are_idle_are_forgotten() -> None:
    async def scenario() -> None:
        pace = paced(1)
        for number in range(12_000):
            await pace.depart(number)
            if number % 4_000 == 0:
                await wait(2)
        assert len(pace._lanes) <= 10_000

    run_virtual(scenario())


def test_apps_have_a_pace_each() -> None:
    async def scenario() -> None:
        pace = paced(10)
        both = await asyncio.gather(departures(pace, 21, APP), departures(pace, 21, OTHER_APP))
        assert all(times[-1] == pytest.approx(20 / 9.8, abs=0.05) for times in both)
        pace.throttled(APP)
        assert (pace.rate(APP), pace.rate(OTHER_APP)) == (5, 10)

    run_virtual(scenario())


def test_waiters_go_first_come_first_served() -> None:
    async def scenario() -> None:
        times = await departures(paced(10), 20)
        assert times == sorted(times)

    run_virtual(scenario())


def test_a_burst_of_throttling_halves_the_rate_once_and_never_below_a_sixteenth() -> None:
    async def scenario() -> None:
        pace = paced(16)
        for _ in range(50):
            pace.throttled(APP)
        assert pace.rate(APP) == 8
        await wait(1.01)
        pace.throttled(APP)
        assert pace.rate(APP) == 4
        for _ in range(10):
            await wait(1.01)
            pace.throttled(APP)
        assert pace.rate(APP) == 1

    run_virtual(scenario())


def test_throttling_reaches_those_who_already_wait() -> None:
    async def scenario() -> None:
        pace = paced(10)
        waiting = asyncio.ensure_future(departures(pace, 30))
        await wait(1.0)
        pace.throttled(APP)
        later = [time for time in await waiting if time > 1.3]
        assert all(after - before == pytest.approx(1 / 4.9, abs=0.01) for before, after in pairwise(later))

    run_virtual(scenario())


def test_answers_bring_the_rate_back_in_about_thirty_seconds() -> None:
    async def scenario() -> None:
        pace = paced(10)
        for _ in range(4):
            pace.throttled(APP)
            await wait(1.01)
        lowest = pace.rate(APP)
        seen = [lowest]
        started = now()
        while pace.rate(APP) < 10:
            await wait(0.1)
            pace.answered(APP)
            seen.append(pace.rate(APP))
        assert lowest == 10 / 16
        assert seen == sorted(seen)
        assert max(after - before for before, after in pairwise(seen)) < 1
        assert 25 < now() - started < 32

    run_virtual(scenario())


def test_a_change_of_rate_starts_no_burst() -> None:
    async def scenario() -> None:
        pace = paced(100)
        times = await departures(pace, 10)
        for step in range(20):
            pace.set_share(0.5 + 0.01 * step)
            times += await departures(pace, 3)
        assert most_within_a_second(times) <= 100
        gaps = [after - before for before, after in pairwise(times[10:])]
        assert min(gaps[:3]) > 1 / 52

    run_virtual(scenario())


def test_a_share_is_taken_of_every_apps_rate() -> None:
    async def scenario() -> None:
        pace = paced(30)
        pace.throttled(OTHER_APP)
        pace.set_share(1 / 3)
        assert pace.rate(APP) == pytest.approx(10)
        assert pace.rate(OTHER_APP) == pytest.approx(5)
        times = await departures(pace, 21)
        assert times[-1] - times[0] == pytest.approx(20 / 9.8, rel=0.03)

    run_virtual(scenario())


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="share"):
        paced(10).set_share(fraction)


# The second: just when the first waiter's turn has come.
@pytest.mark.parametrize("cancel_after", [0, 0.9 / 9.8, 0.05])
def test_cancelled_waiters_take_no_slot(cancel_after: float) -> None:
    async def scenario() -> None:
        pace = paced(10)
        await departures(pace, 1)
        started = now()
        waiters = [asyncio.ensure_future(pace.depart(APP)) for _ in range(50)]
        kept = asyncio.ensure_future(departures(pace, 5))
        await wait(cancel_after)
        abandoned = [waiter for waiter in waiters if waiter.cancel()]
        times = await kept
        assert all(waiter.cancelled() for waiter in abandoned)
        departed_before = len(waiters) - len(abandoned)
        assert times[-1] - started == pytest.approx((departed_before + 5) / 9.8, abs=0.03)

    run_virtual(scenario())


@pytest.mark.parametrize("slow_down", [Pace.throttled, Pace.answered])
def test_without_a_limit_nobody_waits(slow_down: Callable[[Pace[int], int], None]) -> None:
    async def scenario() -> None:
        pace = paced(0)
        slow_down(pace, APP)
        before = now()
        times: Awaitable[list[float]] = departures(pace, 1000)
        assert (await times)[-1] - before < 0.1
        assert pace.rate(APP) == math.inf

    run_virtual(scenario())
