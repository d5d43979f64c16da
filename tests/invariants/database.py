"""One database for many examples, in virtual time, with faults on request; it checks every change of the tables.

``Database.call`` is one process's call of the store. After each call the tables are read through the application's
connection and checked for what must never happen (design §11):

    I1  a request allowed for a row without an empty room, on hold, or ended
    I4  two attempts of one task in flight
    I5  a final status or outcome that changes, a ledger row that disappears
    I6  a task that changes its owner, or ends, through a process that does not hold it
    I10  an end, a return, a discovery or a stop in observe mode without its one event; an event of anything else
    I11  an empty spell that has ended without its one row, or with a wrong ending; a row for one that goes on
"""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row

from simulation.virtual import SqliteTime, VirtualClock
from tests.invariants.timeline import Timeline
from tests.support.time_travel import Application, PostgresqlTime
from watchdog.store import schema
from watchdog.store.engine import open_engine
from watchdog.store.tables import metadata

T = TypeVar("T")
Row = Mapping[str, Any]

ACTIVE = "active"
SENT = "sent"
_EVENT_OF = {status: f"task.{status}" for status in ("stopped", "gone", "auto_stopped", "failed")}
_ENDINGS = {"stopped", "auto_stopped", "released"}


class Violation(AssertionError):
    """An invariant does not hold."""


class Trouble(StrEnum):
    """What can go wrong with a statement or a transaction."""

    BUSY = "busy"
    FULL = "full"
    BROKEN = "broken"
    """A failure that is not said to pass."""
    COMMIT_REFUSED = "commit_refused"
    COMMIT_UNKNOWN = "commit_unknown"
    """Committed, but reported as failed."""


_AT_COMMIT = {Trouble.COMMIT_REFUSED, Trouble.COMMIT_UNKNOWN}
_SQLITE_CODES = {Trouble.BUSY: sqlite3.SQLITE_BUSY, Trouble.FULL: sqlite3.SQLITE_FULL}


@dataclass(slots=True)
class Fault:
    """Trouble for the ``countdown``-th statement or commit from now on, of one process or of any."""

    trouble: Trouble
    countdown: int
    instance: str | None = None


class Driver:
    """What differs between the databases: connecting, setting the time, detecting writes."""

    name: str

    def __init__(self) -> None:
        # The connections keep this clock; each example gives it another timeline.
        self.timeline = Timeline()
        self.offset_seconds = 0.0
        self.clock = VirtualClock(lambda: self.timeline.now + self.offset_seconds)

    def tell_time(self) -> None:
        """Called before every statement."""

    def was_written(self) -> bool:
        """Whether a process other than the application may have written since the last call."""
        return True

    def error(self, trouble: Trouble) -> Exception:
        raise NotImplementedError

    engine: sa.Engine
    application: Application


class SqliteDriver(Driver):
    """A SQLite file with the schema."""

    name = "sqlite"

    def __init__(self, template: Path, file: Path) -> None:
        super().__init__()
        shutil.copy(template, file)
        self._time = SqliteTime(self.clock)
        self.engine = open_engine(f"sqlite:///{file}")
        sa.event.listen(self.engine, "connect", lambda connection, _record: self._prepare(connection))
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._prepare(self._connection)
        self.application = Application(self._connection, "?")
        self._version = 0

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # No power cut is tested here.
        connection.execute("PRAGMA synchronous = OFF")
        self._time.govern(connection)

    def was_written(self) -> bool:
        before, self._version = self._version, self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._version != before

    def error(self, trouble: Trouble) -> Exception:
        if trouble is Trouble.BROKEN:
            return sqlite3.DatabaseError("database disk image is malformed")
        error = sqlite3.OperationalError(f"told to fail: {trouble}")
        error.sqlite_errorcode = _SQLITE_CODES.get(trouble, sqlite3.SQLITE_BUSY)
        return error

    def close(self) -> None:
        self.application.close()
        self.engine.dispose()
        self._time.close()


