"""What the metrics say of the database, read a little at a time, by the daemon and never by a scrape.

    due        what waits to be claimed: one look into an index
    manual     what ``zego-watchdog stop`` wrote into the ledger, which counts nothing itself
    active     walks through the active tasks by room
    rejoined   walks through the stops of the last day: who came back
    ended      walks through the whole table by TaskId

One step is one short transaction. After some, nothing is read for 400 times as long as they took, so that this costs a
third of a percent of a core at most, and a tenth where there is time for it. A walk sees 20,000 rows a step, at
different moments: in a large table its figures are the picture of some minutes rather than of an instant. SQLite has
one thread for everything, so a step must be short: that is why a table is walked through rather than counted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import structlog

from watchdog.clock import Clock
from watchdog.core.model import Outcome, Reason, Status
from watchdog.errors import DatabaseError
from watchdog.observer import Observer
from watchdog.store import statements as sql
from watchdog.store.aio.threads import Storage
from watchdog.store.engine import reading
from watchdog.store.tables import UtcTime, attempts, rejoins, tasks, utcnow

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 15.0
"""How often one kind of figure is read; the job may be a fifth early."""

PAUSE: Final = 400
"""How many times longer than what was read at once the pause after it is at least, as long as the job is not early."""

LONG_PAUSE: Final = 1000
LONG_PAUSE_SECONDS: Final = 15.0
"""How many times longer it is where that is no longer than this: a million tasks are some fifty steps."""

AT_ONCE_SECONDS: Final = 0.005
"""Steps are taken together up to this: to be woken for one costs more than a short one does."""

LEISURE: Final = 4
"""So many pauses are between two steps through what has ended, while the active tasks are walked through: these have
most of the time."""

ROWS_AT_ONCE: Final = 20_000
DUE_COUNTED: Final = 10_000
REJOINED_SECONDS: Final = 86_400.0


@dataclass(slots=True)
class _Part:
    """One kind of figure; ``step`` says whether it is complete. If not, others go first for so many ``pauses``."""

    step: Callable[[], bool]
    pauses: int = 0
    again_at: float = 0.0


class Gauges:
    """Shows an observer what is in the database; ``run_once`` takes a few steps."""

    def __init__(self, storage: Storage, observer: Observer, clock: Clock, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self._storage = storage
        self._engine = storage.store.engine
        self._observer = observer
        self._clock = clock
        self._active = _Walk(tasks.c.room_id, _OF_ACTIVE, rows_at_once, sql.ACTIVE)
        self._rejoined = _Walk(rejoins.c.task_id, _CAME_BACK, rows_at_once)
        self._ended = _Walk(tasks.c.task_id, _BY_STATUS, rows_at_once)
        self._by_status: dict[tuple[str, ...], float] = {}
        self._manual_after: int | None = None
        self._manual_until: int | None = None
        self._manual_open: list[int] = []
        file = self._engine.url.database
        self._wal = None if self._engine.dialect.name != "sqlite" or file is None else Path(f"{file}-wal")
        self._parts = [
            *(_Part(step) for step in (self._due, self._manual, self._walk_active)),
            *(_Part(step, LEISURE) for step in (self._walk_rejoined, self._walk_ended)),
        ]

    async def run_once(self) -> float:
        """Take the steps that are due, as many as are short; returns the seconds to wait before the next one."""
        try:
            pause = await self._storage.call(self._steps)
        except DatabaseError as error:
            # The sweep says loudly that the database is away.
            log.debug("figures_not_read", error=str(error))
            pause = EVERY_SECONDS
        return max(pause, self._next().again_at - self._clock.monotonic())

    def _next(self) -> _Part:
        return min(self._parts, key=lambda part: part.again_at)

    def _steps(self) -> float:
        """Blocking; returns for how long to read nothing. Timed here: waiting for the thread is not what it costs."""
        part, began = self._next(), self._clock.monotonic()
        # Whoever comes a little early does all that was to be done then, not the first bit of it.
        ahead = min(max(0.0, part.again_at - began), EVERY_SECONDS / 2)
        until = began + ahead + AT_ONCE_SECONDS
        now = began
        while part.again_at <= until and now - began < AT_ONCE_SECONDS:
            # Also where the step fails.
            part.again_at = now + EVERY_SECONDS
            before, complete = now, part.step()
            now = self._clock.monotonic()
            steps_aside = part.pauses * _pause(now - before) if self._active.is_under_way else 0.0
            part.again_at = now + (EVERY_SECONDS if complete else steps_aside)
            part = self._next()
        return _pause(now - began)

    def _due(self) -> bool:
        with reading(self._engine) as connection:
            row = connection.execute(_DUE).one()
        self._observer.show("due_tasks", row.number)
        self._observer.show("due_lag_seconds", _age(row.oldest, row.now))
        if self._wal is not None:
            self._observer.show("sqlite_wal_bytes", self._wal.stat().st_size if self._wal.exists() else 0)
        return True

    def _manual(self) -> bool:
        """Count an operator's own attempts, on behalf of all daemons if this is the one that runs longest.

        They are looked at one turn later than they are first seen, when all that have a smaller id are committed.
        """
        with reading(self._engine) as connection:
            newest: int | None = connection.execute(_NEWEST_ATTEMPT).scalar_one()
            if self._manual_after is None or self._manual_until is None:
                self._manual_after = self._manual_until = newest or 0
                return True
            found: list[sa.Row[Any]] = []
            if self._manual_until > self._manual_after:
                between = {"after": self._manual_after, "until": self._manual_until}
                found += connection.execute(_MANUAL_BETWEEN, between)
            if self._manual_open:
                found += connection.execute(_MANUAL_OF, {"ids": self._manual_open})
            eldest = connection.execute(sql.ELDEST_DAEMON).scalar_one_or_none() if found else None
        self._manual_after, self._manual_until = self._manual_until, newest or 0
        is_ours = eldest == self._storage.store.instance
        self._manual_open = [row.id for row in found if row.outcome == Outcome.SENT] if is_ours else []
        for row in found:
            # Those that were abandoned have been counted by whoever closed them.
            if is_ours and row.outcome != Outcome.SENT and row.detail != sql.DETAIL_LEASE_EXPIRED:
                self._observer.attempt(Outcome(row.outcome), Reason.MANUAL)
        return True

    def _walk_active(self) -> bool:
        if not self._walk(self._active):
            return False
        found, now = self._active.take(), self._storage.now()
        self._by_status[(Status.ACTIVE.value,)] = sum(row.number for row in found)
        self._observer.show("tasks", dict(self._by_status))
        self._observer.show("unknown_rooms", sum(row.unknown for row in found))
        self._observer.show("oldest_evidence_seconds", _age(_oldest(row.oldest_evidence for row in found), now))
        self._observer.show("oldest_empty_room_seconds", _age(_oldest(row.oldest_empty for row in found), now))
        self._observer.show("database_refreshed_timestamp_seconds", self._clock.time())
        return True

    def _walk_rejoined(self) -> bool:
        if not self._walk(self._rejoined):
            return False
        self._observer.show("rejoined_stops", sum(row.number for row in self._rejoined.take()))
        return True

    def _walk_ended(self) -> bool:
        if not self._walk(self._ended):
            return False
        found = self._ended.take()
        for status in Status:
            if status is not Status.ACTIVE:
                self._by_status[(status.value,)] = sum(row.number for row in found if row.status == status)
        self._observer.show("tasks", dict(self._by_status))
        return True

    def _walk(self, walk: "_Walk") -> bool:
        with reading(self._engine) as connection:
            return walk.step(connection)


class _Walk:
    """Asks ``statement`` of a table's rows, so many at once, in the order of ``key``."""

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

    def step(self, connection: sa.Connection) -> bool:
        """Go on; returns whether this was the end."""
        where = {"after": self._after}
        border: str | None = connection.execute(self._border, where).scalar_one_or_none()
        if border is None:
            self._found += connection.execute(self._rest, where)
        else:
            self._found += connection.execute(self._slice, where | {"border": border})
        self._after = border or ""
        return border is None

    def take(self) -> list[sa.Row[Any]]:
        """What was found, from the beginning; the next walk begins anew."""
        found, self._found = self._found, []
        return found


