"""What a sweep and a hint cost, by ``Sweeper.run_once`` itself, with a stopper that only collects the claims."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.databases import LATER, ONE_ROOM_IN, PEOPLE, Application, Database, room_id
from watchdog.clock import SystemClock
from watchdog.core.model import Api, Reason
from watchdog.core.policy import CurrentPolicy
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import StopSettings
from watchdog.services.stopper import Stopper
from watchdog.services.sweeper import Sweeper
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncTasks
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.records import Claim, SetAside
from watchdog.store.tasks import Tasks
from watchdog.zego.pacing import Pace

_STRIDE: Final = 7919  # a prime: from room to room all over the table, and no room twice in a row


class Collector(Stopper):
    """Takes the claims, and does nothing with them."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def submit(self, claims: Sequence[Claim], lease_until: float, *, probe: bool = False) -> None:
        del lease_until, probe
        self.claims.extend(claims)


class Capacity(Workload):
    """Room for so many claims in all."""

    def __init__(self, most: int, collector: Collector) -> None:
        super().__init__(
            apps=(1,),
            paces={"asr": Pace(0, clock=SystemClock())},
            current_policy=CurrentPolicy(LATER),
            settings=StopSettings(),
        )
        self._most = most
        self._collector = collector

    def capacity(self, blocked: Collection[Api] = ()) -> tuple[int, set[Api]]:
        del blocked
        return self._most - len(self._collector.claims), set()


class Subject:
    """One database to be measured; every method returns the seconds that the thing measured took."""

    def __init__(self, database: Database, emptied: int, due: int) -> None:
        self.size = database.size
        self._emptied = emptied
        self._due = due
        self._application: Application = database.application
        self._hint = (
            f"UPDATE zego_tasks SET user_count = {database.mark}"  # noqa: S608  # a mark
            f" WHERE room_id = {database.mark} AND status = 'active'"
        )
        time = "strftime('%Y-%m-%d %H:%M:%f000', 'now')" if database.mark == "?" else "now()"
        self._come_due = (
            f"UPDATE zego_tasks SET due_at = {time}, wake_at = {time}"  # noqa: S608  # a mark, and a function
            f" WHERE room_id = {database.mark} AND status = 'active'"
        )
        self._collector = Collector()
        clock = SystemClock()
        self._tasks = Tasks(database.engine, "bench")
        self.threads = DatabaseThreads(database.engine, clock)
        self._sweeper = Sweeper(
            tasks=AsyncTasks(self.threads, self._tasks),
            database_clock=DatabaseClock(clock),
            stopper=self._collector,
            workload=Capacity(due, self._collector),
            blocks=AppBlocks(30, clock),
            current_policy=CurrentPolicy(LATER),
            lease_seconds=20,
            instance="bench",
            clock=clock,
        )
        self._rooms = self._occupied_rooms()
        self._peek = _heard(database.engine, self._tasks.peek)

    def _occupied_rooms(self) -> Iterator[str]:
        for step in count():
            number = step * _STRIDE % self.size
            if number % ONE_ROOM_IN:
                yield room_id(number)

    async def nothing_due(self) -> float:
        """One sweep that finds nothing to do."""
        return await self._sweep((0, 0))

    async def statement(self) -> float:
        """The one statement of such a sweep by the database's driver: no worker thread, no SQLAlchemy."""
        statement, parameters = self._peek
        began = perf_counter()
        self._application.execute(statement, parameters).fetchone()
        return perf_counter() - began

    async def plan(self) -> float:
        """One sweep that plans tasks whose rooms have just emptied, due later."""
        rooms = [next(self._rooms) for _ in range(self._emptied)]
        self._say(rooms, 0)
        took = await self._sweep((self._emptied, 0))
        # People come back: all is as it was.
        self._say(rooms, PEOPLE)
        return took

    async def claim(self) -> float:
        """One sweep that claims tasks whose time has come."""
        rooms = [next(self._rooms) for _ in range(self._due)]
        self._say(rooms, 0)
        await self._sweep((self._due, 0))
        self._in_one_transaction(self._come_due, [(room,) for room in rooms])
        took = await self._sweep((0, self._due))
        # People come back, and the claims are given back.
        self._say(rooms, PEOPLE)
        self._tasks.set_aside([_untouched(claim) for claim in self._collector.claims])
        self._collector.claims.clear()
        return took

    async def hint(self) -> float:
        """The application's UPDATE for one room, committed."""
        room = next(self._rooms)
        began = perf_counter()
        self._application.execute(self._hint, (PEOPLE + 1, room))
        return perf_counter() - began

    async def hint_in_bulk(self) -> float:
        """The same for many rooms in one transaction, for each of them."""
        rooms = [next(self._rooms) for _ in range(self._emptied)]
        began = perf_counter()
        self._say(rooms, PEOPLE + 1)
        return (perf_counter() - began) / len(rooms)

    async def _sweep(self, expected: tuple[int, int]) -> float:
        """One sweep that is to plan and to claim so many."""
        began = perf_counter()
        swept = await self._sweeper.run_once()
        took = perf_counter() - began
        if (swept.planned, swept.claimed) != expected:
            raise AssertionError(f"{expected} tasks were to be planned and claimed: {swept}")
        return took

    def _say(self, rooms: Sequence[str], people: int) -> None:
        self._in_one_transaction(self._hint, [(people, room) for room in rooms])

    def _in_one_transaction(self, statement: str, each: Sequence[tuple[object, ...]]) -> None:
        self._application.execute("BEGIN")
        for parameters in each:
            self._application.execute(statement, parameters)
        self._application.execute("COMMIT")


