"""The curve of returns to empty rooms that ``advise`` estimates, in as many points as a plot can show."""

from collections.abc import Collection, Sequence
from typing import Final

from watchdog.core.advice import FEWEST_ROOMS, FEWEST_SPELLS, Spells
from watchdog.core.survival import Curve, Observation, curve
from watchdog.report.sections import ReturnCurve

POINTS: Final = 120


def return_curve(found: Collection[Spells]) -> ReturnCurve | None:
    """Return the curve of rooms that people had left; None with fewer of their spells than ``advise`` wants.

    It ends where fewer than ``FEWEST_ROOMS`` rooms are observed: there, chance is all that it would show.
    """
    joined = [one for one in found if one.circumstances.is_joined]
    number = sum(one.count for one in joined)
    if number < FEWEST_SPELLS:
        return None
    left = curve(Observation(one.seconds, one.returned, one.count) for one in joined)
    return ReturnCurve(number, points(left))


def points(left: Curve) -> Sequence[tuple[float, float, float, float]]:
    """Return at most ``POINTS`` points of a curve: after seconds, the share with people back, and its limits."""
    reach = left.reaches(FEWEST_ROOMS)
    times = [step.seconds for step in left.steps if step.returns and step.seconds <= reach]
    every = -(-len(times) // POINTS) or 1
    chosen = []
    for index, seconds in enumerate(times):
        if (len(times) - 1 - index) % every == 0:
            share = left.returned(seconds)
            chosen.append((seconds, share.value, share.low, share.high))
    return chosen
