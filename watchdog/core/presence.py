"""Who is in a room, from callbacks that come late, twice, in any order, or never. Pure.

Nothing is edited here. Every callback only adds what it knows to one of two kinds of rows:

    RoomFact  one session of a room          created_at min   closed_at max   first_seen_at min
    UserFact  one session of a user in it    login_at   max   logout_at max   role          min

Each column has one way to join two values: the earlier or the later, and whatever is known wins over what is not. Such
a join does not care for order, grouping or repetition (it is commutative, associative and idempotent), so rows that
took in the same callbacks are equal, whichever daemon wrote them and when; and a logout that came before its login
simply waits in its row. With ``JOINS`` the store writes it as ``INSERT … ON CONFLICT (<KEY>) DO UPDATE SET`` of, for
each column ``c`` of a table ``t``,

    c = coalesce(least(t.c, excluded.c), t.c, excluded.c)    PostgreSQL; greatest for a max
    c = coalesce(min(t.c, excluded.c), t.c, excluded.c)      SQLite, whose min and max are NULL if either value is

Who is there is then a function of the rows, after the vendor's recipe (ZEGO, "Solution for maintaining room user list
via callbacks"):

1. The current session of the room is the newest. Sessions of one room do not overlap, so any moment of each puts two
   of them in order: ``created_at``, else the earliest login or logout seen, else ``closed_at``. Users of older ones
   count for nothing, even if their logouts were lost. (Should two begin in the same millisecond, the one that is still
   open is current, then the one with the greater id. That is arbitrary, but depends on the rows alone, so everybody
   arbitrates alike.)
2. Of a user's sessions the one with the newest ``login_at`` counts, whether a login or a logout told of it. A logout
   ends only its own session, so that of a connection replaced by a newer one takes nobody away. A session of which
   only a logout without ``login_time`` came has no place in the order: it is over, and says nothing of the user's
   others. On a tie the user is there if any of the sessions is open.
3. A session is over once it has a logout no earlier than its login; when the room is closed, all are.

What remains is loss, against which no recipe helps. A lost login or logout distorts one user, until that user's next
login or the end of the room's session; a lost room_create leaves us unsure that we saw everybody come.

The vendor's ``relogin`` and ``user_update_seq`` are not used. The one says nothing that ``login_at`` does not. The
other goes up by one with every change of a room's user list: it could tell that a callback is missing, though never
which, and the order needs no more than the times.

All times are the vendor's clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar, assert_never

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

ADMIN_ROLE: Final = 4
"""The ``user_role`` of recorders, moderators and the like, which DescribeUserNum counts as admins."""


class Join(StrEnum):
    """How two known values of a column become one; what is unknown gives way to what is known."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class RoomFact:
    """What is known of one session of a room; a row of ``zego_room_sessions``.

    ``first_seen_at`` is the earliest login known in it, or the earliest logout where none tells when its login was.
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
    """What is known of one session of a user, within one session of a room; a row of ``zego_room_users``."""

    KEY: ClassVar[Sequence[str]] = ("app_id", "room_id", "room_session_id", "user_id", "session_id")
    # Of two roles the lower: should the vendor ever name both, the user is rather a person than an admin.
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
        """Whether a login is known that no logout has followed."""
        return self.login_at is not None and (self.logout_at is None or self.logout_at < self.login_at)


Fact = TypeVar("Fact", RoomFact, UserFact)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one callback says: always of a session of a room, and of a user in it where it is about one."""

    room: RoomFact
    user: UserFact | None = None


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The user ids in the current session of a room, by how they count; an admin is one even if a bot pattern matches.

    ``room_session_id`` is that session, and ``closed`` whether it has ended. ``as_of`` is the newest time at which
    anything is known to have happened in it. Unless ``complete``, no callback told when the session began or ended: the
    watching may have begun in its midst, so there may be people whom no callback named. Then nobody is not evidence of
    emptiness.
    """

    room_session_id: str
    people: frozenset[str]
    bots: frozenset[str]
    admins: frozenset[str]
    closed: bool
    complete: bool
    as_of: datetime


def facts_of(event: Event) -> Facts | None:
    """What ``event`` says of presence; None where it says nothing."""
    match event:
        case RoomCreated():
            return Facts(RoomFact(event.app_id, event.room_id, event.room_session_id, created_at=event.created_at))
        case RoomClosed():
            return Facts(RoomFact(event.app_id, event.room_id, event.room_session_id, closed_at=event.closed_at))
        case UserJoined():
            return _of_user(event, seen_at=event.login_at, logout_at=None)
        case UserLeft():
            # The vendor's servers may differ by a moment, but nobody leaves before having come.
            login_at = event.login_at or event.logout_at
            return _of_user(event, seen_at=login_at, logout_at=max(login_at, event.logout_at))
        case Utterance() | TaskException() | Unrecognised():
            return None
        case _:
            assert_never(event)


def merge(a: Fact, b: Fact) -> Fact:
    """Join two facts about the same session. Raises ValueError when they are about two."""
    if any(getattr(a, column) != getattr(b, column) for column in a.KEY):
        raise ValueError("facts about different sessions have nothing in common")
    joined: dict[str, Any] = {
        column: _join(join, getattr(a, column), getattr(b, column)) for column, join in a.JOINS.items()
    }
    return replace(a, **joined)


def current_session(rooms: Iterable[RoomFact]) -> RoomFact | None:
    """The newest of one room's sessions (merged rows, in any order); None when nothing is known of any."""
    known = [(moment, room) for room in rooms if (moment := _some_moment(room)) is not None]
    if not known:
        return None
    # Ids are decimal: the longer is the greater.
    return max(
        known,
        key=lambda item: (
            item[0],
            item[1].closed_at is None,
            len(item[1].room_session_id),
            item[1].room_session_id,
        ),
    )[1]


