"""What people see: aligned text, coloured on a terminal, and JSON for programs. Reads nothing, decides nothing."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from watchdog.cli.view import words
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Status, Task
from watchdog.core.policy import Decision, Plan, Policy
from watchdog.store.records import Activity, Instance
from watchdog.store.reports.health import DaemonRow
from watchdog.store.reports.history import Row
from watchdog.store.reports.situation import Returns, Situation, Windows
from watchdog.store.reports.tasks import Listing

GAP: Final = 2
_NAME_WIDTH: Final = 15
_PIPE_WIDTH: Final = 100_000


def console() -> Console:
    """Standard output: as wide as the terminal, and in a pipe as wide as it takes, unless $COLUMNS says."""
    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH if piped else None)


def show_json(value: object) -> None:
    """Write JSON: times as ISO 8601 in UTC, everything else as it is."""
    typer.echo(json.dumps(value, indent=2, default=as_json))


def as_json(value: object) -> str:
    """What JSON has no word for: a time, as ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def task_row(task: Task) -> Row:
    """A task by the columns of ``zego_tasks``."""
    return {field.name: getattr(task, field.name) for field in fields(Task)}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. The highest ``spare`` goes first where there is no room; 0 stays whatever happens."""

    title: str
    cells: Sequence[str | Text]
    spare: int = 0
    right: bool = False

    @property
    def width(self) -> int:
        return max([cell_len(self.title), *(_width(cell) for cell in self.cells)])


def show_table(columns: Sequence[Column], *, below: Sequence[Sequence[str]] = ()) -> None:
    """Print a table, under each of its rows the lines of ``below``, and say which columns had no room."""
    out = console()
    kept = [column for column in columns if any(_width(cell) for cell in column.cells)]
    dropped: list[str] = []
    while sum(column.width + GAP for column in kept) - GAP > out.width and any(column.spare for column in kept):
        least = max(kept, key=lambda column: column.spare)
        kept.remove(least)
        dropped.append(least.title)
    out.print(_line(kept, [Text(column.title, "bold") for column in kept]))
    for number in range(len(columns[0].cells)):
        out.print(_line(kept, [column.cells[number] for column in kept]))
        for line in below[number] if below else ():
            out.print(Text(f"    {line}", "dim"), soft_wrap=False)
    if dropped:
        rest = words.listed(dropped[:-4:-1]) + (", …" if len(dropped) > 3 else "")
        note(
            f"No room for {words.number(len(dropped), 'column')} ({rest}): a wider terminal, a pipe or --json has more."
        )


def _line(columns: Sequence[Column], cells: Sequence[str | Text]) -> Text:
    line = Text()
    for column, cell in zip(columns, cells, strict=True):
        padding = " " * (column.width - _width(cell))
        line.append(padding if column.right else "")
        line.append_text(cell if isinstance(cell, Text) else Text(legible(cell)))
        line.append(("" if column.right else padding) + " " * GAP)
    line.rstrip()
    return line


def _width(cell: str | Text) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(legible(cell))


def legible(text: str) -> str:
    """``text`` without what would move a terminal's cursor: ids and messages are other people's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


Pairs = Iterable[tuple[str, str | Text]]


def show_pairs(pairs: Pairs) -> None:
    """Print names and values below each other; an empty name continues the value above it."""
    out = console()
    for name, value in pairs:
        line = Text.assemble((f"{name:<{_NAME_WIDTH}}", "bold"), value if isinstance(value, Text) else legible(value))
        hanging(out, line, _NAME_WIDTH)


def heading(text: str) -> None:
    console().print(Text(f"\n{text}", "bold"))


def say(text: str, style: str = "") -> None:
    console().print(Text(legible(text), style), soft_wrap=False)


def note(text: str) -> None:
    """A word to the person, beside the data."""
    typer.echo(text, err=True)


def _styled(word: str) -> Text:
    return Text(word, words.STYLE.get(word, ""))


