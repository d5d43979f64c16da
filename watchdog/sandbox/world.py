"""The state of the fake ZEGO: rooms, their users, tasks, and a log of everything that happened.

No I/O and no clock: ``now`` (Unix seconds) is always an argument, and time never runs backwards here. A task that
stays idle (``kinds.Idle``) for its ``MaxIdleTime`` ends at exactly that second; a crashed client counts as present for
exactly ``crash_timeout_seconds``. These endings are deadlines, so the log has them in order at their true time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from watchdog.sandbox.endings import Endings
from watchdog.sandbox.kinds import FACTS, Kind
from watchdog.sandbox.rooms import ADMIN_ROLE, LeaveReason, Rooms, Scene, User
from watchdog.sandbox.tasks import Fate, Place, Task, Tasks
from watchdog.sandbox.timeline import Event, Log, Timeline, stream

__all__ = ["ADMIN_ROLE", "Event", "LeaveReason", "Log", "Scene", "User", "World", "stream"]


class World:
    """All rooms and tasks of all apps; ZEGO's API reads and changes them.

    ``concurrent_tasks`` is the quota of ASR tasks per app, 0 is unlimited; ``account_limits`` replaces those of other
    kinds. ``max_idle_seconds`` is the default of ASR tasks. ``seed`` determines all ids. ZEGO counts a crashed client
    as present for ``crash_timeout_seconds`` (documented as about 100 s).
    """

    def __init__(
        self,
        *,
        seed: int,
        concurrent_tasks: int = 10,
        account_limits: Mapping[Kind, int] = MappingProxyType({}),
        max_idle_seconds: int = 120,
        crash_timeout_seconds: float = 100.0,
    ) -> None:
        self.log = Log()
        documented = {kind: facts.account_limit for kind, facts in FACTS.items()}
        self.account_limits: Mapping[Kind, int] = {**documented, Kind.ASR: concurrent_tasks, **account_limits}
        self.max_idle_seconds = max_idle_seconds
        self._ids = stream(seed, "ids")
        self._timeline = Timeline()
        self._tasks = Tasks()
        self._rooms = Rooms(
            self.log,
            self._timeline,
            self.new_id,
            self._changed,
            crash_timeout_seconds=crash_timeout_seconds,
        )
        self._endings = Endings(self.log, self._timeline, self._tasks, self._rooms)

    @property
    def now(self) -> float:
        """The time up to which everything has happened."""
        return self._timeline.now

    @property
    def next_deadline(self) -> float | None:
        """The next time at which ``advance`` may change something, Unix seconds."""
        return self._timeline.next_deadline

    def advance(self, now: float) -> float:
        """Apply every deadline up to ``now``; return the time of the world, which is ``now`` or later."""
        return self._timeline.advance(now)

    def new_id(self) -> str:
        """Draw a TaskId, RequestId or session id: 64-bit decimal, above 2^53 on purpose."""
        return str(self._ids.randrange(1 << 60, 1 << 63))

    def join(
        self, app_id: int, room_id: str, user_id: str, now: float, role: int = 1, name: str | None = None
    ) -> Scene:
        """Log a user in. A user who is already there, crashed or not, logs in again: new session, same number."""
        self.advance(now)
        return self._rooms.join((app_id, room_id), user_id, role, name)[1]

    def leave(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Log a user out; the last one closes the room and starts its tasks' idle time. None: no such user."""
        self.advance(now)
        return self._rooms.leave((app_id, room_id), user_id)

    def crash(self, app_id: int, room_id: str, user_id: str, now: float) -> Scene | None:
        """Let a client die silently; ZEGO notices after ``crash_timeout_seconds``. None: no such user.

        If the user has logged in again by then, only the crashed session ends.
        """
        self.advance(now)
        return self._rooms.crash((app_id, room_id), user_id)

    def speak(self, app_id: int, room_id: str, user_id: str, text: str, now: float) -> tuple[str, ...] | None:
        """Let a user say something; return the TaskIds of the ASR tasks in the room. None: no such user."""
        self.advance(now)
        found = self._rooms.present((app_id, room_id), user_id)
        if found is None:
            return None
        room, user = found
        tasks = [task for task in self._tasks.running_in(room.place) if task.kind is Kind.ASR]
        for task in tasks:
            task.rounds += 1
        heard_by = [{"task_id": task.task_id, "round": task.rounds} for task in tasks]
        who = {"app_id": app_id, "room_id": room_id, "user_id": user_id, "role": user.role}
        self.log.append(self.now, "speech", **who, text=text, heard_by=heard_by)
        return tuple(task.task_id for task in tasks)

    def start(
        self,
        app_id: int,
        room_id: str,
        now: float,
        *,
        kind: Kind = Kind.ASR,
        user_id: str | None = None,
        max_idle_seconds: int | None = None,
        details: Mapping[str, str] = MappingProxyType({}),
        via: str = "control",
    ) -> str | None:
        """Start a task and return its id; None if the app's quota is used up.

        A task of a kind that brings a user joins its room as ``user_id``, by default a name with its id.
        """
        now = self.advance(now)
        limit, facts = self.account_limits[kind], FACTS[kind]
        if limit and self._tasks.running_of(app_id, kind) >= limit:
            return None
        if max_idle_seconds is None:
            max_idle_seconds = self.max_idle_seconds if kind is Kind.ASR else facts.max_idle_seconds
        task = Task(self.new_id(), app_id, room_id, max_idle_seconds, now, kind, details)
        self._tasks.add(task)
        self._endings.begin(task)
        fields = {"task_id": task.task_id, "app_id": app_id, "kind": kind, "max_idle_seconds": max_idle_seconds}
        self.log.append(now, "task_started", **fields, via=via, **self.scene(task.task_id, now).as_fields())
        if facts.user_prefix is not None:
            task.user_id = user_id or f"{facts.user_prefix}-{task.task_id}"
            task.session_id = self._rooms.join(task.place, task.user_id, 1, brought_by=kind)[0].session_id
        return task.task_id

    def stop(
        self,
        app_id: int,
        task_id: str,
        now: float,
        *,
        request_id: str | None,
        via: str = "control",
        graceful_seconds: float = 0.0,
    ) -> bool:
        """Stop a running task; False if the app has no such running task.

        A graceful stop takes ``graceful_seconds``, in which the task runs on.
        """
        self.advance(now)
        task = self._tasks.find(task_id)
        if task is None or task.app_id != app_id or task.fate is not Fate.RUNNING:
            return False
        self._endings.stop(task, request_id=request_id, via=via, graceful_seconds=graceful_seconds)
        return True

    def end_media(self, app_id: int, task_id: str, now: float) -> bool:
        """Let the media of a player end; False if the app has no such running player."""
        self.advance(now)
        task = self._tasks.find(task_id)
        if task is None or (task.app_id, task.kind, task.fate) != (app_id, Kind.PLAYER, Fate.RUNNING):
            return False
        task.media_ended = True
        self._endings.consider(task)
        self.log.append(self.now, "media_ended", task_id=task_id, app_id=app_id, room_id=task.room_id)
        return True

    def fate(self, app_id: int, kind: Kind, task_id: str, now: float) -> Fate:
        """Return what became of a task; one of another app or kind is unknown."""
        self.advance(now)
        task = self._tasks.find(task_id)
        return Fate.UNKNOWN if task is None or (task.app_id, task.kind) != (app_id, kind) else task.fate

    def tasks(self, app_id: int, kind: Kind, now: float) -> list[Task]:
        """Return all tasks of an app and a kind, running or ended, oldest first."""
        self.advance(now)
        return self._tasks.of_app(app_id, kind)

    def users(self, app_id: int, room_id: str, now: float) -> tuple[User, ...]:
        """Return the users of a room as ZEGO sees them, first login first; empty if there is no such room."""
        self.advance(now)
        return self._rooms.scene((app_id, room_id)).users

    def scene(self, task_id: str | None, now: float) -> Scene:
        """Return the room of a task, running or ended, and its users at ``now``."""
        self.advance(now)
        task = self._tasks.find(task_id)
        return Scene(None, ()) if task is None else self._rooms.scene(task.place)

    def state(self, now: float) -> dict[str, Any]:
        """Return all occupied rooms and running tasks at ``now``, JSON-compatible."""
        self.advance(now)
        rooms = [
            {"app_id": room.app_id, "session_id": room.session_id, **room.scene.as_fields()}
            for room in self._rooms.all()
        ]
        return {"now": self.now, "rooms": rooms, "tasks": [task.as_fields() for task in self._tasks.running()]}

    def _changed(self, place: Place) -> None:
        self._endings.consider_all(place)