def _pause(took: float) -> float:
    return max(PAUSE * took, min(LONG_PAUSE * took, LONG_PAUSE_SECONDS))


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _oldest(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


_WAITING = (
    sa.select(tasks.c.wake_at)
    .where(sql.ACTIVE, tasks.c.wake_at.is_not(None), tasks.c.wake_at <= utcnow())
    .order_by(tasks.c.wake_at)
    .limit(DUE_COUNTED)
    .subquery()
)
_DUE = sa.select(
    utcnow().label("now"),
    sa.func.count().label("number"),
    sa.func.min(_WAITING.c.wake_at, type_=UtcTime).label("oldest"),
).select_from(_WAITING)
_CAME_BACK = sa.select(sa.func.count(rejoins.c.rejoined_at).label("number")).where(
    rejoins.c.stopped_at >= utcnow(-REJOINED_SECONDS)
)
_NEWEST_ATTEMPT = sa.select(sa.func.max(attempts.c.id))
_MANUAL = sa.select(attempts.c.id, attempts.c.outcome, attempts.c.detail).where(attempts.c.reason == Reason.MANUAL)
_MANUAL_BETWEEN = _MANUAL.where(attempts.c.id > sa.bindparam("after"), attempts.c.id <= sa.bindparam("until"))
_MANUAL_OF = _MANUAL.where(attempts.c.id.in_(sa.bindparam("ids", expanding=True)))
_OF_ACTIVE = sa.select(
    sa.func.count().label("number"),
    sa.func.count().filter(tasks.c.user_count.is_(None)).label("unknown"),
    sa.func.min(tasks.c.user_count_at, type_=UtcTime).filter(tasks.c.user_count.is_not(None)).label("oldest_evidence"),
    sa.func.min(tasks.c.empty_since, type_=UtcTime).label("oldest_empty"),
).where(sql.ACTIVE)
_BY_STATUS = sa.select(tasks.c.status, sa.func.count().label("number")).group_by(tasks.c.status)
