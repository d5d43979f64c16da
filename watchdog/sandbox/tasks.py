"""The tasks of the fake ZEGO, indexed by their id, room and app. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from watchdog.sandbox.kinds import FACTS, Facts, Kind

Place = tuple[int, str]
"""An AppId and a RoomId."""


class Fate(Enum):
    """What became of a task, as a Stop request finds it."""

    UNKNOWN = auto()
    RUNNING = auto()
    STOPPING = auto()
    """It is being stopped gracefully."""
    ENDED = auto()


class Ended(Enum):
    """Who ended a task."""

    BY_REQUEST = auto()
    BY_VENDOR = auto()


@dataclass(slots=True, eq=False)
class Task:
    """One task. It is idle since ``idle_since`` (None: it is not), by the rule of its kind.

    ``user_id`` and ``session_id`` are of the user that it brought into its room, ``details`` is what its Start request
    said, for the lists. ``rounds`` counts recognised sentences.
    """

    task_id: str
    app_id: int
    room_id: str
    max_idle_seconds: int
    started_at: float
    kind: Kind = Kind.ASR
    details: Mapping[str, str] = field(default_factory=dict)
    user_id: str | None = None
    session_id: str | None = None
    idle_since: float | None = None
    media_ended: bool = False
    stopping: bool = False
    ended: Ended | None = None
    rounds: int = 0

    @property
    def facts(self) -> Facts:
        return FACTS[self.kind]

    @property
    def place(self) -> Place:
        return self.app_id, self.room_id

    @property
    def auto_stop_at(self) -> float | None:
        """When the vendor ends it if nothing changes, Unix seconds; None: never."""
        ends = [] if self.idle_ends_at is None else [self.idle_ends_at]
        if self.facts.life_seconds is not None:
            ends.append(self.started_at + self.facts.life_seconds)
        return min(ends, default=None)

    @property
    def idle_ends_at(self) -> float | None:
        """When it will have been idle for too long, Unix seconds; None: it is not idle."""
        return None if self.idle_since is None else self.idle_since + self.max_idle_seconds

    @property
    def fate(self) -> Fate:
        if self.ended is not None:
            return Fate.ENDED
        return Fate.STOPPING if self.stopping else Fate.RUNNING

    def as_fields(self) -> dict[str, Any]:
        names = ("task_id", "app_id", "kind", "room_id", "started_at", "max_idle_seconds", "auto_stop_at")
        fields = {name: getattr(self, name) for name in names}
        return fields if self.user_id is None else fields | {"user_id": self.user_id}


class Tasks:
    def __init__(self) -> None:
        self._by_id: dict[str, Task] = {}
        self._in_room: dict[Place, dict[str, Task]] = {}
        self._of_app: Counter[tuple[int, Kind]] = Counter()

    def add(self, task: Task) -> None:
        self._by_id[task.task_id] = task
        self._in_room.setdefault(task.place, {})[task.task_id] = task
        self._of_app[task.app_id, task.kind] += 1

    def end(self, task: Task, ended: Ended) -> None:
        task.ended = ended
        self._of_app[task.app_id, task.kind] -= 1
        del self._in_room[task.place][task.task_id]
        if not self._in_room[task.place]:
            del self._in_room[task.place]

    def find(self, task_id: str | None) -> Task | None:
        return None if task_id is None else self._by_id.get(task_id)

    def of_app(self, app_id: int, kind: Kind) -> list[Task]:
        """Return all tasks of an app and a kind, running or ended, oldest first."""
        return [task for task in self._by_id.values() if task.app_id == app_id and task.kind is kind]

    def running(self) -> Iterator[Task]:
        return (task for tasks in self._in_room.values() for task in tasks.values())

    def running_in(self, place: Place) -> list[Task]:
        return list(self._in_room.get(place, {}).values())

    def running_of(self, app_id: int, kind: Kind) -> int:
        return self._of_app[app_id, kind]
