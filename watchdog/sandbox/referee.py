"""Compares the sandbox's log with the daemon's ledger. Pure.

Each Stop request that the sandbox received must have one row of ``zego_stop_attempts``:

- The client could read the answer: a row with its RequestId, TaskId, Code and HTTP status.
- The answer was lost (connection closed, client gone): that row, or one ``unknown`` row of its TaskId without a
  RequestId.
- The answer had no readable RequestId (a gateway's page, cut JSON): that row, or one settled row of its TaskId
  without a RequestId.

Rows without a RequestId cannot be told apart, so they are counted per task. Such a row without a request is no
disagreement: its request never arrived. A row that a callback wrote is of no request.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from watchdog.core.model import Outcome
from watchdog.sandbox.kinds import OF_THE_ROOM, Idle
from watchdog.sandbox.world import ADMIN_ROLE, Event

Row = Mapping[str, Any]
"""One row of ``zego_stop_attempts``, by column."""

_NOTHING_SENT = frozenset({Outcome.SPARED, Outcome.WITHHELD, Outcome.WOULD_STOP})
_FROM_A_CALLBACK = "callback"
_WITHOUT_AN_ANSWER = frozenset({Outcome.UNKNOWN, Outcome.RETRY, Outcome.REJECTED, Outcome.BLOCKED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result.

    ``missed`` and ``wrong_stops`` have TaskIds: tasks that the vendor ended because of their room, and tasks that a
    Stop request ended with people in the room. ``stopped_in_time`` counts tasks that a Stop request ended in an empty
    room, ``spared`` the rows with that outcome. ``disagreements`` are sentences.
    """

    stopped_in_time: int
    missed: tuple[str, ...]
    spared: int
    wrong_stops: tuple[str, ...]
    attempts_recorded: int
    requests_received: int
    disagreements: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the ledger is correct; it may correctly record wrong stops and misses."""
        return not self.disagreements

    def summary(self) -> str:
        return (
            f"{self.stopped_in_time} stopped in time, {self.spared} spared, {len(self.missed)} missed, "
            f"{len(self.wrong_stops)} wrong stops; {self.attempts_recorded} attempts, {self.requests_received} requests"
        )


def judge(
    log: Iterable[Event],
    attempts: Sequence[Row],
    *,
    watched: Iterable[str] | None = None,
    bot_user_ids: Sequence[str] = (),
    daemon_killed: bool = False,
) -> Verdict:
    """Judge a run from the sandbox's log and the ledger's rows.

    ``watched`` are the TaskIds that should be stopped, None for all: only these can be missed. ``bot_user_ids`` are
    ``fnmatch`` patterns of users that are not people, besides admins and users that tasks brought. ``daemon_killed``
    tells that the daemon was killed during the run, so it may have lost any answer.
    """
    events = list(log)
    requests = [event for event in events if event["event"] == "stop_requested"]
    sent = [row for row in attempts if row["outcome"] not in _NOTHING_SENT and row.get("detail") != _FROM_A_CALLBACK]
    stops = [event for event in events if event["event"] == "task_stopped" and event["via"] == "api"]
    wrong = tuple(event["task_id"] for event in stops if _people(event, bot_user_ids))
    among = None if watched is None else frozenset(watched)
    return Verdict(
        stopped_in_time=len(stops) - len(wrong),
        missed=tuple(
            event["task_id"]
            for event in events
            if event["event"] == "auto_stopped"
            and event.get("because", Idle.NO_USER) in OF_THE_ROOM
            and (among is None or event["task_id"] in among)
        ),
        spared=sum(row["outcome"] == Outcome.SPARED for row in attempts),
        wrong_stops=wrong,
        attempts_recorded=len(sent),
        requests_received=len(requests),
        disagreements=(
            *_unsettled(sent),
            *_compare_named(requests, sent),
            *_compare_counted(requests, sent, daemon_killed=daemon_killed),
            *_stopped_twice(requests),
        ),
    )


def _people(event: Event, bot_user_ids: Sequence[str]) -> list[str]:
    return [
        user["user_id"]
        for user in event["users"]
        if user["role"] != ADMIN_ROLE
        and "brought_by" not in user
        and not any(fnmatchcase(user["user_id"], bot) for bot in bot_user_ids)
    ]


def _name(row: Row) -> str:
    return f"row {row.get('id', '?')} (task {row['task_id']}, attempt {row.get('attempt', '?')})"


def _unsettled(sent: Sequence[Row]) -> Iterable[str]:
    for row in sent:
        if row["outcome"] == Outcome.SENT:
            yield f"{_name(row)} was left in outcome sent: its result was never determined."


def _compare_named(requests: Sequence[Event], sent: Sequence[Row]) -> Iterable[str]:
    """Compare the rows with a RequestId with the request that was answered with it."""
    answered = {event["request_id"]: event for event in requests if event["request_id"] is not None}
    seen: set[str] = set()
    for row in sent:
        if row["request_id"] is None:
            continue
        request_id = str(row["request_id"])
        event = answered.get(request_id)
        if event is None:
            yield f"{_name(row)} has RequestId {request_id}, but no Stop request was answered with it."
            continue
        if request_id in seen:
            yield f"{_name(row)} has RequestId {request_id}, like an earlier row: one request, two rows."
        seen.add(request_id)
        for column, field in (("task_id", "task_id"), ("code", "code"), ("http_status", "http_status")):
            if column in row and str(row[column]) != str(event[field]):
                yield f"{_name(row)} has {column} {row[column]}, but the answer {request_id} had {event[field]}."


def _compare_counted(requests: Sequence[Event], sent: Sequence[Row], *, daemon_killed: bool) -> Iterable[str]:
    """Check that each request without a row of its RequestId has a row without a RequestId."""
    named = {str(row["request_id"]) for row in sent if row["request_id"] is not None}
    lost: Counter[str | None] = Counter()
    unreadable: Counter[str | None] = Counter()
    for event in requests:
        if event["request_id"] in named:
            continue
        if event["delivered"] and not event["readable"]:
            unreadable[event["task_id"]] += 1
        elif daemon_killed or not event["delivered"]:
            lost[event["task_id"]] += 1
        else:
            yield (
                f"A Stop request for task {event['task_id']} (log entry {event['seq']}) was answered with RequestId "
                f"{event['request_id']} and Code {event['code']}, and no row has that RequestId."
            )
    unnamed = [row for row in sent if row["request_id"] is None]
    unknown = Counter(row["task_id"] for row in unnamed if row["outcome"] == Outcome.UNKNOWN)
    settled = Counter(row["task_id"] for row in unnamed if row["outcome"] in _WITHOUT_AN_ANSWER)
    for task_id, count in lost.items():
        if count > unknown[task_id]:
            yield (
                f"Task {task_id}: the answers to {count} Stop requests were lost, "
                f"but only {unknown[task_id]} rows have outcome unknown and no RequestId."
            )
    for task_id, count in unreadable.items():
        # Lost answers come first: they need unknown rows; the other requests can use any row.
        left = max(0, settled[task_id] - lost[task_id])
        if count > left:
            yield (
                f"Task {task_id}: {count} Stop requests got an answer without a readable RequestId, "
                f"but only {left} rows without a RequestId are left."
            )


def _stopped_twice(requests: Sequence[Event]) -> Iterable[str]:
    accepted = Counter(event["task_id"] for event in requests if event["accepted"])
    for task_id, times in accepted.items():
        if times > 1:
            yield f"Task {task_id} was stopped {times} times: the sandbox itself is wrong."
