"""The application's side: plain SQL on its own connection, as a backend in any language would use it.

A backend needs only the first three statements; the hold is an operator's, and the queries are for the screen. This
module does not use the watchdog's code, on purpose.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

Row = Mapping[str, Any]

STARTED: Final = "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)"
OCCUPANCY: Final = "UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'"
RELEASED: Final = "UPDATE zego_tasks SET status = 'released' WHERE task_id = ?"

HISTORY: Final = """\
SELECT room_id, reason, outcome, code, request_id, attempts AS tries,
       seconds_before_auto_stop AS early
  FROM zego_stop_history
 ORDER BY due_at"""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The differences in SQL between the two databases."""

    mark: str
    hold: str
    now: str


_SQLITE: Final = _Dialect(
    mark="?",
    hold="UPDATE zego_tasks SET hold_until = datetime('now', ? || ' seconds') WHERE task_id = ?",
    now="SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
)
_POSTGRESQL: Final = _Dialect(
    mark="%s",
    hold="UPDATE zego_tasks SET hold_until = now() + make_interval(secs => ?) WHERE task_id = ?",
    now="SELECT clock_timestamp()",
)


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

    def occupancy(self, room_id: str, people: int) -> None:
        self._execute(OCCUPANCY, people, room_id)

    def released(self, task_id: str) -> None:
        self._execute(RELEASED, task_id)

    def hold(self, task_id: str, seconds: float) -> None:
        self._execute(self._dialect.hold, seconds, task_id)

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


def as_time(value: str | datetime) -> datetime:
    """A stored time of either database, with its time zone."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
