"""The sessions of some rooms and their users, within one transaction: read once, merged in memory, written once.

``core.presence`` defines the rows and how they are merged, in any order.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core import presence
from watchdog.core.presence import Facts, Join, RoomFact, UserFact
from watchdog.store.many import inserting
from watchdog.store.tables import room_sessions, room_users, utcnow

Room = tuple[int, str]
"""AppId and room id."""

Session = tuple[int, str, str]
"""The key of one session of a room."""


class Rooms:
    """The rooms must be locked: what is read here must not change before ``write``.

    What is merged of other rooms than those is written too: the database joins it with what it has.
    """

    def __init__(self, connection: sa.Connection, rooms: Collection[Room], named: Iterable[Session]) -> None:
        """Read ``rooms``; the users of their current sessions, and of the ``named`` ones, are read together."""
        self._connection = connection
        self._known = frozenset(rooms)
        self._sessions = defaultdict[Room, dict[str, RoomFact]](dict)
        self._users: dict[Session, dict[tuple[str, str], UserFact]] = {}
        self._new_sessions: set[Session] = set()
        self._new_users: set[tuple[Session, tuple[str, str]]] = set()
        if not rooms:
            return
        dialect = connection.dialect.name
        found = connection.execute(_of_rooms(dialect), {"rows": json.dumps(list(rooms))})
        for row in found:
            fact = RoomFact(*row)
            self._sessions[fact.app_id, fact.room_id][fact.room_session_id] = fact
        current = (presence.current_session(sessions.values()) for sessions in self._sessions.values())
        named = (session for session in named if session[:2] in self._known)
        self._read({*named, *(_session(room) for room in current if room is not None)})

    def _read(self, sessions: Iterable[Session]) -> None:
        wanted = [session for session in sessions if session not in self._users]
        self._users |= {session: {} for session in wanted}
        wanted = [session for session in wanted if session[:2] in self._known]
        if not wanted:
            return
        found = self._connection.execute(_of_sessions(self._connection.dialect.name), {"rows": json.dumps(wanted)})
        for row in found:
            user = UserFact(*row)
            self._users[_session(user)][user.user_id, user.session_id] = user

    def merge(self, facts: Facts) -> None:
        """Add what one callback says."""
        session = _session(facts.room)
        sessions = self._sessions[session[:2]]
        sessions[session[2]] = presence.combined(sessions.get(session[2]), facts.room)
        self._new_sessions.add(session)
        if (user := facts.user) is not None:
            self._read([session])
            key = user.user_id, user.session_id
            self._users[session][key] = presence.combined(self._users[session].get(key), user)
            self._new_users.add((session, key))

    def current(self, room: Room) -> tuple[RoomFact, list[UserFact]] | None:
        """Return the current session of a room that was read, with its users; None if no time of any is known."""
        found = presence.current_session(self._sessions[room].values())
        if found is None:
            return None
        self._read([_session(found)])
        return found, list(self._users[_session(found)].values())

    def write(self) -> None:
        """Write what was added; the sessions that were named have been heard of just now."""
        # In the order of their keys, as everybody else who writes several.
        sessions = [self._sessions[session[:2]][session[2]] for session in sorted(self._new_sessions)]
        self._upsert(room_sessions, RoomFact, sessions, "seen_at")
        self._upsert(room_users, UserFact, [self._users[session][key] for session, key in sorted(self._new_users)])

    def _upsert(self, table: sa.Table, kind: type[RoomFact | UserFact], facts: Iterable[Any], *fresh: str) -> None:
        columns = (*kind.KEY, *kind.JOINS)
        rows = [{name: getattr(fact, name) for name in columns} for fact in facts]
        if rows:
            dialect = self._connection.dialect.name
            statement = _upsert(dialect, table, tuple(kind.KEY), tuple(kind.JOINS.items()), fresh)
            self._connection.execute(statement, {"rows": rows})


def _session(fact: RoomFact | UserFact) -> Session:
    return fact.app_id, fact.room_id, fact.room_session_id


@cache
def _of_rooms(dialect: str) -> sa.Select[Any]:
    return _listed(dialect, room_sessions, RoomFact, ("app_id", "room_id"))


@cache
def _of_sessions(dialect: str) -> sa.Select[Any]:
    return _listed(dialect, room_users, UserFact, RoomFact.KEY)


def _listed(dialect: str, table: sa.Table, kind: type[RoomFact | UserFact], by: Iterable[str]) -> sa.Select[Any]:
    """Select the rows whose columns ``by`` are in the list of lists ``rows``, one JSON text."""
    rows = sa.bindparam("rows", type_=sa.Text)
    part: list[sa.ColumnElement[Any]]
    if dialect == "postgresql":
        given = sa.func.json_array_elements(sa.cast(rows, postgresql.JSON)).table_valued("value").alias("given")
        part = [sa.cast(given.c.value.op("->>")(number), table.c[name].type) for number, name in enumerate(by)]
    else:
        given = sa.func.json_each(rows).table_valued("value").alias("given")
        part = [sa.func.json_extract(given.c.value, f"$[{number}]") for number, name in enumerate(by)]
    is_listed = sa.and_(*(table.c[name] == value for name, value in zip(by, part, strict=True)))
    return sa.select(*(table.c[name] for name in (*kind.KEY, *kind.JOINS))).select_from(given.join(table, is_listed))


@cache
def _upsert(
    dialect: str, table: sa.Table, key: tuple[str, ...], joins: tuple[tuple[str, Join], ...], fresh: tuple[str, ...]
) -> Any:
    """Return the statement of ``core.presence``'s docstring; columns in ``fresh`` get the present time."""
    insert: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    names = {"postgresql": ("least", "greatest")}.get(dialect, ("min", "max"))
    joined = {}
    for column, join in joins:
        old, new = table.c[column], insert.excluded[column]
        function = getattr(sa.func, names[0] if join is Join.MIN else names[1])
        joined[column] = sa.func.coalesce(function(old, new), old, new)
    times = {column: utcnow() for column in fresh}
    filled = inserting(insert, (*key, *(column for column, _ in joins)), **times)
    return filled.on_conflict_do_update(index_elements=key, set_=joined | times)