class PostgresqlDriver(Driver):
    """A PostgreSQL database with the schema, in virtual time (``PostgresqlTime.install``)."""

    name = "postgresql"

    def __init__(self, url: str) -> None:
        super().__init__()
        self._time = PostgresqlTime(url)
        self._told: datetime | None = None
        self.engine = open_engine(url)
        self.application = Application(psycopg.connect(url, autocommit=True, row_factory=dict_row), "%s")

    def tell_time(self) -> None:
        if (now := self.clock.now) != self._told:
            self._time.set(now)
            self._told = now

    def error(self, trouble: Trouble) -> Exception:
        if trouble is Trouble.BROKEN:
            return psycopg.DataError("told to fail")
        return psycopg.OperationalError(f"told to fail: {trouble}")

    def close(self) -> None:
        self.application.close()
        self.engine.dispose()
        self._time.close()


@contextmanager
def sqlite_driver(folder: Path) -> Iterator[SqliteDriver]:
    """A driver on a fresh SQLite file in ``folder``."""
    template = folder / "template.db"
    engine = open_engine(f"sqlite:///{template}", must_exist=False)
    schema.migrate(engine)
    engine.dispose()
    with closing(SqliteDriver(template, folder / "invariants.db")) as driver:
        yield driver


def moment(value: Any) -> datetime | None:
    """A stored time, as either driver gives it."""
    if value is None or isinstance(value, datetime):
        return value
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


@dataclass(slots=True)
class Record:
    """The tables at the last check."""

    tasks: dict[str, Row] = field(default_factory=dict)
    attempts: dict[int, Row] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many of each type and task."""
    spells: dict[tuple[str, Any], str] = field(default_factory=dict)
    """The endings of empty spells, by task and beginning; of those that began at the same moment, the last one's."""


