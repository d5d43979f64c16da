"""The SQL of callbacks: a group of them is one short transaction, which may be repeated and interleaved.

    Presence   facts of presence: merge rows, find who is there, write hints into the room's tasks
    Speech     a person spoke: discover the task if it is unknown, note that the person is there
    AutoStop   ZEGO ended a task

The result is that of the same callbacks one after the other: what they need is locked and read for all of them, they
are applied in memory in their order, and what they changed is written at the end. ``core.presence`` defines the rows
and how they are merged, in any order. Callbacks of one room are serialised, so no daemon writes hints from half the
facts. Every group takes its locks in the same order, so two groups cannot wait for each other.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from watchdog.core import policy, presence
from watchdog.core.hints import hints, last_seen
from watchdog.core.model import Outcome, Reason, Source, Status
from watchdog.core.people import is_person, with_bots
from watchdog.core.presence import Facts
from watchdog.store.discovery import insert_unknown
from watchdog.store.engine import storable, writing
from watchdog.store.many import one_of
from watchdog.store.presence import Room, Rooms
from watchdog.store.replays import Use, remember
from watchdog.store.room_tasks import RoomTasks
from watchdog.store.tables import UtcTime, attempts, rejoins

DETAIL_CALLBACK: Final = "callback"
"""The ledger's ``detail`` of what a callback reported, as opposed to the result of a request."""

ROW_WAIT_SECONDS: Final = 0.25
"""How long a group waits for a row on PostgreSQL: its neighbours wait, too, and the vendor repeats a callback."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What one callback says of a room. ``use`` None skips the check for replays.

    ``bot_user_ids`` are patterns; the users that the room's tasks bring along are no people either.

    ``ahead``: how far ZEGO's clock is ahead of the database's. The facts and the hints keep ZEGO's times, so that they
    can be merged and compared in any order; whether somebody came after a stop is judged by the database's clock.
    """

    facts: Facts
    bot_user_ids: Sequence[str]
    use: Use | None = None
    ahead: timedelta = timedelta(0)

    @property
    def room(self) -> Room:
        return self.facts.room.app_id, self.facts.room.room_id


@dataclass(frozen=True, slots=True)
class Speech:
    """A task recognised speech at ``at``; with ``discover`` an unknown task is watched from now on.

    ``is_person`` says what ``user_id`` counts as by the patterns alone: a task may have brought that user.
    """

    app_id: int
    room_id: str
    task_id: str
    at: datetime
    is_person: bool
    discover: bool
    use: Use | None = None
    user_id: str | None = None

    @property
    def room(self) -> Room:
        return self.app_id, self.room_id


@dataclass(frozen=True, slots=True)
class AutoStop:
    """ZEGO ended a task at ``at``."""

    app_id: int
    task_id: str
    at: datetime
    code: int
    message: str
    use: Use | None = None


Callback = Presence | Speech | AutoStop


@dataclass(frozen=True, slots=True)
class Received:
    """The result of a callback. ``replayed``: it was known, and changed nothing.

    ``suspicious``: its signature came before, with another body. ``discovered``: its task was unknown and is watched
    from now on. ``auto_stopped``: it ended its task, for this reason.
    """

    replayed: bool = False
    suspicious: bool = False
    discovered: bool = False
    auto_stopped: Reason | None = None


def turn(app_id: int, room_id: str) -> int:
    """Return the number of the advisory lock that serialises this room's callbacks on PostgreSQL."""
    return int.from_bytes(hashlib.sha256(f"{app_id}/{room_id}".encode()).digest()[:8], signed=True)


