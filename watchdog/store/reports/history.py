"""The history of stops, and where in the ledger a stretch of time begins.

The ledger needs no index by time: its ids grow with its times, so the beginning of a stretch is found by bisecting ids.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import Outcome
from watchdog.store.engine import reading
from watchdog.store.tables import NOW, UtcTime, attempts

Row = Mapping[str, Any]
"""A row as column name to value, in the table's order."""

HISTORY = sa.table(
    "zego_stop_history",
    *(sa.column(name, attempts.c[name].type) for name in ("task_id", "room_id", "app_id", "kind", "reason", "outcome")),
    *(sa.column(name, sa.Text()) for name in ("code", "message", "request_id")),
    sa.column("attempts", sa.Integer()),
    *(sa.column(name, UtcTime()) for name in ("empty_since", "due_at", "stopped_at", "auto_stop_at")),
    *(
        sa.column(name, sa.Float())
        for name in ("reaction_seconds", "seconds_before_auto_stop", "rejoined_after_seconds")
    ),
)


def history(
    engine: sa.Engine,
    *,
    limit: int,
    outcome: Outcome | None = None,
    task_id: str | None = None,
    room_id: str | None = None,
    since: datetime | timedelta | None = None,
    before_id: int | None = None,
) -> tuple[datetime, list[Row]]:
    """Return the database's time and rows of ``zego_stop_history``, newest first.

    Each row has ``recorded_at`` and ``attempt_id`` in addition, the time and the id of the last attempt. ``before_id``:
    only rows that follow the one with this ``attempt_id``.

    ``since`` is a time, or a duration before now. The view has no order: the newest attempts are found in the ledger,
    and only their rows are read from the view.
    """
    later = attempts.alias("later")
    latest = sa.select(attempts.c.id, attempts.c.task_id, attempts.c.recorded_at).where(
        ~sa.exists(sa.select(later.c.id).where(later.c.task_id == attempts.c.task_id, later.c.id > attempts.c.id))
    )
    for column, value in ((attempts.c.outcome, outcome), (attempts.c.task_id, task_id), (attempts.c.room_id, room_id)):
        if value is not None:
            latest = latest.where(column == value)
    if before_id is not None:
        latest = latest.where(attempts.c.id < before_id)
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        if since is not None:
            latest = latest.where(recorded_since(connection, since if isinstance(since, datetime) else now - since))
        newest = latest.order_by(attempts.c.id.desc()).limit(limit).subquery()
        columns: list[sa.ColumnElement[Any]] = [*HISTORY.c, newest.c.recorded_at, newest.c.id.label("attempt_id")]
        statement = (
            sa.select(*columns)
            .join_from(newest, HISTORY, HISTORY.c.task_id == newest.c.task_id)
            .order_by(newest.c.id.desc())
        )
        return now, [as_row(row) for row in connection.execute(statement)]


def as_row(row: sa.Row[Any]) -> Row:
    return dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name; the _ avoids names of columns


def recorded_since(connection: sa.Connection, moment: datetime) -> sa.ColumnElement[bool]:
    """Return the condition for attempts that were recorded at ``moment`` or later."""
    return sa.and_(attempts.c.id >= first_recorded(connection, moment), attempts.c.recorded_at >= moment)


def first_recorded(connection: sa.Connection, moment: datetime) -> int:
    """Return the id of the first attempt recorded at ``moment`` or later.

    If all attempts are older, this is the last one's id; 0 without any.
    """
    return first_since(connection, attempts.c.id, attempts.c.recorded_at, moment)


def first_since(connection: sa.Connection, key: sa.Column[int], at: sa.Column[datetime], moment: datetime) -> int:
    """Return the same for any table whose ``key`` grows with the times in ``at``."""
    # Two subqueries: for both ends in one query, SQLite would read the whole table.
    ends = (sa.select(end(key)).scalar_subquery() for end in (sa.func.min, sa.func.max))
    least, most = connection.execute(sa.select(*ends)).one()
    if least is None:
        return 0

    def is_before(middle: int) -> bool:
        row = sa.select(at).where(key >= middle).order_by(key).limit(1)
        found: datetime = connection.execute(row).scalar_one()
        return found < moment

    return _bisect(least, most, is_before)


def _bisect(low: int, high: int, is_before: Callable[[int], bool]) -> int:
    while low < high:
        middle = (low + high) // 2
        if is_before(middle):
            low = middle + 1
        else:
            high = middle
    return low
