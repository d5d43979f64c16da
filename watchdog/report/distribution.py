"""How values in milliseconds are distributed: percentiles, and counts between limits."""

import math
from collections.abc import Sequence
from itertools import pairwise

from watchdog.store.reports.distributions import Distribution


def total(found: Distribution) -> int:
    return sum(found.values())


def at(found: Distribution, share: float) -> int:
    """Return the least value that at least ``share`` of all values do not exceed. Raises ValueError without any."""
    wanted, seen = max(1, math.ceil(share * total(found))), 0
    for value, count in sorted(found.items()):
        seen += count
        if seen >= wanted:
            return value
    raise ValueError("an empty distribution has no percentiles")


def between(found: Distribution, limits: Sequence[int]) -> list[int]:
    """Count the values below the first of the ascending ``limits``, from each to the next, and from the last on."""
    edges = [-math.inf, *limits, math.inf]
    return [sum(n for value, n in found.items() if low <= value < high) for low, high in pairwise(edges)]


def rising(found: Distribution, of: int) -> list[tuple[float, float]]:
    """Return the steps of the share of ``of`` cases that have occurred, by seconds."""
    seen, steps = 0, [(0.0, 0.0)]
    for value, count in sorted(found.items()):
        steps.append((value / 1000, seen / of))
        seen += count
        steps.append((value / 1000, seen / of))
    return steps


def even_limits(found: Distribution, most: int = 24) -> list[int]:
    """Return limits at round distances, that cover all values with at most ``most`` intervals."""
    low, high = max(0, min(found)), max(found)
    steps = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
    step = next((one for one in steps if (high - low) // one + 2 <= most), 1_200_000)
    return list(range(low - low % step, high + step + 1, step))
