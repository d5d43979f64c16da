"""What another grace would have done: by hand, and as properties."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_policy import NEVER_JOINED, START, TASK
from watchdog.core.advice import (
    FEWEST_ROOMS,
    Advice,
    Candidate,
    Circumstances,
    Difference,
    Spells,
    Times,
    advise,
    difference,
    differing,
    times,
)
from watchdog.core.model import Ending
from watchdog.core.policy import Policy, plan
from watchdog.core.survival import Observation, curve, interval

POLICY = Policy(rejoin_watch_seconds=300)
LEFT = Circumstances(None, None)


def returned(seconds: float, count: int = 1, **fields: Any) -> Spells:
    return Spells(LEFT, Ending.RETURNED, returned=True, seconds=seconds, count=count, **fields)


def stopped(seconds: float, count: int = 1, *, back: bool = False, **fields: Any) -> Spells:
    """Tasks that we stopped, and for how long their rooms were then observed to be empty."""
    return Spells(fields.pop("kind", LEFT), Ending.STOPPED, back, seconds, count=count, **fields)


def ended(ending: Ending, seconds: float, count: int = 1, kind: Circumstances = LEFT) -> Spells:
    return Spells(kind, ending, returned=False, seconds=seconds, count=count)


def only(found: list[Spells], grace: float, policy: Policy = POLICY) -> Candidate:
    (candidate,) = advise(found, policy, [grace]).candidates
    return candidate


class TestPlan:
    """Spells are planned by the daemon's rule."""

    @pytest.mark.parametrize(
        ("kind", "planned"),
        [
            (Circumstances(None, None), Times(45, 150)),
            (Circumstances(120, None), Times(45, 120)),
            (Circumstances(None, 70), Times(70, 150)),
            (Circumstances(30, None), Times(10, 30)),
            (Circumstances(None, None, 0.0), Times(90, 150)),
            (Circumstances(None, None, 56.0), Times(44, 94)),
            (Circumstances(None, None, 3600.0), Times(45, 150)),
        ],
    )
    def test_times(self, kind: Circumstances, planned: Times) -> None:
        assert times(kind, POLICY) == planned

    @given(
        st.one_of(st.none(), st.integers(30, 1800)),
        st.one_of(st.none(), st.integers(0, 1800)),
        st.one_of(st.none(), st.integers(0, 4000)),
        st.floats(0, 130),
    )
    def test_they_are_those_of_the_task(
        self, window: int | None, own: int | None, age: int | None, grace: float
    ) -> None:
        policy = replace(POLICY, grace_seconds=grace)
        task = TASK if age is None else replace(NEVER_JOINED, started_at=START - timedelta(seconds=age))
        made = plan(replace(task, max_idle_seconds=window, grace_seconds=own), policy, START)
        assert made is not None
        found = times(Circumstances(window, own, None if age is None else float(age)), policy)
        assert START + timedelta(seconds=found.due_seconds) == made.due_at
        assert START + timedelta(seconds=found.auto_stop_seconds) == made.auto_stop_at


