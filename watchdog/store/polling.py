"""The poller's SQL: whom to ask next, what was observed, and who came back to a room whose task we stopped.

The rows themselves say when they were asked about last (``asked_at``), so that daemons share the asking and a restart
forgets nothing. Every call is one short transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core import policy
from watchdog.core.model import Evidence, Task
from watchdog.store import statements as sql
from watchdog.store.engine import reading, writing
from watchdog.store.tables import UtcTime, rejoins, tasks, utcnow
from watchdog.store.tasks import as_task

KEEP_WATCHES_SECONDS: Final = 86_400.0
"""How long the row of a room to which nobody came back outlives its watch, so that ``status`` can count it."""

REJOINS_SHARE: Final = 10
"""When there are more rooms than can be asked, every tenth question is about a room whose task we stopped."""

_LOOKED_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Returned:
    """People in the room of a task that we stopped, so many seconds later."""

    task_id: str
    room_id: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What observations came to: tasks whose count changed, and people who came back.

    ``contradicted`` are tasks left as they are: their application sees people, and the vendor never saw any.
    """

    changed: int
    contradicted: tuple[Task, ...]
    returned: tuple[Returned, ...]


NOTHING: Final = Observed(0, (), ())


@dataclass(frozen=True, slots=True)
class EvidenceAge:
    """The age of the oldest evidence on an active task, None without any, and how many tasks have none."""

    oldest_seconds: float | None
    unknown: int


