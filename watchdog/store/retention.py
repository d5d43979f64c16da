"""The SQL of retention: all deleting of old rows, a few hundred at a time.

No index by age is needed. A walk along the primary key reads each row once in a pass, in slices whose cost does not
depend on the size of the table; the ledger's ids grow with its times, so its walk ends at the first young row. A slice
is read without locks. Then the old rows found in it are deleted; every DELETE repeats the condition that makes a row
old. Locked rows are skipped (SKIP LOCKED), so nothing waits and nothing can deadlock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from watchdog.core.model import Outcome
from watchdog.core.presence import RoomFact
from watchdog.errors import RowReferenced
from watchdog.store.engine import reading, writing
from watchdog.store.heartbeats import ELDEST
from watchdog.store.tables import (
    ACTIVE,
    NOW,
    attempts,
    callbacks_seen,
    daemons,
    deleted_tasks,
    empty_spells,
    events,
    rejoins,
    room_sessions,
    room_users,
    tasks,
    utcnow,
)

R = TypeVar("R")

REPLAY_SECONDS: Final = 900.0
"""How long a callback's signature is stored. It is valid for less: for twice the window in which it may be sent."""

ROOMS_SECONDS: Final = 24 * 3600.0
"""How long a room is stored after its last callback."""

KEEP_WATCHES_SECONDS: Final = 86_400.0
"""How long a watched room to which nobody came back is stored after its watch, for ``status`` to count it."""

FORGET_DAEMON_SECONDS: Final = 7 * 24 * 3600.0
"""How long the row of a daemon is stored after it was last seen, for ``status`` to show it."""

DELETED_SECONDS: Final = 7 * 24 * 3600.0
"""How long the TaskId of a deleted task is stored: longer than ZEGO reports what is said in a task that was stopped."""

_CALLBACK_ROWS: Final = 500


class Kept(dict[str, str]):
    """The TaskIds with rows that foreign keys of other tables refer to, and the names of those keys."""

    def allowed(self, task_ids: Sequence[str], delete: Callable[[Sequence[str]], R], nothing: R) -> list[R]:
        """Call ``delete`` with all TaskIds, or where a key refuses that, with halves, down to the one that is kept."""
        if not task_ids:
            return [nothing]
        try:
            return [delete(task_ids)]
        except RowReferenced as error:
            if len(task_ids) == 1:
                self[task_ids[0]] = error.constraint
                return [nothing]
        half = len(task_ids) // 2
        return self.allowed(task_ids[:half], delete, nothing) + self.allowed(task_ids[half:], delete, nothing)


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """How many tasks were deleted. The walk goes on behind ``after``; None at its end."""

    after: str | None
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class AttemptBatch:
    """How many rows were deleted. The walk goes on behind ``after``; None at its end."""

    after: int | None
    attempts: int = 0
    rejoins: int = 0


@dataclass(frozen=True, slots=True)
class AgedBatch:
    """How many rows were deleted. The walk goes on behind ``after``; None at its end."""

    after: int | None
    rows: int = 0


