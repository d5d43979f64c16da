"""The checker of I9, on timelines made by hand."""

from datetime import UTC, datetime
from typing import Any

import pytest

from simulation.liveness import Due, Silence, allowed_seconds, judge, silences, unix

ALLOWED = 10.0


@pytest.mark.parametrize(
    ("due", "departures", "silent"),
    [
        ([], [], []),
        ([Due("a", 0, 10)], [10], []),
        ([Due("a", 0, 11)], [11], [(0, 11, "a")]),
        # One leaves every ten seconds, though each waits for much longer.
        ([Due("a", 0, 30), Due("b", 0, 30), Due("c", 0, 30)], [10, 20, 30], []),
        ([Due("a", 0, 5), Due("b", 0, 30)], [5, 30], [(5, 30, "b")]),
        # Nothing is due between the two.
        ([Due("a", 0, 6), Due("b", 20, 26)], [6, 26], []),
        # Something is due all the time, though no single task for long.
        ([Due("a", 0, 6), Due("b", 5, 12)], [12], [(0, 12, "ab")]),
        ([Due("b", 6, 12), Due("a", 0, 6)], [6, 12], []),
        # What leaves before or after is of no help.
        ([Due("a", 100, 150)], [99, 151], [(100, 150, "a")]),
        # Within a silence that has been found, and after it.
        ([Due("a", 0, 40)], [11, 40], [(0, 11, "a"), (11, 40, "a")]),
    ],
)
def test_silences(due: list[Due], departures: list[float], silent: list[tuple[float, float, str]]) -> None:
    found = silences(due, departures, ALLOWED)
    assert found == [Silence(since, until, tuple(tasks)) for since, until, tasks in silent]
    assert all(str(one).startswith("I9 nothing left for ") for one in found)


@pytest.mark.parametrize(("stops", "calls", "seconds"), [(10, 10, 8 + 8.1 + 5), (0.05, 0, 20 + 8 + 5), (0, 0, 21)])
def test_what_is_allowed(stops: float, calls: float, seconds: float) -> None:
    """The longer of a slot and a time-out; a slot and a time-out of a verification; a sweep."""
    allowed = allowed_seconds(
        stops_per_second=stops, calls_per_second=calls, request_timeout_seconds=8, sweep_seconds=5
    )
    assert allowed == pytest.approx(seconds)


def attempt(
    task_id: str, due_at: float | None, *, sent_at: float | None = None, recorded_at: float = 0
) -> dict[str, Any]:
    moments = {"due_at": due_at, "sent_at": sent_at, "recorded_at": recorded_at}
    return {"task_id": task_id, **{name: at and _moment(at) for name, at in moments.items()}}


def task(task_id: str, due_at: float | None, *, ended_at: float | None = None, **columns: Any) -> dict[str, Any]:
    moments = {"due_at": due_at, "ended_at": ended_at}
    return {
        "task_id": task_id,
        "hold_until": None,
        **{name: at and _moment(at) for name, at in moments.items()},
    } | columns


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def judged(
    tasks: list[dict[str, Any]], attempts: list[dict[str, Any]], *requests: float, since: float = 0
) -> list[Any]:
    found = judge(tasks, attempts, requests, allowed_seconds=ALLOWED, since=since, until=200)
    return [(one.since, one.until, *one.tasks) for one in found]


def test_a_task_is_due_until_its_first_row() -> None:
    sent = attempt("a", 100, sent_at=109, recorded_at=109)
    assert judged([task("a", 100, ended_at=110)], [sent], 109.1) == []
    late = attempt("a", 100, sent_at=115, recorded_at=115)
    assert judged([task("a", 100, ended_at=116)], [late], 115.1) == [(100, 115, "a")]
    # Later attempts wait for a backoff.
    assert judged([task("a", 100)], [sent, attempt("a", 100, sent_at=180, recorded_at=180)], 109.1, 180.1) == []


def test_a_task_without_a_row_is_due_until_it_ends() -> None:
    assert judged([task("a", 100)], []) == [(100, 200, "a")]
    assert judged([task("a", 100, ended_at=105)], []) == []
    assert judged([task("a", 100, ended_at=50), task("b", None)], []) == []
    assert judged([task("a", 100, hold_until=_moment(150))], []) == []


def test_a_second_time_empty_is_due_again() -> None:
    spared = attempt("a", 100, recorded_at=101)
    assert judged([task("a", 150)], [spared]) == [(150, 200, "a")]


def test_a_decision_not_to_stop_is_no_silence() -> None:
    spared = [attempt(str(number), 100, recorded_at=100 + 9 * number) for number in range(1, 5)]
    assert judged([], spared) == []
    assert judged([], spared[1:]) == [(100, 118, "2", "3", "4")]


def test_what_was_before_does_not_count() -> None:
    """Such as before the daemon was started."""
    late = attempt("a", 100, sent_at=120, recorded_at=120)
    assert judged([task("a", 100)], [late], 120, since=115) == []
    assert judged([task("a", 100)], [late], 120, since=130) == []


def test_times_are_read_as_either_driver_gives_them() -> None:
    assert unix("1970-01-01 00:01:40.500000") == unix(_moment(100.5)) == 100.5
