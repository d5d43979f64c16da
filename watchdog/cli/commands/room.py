"""Who is in a room now, by ZEGO, and how each user is counted: for finding out who is a bot."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from watchdog.cli.view import screens, words
from watchdog.cli.view.screens import Column
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.model import Reply, RoomCount, RoomUser, Task
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.people import BOTS_AT_MOST, Counted, count_as, people
from watchdog.errors import ConfigError, NoAnswer
from watchdog.store.engine import Engine
from watchdog.store.reports import tasks as reports
from watchdog.wiring import from_config
from watchdog.zego.client import ZegoClient

USERS_AT_MOST: Final = 1000
_PAGE: Final = 100
_ROOM_SECONDS: Final = 1.05
"""DescribeUserList takes one request a second for each room."""
_TASKS: Final = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A room as ZEGO has it, and what is known of it here."""

    app_id: int
    room_id: str
    now: datetime
    count: RoomCount
    users: Sequence[Counted]
    complete: bool
    people: int
    patterns: Sequence[str]
    tasks: Sequence[Task]


def look(config: Config, database: Engine, room_id: str, app_id: int | None, clock: Clock) -> Seen:
    """Ask ZEGO. Raises NotSent, NoAnswer without a usable answer, ConfigError for an AppId that is not ours."""
    known = [app.app_id for app in config.zego.apps]
    if app_id is None and not known:
        raise ConfigError("zego.apps is empty, so ZEGO cannot be asked: add your app with its server_secret_file")
    chosen = known[0] if app_id is None else app_id
    if chosen not in known:
        raise ConfigError(f"AppId {chosen} is not among zego.apps ({words.listed(known)}): add it there")
    listing = reports.find_tasks(database, limit=1000, room_id=room_id)
    ours = [task for task in listing.tasks if (known[0] if task.app_id is None else task.app_id) == chosen]
    count, users, complete = asyncio.run(_ask(from_config.zego_client(config, clock), chosen, room_id, clock))
    patterns = config.zego.bot_user_ids
    counted = [count_as(user, patterns) for user in users]
    few = 1 <= count.people <= BOTS_AT_MOST
    number = people(count, counted) if patterns and few and complete else count.people
    return Seen(chosen, room_id, listing.now, count, counted, complete, number, patterns, ours)


async def _ask(
    client: ZegoClient, app_id: int, room_id: str, clock: Clock
) -> tuple[RoomCount, Sequence[RoomUser], bool]:
    try:
        counts = await client.user_counts(app_id, [room_id])
        if classify(counts.reply) is ReplyClass.CLOCK:
            # The client has learned the offset.
            counts = await client.user_counts(app_id, [room_id])
        count = counts.rooms.get(room_id)
        if count is None:
            raise _unusable("DescribeUserNum", counts.reply)
        users: list[RoomUser] = []
        marker = ""
        while len(users) < USERS_AT_MOST:
            page = await client.user_list(app_id, room_id, limit=_PAGE, marker=marker)
            if classify(page.reply) is ReplyClass.THROTTLED:
                # The daemon may have asked about this room a moment ago.
                await clock.sleep(_ROOM_SECONDS)
                page = await client.user_list(app_id, room_id, limit=_PAGE, marker=marker)
            if page.users is None:
                raise _unusable("DescribeUserList", page.reply)
            users += page.users
            marker = page.marker
            if not marker or not page.users:
                return count, users, True
            await clock.sleep(_ROOM_SECONDS)
        return count, users, False
    finally:
        await client.aclose()


def _unusable(action: str, reply: Reply) -> Exception:
    """What ZEGO answered instead: an error of the configuration, or one that may pass."""
    said = f"ZEGO answers {action} with code {reply.code or '-'} ({reply.message or f'HTTP {reply.http_status}'})"
    if classify(reply) in {ReplyClass.CREDENTIALS, ReplyClass.CONFIGURATION, ReplyClass.REJECTED}:
        return ConfigError(f"{said}. Is the RoomId right? What to do: zego-watchdog check")
    return NoAnswer(f"{said}: try again later")


