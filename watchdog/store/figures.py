"""The SQL of the figures that metrics show: short readings, and walks through whole tables in slices.

SQLite has one thread for everything, so no reading may take long: a large table is read in slices, one transaction
each. The result of a walk is therefore not a picture of one instant, but of the minutes that the walk took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.model import Outcome, Reason, Status
from watchdog.store import events
from watchdog.store.engine import reading
from watchdog.store.heartbeats import ELDEST
from watchdog.store.records import DETAIL_LEASE_EXPIRED, EventCounts
from watchdog.store.tables import ACTIVE, UtcTime, attempts, rejoins, tasks, utcnow

ROWS_AT_ONCE: Final = 20_000
DUE_COUNTED: Final = 10_000
"""Due tasks are counted up to this."""

REJOINED_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class ActiveTasks:
    """All active tasks: their number, who is in their rooms, the oldest hint, and the longest empty spell."""

    number: int
    occupied: int
    empty: int
    unknown: int
    oldest_evidence_at: datetime | None
    oldest_empty_since: datetime | None


class FigureStore:
    """One thread at a time: the walks have a state."""

    def __init__(self, engine: sa.Engine, instance: str, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self.engine = engine
        self.instance = instance
        self._active = _Walk(tasks.c.room_id, _OF_ACTIVE, rows_at_once, ACTIVE)
        self._rejoined = _Walk(rejoins.c.task_id, _REJOINED, rows_at_once)
        self._ended = _Walk(tasks.c.task_id, _BY_STATUS, rows_at_once)
        self._manual_after: int | None = None
        self._manual_until: int | None = None
        self._manual_open: list[int] = []
        file = engine.url.database
        self._wal = None if engine.dialect.name != "sqlite" or file is None else Path(f"{file}-wal")

    def due(self) -> tuple[int, datetime | None, datetime]:
        """Return how many tasks wait to be claimed, since when the first one waits, and the database's time."""
        with reading(self.engine) as connection:
            row = connection.execute(_DUE).one()
        return row.number, row.oldest, row.now

    def events(self) -> EventCounts:
        """Count the events that the webhook has not delivered."""
        with reading(self.engine) as connection:
            return events.count(connection)

    def wal_bytes(self) -> int | None:
        """Return the size of SQLite's write-ahead log; None on PostgreSQL."""
        if self._wal is None:
            return None
        return self._wal.stat().st_size if self._wal.exists() else 0

    def manual(self) -> Sequence[Outcome]:
        """Return the outcomes of the operator's attempts (``zego-watchdog stop``) that were closed since the last call.

        Empty unless this daemon runs longest: it counts on behalf of all. A row is read one call after it is first
        seen, when all rows with a smaller id are committed.
        """
        with reading(self.engine) as connection:
            newest: int = connection.execute(_NEWEST_ATTEMPT).scalar_one() or 0
            if self._manual_after is None or self._manual_until is None:
                self._manual_after = self._manual_until = newest
                return ()
            found: list[sa.Row[Any]] = []
            if self._manual_until > self._manual_after:
                between = {"after": self._manual_after, "until": self._manual_until}
                found += connection.execute(_MANUAL_BETWEEN, between)
            if self._manual_open:
                found += connection.execute(_MANUAL_OF, {"ids": self._manual_open})
            is_ours = bool(found) and connection.execute(ELDEST).scalar_one_or_none() == self.instance
        self._manual_after, self._manual_until = self._manual_until, newest
        self._manual_open = [row.id for row in found if row.outcome == Outcome.SENT] if is_ours else []
        # An abandoned attempt was counted by the daemon that closed it.
        return [
            Outcome(row.outcome)
            for row in found
            if is_ours and row.outcome != Outcome.SENT and row.detail != DETAIL_LEASE_EXPIRED
        ]

    @property
    def is_walking_active(self) -> bool:
        """Whether a walk through the active tasks has begun and is not complete."""
        return self._active.is_under_way

    def walk_active(self) -> ActiveTasks | None:
        """Read the next slice of the active tasks, by room; return the result after the last slice."""
        if (found := self._step(self._active)) is None:
            return None
        return ActiveTasks(
            number=sum(row.number for row in found),
            occupied=sum(row.occupied for row in found),
            empty=sum(row.empty for row in found),
            unknown=sum(row.unknown for row in found),
            oldest_evidence_at=min((row.oldest_evidence for row in found if row.oldest_evidence), default=None),
            oldest_empty_since=min((row.oldest_empty for row in found if row.oldest_empty), default=None),
        )

    def walk_rejoined(self) -> int | None:
        """Read the next slice of the watched rooms; after the last, return to how many people came back in a day."""
        found = self._step(self._rejoined)
        return None if found is None else sum(row.number for row in found)

    def walk_ended(self) -> Mapping[Status, int] | None:
        """Read the next slice of all tasks; after the last, return how many have each final status."""
        if (found := self._step(self._ended)) is None:
            return None
        return {
            status: sum(row.number for row in found if row.status == status)
            for status in Status
            if status is not Status.ACTIVE
        }

    def _step(self, walk: "_Walk") -> Sequence[sa.Row[Any]] | None:
        with reading(self.engine) as connection:
            return walk.step(connection)


