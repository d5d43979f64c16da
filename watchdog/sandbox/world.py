"""The state of the fake ZEGO: rooms, their users, ASR tasks, and a log of everything that happened.

No I/O and no clock: ``now`` (Unix seconds) is always an argument, and time never runs backwards here. A task whose
room stays empty for its ``MaxIdleTime`` ends at exactly that second; a crashed client counts as present for exactly
``crash_timeout_seconds``. These endings are in a heap of deadlines, so the log has them in order at their true time.
"""

import heapq
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from watchdog.sandbox.tasks import Place, Task, Tasks

ADMIN_ROLE: Final = 4
"""The ``UserRole`` that ``AdminUserCount`` counts, such as recorders and moderators."""


class LeaveReason(IntEnum):
    """Why a user left: ``reason`` of room_logout and ``close_reason`` of room_close."""

    NORMAL = 0
    TIMED_OUT = 1


Event = Mapping[str, Any]
"""One log entry, JSON-compatible; it always has ``seq``, ``at`` and ``event``."""


def stream(seed: int, name: str) -> random.Random:
    """Return one of the independent random streams of a seed."""
    return random.Random(f"{seed}:{name}")  # noqa: S311  # repeatable runs are the purpose


class Log:
    """The append-only log. ``seq`` counts from 1 without gaps."""

    def __init__(self) -> None:
        self._entries: list[Event] = []

    def append(self, at: float, event: str, /, **fields: Any) -> None:
        """Add an entry for an event at ``at`` (Unix seconds)."""
        self._entries.append({"seq": len(self._entries) + 1, "at": at, "event": event, **fields})

    def since(self, seq: int) -> list[Event]:
        return self._entries[seq:]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class User:
    """A user in a room, or a ``crashed`` client whose time-out has not passed yet.

    ``number`` orders the logins of the room, ``login_at`` is the start of the session.
    """

    user_id: str
    name: str
    role: int
    session_id: str
    number: int
    login_at: float
    crashed: bool = False

    def as_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"user_id": self.user_id, "role": self.role}
        return fields | {"crashed": True} if self.crashed else fields


@dataclass(frozen=True, slots=True)
class Scene:
    """The room of a task, and its users as ZEGO sees them."""

    room_id: str | None
    users: tuple[User, ...]

    @property
    def people(self) -> int:
        return sum(user.role != ADMIN_ROLE for user in self.users)

    @property
    def really_present(self) -> int:
        """The number of people whose client has not crashed."""
        return sum(user.role != ADMIN_ROLE and not user.crashed for user in self.users)

    def as_fields(self) -> dict[str, Any]:
        """Return the scene for the log; ``really_present`` only if it differs from ``people``."""
        people, really_present = self.people, self.really_present
        users = [user.as_fields() for user in self.users]
        fields: dict[str, Any] = {"room_id": self.room_id, "people": people, "users": users}
        return fields if really_present == people else fields | {"really_present": really_present}


@dataclass(slots=True, eq=False)
class _Room:
    """A room with at least one user; an empty room does not exist for ZEGO.

    ``updates`` is ZEGO's ``user_update_seq``: the number of joins and leaves.
    """

    app_id: int
    room_id: str
    session_id: str
    users: dict[str, User] = field(default_factory=dict)
    logins: int = 0
    updates: int = 0

    @property
    def place(self) -> Place:
        return self.app_id, self.room_id

    @property
    def scene(self) -> Scene:
        return Scene(self.room_id, tuple(self.users.values()))

    def log_in(self, user_id: str, name: str, role: int, session_id: str, now: float) -> User:
        previous = self.users.get(user_id)
        if previous is None:
            self.logins += 1
        number = self.logins if previous is None else previous.number
        user = self.users[user_id] = User(user_id, name, role, session_id, number, now)
        return user


