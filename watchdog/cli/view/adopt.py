"""The screen of ``adopt``."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from watchdog.cli.view import words
from watchdog.cli.view.output import Column, note, say, show_table
from watchdog.core.kinds import KINDS
from watchdog.services.adopter import Adopted


def adopted_row(adopted: Adopted, *, applied: bool) -> Mapping[str, Any]:
    return {
        "registered": applied,
        "tasks": [asdict(task) for task in adopted.tasks],
        "running": adopted.running,
        "unusable": adopted.unusable,
        "unlisted": [{"app_id": one.app_id, "kind": one.kind, "error": str(one.error)} for one in adopted.unlisted],
    }


def print_adopted(adopted: Adopted, now: float, *, applied: bool) -> None:
    """Print the tasks that had no row; ``now`` is the Unix time."""
    moment, tasks = datetime.fromtimestamp(now, UTC), adopted.tasks
    if tasks:
        show_table(
            [
                Column("TASK", [task.task_id for task in tasks], least=20),
                Column("KIND", [task.kind for task in tasks]),
                Column("ROOM", [task.room_id for task in tasks], least=12),
                Column("APP", [str(task.app_id) for task in tasks], spare=1),
                Column("STARTED", [words.since(task.started_at, moment) if task.started_at else "" for task in tasks]),
            ]
        )
    these = "this 1" if len(tasks) == 1 else f"these {len(tasks):,}"
    said = f"{words.number(adopted.running, 'task')} of these kinds run at ZEGO"
    if not tasks:
        say(f"{said}; none of them is unregistered.")
    elif applied:
        note(f"{said}; {these} had no row, and a row is there now: zego-watchdog tasks")
        if any(KINDS[task.kind].brings_user for task in tasks):
            note("A player or digital human counts as a person in its room until you write its user into bot_user_id.")
    else:
        note(f"{said}; {these} without a row. To register: zego-watchdog adopt --apply")
    if adopted.unusable:
        note(f"Left out: {words.number(adopted.unusable, 'listed task')} without a usable TaskId, RoomId or time.")
