"""What is true in the fake ZEGO: rooms, the users in them, ASR tasks, and a log of everything that happened.

No I/O and no clock: ``now`` (Unix seconds) is an argument everywhere, and it never runs backwards here, whatever the
caller says. A task whose room stays empty for its ``MaxIdleTime`` ends at exactly that second. Such endings lie in a
heap of deadlines and are taken from it before anything later is looked at, so each enters the log at its true time and
in order, and a call costs nothing for the tasks that it does not concern.

Callbacks are not sent. Whoever adds them reads the log: its entries carry the room's and the users' session ids.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ADMIN_ROLE: Final = 4
"""The ``UserRole`` that ``AdminUserCount`` counts: recorders, moderators and the like."""

Event = Mapping[str, Any]
"""One entry of the log, JSON-able; ``seq``, ``at`` and ``event`` are always there."""


def stream(seed: int, name: str) -> random.Random:
    """One of several independent sources of chance that a seed stands for."""
    return random.Random(f"{seed}:{name}")  # noqa: S311  # a repeatable run is the purpose


class Log:
    """The append-only truth. ``seq`` counts from 1 without a gap."""

    def __init__(self) -> None:
        self._entries: list[Event] = []

    def append(self, at: float, event: str, /, **fields: Any) -> None:
        """Add one entry that happened at ``at`` (Unix seconds)."""
        self._entries.append({"seq": len(self._entries) + 1, "at": at, "event": event, **fields})

    def since(self, seq: int) -> list[Event]:
        """Return the entries after number ``seq``; 0 gives all of them."""
        return self._entries[seq:]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in a room; ``number`` orders the logins of that room."""

    user_id: str
    name: str
    role: int
    session_id: str
    number: int


@dataclass(slots=True)
class _Room:
    """A room that exists, which is to say that somebody is in it."""

    session_id: str
    users: dict[str, User] = field(default_factory=dict)
    logins: int = 0