class TestCandidate:
    def test_nothing_cut_off_is_counted(self) -> None:
        """Observe mode: 100 rooms, all observed to their end."""
        found = [returned(10, 30), returned(50, 10), returned(100, 20), returned(900, 40)]
        at_45, at_75 = advise(found, POLICY, [75, 45]).candidates
        # Empty after 45 s: 70, of which 30 return within 300 s. After 75 s: 60, of which 20 do.
        assert (at_45.grace_seconds, at_45.stops, at_45.judged) == (45, 70, 70)
        assert (at_75.grace_seconds, at_75.stops, at_75.judged) == (75, 60, 60)
        assert at_45.met is not None
        assert at_75.met is not None
        assert (at_45.met.value, at_75.met.value) == pytest.approx((30 / 70, 20 / 60))
        # Their windows are 150 s.
        assert (at_45.freed_seconds, at_75.freed_seconds) == (70 * 105, 60 * 75)
        assert (at_45.missed, at_45.cut, at_45.unknown, at_45.no_auto_stop) == (0, 0, 0, 0)

    def test_the_interval_is_that_of_the_curve_from_the_due_time_on(self) -> None:
        found = [returned(10, 30), returned(50, 10), stopped(60, 5), returned(100, 20), stopped(400, 35)]
        met = only(found, 45).met
        # From 45 s on: 70 rooms; 10 of 70 return after 50 s, 20 of 55 after 100 s.
        empty = 60 / 70 * 35 / 55
        variance = 10 / (70 * 60) + 20 / (55 * 35)
        assert met is not None
        assert met.value == pytest.approx(1 - empty)
        expected = interval(empty, variance, 70).complement
        assert (met.low, met.high) == pytest.approx((expected.low, expected.high))

    def test_the_interval_of_stops_at_different_times(self) -> None:
        """Of 70 tasks due after 45 s and 100 after 90 s: the delta method by hand."""
        own = Circumstances(None, 90)
        later = Spells(own, Ending.RETURNED, returned=True, seconds=200, count=40)
        met = only([returned(10, 30), returned(60, 20), stopped(400, 50), later, stopped(400, 60, kind=own)], 45).met
        # 20 of 170 return after 60 s, 40 of 150 after 200 s.
        early, late = 70 * (150 / 170) * (110 / 150), 100 * (110 / 150)
        empty = (early + late) / 170
        variance = 20 / (170 * 150) * (early / (early + late)) ** 2 + 40 / (150 * 110)
        expected = interval(empty, variance, 170).complement
        assert met is not None
        assert (met.value, met.low, met.high) == pytest.approx((expected.value, expected.low, expected.high))

    def test_of_a_task_stopped_before_the_curve_says_how_likely_it_would_have_been_stopped(self) -> None:
        """Stopped after 45 s and not watched: 50 rooms. The other 50 were observed."""
        found = [stopped(45, 50), returned(60, 10), returned(100, 20), returned(800, 20)]
        at_45, at_75 = advise(found, POLICY, [45, 75]).candidates
        assert at_45.stops == 100
        # After 75 s 40 of the 50 others are empty: 4 in 5.
        assert at_75.stops == pytest.approx(40 + 50 * 4 / 5)
        assert at_75.freed_seconds == pytest.approx(80 * 75)
        assert at_75.met is not None
        # Of all who are empty after 75 s, 20 in 40 return within 300 s.
        assert at_75.met.value == pytest.approx(1 / 2)

    def test_the_variance_counts_what_the_curve_says_of_stopped_tasks(self) -> None:
        """All stopped at 45 s, observed or not: the share is S(375) / S(75) whatever the number of the unobserved."""
        observed = [returned(60, 10), returned(100, 20), returned(800, 20)]
        few, many = (only([stopped(45, count), *observed], 75).met for count in (50, 5000))
        assert few is not None
        assert many is not None
        assert few.value == pytest.approx(many.value)
        assert (few.low, few.high) == pytest.approx((many.low, many.high))

    @pytest.mark.parametrize("ending", [Ending.RELEASED, Ending.UNKNOWN])
    def test_a_task_that_ended_before_is_not_stopped(self, ending: Ending) -> None:
        candidate = only([ended(ending, 30, 50), returned(200, 60)], 45)
        assert (candidate.stops, candidate.missed) == (60, 0)

    def test_what_zego_ended_before_is_missed(self) -> None:
        candidate = only([ended(Ending.AUTO_STOPPED, 44, 7), ended(Ending.AUTO_STOPPED, 150, 60)], 45)
        assert (candidate.stops, candidate.missed) == (60, 7)

    def test_what_is_due_after_its_auto_stop_is_missed(self) -> None:
        # Noticed 148 s after its start, and confirmed 5 s later; ZEGO's window of 150 s counts from the start.
        late = Circumstances(150, None, 148.0)
        assert times(late, POLICY) == Times(5, 2)
        assert only([ended(Ending.UNKNOWN, 60, 100, late)], 45).stops == 0
        assert only([ended(Ending.UNKNOWN, 60, 100, late)], 45).missed == 100

    def test_bots_have_no_auto_stop(self) -> None:
        candidate = only([stopped(400, 30), replace(stopped(400, 70), has_auto_stop=False)], 45)
        assert (candidate.stops, candidate.no_auto_stop, candidate.freed_seconds) == (100, 70, 30 * 105)

    def test_a_window_cuts_the_grace_and_a_task_keeps_its_own(self) -> None:
        short, own = Circumstances(120, None), Circumstances(None, 60)
        found = [stopped(400, 30), stopped(400, 50, kind=short), stopped(400, 20, kind=own)]
        at_100, at_110, at_140 = advise(found, POLICY, [100, 110, 140]).candidates
        assert (at_100.cut, at_110.cut, at_140.cut) == (0, 50, 80)
        # Due after 100 s in a window of 120; after 60 s by its own grace.
        assert at_110.freed_seconds == 30 * 40 + 50 * 20 + 20 * 90
        assert at_140.freed_seconds == 30 * 20 + 50 * 20 + 20 * 90

    def test_rooms_that_nobody_joined_have_a_curve_of_their_own(self) -> None:
        never = Circumstances(None, None, 0.0)
        found = [
            *(returned(60, 50), stopped(500, 50)),
            Spells(never, Ending.RETURNED, returned=True, seconds=100, count=90),
            stopped(500, 30, kind=never),
        ]
        advice = advise(found, POLICY, [45])
        assert advice.left.empty(200) == pytest.approx(1 / 2)
        assert advice.never_joined.empty(200) == pytest.approx(1 / 4)
        (candidate,) = advice.candidates
        assert candidate.met is not None
        assert candidate.met.value == pytest.approx((50 + 90) / 220)
        assert candidate.freed_seconds == 100 * 105 + 120 * 60

    def test_what_too_few_rooms_show_is_not_said(self) -> None:
        """Beyond 45 s only a few are observed: too few to say what would have become of those that were stopped."""
        found = [stopped(45, 100), stopped(500, FEWEST_ROOMS - 1)]
        advice = advise(found, POLICY, [45, 75])
        at_45, at_75 = advice.candidates
        assert advice.horizon_seconds is None
        assert (at_45.stops, at_45.unknown, at_45.met) == (119, 0, None)
        assert (at_75.stops, at_75.unknown, at_75.met) == (19, 100, None)

    def test_returns_of_nobody_are_bounded(self) -> None:
        met = only([stopped(400, 100)], 45).met
        assert met is not None
        assert (met.value, met.low) == (0, 0)
        assert met.high == pytest.approx(1 - 0.025**0.01)


