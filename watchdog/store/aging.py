"""The SQL of the age limit: walks through the active tasks, and wakes those that are to be stopped for their age.

The walk goes by room, along the index of the active tasks' rooms: polling and hints do not move a row there. Only a
task without a plan is woken, and it gets no plan: ``due_at`` stays null. So whatever comes of it, the row is given back
without a time to wake, and a room that becomes empty is planned as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from watchdog.store.engine import reading, writing
from watchdog.store.many import one_of
from watchdog.store.tables import ACTIVE, NOW, tasks, utcnow

Place = tuple[str, str]
"""A place in the walk: the RoomId and the TaskId of the last row that was read."""

START: Final[Place] = ("", "")


@dataclass(frozen=True, slots=True)
class Aged:
    """A task that is older than the limit. ``is_idle``: nobody works on it, no time to wake is set, and it has no hold.

    A room that is known to be empty is planned by the sweep, and its task is not idle.
    """

    task_id: str
    room_id: str
    started_at: datetime
    attempts: int
    is_idle: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """The old tasks among the rows that were read, in the order of the walk; ``end`` is None after the last row."""

    now: datetime
    aged: Sequence[Aged]
    end: Place | None


_AFTER = sa.bindparam("after_room", type_=sa.Text)
_ROWS = (
    sa.select(
        tasks.c.task_id,
        tasks.c.room_id,
        tasks.c.started_at,
        tasks.c.attempts,
        (tasks.c.started_at <= utcnow(sa.bindparam("not_within", type_=sa.Float))).label("is_old"),
        sa.and_(
            tasks.c.wake_at.is_(None),
            tasks.c.empty_since.is_(None),
            tasks.c.claimed_by.is_(None),
            sa.or_(tasks.c.hold_until.is_(None), tasks.c.hold_until <= utcnow()),
        ).label("is_idle"),
    )
    .where(
        ACTIVE,
        tasks.c.room_id >= _AFTER,
        sa.or_(tasks.c.room_id > _AFTER, tasks.c.task_id > sa.bindparam("after_task", type_=sa.Text)),
    )
    .order_by(tasks.c.room_id, tasks.c.task_id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_FREE = (
    sa.select(tasks.c.task_id)
    .where(
        one_of(tasks.c.task_id, "task_ids"),
        ACTIVE,
        tasks.c.wake_at.is_(None),
        tasks.c.empty_since.is_(None),
        tasks.c.claimed_by.is_(None),
    )
    .with_for_update(skip_locked=True)
)
_WAKE = sa.update(tasks).where(one_of(tasks.c.task_id, "task_ids"), ACTIVE).values(wake_at=utcnow())


class AgeStore:
    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def read(self, after: Place, limit: int, max_age_seconds: float) -> Slice:
        """Read the next ``limit`` active tasks, and return those that are older than ``max_age_seconds``."""
        room_id, task_id = after
        where = {"after_room": room_id, "after_task": task_id, "limit": limit, "not_within": -max_age_seconds}
        with reading(self.engine) as connection:
            now = connection.execute(NOW).scalar_one()
            rows = connection.execute(_ROWS, where).all()
        aged = [
            Aged(row.task_id, row.room_id, row.started_at, row.attempts, bool(row.is_idle))
            for row in rows
            if row.is_old
        ]
        return Slice(now, aged, (rows[-1].room_id, rows[-1].task_id) if len(rows) == limit else None)

    def wake(self, task_ids: Sequence[str]) -> int:
        """Let the next sweep look at these tasks, unless they have changed since; return how many it will look at.

        Locked rows are skipped: waiting for them would delay all others.
        """
        if not task_ids:
            return 0
        with writing(self.engine) as connection:
            free = connection.execute(_FREE, {"task_ids": list(task_ids)}).scalars().all()
            return connection.execute(_WAKE, {"task_ids": free}).rowcount if free else 0
