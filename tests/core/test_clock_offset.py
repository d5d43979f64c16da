"""The age of callbacks: bounded by the truth on one side and by the arrival on the other, whatever the offset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.clock_offset import WINDOW_SECONDS, ClockOffset

OFFSETS = st.floats(-1e6, 1e6)
HALF = WINDOW_SECONDS / 2


@st.composite
def callbacks(draw: st.DrawFn) -> list[tuple[float, float]]:
    """When callbacks arrive, in order, and how long each was on its way; one is sent every second."""
    delays = draw(st.lists(st.floats(0, 62), min_size=1, max_size=20))
    return sorted((index + delay, delay) for index, delay in enumerate(delays))


def ages(offset: float, arrivals: list[tuple[float, float]]) -> list[float]:
    """Return the ages of callbacks that were sent by a clock that is ``offset`` ahead."""
    clock = ClockOffset()
    return [clock.age(arrived - delay + offset, arrived) for arrived, delay in arrivals]


@given(OFFSETS, callbacks())
def test_a_callback_is_never_from_the_future_nor_older_than_it_is(
    offset: float, arrivals: list[tuple[float, float]]
) -> None:
    for age, (_, delay) in zip(ages(offset, arrivals), arrivals, strict=True):
        assert 0 <= age <= delay + 1e-6


@given(OFFSETS, callbacks())
def test_the_error_is_the_delay_of_the_quickest_callback_so_far(
    offset: float, arrivals: list[tuple[float, float]]
) -> None:
    quickest = float("inf")
    for age, (_, delay) in zip(ages(offset, arrivals), arrivals, strict=True):
        quickest = min(quickest, delay)
        assert delay - age == pytest.approx(quickest, abs=1e-6)


@given(OFFSETS, callbacks(), st.floats(0, 100))
def test_a_copy_teaches_nothing(offset: float, arrivals: list[tuple[float, float]], later: float) -> None:
    clock, copied = ClockOffset(), ClockOffset()
    for arrived, delay in arrivals:
        sent = arrived - delay + offset
        assert copied.age(sent, arrived) == clock.age(sent, arrived)
        copied.age(sent, arrived + later)


def test_the_first_callback_is_taken_for_new() -> None:
    assert ClockOffset().age(1_000.0, 7.0) == 0


def test_a_clock_set_forward_is_followed_at_once() -> None:
    clock = ClockOffset()
    clock.age(100.0, 100.0)
    assert clock.age(131.0, 101.0) == 0
    assert clock.age(132.0, 107.0) == 5


def test_a_clock_set_back_is_followed_within_the_window() -> None:
    clock = ClockOffset()
    clock.age(30.0, 0.0)
    assert [clock.age(at, at) for at in (1.0, HALF, 2 * HALF - 1)] == [30, 30, 30]
    assert [clock.age(at, at) for at in (2 * HALF, 2 * HALF + 1)] == [0, 0]


def test_after_a_long_silence_nothing_is_known() -> None:
    clock = ClockOffset()
    clock.age(30.0, 0.0)
    assert clock.age(WINDOW_SECONDS, WINDOW_SECONDS) == 0