class TestHorizon:
    def test_it_is_the_watch_as_far_as_it_reaches_for_all_graces(self) -> None:
        found = [stopped(345, 100)]
        assert advise(found, POLICY, [30, 45]).horizon_seconds == 300
        # 345 - 90.
        assert advise(found, POLICY, [30, 90]).horizon_seconds == 255
        # A grace for which less than a minute is left gets no share, and does not shorten the others' horizon.
        advice = advise([stopped(160, 100)], POLICY, [30, 45, 120])
        assert advice.horizon_seconds == 115
        assert [one.met is None for one in advice.candidates] == [False, False, True]

    def test_a_few_tasks_with_a_long_grace_do_not_shorten_it(self) -> None:
        patient = Circumstances(1800, 100)
        for number, horizon in ((10, 300), (12, 245)):
            advice = advise([stopped(345, 90), stopped(345, number, kind=patient)], POLICY, [45])
            assert advice.horizon_seconds == horizon
            (candidate,) = advice.candidates
            assert (candidate.stops, candidate.judged) == (90 + number, 90 if horizon == 300 else 90 + number)

    def test_without_a_watch_it_is_10_minutes_at_most(self) -> None:
        policy = replace(POLICY, rejoin_watch_seconds=0)
        assert advise([returned(5000, 100)], policy, [45]).horizon_seconds == 600
        assert advise([stopped(45, 100)], policy, [30, 45]).horizon_seconds is None


