"""The commands that only read the database, and must not wait for what they have no use for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import typer

from watchdog import SCHEMA_VERSION
from watchdog import config as configuration
from watchdog.cli.view import screens, words
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Status
from watchdog.store.engine import Engine
from watchdog.store.reports.history import history as stop_history
from watchdog.store.reports.situation import situation
from watchdog.store.reports.tasks import find_tasks
from watchdog.wiring import database as opening


@contextmanager
def opened(path: Path | None) -> Iterator[tuple[Config, Engine]]:
    """The configuration, and the database that it names. Raises ConfigError, DatabaseError."""
    config = configuration.load(path)
    with opening.opened(config) as database:
        yield config, database


def status(path: Path | None, *, as_json: bool) -> None:
    with opened(path) as (config, database):
        found = situation(database)
    if as_json:
        screens.show_json(
            {
                "now": found.now,
                "mode": config.policy.mode,
                "verify": config.policy.verify,
                "database": config.database.safe_url,
                "schema_version": SCHEMA_VERSION,
                "alive": any(one.alive for one in found.daemons),
                "daemons": [screens.daemon_row(one) for one in found.daemons],
                "tasks": found.by_status,
                "occupied": found.occupied,
                "empty": found.empty,
                "unknown": found.unknown,
                "oldest_evidence_at": found.oldest_evidence_at,
                "longest_empty_since": found.longest_empty_since,
                "next_task_id": found.next_task_id,
                "next_due_at": found.next_due_at,
                "outcomes_24h": {outcome: found.latest.get(outcome, 0) for outcome in Outcome},
                "in_flight": found.in_flight,
                "blocked_apps": found.blocked_apps,
                "returns_24h": asdict(found.returns),
                "auto_stop_windows": None if found.windows is None else asdict(found.windows),
            }
        )
    else:
        screens.status(config, SCHEMA_VERSION, found)


def tasks(path: Path | None, *, status: str, room: str | None, due: bool, limit: int, as_json: bool) -> None:
    if due and status != "active":
        raise typer.BadParameter("--due is about active tasks: leave --status out")
    with opened(path) as (_, database):
        chosen = None if status == "all" else Status(status)
        listing = find_tasks(database, limit=limit, status=chosen, room_id=room, due=due)
    if as_json:
        screens.show_json([screens.task_row(task) for task in listing.tasks])
    else:
        screens.tasks(listing, active_only=status == "active")


def history(
    path: Path | None,
    *,
    limit: int,
    outcome: Outcome | None,
    task: str | None,
    room: str | None,
    since: str | None,
    as_json: bool,
) -> None:
    began = None if since is None else length_or_moment(since)
    with opened(path) as (_, database):
        _, rows = stop_history(database, limit=limit, outcome=outcome, task_id=task, room_id=room, since=began)
    if as_json:
        screens.show_json(rows)
    else:
        screens.history(rows)


def length(text: str) -> timedelta:
    """Read ``2h``; raises typer.BadParameter."""
    try:
        return words.parse_length(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def moment(text: str) -> datetime:
    """Read a moment; raises typer.BadParameter."""
    try:
        return words.parse_moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def length_or_moment(text: str) -> timedelta | datetime:
    """Read ``2h``, so long ago, or a moment; raises typer.BadParameter."""
    return moment(text) if "-" in text else length(text)