class CallbackStore:
    def __init__(self, engine: sa.Engine, instance: str, default_app: int | None = None) -> None:
        """``default_app`` is the AppId of tasks without one."""
        self.engine = engine
        self.instance = instance
        self.default_app = default_app

    def receive(self, group: Sequence[Callback]) -> list[Received]:
        """Commit a group of callbacks; return the result of each.

        Of a room, if neither the beginning nor the end of its session was seen, no people is no evidence. A person who
        speaks is evidence for that task and for the others in the room. An ended task stays ended. When ZEGO ends a
        task, ``evidence_at`` minus ``empty_since`` is how long it left the empty room alone; a request of ours that is
        in flight gets its own answer.
        """
        with writing(self.engine) as connection:
            seen = remember(connection, [callback.use for callback in group])
            results = [Received(replayed=replayed, suspicious=suspicious) for replayed, suspicious in seen]
            new = [callback for callback, result in zip(group, results, strict=True) if _counts(callback, result)]
            if not new:
                return results
            _take_turns(connection, {callback.room for callback in new if not isinstance(callback, AutoStop)})
            heard = [
                callback
                for callback, result in zip(group, results, strict=True)
                if isinstance(callback, Speech) and callback.discover and result == Received()
            ]
            work = _Group(connection, self, new, _discover(connection, heard))
            results = [
                work.apply(callback, result) if _counts(callback, result) else result
                for callback, result in zip(group, results, strict=True)
            ]
            work.write()
        return results


class _Group:
    """The callbacks of one transaction, applied in memory."""

    def __init__(
        self,
        connection: sa.Connection,
        store: CallbackStore,
        new: Sequence[Callback],
        discovered: Mapping[str, Speech],
    ) -> None:
        """Lock and read what the ``new`` callbacks need."""
        self._connection = connection
        self._store = store
        self._discovered = discovered
        self._returns: list[tuple[Room, datetime]] = []
        self._ledger: list[dict[str, Any]] = []
        told = [callback.facts.room for callback in new if isinstance(callback, Presence)]
        self._tasks = RoomTasks(
            connection,
            store.default_app,
            rooms={callback.room for callback in new if not isinstance(callback, AutoStop)},
            task_ids={callback.task_id for callback in new if not isinstance(callback, Presence)},
            unborn=discovered,
        )
        # Most rooms have no task: of these nothing need be read.
        self._rooms = Rooms(
            connection,
            rooms=self._tasks.rooms & {(room.app_id, room.room_id) for room in told},
            named={(room.app_id, room.room_id, room.room_session_id) for room in told},
        )

    def apply(self, callback: Callback, result: Received) -> Received:
        """Apply one callback; ``result`` says whether it is suspicious."""
        match callback:
            case Presence():
                self._tell(callback, suspicious=result.suspicious)
                return result
            case Speech():
                return self._hear(callback, result)
            case AutoStop():
                return self._end(callback)
            case _:
                assert_never(callback)

    def _tell(self, told: Presence, *, suspicious: bool) -> None:
        """Merge facts, and tell the room's tasks how many people there are, or at least that there was a person."""
        self._rooms.merge(told.facts)
        active = self._tasks.of(*told.room)
        patterns = with_bots(told.bot_user_ids, self._tasks.bots(*told.room))
        if not active:
            self._greet(told, patterns)
            return
        found = self._rooms.current(told.room)
        if found is None:
            return
        current, users = found
        present = presence.present([current], users, patterns)
        if present is None:  # only for a room without any time, which is never current
            return
        count: int | None = len(present.people)
        if count == 0 and (suspicious or not present.complete):
            count = None
        people = [user for user in users if is_person(user.user_id, patterns, role=user.role)]
        seen = max((moment for user in people if (moment := last_seen(user, current))), default=None)
        for task in active:
            self._tasks.hint(task, hints(task, count, present.as_of, seen))
        came = max((user.login_at for user in people if user.login_at is not None), default=None)
        if came is not None:
            self._returns.append((told.room, came - told.ahead))

    def _greet(self, told: Presence, bots: Sequence[str]) -> None:
        """Note that a person came into a room without an active task: its task may have been stopped."""
        user = told.facts.user
        if user is None or user.login_at is None:
            return
        if is_person(user.user_id, bots, role=user.role):
            self._returns.append((told.room, user.login_at - told.ahead))

    def _hear(self, heard: Speech, result: Received) -> Received:
        discovered = self._discovered.get(heard.task_id) is heard
        if discovered:
            self._tasks.appear(heard.task_id)
        active = self._tasks.of(*heard.room, heard.task_id)
        if heard.is_person and is_person(heard.user_id, with_bots((), self._tasks.bots(*heard.room))):
            for task in active:
                self._tasks.hint(task, hints(task, max(1, task.user_count or 0), heard.at, heard.at))
            self._returns.append((heard.room, heard.at))
        return replace(result, discovered=discovered)

    def _end(self, stop: AutoStop) -> Received:
        """End the task, with a row in the ledger, if it is active."""
        task = self._tasks.one(stop.app_id, stop.task_id)
        if task is None:
            return Received()
        reason = policy.reason(task)
        ended = self._tasks.end(task, Status.AUTO_STOPPED, stop.at)
        self._ledger.append(
            {
                "task_id": task.task_id,
                "kind": task.kind,
                "app_id": stop.app_id,
                "room_id": task.room_id,
                "reason": reason,
                "evidence_source": Source.CALLBACK,
                "evidence_at": ended.ended_at,
                "empty_since": task.empty_since,
                "due_at": task.due_at,
                "auto_stop_at": task.auto_stop_at,
                "code": str(stop.code),
                "message": storable(self._connection, stop.message),
                "outcome": Outcome.AUTO_STOPPED,
                "detail": DETAIL_CALLBACK,
                "instance": self._store.instance,
            }
        )
        return Received(auto_stopped=reason)

    def write(self) -> None:
        self._rooms.write()
        # Before the task ends: the trigger that writes the event reads the ledger.
        if self._ledger:
            self._connection.execute(sa.insert(attempts), self._ledger)
        self._tasks.write()
        if self._returns:
            self._note_returns()

    def _note_returns(self) -> None:
        """Note that people were in their rooms, for stopped tasks whose rooms are still watched."""
        room_ids = {room_id for (_, room_id), _ in self._returns}
        found = set(self._connection.execute(_WATCHED, {"rooms": list(room_ids)}).scalars())
        noted = [
            {"b_app_id": app_id, "b_room_id": room_id, "at": at, "default_app": self._store.default_app}
            for (app_id, room_id), at in self._returns
            if room_id in found
        ]
        if noted:
            self._connection.execute(_RETURNED, noted)


