"""Checks of the database: role, settings, triggers, clock, daemons, hints, and what past stops say."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from watchdog import SCHEMA_VERSION
from watchdog.cli.checks.advice import advised
from watchdog.cli.checks.events import check_events
from watchdog.cli.checks.findings import Blame, Finding, fail, failed, ok, split, warn
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.errors import ConfigError, DatabaseError
from watchdog.store.contract import Differences, compare, hidden_rows, sequences_behind, set_sequences
from watchdog.store.reports.events import chosen_types, count_events
from watchdog.store.reports.health import DaemonRow, Hints, Vitals, all_daemons, hints, modes_alive, vitals
from watchdog.store.reports.privileges import Privileges, privileges
from watchdog.store.reports.situation import (
    REFUSED_LISTED,
    Returns,
    Windows,
    learned,
    old_tasks,
    refused_rooms,
    short_windows,
)
from watchdog.store.sqlite_file import is_of_another_mode, warnings
from watchdog.wiring.database import opened

_DATABASE_CLOCK_SECONDS: Final = 2.0
_HINT_SECONDS: Final = 3600.0
_ROOMS_NAMED: Final = 5
_RETURNS_SHARE: Final = 0.05
_WAL_RESET: Final = ((3, 7, 0), (3, 51, 2))
"""The SQLite versions in which several writers can, rarely, corrupt a database in WAL mode."""


def check_database(config: Config, clock: Clock) -> Iterator[Finding]:
    file = config.database.sqlite_file
    # Opening it sets the mode.
    of_another_mode = file is not None and is_of_another_mode(file)
    try:
        with advised(config.database), opened(config) as database:
            yield from _role(privileges(database))
            before = clock.time()
            found = vitals(database)
            offset = found.now.timestamp() - (before + clock.time()) / 2
            yield ok("database", f"{config.database.safe_url}: {found.server}, schema {SCHEMA_VERSION}")
            if file is not None:
                yield judge_sqlite(found.server.removeprefix("SQLite "))
                yield from _file(file, of_another_mode=of_another_mode)
            yield from _settings(found)
            yield from _contract(compare(database))
            yield _database_clock(offset, config)
            daemons = all_daemons(database)[1]
            yield _daemons(daemons)
            yield from check_events(config, chosen_types(database), count_events(database), daemons)
            yield _hints(hints(database))
            yield from _refused_rooms(refused_rooms(database))
            yield from _short_windows(*short_windows(database))
            if limit := config.policy.max_age_seconds:
                yield judge_age(*old_tasks(database, limit), config)
            yield from _learned(*learned(database), config)
    except (ConfigError, DatabaseError) as error:
        yield from failed("database", error, f"check that {config.database.safe_url} is correct, running and writable")


def daemons_alive(config: Config) -> Sequence[DaemonRow]:
    """The daemons that are alive; none if the database cannot say."""
    try:
        with opened(config) as database:
            return [daemon for daemon in all_daemons(database)[1] if daemon.alive]
    except (ConfigError, DatabaseError):
        return []


def _role(found: Privileges | None) -> Iterator[Finding]:
    if found is None:
        return
    if found.missing:
        todo = f"grant it: GRANT {found.missing[0]} TO {found.role}; docs/roles.sql has all rights"
        lacks = f"{found.role} lacks {'; '.join(found.missing)}"
        yield fail("role", lacks, todo, Blame.CONFIGURATION)
    elif found.is_superuser:
        yield warn(
            "role",
            f"{found.role} is a superuser: a leaked password of the daemon opens the whole server",
            "create a separate role for the daemon: docs/sql-roles.md",
        )
    else:
        yield ok("role", f"{found.role} has every right it needs")


def judge_sqlite(version: str) -> Finding:
    """Whether this version of SQLite is safe with several writers."""
    first, last = _WAL_RESET
    if not first <= tuple(int(part) for part in re.findall(r"\d+", version)) <= last:
        return ok("sqlite", version)
    return warn(
        "sqlite",
        f"SQLite {version} has a rare bug (3.7.0 to 3.51.2) that can corrupt a database with several writers, such as "
        "the application and the daemon",
        "keep backups; for important data use SQLite 3.51.3 or later, or PostgreSQL",
    )


def _file(file: Path, *, of_another_mode: bool) -> Iterator[Finding]:
    for warning in warnings(file):
        yield warn("sqlite", *split(warning))
    if of_another_mode:
        yield warn(
            "sqlite",
            "until now the journal mode was not wal: another program sets PRAGMA journal_mode; while a daemon runs, "
            "that program is told that the database is locked",
            "remove PRAGMA journal_mode from the application; the file keeps the mode that the daemon sets",
        )


def _settings(found: Vitals) -> Iterator[Finding]:
    if not found.writable:
        yield fail("database", "it is read-only", "set database.url to the primary server", Blame.CONFIGURATION)
    if found.encoding not in {None, "UTF8"}:
        yield warn(
            "database",
            f"its encoding is {found.encoding}: what it cannot hold of ZEGO's messages is stored as \\uXXXX",
            "use a database with ENCODING 'UTF8'",
        )
    if found.journal_mode not in {None, "wal"}:
        yield fail(
            "database",
            f"its journal mode is {found.journal_mode}: readers and writers block each other",
            "move the file to a local disk; network file systems do not support the mode wal",
        )


def _contract(found: Differences) -> Iterator[Finding]:
    if found.blinding:
        yield fail(
            "schema",
            f"missing or disabled: {', '.join(found.blinding)}; the daemon refuses to enforce without them",
            "run zego-watchdog migrate: it creates again what holds no rows, or says what to do",
        )
    else:
        yield ok("schema", f"all tables, columns and {found.triggers} triggers exist")
    if found.slowing:
        yield warn(
            "schema",
            f"indexes are missing: {', '.join(found.slowing)}; the daemon becomes slow as the tables grow",
            "create them again: zego-watchdog migrate",
        )
    if found.hidden:
        what, _, todo = hidden_rows(found.hidden).partition("; ")
        yield fail("schema", what, todo, Blame.CONFIGURATION)
    if found.behind:
        yield fail("schema", sequences_behind(found.behind), set_sequences(found.behind))


def _database_clock(offset: float, config: Config) -> Finding:
    if config.database.is_sqlite:
        return ok("database clock", "SQLite uses this machine's clock")
    differs = f"the database clock differs from this machine's by {offset:+.1f} s"
    if abs(offset) <= _DATABASE_CLOCK_SECONDS:
        return ok("database clock", differs)
    found = f"{differs}; stored times use the database clock, log lines this machine's"
    return warn("database clock", found, "synchronise both with the same time server")


def _daemons(daemons: Sequence[DaemonRow]) -> Finding:
    alive = [daemon for daemon in daemons if daemon.alive]
    if not alive:
        return warn("daemon", "none is alive: nothing is watched", "start one: zego-watchdog run")
    listed = f"{len(alive)} alive: {', '.join(f'{one.instance} ({one.mode})' for one in alive)}"
    if len(modes_alive(alive)) > 1:
        return warn("daemon", f"{listed}: their modes differ", "set policy.mode to the same value for all of them")
    return ok("daemon", listed)


def _hints(found: Hints) -> Finding:
    update = "write user_count when people join or leave: UPDATE zego_tasks SET user_count = ? WHERE room_id = ?"
    if not found.active:
        return ok("hints", "no task is active, so no hint is expected")
    if found.newest_at is None:
        return warn("hints", f"no active task of {found.active} has ever had one, so none can be due", update)
    age = (found.now - found.newest_at).total_seconds()
    if age > _HINT_SECONDS:
        return warn(
            "hints",
            f"the newest one of {_active(found)} is {age / 3600:.1f} hours old: is the feed dead?",
            update,
        )
    if found.with_hint < found.active:
        missing = found.active - found.with_hint
        return warn("hints", f"{missing} of {_active(found)} {'has' if missing == 1 else 'have'} none", update)
    has = "the active task has one" if found.active == 1 else f"all {_active(found)} have one"
    return ok("hints", f"{has}, the newest {age:.0f} s old")


def _active(found: Hints) -> str:
    return f"{found.active:,} active task{'' if found.active == 1 else 's'}"


def _refused_rooms(rooms: Sequence[str]) -> Iterator[Finding]:
    if not rooms:
        return
    number = f"{'at least ' if len(rooms) == REFUSED_LISTED else ''}{len(rooms)} room{'s' if len(rooms) > 1 else ''}"
    named = ", ".join(rooms[:_ROOMS_NAMED]) + (", …" if len(rooms) > _ROOMS_NAMED else "")
    yield warn(
        "refused rooms",
        f"within a day ZEGO has refused to say who is in {number}, so tasks there are not stopped: {named}",
        "write the RoomId that the task was started with into zego_tasks.room_id",
    )


def short_windows_named(number: int, task_ids: Sequence[str]) -> str:
    """Name tasks whose ``max_idle_seconds`` is below ZEGO's least, 30."""
    tasks = "1 active task has" if number == 1 else f"{number:,} active tasks have"
    return (
        f"{tasks} a max_idle_seconds below 30, which ZEGO does not have, so the wait before the stop is too short: "
        f"{', '.join(task_ids)}{', …' if number > len(task_ids) else ''}"
    )