class RetentionStore:
    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def turn(self, instance: str) -> tuple[datetime, bool]:
        """Return the database's time, and whether ``instance`` has to do the work: it must be the eldest daemon."""
        with reading(self.engine) as connection:
            now = connection.execute(NOW).scalar_one()
            eldest = connection.execute(ELDEST).scalar_one_or_none()
        return now, eldest == instance

    def prune_tasks(self, after: str, limit: int, before: datetime, kept: Kept) -> TaskBatch:
        """Delete, among the next ``limit`` tasks after the TaskId ``after``, those that ended before ``before``.

        Those that other tables refer to stay, and are put into ``kept``.
        """
        with reading(self.engine) as connection:
            rows = connection.execute(_SLICE_OF_TASKS, {"after": after, "limit": limit, "before": before}).all()
        last = rows[-1].task_id if len(rows) == limit else None
        if not (old := [row.task_id for row in rows if row.is_old]):
            return TaskBatch(last)
        return TaskBatch(last, sum(kept.allowed(old, partial(self._delete_tasks, before), 0)))

    def _delete_tasks(self, before: datetime, task_ids: Sequence[str]) -> int:
        with writing(self.engine) as connection:
            return len(connection.execute(_DELETE_TASKS, {"task_ids": task_ids, "before": before}).all())

    def prune_attempts(self, after: int, limit: int, before: datetime, kept: Kept) -> AttemptBatch:
        """Delete about ``limit`` attempts of tasks that are not active and had their last attempt before ``before``.

        All attempts of a task are deleted together, with its watched room: half a history would be wrong. If a task has
        more than ``limit`` attempts, the oldest are deleted first. Rows that other tables refer to stay, with all
        attempts of their task, which is put into ``kept``.
        """
        with reading(self.engine) as connection:
            rows = connection.execute(_SLICE_OF_ATTEMPTS, {"after": after, "limit": limit, "before": before}).all()
            old = [row for row in rows if row.is_old]
            found = list(dict.fromkeys(row.task_id for row in old if row.task_id not in kept))
            over = connection.execute(_OVER, {"task_ids": found, "before": before}).all() if found else []
        end = old[-1].id if len(old) == limit else None
        if not over:
            return AttemptBatch(end)
        chosen = _as_many_as_fit(over, limit)
        batches = kept.allowed(chosen, partial(self._delete_attempts, limit, before), (0, 0))
        pruned, forgotten = (sum(numbers) for numbers in zip(*batches, strict=True))
        is_all = pruned >= sum(row.attempts for row in over if row.task_id not in kept)
        # Locked rows are left to the next pass.
        return AttemptBatch(end if is_all or not pruned else after, pruned, forgotten)

    def _delete_attempts(self, limit: int, before: datetime, task_ids: Sequence[str]) -> tuple[int, int]:
        with writing(self.engine) as connection:
            where = {"task_ids": task_ids, "before": before}
            pruned = len(connection.execute(_DELETE_ATTEMPTS, where | {"limit": limit}).all())
            return pruned, connection.execute(_DELETE_REJOINS, where).rowcount

    def prune_events(self, after: int, limit: int, before: datetime) -> AgedBatch:
        """Delete, among the next ``limit`` events after the id ``after``, those from before ``before``."""
        return self._prune_aged(_EVENTS, after, limit, before)

    def prune_spells(self, after: int, limit: int, before: datetime) -> AgedBatch:
        """Delete, among the next ``limit`` empty spells after the id ``after``, those that ended before ``before``."""
        return self._prune_aged(_SPELLS, after, limit, before)

    def _prune_aged(self, aged: "_Aged", after: int, limit: int, before: datetime) -> AgedBatch:
        """The ids grow with the times, so the walk ends at the first young row."""
        with reading(self.engine) as connection:
            rows = connection.execute(aged.slice, {"after": after, "limit": limit, "before": before}).all()
        old = [row.id for row in rows if row.is_old]
        if not old:
            return AgedBatch(None)
        with writing(self.engine) as connection:
            deleted = connection.execute(aged.delete, {"ids": old, "before": before}).all()
        return AgedBatch(old[-1] if len(old) == limit else None, len(deleted))

    def prune_callbacks(self) -> int:
        """Delete a batch of old signatures, TaskIds and old rooms with their users; return how many rows.

        If people are in a forgotten room, its next callbacks are incomplete, and are no evidence that it is empty.
        """
        with writing(self.engine) as connection:
            pruned = sum(connection.execute(one).rowcount for one in (_DELETE_SIGNATURES, _DELETE_TASK_IDS))
            for row in connection.execute(_OLD_ROOMS).all():
                for table in (room_users, room_sessions):
                    is_its = [table.c[name] == value for name, value in zip(RoomFact.KEY, row, strict=True)]
                    pruned += connection.execute(sa.delete(table).where(*is_its)).rowcount
        return pruned

    def prune_gone(self) -> int:
        """Delete watched rooms to which nobody came back, and daemons that ended long ago; return how many rows.

        Rooms to which people came back belong to the history and are kept.
        """
        with writing(self.engine) as connection:
            return sum(connection.execute(statement).rowcount for statement in (_DELETE_UNRETURNED, _DELETE_DAEMONS))


def _as_many_as_fit(over: Sequence[sa.Row[Any]], limit: int) -> list[str]:
    """Return the first tasks that have no more than ``limit`` attempts together; at least one task."""
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

_ENDED_BEFORE = sa.and_(sa.not_(ACTIVE), tasks.c.ended_at < sa.bindparam("before", type_=tasks.c.ended_at.type))
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
# RETURNING counts the rows: SQLite's driver gives no row count for a statement that begins with WITH.
_DELETE_TASKS = sa.delete(tasks).where(tasks.c.task_id.in_(sa.select(_OLD_TASKS.c.task_id))).returning(tasks.c.task_id)

_RECORDED_BEFORE = attempts.c.recorded_at < sa.bindparam("before", type_=attempts.c.recorded_at.type)
_IS_ACTIVE = sa.exists(sa.select(tasks.c.task_id).where(tasks.c.task_id == attempts.c.task_id, ACTIVE))
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


class _Aged:
    """The statements for a table in which each row has its own age: that of ``column``."""

    def __init__(self, table: sa.Table, column: sa.Column[datetime]) -> None:
        key = table.c.id
        is_old = column < sa.bindparam("before", type_=column.type)
        self.slice = sa.select(key, is_old.label("is_old")).where(key > _AFTER).order_by(key).limit(_LIMIT)
        old = (
            sa.select(key)
            .where(key.in_(sa.bindparam("ids", expanding=True)), is_old)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        self.delete = sa.delete(table).where(key.in_(sa.select(old.c.id))).returning(key)


_EVENTS = _Aged(events, events.c.occurred_at)
_SPELLS = _Aged(empty_spells, empty_spells.c.ended_at)

_DELETE_SIGNATURES = sa.delete(callbacks_seen).where(
    callbacks_seen.c.replay_key.in_(
        sa.select(callbacks_seen.c.replay_key)
        .where(callbacks_seen.c.seen_at < utcnow(-REPLAY_SECONDS))
        .limit(_CALLBACK_ROWS)
    )
)
_DELETE_TASK_IDS = sa.delete(deleted_tasks).where(
    deleted_tasks.c.task_id.in_(
        sa.select(deleted_tasks.c.task_id)
        .where(deleted_tasks.c.deleted_at < utcnow(-DELETED_SECONDS))
        .limit(_CALLBACK_ROWS)
    )
)
_OLD_ROOMS = (
    sa.select(*(room_sessions.c[name] for name in RoomFact.KEY))
    .where(room_sessions.c.seen_at < utcnow(-ROOMS_SECONDS))
    .limit(_CALLBACK_ROWS)
)
_DELETE_UNRETURNED = sa.delete(rejoins).where(
    rejoins.c.rejoined_at.is_(None), rejoins.c.watch_until < utcnow(-KEEP_WATCHES_SECONDS)
)
_DELETE_DAEMONS = sa.delete(daemons).where(daemons.c.seen_at < utcnow(-FORGET_DAEMON_SECONDS))
