"""All SQL of the callbacks, for both databases; every call is one short transaction, safe to repeat and to interleave.

    receive        facts of presence: merge rows, see who is there, hint the room's tasks
    heard          somebody spoke: a task that nobody registered, a person who is there
    auto_stopped   the vendor ended a task
    prune          forget what no callback can refer to any more

What the rows mean, and how they join whatever the order, is ``presence``'s. Callbacks of one room take turns, so that
no two daemons, each with half of the facts, tell the tasks what neither would if it had seen all.

The vendor signs when a callback was sent, not what it says: whoever captured one can put another body under its
signature. So a signature is remembered in two ways. With the same body it is a retry or a copy: nothing happens. With
another body it is either forged or chance, for nonces are as short as six digits. Then what it says counts only as
evidence that somebody is there, which at worst keeps a task running; a genuine event dropped is one more of those that
get lost anyhow.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core import callbacks as events
from watchdog.core import policy, presence
from watchdog.core.model import Outcome, Reason, Source, Status, Task
from watchdog.core.people import is_person
from watchdog.core.presence import Facts, Join, Present, RoomFact, UserFact
from watchdog.store import statements as sql
from watchdog.store.engine import writing
from watchdog.store.tables import attempts, callbacks_seen, rejoins, room_sessions, room_users, tasks, utcnow
from watchdog.store.tasks import as_task

DETAIL_CALLBACK: Final = "callback"
"""The ``detail`` of a ledger row that tells what a callback reported, not what came of a request."""

REPLAY_SECONDS: Final = 900.0
"""How long a signature is remembered: longer than any is valid, which is twice the window in which it may be sent."""

ROOMS_SECONDS: Final = 24 * 3600.0
_PRUNE_AT_ONCE: Final = 500
_TICK: Final = timedelta(milliseconds=1)  # what SQLite's times resolve


@dataclass(frozen=True, slots=True)
class Received:
    """What came of facts: ``replayed`` ones were known and changed nothing; ``hinted`` counts the tasks told.

    ``suspicious`` says that the signature had come before, over another body.
    """

    replayed: bool = False
    suspicious: bool = False
    occupancy: Present | None = None
    hinted: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of an utterance; ``discovered`` says that its task was unknown and is now watched."""

    replayed: bool = False
    suspicious: bool = False
    discovered: bool = False
    hinted: int = 0


def replay_key(event: events.Event, body: bytes) -> str:
    """Name one use of one signature: equal for a retry or a copy of a callback, which have the same bytes."""
    return f"{events.replay_key(event)}/{hashlib.sha256(body).hexdigest()}"


def turn(app_id: int, room_id: str) -> int:
    """The number of the advisory lock that PostgreSQL serialises this room's callbacks with."""
    return int.from_bytes(hashlib.sha256(f"{app_id}/{room_id}".encode()).digest()[:8], signed=True)


