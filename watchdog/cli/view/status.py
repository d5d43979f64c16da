"""The screen of ``status``."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.output import show_pairs
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Status
from watchdog.store.records import Activity, EventCounts, Instance
from watchdog.store.reports.health import DaemonRow, modes_alive
from watchdog.store.reports.savings import Savings
from watchdog.store.reports.situation import Returns, Situation, Windows

Lines = list[tuple[str, str | Text]]
"""Names and values; an empty name continues the value above it."""


def print_status(config: Config, schema_version: str, found: Situation) -> None:
    now, oldest, longest = found.now, found.oldest_evidence_at, found.longest_empty_since
    ended = [f"{count:,} {status}" for status, count in found.by_status.items() if count and status != Status.ACTIVE]
    latest = [f"{count:,} {outcome}" for outcome, count in found.latest.items()]
    misses = found.latest.get(Outcome.AUTO_STOPPED, 0)
    active = f"{found.by_status[Status.ACTIVE]:,} active"
    show_pairs(
        [
            ("mode", f"{config.policy.mode}, verify {config.policy.verify}"),
            ("database", f"{config.database.safe_url}, schema {schema_version}"),
            *_daemon_lines(found.daemons, now),
            *guard_lines(found.daemons, now),
            ("tasks", active + (f"; ended: {words.listed(ended)}" if ended else "")),
            ("rooms", f"{found.occupied:,} occupied, {found.empty:,} empty, {found.unknown:,} unknown"),
            *_age_line(found.too_old, config),
            ("reports", _oldest_report(oldest, now)),
            ("next due", _next_due(found)),
            ("longest empty", f"since {words.since(longest, now)}" if longest else "-"),
            ("last 24 hours", words.listed(latest) if latest else "no attempt"),
            ("", Text(f"{misses:,} missed: ZEGO stopped first", "bold yellow") if misses else "none missed"),
            ("savings", _saved(found.savings)),
            ("returns", _returned(found.returns)),
            *event_lines(found.events),
            ("auto-stop", _windows(found.windows, config)),
            ("in flight", words.number(found.in_flight, "request")),
            ("blocked apps", _blocked(found.blocked_apps)),
        ]
    )


def guard_lines(daemons: Sequence[DaemonRow], now: datetime) -> Lines:
    """Where a guard has tripped or is released; empty otherwise."""
    lines: Lines = []
    if tripped := [daemon for daemon in daemons if daemon.has_tripped]:
        held = sum(daemon.guard_held or 0 for daemon in tripped)
        since = min(daemon.guard_tripped_at for daemon in tripped if daemon.guard_tripped_at is not None)
        told = (
            f"TRIPPED {words.since(since, now)}, {words.number(held, 'task')} held back: too many rooms became empty "
            "at once by hints alone. Next step: zego-watchdog guard"
        )
        lines.append(("guard", Text(told, "bold red")))
    ends = [daemon.guard_released_until for daemon in daemons if daemon.alive and daemon.guard_released_until]
    if ends and max(ends) > now:
        lines.append(("" if lines else "guard", Text(f"released, ends {words.until(max(ends), now)}", "bold yellow")))
    return lines


def event_lines(found: EventCounts) -> Lines:
    """What the webhook has not delivered; empty if there is nothing."""
    lines: Lines = []
    if found.pending and found.oldest_pending_at is not None:
        oldest = words.since(found.oldest_pending_at, found.now)
        lines.append(("events", f"{words.number(found.pending, 'event')} to be delivered, the oldest from {oldest}"))
    if found.undelivered:
        told = (
            f"{words.number(found.undelivered, 'event')} UNDELIVERED: all attempts failed. "
            "Next step: zego-watchdog events --undelivered"
        )
        lines.append(("" if lines else "events", Text(told, "bold red")))
    return lines


def daemon_row(daemon: DaemonRow) -> Mapping[str, Any]:
    names = [*Instance.__slots__, "started_at", "watching_since", "seen_at", "alive", *Activity.__slots__]
    return {name: getattr(daemon, name) for name in (*names, "guard_released_until")}


def _daemon_lines(daemons: Sequence[DaemonRow], now: datetime) -> Lines:
    alive = [daemon for daemon in daemons if daemon.alive]
    if alive:
        lines: Lines = [("" if number else "daemons", _daemon_line(daemon, now)) for number, daemon in enumerate(alive)]
        if len(modes := modes_alive(alive)) > 1:
            told = f"MODES DIFFER: {words.listed(modes)}. Set policy.mode to the same value for all daemons"
            lines.append(("", Text(told, "bold yellow")))
        return lines
    last = f" The last one was seen {words.since(daemons[0].seen_at, now)}: {daemons[0].instance}." if daemons else ""
    return [("daemons", Text(f"NONE IS ALIVE: nothing is watched.{last} Start one: zego-watchdog run", "bold red"))]


def _daemon_line(daemon: DaemonRow, now: datetime) -> str:
    work = (
        ""
        if daemon.in_flight is None
        else f" {words.number(daemon.in_flight, 'task')} in work, {daemon.requests or 0:,} requests so far;"
    )
    return (
        f"{daemon.instance}: {daemon.mode}, seen {words.since(daemon.seen_at, now)},"
        f" watching for {words.length((now - daemon.watching_since).total_seconds())};{work}"
        f" process {daemon.pid} on {daemon.host}, version {daemon.version}"
    )


def _age_line(too_old: int | None, config: Config) -> Lines:
    """How many tasks are too old; empty without a limit."""
    if too_old is None:
        return []
    rules, limit = config.policy, words.length(config.policy.max_age_seconds)
    if not too_old:
        return [("age", f"no task is older than {limit}")]
    told = f"{words.number(too_old, 'task')} OLDER THAN {limit} (policy.on_max_age: {rules.on_max_age})"
    return [("age", Text(f"{told}. Next step: zego-watchdog check", "bold yellow"))]


def _oldest_report(oldest: datetime | None, now: datetime) -> str:
    if oldest is None:
        return "nobody has reported yet how many people are in the room of an active task"
    return f"the oldest report about the room of an active task is from {words.since(oldest, now)}"


def _saved(savings: Savings) -> str:
    if not savings.stops:
        return "the daemon stopped no task in the last 24 hours"
    mean, without = savings.seconds_before_auto_stop, savings.no_auto_stop
    apart = f"{words.number(without, 'stop')} without an auto-stop to compare with"
    if mean is None:
        return apart
    freed = f"{words.length(savings.slot_seconds_freed)} of slots freed before ZEGO's planned auto-stop"
    each = f"{words.length(mean)} for each stop on average"
    return f"{freed}, {each}; {apart}" if without else f"{freed}, {each}"


def _returned(returns: Returns) -> str | Text:
    if not returns.watched:
        return "no task was stopped in the last 24 hours"
    share = (
        f"people returned to the room after {returns.returned / returns.watched:.1%} of "
        f"{words.number(returns.watched, 'stop')}"
    )
    return Text(share, "bold yellow") if returns.returned else share


def _windows(windows: Windows | None, config: Config) -> str | Text:
    configured = f"ZEGO ends a task {words.length(config.policy.max_idle_seconds)} after its room is empty, by policy"
    if windows is None:
        return f"{configured}; not measured, because ZEGO ended no task lately whose empty time is known"
    line = (
        f"{configured}; measured on {words.number(windows.count, 'task')}: minimum {words.length(windows.minimum)},"
        f" median {words.length(windows.median)}"
    )
    if windows.is_faster_than_configured:
        return Text(f"{line}. ZEGO IS FASTER: lower policy.max_idle_seconds", "bold yellow")
    return line


def _next_due(found: Situation) -> str:
    if found.next_due_at is None:
        return "nothing planned"
    return f"{words.until(found.next_due_at, found.now)} ({words.stamp(found.next_due_at)}), task {found.next_task_id}"


def _blocked(apps: Sequence[int]) -> str | Text:
    if not apps:
        return "none"
    return Text(f"{words.listed(apps)}: ZEGO refuses all their requests. Next step: zego-watchdog check", "bold red")
