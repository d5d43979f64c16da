"""Invariant I9: no silence while work is due. Pure; tests use this module as well.

    While ZEGO answers and work is due, a stop request leaves at least every max(1 / pace, one request time-out), plus
    one verification and one sweep interval, whatever else goes on.

A task is due from its ``due_at`` until the ledger says what became of it: a request was sent, or why none is. Giving a
claim back unsent leaves no row, so a daemon that only claims and gives back is silent. After its first row a task waits
for a backoff or for evidence, and I3 counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Due:
    """A task that was due; Unix seconds."""

    task_id: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing left, although these tasks were due; Unix seconds."""

    since: float
    until: float
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        return f"I9 nothing left for {self.until - self.since:.1f} s although {', '.join(self.tasks[:5])} was due"


def allowed_seconds(
    *, stops_per_second: float, calls_per_second: float, request_timeout_seconds: float, sweep_seconds: float
) -> float:
    """Return the longest silence that I9 allows; a pace of 0 sets no limit."""
    stop = max(1 / stops_per_second if stops_per_second else 0.0, request_timeout_seconds)
    verification = (1 / calls_per_second if calls_per_second else 0.0) + request_timeout_seconds
    return stop + verification + sweep_seconds


def silences(due: Iterable[Due], departures: Iterable[float], allowed_seconds: float) -> list[Silence]:
    """Return every time longer than allowed in which something was due all the time, and nothing left."""
    due = sorted(due, key=lambda one: one.since)
    left = sorted(departures)
    found = []
    for since, until in _busy(due):
        moments = [since, *(at for at in left if since < at < until), until]
        for began, ended in pairwise(moments):
            if ended - began > allowed_seconds:
                tasks = tuple(one.task_id for one in due if one.since < ended and one.until > began)
                found.append(Silence(began, ended, tasks))
    return found


def _busy(due: Iterable[Due]) -> Iterator[tuple[float, float]]:
    """The times in which at least one task was due; ``due`` is sorted."""
    since = until = float("-inf")
    for one in due:
        if one.since > until:
            if until > since:
                yield since, until
            since, until = one.since, one.until
        until = max(until, one.until)
    if until > since:
        yield since, until


def judge(
    tasks: Iterable[Row],
    attempts: Iterable[Row],
    requests: Iterable[float],
    *,
    allowed_seconds: float,
    since: float,
    until: float,
) -> list[Silence]:
    """Judge the time from ``since`` to ``until`` by the rows of both tables, and by when requests left, Unix seconds.

    A row of the ledger without a request is a decision, and counts like a request that left.
    """
    attempts = list(attempts)
    first: dict[tuple[str, float], float] = {}
    decisions = []
    for row in attempts:
        at = unix(row["sent_at"] or row["recorded_at"])
        if row["sent_at"] is None:
            decisions.append(at)
        if row["due_at"] is not None:
            key = (row["task_id"], unix(row["due_at"]))
            first[key] = min(at, first.get(key, at))
    for row in tasks:
        if row["due_at"] is not None and row["hold_until"] is None:
            ended = until if row["ended_at"] is None else unix(row["ended_at"])
            first.setdefault((row["task_id"], unix(row["due_at"])), ended)
    due = [Due(task_id, max(due_at, since), min(at, until)) for (task_id, due_at), at in first.items() if at > since]
    return silences([one for one in due if one.until > one.since], [*requests, *decisions], allowed_seconds)


def unix(moment: Any) -> float:
    """Return a stored time, as either driver gives it, in Unix seconds."""
    read = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
