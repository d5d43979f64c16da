"""Who is in a room, from callbacks that come late, twice, in any order, or never. Pure.

Nothing is edited in place. Every callback only adds what it knows to one of two kinds of rows:

    RoomFact  one session of a room          created_at min   closed_at max   first_seen_at min
    UserFact  one session of a user in it    login_at   max   logout_at max   role          min

Two values of a column become one by its :class:`Join`, min or max, and a known value replaces an unknown one. Such a
join is commutative, associative and idempotent. So rows that received the same callbacks are equal, whichever daemon
wrote them and in whichever order; a logout that comes before its login waits in its row. The store joins by ``JOINS``
when it inserts a row whose ``KEY`` exists.

Who is present is a function of the rows (ZEGO, "Solution for maintaining room user list via callbacks"):

1. The current session of the room is the newest. Sessions of one room do not overlap, so one time of each is enough
   to order them: ``created_at``, else the earliest login or logout, else ``closed_at``. Users of older sessions do not
   count, even if their logouts were lost. If two sessions begin in the same millisecond, the open one is current, then
   the one with the greater id: arbitrary, but equal for every daemon.
2. Of a user's sessions the one with the newest ``login_at`` counts, whether a login or a logout named it. A logout
   ends only its own session, so the late logout of a replaced connection removes nobody. A session known only by a
   logout without ``login_time`` is over and has no place in the order, so it does not affect the user's other sessions.
   On a tie the user is present if any of the sessions is open.
3. A session is over if it has a logout at or after its login. If the room is closed, all its sessions are over.

Lost callbacks remain a risk. A lost login or logout affects one user, until that user's next login or the end of the
room's session; after a lost room_create some people may be unknown.

``relogin`` is not used: ``login_at`` says the same. Nor is ``user_update_seq``: it shows that a callback is missing but
not which one. All times are of the vendor's clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, assert_never

from watchdog.core.callbacks import (
    Event,
    RoomClosed,
    RoomCreated,
    TaskException,
    Unrecognised,
    UserJoined,
    UserLeft,
    Utterance,
)
from watchdog.core.model import ADMIN_ROLE
from watchdog.core.people import is_person


class Join(StrEnum):
    """How two known values of a column become one."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class RoomFact:
    """What is known of one session of a room; a row of ``zego_room_sessions``.

    ``first_seen_at`` is the earliest login in it, or the logout if its login is unknown.
    """

    KEY: ClassVar[Sequence[str]] = ("app_id", "room_id", "room_session_id")
    JOINS: ClassVar[Mapping[str, Join]] = MappingProxyType(
        {"created_at": Join.MIN, "closed_at": Join.MAX, "first_seen_at": Join.MIN}
    )

    app_id: int
    room_id: str
    room_session_id: str
    created_at: datetime | None = None
    closed_at: datetime | None = None
    first_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UserFact:
    """What is known of one session of a user in one session of a room; a row of ``zego_room_users``."""

    KEY: ClassVar[Sequence[str]] = ("app_id", "room_id", "room_session_id", "user_id", "session_id")
    # The lower of two roles: in doubt the user is a person, not an admin.
    JOINS: ClassVar[Mapping[str, Join]] = MappingProxyType(
        {"login_at": Join.MAX, "logout_at": Join.MAX, "role": Join.MIN}
    )

    app_id: int
    room_id: str
    room_session_id: str
    user_id: str
    session_id: str
    login_at: datetime | None = None
    logout_at: datetime | None = None
    role: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether a login is known and no logout followed it."""
        return self.login_at is not None and (self.logout_at is None or self.logout_at < self.login_at)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one callback says of a session of a room and, if it names one, of a user in it."""

    room: RoomFact
    user: UserFact | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """The ids of the users in the current session of a room, by what they count as.

    An admin counts as an admin even if a bot pattern matches. ``closed`` says whether the session has ended. ``as_of``
    is the newest known time of an event in it. Unless ``complete``, neither the beginning nor the end of the session
    is known: there may be people that no callback named, so an empty list is no evidence of an empty room.
    """

    room_session_id: str
    people: frozenset[str]
    bots: frozenset[str]
    admins: frozenset[str]
    closed: bool
    complete: bool
    as_of: datetime