def tasks(listing: Listing, *, active_only: bool) -> None:
    """The table of ``tasks``."""
    now, rows = listing.now, listing.tasks
    if not rows:
        return note("No such task.")
    columns = [
        Column("TASK", [task.task_id for task in rows]),
        Column("ROOM", [task.room_id for task in rows], spare=1),
        Column("STATUS", [] if active_only else [_styled(task.status) for task in rows]),
        Column("PEOPLE", ["?" if task.user_count is None else str(task.user_count) for task in rows], right=True),
        Column("SAID", [_said(task, now) for task in rows], spare=4),
        Column("EMPTY", [_lasting(task, now) for task in rows], spare=2),
        Column("DUE", [_awaited(task, task.due_at, now) for task in rows]),
        Column("AUTO-STOP", [_awaited(task, task.auto_stop_at, now) for task in rows], spare=3),
        Column("HOLD", [_held(task, now) for task in rows]),
        Column("TRIES", [str(task.attempts or "") for task in rows], spare=5, right=True),
        Column("APP", [str(task.app_id or "") for task in rows], spare=7),
        Column("ENDED", [words.since(task.ended_at, now) if task.ended_at else "" for task in rows], spare=6),
    ]
    show_table([column for column in columns if column.cells])
    if listing.more:
        note(f"There are more than these {len(rows)}: --limit shows more, --room and --due choose.")
    return None


def _said(task: Task, now: datetime) -> str:
    if task.user_count is None or task.user_count_at is None:
        return "nobody"
    return f"{task.user_count_source}, {words.since(task.user_count_at, now)}"


def _lasting(task: Task, now: datetime) -> str:
    if task.empty_since is None or task.status is not Status.ACTIVE:
        return ""
    return words.length((now - task.empty_since).total_seconds())


def _awaited(task: Task, moment: datetime | None, now: datetime) -> Text:
    if moment is None or task.status is not Status.ACTIVE:
        return Text()
    return Text(words.until(moment, now), "" if moment > now else "bold yellow")


def _held(task: Task, now: datetime) -> str:
    if task.hold_until is None or task.hold_until <= now or task.status is not Status.ACTIVE:
        return ""
    return f"{words.length((task.hold_until - now).total_seconds())} left"


_BY_WORTH: Final = (
    *("task_id", "outcome", "code", "request_id", "room_id", "reaction_seconds", "stopped_at"),
    *(
        "seconds_before_auto_stop",
        "rejoined_after_seconds",
        "reason",
        "attempts",
        "due_at",
        "message",
        "empty_since",
        "auto_stop_at",
    ),
    *("app_id", "kind"),
)


def history(rows: Sequence[Row]) -> None:
    """The columns of ``zego_stop_history``; a narrow terminal gets the most telling ones."""
    if not rows:
        return note("No such attempt.")
    show_table([Column(name, [_cell(name, row[name]) for row in rows], _BY_WORTH.index(name)) for name in rows[0]])
    return None


def _cell(name: str, value: object) -> str | Text:
    match value:
        case None:
            return "-"
        case datetime():
            return words.stamp(value)
        case float():
            return f"{value:.3f}"
        case _:
            return _styled(str(value)) if name == "outcome" else str(value)


def attempts(rows: Sequence[Row]) -> None:
    """One task's attempts, the vendor's own words below each."""
    show_table(
        [
            Column("#", [str(row["attempt"] or "-") for row in rows], right=True),
            Column("WHEN", [words.stamp(row["sent_at"] or row["recorded_at"]) for row in rows]),
            Column("OUTCOME", [_styled(row["outcome"]) for row in rows]),
            Column("CODE", [row["code"] or "-" for row in rows]),
            Column("REQUEST ID", [row["request_id"] or "-" for row in rows]),
            Column("HTTP", [str(row["http_status"] or "-") for row in rows], spare=2),
            Column("REASON", [row["reason"] for row in rows], spare=1),
            Column("BY", [row["instance"] for row in rows], spare=3),
        ],
        below=[[legible(row[name]) for name in ("message", "detail") if row[name]] for row in rows],
    )


