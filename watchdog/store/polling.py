"""The SQL of polling: which rooms to ask ZEGO about next, what ZEGO said, and who returned to a room after a stop.

Rows wait in the order of ``asked_at``, when they were asked about last, so daemons share the work and a restart forgets
nothing. A hint does not move its row: ``user_count_at`` has no index, which keeps hints cheap. Instead, a row that
comes up and has newer evidence goes back into the queue, with ``asked_at`` at the time of that evidence. Every call is
one short transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core import policy
from watchdog.core.model import Evidence, Source, Task
from watchdog.store.engine import reading, writing
from watchdog.store.tables import ACTIVE, HINT, UtcTime, as_task, hint, rejoins, tasks, utcnow

REJOINS_SHARE: Final = 10
"""If not all rooms can be asked about, every tenth question is about a room whose task we stopped."""

REQUEUED_AT_ONCE: Final = 500
"""How many rows one transaction puts back into the queue, besides those that it took."""

_OWN_ANSWER_SECONDS: Final = 2.0
"""An answer of ZEGO is dated this much later than ``asked_at`` at most, if its call did not wait long."""

_LOOKED_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """The rooms to ask about, and how many rows went back into the queue because their evidence is newer."""

    rooms: list[str]
    requeued: int


@dataclass(frozen=True, slots=True)
class Returned:
    """People in the room of a stopped task, so many seconds after the stop."""

    task_id: str
    room_id: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Observed:
    """The result of ``observe``: how many tasks have another count, and which stopped tasks' rooms have people again.

    ``contradicted`` tasks are unchanged: their application reports people, and ZEGO has never seen any.
    """

    changed: int
    contradicted: tuple[Task, ...]
    returned: tuple[Returned, ...]


NOTHING: Final = Observed(0, (), ())


class PollStore:
    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def take(self, limit: int, not_within_seconds: float, app_id: int, default_app: int | None) -> Taken:
        """Take at most ``limit`` rooms of ``app_id``, oldest evidence first, and mark them as asked now.

        Rooms whose evidence is younger than ``not_within_seconds``, or that any daemon has asked about since, are left
        out. ``default_app`` is the AppId of rows without one. Fewer rooms than ``limit`` may be found while others
        still wait: if rows were requeued, call again.
        """
        own_answer = max(0.0, not_within_seconds - min(_OWN_ANSWER_SECONDS, not_within_seconds / 5))
        choice = {
            "not_within": -not_within_seconds,
            "own_answer": -own_answer,
            "b_app_id": app_id,
            "b_default_app": default_app,
        }
        rooms: list[str] = []
        requeued = 0
        with writing(self.engine) as connection:

            def take(statement: sa.Update, number: int) -> int:
                """Add the rooms that were taken; return how many rows were requeued instead."""
                if number <= 0:
                    return 0
                rows = connection.execute(statement, choice | {"limit": number}).all()
                rooms.extend(row.room_id for row in rows if row.is_taken)
                return sum(not row.is_taken for row in rows)

            take(_TAKE_REJOINS, limit // REJOINS_SHARE)
            if requeued := take(_TAKE_TASKS, limit - len(rooms)):
                requeued += connection.execute(_REQUEUE, choice | {"limit": REQUEUED_AT_ONCE}).rowcount
                requeued += take(_TAKE_TASKS, limit - len(rooms))
            take(_TAKE_REJOINS, limit - len(rooms))
        return Taken(sorted(set(rooms)), requeued)

    def observe(self, app_id: int, default_app: int | None, observations: Mapping[str, Evidence]) -> Observed:
        """Store ZEGO's observations of rooms of ``app_id`` as hints, through the triggers.

        A task whose application contradicts ZEGO stays unchanged; locked rows are skipped.
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
                hints.append(hint(task.task_id, seen))
            if hints:
                connection.execute(HINT, hints)
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

    def active(self) -> int:
        """Return the number of active tasks, at most 10,000."""
        with reading(self.engine) as connection:
            return connection.execute(_COUNT).scalar_one()

    def newest_hint(self) -> datetime | None:
        """Return the time of the newest hint among the 10,000 active tasks asked about last; None without any."""
        with reading(self.engine) as connection:
            newest: datetime | None = connection.execute(_NEWEST).scalar_one()
        return newest


def _of_app(column: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    app, default = (sa.bindparam(name, type_=sa.BigInteger) for name in ("b_app_id", "b_default_app"))
    # Not coalesce(): PostgreSQL would expect few such rows, and read the whole table for them.
    return sa.or_(column == app, sa.and_(column.is_(None), default == app))


def _least_recent(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.CTE:
    return (
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


_UNRETURNED = rejoins.c.rejoined_at.is_(None)
# ZEGO's answer to the last question is a moment newer than the question. Such a row keeps its place unless the evidence
# is young: to requeue each polled row would double the writes.
_HAS_NEWER_EVIDENCE = sa.and_(
    tasks.c.user_count.is_not(None),
    tasks.c.user_count_at > tasks.c.asked_at,
    sa.or_(
        tasks.c.user_count_source != Source.API,
        tasks.c.user_count_at > utcnow(sa.bindparam("own_answer", type_=sa.Float)),
    ),
)
_NEXT_TASKS = _least_recent(tasks, ACTIVE)
_NEXT_REJOINS = _least_recent(rejoins, _UNRETURNED, rejoins.c.watch_until > utcnow())
_TAKE_TASKS = (
    sa.update(tasks)
    .where(tasks.c.task_id == _NEXT_TASKS.c.task_id)
    .values(asked_at=sa.case((_HAS_NEWER_EVIDENCE, tasks.c.user_count_at), else_=utcnow()))
    # The new values: a requeued row has the time of its evidence.
    .returning(tasks.c.room_id, tasks.c.asked_at.is_distinct_from(tasks.c.user_count_at).label("is_taken"))
)
_REQUEUE = (
    sa.update(tasks)
    .where(tasks.c.task_id == _NEXT_TASKS.c.task_id, _HAS_NEWER_EVIDENCE)
    .values(asked_at=tasks.c.user_count_at)
)
_TAKE_REJOINS = (
    sa.update(rejoins)
    .where(rejoins.c.task_id == _NEXT_REJOINS.c.task_id)
    .values(asked_at=utcnow())
    .returning(rejoins.c.room_id, sa.true().label("is_taken"))
)
_OF_ROOMS = (
    sa.select(*tasks.c)
    .where(ACTIVE, tasks.c.room_id.in_(sa.bindparam("rooms", expanding=True)), _of_app(tasks.c.app_id))
    # Skipped, so that nothing waits or deadlocks: a writer that holds the lock has newer facts.
    .with_for_update(skip_locked=True)
)
_WATCHED = sa.select(rejoins.c.task_id, rejoins.c.room_id, rejoins.c.stopped_at, rejoins.c.watch_until).where(
    _UNRETURNED, rejoins.c.room_id.in_(sa.bindparam("rooms", expanding=True)), _of_app(rejoins.c.app_id)
)
_RETURNED = (
    sa.update(rejoins)
    .where(rejoins.c.task_id == sa.bindparam("b_task_id"), _UNRETURNED)
    .values(rejoined_at=sa.bindparam("b_at", type_=rejoins.c.rejoined_at.type))
)
_SOME = sa.select(tasks.c.user_count_at).where(ACTIVE).order_by(tasks.c.asked_at.desc()).limit(_LOOKED_AT)
_COUNT = sa.select(sa.func.count()).select_from(_SOME.with_only_columns(tasks.c.asked_at).subquery())
_NEWEST = sa.select(sa.func.max(_SOME.subquery().c.user_count_at, type_=UtcTime))
