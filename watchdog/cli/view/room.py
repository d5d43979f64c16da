"""The screen of ``room``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from watchdog.cli.view import tasks, words
from watchdog.cli.view.output import Column, heading, note, say, show_table
from watchdog.core.model import RoomCount, Task
from watchdog.core.people import BOTS_AT_MOST, Counted

_TASKS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Room:
    """A room as ZEGO reports it, with the tasks that are stored for it.

    ``users`` is incomplete unless ``complete``; ``people`` is the number that counts, ``patterns`` zego.bot_user_ids.
    """

    app_id: int
    room_id: str
    now: datetime
    count: RoomCount
    users: Sequence[Counted]
    complete: bool
    people: int
    patterns: Sequence[str]
    tasks: Sequence[Task]


def room_row(room: Room) -> Mapping[str, Any]:
    return {
        "app_id": room.app_id,
        "room_id": room.room_id,
        "now": room.now,
        "user_count": room.count.users,
        "admin_user_count": room.count.admins,
        "people": room.people,
        "complete": room.complete,
        "bot_user_ids": room.patterns,
        "users": [
            {
                **asdict(one.user),
                "counted_as": _kind(one),
                "pattern": one.pattern if one.pattern in room.patterns else None,
                "why": _why(room, one),
            }
            for one in room.users
        ],
        "tasks": [tasks.task_row(task) for task in room.tasks],
    }


def print_room(room: Room) -> None:
    say(f"Room {room.room_id}, AppId {room.app_id}: {words.people(room.people)}", "bold")
    say(f"ZEGO counts {words.number(room.count.users, 'user')}{_of_these(room)}.")
    heading("Users")
    if room.users:
        show_table(
            [
                Column("USER", [one.user.user_id for one in room.users], least=20),
                Column("NAME", [one.user.name for one in room.users], spare=2, least=12),
                Column("ROLE", ["?" if one.user.role is None else str(one.user.role) for one in room.users], spare=1),
                Column("COUNTED AS", [_kind(one) for one in room.users]),
                Column("WHY", [_why(room, one) for one in room.users], spare=3),
            ]
        )
    else:
        say("None. ZEGO also reports a room that does not exist as empty: is the RoomId right?")
    if not room.complete:
        note(f"There are more users than these {len(room.users)}.")
    heading("Tasks")
    if room.tasks:
        _print_tasks(room)
    else:
        say("No active task is stored for this room.")
    note(_advice(room))


def _of_these(room: Room) -> str:
    if not room.count.users:
        return ""
    number = room.count.users - room.people
    uncounted = f"{number:,} {'does' if number == 1 else 'do'} not count as people" if number else "all count as people"
    return f", including {words.number(room.count.admins, 'admin')}; {uncounted}"


def _print_tasks(room: Room) -> None:
    shown = room.tasks[:_TASKS_SHOWN]
    show_table(
        [
            Column("TASK", [task.task_id for task in shown]),
            Column("PEOPLE", [tasks.people(task) for task in shown], right=True),
            Column("SOURCE", [tasks.source(task, room.now) for task in shown]),
            Column("DUE", [words.until(task.due_at, room.now) if task.due_at else "" for task in shown]),
        ]
    )
    if any(task.user_count is not None and task.user_count != room.people for task in shown):
        note("The stored number of people differs from ZEGO's; the later one counts.")


def _kind(counted: Counted) -> str:
    return "admin" if counted.is_admin else "bot" if counted.pattern is not None else "person"


def _why(room: Room, counted: Counted) -> str:
    if counted.is_admin:
        return "has ZEGO's admin role (4), so it is in AdminUserCount"
    if counted.pattern in room.patterns:
        return f"matches {counted.pattern} in zego.bot_user_ids"
    if counted.pattern is not None:
        brought_by = [task.task_id for task in room.tasks if task.bot_user_id == counted.user.user_id]
        return f"is the bot_user_id of task {words.listed(brought_by)}"
    return "matches no pattern in zego.bot_user_ids"


def _advice(room: Room) -> str:
    knows_bots = room.patterns or any(task.bot_user_id is not None for task in room.tasks)
    if room.people > BOTS_AT_MOST and knows_bots:
        return f"More than {BOTS_AT_MOST} users are left, so the daemon does not look for bots: some must be people."
    person = next((one.user.user_id for one in room.users if one.is_person), None)
    if person is None:
        return "" if not room.users else "No user counts as a person: the watchdog treats this room as empty."
    return f'If one of them is a bot, add a pattern of its id: zego.bot_user_ids: ["{person}"]'
