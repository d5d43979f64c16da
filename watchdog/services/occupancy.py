"""Who is in the rooms: DescribeUserNum, ten rooms a call, within the AppId's pace; people, not heads.

    people = UserCount - AdminUserCount - users whose id matches ``zego.bot_user_ids``

The vendor counts the admins itself. Bots are found in DescribeUserList, which is read only where so few users remain
that all of them could be bots. What cannot be found out counts as people.

Two kinds of callers share one pace. A verification, right before a stop, waits for the pace alone. Asking in the
background (``poller``) takes four fifths of it, and at most one of its calls at a time stands in the queue that
verifications stand in.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Evidence, Reply, RoomCount, Source
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.people import BOTS_AT_MOST, count_as, people
from watchdog.errors import RequestError
from watchdog.store.aio.threads import Storage
from watchdog.zego.client import ROOMS_PER_CALL, ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

BACKGROUND_SHARE: Final = 0.8
"""The part of the pace that asking in the background may use."""

BACKGROUND_CALLS: Final = 16
"""Background calls on the wire at once: a vendor that hangs must leave connections to those who stop tasks."""

_ROOM_SECONDS: Final = 1.0
"""DescribeUserList allows one request a second for each room."""

_ROOMS_REMEMBERED: Final = 10_000

_INPUT_INVALID: Final = "2"
"""A RoomId that the vendor does not allow, among others."""

_ONE_ROOM_MAY_BE_TO_BLAME: Final = {ReplyClass.REJECTED, ReplyClass.CONFIGURATION}


class Bots:
    """Looks into the lists of users for those that only look like people."""

    def __init__(self, patterns: Sequence[str], zego: ZegoClient, pace: Pace, clock: Clock) -> None:
        """``pace`` is DescribeUserList's own."""
        self._patterns = tuple(patterns)
        self._zego = zego
        self._pace = pace
        self._clock = clock
        self._next: dict[tuple[int, str], float] = {}

    def set_patterns(self, patterns: Sequence[str]) -> None:
        """Whom to take for a bot from now on."""
        self._patterns = tuple(patterns)

    async def people_among(self, app_id: int, room_id: str, count: RoomCount) -> int:
        """Return how many of the users are people; in doubt all of them that are not admins."""
        if not self._patterns or not 1 <= count.people <= BOTS_AT_MOST:
            return count.people
        await self._rooms_turn(app_id, room_id)
        await self._pace.acquire(app_id)
        try:
            listed = await self._zego.user_list(app_id, room_id)
        except RequestError as error:
            log.debug("user_list_unreachable", app_id=app_id, room_id=room_id, error=str(error))
            return count.people
        if classify(listed.reply) is ReplyClass.THROTTLED:
            self._pace.throttled(app_id)
        else:
            self._pace.answered(app_id)
        if listed.users is None or listed.marker:
            log.debug("user_list_unusable", app_id=app_id, room_id=room_id, code=listed.reply.code)
            return count.people
        return people(count, [count_as(user, self._patterns) for user in listed.users])

    async def _rooms_turn(self, app_id: int, room_id: str) -> None:
        now = self._clock.monotonic()
        if len(self._next) > _ROOMS_REMEMBERED:
            self._next = {room: at for room, at in self._next.items() if at > now}
        at = max(now, self._next.get((app_id, room_id), now))
        self._next[app_id, room_id] = at + _ROOM_SECONDS
        if at > now:
            await self._clock.sleep(at - now)


