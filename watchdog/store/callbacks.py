"""The SQL of callbacks; every call is one short transaction that may be repeated and interleaved.

    receive        facts of presence: merge rows, find who is there, write hints into the room's tasks
    heard          a person spoke: discover the task if it is unknown, note that the person is there
    auto_stopped   ZEGO ended a task

``core.presence`` defines the rows and how they are merged, in any order. Callbacks of one room are serialised, so no
daemon writes hints from half the facts.

ZEGO signs when a callback was sent, not its content: with one captured callback, another body can be sent under its
signature. Therefore each signature is stored twice, with and without the body, for as long as it can be valid. The same
body is a retry or a copy, and changes nothing. Another body is a forgery or a coincidence, because nonces are as short
as six digits. It then only counts as evidence that a person is there, which at worst keeps a task running. A genuine
event that is dropped this way is one more lost callback.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core import callbacks, policy, presence
from watchdog.core.hints import Hint, hints, last_seen
from watchdog.core.model import Outcome, Reason, Source, Status, Task
from watchdog.core.people import is_person
from watchdog.core.presence import Facts, Join, RoomFact, UserFact
from watchdog.store.engine import writing
from watchdog.store.tables import (
    ACTIVE,
    UtcTime,
    as_task,
    attempts,
    callbacks_seen,
    rejoins,
    room_sessions,
    room_users,
    tasks,
    utcnow,
)

DETAIL_CALLBACK: Final = "callback"
"""The ledger's ``detail`` of what a callback reported, as opposed to the result of a request."""


@dataclass(frozen=True, slots=True)
class Received:
    """The result of a callback. ``replayed``: it was known, and changed nothing.

    ``suspicious``: its signature came before, with another body. ``discovered``: its task was unknown and is watched
    from now on.
    """

    replayed: bool = False
    suspicious: bool = False
    discovered: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """A signature with a body: a retry or a copy of a callback is the same use. ``until``: the signature may be valid.

    ``key`` and ``signature`` are the keys of the two rows.
    """

    key: str
    signature: str
    until: datetime


def use_of(event: callbacks.Event, body: bytes) -> Use:
    signature = callbacks.replay_key(event)
    until = datetime.fromtimestamp(callbacks.remembered_until(event), UTC)
    return Use(f"{signature}/{hashlib.sha256(body).hexdigest()}", signature, until)


def turn(app_id: int, room_id: str) -> int:
    """Return the number of the advisory lock that serialises this room's callbacks on PostgreSQL."""
    return int.from_bytes(hashlib.sha256(f"{app_id}/{room_id}".encode()).digest()[:8], signed=True)


