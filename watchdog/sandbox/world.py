"""What is true in the fake ZEGO: rooms, the users in them, ASR tasks, and a log of everything that happened.

No I/O and no clock: ``now`` (Unix seconds) is an argument everywhere, and it never runs backwards here, whatever the
caller says. A task whose room stays empty for its ``MaxIdleTime`` ends at exactly that second, and a client that
crashed counts as present until exactly ``crash_timeout_seconds`` later. Such endings lie in a heap of deadlines and are
taken from it before anything later is looked at, so each enters the log at its true time and in order, and a call costs
nothing for the tasks and clients that it does not concern.

Callbacks are made from the log (see ``callbacks``): nothing here knows of them.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

ADMIN_ROLE: Final = 4
"""The ``UserRole`` that ``AdminUserCount`` counts: recorders, moderators and the like."""


class LeaveReason(IntEnum):
    """Why somebody left, as the ``reason`` of room_logout and the ``close_reason`` of room_close have it."""

    NORMAL = 0
    TIMED_OUT = 1


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
    """Somebody in a room, or a client that ``crashed`` there and is not missed yet.

    ``number`` orders the logins of that room, ``login_at`` is when the session began.
    """

    user_id: str
    name: str
    role: int
    session_id: str
    number: int
    login_at: float
    crashed: bool = False

    def as_fields(self) -> dict[str, Any]:
        """Return the same for the log."""
        fields: dict[str, Any] = {"user_id": self.user_id, "role": self.role}
        return fields | {"crashed": True} if self.crashed else fields


@dataclass(slots=True)
class _Room:
    """A room that exists, which is to say that somebody is in it."""

    session_id: str
    users: dict[str, User] = field(default_factory=dict)
    logins: int = 0
    updates: int = 0
    """The vendor's ``user_update_seq``: how often somebody has come or gone."""


