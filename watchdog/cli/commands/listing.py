"""``status``, ``tasks`` and ``history``: they only read, and import nothing that only a daemon needs."""

from dataclasses import asdict
from pathlib import Path

import typer

from watchdog import SCHEMA_VERSION
from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.output import note, show_json
from watchdog.cli.view.status import daemon_row, print_status
from watchdog.cli.view.tasks import no_history, no_tasks, print_history, print_tasks, task_row
from watchdog.clock import SystemClock
from watchdog.core.model import Outcome, Status
from watchdog.store.reports.history import HISTORY, history
from watchdog.store.reports.situation import situation
from watchdog.store.reports.tasks import find_tasks


def show_status(path: Path | None, *, as_json: bool) -> None:
    """Print daemons, tasks and the last 24 hours. Raises ConfigError, DatabaseError."""
    with opened(path) as (config, database):
        found = situation(database, config.policy.max_age_seconds)
    if not as_json:
        print_status(config, SCHEMA_VERSION, found)
        return
    show_json(
        {
            "now": found.now,
            "mode": config.policy.mode,
            "verify": config.policy.verify,
            "database": config.database.safe_url,
            "schema_version": SCHEMA_VERSION,
            "alive": any(one.alive for one in found.daemons),
            "daemons": [daemon_row(one) for one in found.daemons],
            "tasks": found.by_status,
            "occupied": found.occupied,
            "empty": found.empty,
            "unknown": found.unknown,
            "too_old": found.too_old,
            "oldest_evidence_at": found.oldest_evidence_at,
            "longest_empty_since": found.longest_empty_since,
            "next_task_id": found.next_task_id,
            "next_due_at": found.next_due_at,
            "outcomes_24h": {outcome: found.latest.get(outcome, 0) for outcome in Outcome},
            "in_flight": found.in_flight,
            "blocked_apps": found.blocked_apps,
            "savings_24h": {
                "stops": found.savings.stops,
                "slot_seconds_freed": found.savings.slot_seconds_freed,
                "seconds_before_auto_stop": found.savings.seconds_before_auto_stop,
                "no_auto_stop": found.savings.no_auto_stop,
            },
            "returns_24h": asdict(found.returns),
            "events": {
                "pending": found.events.pending,
                "undelivered": found.events.undelivered,
                "oldest_pending_at": found.events.oldest_pending_at,
            },
            "auto_stop_windows": None if found.windows is None else asdict(found.windows),
        }
    )


def show_tasks(path: Path | None, *, status: str, room: str | None, due: bool, limit: int, as_json: bool) -> None:
    """Print tasks, next event first. Raises typer.BadParameter, ConfigError, DatabaseError."""
    if due and status != "active":
        raise typer.BadParameter("--due selects active tasks: leave out --status")
    with opened(path) as (_, database):
        chosen = None if status == "all" else Status(status)
        listing = find_tasks(database, limit=limit, status=chosen, room_id=room, due=due)
    if as_json:
        show_json([task_row(task) for task in listing.tasks])
    elif listing.tasks:
        print_tasks(listing, active_only=status == "active")
    else:
        note(no_tasks(chosen, room, due=due))


def show_history(
    path: Path | None,
    *,
    limit: int,
    outcome: Outcome | None,
    task: str | None,
    room: str | None,
    since: str | None,
    as_json: bool,
) -> None:
    """Print what became of each task, newest first. Raises typer.BadParameter, ConfigError, DatabaseError."""
    began = words.parse_past(since, "'--since'", SystemClock())
    with opened(path) as (_, database):
        _, rows = history(database, limit=limit, outcome=outcome, task_id=task, room_id=room, since=began)
    if as_json:
        show_json([{column.name: row[column.name] for column in HISTORY.c} for row in rows])
    elif rows:
        print_history(rows)
    else:
        note(no_history(filtered=not outcome is task is room is since is None))
