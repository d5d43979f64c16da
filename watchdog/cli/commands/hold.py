"""``hold``."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import typer

from watchdog.cli.commands.lookup import active_task, find_biography, opened
from watchdog.cli.view import words
from watchdog.cli.view.output import note, say, show_json
from watchdog.cli.view.tasks import task_row
from watchdog.core.model import Task
from watchdog.core.policy import Policy, plan
from watchdog.errors import Busy
from watchdog.store.reports.tasks import hold
from watchdog.wiring.from_config import rules


def hold_task(path: Path | None, task_id: str, *, length: str | None, until: str | None, as_json: bool) -> None:
    """Set the hold, or end it if both ``length`` and ``until`` are None. Raises Refused, Busy, typer.BadParameter."""
    seconds = None if length is None else words.parse_length(length, "'--for'").total_seconds()
    end = None if until is None else words.parse_moment(until, "'--until'")
    with opened(path) as (config, database):
        story = find_biography(database, task_id)
        active_task(story, task_id)
        if end is not None and end <= story.now:
            raise typer.BadParameter(
                f"{words.stamp(end)} is in the past: it is {words.stamp(story.now)}", param_hint="'--until'"
            )
        changed = hold(database, task_id, seconds=seconds, until=end)
        if changed is None:
            raise Busy(f"task {task_id}: its row changed in the meantime; try again")
    now, task = changed
    if as_json:
        show_json(task_row(task))
    elif task.hold_until is None:
        say(f"Task {task_id}: no hold")
    else:
        say(f"Task {task_id}: on hold until {words.stamp(task.hold_until)} ({words.until(task.hold_until, now)})")
    for warning in _warnings(task, rules(config), now):
        note(f"Warning: {warning}")


def _warnings(task: Task, policy: Policy, now: datetime) -> Iterator[str]:
    if task.claimed_by is not None and task.wake_at is not None and task.wake_at > now:
        yield f"{task.claimed_by} is working on this task; a request that was already sent cannot be cancelled."
    planned = plan(task, policy, now)
    ends_at = None if planned is None else planned.auto_stop_at
    if ends_at is not None and task.hold_until is not None and task.hold_until > ends_at:
        yield (
            f"ZEGO does not know about the hold: if the room stays empty, it ends this task"
            f" {words.until(ends_at, now)} ({words.stamp(ends_at)})."
        )
