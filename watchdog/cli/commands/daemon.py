"""``run`` and ``migrate``."""

import gc
import os
import sys
from pathlib import Path
from typing import Final

import structlog
import typer

from watchdog import SCHEMA_VERSION, config, daemon, logs
from watchdog.cli.checks.advice import advised, no_directory
from watchdog.cli.checks.database import short_windows_named
from watchdog.config.settings import Config
from watchdog.daemon import event_loop
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.insight.legible import legible
from watchdog.store import contract, schema
from watchdog.store.engine import place
from watchdog.store.reports.situation import short_windows
from watchdog.wiring.database import engine

_MIGRATION_USEC: Final = 600_000_000
"""How long the service manager may wait for a migration, microseconds."""


def run_daemon(path: Path | None, *, first_migrate: bool) -> None:
    """Run until SIGTERM or Ctrl-C. Raises ConfigError, DatabaseError."""
    file = config.find(path)
    settings = config.load(file)
    logs.configure(settings.log.format, settings.log.level)
    manager = ServiceManager()
    # The database threads release the GIL for every row, and wait up to this long to get it back.
    sys.setswitchinterval(0.0005)
    # Imported objects stay alive: without this, each full garbage collection would traverse them for 45 ms.
    gc.freeze()
    try:
        with advised(settings.database, for_daemon=True):
            if first_migrate:
                _migrate_if_needed(settings, manager)
            # Always the same file: if another one appears in the search path later, it is not ours.
            event_loop.run(daemon.run(settings, reload=lambda: config.load(file), manager=manager))
    finally:
        logs.close()


def migrate_database(path: Path | None) -> None:
    """Migrate, and print what was done. Raises ConfigError, DatabaseError."""
    settings = config.load(path, database_only=True)
    file = settings.database.sqlite_file
    if file is not None and (missing := no_directory(file)) is not None:
        raise missing
    with advised(settings.database):
        database = engine(settings.database, must_exist=False)
        try:
            lacking = contract.compare(database)
            before, after = schema.migrate(database)
            short = short_windows(database)
        finally:
            database.dispose()
    where = f"SQLite {file.absolute()}" if file is not None else f"PostgreSQL {settings.database.safe_url}"
    if before != after:
        done = f"schema {before or 'none'} -> {after}"
    elif created := lacking.blinding + lacking.slowing:
        done = f"schema {after} already; created again: {', '.join(created)}"
    else:
        done = f"schema {after} already, nothing to do"
    typer.echo(f"{where}: {done}")
    if short[0]:
        typer.echo(legible(short_windows_named(*short)), err=True)


def _migrate_if_needed(settings: Config, manager: ServiceManager) -> None:
    """Migrate an outdated database. Create a SQLite file only in the unit's StateDirectory=.

    Elsewhere a mistyped path must not silently create an empty database.
    """
    file = settings.database.sqlite_file
    database = engine(settings.database, must_exist=file is not None and not _is_state(file))
    try:
        if schema.version(database) != SCHEMA_VERSION:
            manager.notify(STATUS="bringing the database up to date", EXTEND_TIMEOUT_USEC=_MIGRATION_USEC)
            before, after = schema.migrate(database)
            if before != after:
                # Otherwise another daemon was faster.
                structlog.get_logger(__name__).info("migrated", before=before, after=after, database=place(database))
    finally:
        database.dispose()


def _is_state(file: Path) -> bool:
    """Whether the file is in a directory that the service manager keeps for us."""
    folders = filter(None, os.environ.get("STATE_DIRECTORY", "").split(":"))
    return any(file.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)
