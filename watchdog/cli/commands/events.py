"""``events`` and ``events redeliver``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.events import no_events, print_events
from watchdog.cli.view.output import note, say, show_json
from watchdog.errors import ConfigError, WatchdogError
from watchdog.store.engine import Engine
from watchdog.store.events import EventStore
from watchdog.store.reports.events import find_events
from watchdog.store.reports.health import all_daemons

_AT_ONCE: Final = 1000


def show_events(path: Path | None, *, limit: int, undelivered: bool, task: str | None, as_json: bool) -> None:
    """Print events, newest first. Raises ConfigError, DatabaseError."""
    with opened(path) as (config, database):
        now, rows = find_events(database, limit=limit, undelivered=undelivered, task_id=task)
    if as_json:
        show_json(rows)
    elif rows:
        print_events(rows, now, with_task=True)
    else:
        note(no_events(written=bool(config.notify.types), undelivered=undelivered, task=task))


def redeliver_events(path: Path | None, ids: Sequence[int], *, as_json: bool) -> None:
    """Send these events again; without ids those that were given up.

    Raises ConfigError without a webhook, WatchdogError for an id that no event has.
    """
    with opened(path) as (config, database):
        if not config.notify.host:
            raise ConfigError("notify.url is empty, so no daemon would send the events: set it, then reload the daemon")
        store = EventStore(database, "")
        count = _these(database, store, ids) if ids else _given_up(store)
        _, daemons = all_daemons(database)
    if as_json:
        show_json({"redelivered": count})
    else:
        say(f"{words.number(count, 'event')} will be sent again" if count else "no event is undelivered")
    if count and not any(daemon.alive for daemon in daemons):
        note("No daemon is alive, so nothing is sent: start one with zego-watchdog run")


def _these(database: Engine, store: EventStore, ids: Sequence[int]) -> int:
    wanted = sorted(set(ids))
    _, rows = find_events(database, limit=len(wanted), ids=wanted)
    if missing := sorted(set(wanted) - {row["id"] for row in rows}):
        raise WatchdogError(
            f"there is no event {words.listed(missing)}, so nothing is sent again; list them with: zego-watchdog events"
        )
    if any((row["error"] or "").startswith("HTTP 410") for row in rows):
        note("The receiver answered 410, which suspends delivery: reload the daemon (SIGHUP) to end that.")
    return store.redeliver(wanted)


def _given_up(store: EventStore) -> int:
    total = 0
    while count := store.redeliver_undelivered(_AT_ONCE):
        total += count
    return total