@dataclass(slots=True)
class _Task:
    app_id: int
    room_id: str
    max_idle_seconds: int
    started_at: float
    auto_stop_at: float | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a task runs, or ran, and who is there now."""

    room_id: str | None
    users: tuple[User, ...]

    @property
    def people(self) -> int:
        """The users that the vendor does not call admins."""
        return sum(user.role != ADMIN_ROLE for user in self.users)

    def as_fields(self) -> dict[str, Any]:
        """Return the same for the log."""
        return {
            "room_id": self.room_id,
            "people": self.people,
            "users": [{"user_id": user.user_id, "role": user.role} for user in self.users],
        }


class World:
    """Every room and task of every app; the source of truth that the vendor's API reads and changes.

    ``concurrent_tasks`` is the quota per app, 0 for none. ``seed`` decides every id that is handed out.
    """

    def __init__(self, *, seed: int, concurrent_tasks: int = 10, max_idle_seconds: int = 120) -> None:
        self.log = Log()
        self.concurrent_tasks = concurrent_tasks
        self.max_idle_seconds = max_idle_seconds
        self._now = 0.0
        self._ids = stream(seed, "ids")
        self._rooms: dict[tuple[int, str], _Room] = {}
        self._tasks: dict[str, _Task] = {}
        self._running_in: dict[tuple[int, str], dict[str, _Task]] = {}
        self._running_of: Counter[int] = Counter()
        self._deadlines: list[tuple[float, str]] = []

    def advance(self, now: float) -> float:
        """End every task whose time has come by ``now``; return the time that the world has reached."""
        now = self._now = max(now, self._now)
        while self._deadlines and self._deadlines[0][0] <= now:
            at, task_id = heapq.heappop(self._deadlines)
            task = self._tasks[task_id]
            # Somebody came back meanwhile, or the task was stopped: the deadline in the heap is nobody's any more.
            if not task.ended and task.auto_stop_at == at:
                self._end(task_id, task)
                self.log.append(
                    at,
                    "auto_stopped",
                    task_id=task_id,
                    app_id=task.app_id,
                    room_id=task.room_id,
                    started_at=task.started_at,
                    max_idle_seconds=task.max_idle_seconds,
                )
        return now

    def new_id(self) -> str:
        """Draw a 64-bit id in decimal, as TaskIds, RequestIds and session ids are; above 2^53 on purpose."""
        return str(self._ids.randrange(1 << 60, 1 << 63))

    def join(
        self, app_id: int, room_id: str, user_id: str, now: float, role: int = 1, name: str | None = None
    ) -> Scene:
        """Log a user in. The same user again is a relogin: a new session, the same place in the list."""
        now = self.advance(now)
        key = app_id, room_id
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = _Room(self.new_id())
            for task in self._running_in.get(key, {}).values():
                task.auto_stop_at = None
        previous = room.users.get(user_id)
        if previous is None:
            room.logins += 1
        number = room.logins if previous is None else previous.number
        user = User(user_id, user_id if name is None else name, role, self.new_id(), number)
        room.users[user_id] = user
        return self._log_presence(now, "join", app_id, room_id, room, user, relogin=previous is not None)

    def leave(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Log a user out; the last one out closes the room and starts its tasks' idle time. None: was not there."""
        now = self.advance(now)
        key = app_id, room_id
        room = self._rooms.get(key)
        if room is None or user_id not in room.users:
            return None
        user = room.users.pop(user_id)
        if not room.users:
            del self._rooms[key]
            for task_id, task in self._running_in.get(key, {}).items():
                self._let_idle(task_id, task, since=now)
        return self._log_presence(now, "leave", app_id, room_id, room, user)

    def start(
        self, app_id: int, room_id: str, now: float, *, max_idle_seconds: int | None = None, via: str = "control"
    ) -> str | None:
        """Start a task and return its TaskId, or None where the app has no free slot."""
        now = self.advance(now)
        if self.concurrent_tasks and self._running_of[app_id] >= self.concurrent_tasks:
            return None
        task_id = self.new_id()
        task = _Task(app_id, room_id, self.max_idle_seconds if max_idle_seconds is None else max_idle_seconds, now)
        self._tasks[task_id] = task
        self._running_in.setdefault((app_id, room_id), {})[task_id] = task
        self._running_of[app_id] += 1
        if (app_id, room_id) not in self._rooms:
            self._let_idle(task_id, task, since=now)
        self.log.append(
            now,
            "task_started",
            task_id=task_id,
            app_id=app_id,
            max_idle_seconds=task.max_idle_seconds,
            via=via,
            **self.scene(task_id, now).as_fields(),
        )
        return task_id

    def stop(self, app_id: int, task_id: str, now: float, *, request_id: str | None, via: str = "control") -> bool:
        """Stop a running task; False where this app has no such task, or it has ended."""
        now = self.advance(now)
        task = self._tasks.get(task_id)
        if task is None or task.ended or task.app_id != app_id:
            return False
        self._end(task_id, task)
        self.log.append(
            now,
            "task_stopped",
            task_id=task_id,
            app_id=app_id,
            request_id=request_id,
            via=via,
            **self.scene(task_id, now).as_fields(),
        )
        return True

    def users(self, app_id: int, room_id: str, now: float) -> tuple[User, ...]:
        """Return who is in a room, first login first; nobody in a room that does not exist."""
        self.advance(now)
        room = self._rooms.get((app_id, room_id))
        return tuple(room.users.values()) if room else ()

    def scene(self, task_id: str | None, now: float) -> Scene:
        """Return the room of a task, running or ended, and who is in it at ``now``."""
        self.advance(now)
        task = self._tasks.get(task_id) if task_id is not None else None
        if task is None:
            return Scene(None, ())
        return Scene(task.room_id, self.users(task.app_id, task.room_id, now))

    def state(self, now: float) -> dict[str, Any]:
        """Return everything that exists at ``now``, JSON-able: rooms with somebody in them, and running tasks."""
        now = self.advance(now)
        return {
            "now": now,
            "rooms": [
                {
                    "app_id": app_id,
                    "room_id": room_id,
                    "session_id": room.session_id,
                    "people": Scene(room_id, tuple(room.users.values())).people,
                    "users": [{"user_id": user.user_id, "role": user.role} for user in room.users.values()],
                }
                for (app_id, room_id), room in self._rooms.items()
            ],
            "tasks": [
                {
                    "task_id": task_id,
                    "app_id": app_id,
                    "room_id": room_id,
                    "started_at": task.started_at,
                    "max_idle_seconds": task.max_idle_seconds,
                    "auto_stop_at": task.auto_stop_at,
                }
                for (app_id, room_id), tasks in self._running_in.items()
                for task_id, task in tasks.items()
            ],
        }

    def _let_idle(self, task_id: str, task: _Task, *, since: float) -> None:
        task.auto_stop_at = since + task.max_idle_seconds
        heapq.heappush(self._deadlines, (task.auto_stop_at, task_id))

    def _end(self, task_id: str, task: _Task) -> None:
        task.ended = True
        self._running_of[task.app_id] -= 1
        key = task.app_id, task.room_id
        del self._running_in[key][task_id]
        if not self._running_in[key]:
            del self._running_in[key]

    def _log_presence(
        self, now: float, event: str, app_id: int, room_id: str, room: _Room, user: User, **more: Any
    ) -> Scene:
        scene = Scene(room_id, tuple(room.users.values()))
        self.log.append(
            now,
            event,
            app_id=app_id,
            user_id=user.user_id,
            role=user.role,
            session_id=user.session_id,
            room_session_id=room.session_id,
            **more,
            **scene.as_fields(),
        )
        return scene