def occupancy(rooms: Iterable[RoomFact], users: Iterable[UserFact], bot_user_ids: Sequence[str]) -> Occupancy | None:
    """Who is in one room, from its merged rows in any order; rows of older sessions may be left out or not.

    ``bot_user_ids`` are shell patterns, matched with case. None means that nothing is known, not that nobody is there.
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
    bots = frozenset(u for u in inside if any(fnmatchcase(u, pattern) for pattern in bot_user_ids)) - admins
    moments = [room.created_at, room.closed_at, room.first_seen_at]
    moments += [moment for own in sessions.values() for user in own for moment in (user.login_at, user.logout_at)]
    return Occupancy(
        room_session_id=room.room_session_id,
        people=frozenset(inside) - admins - bots,
        bots=bots,
        admins=admins,
        closed=room.closed_at is not None,
        complete=room.created_at is not None or room.closed_at is not None,
        as_of=max(moment for moment in moments if moment is not None),
    )


def _of_user(event: UserJoined | UserLeft, *, seen_at: datetime, logout_at: datetime | None) -> Facts:
    return Facts(
        RoomFact(event.app_id, event.room_id, event.room_session_id, first_seen_at=seen_at),
        UserFact(
            event.app_id,
            event.room_id,
            event.room_session_id,
            event.user_id,
            event.session_id,
            login_at=event.login_at,
            logout_at=logout_at,
            role=event.role,
        ),
    )


def _join(join: Join, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    match join:
        case Join.MIN:
            return min(a, b)
        case Join.MAX:
            return max(a, b)
        case _:
            assert_never(join)


def _some_moment(room: RoomFact) -> datetime | None:
    return room.created_at or room.first_seen_at or room.closed_at


def _open(sessions: Sequence[UserFact]) -> list[UserFact]:
    """Of one user's sessions the newest, if it is open; more than one only on a tie."""
    newest = max((session.login_at for session in sessions if session.login_at is not None), default=None)
    return [session for session in sessions if session.login_at == newest and session.is_open]
