"""A snapshot: what the database has for each room, and what is really there. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from watchdog.core.model import Outcome, Status
from watchdog.demo.application import Row, as_time


class State(StrEnum):
    NOT_STARTED = "not started"
    IN_USE = "in use"
    UNKNOWN = "unknown, left alone"
    EMPTY = "empty, grace runs"
    HELD = "empty, on hold"
    ASKING = "asking who is there"
    SENT = "stop sent"
    RETRY = "waits for a retry"
    STOPPED = "stopped"
    RELEASED = "ended by its backend"
    AUTO_STOPPED = "ended by ZEGO"
    FAILED = "given up"


_ENDED = {
    Status.STOPPED: State.STOPPED,
    Status.GONE: State.STOPPED,
    Status.RELEASED: State.RELEASED,
    Status.AUTO_STOPPED: State.AUTO_STOPPED,
    Status.FAILED: State.FAILED,
}
ENDED = frozenset(_ENDED.values())
"""The final states."""

_ANSWER = ("outcome", "code", "http_status", "request_id")
_RETRIED = {Outcome.RETRY, Outcome.UNKNOWN, Outcome.WITHHELD, Outcome.BLOCKED}


@dataclass(frozen=True, slots=True)
class Line:
    """One room. ``hint`` is the reported number of people; ``people`` and ``others`` are really there.

    Others are admins, and users that tasks brought. ``kind`` is that of the room's task.

    Countdowns are in seconds; ``auto_stop`` is the vendor's, None while the room is occupied.
    """

    room: str
    state: State = State.NOT_STARTED
    hint: int | None = None
    people: int = 0
    others: int = 0
    due: float | None = None
    auto_stop: float | None = None
    outcome: str | None = None
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    kind: str = "asr"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``at`` is in seconds since the start; ``captions`` have their times, oldest first."""

    at: float
    seconds: float
    lines: Sequence[Line]
    captions: Sequence[tuple[float, str]]
    footing: str = ""


def look(
    rooms: Iterable[str], tasks: Mapping[str, Row], attempts: Iterable[Row], world: Mapping[str, Any], now: datetime
) -> list[Line]:
    """Return each room's line.

    ``tasks`` has the row of each started room at ``now``, the database's time; ``attempts`` is the ledger, ``world``
    the sandbox's ``state``.
    """
    last = {attempt["task_id"]: attempt for attempt in attempts}
    users = {room["room_id"]: room for room in world["rooms"]}
    running = {task["task_id"]: task for task in world["tasks"]}

    def line(task: Row) -> Line:
        attempt, room, run = last.get(task["task_id"]), users.get(task["room_id"]), running.get(task["task_id"])
        state = _state(task, attempt, now, runs=run is not None)
        people = 0 if room is None else room["people"]
        wake_at = task["wake_at"] if state in {State.EMPTY, State.HELD, State.RETRY} else None
        auto_stop_at = None if run is None else run["auto_stop_at"]
        answer = {} if attempt is None else {name: attempt[name] for name in _ANSWER}
        return Line(
            room=task["room_id"],
            state=state,
            hint=task["user_count"],
            people=people,
            others=0 if room is None else len(room["users"]) - people,
            due=None if wake_at is None else (as_time(wake_at) - now).total_seconds(),
            auto_stop=None if auto_stop_at is None else auto_stop_at - world["now"],
            kind=task["kind"],
            **answer,
        )

    return [line(tasks[room]) if room in tasks else Line(room) for room in rooms]


def _state(task: Row, attempt: Row | None, now: datetime, *, runs: bool) -> State:
    status = Status(task["status"])
    if status is not Status.ACTIVE:
        return _ENDED[status]
    outcome = None if attempt is None or attempt["empty_since"] != task["empty_since"] else Outcome(attempt["outcome"])
    if outcome is Outcome.SENT:
        return State.SENT
    if task["claimed_by"] is not None:
        return State.ASKING
    if outcome in _RETRIED:
        return State.RETRY
    if not runs:
        # The database does not know: without evidence the daemon does not ask ZEGO about the room.
        return State.AUTO_STOPPED
    if task["user_count"] is None:
        return State.UNKNOWN
    if task["user_count"] > 0:
        return State.IN_USE
    return State.HELD if task["hold_until"] is not None and as_time(task["hold_until"]) > now else State.EMPTY