class World:
    """All rooms and tasks of all apps; ZEGO's API reads and changes them.

    ``concurrent_tasks`` is the quota per app, 0 is unlimited. ``seed`` determines all ids. ZEGO counts a crashed client
    as present for ``crash_timeout_seconds`` (documented as about 100 s).
    """

    def __init__(
        self,
        *,
        seed: int,
        concurrent_tasks: int = 10,
        max_idle_seconds: int = 120,
        crash_timeout_seconds: float = 100.0,
    ) -> None:
        self.log = Log()
        self.concurrent_tasks = concurrent_tasks
        self.max_idle_seconds = max_idle_seconds
        self.crash_timeout_seconds = crash_timeout_seconds
        self.now = 0.0
        """The time up to which everything has happened."""
        self._ids = stream(seed, "ids")
        self._rooms: dict[Place, _Room] = {}
        self._tasks = Tasks()
        # Time, a counter that keeps equal times in order, and the task to auto-stop or the session that crashed.
        self._deadlines: list[tuple[float, int, Task | tuple[_Room, User]]] = []
        self._counter = itertools.count()

    def advance(self, now: float) -> float:
        """Apply every deadline up to ``now``; return the time of the world, which is ``now`` or later."""
        now = max(now, self.now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self.now, _, what = heapq.heappop(self._deadlines)
            if not isinstance(what, Task):
                self._time_out(*what)
            # Otherwise the deadline is outdated: the room was joined again, or the task was stopped.
            elif not what.ended and what.auto_stop_at == self.now:
                self._auto_stop(what)
        self.now = now
        return now

    @property
    def next_deadline(self) -> float | None:
        """The next time at which ``advance`` may change something, Unix seconds."""
        return self._deadlines[0][0] if self._deadlines else None

    def new_id(self) -> str:
        """Draw a TaskId, RequestId or session id: 64-bit decimal, above 2^53 on purpose."""
        return str(self._ids.randrange(1 << 60, 1 << 63))

    def join(
        self, app_id: int, room_id: str, user_id: str, now: float, role: int = 1, name: str | None = None
    ) -> Scene:
        """Log a user in. A user who is already there, crashed or not, logs in again: new session, same number."""
        now = self.advance(now)
        room = self._rooms.get((app_id, room_id))
        if room is None:
            room = self._rooms[app_id, room_id] = _Room(app_id, room_id, self.new_id())
            for task in self._tasks.running_in(room.place):
                task.auto_stop_at = None
        relogin = user_id in room.users
        user = room.log_in(user_id, user_id if name is None else name, role, self.new_id(), now)
        return self._log_update("join", room, user, relogin=relogin)

    def leave(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Log a user out; the last one closes the room and starts its tasks' idle time. None: no such user."""
        found = self._present(app_id, room_id, user_id, now)
        return None if found is None else self._remove(*found, LeaveReason.NORMAL)

    def crash(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Let a client die silently; ZEGO notices after ``crash_timeout_seconds``. None: no such user.

        If the user has logged in again by then, only the crashed session ends.
        """
        found = self._present(app_id, room_id, user_id, now)
        if found is None:
            return None
        room, user = found
        room.users[user_id] = replace(user, crashed=True)
        self._set_deadline(self.now + self.crash_timeout_seconds, (room, user))
        return self._log_user("crash", room, user)

    def speak(self, app_id: int, room_id: str, user_id: str, text: str, now: float) -> tuple[str, ...] | None:
        """Let a user say something; return the TaskIds of the tasks in the room. None: no such user."""
        found = self._present(app_id, room_id, user_id, now)
        if found is None:
            return None
        room, user = found
        tasks = self._tasks.running_in(room.place)
        for task in tasks:
            task.rounds += 1
        heard_by = [{"task_id": task.task_id, "round": task.rounds} for task in tasks]
        who = {"app_id": app_id, "room_id": room_id, "user_id": user_id, "role": user.role}
        self.log.append(self.now, "speech", **who, text=text, heard_by=heard_by)
        return tuple(task.task_id for task in tasks)

    def start(
        self, app_id: int, room_id: str, now: float, *, max_idle_seconds: int | None = None, via: str = "control"
    ) -> str | None:
        """Start a task and return its TaskId; None if the app's quota is used up."""
        now = self.advance(now)
        if self.concurrent_tasks and self._tasks.running_of(app_id) >= self.concurrent_tasks:
            return None
        max_idle_seconds = self.max_idle_seconds if max_idle_seconds is None else max_idle_seconds
        task = Task(self.new_id(), app_id, room_id, max_idle_seconds, now)
        self._tasks.add(task)
        if (app_id, room_id) not in self._rooms:
            self._start_idle_time(task)
        fields = {"task_id": task.task_id, "app_id": app_id, "max_idle_seconds": max_idle_seconds, "via": via}
        self.log.append(now, "task_started", **fields, **self.scene(task.task_id, now).as_fields())
        return task.task_id

    def stop(self, app_id: int, task_id: str, now: float, *, request_id: str | None, via: str = "control") -> bool:
        """Stop a running task; False if the app has no such running task."""
        now = self.advance(now)
        task = self._tasks.find(task_id)
        if task is None or task.ended or task.app_id != app_id:
            return False
        self._tasks.end(task)
        fields = {"task_id": task_id, "app_id": app_id, "request_id": request_id, "via": via}
        self.log.append(now, "task_stopped", **fields, **self.scene(task_id, now).as_fields())
        return True

    def users(self, app_id: int, room_id: str, now: float) -> tuple[User, ...]:
        """Return the users of a room as ZEGO sees them, first login first; empty if there is no such room."""
        self.advance(now)
        room = self._rooms.get((app_id, room_id))
        return room.scene.users if room else ()

    def scene(self, task_id: str | None, now: float) -> Scene:
        """Return the room of a task, running or ended, and its users at ``now``."""
        task = self._tasks.find(task_id)
        return Scene(None, ()) if task is None else Scene(task.room_id, self.users(task.app_id, task.room_id, now))

    def state(self, now: float) -> dict[str, Any]:
        """Return all occupied rooms and running tasks at ``now``, JSON-compatible."""
        now = self.advance(now)
        return {
            "now": now,
            "rooms": [
                {"app_id": room.app_id, "session_id": room.session_id, **room.scene.as_fields()}
                for room in self._rooms.values()
            ],
            "tasks": [task.as_fields() for task in self._tasks.running()],
        }

    def _present(self, app_id: int, room_id: str, user_id: str, now: float) -> tuple[_Room, User] | None:
        """Advance, and return the room and a user in it who has not crashed."""
        self.advance(now)
        room = self._rooms.get((app_id, room_id))
        user = room.users.get(user_id) if room else None
        return None if room is None or user is None or user.crashed else (room, user)

    def _set_deadline(self, at: float, what: Task | tuple[_Room, User]) -> None:
        heapq.heappush(self._deadlines, (at, next(self._counter), what))

    def _start_idle_time(self, task: Task) -> None:
        task.auto_stop_at = self.now + task.max_idle_seconds
        self._set_deadline(task.auto_stop_at, task)

    def _remove(self, room: _Room, user: User, reason: LeaveReason) -> Scene:
        del room.users[user.user_id]
        if not room.users:
            del self._rooms[room.place]
            for task in self._tasks.running_in(room.place):
                self._start_idle_time(task)
        return self._log_update("leave", room, user, login_at=user.login_at, reason=reason)

    def _time_out(self, room: _Room, old: User) -> None:
        if self._rooms.get(room.place) is not room:
            return
        user = room.users.get(old.user_id)
        if user is not None and user.session_id == old.session_id:
            self._remove(room, user, LeaveReason.TIMED_OUT)
        else:
            # The user has logged in again since: only the old session ends, and nobody leaves.
            more = {"login_at": old.login_at, "reason": LeaveReason.TIMED_OUT}
            self._log_update("session_timed_out", room, old, **more)

    def _auto_stop(self, task: Task) -> None:
        self._tasks.end(task)
        fields = task.as_fields()
        del fields["auto_stop_at"]
        self.log.append(self.now, "auto_stopped", **fields)

    def _log_update(self, event: str, room: _Room, user: User, **more: Any) -> Scene:
        room.updates += 1
        return self._log_user(event, room, user, user_update_seq=room.updates, **more)

    def _log_user(self, event: str, room: _Room, user: User, **more: Any) -> Scene:
        scene = room.scene
        who = {"app_id": room.app_id, "user_id": user.user_id, "role": user.role, "session_id": user.session_id}
        self.log.append(self.now, event, **who, room_session_id=room.session_id, **more, **scene.as_fields())
        return scene
