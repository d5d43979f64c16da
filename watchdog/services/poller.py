"""Asks ZEGO about every active room, all the time, so that nobody's hint is needed; and about those we left.

    begin:  take rooms, least recently asked first ──► ask, ten a call, behind verifications ──► store as hints

A room is asked about every ``schedule.occupancy_poll_seconds`` at most. Where there are more rooms than the pace
allows, all of them wait longer, evenly.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Evidence
from watchdog.errors import DatabaseError
from watchdog.services.occupancy import Occupancy
from watchdog.store.aio.calls import AsyncPolling
from watchdog.store.aio.group_commit import GroupCommit
from watchdog.store.polling import NOTHING, Observed
from watchdog.zego.client import ROOMS_PER_CALL

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 1.0
"""How often the daemon takes rooms; each time as many as can be asked about until the next time."""

_LONGEST_TICK_SECONDS: Final = 5.0
"""The same while it is no room's turn."""

CALLS_WITHOUT_LIMIT: Final = 50
"""Calls a tick where there is no limit to the pace."""

_CALLS_TAKEN_AT_A_TIME: Final = 5
_ANSWERS_AT_A_TIME: Final = 2
_LONGEST_REST_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0
_ROOMS_NAMED: Final = 10_000

COUNT_SECONDS: Final = 15.0
"""How often the active tasks are counted, as long as there are any."""

LOOKS: Final = 12
"""How many times within the silence that means death the feed is looked for newer hints."""


