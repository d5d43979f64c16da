"""``room``: who is in a room now, asked of ZEGO, and how each user is counted. It helps to find the ids of bots."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.output import show_json
from watchdog.cli.view.room import Room, print_room, room_row
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.model import Reply, RoomCount, RoomUser
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.people import BOTS_AT_MOST, count_as, people, with_bots
from watchdog.errors import ConfigError, NoAnswer
from watchdog.store.engine import Engine
from watchdog.store.reports.tasks import find_tasks
from watchdog.wiring.from_config import zego_client
from watchdog.zego.client import ZegoClient

_INPUT_INVALID: Final = "2"
"""The room API's code for a RoomId that it does not accept."""

_USERS_AT_MOST: Final = 1000
_PAGE: Final = 100
_ROOM_SECONDS: Final = 1.05
"""DescribeUserList allows one request per second and room."""


def show_room(path: Path | None, room_id: str, *, app_id: int | None, as_json: bool) -> None:
    """Ask ZEGO and print the room.

    Raises NotSent, NoAnswer, typer.BadParameter for a RoomId that ZEGO refuses, ConfigError for an AppId that is not
    configured.
    """
    with opened(path, with_secrets=True) as (config, database):
        room = _look(config, database, room_id, app_id, SystemClock())
    if as_json:
        show_json(room_row(room))
    else:
        print_room(room)


def _look(config: Config, database: Engine, room_id: str, app_id: int | None, clock: Clock) -> Room:
    known = [app.app_id for app in config.zego.apps]
    if app_id is None and not known:
        raise ConfigError("zego.apps is empty, so ZEGO cannot be asked: add your app with its server_secret_file")
    chosen = known[0] if app_id is None else app_id
    if chosen not in known:
        raise ConfigError(f"AppId {chosen} is not in zego.apps ({words.listed(known)}): add it there")
    listing = find_tasks(database, limit=1000, room_id=room_id)
    ours = [task for task in listing.tasks if (known[0] if task.app_id is None else task.app_id) == chosen]
    count, users, complete = asyncio.run(_ask(zego_client(config, clock), chosen, room_id, clock))
    patterns = with_bots(config.zego.bot_user_ids, (task.bot_user_id for task in ours))
    counted = [count_as(user, patterns) for user in users]
    few = 1 <= count.people <= BOTS_AT_MOST
    number = people(count, counted) if patterns and few and complete else count.people
    return Room(
        app_id=chosen,
        room_id=room_id,
        now=listing.now,
        count=count,
        users=counted,
        complete=complete,
        people=number,
        patterns=config.zego.bot_user_ids,
        tasks=ours,
    )


async def _ask(
    client: ZegoClient, app_id: int, room_id: str, clock: Clock
) -> tuple[RoomCount, Sequence[RoomUser], bool]:
    try:
        counts = await client.user_counts(app_id, [room_id])
        if classify(None, counts.reply) is ReplyClass.CLOCK:
            # The client has now learned the clock offset.
            counts = await client.user_counts(app_id, [room_id])
        count = counts.rooms.get(room_id)
        if count is None:
            raise _unusable("DescribeUserNum", counts.reply)
        users: list[RoomUser] = []
        marker = ""
        while len(users) < _USERS_AT_MOST:
            page = await client.user_list(app_id, room_id, limit=_PAGE, marker=marker)
            if classify(None, page.reply) is ReplyClass.THROTTLED:
                # The daemon may have asked about this room in the same second.
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
    """ConfigError if the answer blames the configuration, BadParameter if the RoomId, otherwise NoAnswer."""
    said = f"ZEGO answers {action} with code {reply.code or '-'} ({reply.message or f'HTTP {reply.http_status}'})"
    if classify(None, reply) in {ReplyClass.CREDENTIALS, ReplyClass.CONFIGURATION}:
        return ConfigError(f"{said}. Next step: zego-watchdog check")
    if reply.code == _INPUT_INVALID or classify(None, reply) is ReplyClass.REJECTED:
        return typer.BadParameter(f"{said}: is the RoomId right?", param_hint="'ROOM'")
    return NoAnswer(f"{said}: try again later")
