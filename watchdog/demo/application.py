"""The application's side: plain SQL on its own connection, as a backend in any language would use it.

A backend needs only the statements up to that of a release, and those of ``returns`` to learn that people came back
after a stop. The hold is an operator's, and the queries are for the screen. This module does not use the watchdog's
code, on purpose.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

Row = Mapping[str, Any]

STARTED: Final = "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)"
OCCUPANCY: Final = "UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'"
AGENT_STARTED: Final = "INSERT INTO zego_tasks (task_id, room_id, kind, bot_user_id) VALUES (?, ?, 'agent', ?)"
RELEASED: Final = "UPDATE zego_tasks SET status = 'released' WHERE task_id = ?"

RUNNING: Final = "SELECT 1 FROM zego_tasks WHERE room_id = ? AND status = 'active'"

HISTORY: Final = """\
SELECT room_id, reason, outcome, code, request_id, attempts AS tries,
       seconds_before_auto_stop AS early
  FROM zego_stop_history
 ORDER BY due_at IS NULL, due_at"""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The differences in SQL between the two databases."""

    mark: str
    hold: str
    now: str
    begin: str
    """Begins the transaction of a reaction; empty if that must not keep other writers waiting."""
    events: str
    handled: str
    commit: str


_SQLITE: Final = _Dialect(
    mark="?",
    hold="UPDATE zego_tasks SET hold_until = datetime('now', ? || ' seconds') WHERE task_id = ?",
    now="SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
    begin="",
    events="SELECT id, room_id, data FROM zego_events WHERE handled_at IS NULL ORDER BY id LIMIT 10",
    handled="UPDATE zego_events SET handled_at = strftime('%Y-%m-%d %H:%M:%f000', 'now') WHERE id = ?",
    commit="",
)
_POSTGRESQL: Final = _Dialect(
    mark="%s",
    hold="UPDATE zego_tasks SET hold_until = now() + make_interval(secs => ?) WHERE task_id = ?",
    now="SELECT clock_timestamp()",
    begin="BEGIN",
    events="SELECT id, room_id, data FROM zego_events WHERE handled_at IS NULL ORDER BY id LIMIT 10"
    " FOR UPDATE SKIP LOCKED",
    handled="UPDATE zego_events SET handled_at = now() WHERE id = ?",
    commit="COMMIT",
)


@dataclass(frozen=True, slots=True)
class Interruption:
    """``seconds`` from our stop to the new start, which was ``reaction_seconds`` after the event."""

    room: str
    seconds: float
    reaction_seconds: float


class Application:
    """A backend's connection to the database at ``url``, in the configuration's format. Commits each statement."""

    def __init__(self, url: str) -> None:
        self._connection: sqlite3.Connection | psycopg.Connection[Any]
        if url.startswith("sqlite:///"):
            self._dialect = _SQLITE
            path = Path(url.removeprefix("sqlite:///"))
            self._connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        else:
            self._dialect = _POSTGRESQL
            self._connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def started(self, task_id: str, room_id: str) -> None:
        self._execute(STARTED, task_id, room_id)

    def agent_started(self, task_id: str, room_id: str, user_id: str) -> None:
        """Register an agent, and the id of the user that it brings into the room."""
        self._execute(AGENT_STARTED, task_id, room_id, user_id)

    def occupancy(self, room_id: str, people: int) -> None:
        self._execute(OCCUPANCY, people, room_id)

    def released(self, task_id: str) -> None:
        self._execute(RELEASED, task_id)

    def hold(self, task_id: str, seconds: float) -> None:
        self._execute(self._dialect.hold, seconds, task_id)

    @contextmanager
    def returns(self) -> Iterator[list[str]]:
        """Yield rooms to which people came back and where no task runs; what is done with them is then handled.

        If it fails, the events are read again. So a reaction must be one that may be repeated, hence RUNNING.
        """
        if self._dialect.begin:
            self._execute(self._dialect.begin)
        found = self.select(self._dialect.events)
        yield [event["room_id"] for event in found if not self._execute(RUNNING, event["room_id"])[1]]
        for event in found:
            self._execute(self._dialect.handled, event["id"])
        if self._dialect.commit:
            self._execute(self._dialect.commit)

    def interruptions(self) -> list[Interruption]:
        """Return the stops after which people came back, and recognition was started again."""
        started = {row["room_id"]: as_time(row["started_at"]) for row in self.tasks().values() if _runs(row)}
        found = []
        for event in self.select("SELECT * FROM zego_events WHERE type = 'room.rejoined' ORDER BY id"):
            room, data = event["room_id"], event["data"]
            told = json.loads(data) if isinstance(data, str) else data
            if room in started:
                seconds, reaction = (
                    (started[room] - as_time(at)).total_seconds() for at in (told["stopped_at"], event["occurred_at"])
                )
                found.append(Interruption(room, seconds, reaction))
        return found

    def now(self) -> datetime:
        [(now,)] = self._execute(self._dialect.now)[1]
        return as_time(now)

    def tasks(self) -> dict[str, Row]:
        """Return every task's row, by TaskId."""
        return {row["task_id"]: row for row in self.select("SELECT * FROM zego_tasks")}

    def attempts(self) -> list[Row]:
        return self.select("SELECT * FROM zego_stop_attempts ORDER BY id")

    def watched(self) -> bool:
        return bool(self.select("SELECT 1 FROM zego_daemons"))

    def select(self, statement: str) -> list[Row]:
        names, rows = self._execute(statement)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _execute(self, statement: str, *values: object) -> tuple[list[str], Sequence[Sequence[Any]]]:
        cursor: Any = self._connection.execute(statement.replace("?", self._dialect.mark), values)
        if cursor.description is None:
            return [], []
        return [column[0] for column in cursor.description], cursor.fetchall()


def _runs(task: Row) -> bool:
    return bool(task["status"] == "active")


def as_time(value: str | datetime) -> datetime:
    """A stored time of either database, with its time zone."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