_Answers = tuple[int, Mapping[str, Evidence]]
"""An AppId, and what ZEGO has said of its rooms."""


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of some questions: rooms asked about and answered, tasks whose count changed or was contradicted."""

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
    """What is under way for one AppId, and for how long it is left alone after silence."""

    calls: int = 0
    silent: int = 0
    again_at: float = -math.inf


@dataclass(slots=True)
class _Named:
    """Rooms whose contradiction has been said."""

    rooms: set[tuple[int, str]] = field(default_factory=set)

    def is_news(self, app_id: int, room_id: str) -> bool:
        if (app_id, room_id) in self.rooms:
            return False
        if len(self.rooms) >= _ROOMS_NAMED:
            self.rooms.clear()
        self.rooms.add((app_id, room_id))
        return True


class Poller:
    """``run_once`` asks and waits for the answers; a daemon calls ``begin`` every second and does not wait."""

    def __init__(
        self,
        *,
        polling: AsyncPolling,
        occupancy: Occupancy,
        apps: Sequence[int],
        every_seconds: float,
        clock: Clock,
    ) -> None:
        """``apps`` begins with the default one. ``every_seconds`` is how often one room is asked about, at most."""
        self._polling = polling
        self._occupancy = occupancy
        self._apps = {app_id: _App() for app_id in apps}
        self._default_app = next(iter(apps), None)
        self._every_seconds = every_seconds
        self._clock = clock
        self._running: set[asyncio.Task[Polled]] = set()
        self._named = _Named()
        # One after the other: hundreds of answers come at once, and a stop must not wait behind them for the database.
        self._answers: GroupCommit[_Answers, Observed] = GroupCommit(self._observe, most=_ANSWERS_AT_A_TIME)
        self.answered_at = -math.inf
        """When ZEGO last said anything of a room, on the monotonic clock."""

    @property
    def idle_seconds(self) -> float:
        """How long to wait when it was no room's turn: short beside the time after which a room's turn comes again."""
        if self._every_seconds <= 0:
            return _LONGEST_TICK_SECONDS
        return min(_LONGEST_TICK_SECONDS, max(TICK_SECONDS, self._every_seconds / 5))

    async def run_once(self) -> Polled:
        """Ask about the rooms whose turn it is, within what the pace allows in a tick. Raises DatabaseError."""
        return sum(await asyncio.gather(*await self.begin()), Polled())

    async def begin(self) -> Sequence[asyncio.Task[Polled]]:
        """Take the rooms whose turn it is, and begin to ask about them. Raises DatabaseError."""
        begun: list[asyncio.Task[Polled]] = []
        for app_id, app in self._apps.items():
            calls = self._calls(app_id, app)
            while calls > 0:
                # Some at a time: so long a transaction would keep everybody else from the database.
                most = min(calls, _CALLS_TAKEN_AT_A_TIME) * ROOMS_PER_CALL
                rooms = await self._considerately(
                    self._polling.take, most, self._every_seconds, app_id, self._default_app
                )
                begun += [
                    self._spawn(app_id, app, rooms[start : start + ROOMS_PER_CALL])
                    for start in range(0, len(rooms), ROOMS_PER_CALL)
                ]
                calls = calls - _CALLS_TAKEN_AT_A_TIME if rooms else 0
        return begun

    async def close(self) -> None:
        """Ask no more, and forget what was asked: it has stopped nothing."""
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
        # Twice as many under way, so that answers that take a while slow nothing down, and no more, so that a room
        # does not wait in line after it was taken.
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
        answers = await self._occupancy.ask(app_id, rooms, in_background=True)
        self._heard(app_id, app, answers)
        try:
            observed = await self._answers.submit((app_id, answers))
        except DatabaseError as error:
            # The sweep says loudly that the database is away; the rooms' turn comes again.
            log.debug("observations_lost", app_id=app_id, rooms=len(rooms), error=str(error))
            return Polled(len(rooms), len(answers))
        self._announce(app_id, observed)
        return Polled(len(rooms), len(answers), observed.changed, len(observed.contradicted))

    async def _observe(self, group: Sequence["_Answers"]) -> Sequence[Observed]:
        """Store some answers together; what came of all of an AppId's is told to the first of them."""
        told = [NOTHING] * len(group)
        for app_id in dict(group):
            of_app = [number for number, (whose, _) in enumerate(group) if whose == app_id]
            answers = {room: seen for number in of_app for room, seen in group[number][1].items()}
            told[of_app[0]] = await self._considerately(self._polling.observe, app_id, self._default_app, answers)
        return told

    async def _considerately(self, method: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the store, and then leave the database to others for as long.

        SQLite has no queue for its lock: in an unbroken row of transactions the application would hardly find a gap.
        """
        began = self._clock.monotonic()
        try:
            return await method(*args, **kwargs)
        finally:
            if (took := self._clock.monotonic() - began) > 0:
                await self._clock.sleep(min(took, _LONGEST_REST_SECONDS))

    def _heard(self, app_id: int, app: _App, answers: Mapping[str, Evidence]) -> None:
        """Leave an AppId alone for longer and longer while it gives no answer; say so once."""
        now = self._clock.monotonic()
        if answers:
            self.answered_at = now
            if app.silent:
                log.info("polling_answered_again", app_id=app_id)
            app.silent, app.again_at = 0, -math.inf
            return
        if now < app.again_at:
            # Asked before the silence was noticed.
            return
        if not app.silent:
            log.warning(
                "polling_unanswered",
                app_id=app_id,
                next_step="active rooms are not looked after until ZEGO answers: zego-watchdog check",
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


class Feed:
    """Whether hints still come, of whatever source; while they do not, ``check`` says since when none is trusted."""

    def __init__(self, polling: AsyncPolling, clock: Clock, *, silence_seconds: float) -> None:
        self._polling = polling
        self._clock = clock
        self.silence_seconds = silence_seconds
        self._alive_at = clock.monotonic()
        self._looked_at = self._counted_at = -math.inf
        self._newest: datetime | None = None
        self.is_dead = False
        self.active: int | None = None
        """How many tasks were active when we last looked."""

    async def check(self, answered_at: float = -math.inf) -> bool:
        """Look for a newer hint than last time. ``answered_at`` is when ZEGO last answered (monotonic).

        Returns whether the feed is dead: tasks are active, and for ``silence_seconds`` nobody has said anything of any
        room. Raises DatabaseError.
        """
        now = self._clock.monotonic()

        def silence() -> float:
            return now - max(self._alive_at, answered_at)

        # To count, and to look, is to walk through ten thousand rows. Before a verdict both are done.
        is_silent = silence() > self.silence_seconds
        if is_silent or not self.active or now - self._counted_at >= COUNT_SECONDS:
            self.active, self._counted_at = await self._polling.active(), now
        if not self.active:
            self._alive_at = now
        elif is_silent or now - max(self._looked_at, answered_at) >= self.silence_seconds / LOOKS:
            newest = await self._polling.newest_hint()
            if newest != self._newest:
                self._alive_at = now
            self._newest, self._looked_at = newest, now
        dead = silence() > self.silence_seconds
        if dead and not self.is_dead:
            log.error(
                "hints_have_died",
                active_tasks=self.active,
                silent_seconds=round(silence()),
                newest_hint=None if self._newest is None else self._newest.isoformat(),
                next_step="nothing is stopped that ZEGO has not confirmed: zego-watchdog check",
            )
        elif self.is_dead and not dead:
            log.info("hints_are_back")
        self.is_dead = dead
        return dead