class CallbackStore:
    def __init__(self, engine: sa.Engine, instance: str, default_app: int | None = None) -> None:
        """``default_app`` is the AppId of tasks without one."""
        self.engine = engine
        self.instance = instance
        self.default_app = default_app

    def receive(self, facts: Facts, use: Use | None, bot_user_ids: Sequence[str]) -> Received:
        """Merge what one callback says of a room, and write the resulting number of people into the room's tasks.

        If neither the beginning nor the end of the room's session was seen, an empty room is no evidence. ``use`` None
        skips the check for replays.
        """
        room = facts.room
        with writing(self.engine) as connection:
            replayed, suspicious = _remember(connection, use)
            if replayed:
                return Received(replayed=True)
            if suspicious and not (facts.user is not None and facts.user.is_open):
                return Received(suspicious=True)
            _take_turns(connection, room.app_id, room.room_id)
            _merge(connection, room_sessions, room, "seen_at")
            if facts.user is not None:
                _merge(connection, room_users, facts.user)
            rooms = _rooms(connection, room.app_id, room.room_id)
            current = presence.current_session(rooms)
            if current is None:
                return Received(suspicious=suspicious)
            users = _users(connection, current)
            found = presence.present([current], users, bot_user_ids)
            if found is None:  # only for a room without any time, which is never current
                return Received(suspicious=suspicious)
            count: int | None = len(found.people)
            if count == 0 and (suspicious or not found.complete):
                count = None
            people = [user for user in users if is_person(user.user_id, bot_user_ids, role=user.role)]
            seen = max((moment for user in people if (moment := last_seen(user, current))), default=None)
            for task in self._active(connection, room.app_id, room.room_id):
                _write(connection, task, hints(task, count, found.as_of, seen))
            came = max((user.login_at for user in people if user.login_at is not None), default=None)
            if came is not None:
                self._rejoined(connection, room.app_id, room.room_id, came)
        return Received(suspicious=suspicious)

    def heard(
        self,
        app_id: int,
        room_id: str,
        task_id: str,
        at: datetime,
        *,
        is_person: bool,
        discover: bool,
        use: Use | None = None,
    ) -> Received:
        """Note that a task recognised speech at ``at``; with ``discover`` an unknown task is watched from now on.

        A person is evidence for this task and for the others in its room. An ended task stays ended.
        """
        with writing(self.engine) as connection:
            replayed, suspicious = _remember(connection, use)
            if replayed:
                return Received(replayed=True)
            _take_turns(connection, app_id, room_id)
            discovered = (
                discover
                and not suspicious
                and _insert_new(connection, tasks, task_id=task_id, room_id=room_id, app_id=app_id)
            )
            if is_person:
                for task in self._active(connection, app_id, room_id, task_id):
                    _write(connection, task, hints(task, max(1, task.user_count or 0), at, at))
                self._rejoined(connection, app_id, room_id, at)
        return Received(suspicious=suspicious, discovered=discovered)

    def auto_stopped(
        self,
        app_id: int,
        task_id: str,
        at: datetime,
        code: int,
        message: str,
        *,
        use: Use | None = None,
    ) -> Reason | None:
        """End a task that ZEGO ended at ``at``, with a row in the ledger; None if it is not active.

        ``evidence_at`` minus ``empty_since`` is then how long ZEGO left the empty room alone. A request of ours that is
        in flight gets its own answer.
        """
        with writing(self.engine) as connection:
            if any(_remember(connection, use)):
                return None
            row = connection.execute(
                sa.select(*tasks.c, utcnow().label("now"))
                .where(tasks.c.task_id == task_id, self._app() == app_id, ACTIVE)
                .with_for_update()
            ).one_or_none()
            if row is None:
                return None
            task, at = as_task(row[:-1]), min(at, row.now)
            reason = policy.reason(task)
            connection.execute(
                sa.update(tasks)
                .where(tasks.c.task_id == task_id, ACTIVE)
                .values(status=Status.AUTO_STOPPED, ended_at=at)
            )
            connection.execute(
                sa.insert(attempts).values(
                    task_id=task_id,
                    kind=task.kind,
                    app_id=app_id,
                    room_id=task.room_id,
                    reason=reason,
                    evidence_source=Source.CALLBACK,
                    evidence_at=at,
                    empty_since=task.empty_since,
                    due_at=task.due_at,
                    auto_stop_at=task.auto_stop_at,
                    code=str(code),
                    message=message,
                    outcome=Outcome.AUTO_STOPPED,
                    detail=DETAIL_CALLBACK,
                    instance=self.instance,
                )
            )
        return reason

    def _app(self) -> sa.ColumnElement[int]:
        return sa.func.coalesce(tasks.c.app_id, self.default_app)

    def _active(self, connection: sa.Connection, app_id: int, room_id: str, task_id: str | None = None) -> list[Task]:
        """Return the active tasks of a room, and the task ``task_id`` whatever its room."""
        here: sa.ColumnElement[bool] = tasks.c.room_id == room_id
        if task_id is not None:
            here = sa.or_(here, tasks.c.task_id == task_id)
        rows = connection.execute(
            sa.select(*tasks.c).where(here, self._app() == app_id, ACTIVE).order_by(tasks.c.task_id).with_for_update()
        )
        return [as_task(row) for row in rows]

    def _rejoined(self, connection: sa.Connection, app_id: int, room_id: str, at: datetime) -> None:
        """Note that a person was in this room, for stopped tasks whose rooms are still watched."""
        connection.execute(
            sa.update(rejoins)
            .where(
                rejoins.c.room_id == room_id,
                sa.func.coalesce(rejoins.c.app_id, self.default_app) == app_id,
                rejoins.c.rejoined_at.is_(None),
                rejoins.c.stopped_at < at,
                rejoins.c.watch_until >= at,
            )
            .values(rejoined_at=at)
        )