class Database:
    """The database of one example; ``driver`` outlives it."""

    def __init__(self, driver: Driver, timeline: Timeline) -> None:
        driver.timeline = timeline
        driver.offset_seconds = 0.0
        self.driver = driver
        self.engine = driver.engine
        self.faults: list[Fault] = []
        self.away_until = 0.0
        self.injected = 0
        self.record = Record()
        self._timeline = timeline
        self._current: str | None = None
        self._failed_at: dict[str, float] = {}
        for table in reversed(metadata.sorted_tables):
            driver.application.execute(f"DELETE FROM {table.name}")
        for name in (*_EVENT_OF.values(), "room.rejoined", "task.discovered", "task.would_stop"):
            driver.application.execute("INSERT INTO zego_event_types (type, webhook) VALUES (?, ?)", name, False)
        sa.event.listen(self.engine, "do_execute", self._before_statement)
        sa.event.listen(self.engine, "do_executemany", self._before_statement)
        sa.event.listen(self.engine, "do_execute_no_params", self._before_bare_statement)
        self._commit = self.engine.dialect.do_commit
        self.engine.dialect.do_commit = self._do_commit  # type: ignore[assignment] # a wrapper at the engine

    def close(self) -> None:
        sa.event.remove(self.engine, "do_execute", self._before_statement)
        sa.event.remove(self.engine, "do_executemany", self._before_statement)
        sa.event.remove(self.engine, "do_execute_no_params", self._before_bare_statement)
        self.engine.dialect.do_commit = self._commit  # type: ignore[method-assign] # as it was

    # The application's statements, and queries.

    @property
    def now(self) -> datetime:
        return self.driver.clock.now

    def execute(self, statement: str, *parameters: Any) -> int:
        """Run a statement of the application, which may change anything."""
        self.driver.tell_time()
        changed = self.driver.application.execute(statement, *parameters)
        self._look(None)
        return changed

    def rows(self, statement: str, *parameters: Any) -> list[Row]:
        self.driver.tell_time()
        return self.driver.application.rows(statement, *parameters)

    # A process's calls.

    def call(self, instance: str, method: Callable[[], T]) -> T:
        """Run one store call of the process ``instance``, then check the tables."""
        self.driver.tell_time()
        self._current = instance
        try:
            return method()
        finally:
            self._current = None
            if self.driver.was_written():
                self._look(instance)

    def fail(self, trouble: Trouble, countdown: int = 1, instance: str | None = None) -> None:
        """Request a fault."""
        self.faults.append(Fault(trouble, countdown, instance))

    def failed_since(self, instance: str, since: float) -> bool:
        """Whether a call of this process has been made to fail since then."""
        return self._failed_at.get(instance, -1.0) >= since

    def _before_statement(self, _cursor: Any, _statement: str, _parameters: Any, _context: Any) -> None:
        self._perhaps_fail(at_commit=False)

    def _before_bare_statement(self, _cursor: Any, _statement: str, _context: Any) -> None:
        self._perhaps_fail(at_commit=False)

    def _do_commit(self, connection: Any) -> None:
        trouble = self._perhaps_fail(at_commit=True)
        self._commit(connection)
        if trouble is not None:
            raise self.driver.error(trouble)

    def _perhaps_fail(self, *, at_commit: bool) -> Trouble | None:
        """Raise a requested fault; return one that comes after the commit."""
        if self._current is None:
            return None
        if self._timeline.now < self.away_until:
            self._failed_at[self._current] = self._timeline.now
            raise self.driver.error(Trouble.BUSY)
        for fault in self.faults:
            if (fault.trouble in _AT_COMMIT) is not at_commit or fault.instance not in {None, self._current}:
                continue
            fault.countdown -= 1
            if fault.countdown > 0:
                continue
            self.faults.remove(fault)
            self.injected += 1
            self._failed_at[self._current] = self._timeline.now
            if fault.trouble is Trouble.COMMIT_UNKNOWN:
                return fault.trouble
            raise self.driver.error(fault.trouble)
        return None

    # The checks.

    def _look(self, instance: str | None) -> None:
        before = self.record
        tasks = {row["task_id"]: row for row in self.rows("SELECT * FROM zego_tasks")}
        attempts = {row["id"]: row for row in self.rows("SELECT * FROM zego_stop_attempts ORDER BY id")}
        events, spells = _expected_events(before, tasks, attempts), _expected_spells(before, tasks)
        self.record = Record(tasks, attempts, events, spells)
        self._check_events()
        self._check_spells()
        _compare_ledgers(before.attempts, attempts)
        new = [attempts[number] for number in attempts.keys() - before.attempts.keys()]
        for row in new:
            if instance is not None and row["outcome"] == SENT:
                task_id = row["task_id"]
                _check_intent(before.tasks.get(task_id), tasks.get(task_id), row, instance, self.now)
        # The vendor's callback that a task has ended ends it, even while another process holds it.
        ended = {
            row["task_id"] for row in new if row["outcome"] == "auto_stopped" and row["evidence_source"] == "callback"
        }
        for task_id, row in tasks.items():
            if (old := before.tasks.get(task_id)) is not None and old != row:
                _check_final(old, row)
                if instance is not None and task_id not in ended:
                    _check_owner(old, row, instance, self.now)

    def _check_events(self) -> None:
        """I10."""
        returned = self.rows("SELECT task_id FROM zego_rejoins WHERE rejoined_at IS NOT NULL")
        expected = self.record.events + Counter(("room.rejoined", row["task_id"]) for row in returned)
        written = Counter((row["type"], row["task_id"]) for row in self.rows("SELECT type, task_id FROM zego_events"))
        if written != expected:
            raise Violation(f"I10: missing events: {expected - written}, false events: {written - expected}")

    def _check_spells(self) -> None:
        """I11."""
        found = self.rows("SELECT task_id, empty_since, ended_at, ending FROM zego_empty_spells")
        written = Counter((row["task_id"], row["empty_since"], row["ending"]) for row in found)
        expected = Counter((*spell, ending) for spell, ending in self.record.spells.items())
        missing, false = expected - written, written - expected
        # One without length may have begun and ended in one transaction.
        for row in found:
            if row["ended_at"] == row["empty_since"]:
                del false[row["task_id"], row["empty_since"], row["ending"]]
        if missing or false:
            raise Violation(f"I11: missing spells: {missing}, false spells: {false}")
        if backwards := [dict(row) for row in found if row["ended_at"] < row["empty_since"]]:
            raise Violation(f"I11: ended before they began: {backwards}")


def _expected_spells(before: Record, tasks: Mapping[str, Row]) -> dict[tuple[str, Any], str]:
    """Return the spells that must have been written so far."""
    expected = dict(before.spells)
    for task_id, old in before.tasks.items():
        row = tasks.get(task_id)
        if old["status"] == ACTIVE and old["empty_since"] is not None and not _is_same_spell(old, row):
            expected[task_id, old["empty_since"]] = _ending(row)
    return expected


def _is_same_spell(old: Row, row: Row | None) -> bool:
    return row is not None and row["status"] == ACTIVE and row["empty_since"] == old["empty_since"]