def _short_windows(number: int, task_ids: Sequence[str]) -> Iterator[Finding]:
    if number:
        yield warn(
            "short windows",
            short_windows_named(number, task_ids),
            "write the MaxIdleTime that the task was started with, or null, into max_idle_seconds",
        )


def judge_age(number: int, task_ids: Sequence[str], config: Config) -> Finding:
    """Whether tasks are older than the limit; ``task_ids`` are some of the oldest."""
    limit = f"{config.policy.max_age_seconds:g} s (policy.max_age_seconds)"
    if not number:
        return ok("age", f"no task is older than {limit}")
    told = f"{number} task{' is' if number == 1 else 's are'} older than {limit}; the oldest: {', '.join(task_ids)}"
    todo = "see why with zego-watchdog explain; release or stop what nobody needs"
    return warn("age", told, todo)


def _learned(returns: Returns, windows: Windows | None, config: Config) -> Iterator[Finding]:
    """What past stops say about the configuration; empty without stops."""
    if returns.watched:
        stops = f"{returns.watched} stop{'' if returns.watched == 1 else 's'}"
        share = f"people came back after {returns.returned} of {stops} of the last 24 hours"
        if returns.returned > returns.watched * _RETURNS_SHARE:
            yield warn("returns", share, "raise policy.grace_seconds: people return to rooms that look abandoned")
        else:
            yield ok("returns", share)
    if windows is not None:
        seen = (
            f"ZEGO auto-stopped {windows.count} task{'' if windows.count == 1 else 's'}, after a minimum of "
            f"{windows.minimum:.0f} s and a median of {windows.median:.0f} s; "
            f"policy.max_idle_seconds is {config.policy.max_idle_seconds:g}"
        )
        if windows.is_faster_than_configured:
            todo = f"set policy.max_idle_seconds to {windows.median:.0f} or less, so the watchdog stops first"
            yield warn("window", f"{seen}: ZEGO is faster than configured", todo)
        else:
            yield ok("window", seen)