class TestDifference:
    CONFIGURED = Times(45, 150)

    @pytest.mark.parametrize(
        ("spells", "due", "found"),
        [
            # Stopped after 45 s, and people were back after 60 s.
            (stopped(60, back=True), 75, Difference.KEPT),
            (stopped(60, back=True), 60, Difference.KEPT),
            (stopped(60, back=True), 59, None),
            (stopped(60, back=True), 20, None),
            (stopped(645), 75, None),
            # Not stopped, because people were back after 30 s.
            (returned(30), 20, Difference.STOPPED_BEFORE_RETURN),
            (returned(30), 30, None),
            (returned(30), 75, None),
            (ended(Ending.RELEASED, 30), 20, Difference.STOPPED),
            (ended(Ending.UNKNOWN, 30), 20, Difference.STOPPED),
            # Something else than the grace kept it: it was due after 45 s.
            (returned(50), 20, None),
            (ended(Ending.AUTO_STOPPED, 150), 20, None),
        ],
    )
    def test_what_would_have_been_otherwise(self, spells: Spells, due: float, found: Difference | None) -> None:
        assert difference(spells, Times(due, 150), self.CONFIGURED) is found

    def test_they_are_counted_and_the_first_are_named(self) -> None:
        found = [stopped(60, 3, back=True), returned(30, 4), ended(Ending.RELEASED, 25, 5), stopped(645, 100)]
        at_20, at_75 = advise(found, POLICY, [20, 75]).candidates
        assert at_20.differences == {Difference.KEPT: 0, Difference.STOPPED_BEFORE_RETURN: 4, Difference.STOPPED: 5}
        assert at_75.differences == {Difference.KEPT: 3, Difference.STOPPED_BEFORE_RETURN: 0, Difference.STOPPED: 0}
        named = [(f"{number}/{copy}", one) for number, one in enumerate(found) for copy in range(one.count)]
        assert differing(named, POLICY, [75, 20], at_most=2) == [
            (20, Difference.STOPPED, "2/0"),
            (20, Difference.STOPPED, "2/1"),
            (20, Difference.STOPPED_BEFORE_RETURN, "1/0"),
            (20, Difference.STOPPED_BEFORE_RETURN, "1/1"),
            (75, Difference.KEPT, "0/0"),
            (75, Difference.KEPT, "0/1"),
        ]


def test_the_summary() -> None:
    found = [returned(30, 4), stopped(60, 3, back=True), stopped(645, 90), ended(Ending.RELEASED, 25, 5)]
    advice: Advice = advise(found, POLICY, [45])
    assert (advice.spells, advice.returns_after_stops) == (102, 3)
    assert advice.endings == {
        Ending.RETURNED: 4,
        Ending.STOPPED: 93,
        Ending.AUTO_STOPPED: 0,
        Ending.RELEASED: 5,
        Ending.UNKNOWN: 0,
    }
    assert advice.left == curve(Observation(one.seconds, one.returned, one.count) for one in found)


spells = st.lists(
    st.builds(
        Spells,
        st.builds(
            Circumstances,
            st.sampled_from([None, 120, 300]),
            st.sampled_from([None, 10]),
            st.sampled_from([None, None, 0.0, 100.0]),
        ),
        st.sampled_from(Ending),
        st.booleans(),
        st.integers(0, 700).map(float),
        st.booleans(),
        st.integers(1, 40),
    ),
    max_size=20,
)


@given(spells, st.lists(st.integers(0, 200).map(float), min_size=1, max_size=4))
def test_numbers_are_plausible_whatever_was_found(found: list[Spells], graces: list[float]) -> None:
    whole = [
        replace(one, returned=one.ending is Ending.RETURNED or (one.returned and one.ending is Ending.STOPPED))
        for one in found
    ]
    advice = advise(whole, POLICY, graces)
    for candidate in advice.candidates:
        assert 0 <= candidate.judged <= candidate.stops + 1e-6
        assert candidate.stops + candidate.missed + candidate.unknown <= advice.spells + 1e-6
        assert candidate.freed_seconds >= 0
        if candidate.met is not None:
            assert -1e-9 <= candidate.met.low <= candidate.met.value + 1e-9
            assert candidate.met.value <= candidate.met.high + 1e-9 <= 1 + 2e-9
    # A longer grace stops no more tasks than a shorter one.
    stops = [one.stops for one in advice.candidates if not one.unknown]
    assert stops == sorted(stops, reverse=True) or max(stops) - min(stops) < 1e-6