@dataclass(slots=True)
class _Task:
    task_id: str
    app_id: int
    room_id: str
    max_idle_seconds: int
    started_at: float
    auto_stop_at: float | None = None
    ended: bool = False
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class _Silence:
    """A session whose client has crashed."""

    key: tuple[int, str]
    room_session_id: str
    user: User


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a task runs, or ran, and who is there now, as far as the vendor can tell."""

    room_id: str | None
    users: tuple[User, ...]

    @property
    def people(self) -> int:
        """The users that the vendor does not call admins."""
        return sum(user.role != ADMIN_ROLE for user in self.users)

    @property
    def really_present(self) -> int:
        """The people whose client has not crashed."""
        return sum(user.role != ADMIN_ROLE and not user.crashed for user in self.users)

    def as_fields(self) -> dict[str, Any]:
        """Return the same for the log; ``really_present`` only where it differs from ``people``."""
        people, really_present = self.people, self.really_present
        fields: dict[str, Any] = {
            "room_id": self.room_id,
            "people": people,
            "users": [user.as_fields() for user in self.users],
        }
        return fields if really_present == people else fields | {"really_present": really_present}


class World:
    """Every room and task of every app; the source of truth that the vendor's API reads and changes.

    ``concurrent_tasks`` is the quota per app, 0 for none. ``seed`` decides every id that is handed out. A client that
    crashes is in the room for the vendor until ``crash_timeout_seconds`` later (the vendor: about 100 s).
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
        """The time that the world has reached."""
        self._ids = stream(seed, "ids")
        self._rooms: dict[tuple[int, str], _Room] = {}
        self._tasks: dict[str, _Task] = {}
        self._running_in: dict[tuple[int, str], dict[str, _Task]] = {}
        self._running_of: Counter[int] = Counter()
        self._deadlines: list[tuple[float, int, _Task | _Silence]] = []
        self._deadlines_set = 0

    def advance(self, now: float) -> float:
        """Let everything happen whose time has come by ``now``; return the time that the world has reached."""
        now = max(now, self.now)
        while self._deadlines and self._deadlines[0][0] <= now:
            at, _, what = heapq.heappop(self._deadlines)
            self.now = at
            if isinstance(what, _Silence):
                self._time_out(what)
            # Somebody came back meanwhile, or the task was stopped: the deadline in the heap is nobody's any more.
            elif not what.ended and what.auto_stop_at == at:
                self._auto_stop(what)
        self.now = now
        return now

    @property
    def next_deadline(self) -> float | None:
        """When something may happen by itself, Unix seconds; ``advance`` to that time to have it happen."""
        return self._deadlines[0][0] if self._deadlines else None

    def new_id(self) -> str:
        """Draw a 64-bit id in decimal, as TaskIds, RequestIds and session ids are; above 2^53 on purpose."""
        return str(self._ids.randrange(1 << 60, 1 << 63))

    def join(
        self, app_id: int, room_id: str, user_id: str, now: float, role: int = 1, name: str | None = None
    ) -> Scene:
        """Log a user in. The same user again is a relogin: a new session, the same place in the list.

        So is the return of a client that crashed and is not missed yet.
        """
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
        user = User(user_id, user_id if name is None else name, role, self.new_id(), number, now)
        room.users[user_id] = user
        return self._log_update(now, "join", key, room, user, relogin=previous is not None)

    def leave(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Log a user out; the last one out closes the room and starts its tasks' idle time. None: was not there."""
        now = self.advance(now)
        found = self._find(app_id, room_id, user_id)
        return None if found is None else self._remove((app_id, room_id), *found, LeaveReason.NORMAL)

    def crash(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Let a client die without a word. None: was not there.

        The vendor notices ``crash_timeout_seconds`` later. Where the user has logged in again by then, all that ends is
        the session that crashed.
        """
        now = self.advance(now)
        found = self._find(app_id, room_id, user_id)
        if found is None:
            return None
        room, user = found
        key = app_id, room_id
        room.users[user_id] = replace(user, crashed=True)
        self._set_deadline(now + self.crash_timeout_seconds, _Silence(key, room.session_id, user))
        return self._log_presence(now, "crash", key, room, user)

    def speak(self, app_id: int, room_id: str, user_id: str, text: str, now: float) -> tuple[str, ...] | None:
        """Let somebody say something, and return the TaskIds of the tasks that heard it. None: was not there."""
        now = self.advance(now)
        found = self._find(app_id, room_id, user_id)
        if found is None:
            return None
        heard = tuple(self._running_in.get((app_id, room_id), {}).values())
        for task in heard:
            task.rounds += 1
        self.log.append(
            now,
            "speech",
            app_id=app_id,
            room_id=room_id,
            user_id=user_id,
            role=found[1].role,
            text=text,
            heard_by=[{"task_id": task.task_id, "round": task.rounds} for task in heard],
        )
        return tuple(task.task_id for task in heard)

    def start(
        self, app_id: int, room_id: str, now: float, *, max_idle_seconds: int | None = None, via: str = "control"
    ) -> str | None:
        """Start a task and return its TaskId, or None where the app has no free slot."""
        now = self.advance(now)
        if self.concurrent_tasks and self._running_of[app_id] >= self.concurrent_tasks:
            return None
        task_id = self.new_id()
        max_idle_seconds = self.max_idle_seconds if max_idle_seconds is None else max_idle_seconds
        task = _Task(task_id, app_id, room_id, max_idle_seconds, now)
        self._tasks[task_id] = task
        self._running_in.setdefault((app_id, room_id), {})[task_id] = task
        self._running_of[app_id] += 1
        if (app_id, room_id) not in self._rooms:
            self._let_idle(task, since=now)
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
        self._end(task)
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
        """Return who is in a room for the vendor, first login first; nobody in a room that does not exist."""
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
                    "session_id": room.session_id,
                    **Scene(room_id, tuple(room.users.values())).as_fields(),
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

    def _find(self, app_id: int, room_id: str, user_id: str) -> tuple[_Room, User] | None:
        """Return a room and somebody who is really in it."""
        room = self._rooms.get((app_id, room_id))
        user = room.users.get(user_id) if room else None
        return None if room is None or user is None or user.crashed else (room, user)

    def _set_deadline(self, at: float, what: _Task | _Silence) -> None:
        self._deadlines_set += 1
        heapq.heappush(self._deadlines, (at, self._deadlines_set, what))

    def _let_idle(self, task: _Task, *, since: float) -> None:
        task.auto_stop_at = since + task.max_idle_seconds
        self._set_deadline(task.auto_stop_at, task)

    def _remove(self, key: tuple[int, str], room: _Room, user: User, reason: LeaveReason) -> Scene:
        del room.users[user.user_id]
        if not room.users:
            del self._rooms[key]
            for task in self._running_in.get(key, {}).values():
                self._let_idle(task, since=self.now)
        return self._log_update(self.now, "leave", key, room, user, login_at=user.login_at, reason=reason)

    def _time_out(self, silence: _Silence) -> None:
        room = self._rooms.get(silence.key)
        if room is None or room.session_id != silence.room_session_id:
            return
        user = room.users.get(silence.user.user_id)
        if user is not None and user.session_id == silence.user.session_id:
            self._remove(silence.key, room, user, LeaveReason.TIMED_OUT)
        else:
            # The user is back, or came back and left: what ends now is the old session, and nobody goes.
            old = silence.user
            more = {"login_at": old.login_at, "reason": LeaveReason.TIMED_OUT}
            self._log_update(self.now, "session_timed_out", silence.key, room, old, **more)

    def _auto_stop(self, task: _Task) -> None:
        self._end(task)
        self.log.append(
            self.now,
            "auto_stopped",
            task_id=task.task_id,
            app_id=task.app_id,
            room_id=task.room_id,
            started_at=task.started_at,
            max_idle_seconds=task.max_idle_seconds,
        )

    def _end(self, task: _Task) -> None:
        task.ended = True
        self._running_of[task.app_id] -= 1
        key = task.app_id, task.room_id
        del self._running_in[key][task.task_id]
        if not self._running_in[key]:
            del self._running_in[key]

    def _log_update(self, now: float, event: str, key: tuple[int, str], room: _Room, user: User, **more: Any) -> Scene:
        room.updates += 1
        return self._log_presence(now, event, key, room, user, user_update_seq=room.updates, **more)

    def _log_presence(
        self, now: float, event: str, key: tuple[int, str], room: _Room, user: User, **more: Any
    ) -> Scene:
        app_id, room_id = key
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