class Occupancy:
    """Asks the RTC API; that it gives no answer is logged here."""

    def __init__(
        self,
        zego: ZegoClient,
        pace: Pace,
        storage: Storage,
        *,
        bots: Bots | None = None,
        background: Pace | None = None,
    ) -> None:
        """Without ``bots`` everybody who is no admin is a person. ``background`` slows down background calls."""
        self._zego = zego
        self._pace = pace
        self._storage = storage
        self._bots = bots
        self._background = background
        self._background_calls = asyncio.Semaphore(BACKGROUND_CALLS)
        self._background_turn: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refusals: dict[int, Reply] = {}

    def background_rate(self, app_id: int) -> float:
        """Return how many calls a second may be made in the background at present; infinite without a limit."""
        rate = self._pace.rate(app_id)
        return rate if self._background is None else min(rate, self._background.rate(app_id))

    def refusal(self, app_id: int) -> Reply | None:
        """Return the reply that refused this AppId's credentials, unless it has been served since."""
        return self._refusals.get(app_id)

    async def ask(self, app_id: int, room_ids: Sequence[str], *, in_background: bool = False) -> Mapping[str, Evidence]:
        """Return what the vendor said of any number of rooms; an observation is dated before its request left.

        A room is missing when its call got no answer. A room that an answer passed over is there with a ``user_count``
        of None: absence is not emptiness.
        """
        rooms = sorted(set(room_ids))
        calls = [rooms[start : start + ROOMS_PER_CALL] for start in range(0, len(rooms), ROOMS_PER_CALL)]
        return _merged(await asyncio.gather(*(self._call(app_id, call, in_background=in_background) for call in calls)))

    async def _call(self, app_id: int, rooms: Sequence[str], *, in_background: bool) -> Mapping[str, Evidence]:
        if in_background:
            async with self._background_calls:
                async with self._background_turn[app_id]:
                    if self._background is not None:
                        await self._background.acquire(app_id)
                    await self._pace.acquire(app_id)
                reply_class, answer = await self._request(app_id, rooms, in_background=True)
        else:
            await self._pace.acquire(app_id)
            reply_class, answer = await self._request(app_id, rooms, in_background=False)
        if reply_class in _ONE_ROOM_MAY_BE_TO_BLAME and len(rooms) > 1:
            # An odd room id must not cost nine others their answer.
            return _merged([await self._call(app_id, [room], in_background=in_background) for room in rooms])
        return answer

    async def _request(
        self, app_id: int, rooms: Sequence[str], *, in_background: bool
    ) -> tuple[ReplyClass | None, Mapping[str, Evidence]]:
        # In the background it is the poller that says so, once: eight times a second helps nobody.
        complain = log.debug if in_background else log.warning
        observed_at = self._storage.now()
        try:
            counts = await self._zego.user_counts(app_id, rooms)
        except RequestError as error:
            complain("occupancy_unreachable", app_id=app_id, rooms=len(rooms), error=str(error))
            return None, {}
        paces = [pace for pace in (self._pace, self._background) if pace is not None]
        # To the ASR API, whose codes ``classify`` knows, this one means nothing; it is the room API's own.
        reply_class = ReplyClass.REJECTED if counts.reply.code == _INPUT_INVALID else classify(counts.reply)
        match reply_class:
            case ReplyClass.STOPPED:
                self._refusals.pop(app_id, None)
                for pace in paces:
                    pace.answered(app_id)
                seen = await asyncio.gather(
                    *(self._evidence(app_id, room, counts.rooms.get(room), observed_at) for room in rooms)
                )
                return reply_class, dict(zip(rooms, seen, strict=True))
            case ReplyClass.THROTTLED:
                for pace in paces:
                    pace.throttled(app_id)
            case ReplyClass.CREDENTIALS:
                self._refusals[app_id] = counts.reply
        complain(
            "occupancy_refused",
            app_id=app_id,
            rooms=len(rooms),
            reply_class=reply_class.value,
            http_status=counts.reply.http_status,
            code=counts.reply.code,
            message=counts.reply.message,
            request_id=counts.reply.request_id,
        )
        return reply_class, {}

    async def _evidence(self, app_id: int, room_id: str, count: RoomCount | None, observed_at: datetime) -> Evidence:
        if count is None:
            return Evidence(None, observed_at, Source.API)
        number = count.people if self._bots is None else await self._bots.people_among(app_id, room_id, count)
        return Evidence(number, observed_at, Source.API, others=max(0, count.users - number))


def _merged(answers: Sequence[Mapping[str, Evidence]]) -> Mapping[str, Evidence]:
    return {room: evidence for answer in answers for room, evidence in answer.items()}
