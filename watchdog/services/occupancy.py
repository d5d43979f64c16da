"""How many people are in the rooms: DescribeUserNum, ten rooms a call, within the AppId's pace.

    people = UserCount - AdminUserCount - users whose id matches ``zego.bot_user_ids``

The vendor counts admins itself; ``bots`` finds the bots.

Two kinds of callers share one pace. A verification, right before a stop, waits for the pace only. A background call
(``poller``) may use four fifths of the pace, and only one at a time waits in the queue of the verifications.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from watchdog.core.model import Evidence, Reply, RoomCount, Source
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.errors import RequestError
from watchdog.services.bots import Bots
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.zego.client import ROOMS_PER_CALL, ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

BACKGROUND_SHARE: Final = 0.8
"""The part of the pace that background calls may use."""

BACKGROUND_CALLS: Final = 16
"""Background calls in flight at once: if the vendor hangs, stop requests still get connections."""

_INPUT_INVALID: Final = "2"
"""InputInvalid, for example for a RoomId that the vendor does not allow."""

_ONE_ROOM_MAY_BE_TO_BLAME: Final = {ReplyClass.REJECTED, ReplyClass.CONFIGURATION}


class Occupancy:
    """Asks the RTC API, and logs when it gives no answer."""

    def __init__(
        self,
        zego: ZegoClient,
        pace: Pace[int],
        database_clock: DatabaseClock,
        *,
        bots: Bots | None = None,
        background: Pace[int] | None = None,
    ) -> None:
        """Without ``bots`` all users but the admins count as people. ``background`` is the pace of background calls."""
        self._zego = zego
        self._pace = pace
        self._database_clock = database_clock
        self._bots = bots
        self._background = background
        self._background_calls = asyncio.Semaphore(BACKGROUND_CALLS)
        self._background_turn: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refusals: dict[int, Reply] = {}

    def background_rate(self, app_id: int) -> float:
        """How many background calls a second are allowed now; infinite without a limit."""
        rate = self._pace.rate(app_id)
        return rate if self._background is None else min(rate, self._background.rate(app_id))

    def refusal(self, app_id: int) -> Reply | None:
        """The reply that refused this AppId's credentials; None if the last answer accepted them."""
        return self._refusals.get(app_id)

    async def ask(self, app_id: int, room_ids: Sequence[str], *, in_background: bool = False) -> Mapping[str, Evidence]:
        """Return the vendor's evidence for each room, dated before its request was sent.

        A room is missing if its call got no answer. A room that the answer leaves out has the ``user_count`` None:
        unknown, not empty.
        """
        rooms = sorted(set(room_ids))
        calls = [rooms[start : start + ROOMS_PER_CALL] for start in range(0, len(rooms), ROOMS_PER_CALL)]
        return _merged(await asyncio.gather(*(self._call(app_id, call, in_background=in_background) for call in calls)))

    async def _call(self, app_id: int, rooms: Sequence[str], *, in_background: bool) -> Mapping[str, Evidence]:
        if in_background:
            async with self._background_calls:
                async with self._background_turn[app_id]:
                    if self._background is not None:
                        await self._background.depart(app_id)
                    await self._pace.depart(app_id)
                reply_class, answer = await self._request(app_id, rooms, in_background=True)
        else:
            await self._pace.depart(app_id)
            reply_class, answer = await self._request(app_id, rooms, in_background=False)
        if reply_class in _ONE_ROOM_MAY_BE_TO_BLAME and len(rooms) > 1:
            # One bad RoomId must not cost nine other rooms their answer.
            return _merged([await self._call(app_id, [room], in_background=in_background) for room in rooms])
        return answer

    async def _request(
        self, app_id: int, rooms: Sequence[str], *, in_background: bool
    ) -> tuple[ReplyClass | None, Mapping[str, Evidence]]:
        # For background calls the poller logs it, once.
        complain = log.debug if in_background else log.warning
        observed_at = self._database_clock.now()
        try:
            counts = await self._zego.user_counts(app_id, rooms)
        except RequestError as error:
            complain("occupancy_unreachable", app_id=app_id, rooms=len(rooms), error=str(error))
            return None, {}
        paces = [pace for pace in (self._pace, self._background) if pace is not None]
        # ``classify`` knows the codes of the ASR API; this code is the room API's own.
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
