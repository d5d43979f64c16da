"""Tasks a page at a time, by the last row of the page before: whatever the page, as many rows are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.model import Task
from watchdog.store.engine import reading
from watchdog.store.tables import ACTIVE, NOW, as_task, tasks


class Choice(StrEnum):
    """Which tasks are listed."""

    ACTIVE = "active"
    EMPTY = "empty"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Mark:
    """The last row of a page: its part of the list, the value that orders that part, and its TaskId."""

    part: int
    value: datetime | str
    task_id: str


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks at the database's time ``now``; ``next`` leads to the following page, None after the last one."""

    now: datetime
    tasks: Sequence[Task]
    next: Mark | None


@dataclass(frozen=True, slots=True)
class _Part:
    condition: sa.ColumnElement[bool]
    order: sa.Column[Any]


# Each with an index of its own, so that none sorts a million rows to show fifty.
_AWAKE: Final = _Part(sa.and_(ACTIVE, tasks.c.wake_at.is_not(None)), tasks.c.wake_at)
_EMPTY: Final = _Part(sa.and_(ACTIVE, tasks.c.wake_at.is_(None), tasks.c.empty_since.is_not(None)), tasks.c.empty_since)
_OTHERS: Final = _Part(sa.and_(ACTIVE, tasks.c.wake_at.is_(None), tasks.c.empty_since.is_(None)), tasks.c.room_id)
_ENDED: Final = _Part(sa.not_(ACTIVE), tasks.c.task_id)

_PARTS: Final = {Choice.ACTIVE: (_AWAKE, _EMPTY, _OTHERS), Choice.EMPTY: (_AWAKE, _EMPTY), Choice.ENDED: (_ENDED,)}


def task_page(
    engine: sa.Engine, choice: Choice, *, limit: int, room_id: str | None = None, after: Mark | None = None
) -> TaskPage:
    """Return at most ``limit`` tasks of ``choice`` that follow ``after``.

    Active tasks come next event first: by ``wake_at``, then those with an empty room and no plan, then the others by
    room. Ended tasks come by TaskId, the greatest first: ZEGO's grow with time.
    """
    parts = _PARTS[choice]
    found: list[tuple[int, Task]] = []
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        for number in range(0 if after is None else after.part, len(parts)):
            beyond = after if after is not None and after.part == number else None
            chosen = _statement(parts[number], beyond, room_id)
            rows = connection.execute(chosen.limit(limit + 1 - len(found)))
            found += [(number, as_task(row)) for row in rows]
            if len(found) > limit:
                break
    last = found[limit - 1] if len(found) > limit else None
    following = None if last is None else _mark(parts[last[0]], *last)
    return TaskPage(now, [task for _, task in found[:limit]], following)


def is_mark(choice: Choice, mark: Mark) -> bool:
    """Whether ``mark`` can be the end of a page of ``choice``; it may come from outside."""
    if mark.part not in range(len(_PARTS[choice])):
        return False
    return isinstance(mark.value, str) is isinstance(_PARTS[choice][mark.part].order.type, sa.Text)


def _statement(part: _Part, after: Mark | None, room_id: str | None) -> sa.Select[Any]:
    everything = sa.select(*tasks.c).where(part.condition)
    if room_id is not None:
        everything = everything.where(tasks.c.room_id == room_id)
    if part is _ENDED:
        beyond = everything if after is None else everything.where(tasks.c.task_id < after.task_id)
        # No index leads to the ended tasks of a room. An expression, so that SQLite reads the table from end to end
        # instead of looking up each row in the order of the TaskIds.
        newest = tasks.c.task_id if room_id is None else sa.func.coalesce(tasks.c.task_id, "")
        return beyond.order_by(newest.desc())
    if after is not None:
        # The first condition is for the index.
        is_later = sa.or_(part.order > after.value, tasks.c.task_id > after.task_id)
        everything = everything.where(part.order >= after.value, is_later)
    return everything.order_by(part.order, tasks.c.task_id)


def _mark(part: _Part, number: int, task: Task) -> Mark:
    return Mark(number, getattr(task, part.order.name), task.task_id)
