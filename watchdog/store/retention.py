"""The SQL of retention: removes rows whose time is over, a few hundred at a time.

There is no index by age, and none is needed: a walk along the primary key reads each row once a pass, in slices whose
cost does not depend on the table's size, and the ledger's ids grow with its times, so that a walk of it ends at the
first row that is young. A slice is read without a lock; only what was found in it is then deleted, and every delete
states again what makes a row superfluous. Nothing waits for a lock (SKIP LOCKED), so nothing can wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import Outcome
from watchdog.store import statements as sql
from watchdog.store.engine import reading, writing
from watchdog.store.tables import attempts, rejoins, tasks, utcnow


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """``after`` is where the walk goes on; None at its end."""

    after: str | None
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class AttemptBatch:
    """``after`` is where the walk goes on; None at its end."""

    after: int | None
    attempts: int = 0
    rejoins: int = 0


class RetentionStore:
    """Raises DatabaseUnavailable where a later call may succeed, DatabaseError otherwise."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def turn(self, instance: str) -> tuple[datetime, bool]:
        """The database's time, and whether it is for ``instance`` to do the work: the longest alive does."""
        with reading(self.engine) as connection:
            now = connection.execute(sql.NOW).scalar_one()
            eldest = connection.execute(sql.ELDEST_DAEMON).scalar_one_or_none()
        return now, eldest == instance

    def prune_tasks(self, after: str, limit: int, before: datetime) -> TaskBatch:
        """Delete, among the next ``limit`` tasks after the TaskId ``after``, those that ended before ``before``."""
        with reading(self.engine) as connection:
            rows = connection.execute(_SLICE_OF_TASKS, {"after": after, "limit": limit, "before": before}).all()
        last = rows[-1].task_id if len(rows) == limit else None
        if not (old := [row.task_id for row in rows if row.is_old]):
            return TaskBatch(last)
        with writing(self.engine) as connection:
            return TaskBatch(last, len(connection.execute(_DELETE_TASKS, {"task_ids": old, "before": before}).all()))

    def prune_attempts(self, after: int, limit: int, before: datetime) -> AttemptBatch:
        """Delete about ``limit`` attempts of tasks that are not active and whose last one is from before ``before``.

        A task's attempts go together, and what is known of returns to its room with them: half a history would be a
        wrong one. Where one task has more than ``limit`` of them, the oldest go first.
        """
        with reading(self.engine) as connection:
            rows = connection.execute(_SLICE_OF_ATTEMPTS, {"after": after, "limit": limit, "before": before}).all()
            old = [row for row in rows if row.is_old]
            found = list(dict.fromkeys(row.task_id for row in old))
            over = connection.execute(_OVER, {"task_ids": found, "before": before}).all() if found else []
        end = old[-1].id if len(old) == limit else None
        if not over:
            return AttemptBatch(end)
        chosen = _as_many_as_fit(over, limit)
        with writing(self.engine) as connection:
            where = {"task_ids": chosen, "before": before}
            pruned = len(connection.execute(_DELETE_ATTEMPTS, where | {"limit": limit}).all())
            forgotten = connection.execute(_DELETE_REJOINS, where).rowcount
        is_all = pruned >= sum(row.attempts for row in over)
        # Rows that somebody has locked are left to the next pass.
        return AttemptBatch(end if is_all or not pruned else after, pruned, forgotten)


def _as_many_as_fit(over: Sequence[sa.Row[Any]], limit: int) -> list[str]:
    """The first tasks of which all attempts are within ``limit``; one in any case."""
    chosen: list[str] = []
    total = 0
    for row in over:
        total += row.attempts
        if chosen and total > limit:
            break
        chosen.append(row.task_id)
    return chosen


_AFTER: sa.BindParameter[Any] = sa.bindparam("after")
_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_TASK_IDS: sa.BindParameter[Any] = sa.bindparam("task_ids", expanding=True)

_ENDED_BEFORE = sa.and_(sa.not_(sql.ACTIVE), tasks.c.ended_at < sa.bindparam("before", type_=tasks.c.ended_at.type))
_SLICE_OF_TASKS = (
    sa.select(tasks.c.task_id, sa.func.coalesce(_ENDED_BEFORE, sa.false()).label("is_old"))
    .where(tasks.c.task_id > _AFTER)
    .order_by(tasks.c.task_id)
    .limit(_LIMIT)
)
_OLD_TASKS = (
    sa.select(tasks.c.task_id)
    .where(tasks.c.task_id.in_(_TASK_IDS), _ENDED_BEFORE)
    .with_for_update(skip_locked=True)
    .cte("old_tasks")
)
# RETURNING, to count them: of a statement that begins with WITH, SQLite's driver does not say how many rows it changed.
_DELETE_TASKS = sa.delete(tasks).where(tasks.c.task_id.in_(sa.select(_OLD_TASKS.c.task_id))).returning(tasks.c.task_id)

_RECORDED_BEFORE = attempts.c.recorded_at < sa.bindparam("before", type_=attempts.c.recorded_at.type)
_IS_ACTIVE = sa.exists(sa.select(tasks.c.task_id).where(tasks.c.task_id == attempts.c.task_id, sql.ACTIVE))
_IS_WATCHED = sa.exists(
    sa.select(rejoins.c.task_id).where(rejoins.c.task_id == attempts.c.task_id, rejoins.c.watch_until >= utcnow())
)
_SLICE_OF_ATTEMPTS = (
    sa.select(attempts.c.id, attempts.c.task_id, _RECORDED_BEFORE.label("is_old"))
    .where(attempts.c.id > _AFTER)
    .order_by(attempts.c.id)
    .limit(_LIMIT)
)
_OVER = (
    sa.select(attempts.c.task_id, sa.func.count().label("attempts"))
    .where(attempts.c.task_id.in_(_TASK_IDS), ~_IS_ACTIVE, ~_IS_WATCHED)
    .group_by(attempts.c.task_id)
    .having(sa.func.count().filter(sa.or_(~_RECORDED_BEFORE, attempts.c.outcome == Outcome.SENT)) == 0)
    .order_by(sa.func.min(attempts.c.id))
)
_OLD_ATTEMPTS = (
    sa.select(attempts.c.id)
    .where(
        attempts.c.task_id.in_(_TASK_IDS),
        _RECORDED_BEFORE,
        attempts.c.outcome != Outcome.SENT,
        ~_IS_ACTIVE,
        ~_IS_WATCHED,
    )
    .order_by(attempts.c.id)
    .limit(_LIMIT)
    .with_for_update(skip_locked=True)
    .cte("old_attempts")
)
_DELETE_ATTEMPTS = sa.delete(attempts).where(attempts.c.id.in_(sa.select(_OLD_ATTEMPTS.c.id))).returning(attempts.c.id)
_DELETE_REJOINS = sa.delete(rejoins).where(
    rejoins.c.task_id.in_(_TASK_IDS),
    rejoins.c.watch_until < utcnow(),
    ~sa.exists(sa.select(attempts.c.id).where(attempts.c.task_id == rejoins.c.task_id)),
)
