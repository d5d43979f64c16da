"""The ASR tasks of the fake ZEGO, indexed by TaskId, room and app. Pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Place = tuple[int, str]
"""An AppId and a RoomId."""


@dataclass(slots=True, eq=False)
class Task:
    """One ASR task; ``auto_stop_at`` is None while its room is occupied, ``rounds`` counts recognised sentences."""

    task_id: str
    app_id: int
    room_id: str
    max_idle_seconds: int
    started_at: float
    auto_stop_at: float | None = None
    ended: bool = False
    rounds: int = 0

    def as_fields(self) -> dict[str, Any]:
        names = ("task_id", "app_id", "room_id", "started_at", "max_idle_seconds", "auto_stop_at")
        return {name: getattr(self, name) for name in names}


class Tasks:
    def __init__(self) -> None:
        self._by_id: dict[str, Task] = {}
        self._in_room: dict[Place, dict[str, Task]] = {}
        self._of_app: Counter[int] = Counter()

    def add(self, task: Task) -> None:
        self._by_id[task.task_id] = task
        self._in_room.setdefault((task.app_id, task.room_id), {})[task.task_id] = task
        self._of_app[task.app_id] += 1

    def end(self, task: Task) -> None:
        task.ended = True
        self._of_app[task.app_id] -= 1
        place = task.app_id, task.room_id
        del self._in_room[place][task.task_id]
        if not self._in_room[place]:
            del self._in_room[place]

    def find(self, task_id: str | None) -> Task | None:
        return None if task_id is None else self._by_id.get(task_id)

    def running(self) -> Iterator[Task]:
        return (task for tasks in self._in_room.values() for task in tasks.values())

    def running_in(self, place: Place) -> list[Task]:
        return list(self._in_room.get(place, {}).values())

    def running_of(self, app_id: int) -> int:
        return self._of_app[app_id]