def _ending(row: Row | None) -> str:
    if row is None:
        return "released"
    if row["user_count"]:
        return "returned"
    # With another spell in the same transaction, people came and left.
    if row["status"] == ACTIVE:
        return "unknown" if row["user_count"] is None else "returned"
    return row["status"] if row["status"] in _ENDINGS else "unknown"


def _expected_events(before: Record, tasks: Mapping[str, Row], attempts: Mapping[int, Row]) -> Counter[tuple[str, str]]:
    """Return what must have been written so far, of tasks and attempts; a return is in a table of its own."""
    expected = Counter(before.events)
    for task_id, row in tasks.items():
        old = before.tasks.get(task_id)
        if old is None and row["discovered_at"] is not None:
            expected["task.discovered", task_id] += 1
        if row["status"] in _EVENT_OF and (
            row["discovered_at"] is not None if old is None else old["status"] == ACTIVE
        ):
            expected[_EVENT_OF[row["status"]], task_id] += 1
    for number in attempts.keys() - before.attempts.keys():
        if attempts[number]["outcome"] == "would_stop":
            expected["task.would_stop", attempts[number]["task_id"]] += 1
    return expected


def _compare_ledgers(before: Mapping[int, Row], after: Mapping[int, Row]) -> None:
    if gone := before.keys() - after.keys():
        raise Violation(f"I5: rows of the ledger are gone: {sorted(gone)}")
    for number, old in before.items():
        if old != after[number] and not _is_open(old, after[number]):
            raise Violation(f"I5: a final row of the ledger has changed: {dict(old)} is now {dict(after[number])}")
    flying = [row["task_id"] for row in after.values() if row["outcome"] == SENT]
    if len(set(flying)) < len(flying):
        raise Violation(f"I4: two attempts of one task are in flight: {sorted(flying)}")


def _is_open(old: Row, new: Row) -> bool:
    """Whether the row has no final outcome yet: a late answer may still replace ``unknown``."""
    if old["outcome"] == "unknown":
        unanswered = old["replied_at"] is None and old["http_status"] is None and old["code"] is None
        return unanswered and new["outcome"] not in {SENT, "unknown"}
    return bool(old["outcome"] == SENT)


def _check_final(old: Row, new: Row) -> None:
    if old["status"] != ACTIVE and (new["status"], new["ended_at"]) != (old["status"], old["ended_at"]):
        raise Violation(f"I5: a final status has changed: {dict(old)} is now {dict(new)}")


def _check_intent(row: Row | None, after: Row | None, attempt: Row, instance: str, now: datetime) -> None:
    """I1 and I6: when a request was allowed, its row permitted it and this process held it.

    For a stop of a task's age no hint is needed: that nobody is there may come with the request, from ZEGO.
    """
    held = None if row is None else moment(row["hold_until"])
    told = after if attempt["reason"] == "max_age" else row
    is_empty = told is not None and told["user_count"] == 0
    if row is None or row["status"] != ACTIVE or not is_empty or (held is not None and held > now):
        raise Violation(f"I1: a stop was allowed at {now} for a row that forbids it: {row and dict(row)}")
    if row["claimed_by"] is None or not row["claimed_by"].startswith(f"{instance}/"):
        raise Violation(f"I6: {instance} sends for a task that it does not hold: {dict(row)} {dict(attempt)}")


_OWNED = ("status", "claimed_by", "wake_at", "attempts")


def _check_owner(old: Row, new: Row, instance: str, now: datetime) -> None:
    mine = old["claimed_by"] is not None and old["claimed_by"].startswith(f"{instance}/")
    changed = [name for name in _OWNED if old[name] != new[name]]
    lease_ends = moment(old["wake_at"])
    if old["claimed_by"] is not None and not mine and lease_ends is not None and lease_ends > now and changed:
        raise Violation(
            f"I6: {instance} has changed {changed} of a task that {old['claimed_by']} holds until {lease_ends}:"
            f" {dict(old)} is now {dict(new)}"
        )
    if old["claimed_by"] is new["claimed_by"] is None and None not in {lease_ends, new["wake_at"]} and changed:
        raise Violation(f"I6: {instance} gives back a task that it has not: {dict(old)} is now {dict(new)}")
    if not mine and {"status", "attempts"} & set(changed):
        raise Violation(f"I6: {instance} does not hold the task, and changed it: {dict(old)} is now {dict(new)}")
