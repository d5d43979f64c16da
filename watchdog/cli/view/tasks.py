"""The tables of ``tasks`` and ``history``."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Final

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.output import Column, note, show_table
from watchdog.core.model import Status, Task
from watchdog.store.reports.history import Row
from watchdog.store.reports.tasks import Listing

_BY_WORTH: Final = (
    *("task_id", "outcome", "code", "request_id", "room_id", "reaction_seconds", "stopped_at"),
    *("seconds_before_auto_stop", "rejoined_after_seconds", "reason", "attempts", "due_at", "message"),
    *("empty_since", "auto_stop_at", "app_id", "kind"),
)
"""The columns of ``zego_stop_history``, most important first."""


def task_row(task: Task) -> Row:
    """A task by the columns of ``zego_tasks``, for JSON."""
    return {field.name: getattr(task, field.name) for field in fields(Task)}


def print_tasks(listing: Listing, *, active_only: bool) -> None:
    now, rows = listing.now, listing.tasks
    if not rows:
        note("No such task.")
        return
    columns = [
        Column("TASK", [task.task_id for task in rows]),
        Column("ROOM", [task.room_id for task in rows], spare=1),
        Column("STATUS", [] if active_only else [styled(task.status) for task in rows]),
        Column("PEOPLE", [people(task) for task in rows], right=True),
        Column("SOURCE", [source(task, now) for task in rows], spare=4),
        Column("EMPTY", [_empty_for(task, now) for task in rows], spare=2),
        Column("DUE", [_countdown(task, task.due_at, now) for task in rows]),
        Column("AUTO-STOP", [_countdown(task, task.auto_stop_at, now) for task in rows], spare=3),
        Column("HOLD", [_hold_left(task, now) for task in rows]),
        Column("TRIES", [str(task.attempts or "") for task in rows], spare=5, right=True),
        Column("APP", [str(task.app_id or "") for task in rows], spare=7),
        Column("ENDED", [words.since(task.ended_at, now) if task.ended_at else "" for task in rows], spare=6),
    ]
    show_table([column for column in columns if column.cells])
    if listing.more:
        note(f"There are more than these {len(rows)}: show more with --limit, filter with --room and --due.")


def print_history(rows: Sequence[Row]) -> None:
    """Print the columns of ``zego_stop_history``; a narrow terminal gets the most important ones."""
    if rows:
        show_table([Column(name, [_cell(name, row[name]) for row in rows], _BY_WORTH.index(name)) for name in rows[0]])
    else:
        note("No such attempt.")


def styled(word: str) -> Text:
    return Text(word, words.STYLE.get(word, ""))


def people(task: Task) -> str:
    """The stored number of people, ``?`` if unknown."""
    return "?" if task.user_count is None else str(task.user_count)


def source(task: Task, now: datetime) -> str:
    """Where the stored number of people is from, and how old it is."""
    if task.user_count is None or task.user_count_at is None:
        return "none"
    return f"{task.user_count_source}, {words.since(task.user_count_at, now)}"


def _empty_for(task: Task, now: datetime) -> str:
    if task.empty_since is None or task.status is not Status.ACTIVE:
        return ""
    return words.length((now - task.empty_since).total_seconds())


def _countdown(task: Task, moment: datetime | None, now: datetime) -> Text:
    if moment is None or task.status is not Status.ACTIVE:
        return Text()
    return Text(words.until(moment, now), "" if moment > now else "bold yellow")


def _hold_left(task: Task, now: datetime) -> str:
    if task.hold_until is None or task.hold_until <= now or task.status is not Status.ACTIVE:
        return ""
    return f"{words.length((task.hold_until - now).total_seconds())} left"


def _cell(name: str, value: object) -> str | Text:
    match value:
        case None:
            return "-"
        case datetime():
            return words.stamp(value)
        case float():
            return f"{value:.3f}"
        case _:
            return styled(str(value)) if name == "outcome" else str(value)
