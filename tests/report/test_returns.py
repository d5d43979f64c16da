"""The curve of ``advise`` as the report draws it."""

import pytest

from watchdog.core.advice import FEWEST_ROOMS, FEWEST_SPELLS, Circumstances, Spells, advise
from watchdog.core.model import Ending
from watchdog.core.policy import Policy
from watchdog.core.survival import Interval
from watchdog.report.returns import POINTS, return_curve

JOINED = Circumstances(None, None)


def spells(seconds: float, count: int, *, returned: bool = True, circumstances: Circumstances = JOINED) -> Spells:
    ending = Ending.RETURNED if returned else Ending.STOPPED
    return Spells(circumstances, ending, returned=returned, seconds=seconds, count=count)


def test_the_curve_is_the_share_of_rooms_with_people_back() -> None:
    curve = return_curve([spells(5, 20), spells(10, 30), spells(45, 50, returned=False)])
    assert curve is not None
    assert curve.spells == 100
    assert [step[0] for step in curve.steps] == [5, 10]
    assert [step[1] for step in curve.steps] == pytest.approx([0.2, 0.5])
    for _, share, low, high in curve.steps:
        assert 0 < low < share < high < 1


def test_too_few_spells_have_no_curve() -> None:
    assert return_curve([]) is None
    assert return_curve([spells(5, FEWEST_SPELLS - 1)]) is None
    never = Circumstances(None, None, age_seconds=0.0)
    assert return_curve([spells(5, FEWEST_SPELLS - 1), spells(5, 9, circumstances=never)]) is None
    assert return_curve([spells(5, FEWEST_SPELLS)]) is not None


def test_it_ends_where_few_rooms_are_left() -> None:
    curve = return_curve([spells(5, 100), spells(10, FEWEST_ROOMS - 1)])
    assert curve is not None
    assert [step[0] for step in curve.steps] == [5]


def test_rooms_that_nobody_had_joined_are_not_in_it() -> None:
    never = Circumstances(None, None, age_seconds=0.0)
    curve = return_curve([spells(5, 60), spells(45, 60, returned=False), spells(7, 40, circumstances=never)])
    assert curve is not None
    assert (curve.spells, [step[0] for step in curve.steps]) == (120, [5])


def test_it_is_the_curve_of_advise() -> None:
    found = [spells(second, 3, returned=second % 3 != 0) for second in range(1, 101)]
    curve = return_curve(found)
    left = advise(found, Policy(), [45]).left
    assert curve is not None
    assert curve.steps == [(at, left.returned(at).value, *_limits(left.returned(at))) for at, *_ in curve.steps]
    assert len(curve.steps) > 50


def _limits(share: Interval) -> tuple[float, float]:
    return share.low, share.high


def test_a_long_curve_has_as_many_points_as_a_plot_shows() -> None:
    curve = return_curve([spells(second, 3) for second in range(1, 601)])
    assert curve is not None
    assert POINTS / 2 <= len(curve.steps) <= POINTS
    shares = [step[1] for step in curve.steps]
    assert shares == sorted(shares)