def evidence(task: Task, now: datetime) -> None:
    """What is known of a task's room, and since when."""

    def moment(at: datetime | None, otherwise: str) -> str:
        return otherwise if at is None else f"{words.since(at, now)} ({words.stamp(at)})"

    count = "nobody has said" if task.user_count is None else str(task.user_count)
    known = task.user_count is not None and task.user_count_at is not None
    show_pairs(
        [
            (
                "people",
                f"{count}, said by {task.user_count_source} {moment(task.user_count_at, '')}" if known else count,
            ),
            ("last occupied", moment(task.last_occupied_at, "never seen")),
            ("empty since", moment(task.empty_since, "-")),
            ("started", moment(task.started_at, "-")),
        ]
    )


def schedule(task: Task, plan: Plan | None, rules: Policy, now: datetime) -> None:
    """When what will happen, or would."""

    def moment(at: datetime) -> str:
        return f"{words.until(at, now)} ({words.stamp(at)})"

    window = rules.max_idle_seconds if task.max_idle_seconds is None else task.max_idle_seconds
    due = task.due_at or (plan and plan.due_at)
    auto_stop = task.auto_stop_at or (plan and plan.auto_stop_at)
    planned = "" if task.due_at else ", as soon as a daemon plans it"
    on_hold = task.hold_until is not None and task.hold_until > now
    held = task.claimed_by is not None and task.wake_at is not None and task.wake_at > now
    show_pairs(
        [
            ("due", moment(due) + planned if due else "not while the room is not known to be empty"),
            ("auto-stop", moment(auto_stop) if auto_stop else f"{words.length(window)} after the room has emptied"),
            ("hold", moment(task.hold_until) if task.hold_until and on_hold else "none"),
            ("claim", f"{task.claimed_by}, for {words.until(task.wake_at, now)}" if task.wake_at and held else "none"),
        ]
    )


def daemon_lines(daemons: Sequence[DaemonRow], now: datetime) -> list[tuple[str, str | Text]]:
    """Those that are alive, or the last one that was."""
    alive = [daemon for daemon in daemons if daemon.alive]
    if alive:
        return [("" if number else "daemons", _daemon_line(daemon, now)) for number, daemon in enumerate(alive)]
    last = f" The last one was seen {words.since(daemons[0].seen_at, now)}: {daemons[0].instance}." if daemons else ""
    return [
        ("daemons", Text(f"NONE IS ALIVE: nothing is being watched.{last} Start one: zego-watchdog run", "bold red"))
    ]


def guard_lines(daemons: Sequence[DaemonRow], now: datetime) -> list[tuple[str, str | Text]]:
    """Where a guard has tripped, or is released; otherwise nothing."""
    lines: list[tuple[str, str | Text]] = []
    if tripped := [daemon for daemon in daemons if daemon.has_tripped]:
        held = sum(daemon.guard_held or 0 for daemon in tripped)
        since = min(daemon.guard_tripped_at for daemon in tripped if daemon.guard_tripped_at is not None)
        told = (
            f"TRIPPED {words.since(since, now)}, {words.number(held, 'task')} held back: too many rooms read empty at "
            "once, by hints alone. What to do: zego-watchdog guard"
        )
        lines.append(("guard", Text(told, "bold red")))
    ends = [daemon.guard_released_until for daemon in daemons if daemon.alive and daemon.guard_released_until]
    if ends and max(ends) > now:
        lines.append(("" if lines else "guard", Text(f"released, ends {words.until(max(ends), now)}", "bold yellow")))
    return lines


def _daemon_line(daemon: DaemonRow, now: datetime) -> str:
    working = "" if daemon.in_flight is None else f" {daemon.in_flight} in hand, {daemon.requests} requests so far;"
    return (
        f"{daemon.instance}: {daemon.mode}, seen {words.since(daemon.seen_at, now)},"
        f" watching for {words.length((now - daemon.watching_since).total_seconds())};{working}"
        f" process {daemon.pid} on {daemon.host}, version {daemon.version}"
    )


