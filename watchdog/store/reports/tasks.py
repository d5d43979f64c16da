"""Tasks as commands read them: lists, one task with its attempts, a search; and the hold that a command sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import Status, Task
from watchdog.store.engine import reading, writing
from watchdog.store.records import DETAIL_ROOM_REFUSED
from watchdog.store.reports.health import daemons_at
from watchdog.store.reports.history import Row, as_row
from watchdog.store.tables import ACTIVE, NOW, as_task, attempts, events, tasks, utcnow


@dataclass(frozen=True, slots=True)
class Listing:
    """Some tasks at the database's time ``now``; ``more``: there are others."""

    now: datetime
    tasks: Sequence[Task]
    more: bool


@dataclass(frozen=True, slots=True)
class Biography:
    """One task's row, None if it was deleted, and all its attempts and events, oldest first."""

    now: datetime
    task: Task | None
    attempts: Sequence[Row]
    events: Sequence[Row]
    watching_since: datetime
    daemon_alive: bool
    guard_tripped: bool

    @property
    def room_refused(self) -> bool:
        """Whether the last thing that happened to the task is that ZEGO refused its RoomId."""
        return bool(self.attempts) and self.attempts[-1]["detail"] == DETAIL_ROOM_REFUSED


def find_tasks(
    engine: sa.Engine,
    *,
    limit: int,
    status: Status | None = Status.ACTIVE,
    room_id: str | None = None,
    due: bool = False,
) -> Listing:
    """Return at most ``limit`` tasks, next event first.

    Active tasks come by ``wake_at``, then those with an empty room and no plan, then the others; ended tasks follow,
    latest first. ``status`` None selects all, ``due`` only those that are due or overdue.
    """
    wanted = limit + 1
    found: list[Task] = []
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        for statement in _in_order(status, due=due):
            chosen = statement if room_id is None else statement.where(tasks.c.room_id == room_id)
            # One index for each statement, so that none sorts a million rows to show fifty.
            found += map(as_task, connection.execute(chosen.limit(wanted - len(found))))
            if len(found) >= wanted:
                break
    return Listing(now, found[:limit], more=len(found) > limit)


def _in_order(status: Status | None, *, due: bool) -> list[sa.Select[Any]]:
    everything = sa.select(*tasks.c)
    awake = everything.where(ACTIVE, tasks.c.wake_at.is_not(None)).order_by(tasks.c.wake_at)
    asleep = everything.where(ACTIVE, tasks.c.wake_at.is_(None))
    if due:
        return [awake.where(tasks.c.due_at <= utcnow())]
    active = [
        awake,
        asleep.where(tasks.c.empty_since.is_not(None)).order_by(tasks.c.empty_since),
        asleep.where(tasks.c.empty_since.is_(None)).order_by(tasks.c.room_id),
    ]
    ended = everything.order_by(tasks.c.ended_at.desc())
    match status:
        case None:
            return [*active, ended.where(sa.not_(ACTIVE))]
        case Status.ACTIVE:
            return active
        case _:
            return [ended.where(tasks.c.status == status)]


def biography(engine: sa.Engine, task_id: str) -> Biography | None:
    """Return one task with all its attempts; None if neither table has the TaskId."""
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        row = connection.execute(sa.select(*tasks.c).where(tasks.c.task_id == task_id)).one_or_none()
        tried = connection.execute(sa.select(attempts).where(attempts.c.task_id == task_id).order_by(attempts.c.id))
        ledger = [as_row(attempt) for attempt in tried]
        written = connection.execute(sa.select(events).where(events.c.task_id == task_id).order_by(events.c.id))
        happened = [as_row(event) for event in written]
        alive = [daemon for daemon in daemons_at(connection, now) if daemon.alive]
    if row is None and not ledger:
        return None
    since = alive[0].watching_since if alive else now
    tripped = any(daemon.has_tripped for daemon in alive)
    return Biography(now, None if row is None else as_task(row), ledger, happened, since, bool(alive), tripped)


def similar(engine: sa.Engine, text: str, limit: int = 3) -> tuple[list[str], bool]:
    """Return TaskIds similar to ``text``, and whether ``text`` is a RoomId and they are its tasks."""
    with reading(engine) as connection:
        of_room = sa.select(tasks.c.task_id).where(tasks.c.room_id == text, ACTIVE).limit(limit)
        if rooms := connection.execute(of_room).scalars().all():
            return list(rooms), True
        for length in (len(text), len(text) - 2, len(text) // 2):
            if length < 4:
                break
            # The first ones behind it in the primary key: LIKE would read the whole table on PostgreSQL.
            behind = tasks.c.task_id >= text[:length]
            following = sa.select(tasks.c.task_id).where(behind).order_by(tasks.c.task_id).limit(limit)
            if near := [one for one in connection.execute(following).scalars() if one.startswith(text[:length])]:
                return near, False
    return [], False


def hold(
    engine: sa.Engine, task_id: str, *, seconds: float | None = None, until: datetime | None = None
) -> tuple[datetime, Task] | None:
    """Hold an active task for ``seconds`` by the database's clock, or ``until`` a time; without either, end the hold.

    The row loses its plan: the daemon makes a new one. None if the task does not exist or has ended.
    """
    end: Any = until if seconds is None else utcnow(seconds)
    with writing(engine) as connection:
        changed = connection.execute(
            sa.update(tasks).where(tasks.c.task_id == task_id, ACTIVE).values(hold_until=end)
        ).rowcount
        row = connection.execute(sa.select(*tasks.c, utcnow().label("now")).where(tasks.c.task_id == task_id)).first()
    return None if row is None or not changed else (row.now, as_task(row[:-1]))
