"""How many people are in the rooms: DescribeUserNum, ten rooms a call, within the AppId's pace.

    people = UserCount - AdminUserCount - users whose id matches ``zego.bot_user_ids``

The vendor counts admins itself; ``bots`` finds the bots.

A verification, right before a stop, comes first. Its room waits until a slot of the pace comes; then one call takes the
ten most urgent rooms that wait. A background call (``poller``) may use four fifths of the pace, one at a time, and gets
a slot only if no verification waits when the slot comes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog

from watchdog.clock import Clock
from watchdog.core.capacity import ROOMS_PER_CALL
from watchdog.core.model import Evidence, Reply, RoomCount, Source
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.errors import RequestError
from watchdog.services.bots import Bots
from watchdog.services.sightings import Sightings
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

BACKGROUND_SHARE: Final = 0.8
"""The part of the pace that background calls may use."""

BACKGROUND_CALLS: Final = 16
"""Background calls in flight at once: if the vendor hangs, stop requests still get connections."""

REFUSED_SECONDS: Final = (15.0, 600.0)
"""How long a room that ZEGO refuses is not asked about again: at first, and twice as long each time, up to the second.

A single refusal may be ZEGO's mistake, and must not cost the room the time until its auto-stop.
"""

_REFUSED_ROOMS: Final = 10_000
_INPUT_INVALID: Final = "2"
"""InputInvalid, for example for a RoomId that the vendor does not allow."""

_WHOLE_APP: Final = {ReplyClass.CREDENTIALS, ReplyClass.CONFIGURATION}
"""Refusals that concern the AppId as a whole; one room alone is asked before CONFIGURATION is believed."""


@dataclass(slots=True, eq=False)
class _Question:
    """A room that waits for a verification; the smallest ``urgency`` goes first."""

    room_id: str
    urgency: float
    answer: asyncio.Future[Evidence | None]


@dataclass(slots=True)
class _App:
    """What waits and what is known for one AppId."""

    questions: list[_Question] = field(default_factory=list)
    background: asyncio.Future[None] | None = None
    """The background call that waits for a slot."""

    asking: asyncio.Task[None] | None = None
    background_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    refusal: tuple[ReplyClass, Reply] | None = None


class _RefusedRooms:
    """The rooms that ZEGO has refused alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[int, str], tuple[float, float]] = {}
        """Until when (monotonic) not to ask again, and how many seconds that was."""

    def has(self, app_id: int, room_id: str) -> bool:
        until, _ = self._until.get((app_id, room_id), (0.0, 0.0))
        return until > self._clock.monotonic()

    def note(self, app_id: int, room_id: str, reply: Reply) -> None:
        """Remember that ``reply`` refused the room; log it the first time."""
        first, most = REFUSED_SECONDS
        now = self._clock.monotonic()
        if len(self._until) >= _REFUSED_ROOMS:
            self._until = {room: (until, last) for room, (until, last) in self._until.items() if until > now - most}
        _, last = self._until.get((app_id, room_id), (0.0, 0.0))
        is_news = not last
        seconds = min(2 * last, most) if last else first
        self._until[app_id, room_id] = now + seconds, seconds
        if is_news:
            log.warning(
                "room_refused",
                app_id=app_id,
                room_id=room_id,
                code=reply.code,
                message=reply.message,
                request_id=reply.request_id,
                next_step="its tasks cannot be verified: is this the RoomId that was given to Start?",
            )


