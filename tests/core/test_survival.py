"""The curve of returns: by hand, against published figures, as properties, and by chance."""

from collections import Counter
from itertools import pairwise
from math import exp, inf, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.survival import Curve, Interval, Observation, curve, interval


def of(returned: list[float], cut_off: list[float]) -> Curve:
    return curve([Observation(at, True) for at in returned] + [Observation(at, False) for at in cut_off])


def test_a_curve_by_hand() -> None:
    """Eight rooms. Returns after 10, 20, 20 and 40 s; observed without a return for 10, 30, 50 and 50 s."""
    found = of([10, 20, 20, 40], [10, 30, 50, 50])
    # 10: all 8 are observed, the one that is cut off at that moment too. 20: 6 are left. 40: 3 are left.
    steps = [(step.seconds, step.at_risk, step.returns) for step in found.steps]
    assert steps == [(10, 8, 1), (20, 6, 2), (30, 4, 0), (40, 3, 1), (50, 2, 0)]
    assert [step.empty for step in found.steps] == pytest.approx([7 / 8, 7 / 12, 7 / 12, 7 / 18, 7 / 18])
    assert [step.variance for step in found.steps] == pytest.approx([1 / (8 * 7), 2 / (6 * 4), 0, 1 / (3 * 2), 0])
    assert [found.empty(seconds) for seconds in (0, 9.9, 10, 19, 30, 1000)] == pytest.approx(
        [1, 1, 7 / 8, 7 / 8, 7 / 12, 7 / 18]
    )
    assert [found.at_risk(seconds) for seconds in (0, 10, 11, 40, 50, 51)] == [8, 8, 6, 3, 2, 0]
    assert [found.reaches(rooms) for rooms in (9, 8, 4, 3, 2, 1)] == [0, 10, 30, 40, 50, 50]
    # After 40 s: ln S = ln(7/18) = -0.94446, its variance 1/56 + 1/12 + 1/6 = 0.26786, so the exponent of S is
    # exp(±1.95996 · 0.51755 / 0.94446), 2.9272 or 0.34162.
    share = found.returned(40)
    assert share.value == pytest.approx(11 / 18)
    assert (1 - share.high, 1 - share.low) == pytest.approx((0.06299, 0.72424), abs=5e-5)


def test_published_figures() -> None:
    """Remission under 6-mercaptopurine: E. A. Gehan, Biometrika 52 (1965) 203, the textbooks' example."""
    found = of([6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])
    published = {
        6: (0.857, 0.0764, 0.620, 0.952),
        7: (0.807, 0.0869, 0.563, 0.923),
        10: (0.753, 0.0963, 0.503, 0.889),
        13: (0.690, 0.1068, 0.432, 0.849),
        16: (0.627, 0.1141, 0.368, 0.805),
        22: (0.538, 0.1282, 0.268, 0.747),
        23: (0.448, 0.1346, 0.188, 0.680),
    }
    for week, figures in published.items():
        share, error = found.returned(week), found.empty(week) * sqrt(found.variance({week: 1.0}))
        assert (1 - share.value, error, 1 - share.high, 1 - share.low) == pytest.approx(figures, abs=6e-4)


times = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=40)
observations = st.lists(
    st.builds(Observation, st.integers(0, 30).map(float), st.booleans(), st.integers(1, 5)), min_size=1
)


@given(times)
def test_without_cut_off_observations_it_is_the_share_itself(returned: list[float]) -> None:
    found = of(returned, [])
    for seconds in range(31):
        still = sum(at > seconds for at in returned) / len(returned)
        assert found.empty(seconds) == pytest.approx(still)
        if 0 < still < 1:
            # Greenwood's variance is then that of a binomial share.
            assert still**2 * found.variance({seconds: 1.0}) == pytest.approx(still * (1 - still) / len(returned))


@given(observations)
def test_it_falls_from_1_and_stays_within_its_interval(found: list[Observation]) -> None:
    drawn = curve(found)
    shares = [drawn.returned(seconds) for seconds in range(-1, 32)]
    assert shares[0].value == 0
    for earlier, later in pairwise(shares):
        assert earlier.value <= later.value
    for share in shares:
        assert 0 <= share.low <= share.value <= share.high <= 1


@given(observations, st.randoms(use_true_random=False))
def test_neither_order_nor_grouping_matters(found: list[Observation], chance: Random) -> None:
    one_by_one = [Observation(one.seconds, one.returned) for one in found for _ in range(one.count)]
    chance.shuffle(one_by_one)
    assert curve(one_by_one) == curve(found)


@given(observations, st.lists(st.floats(0, 30), min_size=2, max_size=2, unique=True).map(sorted))
def test_the_variance_of_a_ratio_is_that_of_the_steps_between(found: list[Observation], times: list[float]) -> None:
    drawn = curve(found)
    since, until = times
    between = [step.variance for step in drawn.steps if since < step.seconds <= until]
    assert drawn.variance({until: 1.0, since: -1.0}) == pytest.approx(sum(between))


def test_nobody_observed() -> None:
    found = curve([])
    assert (found.empty(45), found.at_risk(0), found.reaches(1)) == (1.0, 0, 0.0)
    assert found.returned(45) == Interval(0.0, 0.0, 1.0)


def test_where_the_variance_says_nothing_the_bound_is_exact() -> None:
    # 0.975 = P(at least one of 100 returns) at the upper bound.
    none = of([], [50.0] * 100).returned(20)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 1 - 0.025**0.01))
    assert of([5.0] * 100, []).returned(20).value == 1
    every = interval(0.0, inf, 100)
    assert (every.value, every.low, every.high) == pytest.approx((0, 0, 1 - 0.025**0.01))
    assert interval(0.5, inf, 100) == Interval(0.5, 0.0, 1.0)
    assert interval(1 - 1e-16, 1e-3, 100).low == pytest.approx(0, abs=1e-9)


def test_of_100_intervals_95_contain_the_truth() -> None:
    """Exponential returns with a mean of 60 s, of which half never come, cut off at random by something independent."""
    chance = Random(19)  # noqa: S311 - repeatable
    truth = {seconds: 0.5 + 0.5 * exp(-seconds / 60) for seconds in (10, 30, 60, 120)}
    held: Counter[int] = Counter()
    tries = 400
    for _ in range(tries):
        found = []
        for _ in range(150):
            back = chance.expovariate(1 / 60) if chance.random() < 0.5 else inf
            cut = chance.uniform(5, 250)
            found.append(Observation(min(back, cut), back <= cut))
        drawn = curve(found)
        for seconds, still in truth.items():
            share = drawn.returned(seconds)
            held[seconds] += share.low <= 1 - still <= share.high
    # 380 expected with a standard deviation of 4.4.
    assert all(380 - 14 <= held[seconds] <= 380 + 14 for seconds in truth), held