def _write(connection: sa.Connection, task: Task, wanted: Iterable[Hint]) -> None:
    steps = list(wanted)
    mine = sa.update(tasks).where(tasks.c.task_id == task.task_id, ACTIVE)
    if steps and steps[0].at is not None and task.user_count_at is not None and steps[0].at <= task.user_count_at:
        # Otherwise the triggers would ignore an older time, and take an equal one for the present.
        connection.execute(mine.values(user_count_at=None))
    for step in steps:
        connection.execute(
            mine.values(user_count=step.user_count, user_count_at=step.at, user_count_source=step.source)
        )


def _remember(connection: sa.Connection, use: Use | None) -> tuple[bool, bool]:
    """Store the use of a signature; return whether it came before, with the same body and with another body."""
    if use is None:
        return False, False
    later = sa.func.greatest if connection.dialect.name == "postgresql" else sa.func.max
    seen_at = later(utcnow(), sa.literal(use.until, UtcTime))
    new_use, new_signature = (
        _insert_new(connection, callbacks_seen, replay_key=key, seen_at=seen_at) for key in (use.key, use.signature)
    )
    return not new_use, new_use and not new_signature


def _take_turns(connection: sa.Connection, app_id: int, room_id: str) -> None:
    """Serialise the callbacks of this room until the end of the transaction. SQLite serialises all writers anyway."""
    if connection.dialect.name == "postgresql":
        number = sa.literal(turn(app_id, room_id), sa.BigInteger)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def _insert_new(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row; False if its key exists."""
    key = next(iter(table.primary_key))
    insert = _dialect(connection.dialect.name).insert(table).values(values)
    return connection.execute(insert.on_conflict_do_nothing().returning(key)).first() is not None


def _dialect(name: str) -> Any:
    return postgresql if name == "postgresql" else sqlite


def _merge(connection: sa.Connection, table: sa.Table, fact: RoomFact | UserFact, *fresh: str) -> None:
    columns = (*fact.KEY, *fact.JOINS)
    values = {name: getattr(fact, name) for name in columns}
    connection.execute(
        _upsert(connection.dialect.name, table, tuple(fact.KEY), tuple(fact.JOINS.items()), fresh), values
    )


@cache
def _upsert(
    dialect: str, table: sa.Table, key: tuple[str, ...], joins: tuple[tuple[str, Join], ...], fresh: tuple[str, ...]
) -> Any:
    """Return the statement of ``core.presence``'s docstring; columns in ``fresh`` get the present time."""
    insert = _dialect(dialect).insert(table)
    names = {"postgresql": ("least", "greatest")}.get(dialect, ("min", "max"))
    joined = {}
    for column, join in joins:
        old, new = table.c[column], insert.excluded[column]
        function = getattr(sa.func, names[0] if join is Join.MIN else names[1])
        joined[column] = sa.func.coalesce(function(old, new), old, new)
    return insert.values({column: utcnow() for column in fresh}).on_conflict_do_update(
        index_elements=key, set_=joined | {column: utcnow() for column in fresh}
    )


def _rooms(connection: sa.Connection, app_id: int, room_id: str) -> list[RoomFact]:
    columns = [room_sessions.c[name] for name in (*RoomFact.KEY, *RoomFact.JOINS)]
    query = sa.select(*columns).where(room_sessions.c.app_id == app_id, room_sessions.c.room_id == room_id)
    return [RoomFact(*row) for row in connection.execute(query)]


def _users(connection: sa.Connection, room: RoomFact) -> list[UserFact]:
    columns = [room_users.c[name] for name in (*UserFact.KEY, *UserFact.JOINS)]
    is_in = [room_users.c[name] == getattr(room, name) for name in RoomFact.KEY]
    return [UserFact(*row) for row in connection.execute(sa.select(*columns).where(*is_in))]