class Occupancy:
    """Asks the RTC API, and logs when it gives no answer."""

    def __init__(
        self,
        zego: ZegoClient,
        pace: Pace[int],
        database_clock: DatabaseClock,
        clock: Clock,
        *,
        bots: Bots | None = None,
        background: Pace[int] | None = None,
        sightings: Sightings | None = None,
    ) -> None:
        """Without ``bots`` all users but the admins count as people. ``background`` is the pace of background calls.

        ``sightings`` learns of the rooms with people.
        """
        self._zego = zego
        self._pace = pace
        self._database_clock = database_clock
        self._bots = bots
        self._background = background
        self._sightings = sightings or Sightings(clock)
        self._background_calls = asyncio.Semaphore(BACKGROUND_CALLS)
        self._apps: defaultdict[int, _App] = defaultdict(_App)
        self._refused_rooms = _RefusedRooms(clock)
        self._calls: set[asyncio.Task[None]] = set()

    def rooms_per_second(self, app_id: int) -> float:
        """How many rooms a second this daemon may verify now; infinite without a limit."""
        return ROOMS_PER_CALL * self._pace.rate(app_id)

    def background_rate(self, app_id: int) -> float:
        """How many background calls a second are allowed now; infinite without a limit."""
        rate = self._pace.rate(app_id)
        return rate if self._background is None else min(rate, self._background.rate(app_id))

    def refusal(self, app_id: int) -> tuple[ReplyClass, Reply] | None:
        """The reply that refused this AppId as a whole; None if the last answer accepted it."""
        return self._apps[app_id].refusal

    def is_refused(self, app_id: int, room_id: str) -> bool:
        """Whether ZEGO has refused this room alone, so that it is not asked about for a while."""
        return self._refused_rooms.has(app_id, room_id)

    async def verify(self, app_id: int, room_id: str, urgency: float) -> Evidence | None:
        """Return the vendor's evidence for one room, None without an answer; the smallest ``urgency`` goes first."""
        if self.is_refused(app_id, room_id):
            return None
        app = self._apps[app_id]
        question = _Question(room_id, urgency, asyncio.get_running_loop().create_future())
        app.questions.append(question)
        self._serve(app_id, app)
        return await question.answer

    async def ask(self, app_id: int, room_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """Return the vendor's evidence for at most ten rooms, in the background, dated before its request was sent.

        A room is missing if its call got no answer. A room that the answer leaves out has the ``user_count`` None:
        unknown, not empty.
        """
        rooms = sorted({room for room in room_ids if not self.is_refused(app_id, room)})
        if not rooms:
            return {}
        async with self._background_calls:
            return await self._call(app_id, rooms, in_background=True)

    def _serve(self, app_id: int, app: _App) -> None:
        if app.asking is None:
            app.asking = asyncio.create_task(self._use_slots(app_id, app))

    async def _use_slots(self, app_id: int, app: _App) -> None:
        """Decide when a slot comes what it is used for: the most urgent verifications, or else a background call."""
        try:
            while app.questions or app.background is not None:
                await self._pace.depart(app_id)
                rooms = _most_urgent(app)
                if rooms:
                    call = asyncio.create_task(self._answer(app_id, rooms))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                elif app.background is not None:
                    background, app.background = app.background, None
                    if not background.done():
                        background.set_result(None)
        except BaseException as error:
            _fail([question.answer for question in app.questions], error)
            if app.background is not None:
                _fail([app.background], error)
            raise
        finally:
            app.asking = None
            app.questions.clear()

    async def _background_slot(self, app_id: int, app: _App) -> None:
        app.background = asyncio.get_running_loop().create_future()
        self._serve(app_id, app)
        try:
            await app.background
        finally:
            app.background = None

    async def _answer(self, app_id: int, rooms: Mapping[str, Sequence[_Question]]) -> None:
        questions = [question for asked in rooms.values() for question in asked]
        try:
            answers = await self._request(app_id, sorted(rooms), in_background=False)
        except BaseException as error:
            _fail([question.answer for question in questions], error)
            raise
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(answers.get(question.room_id))

    async def _call(self, app_id: int, rooms: Sequence[str], *, in_background: bool) -> Mapping[str, Evidence]:
        """Wait for the pace, then request."""
        app = self._apps[app_id]
        if in_background:
            async with app.background_turn:
                if self._background is not None:
                    await self._background.depart(app_id)
                await self._background_slot(app_id, app)
        else:
            await self._pace.depart(app_id)
        return await self._request(app_id, rooms, in_background=in_background)

    async def _request(self, app_id: int, rooms: Sequence[str], *, in_background: bool) -> Mapping[str, Evidence]:
        """Send one request; split it if one of its rooms may be to blame for a refusal."""
        # For background calls the poller logs it, once.
        complain = log.debug if in_background else log.warning
        observed_at = self._database_clock.now()
        try:
            counts = await self._zego.user_counts(app_id, rooms)
        except RequestError as error:
            complain("occupancy_unreachable", app_id=app_id, rooms=len(rooms), error=str(error))
            return {}
        # ``classify`` knows the codes of the ASR API; this code is the room API's own.
        reply_class = ReplyClass.REJECTED if counts.reply.code == _INPUT_INVALID else classify(None, counts.reply)
        paces = [pace for pace in (self._pace, self._background) if pace is not None]
        if reply_class is ReplyClass.STOPPED:
            self._apps[app_id].refusal = None
            for pace in paces:
                pace.answered(app_id)
            seen = await asyncio.gather(
                *(self._evidence(app_id, room, counts.rooms.get(room), observed_at) for room in rooms)
            )
            answers = dict(zip(rooms, seen, strict=True))
            self._sightings.note(app_id, answers)
            return answers
        if reply_class is ReplyClass.THROTTLED:
            for pace in paces:
                pace.throttled(app_id)
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
        return await self._after_refusal(app_id, rooms, reply_class, counts.reply, in_background=in_background)

    async def _after_refusal(
        self, app_id: int, rooms: Sequence[str], reply_class: ReplyClass, reply: Reply, *, in_background: bool
    ) -> Mapping[str, Evidence]:
        if len(rooms) > 1 and reply_class is ReplyClass.CONFIGURATION:
            # One room alone shows whether the AppId is refused or another room.
            first = await self._call(app_id, rooms[:1], in_background=in_background)
            if not first:
                return {}
            return {**first, **await self._call(app_id, rooms[1:], in_background=in_background)}
        if len(rooms) > 1 and reply_class is ReplyClass.REJECTED:
            # One bad RoomId must not cost nine other rooms their answer. Halves find it in a few requests.
            middle = len(rooms) // 2
            answers = [
                await self._call(app_id, half, in_background=in_background) for half in (rooms[:middle], rooms[middle:])
            ]
            return {**answers[0], **answers[1]}
        if reply_class in _WHOLE_APP:
            self._apps[app_id].refusal = (reply_class, reply)
        elif reply_class is ReplyClass.REJECTED:
            self._refused_rooms.note(app_id, rooms[0], reply)
        return {}

    async def _evidence(self, app_id: int, room_id: str, count: RoomCount | None, observed_at: datetime) -> Evidence:
        if count is None:
            return Evidence(None, observed_at, Source.API)
        number = count.people if self._bots is None else await self._bots.people_among(app_id, room_id, count)
        return Evidence(number, observed_at, Source.API, others=max(0, count.users - number))


def _most_urgent(app: _App) -> dict[str, list[_Question]]:
    """Take the questions about the ten most urgent rooms; those that were cancelled go."""
    app.questions = sorted((one for one in app.questions if not one.answer.done()), key=lambda one: one.urgency)
    rooms: dict[str, list[_Question]] = {}
    for question in app.questions:
        if len(rooms) < ROOMS_PER_CALL or question.room_id in rooms:
            rooms.setdefault(question.room_id, []).append(question)
    app.questions = [one for one in app.questions if one.room_id not in rooms]
    return rooms


def _fail(waiting: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(error)
