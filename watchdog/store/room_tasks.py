"""The active tasks of some rooms, within one transaction: locked and read once, changed in memory, written once."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from watchdog.core import hints
from watchdog.core.hints import Hint
from watchdog.core.model import Status, Task
from watchdog.store.many import one_of
from watchdog.store.presence import Room
from watchdog.store.tables import ACTIVE, BRINGS_USER, HINT, as_task, tasks, utcnow


class RoomTasks:
    def __init__(
        self,
        connection: sa.Connection,
        default_app: int | None,
        rooms: Collection[Room],
        task_ids: Collection[str],
        unborn: Collection[str] = (),
    ) -> None:
        """Lock and read the tasks of ``rooms``, and those of ``task_ids`` whatever their room.

        Of tasks that ended just now only the users are kept that they brought along.

        ``default_app`` is the AppId of tasks without one. Those in ``unborn`` are left out until ``appear``.
        """
        self._connection = connection
        self._default_app = default_app
        self._tasks: dict[str, Task] = {}
        self._stored_at: dict[str, datetime | None] = {}
        self._in_room: defaultdict[tuple[int | None, str], list[str]] = defaultdict(list)
        self._bots: defaultdict[tuple[int | None, str], set[str]] = defaultdict(set)
        self._unborn = set(unborn)
        self._steps: defaultdict[str, list[Hint]] = defaultdict(list)
        self._ended: list[Task] = []
        found = connection.execute(
            _WANTED, {"rooms": list({room_id for _, room_id in rooms}), "task_ids": list(task_ids)}
        ).all()
        for row in found:
            task = as_task(row[:-1])
            if task.bot_user_id is not None:
                self._bots[self._app(task), task.room_id].add(task.bot_user_id)
            if task.status is not Status.ACTIVE:
                continue
            self._tasks[task.task_id] = task
            self._stored_at[task.task_id] = task.user_count_at
            self._in_room[self._app(task), task.room_id].append(task.task_id)
        self._now: datetime | None = found[0].now if found else None

    @property
    def rooms(self) -> frozenset[Room]:
        """The rooms that have a task."""
        return frozenset((app_id, room_id) for app_id, room_id in self._in_room if app_id is not None)

    def _app(self, task: Task) -> int | None:
        return self._default_app if task.app_id is None else task.app_id

    def appear(self, task_id: str) -> None:
        """Count a task in from now on."""
        self._unborn.discard(task_id)

    def one(self, app_id: int, task_id: str) -> Task | None:
        """Return a task if it is active and of that AppId."""
        task = self._tasks.get(task_id)
        if task is None or task.status is not Status.ACTIVE or self._app(task) != app_id or task_id in self._unborn:
            return None
        return task

    def of(self, app_id: int, room_id: str, task_id: str | None = None) -> list[Task]:
        """Return the active tasks of a room, and the task ``task_id`` of that AppId whatever its room."""
        wanted = dict.fromkeys(self._in_room.get((app_id, room_id), ()))
        if task_id is not None:
            wanted[task_id] = None
        return [task for one in wanted if (task := self.one(app_id, one)) is not None]

    def bots(self, app_id: int, room_id: str) -> Collection[str]:
        """Return the ids of the users that the room's tasks bring along, or did until just now."""
        return self._bots.get((app_id, room_id), ())

    def hint(self, task: Task, wanted: Iterable[Hint]) -> None:
        """Apply hints to a task that ``of`` returned."""
        for step in wanted:
            self._steps[task.task_id].append(step)
            task = hints.applied(task, step, self._time())
        self._tasks[task.task_id] = task

    def end(self, task: Task, status: Status, at: datetime) -> Task:
        """End a task that ``one`` returned; it did not end later than now."""
        ended = replace(task, status=status, ended_at=min(at, self._time()))
        self._tasks[task.task_id] = ended
        self._ended.append(ended)
        return ended

    def _time(self) -> datetime:
        if self._now is None:
            raise RuntimeError("there is no task")
        return self._now

    def write(self) -> None:
        """Write the hints that change something, and the ends."""
        simple: list[dict[str, Any]] = []
        for task_id, steps in self._steps.items():
            stored = self._stored_at[task_id]
            left = hints.needed(steps)
            if len(left) == 1 and left[0].at is not None and (stored is None or left[0].at > stored):
                simple.append(_values(task_id, left[0]))
                continue
            for step in left:
                # Otherwise the triggers would ignore an older time, and take an equal one for the present.
                self._connection.execute(_FORGET_TIME, {"b_task_id": task_id})
                self._connection.execute(HINT, _values(task_id, step))
        if simple:
            self._connection.execute(HINT, simple)
        if self._ended:
            ended = [
                {"b_task_id": one.task_id, "b_status": one.status, "b_ended_at": one.ended_at} for one in self._ended
            ]
            self._connection.execute(_END, ended)


def _values(task_id: str, step: Hint) -> dict[str, Any]:
    return {
        "b_task_id": task_id,
        "b_user_count": step.user_count,
        "b_user_count_at": step.at,
        "b_user_count_source": step.source,
    }


_WANTED = (
    sa.select(*tasks.c, utcnow().label("now"))
    .where(
        # ACTIVE in each: otherwise SQLite reads all active tasks.
        sa.or_(
            sa.and_(one_of(tasks.c.room_id, "rooms"), ACTIVE),
            sa.and_(one_of(tasks.c.task_id, "task_ids"), ACTIVE),
            sa.and_(one_of(tasks.c.room_id, "rooms"), BRINGS_USER),
        )
    )
    .order_by(tasks.c.task_id)
    .with_for_update()
)
_MINE = sa.update(tasks).where(tasks.c.task_id == sa.bindparam("b_task_id"), ACTIVE)
_FORGET_TIME = _MINE.values(user_count_at=None)
_END = _MINE.values(status=sa.bindparam("b_status"), ended_at=sa.bindparam("b_ended_at"))