def status(config: Config, schema_version: str, found: Situation) -> None:
    """The whole situation on one screen."""
    now = found.now
    ended = [f"{count:,} {status}" for status, count in found.by_status.items() if count and status != Status.ACTIVE]
    latest = [f"{count:,} {outcome}" for outcome, count in found.latest.items()]
    misses = found.latest.get(Outcome.AUTO_STOPPED, 0)
    show_pairs(
        [
            ("mode", f"{config.policy.mode}, verify {config.policy.verify}"),
            ("database", f"{config.database.safe_url}, schema {schema_version}"),
            *daemon_lines(found.daemons, now),
            *guard_lines(found.daemons, now),
            (
                "tasks",
                f"{found.by_status[Status.ACTIVE]:,} active" + (f"; ended: {words.listed(ended)}" if ended else ""),
            ),
            ("rooms", f"{found.occupied:,} occupied, {found.empty:,} empty, {found.unknown:,} unknown"),
            ("evidence", _evidence_age(found)),
            ("next due", _next_due(found)),
            ("longest empty", _longest_empty(found)),
            ("last 24 hours", words.listed(latest) if latest else "no attempt"),
            ("", Text(f"{misses:,} missed: ZEGO was first", "bold yellow") if misses else "none missed"),
            ("came back", _returned(found.returns)),
            ("ZEGO's window", _windows(found.windows, config)),
            ("in flight", words.number(found.in_flight, "request")),
            ("blocked apps", _blocked(found.blocked_apps)),
        ]
    )


def _evidence_age(found: Situation) -> str:
    if found.oldest_evidence_at is None:
        return "none"
    return f"the oldest is from {words.since(found.oldest_evidence_at, found.now)}"


def _returned(returns: Returns) -> str | Text:
    if not returns.watched:
        return "no stop to judge by"
    share = f"{returns.returned / returns.watched:.1%} of {words.number(returns.watched, 'stop')}"
    return Text(share, "bold yellow") if returns.returned else share


def _windows(windows: Windows | None, config: Config) -> str | Text:
    configured = f"configured {words.length(config.policy.max_idle_seconds)}"
    if windows is None:
        return f"{configured}; ZEGO has ended no task of a known window by itself"
    line = (
        f"{configured}; seen {windows.count:,} times: at least {words.length(windows.minimum)},"
        f" median {words.length(windows.median)}"
    )
    if windows.is_faster_than_configured:
        return Text(f"{line}. ZEGO IS FASTER: lower policy.max_idle_seconds", "bold yellow")
    return line


def _next_due(found: Situation) -> str:
    if found.next_due_at is None:
        return "nothing is planned"
    return f"{words.until(found.next_due_at, found.now)} ({words.stamp(found.next_due_at)}), task {found.next_task_id}"


def _longest_empty(found: Situation) -> str:
    return "-" if found.longest_empty_since is None else f"since {words.since(found.longest_empty_since, found.now)}"


def _blocked(apps: Sequence[int]) -> str | Text:
    if not apps:
        return "none"
    return Text(f"{words.listed(apps)}: ZEGO refuses everything. What to do: zego-watchdog check", "bold red")


def decision_row(decision: Decision) -> Mapping[str, Any]:
    return {
        "verdict": decision.verdict,
        "rule": decision.rule,
        "until": decision.until,
        "reason": decision.reason,
    }


def daemon_row(daemon: DaemonRow) -> Mapping[str, Any]:
    names = [*Instance.__slots__, "started_at", "watching_since", "seen_at", "alive", *Activity.__slots__]
    return {name: getattr(daemon, name) for name in (*names, "guard_released_until")}


def hanging(out: Console, line: Text, indent: int) -> None:
    """Print a long line wrapped under its own beginning."""
    head, body = line[:indent], line[indent:]
    for number, part in enumerate(body.wrap(out, max(20, out.width - indent))):
        part.rstrip()
        out.print(Text.assemble(Text(" " * indent) if number else head, part))