def _heard(engine: sa.Engine, call: Callable[[], object]) -> tuple[str, Any]:
    """Listen to what a call that runs one statement says to the driver: the statement, and its parameters."""
    said: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", listen)
    call()
    sa.event.remove(engine, "before_cursor_execute", listen)
    return said[-1]


def _untouched(claim: Claim) -> SetAside:
    return SetAside(claim, 1, None, Reason.EMPTY_ROOM, "", claim.task.evidence, None, 0.0)


@dataclass(frozen=True, slots=True)
class Measure:
    """Something to measure, ``times`` for every repeat asked for."""

    name: str
    run: Callable[[Subject], Awaitable[float]]
    times: int


def measures(emptied: int, due: int) -> list[Measure]:
    return [
        Measure("sweep, nothing due", Subject.nothing_due, 40),
        Measure("its statement alone", Subject.statement, 40),
        Measure(f"sweep, {emptied:,} newly empty planned", Subject.plan, 1),
        Measure(f"sweep, {due} due claimed", Subject.claim, 1),
        Measure("sweep, nothing due, after those", Subject.nothing_due, 40),
        Measure("hint for one room, alone", Subject.hint, 10),
        Measure(f"hint for one room, of {emptied:,} at once", Subject.hint_in_bulk, 1),
    ]


async def _sample(subjects: Sequence[Subject], measure: Measure, repeats: int) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in subjects]
    for turn in range(repeats * measure.times):
        # A B, B A, A B …: a slow phase of the machine hits all of them.
        order = range(len(subjects)) if turn % 2 == 0 else reversed(range(len(subjects)))
        for index in order:
            samples[index].append(await measure.run(subjects[index]))
    return samples


def run(databases: Sequence[Database], emptied: int, due: int, repeats: int) -> dict[str, list[list[float]]]:
    """The seconds of every repeat, by measure and then by database, after an unmeasured warm-up."""
    subjects = [Subject(database, emptied, due) for database in databases]

    async def all_of_them() -> dict[str, list[list[float]]]:
        for measure in measures(emptied, due):
            await _sample(subjects, measure, 3)
        return {measure.name: await _sample(subjects, measure, repeats) for measure in measures(emptied, due)}

    try:
        return asyncio.run(all_of_them())
    finally:
        for subject in subjects:
            subject.threads.close()
