"""How long a room stays empty: the estimator of Kaplan and Meier. Pure.

A room is observed from the moment at which it became empty: until people return, or until the observation is cut off,
for instance because its task was stopped. Then it is only known that nobody had returned by that time. Such rooms count
in full up to there, and not at all afterwards:

    S(t) = product over the times u <= t at which people returned of (1 - returns at u / rooms observed up to u)

S(t) is the share of rooms that are still empty after t seconds. A room whose observation ends at the very moment of a
return counts as observed. That the ends of observations say nothing about returns is an assumption.

Sources: E. L. Kaplan and P. Meier, Nonparametric estimation from incomplete observations, JASA 53 (1958), 457-481. The
variance of ln S(t) is M. Greenwood's, The natural duration of cancer (1926). The interval is that of ln(-ln S), which
stays within 0 and 1: J. D. Kalbfleisch and R. L. Prentice, The statistical analysis of failure time data (2002), 1.4.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, inf, log
from operator import attrgetter
from typing import Final

_Z: Final = 1.959963984540054
"""The normal distribution's quantile for 95 %, two-sided."""

_TAIL: Final = 0.025
_LARGEST: Final = 700.0
"""A larger exponent overflows."""


@dataclass(frozen=True, slots=True)
class Observation:
    """``count`` rooms observed for ``seconds``; ``returned``: the observation ended with a return."""

    seconds: float
    returned: bool
    count: int = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A share from 0 to 1 with its pointwise 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def complement(self) -> "Interval":
        """The same of the other rooms."""
        return Interval(1 - self.value, 1 - self.high, 1 - self.low)


@dataclass(frozen=True, slots=True)
class Step:
    """A time at which observations ended: of ``at_risk`` rooms, ``returns`` ended with a return.

    ``empty`` is S just after it, ``variance`` the part of the variance of ln S that it adds.
    """

    seconds: float
    at_risk: int
    returns: int
    empty: float
    variance: float


@dataclass(frozen=True, slots=True)
class Curve:
    """S(t) as steps, by time."""

    steps: tuple[Step, ...]

    def empty(self, seconds: float) -> float:
        """S(t): the share of rooms still empty after so many seconds; after the last step, as after it."""
        number = bisect_right(self.steps, seconds, key=_SECONDS)
        return self.steps[number - 1].empty if number else 1.0

    def at_risk(self, seconds: float) -> int:
        """How many rooms were observed for so many seconds or longer, without an earlier return."""
        number = bisect_left(self.steps, seconds, key=_SECONDS)
        return self.steps[number].at_risk if number < len(self.steps) else 0

    def reaches(self, rooms: int) -> float:
        """Up to what time at least so many rooms are observed; 0 if there never are."""
        number = bisect_right(self.steps, -rooms, key=lambda step: -step.at_risk)
        return self.steps[number - 1].seconds if number else 0.0

    def returned(self, seconds: float) -> Interval:
        """1 - S(t) with its interval: the share of rooms to which people have returned after so many seconds."""
        return interval(self.empty(seconds), self.variance({seconds: 1.0}), self.at_risk(seconds)).complement

    def variance(self, coefficients: Mapping[float, float]) -> float:
        """The variance of the sum of coefficient · ln S(t) over the times t of ``coefficients``.

        The steps are independent, and each one adds to all S(t) from its time on; infinite after S has become 0.
        """
        times = sorted(coefficients, reverse=True)
        total, weight, later = 0.0, 0.0, 0
        for step in reversed(self.steps):
            while later < len(times) and times[later] >= step.seconds:
                weight += coefficients[times[later]]
                later += 1
            if step.variance and abs(weight) > _NOTHING:
                total += step.variance * weight**2
        return total


_SECONDS: Final = attrgetter("seconds")
_NOTHING: Final = 1e-12


def curve(observations: Iterable[Observation]) -> Curve:
    """Estimate S(t). Without observations it is 1 throughout, and reaches nowhere."""
    ended: Counter[float] = Counter()
    returned: Counter[float] = Counter()
    for one in observations:
        ended[one.seconds] += one.count
        if one.returned:
            returned[one.seconds] += one.count
    at_risk, empty = ended.total(), 1.0
    steps = []
    for seconds in sorted(ended):
        returns = returned[seconds]
        left = at_risk - returns
        empty *= left / at_risk
        variance = returns / (at_risk * left) if left else inf
        steps.append(Step(seconds, at_risk, returns, empty, variance))
        at_risk -= ended[seconds]
    return Curve(tuple(steps))


def interval(value: float, variance: float, rooms: float) -> Interval:
    """Return the 95 % interval of a share ``value`` of rooms that stayed empty, estimated from about ``rooms`` rooms.

    ``variance`` is that of ln ``value``. If all rooms stayed empty, or none, the estimated variance says nothing: then
    the bound is the exact one of so many independent rooms (Clopper and Pearson 1934).
    """
    bound = _TAIL ** (1 / rooms) if rooms > 0 else 0.0
    if value >= 1:
        return Interval(1.0, bound, 1.0)
    if value <= 0:
        return Interval(0.0, 0.0, 1 - bound)
    if variance == inf:
        return Interval(value, 0.0, 1.0)
    spread = exp(min(_LARGEST, _Z * variance**0.5 / -log(value)))
    return Interval(value, value**spread, value ** (1 / spread))
