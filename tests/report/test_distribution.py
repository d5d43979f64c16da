"""Percentiles, and counts between limits."""

from itertools import pairwise

import pytest

from watchdog.report.distribution import at, between, even_limits, rising, total

FOUND = {10: 3, 20: 6, 500: 1}


@pytest.mark.parametrize(
    ("share", "value"), [(0, 10), (0.3, 10), (0.31, 20), (0.5, 20), (0.9, 20), (0.91, 500), (1, 500)]
)
def test_a_percentile_is_a_value_that_occurred(share: float, value: int) -> None:
    assert at(FOUND, share) == value


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="empty"):
        at({}, 0.5)


def test_every_value_is_counted_between_two_limits() -> None:
    assert between(FOUND, [10, 20, 100]) == [0, 3, 6, 1]
    assert between({-1: 2, 5: 1}, [0, 5]) == [2, 0, 1]


def test_the_share_rises_in_steps() -> None:
    assert rising({1000: 1, 3000: 2}, 6) == [(0, 0), (1, 0), (1, 1 / 6), (3, 1 / 6), (3, 0.5)]


@pytest.mark.parametrize(
    "found", [FOUND, {0: 1}, {-1: 4, 60_000: 1}, {119_000: 1, 150_000: 9}, {5_000_000: 1, 1: 1}, {10_000_000: 2, 3: 4}]
)
def test_even_limits_cover_everything_with_few_intervals(found: dict[int, int]) -> None:
    limits = even_limits(found)
    assert len(limits) <= 25
    assert len({high - low for low, high in pairwise(limits)}) == 1
    below, *inside, above = between(found, limits)
    assert (below, above) == (found.get(-1, 0), 0)
    assert sum(inside) == total(found) - below