class PollStore:
    """Raises DatabaseUnavailable where a later call may succeed, DatabaseError otherwise."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def take(self, limit: int, not_within_seconds: float, app_id: int, default_app: int | None) -> list[str]:
        """Choose at most ``limit`` rooms of ``app_id``, least recently asked first, and note that they are asked now.

        Rooms asked about within ``not_within_seconds``, by any daemon, are left out. ``default_app`` is the AppId of
        rows that name none.
        """
        choice = {"not_within": -not_within_seconds, "b_app_id": app_id, "b_default_app": default_app}
        with writing(self.engine) as connection:

            def taken(statement: sa.Update, number: int) -> list[str]:
                if number <= 0:
                    return []
                return list(connection.execute(statement, choice | {"limit": number}).scalars())

            rooms = taken(_TAKE_REJOINS, limit // REJOINS_SHARE)
            rooms += taken(_TAKE_TASKS, limit - len(rooms))
            rooms += taken(_TAKE_REJOINS, limit - len(rooms))
        return sorted(set(rooms))

    def observe(self, app_id: int, default_app: int | None, observations: Mapping[str, Evidence]) -> Observed:
        """Store what the vendor said of rooms of ``app_id`` as hints, through the triggers like everybody's.

        A task whose application contradicts is left alone; so is a row that somebody is writing to at this moment.
        """
        known = {room: seen for room, seen in observations.items() if seen.user_count is not None}
        if not known:
            return NOTHING
        where = {"rooms": sorted(known), "b_app_id": app_id, "b_default_app": default_app}
        changed: list[Task] = []
        contradicted: list[Task] = []
        hints: list[dict[str, Any]] = []
        with writing(self.engine) as connection:
            for task in map(as_task, connection.execute(_OF_ROOMS, where)):
                seen = known[task.room_id]
                if task.user_count_at and seen.observed_at and seen.observed_at <= task.user_count_at:
                    continue
                if policy.contradicts(task, seen):
                    contradicted.append(task)
                    continue
                if task.user_count != seen.user_count:
                    changed.append(task)
                hints.append(
                    {
                        "b_task_id": task.task_id,
                        "b_count": seen.user_count,
                        "b_at": seen.observed_at,
                        "b_source": seen.source,
                    }
                )
            if hints:
                connection.execute(_HINT, hints)
            returned = self._returned(connection, where, known)
        return Observed(len(changed), tuple(contradicted), tuple(returned))

    def _returned(
        self, connection: sa.Connection, where: Mapping[str, Any], known: Mapping[str, Evidence]
    ) -> list[Returned]:
        occupied = [room for room in where["rooms"] if known[room].user_count]
        if not occupied:
            return []
        found: list[Returned] = []
        for row in connection.execute(_WATCHED, {**where, "rooms": occupied}).all():
            at = known[row.room_id].observed_at
            if at is None or not row.stopped_at < at <= row.watch_until:
                continue
            if connection.execute(_RETURNED, {"b_task_id": row.task_id, "b_at": at}).rowcount:
                found.append(Returned(row.task_id, row.room_id, (at - row.stopped_at).total_seconds()))
        return found

    def evidence_age(self) -> EvidenceAge:
        """Read through all active tasks."""
        with reading(self.engine) as connection:
            row = connection.execute(_AGE).one()
        return EvidenceAge(
            None if row.oldest_at is None else max(0.0, (row.now - row.oldest_at).total_seconds()), row.unknown
        )

    def active(self) -> int:
        """How many active tasks there are; ten thousand where there are more."""
        with reading(self.engine) as connection:
            return connection.execute(_COUNT).scalar_one()

    def newest_hint(self) -> datetime | None:
        """When the newest hint of any source on an active task was made; looks at the ten thousand asked about last."""
        with reading(self.engine) as connection:
            newest: datetime | None = connection.execute(_NEWEST).scalar_one()
        return newest

    def prune(self) -> int:
        """Forget rooms to which nobody came back; returns how many. The others belong to the history."""
        with writing(self.engine) as connection:
            return connection.execute(_FORGET).rowcount


def _of_app(column: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    default = sa.bindparam("b_default_app", type_=sa.BigInteger)
    return sa.func.coalesce(column, default) == sa.bindparam("b_app_id", type_=sa.BigInteger)


def _take(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Update:
    least_recent = (
        sa.select(table.c.task_id)
        .where(
            *conditions,
            table.c.asked_at < utcnow(sa.bindparam("not_within", type_=sa.Float)),
            _of_app(table.c.app_id),
        )
        .order_by(table.c.asked_at)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .with_for_update(skip_locked=True)
        .cte("least_recent")
    )
    return (
        sa.update(table)
        .where(table.c.task_id == least_recent.c.task_id)
        .values(asked_at=utcnow())
        .returning(table.c.room_id)
    )


_UNRETURNED = rejoins.c.rejoined_at.is_(None)
_TAKE_TASKS = _take(tasks, sql.ACTIVE)
_TAKE_REJOINS = _take(rejoins, _UNRETURNED, rejoins.c.watch_until > utcnow())
_OF_ROOMS = (
    sa.select(*tasks.c)
    .where(sql.ACTIVE, tasks.c.room_id.in_(sa.bindparam("rooms", expanding=True)), _of_app(tasks.c.app_id))
    # Nothing waits, so nothing can wait for each other: whoever writes to a row now knows better anyway.
    .with_for_update(skip_locked=True)
)
_HINT = (
    sa.update(tasks)
    .where(tasks.c.task_id == sa.bindparam("b_task_id"), sql.ACTIVE)
    .values(
        user_count=sa.bindparam("b_count"),
        user_count_at=sa.bindparam("b_at"),
        user_count_source=sa.bindparam("b_source"),
    )
)
_WATCHED = sa.select(rejoins.c.task_id, rejoins.c.room_id, rejoins.c.stopped_at, rejoins.c.watch_until).where(
    _UNRETURNED, rejoins.c.room_id.in_(sa.bindparam("rooms", expanding=True)), _of_app(rejoins.c.app_id)
)
_RETURNED = (
    sa.update(rejoins)
    .where(rejoins.c.task_id == sa.bindparam("b_task_id"), _UNRETURNED)
    .values(rejoined_at=sa.bindparam("b_at", type_=rejoins.c.rejoined_at.type))
)
_FORGET = sa.delete(rejoins).where(_UNRETURNED, rejoins.c.watch_until < utcnow(-KEEP_WATCHES_SECONDS))
_AGE = sa.select(
    utcnow().label("now"),
    sa.func.min(tasks.c.user_count_at, type_=UtcTime).filter(tasks.c.user_count.is_not(None)).label("oldest_at"),
    sa.func.count().filter(tasks.c.user_count.is_(None)).label("unknown"),
).where(sql.ACTIVE)
_SOME = sa.select(tasks.c.user_count_at).where(sql.ACTIVE).order_by(tasks.c.asked_at.desc()).limit(_LOOKED_AT)
_COUNT = sa.select(sa.func.count()).select_from(_SOME.with_only_columns(tasks.c.asked_at).subquery())
_NEWEST = sa.select(sa.func.max(_SOME.subquery().c.user_count_at, type_=UtcTime))