Fact = TypeVar("Fact", RoomFact, UserFact)


def combined(old: Fact | None, new: Fact) -> Fact:
    """One row from two of the same key; ``old`` None if there is only one."""
    if old is None:
        return new
    changes: dict[str, Any] = {}
    for column, join in new.JOINS.items():
        before, after = getattr(old, column), getattr(new, column)
        if before is None or (after is not None and (after < before if join is Join.MIN else after > before)):
            changes[column] = after
    return replace(old, **changes) if changes else old


def facts_of(event: Event) -> Facts | None:
    """What ``event`` says of presence; None if nothing."""
    match event:
        case RoomCreated():
            return Facts(RoomFact(event.app_id, event.room_id, event.room_session_id, created_at=event.created_at))
        case RoomClosed():
            return Facts(RoomFact(event.app_id, event.room_id, event.room_session_id, closed_at=event.closed_at))
        case UserJoined():
            return _of_user(event, seen_at=event.login_at, logout_at=None)
        case UserLeft():
            # The clocks of the vendor's servers differ; a logout is never before its login.
            login_at = event.login_at or event.logout_at
            return _of_user(event, seen_at=login_at, logout_at=max(login_at, event.logout_at))
        case Utterance() | TaskException() | Unrecognised():
            return None
        case _:
            assert_never(event)


def current_session(rooms: Iterable[RoomFact]) -> RoomFact | None:
    """The newest of one room's sessions (joined rows, in any order); None if no time of any is known."""
    # Ids are decimal numbers without leading zeros: the longer is the greater.
    known = [
        ((moment, room.closed_at is None, len(room.room_session_id), room.room_session_id), room)
        for room in rooms
        if (moment := _some_moment(room)) is not None
    ]
    return max(known, key=itemgetter(0))[1] if known else None


def present(rooms: Iterable[RoomFact], users: Iterable[UserFact], bot_user_ids: Sequence[str]) -> Present | None:
    """Who is in one room, from its joined rows in any order; rows of older sessions may be left out.

    ``bot_user_ids`` are patterns as in ``people``. None means unknown, not empty.
    """
    room = current_session(rooms)
    if room is None:
        return None
    sessions: defaultdict[str, list[UserFact]] = defaultdict(list)
    for user in users:
        if user.room_session_id == room.room_session_id:
            sessions[user.user_id].append(user)
    inside = {} if room.closed_at else {user_id: found for user_id, own in sessions.items() if (found := _open(own))}
    admins = frozenset(u for u, found in inside.items() if all(session.role == ADMIN_ROLE for session in found))
    people = frozenset(
        u for u, found in inside.items() if any(is_person(u, bot_user_ids, role=session.role) for session in found)
    )
    moments = [room.created_at, room.closed_at, room.first_seen_at]
    moments += [moment for own in sessions.values() for user in own for moment in (user.login_at, user.logout_at)]
    return Present(
        room_session_id=room.room_session_id,
        people=people,
        bots=frozenset(inside) - admins - people,
        admins=admins,
        closed=room.closed_at is not None,
        complete=room.created_at is not None or room.closed_at is not None,
        as_of=max(moment for moment in moments if moment is not None),
    )


def _of_user(event: UserJoined | UserLeft, *, seen_at: datetime, logout_at: datetime | None) -> Facts:
    ids = event.app_id, event.room_id, event.room_session_id
    user = *ids, event.user_id, event.session_id
    return Facts(
        RoomFact(*ids, first_seen_at=seen_at),
        UserFact(*user, login_at=event.login_at, logout_at=logout_at, role=event.role),
    )


def _some_moment(room: RoomFact) -> datetime | None:
    return room.created_at or room.first_seen_at or room.closed_at


def _open(sessions: Sequence[UserFact]) -> list[UserFact]:
    """The newest of one user's sessions, if it is open; several only on a tie."""
    newest = max((session.login_at for session in sessions if session.login_at is not None), default=None)
    return [session for session in sessions if session.login_at == newest and session.is_open]