def how(counted: Counted) -> str:
    """``person``, ``admin`` or ``bot``."""
    return "admin" if counted.is_admin else "bot" if counted.pattern is not None else "person"


def why(counted: Counted) -> str:
    """The rule behind it, in words."""
    if counted.is_admin:
        return "ZEGO gives it the admin role (4) and counts it as AdminUserCount"
    if counted.pattern is not None:
        return f"matches {counted.pattern} in zego.bot_user_ids"
    return "matches no pattern in zego.bot_user_ids"


def as_json(seen: Seen) -> Mapping[str, Any]:
    return {
        "app_id": seen.app_id,
        "room_id": seen.room_id,
        "now": seen.now,
        "user_count": seen.count.users,
        "admin_user_count": seen.count.admins,
        "people": seen.people,
        "complete": seen.complete,
        "bot_user_ids": seen.patterns,
        "users": [
            {
                "user_id": one.user.user_id,
                "name": one.user.name,
                "role": one.user.role,
                "counted_as": how(one),
                "pattern": one.pattern,
                "why": why(one),
            }
            for one in seen.users
        ],
        "tasks": [screens.task_row(task) for task in seen.tasks],
    }


def show(seen: Seen) -> None:
    """What there is to see, then what is believed, then what to do about bots."""
    screens.say(f"Room {seen.room_id}, AppId {seen.app_id}: {words.people(seen.people)}", "bold")
    screens.say(
        f"ZEGO counts {words.number(seen.count.users, 'user')}, {seen.count.admins:,} of them admins; "
        f"{seen.count.users - seen.people:,} do not count as people."
    )
    screens.heading("Users")
    if seen.users:
        screens.show_table(
            [
                Column("USER", [one.user.user_id for one in seen.users]),
                Column("NAME", [one.user.name for one in seen.users], spare=2),
                Column("ROLE", ["?" if one.user.role is None else str(one.user.role) for one in seen.users], spare=1),
                Column("COUNTED AS", [Text(how(one)) for one in seen.users]),
                Column("WHY", [why(one) for one in seen.users], spare=3),
            ]
        )
    else:
        screens.say("Nobody. To ZEGO a room that it has never heard of is empty too: is the RoomId right?")
    if not seen.complete:
        screens.note(f"There are more than these {len(seen.users)}.")
    screens.heading("Tasks")
    if seen.tasks:
        _show_tasks(seen)
    else:
        screens.say("No active task in this room is known here.")
    screens.note(_advice(seen))


def _show_tasks(seen: Seen) -> None:
    shown = seen.tasks[:_TASKS]
    screens.show_table(
        [
            Column("TASK", [task.task_id for task in shown]),
            Column("PEOPLE", ["?" if task.user_count is None else str(task.user_count) for task in shown], right=True),
            Column("SAID", [_said(task, seen.now) for task in shown]),
            Column("DUE", [words.until(task.due_at, seen.now) if task.due_at else "" for task in shown]),
        ]
    )
    if any(task.user_count is not None and task.user_count != seen.people for task in shown):
        screens.note("What is believed differs from what ZEGO says now; the later word counts.")


def _said(task: Task, now: datetime) -> str:
    if task.user_count is None or task.user_count_at is None:
        return "nobody"
    return f"{task.user_count_source}, {words.since(task.user_count_at, now)}"


def _advice(seen: Seen) -> str:
    if seen.people > BOTS_AT_MOST and seen.patterns:
        return f"With more than {BOTS_AT_MOST} users left, bots are not looked for: not all of these can be bots."
    person = next((one.user.user_id for one in seen.users if one.is_person), None)
    if person is None:
        return "" if not seen.users else "Nobody here counts as a person: to the watchdog this room is empty."
    return f'Is one of them no person? Add a pattern of its id: zego.bot_user_ids: ["{person}"]'
