"""The rooms of the fake ZEGO and the users in them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.tasks import Place
from watchdog.sandbox.timeline import Log, Timeline

ADMIN_ROLE: Final = 4
"""The ``UserRole`` that ``AdminUserCount`` counts, such as recorders and moderators."""


class LeaveReason(IntEnum):
    """Why a user left: ``reason`` of room_logout and ``close_reason`` of room_close."""

    NORMAL = 0
    TIMED_OUT = 1


@dataclass(frozen=True, slots=True)
class User:
    """A user in a room, or a ``crashed`` client whose time-out has not passed yet.

    ``number`` orders the logins of the room, ``login_at`` is the start of the session. ``brought_by`` is the kind of
    the task that brought the user, None for all others.
    """

    user_id: str
    name: str
    role: int
    session_id: str
    number: int
    login_at: float
    brought_by: Kind | None = None
    crashed: bool = False

    @property
    def is_person(self) -> bool:
        return self.role != ADMIN_ROLE and self.brought_by is None

    def as_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"user_id": self.user_id, "role": self.role}
        if self.brought_by is not None:
            fields["brought_by"] = self.brought_by
        return fields | {"crashed": True} if self.crashed else fields


@dataclass(frozen=True, slots=True)
class Scene:
    """The room of a task, and its users as ZEGO sees them."""

    room_id: str | None
    users: tuple[User, ...]

    @property
    def people(self) -> int:
        return sum(user.is_person for user in self.users)

    @property
    def really_present(self) -> int:
        """The number of people whose client has not crashed."""
        return sum(user.is_person and not user.crashed for user in self.users)

    def as_fields(self) -> dict[str, Any]:
        """Return the scene for the log; ``really_present`` only if it differs from ``people``."""
        people, really_present = self.people, self.really_present
        users = [user.as_fields() for user in self.users]
        fields: dict[str, Any] = {"room_id": self.room_id, "people": people, "users": users}
        return fields if really_present == people else fields | {"really_present": really_present}


@dataclass(slots=True, eq=False)
class Room:
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

    @property
    def has_visitors(self) -> bool:
        """Whether there is a user whom no task brought."""
        return any(user.brought_by is None for user in self.users.values())

    def log_in(
        self, user_id: str, name: str, role: int, session_id: str, now: float, *, brought_by: Kind | None
    ) -> User:
        previous = self.users.get(user_id)
        if previous is None:
            self.logins += 1
        number = self.logins if previous is None else previous.number
        user = self.users[user_id] = User(user_id, name, role, session_id, number, now, brought_by)
        return user


class Rooms:
    """All occupied rooms. They write the log, and call ``changed`` whenever a user has come or gone."""

    def __init__(
        self,
        log: Log,
        timeline: Timeline,
        new_id: Callable[[], str],
        changed: Callable[[Place], None],
        *,
        crash_timeout_seconds: float,
    ) -> None:
        self._log = log
        self._timeline = timeline
        self._new_id = new_id
        self._changed = changed
        self._crash_timeout_seconds = crash_timeout_seconds
        self._rooms: dict[Place, Room] = {}

    def all(self) -> list[Room]:
        return list(self._rooms.values())

    def find(self, place: Place) -> Room | None:
        return self._rooms.get(place)

    def scene(self, place: Place) -> Scene:
        """Return a room and its users, also of a room without users."""
        room = self._rooms.get(place)
        return Scene(place[1], ()) if room is None else room.scene

    def present(self, place: Place, user_id: str) -> tuple[Room, User] | None:
        """Return the room and a user in it who has not crashed."""
        room = self._rooms.get(place)
        user = room.users.get(user_id) if room else None
        return None if room is None or user is None or user.crashed else (room, user)

    def join(
        self, place: Place, user_id: str, role: int, name: str | None = None, *, brought_by: Kind | None = None
    ) -> tuple[User, Scene]:
        """Log a user in. A user who is already there, crashed or not, logs in again: new session, same number."""
        room = self._rooms.get(place)
        if room is None:
            room = self._rooms[place] = Room(*place, self._new_id())
        relogin = user_id in room.users
        name = user_id if name is None else name
        user = room.log_in(user_id, name, role, self._new_id(), self._timeline.now, brought_by=brought_by)
        self._changed(place)
        return user, self._log_update("join", room, user, relogin=relogin)

    def leave(self, place: Place, user_id: str) -> Scene | None:
        """Log a user out; the last one closes the room. None: no such user."""
        found = self.present(place, user_id)
        return None if found is None else self._remove(*found, LeaveReason.NORMAL)

    def end_session(self, place: Place, user_id: str, session_id: str) -> None:
        """Log a user out, unless the session has crashed or another one has taken its place."""
        found = self.present(place, user_id)
        if found is not None and found[1].session_id == session_id:
            self._remove(*found, LeaveReason.NORMAL)

    def crash(self, place: Place, user_id: str) -> Scene | None:
        """Let a client die silently. None: no such user."""
        found = self.present(place, user_id)
        if found is None:
            return None
        room, user = found
        room.users[user_id] = replace(user, crashed=True)
        self._timeline.add(self._timeline.now + self._crash_timeout_seconds, lambda: self._time_out(room, user))
        return self._log_user("crash", room, user)

    def _remove(self, room: Room, user: User, reason: LeaveReason) -> Scene:
        del room.users[user.user_id]
        if not room.users:
            del self._rooms[room.place]
        self._changed(room.place)
        return self._log_update("leave", room, user, login_at=user.login_at, reason=reason)

    def _time_out(self, room: Room, old: User) -> None:
        if self._rooms.get(room.place) is not room:
            return
        user = room.users.get(old.user_id)
        if user is not None and user.session_id == old.session_id:
            self._remove(room, user, LeaveReason.TIMED_OUT)
        else:
            # The user has logged in again since: only the old session ends, and nobody leaves.
            more = {"login_at": old.login_at, "reason": LeaveReason.TIMED_OUT}
            self._log_update("session_timed_out", room, old, **more)

    def _log_update(self, event: str, room: Room, user: User, **more: Any) -> Scene:
        room.updates += 1
        return self._log_user(event, room, user, user_update_seq=room.updates, **more)

    def _log_user(self, event: str, room: Room, user: User, **more: Any) -> Scene:
        scene = room.scene
        who = {"app_id": room.app_id, "user_id": user.user_id, "role": user.role, "session_id": user.session_id}
        more = {"room_session_id": room.session_id, **more}
        self._log.append(self._timeline.now, event, **who, **more, **scene.as_fields())
        return scene
