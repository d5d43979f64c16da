"""Who is in the rooms, asked right before a stop: DescribeUserNum, ten rooms a call, within the AppId's pace."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from watchdog.errors import RequestError
from watchdog.model import Evidence, Source
from watchdog.outcomes import ReplyClass, classify
from watchdog.pacing import Pace
from watchdog.storage import Storage
from watchdog.zego import ROOMS_PER_CALL, ZegoClient

log = structlog.get_logger(__name__)

_ONE_ROOM_MAY_BE_TO_BLAME: Final = {ReplyClass.REJECTED, ReplyClass.CONFIGURATION}


class Occupancy:
    """Asks the RTC API; that it gives no answer is logged here."""

    def __init__(self, zego: ZegoClient, pace: Pace, storage: Storage) -> None:
        self._zego = zego
        self._pace = pace
        self._storage = storage

    async def ask(self, app_id: int, room_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """Return what the vendor said of any number of rooms; an observation is dated before its request left.

        A room is missing when its call got no answer. A room that an answer passed over is there with a ``user_count``
        of None: absence is not emptiness.
        """
        rooms = sorted(set(room_ids))
        calls = [rooms[start : start + ROOMS_PER_CALL] for start in range(0, len(rooms), ROOMS_PER_CALL)]
        return _merged(await asyncio.gather(*(self._call(app_id, call) for call in calls)))

    async def _call(self, app_id: int, rooms: Sequence[str]) -> Mapping[str, Evidence]:
        await self._pace.acquire(app_id)
        observed_at = self._storage.now()
        try:
            counts = await self._zego.user_counts(app_id, rooms)
        except RequestError as error:
            log.warning("occupancy_unreachable", app_id=app_id, rooms=len(rooms), error=str(error))
            return {}
        match reply_class := classify(counts.reply):
            case ReplyClass.STOPPED:
                self._pace.answered(app_id)
                people = {room: counts.rooms[room].people if room in counts.rooms else None for room in rooms}
                return {room: Evidence(count, observed_at, Source.API) for room, count in people.items()}
            case ReplyClass.THROTTLED:
                self._pace.throttled(app_id)
        log.warning(
            "occupancy_refused",
            app_id=app_id,
            rooms=len(rooms),
            reply_class=reply_class.value,
            http_status=counts.reply.http_status,
            code=counts.reply.code,
            message=counts.reply.message,
            request_id=counts.reply.request_id,
        )
        if reply_class in _ONE_ROOM_MAY_BE_TO_BLAME and len(rooms) > 1:
            # An odd room id must not cost nine others their answer.
            return _merged([await self._call(app_id, [room]) for room in rooms])
        return {}


def _merged(answers: Sequence[Mapping[str, Evidence]]) -> Mapping[str, Evidence]:
    return {room: evidence for answer in answers for room, evidence in answer.items()}