class _Walk:
    """Applies ``statement`` to slices of a table, in the order of ``key``."""

    def __init__(
        self,
        key: sa.Column[str],
        statement: sa.Select[*tuple[Any, ...]],
        rows_at_once: int,
        *conditions: sa.ColumnElement[bool],
    ) -> None:
        beyond = key > sa.bindparam("after")
        self._border = sa.select(key).where(*conditions, beyond).order_by(key).limit(1).offset(rows_at_once - 1)
        self._rest = statement.where(beyond)
        self._slice = self._rest.where(key <= sa.bindparam("border"))
        self._after = ""
        self._found: list[sa.Row[Any]] = []

    @property
    def is_under_way(self) -> bool:
        return self._after != ""

    def step(self, connection: sa.Connection) -> Sequence[sa.Row[Any]] | None:
        """Read the next slice; return the rows of the whole walk after the last one, and begin anew."""
        where = {"after": self._after}
        border: str | None = connection.execute(self._border, where).scalar_one_or_none()
        if border is None:
            self._found += connection.execute(self._rest, where)
        else:
            self._found += connection.execute(self._slice, where | {"border": border})
        self._after = border or ""
        if border is not None:
            return None
        found, self._found = self._found, []
        return found


_WAITING = (
    sa.select(tasks.c.wake_at)
    .where(ACTIVE, tasks.c.wake_at.is_not(None), tasks.c.wake_at <= utcnow())
    .order_by(tasks.c.wake_at)
    .limit(DUE_COUNTED)
    .subquery()
)
_DUE = sa.select(
    utcnow().label("now"),
    sa.func.count().label("number"),
    sa.func.min(_WAITING.c.wake_at, type_=UtcTime).label("oldest"),
).select_from(_WAITING)
_REJOINED = sa.select(sa.func.count(rejoins.c.rejoined_at).label("number")).where(
    rejoins.c.stopped_at >= utcnow(-REJOINED_SECONDS)
)
_NEWEST_ATTEMPT = sa.select(sa.func.max(attempts.c.id))
_MANUAL = sa.select(attempts.c.id, attempts.c.outcome, attempts.c.detail).where(attempts.c.reason == Reason.MANUAL)
_MANUAL_BETWEEN = _MANUAL.where(attempts.c.id > sa.bindparam("after"), attempts.c.id <= sa.bindparam("until"))
_MANUAL_OF = _MANUAL.where(attempts.c.id.in_(sa.bindparam("ids", expanding=True)))
_OF_ACTIVE = sa.select(
    sa.func.count().label("number"),
    sa.func.count().filter(tasks.c.user_count > 0).label("occupied"),
    sa.func.count().filter(tasks.c.user_count == 0).label("empty"),
    sa.func.count().filter(tasks.c.user_count.is_(None)).label("unknown"),
    sa.func.min(tasks.c.user_count_at, type_=UtcTime).filter(tasks.c.user_count.is_not(None)).label("oldest_evidence"),
    sa.func.min(tasks.c.empty_since, type_=UtcTime).label("oldest_empty"),
).where(ACTIVE)
_BY_STATUS = sa.select(tasks.c.status, sa.func.count().label("number")).group_by(tasks.c.status)