class CallbackStore:
    """The callbacks' part of the database. Every method is one transaction and may be called from any thread.

    ``default_app`` is the AppId of tasks that name none. Raises DatabaseUnavailable where a later call may succeed,
    DatabaseError otherwise.
    """

    def __init__(self, engine: sa.Engine, instance: str, default_app: int | None = None) -> None:
        self.engine = engine
        self.instance = instance
        self.default_app = default_app

    def receive(self, facts: Facts, replay_key: str | None, bot_user_ids: Sequence[str]) -> Received:
        """Take in what one callback says of a room, and tell the room's tasks how many people that makes.

        Nobody in a room whose session we did not see begin or end says nothing. ``replay_key`` is ``replay_key``'s;
        None is for callers that vouch for the facts.
        """
        room = facts.room
        with writing(self.engine) as connection:
            use = _remember(connection, replay_key)
            if use is not None and use.replayed:
                return Received(replayed=True)
            suspicious = use is not None and use.suspicious
            if suspicious and not _tells_of_a_login(facts):
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
            if found is None:  # only of a room without any moment, which is never current
                return Received(suspicious=suspicious)
            count: int | None = len(found.people)
            if count == 0 and (suspicious or not found.complete):
                count = None
            people = [user for user in users if is_person(user.user_id, bot_user_ids, role=user.role)]
            seen = max((moment for user in people if (moment := _last_seen(user, current))), default=None)
            hinted = sum(
                _hint(connection, task, _hints(task, count, found.as_of, seen))
                for task in self._active(connection, room.app_id, room.room_id)
            )
            came = max((user.login_at for user in people if user.login_at is not None), default=None)
            if came is not None:
                self._rejoined(connection, room.app_id, room.room_id, came)
        return Received(suspicious=suspicious, occupancy=found, hinted=hinted)

    def heard(
        self,
        app_id: int,
        room_id: str,
        task_id: str,
        at: datetime,
        *,
        is_person: bool,
        discover: bool,
        replay_key: str | None = None,
    ) -> Heard:
        """Take in that a task recognised somebody at ``at``; with ``discover`` an unknown task is watched from now on.

        A person is evidence for the task and for the others in its room. What has ended stays ended.
        """
        with writing(self.engine) as connection:
            use = _remember(connection, replay_key)
            if use is not None and use.replayed:
                return Heard(replayed=True)
            suspicious = use is not None and use.suspicious
            _take_turns(connection, app_id, room_id)
            discovered = (
                discover
                and not suspicious
                and _insert_new(connection, tasks, task_id=task_id, room_id=room_id, app_id=app_id)
            )
            hinted = 0
            if is_person:
                hinted = sum(
                    _hint(connection, task, _hints(task, max(1, task.user_count or 0), at, at))
                    for task in self._active(connection, app_id, room_id, task_id)
                )
                self._rejoined(connection, app_id, room_id, at)
        return Heard(suspicious=suspicious, discovered=discovered, hinted=hinted)

    def auto_stopped(
        self,
        app_id: int,
        room_id: str,
        task_id: str,
        at: datetime,
        code: int,
        message: str,
        *,
        replay_key: str | None = None,
    ) -> Reason | None:
        """The vendor ended this task at ``at``: end it here, with a row in the ledger; None where it is not active.

        ``evidence_at`` minus ``empty_since`` is then how long the vendor let the room stay empty, as far as we know.
        A request of ours that is under way gets its own answer. ``room_id`` is the vendor's and not needed: the row
        has the room that the task was registered with.
        """
        del room_id
        with writing(self.engine) as connection:
            use = _remember(connection, replay_key)
            if use is not None and (use.replayed or use.suspicious):
                return None
            row = connection.execute(
                sa.select(*tasks.c, utcnow().label("now"))
                .where(tasks.c.task_id == task_id, self._app() == app_id, sql.ACTIVE)
                .with_for_update()
            ).one_or_none()
            if row is None:
                return None
            task, at = as_task(row[:-1]), min(at, row.now)
            reason = policy.reason(task)
            connection.execute(
                sa.update(tasks)
                .where(tasks.c.task_id == task_id, sql.ACTIVE)
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

    def rejoined(self, app_id: int, room_id: str, at: datetime) -> int:
        """Somebody was in this room at ``at``: note it for stops that are still watched; returns how many were."""
        with writing(self.engine) as connection:
            return self._rejoined(connection, app_id, room_id, at)

    def prune(
        self,
        replays_older_than_seconds: float = REPLAY_SECONDS,
        rooms_older_than_seconds: float = ROOMS_SECONDS,
    ) -> int:
        """Delete a batch of what is too old to matter; returns how many rows, so that the caller may come back soon.

        A room that has not been heard of for so long is forgotten with its users. If somebody is in it all the same,
        what comes next is incomplete, and says nothing of emptiness.
        """
        with writing(self.engine) as connection:
            keys = (
                sa.select(callbacks_seen.c.replay_key)
                .where(callbacks_seen.c.seen_at < utcnow(-replays_older_than_seconds))
                .limit(_PRUNE_AT_ONCE)
            )
            pruned = connection.execute(sa.delete(callbacks_seen).where(callbacks_seen.c.replay_key.in_(keys))).rowcount
            old = connection.execute(
                sa.select(*(room_sessions.c[name] for name in RoomFact.KEY))
                .where(room_sessions.c.seen_at < utcnow(-rooms_older_than_seconds))
                .limit(_PRUNE_AT_ONCE)
            ).all()
            for table in (room_users, room_sessions):
                for row in old:
                    is_its = [table.c[name] == value for name, value in row._mapping.items()]  # noqa: SLF001 - public by name
                    pruned += connection.execute(sa.delete(table).where(*is_its)).rowcount
        return pruned

    def _app(self) -> sa.ColumnElement[int]:
        return sa.func.coalesce(tasks.c.app_id, self.default_app)

    def _active(self, connection: sa.Connection, app_id: int, room_id: str, task_id: str | None = None) -> list[Task]:
        """The active tasks of a room, and the one by that name wherever its row says that it is."""
        here: sa.ColumnElement[bool] = tasks.c.room_id == room_id
        if task_id is not None:
            here = sa.or_(here, tasks.c.task_id == task_id)
        rows = connection.execute(
            sa.select(*tasks.c)
            .where(here, self._app() == app_id, sql.ACTIVE)
            .order_by(tasks.c.task_id)
            .with_for_update()
        )
        return [as_task(row) for row in rows]

    def _rejoined(self, connection: sa.Connection, app_id: int, room_id: str, at: datetime) -> int:
        return connection.execute(
            sa.update(rejoins)
            .where(
                rejoins.c.room_id == room_id,
                sa.func.coalesce(rejoins.c.app_id, self.default_app) == app_id,
                rejoins.c.rejoined_at.is_(None),
                rejoins.c.stopped_at < at,
                rejoins.c.watch_until >= at,
            )
            .values(rejoined_at=at)
        ).rowcount


@dataclass(frozen=True, slots=True)
class _Use:
    """Of a signature: the same body came under it before, or another one."""

    replayed: bool
    suspicious: bool


@dataclass(frozen=True, slots=True)
class _Hint:
    """What to write into a task's row."""

    user_count: int
    at: datetime | None
    source: str | None = Source.CALLBACK


def _hints(task: Task, count: int | None, at: datetime, seen: datetime | None) -> Iterator[_Hint]:
    """What a row must be told, in this order, so that its triggers arrive at the truth.

    ``count`` people were there at ``at``, None if that is not known; the last time a person is known to have been there
    is ``seen``. The newest observation stands, whoever made it. But a room in which somebody was seen after it is said
    to have become empty did not become empty then: a login that was late or lost must not make a stop too early.
    """
    stored = task.user_count_at
    newest = stored is None or at >= stored
    if seen is not None and (_interrupts(task, count, seen) or _is_first_sight(task, count, seen, newest=newest)):
        yield _Hint(1, seen - _TICK)
        if not count:
            yield _Hint(0, seen)
        final = _Hint(task.user_count or 0, stored, task.user_count_source)
        if count is not None and newest:
            final = _Hint(count, at)
        if count or final.at != seen:
            yield final
    elif count is not None and newest and (at, count) != (stored, task.user_count):
        yield _Hint(count, at)


def _interrupts(task: Task, count: int | None, seen: datetime) -> bool:
    """Whether somebody was there in the midst of what the row takes for one spell of emptiness."""
    if task.user_count != 0 or task.empty_since is None or task.user_count_at is None or task.empty_since >= seen:
        return False
    # Beyond the last observation there is no spell to interrupt, unless a new observation makes one.
    return count is not None or seen <= task.user_count_at


def _is_first_sight(task: Task, count: int | None, seen: datetime, *, newest: bool) -> bool:
    """Whether the room is empty, and it is news that somebody had been in it since the task began."""
    return count == 0 and newest and task.last_occupied_at is None and seen > task.started_at


def _hint(connection: sa.Connection, task: Task, hints: Iterable[_Hint]) -> int:
    steps = list(hints)
    mine = sa.update(tasks).where(tasks.c.task_id == task.task_id, sql.ACTIVE)
    if steps and steps[0].at is not None and task.user_count_at is not None and steps[0].at <= task.user_count_at:
        # Only so is the past corrected: the triggers pass over what is older, and take the same time for now.
        connection.execute(mine.values(user_count_at=None))
    for step in steps:
        connection.execute(
            mine.values(user_count=step.user_count, user_count_at=step.at, user_count_source=step.source)
        )
    return bool(steps)


def _tells_of_a_login(facts: Facts) -> bool:
    return facts.user is not None and facts.user.is_open


def _last_seen(user: UserFact, room: RoomFact) -> datetime | None:
    """When this user is last known to have been there, in that session: leaving, at its end, or coming."""
    if not user.is_open:
        return user.logout_at
    # The vendor closes a room when the last user is gone.
    return room.closed_at or user.login_at


def _remember(connection: sa.Connection, replay_key: str | None) -> _Use | None:
    """Note the use of a signature, and tell whether it is the first."""
    if replay_key is None:
        return None
    seal, _, _ = replay_key.rpartition("/")
    new_use, new_seal = (_insert_new(connection, callbacks_seen, replay_key=key) for key in (replay_key, seal))
    return _Use(replayed=not new_use, suspicious=new_use and not new_seal)


def _take_turns(connection: sa.Connection, app_id: int, room_id: str) -> None:
    """Wait for whoever else is at this room, until the end of the transaction. On SQLite writers take turns anyway."""
    if connection.dialect.name == "postgresql":
        number = sa.literal(turn(app_id, room_id), sa.BigInteger)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def _insert_new(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row; False where its key is there already."""
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
    """The statement in ``presence``'s docstring; columns in ``fresh`` become now."""
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
