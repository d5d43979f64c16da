"""Many daemons, one pace: the lanes in virtual time on a schedule in memory, and the schedule itself on PostgreSQL."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa

from simulation.virtual import VirtualClock, run_virtual
from tests.support.time_travel import World
from watchdog.errors import DatabaseUnavailable
from watchdog.store.engine import writing
from watchdog.store.pace import FARTHEST_SECONDS, PaceStore
from watchdog.store.tables import paces
from watchdog.zego.pacing import Pace

APP = 1
CATCH_UP = 0.02


class Book:
    """A schedule as ``pace_store`` keeps it, a round trip away."""

    def __init__(self, round_trip_seconds: float = 0.004) -> None:
        self._clock = VirtualClock()
        self._round_trip_seconds = round_trip_seconds
        self._next: dict[int, float] = {}
        self.trips = 0
        self.is_away = False

    async def __call__(self, app_id: int, seconds: float, catch_up_seconds: float) -> float:
        self.trips += 1
        await self._clock.sleep(self._round_trip_seconds / 2)
        if self.is_away:
            raise DatabaseUnavailable("away")
        now = self._clock.monotonic()
        first = max(now - catch_up_seconds, self._next.get(app_id, now))
        self._next[app_id] = first + seconds
        await self._clock.sleep(self._round_trip_seconds / 2)
        return first - now

    def pace(self, requests_per_second: float, *, daemons: int = 1) -> Pace[int]:
        pace = Pace(requests_per_second, schedule=self, clock=self._clock)
        pace.set_share(1 / daemons)
        return pace


async def departures(pace: Pace[int], count: int, app_id: int = APP) -> list[float]:
    async def one() -> float:
        await pace.depart(app_id)
        return asyncio.get_running_loop().time()

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def longest_wait(pace: Pace[int], pauses: Iterable[float]) -> float:
    """Of those who come one by one, each after the next of the ``pauses``, all in seconds."""
    clock, longest = VirtualClock(), 0.0
    for pause in pauses:
        await clock.sleep(pause)
        began = clock.monotonic()
        await pace.depart(APP)
        longest = max(longest, clock.monotonic() - began)
    return longest


def most_within_a_second(times: list[float]) -> int:
    return max(sum(start <= time < start + 1 for time in times) for start in times)


@pytest.mark.parametrize("rate", [0.5, 1, 10, 100, 500])
@pytest.mark.parametrize("round_trip_seconds", [0, 0.004, 0.03])
def test_alone_the_whole_pace_is_used(rate: float, round_trip_seconds: float) -> None:
    async def scenario() -> None:
        book = Book(round_trip_seconds)
        times = await departures(book.pace(rate), max(20, int(3 * rate)))
        assert most_within_a_second(times) <= max(1, rate)
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(rate, rel=0.03)
        assert book.trips <= max(len(times), 5 * (times[-1] - times[0]))

    run_virtual(scenario())


@pytest.mark.parametrize("rate", [50, 500])
def test_alone_nobody_waits_for_the_database(rate: float) -> None:
    async def scenario() -> None:
        book, clock = Book(round_trip_seconds=0.03), VirtualClock()
        pace = book.pace(rate)
        await pace.depart(APP)
        assert await longest_wait(pace, ((1 + number % 3) / rate for number in range(int(2 * rate)))) < 0.001
        assert book.trips <= 2.5 * clock.monotonic()

    run_virtual(scenario())


@pytest.mark.parametrize("rate", [0.5, 10])
def test_who_comes_alone_and_seldom_waits_for_no_more_than_the_database(rate: float) -> None:
    async def scenario() -> None:
        pace = Book(round_trip_seconds=0.01).pace(rate)
        assert await longest_wait(pace, ((1.1 + number % 7 / 3) / rate for number in range(100))) < 0.011

    run_virtual(scenario())


@pytest.mark.parametrize("rate", [10, 100])
def test_together_they_keep_to_it_and_use_it_up(rate: float) -> None:
    async def scenario() -> None:
        book = Book()
        several = await asyncio.gather(*(departures(book.pace(rate, daemons=8), int(rate)) for _ in range(8)))
        times = sorted(time for times in several for time in times)
        assert most_within_a_second(times) <= rate
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(0.95 * rate, rel=0.03)
        middle = [sum(time < times[len(times) // 2] for time in one) for one in several]
        assert max(middle) - min(middle) <= 0.1 * rate + 2, "all have their turn"

    run_virtual(scenario())


def test_what_the_others_do_not_need_is_not_lost() -> None:
    async def scenario() -> None:
        book = Book()
        idle = [book.pace(10, daemons=8) for _ in range(7)]
        times = await departures(book.pace(10, daemons=8), 40)
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(9.5, rel=0.03)
        assert idle[0].rate(APP) == 10 / 8

    run_virtual(scenario())


def test_a_newcomer_of_whom_nobody_knows_yet_breaks_nothing() -> None:
    async def scenario() -> None:
        book = Book()
        clock = VirtualClock()

        async def newcomer(after: float) -> list[float]:
            await clock.sleep(after)
            return await departures(book.pace(10), 20)

        several = await asyncio.gather(departures(book.pace(10), 40), newcomer(0.5), newcomer(0.55), newcomer(1.1))
        assert most_within_a_second(sorted(time for times in several for time in times)) <= 10

    run_virtual(scenario())


@pytest.mark.parametrize(("daemons", "lost_seconds"), [(1, 1.0), (2, 0.3)])
def test_a_daemon_that_dies_takes_little_with_it(daemons: int, lost_seconds: float) -> None:
    async def scenario() -> None:
        book = Book()
        dying = asyncio.ensure_future(departures(book.pace(10, daemons=daemons), 50))
        await VirtualClock().sleep(1)
        dying.cancel()
        times = await departures(book.pace(10), 10)
        assert times[-1] - 1 - 9 / 9.8 < lost_seconds

    run_virtual(scenario())


def test_while_the_database_is_away_nobody_leaves_and_afterwards_everybody_does() -> None:
    async def scenario() -> None:
        book = Book()
        book.is_away = True
        waiting = asyncio.ensure_future(departures(book.pace(10), 5))
        await VirtualClock().sleep(10)
        assert not waiting.done()
        assert book.trips <= 21
        book.is_away = False
        assert len(await waiting) == 5

    run_virtual(scenario())


def test_any_other_failure_reaches_those_who_wait() -> None:
    async def scenario() -> None:
        async def broken(app_id: int, seconds: float, catch_up_seconds: float) -> float:
            return seconds / (app_id - APP) + catch_up_seconds

        pace = Pace(10, schedule=broken, clock=VirtualClock())
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await pace.depart(APP)

    run_virtual(scenario())


def test_cancelled_waiters_take_no_slot() -> None:
    async def scenario() -> None:
        pace = Book().pace(10)
        waiters = [asyncio.ensure_future(pace.depart(APP)) for _ in range(50)]
        kept = asyncio.ensure_future(departures(pace, 5))
        await VirtualClock().sleep(0.25)
        for waiter in waiters:
            waiter.cancel()
        times = await kept
        assert times[-1] == pytest.approx((3 + 5) / 9.8, abs=0.12)

    run_virtual(scenario())


def test_a_slot_that_was_missed_is_lost_rather_than_used_late() -> None:
    """A daemon that freezes with slots in hand would otherwise send them all at once when it is woken."""

    async def scenario() -> None:
        class Freezing(VirtualClock):
            frozen = 0.0

            async def sleep(self, seconds: float) -> None:
                await super().sleep(seconds + self.frozen)
                self.frozen = 0.0

        book, clock = Book(), Freezing()
        pace = Pace(100, schedule=book, clock=clock)
        clock.frozen = 0.5
        frozen, others = await asyncio.gather(departures(pace, 50), departures(book.pace(100), 200))
        assert most_within_a_second(sorted(frozen + others)) <= 100
        assert min(after - before for before, after in pairwise(sorted(frozen))) > 0.001

    run_virtual(scenario())


@pytest.mark.parametrize("daemons", [1, 3])
def test_a_span_whose_time_is_over_has_no_slots(daemons: int) -> None:
    """Else it would have them for ever: whoever has been idle would go by itself from then on."""

    async def scenario() -> None:
        book = Book()
        paces = [book.pace(100, daemons=daemons) for _ in range(3)]
        times = []
        for _ in range(5):
            for found in await asyncio.gather(*(departures(pace, 40) for pace in paces)):
                times += found
            await VirtualClock().sleep(3)
        assert most_within_a_second(sorted(times)) <= 100

    run_virtual(scenario())


def test_throttling_slows_down_what_is_taken_from_the_schedule() -> None:
    async def scenario() -> None:
        pace = Book().pace(10)
        await departures(pace, 1)
        pace.throttled(APP)
        times = await departures(pace, 10)
        assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(5, rel=0.05)

    run_virtual(scenario())


def begins_in(store: PaceStore, app_id: int, kind: str, seconds: float, catch_up_seconds: float) -> float:
    """Reserve, and return in how many seconds that begins."""
    begins_at, now = store.reserve(app_id, kind, seconds, catch_up_seconds)
    return (begins_at - now).total_seconds()


class TestSchedule:
    def test_slots_follow_one_another(self, postgresql_world: World) -> None:
        store = PaceStore(postgresql_world.engine)
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == 0
        assert begins_in(store, 1, "stop", 0.3, CATCH_UP) == pytest.approx(0.1)
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == pytest.approx(0.4)
        assert begins_in(store, 2, "stop", 0.1, CATCH_UP) == 0
        assert begins_in(store, 1, "occupancy", 0.1, CATCH_UP) == 0
        postgresql_world.advance(0.2)
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == pytest.approx(0.3)

    def test_idle_time_saves_up_next_to_nothing(self, postgresql_world: World) -> None:
        store = PaceStore(postgresql_world.engine)
        begins_in(store, 1, "stop", 0.5, CATCH_UP)
        postgresql_world.advance(3600)
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == pytest.approx(-CATCH_UP)
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == pytest.approx(0.1 - CATCH_UP)

    def test_a_database_clock_that_was_set_back_blocks_nobody(self, postgresql_world: World) -> None:
        store = PaceStore(postgresql_world.engine)
        begins_in(store, 1, "stop", 0.1, CATCH_UP)
        with writing(postgresql_world.engine) as connection:
            connection.execute(
                sa.update(paces).values(next_at=postgresql_world.now + timedelta(seconds=FARTHEST_SECONDS + 1))
            )
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == 0
        assert begins_in(store, 1, "stop", 0.1, CATCH_UP) == pytest.approx(0.1)

    def test_at_a_slow_pace_slots_of_many_daemons_do_not_coincide(self, postgresql_world: World) -> None:
        """Nine daemons at 0.1 a second, and at a sixteenth of 0.25: the last slot is minutes away."""
        store = PaceStore(postgresql_world.engine)
        for app_id, seconds in ((1, 10.0), (2, 64.0)):
            begins = [begins_in(store, app_id, "stop", seconds, CATCH_UP) for _ in range(9)]
            assert begins == pytest.approx([seconds * number for number in range(9)])

    def test_of_those_who_ask_at_once_everybody_gets_others(self, postgresql_world: World) -> None:
        stores = [PaceStore(postgresql_world.another_store(f"host/{number}").engine) for number in range(4)]
        with ThreadPoolExecutor(8) as threads:
            firsts = list(
                threads.map(lambda number: begins_in(stores[number % 4], 1, "stop", 1.0, CATCH_UP), range(40))
            )
        assert sorted(firsts) == pytest.approx([float(number) for number in range(40)])
