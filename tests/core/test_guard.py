"""The guard alone: what it allows, when it trips, and when it opens again."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchdog.core.guard import ALWAYS_ALLOWED, HELD_RECHECK_SECONDS, MINUTE_SECONDS, Guard, Limits, News


def guard(per_minute: float = 10, share: float = 0, *, active: int | None = None, fraction: float = 1.0) -> Guard:
    made = Guard(Limits(per_minute, share))
    made.active, made.fraction = active, fraction
    return made


def ask(guard: Guard, tasks: range, now: float) -> list[bool]:
    return [guard.ask(f"task-{number}", now)[0] for number in tasks]


@pytest.mark.parametrize(
    ("per_minute", "share", "active", "fraction", "allowed"),
    [
        (60, 0.25, 1000, 1, 60),
        (60, 0.25, 100, 1, 25),
        (60, 0.25, 3, 1, ALWAYS_ALLOWED),
        (60, 0.25, 0, 1, ALWAYS_ALLOWED),
        (3, 0.25, 1000, 1, 3),
        (60, 0.25, None, 1, 60),
        (60, 0, 1000, 1, 60),
        (0, 0.25, 1000, 1, 250),
        (0, 0.25, None, 1, math.inf),
        (0, 0, 1000, 1, math.inf),
        (60, 0.25, 1000, 1 / 3, 20),
        (60, 0.25, 10, 1 / 8, 1),
        (60, 0.25, 1000, 1 / 7, 8),
    ],
)
def test_how_many_are_allowed(
    per_minute: float, share: float, active: int | None, fraction: float, allowed: float
) -> None:
    assert guard(per_minute, share, active=active, fraction=fraction).allowed == allowed


def test_up_to_the_limit_everything_passes() -> None:
    it = guard(10)
    assert ask(it, range(10), 0.0) == [True] * 10
    assert (it.asks, it.held, it.tripped_at) == (10, 0, None)


def test_one_more_trips_it_and_then_nothing_passes() -> None:
    it = guard(10)
    ask(it, range(10), 0.0)
    assert it.ask("one more", 1.0) == (False, News.TRIPPED)
    assert it.ask("task-0", 1.0) == (False, None), "not even one that might have passed"
    assert (it.tripped_at, it.held) == (1.0, 2)


def test_asking_again_counts_once() -> None:
    it = guard(2)
    for second in range(30):
        assert ask(it, range(2), float(second)) == [True, True]


def test_the_minute_slides() -> None:
    it = guard(1)
    assert it.ask("a", 0.0)[0]
    assert it.ask("b", MINUTE_SECONDS)[0], "a minute later"
    assert not it.ask("c", MINUTE_SECONDS + 1)[0]


def test_it_opens_a_minute_after_too_many_last_asked() -> None:
    it = guard(10)
    ask(it, range(30), 0.0)
    ask(it, range(10), 40.0)
    assert it.look(59.9) is None
    assert it.look(60.0) is News.OPENED
    assert (it.tripped_at, it.held, it.asks) == (None, 0, 10)
    assert it.look(61.0) is None
    assert it.ask("task-0", 62.0) == (True, None)


def test_it_stays_tripped_for_as_long_as_they_ask() -> None:
    it = guard(10)
    now = 0.0
    passed = sum(ask(it, range(1000), now))
    for _ in range(100):
        now += HELD_RECHECK_SECONDS
        passed += sum(ask(it, range(1000), now))
    assert passed == 10
    assert it.tripped_at == 0.0


def test_a_feed_that_flaps_gets_no_more_than_the_limit_each_minute() -> None:
    it = guard(10)
    passed = 0
    for minute in range(60):
        # Other rooms each time, and half a minute of quiet in between.
        passed += sum(ask(it, range(minute * 100, minute * 100 + 100), minute * MINUTE_SECONDS))
        it.look(minute * MINUTE_SECONDS + 30)
    assert passed <= 60 * 10


def test_a_release_lets_everything_pass_and_ends() -> None:
    it = guard(10)
    ask(it, range(100), 0.0)
    it.release(30.0)
    assert it.look(1.0) is News.OPENED
    assert ask(it, range(1000), 2.0) == [True] * 1000
    assert it.ask("one more", 30.0) == (False, News.TRIPPED)
    it.release(100.0)
    assert it.ask("one more", 31.0) == (True, News.OPENED)
    it.release(31.0)
    assert it.ask("one more", 32.0) == (False, News.TRIPPED), "taken back"


def test_without_limits_it_never_trips() -> None:
    it = guard(0, 0, active=10)
    assert ask(it, range(10_000), 0.0) == [True] * 10_000


def test_fewer_active_tasks_or_more_daemons_trip_it_with_the_next_one() -> None:
    it = guard(0, 0.5, active=100)
    ask(it, range(40), 0.0)
    it.active = 40
    assert it.ask("task-0", 1.0) == (False, News.TRIPPED)
    it.active = 100
    assert it.look(2.0) is News.OPENED
    it.fraction = 0.5
    assert it.ask("task-0", 3.0) == (False, News.TRIPPED)


def test_it_remembers_a_minute_and_no_more() -> None:
    it = guard(10)
    for number in range(20_000):
        it.ask(f"task-{number}", number * 0.1)
    assert len(it._asked) <= 601
    assert len(it._held) <= 601


asks = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 30, allow_nan=False)), max_size=200)


@given(asks, st.integers(1, 12))
@example([(0, 0.0), (1, 60.0), (2, 0.0)], 1)
@settings(max_examples=300)
def test_in_no_minute_more_pass_than_are_allowed(asked: list[tuple[int, float]], allowed: int) -> None:
    it, now = guard(allowed), 0.0
    passed: list[tuple[float, int]] = []
    everybody: list[tuple[float, int]] = []
    for task, later in asked:
        now += later
        everybody.append((now, task))
        may, news = it.ask(str(task), now)
        asks_of_minute = {task for at, task in everybody if at > now - MINUTE_SECONDS}
        assert may == (it.tripped_at is None)
        assert (news is News.TRIPPED) == (it.tripped_at == now and not may and news is not None)
        # It is open whenever no more than allowed have asked within the minute, and never when more have.
        assert may == (len(asks_of_minute) <= allowed)
        if may:
            passed.append((now, task))
        within = {task for at, task in passed if at > now - MINUTE_SECONDS}
        assert len(within) <= allowed
        assert it.held <= it.asks == len(asks_of_minute)


@given(asks)
def test_a_guard_without_limits_lets_everything_pass(asked: list[tuple[int, float]]) -> None:
    it, now = guard(0), 0.0
    for task, later in asked:
        now += later
        assert it.ask(str(task), now) == (True, None)


@given(st.floats(0, 1e6), st.floats(0, 1), st.none() | st.integers(0, 10**7), st.integers(1, 64))
def test_the_limits_are_kept_by_all_daemons_together(
    per_minute: float, share: float, active: int | None, daemons: int
) -> None:
    limits = Limits(per_minute, share)
    alone, each = limits.allowed(active, 1.0), limits.allowed(active, 1 / daemons)
    assert each >= 1
    assert alone == each == math.inf or daemons * each <= max(alone + 1, daemons)
