"""The tables of ``tasks`` and ``history``."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Final

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.output import Column, is_piped, note, show_table
from watchdog.core.kinds import KINDS
from watchdog.core.model import Status, Task
from watchdog.store.reports.history import Row
from watchdog.store.reports.tasks import Listing

_BY_WORTH: Final = (
    *("room_id", "reason", "outcome", "task_id", "code", "request_id", "attempts", "reaction_seconds"),
    *("seconds_before_auto_stop", "rejoined_after_seconds", "message", "due_at", "stopped_at"),
    *("empty_since", "auto_stop_at", "app_id", "kind"),
)
"""The columns of ``zego_stop_history``, most important first."""

_TITLES: Final = {"room_id": "ROOM", "task_id": "TASK", "app_id": "APP"}
_ROOM_LEAST: Final = 12
_TASK_LEAST: Final = 20
"""ZEGO's own TaskIds have 19 or 20 digits."""
_NARROW: Final = {"room_id": _ROOM_LEAST, "task_id": _TASK_LEAST, "message": 20}
_ALWAYS: Final = 3
"""How many columns of ``_BY_WORTH`` are shown even in the narrowest terminal."""


def task_row(task: Task) -> Row:
    """A task by the columns of ``zego_tasks``, for JSON."""
    return {field.name: getattr(task, field.name) for field in fields(Task)}


def print_tasks(listing: Listing, *, active_only: bool) -> None:
    """Print the tasks; ``active_only``: their status says nothing, so a terminal does without it."""
    now, rows = listing.now, listing.tasks
    are_all_default = all(KINDS[task.kind].is_default for task in rows)
    columns = [
        Column("TASK", [task.task_id for task in rows], least=_TASK_LEAST),
        Column("ROOM", [task.room_id for task in rows], spare=1, least=_ROOM_LEAST),
        Column("STATUS", [] if active_only and not is_piped() else [styled(task.status) for task in rows]),
        Column("PEOPLE", [people(task) for task in rows], right=True),
        Column("SOURCE", [source(task, now) for task in rows], spare=4),
        Column("EMPTY", [_empty_for(task, now) for task in rows], spare=2),
        Column("DUE", [_countdown(task, task.due_at, now) for task in rows]),
        Column("AUTO-STOP", [_countdown(task, task.auto_stop_at, now) for task in rows], spare=3),
        Column("HOLD", [_hold_left(task, now) for task in rows]),
        Column("TRIES", [str(task.attempts or "") for task in rows], spare=5, right=True),
        Column("APP", [str(task.app_id or "") for task in rows], spare=7),
        Column("ENDED", [words.since(task.ended_at, now) if task.ended_at else "" for task in rows], spare=6),
        Column("KIND", [] if not is_piped() and are_all_default else [task.kind for task in rows], spare=3),
    ]
    show_table([column for column in columns if column.cells])
    if listing.more:
        note(
            f"Shown: {words.number(len(rows), 'task')}; there are more: raise --limit, or filter with --room and --due."
        )


def print_history(rows: Sequence[Row]) -> None:
    """Print the time of each task's last attempt, and the columns of ``zego_stop_history``.

    The most important ones come first; a narrow terminal lacks the last ones.
    """
    when = Column("WHEN", [words.stamp(row["stopped_at"] or row["recorded_at"]) for row in rows])
    columns = [
        Column(
            _TITLES.get(name, name.upper().replace("_", " ")),
            [_cell(name, row[name]) for row in rows],
            spare=max(0, worth - _ALWAYS + 1),
            least=_NARROW.get(name),
        )
        for worth, name in enumerate(_BY_WORTH)
    ]
    show_table([when, *columns])


def no_tasks(status: Status | None, room: str | None, *, due: bool) -> str:
    """What an empty list of tasks means."""
    there = "" if room is None else f" in room {room}"
    if due:
        return f"No task{there} is due: no room has been empty for its grace period."
    kind = "task" if status is None else f"{status} task"
    if room is not None or status not in {None, Status.ACTIVE}:
        return f"No {kind}{there}. See all tasks: zego-watchdog tasks --status all"
    return f"No {kind}: the application registers each task with an INSERT into zego_tasks."


def no_history(*, filtered: bool) -> str:
    """What an empty history means."""
    if filtered:
        return "No task whose last attempt fits these options. Leave out an option, or start earlier with --since."
    return (
        "No attempt is recorded yet: a task appears here once the watchdog has tried or declined to stop it, or ZEGO "
        "has ended it."
    )


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