_WATCHED = sa.select(rejoins.c.room_id).where(one_of(rejoins.c.room_id, "rooms"), rejoins.c.rejoined_at.is_(None))
_AT = sa.bindparam("at", type_=UtcTime)
_RETURNED = (
    sa.update(rejoins)
    .where(
        rejoins.c.room_id == sa.bindparam("b_room_id"),
        sa.func.coalesce(rejoins.c.app_id, sa.bindparam("default_app", type_=sa.BigInteger))
        == sa.bindparam("b_app_id"),
        rejoins.c.rejoined_at.is_(None),
        rejoins.c.stopped_at < _AT,
        rejoins.c.watch_until >= _AT,
    )
    .values(rejoined_at=_AT)
)


def _counts(callback: Callback, result: Received) -> bool:
    """Whether a callback may change anything, given what its signature says."""
    if result.replayed or not result.suspicious:
        return not result.replayed
    match callback:
        case Presence():
            return callback.facts.user is not None and callback.facts.user.is_open
        case Speech():
            return True
        case AutoStop():
            return False
        case _:
            assert_never(callback)


def _take_turns(connection: sa.Connection, rooms: Iterable[Room]) -> None:
    """Serialise the callbacks of these rooms until the end of the transaction, and wait for rows a short time only.

    SQLite serialises all writers anyway.
    """
    if connection.dialect.name != "postgresql":
        return
    numbers = sorted(turn(*room) for room in rooms)
    if numbers:
        one = sa.func.unnest(sa.cast(numbers, postgresql.ARRAY(sa.BigInteger))).column_valued("number")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(one)))
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(ROW_WAIT_SECONDS * 1000)}")


def _discover(connection: sa.Connection, heard: Iterable[Speech]) -> dict[str, Speech]:
    """Insert the tasks that are unknown; return them, each with the first that was heard of it."""
    first = {speech.task_id: speech for speech in reversed(list(heard))}
    rows = {
        task_id: {"task_id": task_id, "room_id": speech.room_id, "app_id": speech.app_id}
        for task_id, speech in first.items()
    }
    return {task_id: first[task_id] for task_id in insert_unknown(connection, rows)}
