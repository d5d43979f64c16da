"""What people, bots, recorders and the application do; every room has its own random stream."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulation.virtual import VirtualClock
from watchdog.sandbox.kinds import FACTS, Kind
from watchdog.sandbox.world import ADMIN_ROLE, World, stream

APP_ID: Final = 1234567890
BOTS: Final = ("bot-*",)
_EXODUS_WINDOW_SECONDS: Final = 1800
_RECORDING_WINDOW_SECONDS: Final = 120
_MIXES: Final = (
    (Kind.ASR,),
    (Kind.AGENT,),
    (Kind.ASR, Kind.AGENT),
    (Kind.ASR, Kind.AGENT, Kind.DIGITAL_HUMAN),
    (Kind.ASR, Kind.PLAYER),
    (Kind.PLAYER, Kind.RECORDING),
    (Kind.ASR, Kind.RECORDING),
)
"""The tasks that one room may have at a time."""


class Backend:
    """The application's database connection: design §3's three statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def started(
        self,
        task_id: str,
        room_id: str,
        max_idle_seconds: int | None,
        kind: Kind = Kind.ASR,
        bot_user_id: str | None = None,
    ) -> None:
        self._connection.execute(
            "INSERT INTO zego_tasks (task_id, room_id, max_idle_seconds, kind, bot_user_id) VALUES (?, ?, ?, ?, ?)",
            (task_id, room_id, max_idle_seconds, kind.value, bot_user_id),
        )

    def people(self, room_id: str, number: int) -> None:
        self._connection.execute(
            "UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'", (number, room_id)
        )

    def people_in_all(self, prefix: str, number: int) -> None:
        """Write the same number for all rooms whose id begins like this, in one statement."""
        self._connection.execute(
            "UPDATE zego_tasks SET user_count = ? WHERE room_id LIKE ? AND status = 'active'", (number, f"{prefix}%")
        )

    def released(self, task_id: str) -> None:
        self._connection.execute("UPDATE zego_tasks SET status = 'released' WHERE task_id = ?", (task_id,))

    def running(self, room_id: str) -> bool:
        """Whether the table has a running task for a room."""
        query = "SELECT 1 FROM zego_tasks WHERE room_id = ? AND status = 'active'"
        return self._connection.execute(query, (room_id,)).fetchone() is not None


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all rooms have in common."""

    world: World
    backend: Backend
    clock: VirtualClock
    seed: int
    seconds: float
    """How long the run lasts: rooms come into use throughout."""

    in_background: Callable[[Coroutine[Any, Any, None]], object]
    """Runs what a room does beside what it does next."""

    wrong_hints: float = 0.0
    """The share of hints that call an occupied room empty; for tests of the judge."""

    mixed: bool = False
    """Whether rooms have tasks of all kinds; otherwise each has one ASR task."""


async def exodus(fleet: Fleet, rooms: int) -> None:
    """So many rooms with one person each, which all lose it at once, half-way through the run."""
    now = fleet.clock.time()
    found = [f"exodus-{number:05}" for number in range(rooms)]
    for room_id in found:
        fleet.world.join(APP_ID, room_id, "person", now)
        task_id = fleet.world.start(APP_ID, room_id, now, max_idle_seconds=_EXODUS_WINDOW_SECONDS, via="api")
        if task_id is None:
            raise AssertionError("the quota of the simulated vendor is unlimited")
        fleet.backend.started(task_id, room_id, _EXODUS_WINDOW_SECONDS)
    fleet.backend.people_in_all("exodus-", 1)
    await fleet.clock.sleep(fleet.seconds / 2)
    for room_id in found:
        fleet.world.leave(APP_ID, room_id, "person", fleet.clock.time())
    fleet.backend.people_in_all("exodus-", 0)


RETURNING: Final = 0.6
"""The share of times at which people come back to a room of ``returns``; otherwise it is used again much later."""

RETURN_MEAN_SECONDS: Final = 60.0
_MUCH_LATER_SECONDS: Final = (700.0, 800.0)


async def returns(fleet: Fleet, number: int) -> None:
    """One room that a person leaves again and again, and comes back to after times of a known distribution.

    They are exponential with a mean of ``RETURN_MEAN_SECONDS``, or longer than 700 s. The application knows all.
    """
    room_id, chance = f"returning-{number:05}", stream(fleet.seed, f"returning-{number:05}")
    await fleet.clock.sleep(chance.uniform(0, 120))
    while True:
        now = fleet.clock.time()
        fleet.world.join(APP_ID, room_id, "person", now)
        if not fleet.backend.running(room_id):
            task_id = fleet.world.start(APP_ID, room_id, now, max_idle_seconds=_EXODUS_WINDOW_SECONDS, via="api")
            if task_id is None:
                raise AssertionError("the quota of the simulated vendor is unlimited")
            fleet.backend.started(task_id, room_id, _EXODUS_WINDOW_SECONDS)
        fleet.backend.people(room_id, 1)
        await fleet.clock.sleep(chance.uniform(20, 60))
        fleet.world.leave(APP_ID, room_id, "person", fleet.clock.time())
        fleet.backend.people(room_id, 0)
        comes_back = chance.random() < RETURNING
        absent = chance.expovariate(1 / RETURN_MEAN_SECONDS) if comes_back else chance.uniform(*_MUCH_LATER_SECONDS)
        await fleet.clock.sleep(absent)


class Room:
    """One room over hours: meetings, and gaps between them that are short, long, or just as long as the grace.

    ``hints`` says whether the application reports the room's occupancy; every twentieth that does stops doing so.
    """

    def __init__(self, fleet: Fleet, number: int, *, hints: bool) -> None:
        self.room_id = f"room-{number:05}"
        self._fleet = fleet
        self._world = fleet.world
        self._chance = stream(fleet.seed, self.room_id)
        self._hints = hints
        self._hints_end = self._chance.uniform(600, 7200) if self._happens(0.05) else float("inf")
        self._believed: set[str] = set()
        self._task_ids: list[str] = []
        self._has_recorder = self._happens(0.1)
        self._has_bot = self._happens(0.1)

    async def live(self) -> None:
        """Start at some time, with one to three meetings."""
        await self._sleep(0, self._fleet.seconds * 0.9)
        for _ in range(self._chance.randint(1, 3)):
            await self._meet()
            kind = self._chance.random()
            await self._sleep(*((5, 44) if kind < 0.25 else (44, 130) if kind < 0.5 else (180, 2400)))

    async def _meet(self) -> None:
        await self._start()
        if self._has_recorder:
            self._join("recorder", role=ADMIN_ROLE)
        if self._has_bot:
            self._join("bot-1")
        if not self._happens(0.07):
            people = self._chance.choice((1, 2, 2, 2, 3, 4))
            async with asyncio.TaskGroup() as group:
                for number in range(people):
                    group.create_task(self._attend(f"person-{number}"))
        for other in ("recorder", "bot-1"):
            if self._happens(0.6):
                self._later(self._leave_after(other, self._chance.uniform(0, 90)))
        if self._happens(0.4) and self._task_ids:
            self._later(self._release(self._task_ids, self._chance.uniform(2, 90)))

    async def _start(self) -> None:
        chance = self._chance
        max_idle, stated = chance.choice(((120, False), (120, False), (120, False), (150, True), (300, True)))
        forgets, late = self._happens(0.02), chance.uniform(0.05, 2)
        if self._fleet.backend.running(self.room_id):
            return
        started = []
        for kind in chance.choice(_MIXES) if self._fleet.mixed else (Kind.ASR,):
            # The usual windows of other kinds are theirs; but callbacks and polls are too slow for that of a recording.
            window = max_idle if kind is Kind.ASR else _RECORDING_WINDOW_SECONDS if kind is Kind.RECORDING else None
            bot = None if FACTS[kind].user_prefix is None else f"brought-by-{kind}"
            now = self._fleet.clock.time()
            task_id = self._world.start(
                APP_ID, self.room_id, now, kind=kind, user_id=bot, max_idle_seconds=window, via="api"
            )
            if task_id is None:
                raise AssertionError("the quota of the simulated vendor is unlimited")
            started.append((task_id, self.room_id, window if stated or kind is not Kind.ASR else None, kind, bot))
        self._task_ids = [task_id for task_id, *_ in started]
        await self._fleet.clock.sleep(late)
        if not forgets:
            for row in started:
                self._fleet.backend.started(*row)

    async def _attend(self, user_id: str) -> None:
        """One person's visit: comes, speaks, loses the connection now and then, and goes."""
        await self._sleep(0, 60)
        while True:
            self._join(user_id)
            await self._sleep(2, 30)
            if self._happens(0.5):
                self._world.speak(APP_ID, self.room_id, user_id, "hello", self._fleet.clock.time())
            await self._fleet.clock.sleep(min(3600.0, self._chance.expovariate(1 / 300)))
            fate = self._chance.random()
            if fate < 0.75:
                self._world.leave(APP_ID, self.room_id, user_id, self._fleet.clock.time())
                self._tell(user_id, here=False)
                return
            self._world.crash(APP_ID, self.room_id, user_id, self._fleet.clock.time())
            if fate < 0.85:
                # The application notices by its own means, before or after the vendor.
                self._later(self._miss(user_id, self._chance.uniform(5, 120)))
                return
            if self._happens(0.5):
                self._tell(user_id, here=False)
            # Back before the vendor has noticed, or after it has, or after the stop.
            await self._sleep(1, 200)

    async def _miss(self, user_id: str, seconds: float) -> None:
        await self._fleet.clock.sleep(seconds)
        self._tell(user_id, here=False)

    async def _leave_after(self, user_id: str, seconds: float) -> None:
        await self._fleet.clock.sleep(seconds)
        self._world.leave(APP_ID, self.room_id, user_id, self._fleet.clock.time())

    async def _release(self, task_ids: Sequence[str], seconds: float) -> None:
        """Stop the tasks as a good application does, unless people have come back."""
        await self._fleet.clock.sleep(seconds)
        if self._believed:
            return
        for task_id in task_ids:
            self._world.stop(APP_ID, task_id, self._fleet.clock.time(), request_id=None)
        await self._sleep(0.05, 1)
        for task_id in task_ids:
            self._fleet.backend.released(task_id)

    def _join(self, user_id: str, *, role: int = 1) -> None:
        self._world.join(APP_ID, self.room_id, user_id, self._fleet.clock.time(), role)
        if user_id.startswith("person"):
            self._tell(user_id, here=True)

    def _tell(self, user_id: str, *, here: bool) -> None:
        (self._believed.add if here else self._believed.discard)(user_id)
        self._later(self._hint(self._chance.uniform(0.01, 1.0)))

    async def _hint(self, seconds: float) -> None:
        await self._fleet.clock.sleep(seconds)
        if self._hints and self._fleet.clock.monotonic() < self._hints_end:
            wrong = self._fleet.wrong_hints > 0 and self._happens(self._fleet.wrong_hints)
            self._fleet.backend.people(self.room_id, 0 if wrong else len(self._believed))

    def _happens(self, probability: float) -> bool:
        return self._chance.random() < probability

    async def _sleep(self, least: float, most: float) -> None:
        await self._fleet.clock.sleep(self._chance.uniform(least, most))

    def _later(self, what: Coroutine[Any, Any, None]) -> None:
        self._fleet.in_background(what)
