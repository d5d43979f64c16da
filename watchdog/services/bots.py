"""Bots: users that ZEGO counts and that are not people.

They are known by patterns of ids, and because a registered task brings them into its room. They are found in
DescribeUserList, which is read only if so few users remain that all of them could be bots. If it cannot be read soon,
all of them count as people.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.model import RoomCount, RoomUser
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.people import BOTS_AT_MOST, count_as, people, with_bots
from watchdog.errors import DatabaseError, RequestError
from watchdog.store.aio.calls import AsyncBots
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

ASK_AGAIN_SECONDS: Final = 5.0
"""How long it is believed that no active task brings a user along: without agents, rooms cost the database nothing."""

_LISTS_PER_ROOM_AND_SECOND: Final = 1.0
"""ZEGO, "DescribeUserList"."""

_TRY_AGAIN_SECONDS: Final = 4.0
"""How long a list that could not be read is asked for again. Taken for people, an agent alone would begin a new empty
period, and ZEGO, which counts on, would end it first. After this time the number of users is too old as well."""

_LATE_SECONDS: Final = 1.5
"""A list that takes longer is asked for once more; the first answer counts."""


class RegisteredBots:
    """The users that active tasks bring into their rooms, read from the database when a room may have some."""

    def __init__(self, store: AsyncBots, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._are_known = False
        self._ask_again_at = -math.inf
        self._asking = asyncio.Lock()

    async def of(self, app_id: int, room_id: str) -> Sequence[str]:
        """Return the ids for one room; none if the database fails, so that they count as people and no stop fails."""
        try:
            async with self._asking:
                if self._clock.monotonic() >= self._ask_again_at:
                    self._put_off()
                    self._are_known = await self._store.are_known()
            return await self._store.of(app_id, room_id) if self._are_known else ()
        except DatabaseError as error:
            log.debug("registered_bots_unknown", app_id=app_id, room_id=room_id, error=str(error))
            self._put_off()
            return ()

    def _put_off(self) -> None:
        """Ask nothing for a while: a database that does not answer must not hold up every room."""
        self._are_known = False
        self._ask_again_at = self._clock.monotonic() + ASK_AGAIN_SECONDS


class Bots:
    """Finds bots in the rooms' lists of users."""

    def __init__(
        self,
        patterns: Sequence[str],
        zego: ZegoClient,
        pace: Pace[int],
        clock: Clock,
        registered: RegisteredBots | None = None,
    ) -> None:
        """``patterns`` are shell patterns of user ids. ``pace`` is the pace of DescribeUserList."""
        self._patterns = tuple(patterns)
        self._zego = zego
        self._pace = pace
        self._registered = registered
        self._clock = clock
        self._room_pace = Pace[tuple[int, str]](_LISTS_PER_ROOM_AND_SECOND, clock=clock)

    def set_patterns(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)

    async def people_among(self, app_id: int, room_id: str, count: RoomCount) -> int:
        """How many of the users are people; in doubt all of them but the admins."""
        if not 1 <= count.people <= BOTS_AT_MOST:
            return count.people
        registered = () if self._registered is None else await self._registered.of(app_id, room_id)
        patterns = with_bots(self._patterns, registered)
        if not patterns:
            return count.people
        listed = await self._list(app_id, room_id)
        return count.people if listed is None else people(count, [count_as(user, patterns) for user in listed])

    async def _list(self, app_id: int, room_id: str) -> Sequence[RoomUser] | None:
        """Return all users of a room, None if they cannot be read soon."""
        until = self._clock.monotonic() + _TRY_AGAIN_SECONDS
        asked: set[asyncio.Task[Sequence[RoomUser] | None]] = set()
        try:
            while self._clock.monotonic() < until:
                await self._room_pace.depart((app_id, room_id))
                await self._pace.depart(app_id)
                asked.add(asyncio.create_task(self._request(app_id, room_id)))
                answered, asked = await asyncio.wait(asked, timeout=_LATE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in answered:
                    if (listed := task.result()) is not None:
                        return listed
            return None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _request(self, app_id: int, room_id: str) -> Sequence[RoomUser] | None:
        """Send one request; return None without a complete list."""
        try:
            listed = await self._zego.user_list(app_id, room_id)
        except RequestError as error:
            log.debug("user_list_unreachable", app_id=app_id, room_id=room_id, error=str(error))
            return None
        if classify(None, listed.reply) is ReplyClass.THROTTLED:
            self._pace.throttled(app_id)
        else:
            self._pace.answered(app_id)
        if listed.users is None or listed.marker:
            log.debug("user_list_unusable", app_id=app_id, room_id=room_id, code=listed.reply.code)
            return None
        return listed.users
