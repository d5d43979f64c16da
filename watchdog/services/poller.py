"""Polls ZEGO for the occupancy of every active room, and of rooms whose task was stopped lately.

    begin:  take rooms, oldest evidence first ──► ask, ten a call, behind verifications ──► store as hints

A room is asked about once its evidence is older than ``schedule.occupancy_poll_seconds``. If the pace does not allow
that, all rooms wait equally longer.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

import structlog

from watchdog.clock import Clock
from watchdog.core.capacity import ROOMS_PER_CALL
from watchdog.core.model import Evidence
from watchdog.errors import DatabaseError
from watchdog.services.occupancy import Occupancy
from watchdog.store.aio.calls import AsyncPolling
from watchdog.store.aio.group_commit import GroupCommit
from watchdog.store.polling import NOTHING, Observed

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 1.0
"""How often the daemon takes rooms: as many as it can ask about until the next time."""

_LONGEST_TICK_SECONDS: Final = 5.0
"""The same while no room is due."""

CALLS_WITHOUT_LIMIT: Final = 50
"""Calls per tick if the pace has no limit."""

_CALLS_TAKEN_AT_A_TIME: Final = 5
_TAKES_PER_TICK: Final = 20
"""Bounds the transactions of a tick while thousands of rows have newer evidence and only change their place."""

_ANSWERS_AT_A_TIME: Final = 2
_LONGEST_REST_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0
_ROOMS_NAMED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Polled:
    """Counts: rooms asked about and answered, tasks whose count changed or was contradicted."""

    asked: int = 0
    answered: int = 0
    changed: int = 0
    contradicted: int = 0

    def __add__(self, other: "Polled") -> "Polled":
        return Polled(
            self.asked + other.asked,
            self.answered + other.answered,
            self.changed + other.changed,
            self.contradicted + other.contradicted,
        )


@dataclass(slots=True)
class _App:
    """One AppId: calls in flight, calls without an answer in a row, and when to call again."""

    calls: int = 0
    silent: int = 0
    again_at: float = -math.inf


@dataclass(slots=True)
class _Named:
    """Rooms whose contradiction has been logged."""

    rooms: set[tuple[int, str]] = field(default_factory=set)

    def is_news(self, app_id: int, room_id: str) -> bool:
        if (app_id, room_id) in self.rooms:
            return False
        if len(self.rooms) >= _ROOMS_NAMED:
            self.rooms.clear()
        self.rooms.add((app_id, room_id))
        return True


class Poller:
    """``run_once`` asks and waits for the answers; the daemon calls ``begin``, which does not wait."""

    def __init__(
        self,
        *,
        polling: AsyncPolling,
        occupancy: Occupancy,
        apps: Sequence[int],
        every_seconds: float,
        clock: Clock,
    ) -> None:
        """``apps`` begins with the default AppId. One room is asked about at most every ``every_seconds``."""
        self._polling = polling
        self._occupancy = occupancy
        self._apps = {app_id: _App() for app_id in apps}
        self._default_app = next(iter(apps), None)
        self._every_seconds = every_seconds
        self._clock = clock
        self._running: set[asyncio.Task[Polled]] = set()
        self._named = _Named()
        self._is_behind = False
        # A few at a time: hundreds of answers come at once, and a stop must not wait behind them for the database.
        self._answers = GroupCommit(self._observe, most=_ANSWERS_AT_A_TIME)
        self.answered_at = -math.inf
        """When ZEGO last answered about any room (monotonic)."""

    @property
    def idle_seconds(self) -> float:
        """How long to wait if no room was taken: short compared with ``every_seconds``."""
        if self._is_behind:
            return TICK_SECONDS
        if self._every_seconds <= 0:
            return _LONGEST_TICK_SECONDS
        return min(_LONGEST_TICK_SECONDS, max(TICK_SECONDS, self._every_seconds / 5))

    async def run_once(self) -> Polled:
        """Ask about the rooms that are due, as many as the pace allows in a tick. Raises DatabaseError."""
        return sum(await asyncio.gather(*await self.begin()), Polled())

    async def begin(self) -> Sequence[asyncio.Task[Polled]]:
        """Take the rooms that are due, and begin to ask about them. Raises DatabaseError."""
        begun: list[asyncio.Task[Polled]] = []
        self._is_behind = False
        for app_id, app in self._apps.items():
            begun += await self._begin(app_id, app)
        return begun

    async def _begin(self, app_id: int, app: _App) -> Sequence[asyncio.Task[Polled]]:
        begun: list[asyncio.Task[Polled]] = []
        most = self._calls(app_id, app)
        for _ in range(_TAKES_PER_TICK):
            if len(begun) >= most:
                return begun
            # In parts: one long transaction would block all others.
            limit = min(most - len(begun), _CALLS_TAKEN_AT_A_TIME) * ROOMS_PER_CALL
            taken = await self._with_pause(self._polling.take, limit, self._every_seconds, app_id, self._default_app)
            if not taken.rooms and not taken.requeued:
                return begun
            begun += [
                self._spawn(app_id, app, taken.rooms[start : start + ROOMS_PER_CALL])
                for start in range(0, len(taken.rooms), ROOMS_PER_CALL)
            ]
        self._is_behind = True
        return begun

    async def close(self) -> None:
        """Cancel all calls: their answers are not needed any more."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _calls(self, app_id: int, app: _App) -> int:
        if self._clock.monotonic() < app.again_at:
            return 0
        if app.silent:
            return 1 - app.calls
        rate = self._occupancy.background_rate(app_id)
        tick = CALLS_WITHOUT_LIMIT if rate == math.inf else max(1, round(rate * TICK_SECONDS))
        # At most two ticks' calls in flight: slow answers do not slow the poller down, and no room that was taken waits
        # long for its call.
        return min(tick, 2 * tick - app.calls)

    def _spawn(self, app_id: int, app: _App, rooms: Sequence[str]) -> asyncio.Task[Polled]:
        task = asyncio.create_task(self._ask(app_id, app, rooms))
        self._running.add(task)
        app.calls += 1

        def finished(task: asyncio.Task[Polled]) -> None:
            self._running.discard(task)
            app.calls -= 1
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("poll_failed", app_id=app_id, rooms=len(rooms), error=str(error), exc_info=error)

        task.add_done_callback(finished)
        return task

    async def _ask(self, app_id: int, app: _App, rooms: Sequence[str]) -> Polled:
        answers = await self._occupancy.ask(app_id, rooms)
        self._note_silence(app_id, app, answers)
        if not answers and app.silent == 1:
            # One lost call must not cost its rooms a whole interval.
            await self._clock.sleep(max(0.0, app.again_at - self._clock.monotonic()))
            answers = await self._occupancy.ask(app_id, rooms)
            self._note_silence(app_id, app, answers)
        try:
            observed = await self._answers.submit((app_id, answers))
        except DatabaseError as error:
            # The jobs log that the database is away; the rooms come up again.
            log.debug("observations_lost", app_id=app_id, rooms=len(rooms), error=str(error))
            return Polled(len(rooms), len(answers))
        self._announce(app_id, observed)
        return Polled(len(rooms), len(answers), observed.changed, len(observed.contradicted))

    async def _observe(self, group: Sequence[tuple[int, Mapping[str, Evidence]]]) -> Sequence[Observed]:
        """Store some answers together; the first answer of each AppId gets the result for all of that AppId's."""
        told = [NOTHING] * len(group)
        for app_id in dict(group):
            of_app = [number for number, (whose, _) in enumerate(group) if whose == app_id]
            answers = {room: seen for number in of_app for room, seen in group[number][1].items()}
            told[of_app[0]] = await self._with_pause(self._polling.observe, app_id, self._default_app, answers)
        return told

    async def _with_pause(self, method: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the store, then pause for as long as the call took.

        SQLite's lock has no queue: without pauses between transactions the application might never get it.
        """
        began = self._clock.monotonic()
        try:
            return await method(*args, **kwargs)
        finally:
            if (took := self._clock.monotonic() - began) > 0:
                await self._clock.sleep(min(took, _LONGEST_REST_SECONDS))

    @property
    def unanswered(self) -> list[int]:
        """The AppIds about whose rooms ZEGO does not answer at present."""
        return sorted(app_id for app_id, app in self._apps.items() if app.silent)

    def _note_silence(self, app_id: int, app: _App, answers: Mapping[str, Evidence]) -> None:
        """Back off while an AppId gives no answer; log that once."""
        now = self._clock.monotonic()
        if answers:
            self.answered_at = now
            if app.silent:
                log.info("polling_answered_again", app_id=app_id)
            app.silent, app.again_at = 0, -math.inf
            return
        if now < app.again_at:
            # This call was sent before the silence was noticed.
            return
        if not app.silent:
            log.warning(
                "polling_unanswered",
                app_id=app_id,
                next_step="active rooms are not polled until ZEGO answers: zego-watchdog check",
            )
        app.silent += 1
        app.again_at = now + min(_LONGEST_PAUSE_SECONDS, 2.0 ** (app.silent - 1))

    def _announce(self, app_id: int, observed: Observed) -> None:
        for task in observed.contradicted:
            if self._named.is_news(app_id, task.room_id):
                log.warning(
                    "hint_contradicted",
                    task_id=task.task_id,
                    room_id=task.room_id,
                    app_id=app_id,
                    people=task.user_count,
                    next_step="ZEGO has never seen anybody in this room: are RoomId and AppId right?",
                )
        for returned in observed.returned:
            log.warning(
                "rejoined",
                task_id=returned.task_id,
                room_id=returned.room_id,
                app_id=app_id,
                after_seconds=round(returned.after_seconds, 3),
            )
