"""Who is in the rooms, asked right before a stop: DescribeUserNum, ten rooms a call, within the AppId's pace."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from watchdog.errors import RequestError
from watchdog.model import Evidence, Source
from watchdog.outcomes import ReplyClass, classify
from watchdog.pacing import Pace
from watchdog.storage import Storage
from watchdog.zego import ROOMS_PER_CALL, ZegoClient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the vendor said of some rooms. ``answered`` False: it could not be asked, and ``rooms`` is empty.

    Every room of an answer is there; one that the vendor passed over has a ``user_count`` of None, for absence is not
    emptiness.
    """

    answered: bool
    rooms: Mapping[str, Evidence] = field(default_factory=dict)


class Occupancy:
    """Asks the RTC API; a failure is an answer too, and is logged here."""

    def __init__(self, zego: ZegoClient, pace: Pace, storage: Storage) -> None:
        self._zego = zego
        self._pace = pace
        self._storage = storage

    async def ask(self, app_id: int, room_ids: Sequence[str]) -> Asked:
        """Ask about any number of rooms; an observation is dated before its request left."""
        rooms = sorted(set(room_ids))
        calls = [rooms[start : start + ROOMS_PER_CALL] for start in range(0, len(rooms), ROOMS_PER_CALL)]
        answers = await asyncio.gather(*(self._call(app_id, call) for call in calls))
        return Asked(
            all(answer.answered for answer in answers),
            {room: evidence for answer in answers for room, evidence in answer.rooms.items()},
        )

    async def _call(self, app_id: int, rooms: Sequence[str]) -> Asked:
        await self._pace.acquire(app_id)
        observed_at = self._storage.now()
        try:
            counts = await self._zego.user_counts(app_id, rooms)
        except RequestError as error:
            log.warning("occupancy_unreachable", app_id=app_id, rooms=len(rooms), error=str(error))
            return Asked(answered=False)
        reply_class = classify(counts.reply)
        if reply_class is ReplyClass.THROTTLED:
            self._pace.throttled(app_id)
        if reply_class is not ReplyClass.STOPPED:
            log.warning(
                "occupancy_refused",
                app_id=app_id,
                rooms=len(rooms),
                reply_class=reply_class,
                http_status=counts.reply.http_status,
                code=counts.reply.code,
                message=counts.reply.message,
                request_id=counts.reply.request_id,
            )
            return Asked(answered=False)
        self._pace.answered(app_id)
        return Asked(
            answered=True,
            rooms={
                room: Evidence(counts.rooms[room].people if room in counts.rooms else None, observed_at, Source.API)
                for room in rooms
            },
        )
