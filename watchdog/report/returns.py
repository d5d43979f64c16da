"""The curve of returns to empty rooms that ``advise`` estimates, in as many points as a plot can show."""

from collections.abc import Collection
from typing import Final

from watchdog.core.advice import FEWEST_ROOMS, FEWEST_SPELLS, Spells, advise
from watchdog.core.policy import Policy
from watchdog.report.sections import ReturnCurve

POINTS: Final = 120


def return_curve(found: Collection[Spells], policy: Policy) -> ReturnCurve | None:
    """Return the curve of rooms that people had left; None with fewer spells than ``advise`` wants.

    It ends where fewer than ``FEWEST_ROOMS`` rooms are observed: there, chance is all that it would show.
    """
    if sum(one.count for one in found) < FEWEST_SPELLS:
        return None
    left = advise(found, policy, [policy.grace_seconds]).left
    reach = left.reaches(FEWEST_ROOMS)
    times = [step.seconds for step in left.steps if step.returns and step.seconds <= reach]
    every = -(-len(times) // POINTS) or 1
    steps = []
    for number, seconds in enumerate(times):
        if (len(times) - 1 - number) % every == 0:
            share = left.returned(seconds)
            steps.append((seconds, share.value, share.low, share.high))
    return ReturnCurve(left.steps[0].at_risk if left.steps else 0, steps)
