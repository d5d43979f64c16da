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

_TRY_AGAIN_SECONDS: Final = 2.5
"""How long a list that could not be read is asked for again. Taken for people, an agent alone would begin a new empty
period, and ZEGO, which counts on, would end it first. After this time the number of users is too old as well."""


REMEMBERED_SECONDS: Final = 60.0
"""How long such a user may stay in ZEGO's list after its task has ended. Taken for a person, it would have returned."""

_ROOMS_REMEMBERED: Final = 10_000


class RegisteredBots:
    """The users that active tasks bring into their rooms, read from the database when a room may have some."""

    def __init__(self, store: AsyncBots, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._are_known = False
        self._ask_again_at = -math.inf
        self._asking = asyncio.Lock()
        self._remembered: dict[tuple[int, str], tuple[float, Sequence[str]]] = {}

    async def of(self, app_id: int, room_id: str) -> Sequence[str]:
        """Return the ids for one room. None if the database fails: then they count as people, and no stop fails."""
        try:
            async with self._asking:
                if self._clock.monotonic() >= self._ask_again_at:
                    self._put_off()
                    self._are_known = await self._store.are_known()
            found = await self._store.of(app_id, room_id) if self._are_known else ()
            return self._with_remembered((app_id, room_id), found)
        except DatabaseError as error:
            log.debug("registered_bots_unknown", app_id=app_id, room_id=room_id, error=str(error))
            self._put_off()
            self._remembered.clear()
            return ()

    def _with_remembered(self, room: tuple[int, str], found: Sequence[str]) -> Sequence[str]:
        now = self._clock.monotonic()
        until, before = self._remembered.pop(room, (-math.inf, ()))
        if found:
            if len(self._remembered) >= _ROOMS_REMEMBERED:
                self._remembered = {one: kept for one, kept in self._remembered.items() if kept[0] > now}
            self._remembered[room] = now + REMEMBERED_SECONDS, found
        elif now < until:
            self._remembered[room] = until, before
        return found if found or now >= until else before

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
        began = self._clock.monotonic()
        listed = await self._list(app_id, room_id)
        while listed is None and self._clock.monotonic() < began + _TRY_AGAIN_SECONDS:
            listed = await self._list(app_id, room_id)
        return count.people if listed is None else people(count, [count_as(user, patterns) for user in listed])

    async def _list(self, app_id: int, room_id: str) -> Sequence[RoomUser] | None:
        """Return all users of a room, None if they cannot be read."""
        await self._room_pace.depart((app_id, room_id))
        await self._pace.depart(app_id)
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
