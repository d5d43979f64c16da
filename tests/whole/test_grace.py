"""What ``advise`` estimates is what happens: the daemon's own parts, in simulated hours, at the grace in question."""

from functools import lru_cache
from math import exp

import pytest

from simulation.rooms import RETURN_MEAN_SECONDS, RETURNING
from simulation.run import Scenario, simulate
from watchdog.core.advice import Spells, advise
from watchdog.core.model import Ending
from watchdog.core.policy import Policy
from watchdog.sandbox.misbehaviour import FAITHFUL


@lru_cache
def spells(seed: int, grace: float) -> tuple[Spells, ...]:
    """Run the rooms with callbacks that all arrive in order: here the estimate is tried, not the evidence."""
    scenario = Scenario(
        seed=seed, rooms=0, returning=100, hours=0.6, policy={"grace_seconds": grace}, callbacks=FAITHFUL
    )
    return simulate(scenario).spells


def still_empty(seconds: float) -> float:
    """The truth."""
    return 1 - RETURNING + RETURNING * exp(-seconds / RETURN_MEAN_SECONDS)


def met(grace: float, horizon: float) -> float:
    """The truth: the share of rooms, still empty after ``grace``, to which people come back within ``horizon``."""
    return 1 - still_empty(grace + horizon) / still_empty(grace)


def test_the_curve_is_that_of_the_rooms() -> None:
    curve = advise(spells(1, 45.0), Policy(), [45]).left
    assert curve.at_risk(1) > 400
    outside = 0
    for seconds in (5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 450, 600):
        share, truth = curve.returned(seconds), 1 - still_empty(seconds)
        outside += not share.low <= truth <= share.high
        assert share.value == pytest.approx(truth, abs=0.07), seconds
    # Neighbouring points depend on each other: one that is outside does not come alone.
    assert outside <= 2


@pytest.mark.parametrize(("grace", "seed"), [(20.0, 2), (90.0, 3)])
def test_another_grace_does_what_was_estimated(grace: float, seed: int) -> None:
    """Estimated from a run at 45 s, and found in a fresh run at ``grace``."""
    advice = advise(spells(1, 45.0), Policy(), [20.0, 90.0])
    assert advice.horizon_seconds is not None
    (candidate,) = [one for one in advice.candidates if one.grace_seconds == grace]
    assert candidate.met is not None

    horizon = advice.horizon_seconds
    stops = [one for one in spells(seed, grace) if one.ending is Ending.STOPPED]
    number = sum(one.count for one in stops)
    found = sum(one.count for one in stops if one.returned and one.seconds <= grace + horizon) / number
    assert number > 150
    error = (found * (1 - found) / number) ** 0.5
    estimated = (candidate.met.high - candidate.met.low) / (2 * 1.96)
    assert candidate.met.value == pytest.approx(found, abs=2.5 * (error**2 + estimated**2) ** 0.5)
    assert candidate.met.value == pytest.approx(met(grace, horizon), abs=3 * estimated)
    # The two graces differ by more than that.
    assert met(20, horizon) - met(90, horizon) > 5 * estimated
