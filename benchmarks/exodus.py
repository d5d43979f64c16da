"""A mass exodus: all rooms are empty and due at once, and nothing is paced.

The daemon's time runs from the moment at which the tasks are due until the last outcome is written. A peer's runs
from that moment until the sandbox has accepted its last stop: its jobs have been scheduled beforehand.
The limits are loops that send the same requests and record nothing, or record what came of them and do nothing else.
"""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from benchmarks import contenders, databases, processes, rooms
from benchmarks.contenders import Entry, Sections, due_after
from benchmarks.databases import Database, unix_time
from benchmarks.peers.vendor import CONCURRENCY
from benchmarks.rooms import Vendor
from watchdog.clock import SystemClock

_LOOK_EVERY_SECONDS: Final = 0.1
_GIVE_UP_SECONDS: Final = 60.0
_AT_ONCE: Final = (32, 64)
LIMITS: Final = {
    "client": "bare loop, the daemon's client",
    "httpx2": "bare loop, httpx2 as documented",
    "recorded": "bare loop, the daemon's client, recorded on SQLite",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """``grace_seconds`` is the time to record all tasks: nothing is due before it is over.

    ``distance_seconds`` is how long the vendor takes for each answer.
    """

    rooms: int
    grace_seconds: float
    distance_seconds: float = 0.0

    def sections(self) -> Sections:
        """The daemon without a pace and without polling."""
        return {
            "policy": due_after(self.grace_seconds),
            "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0},
            "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0, "concurrency": CONCURRENCY},
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one contender. ``left`` are tasks that it did not stop, ``doubles`` those that it asked to stop twice."""

    name: str
    is_peer: bool
    stops: int
    seconds: float
    left: int
    doubles: int
    cpu_seconds: float
    memory_bytes: int

    @property
    def rate(self) -> float:
        """Stops a second."""
        return self.stops / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of each stop, in ms."""
        return 1000 * self.cpu_seconds / max(1, self.stops)


async def limit(how: str, setting: Setting) -> Measured:
    """The bare loop, one of ``LIMITS``, at its best: more requests at a time are not always more a second."""
    measured = [await _bare(how, setting, at_once) for at_once in _AT_ONCE]
    return max(measured, key=lambda one: one.rate)


async def _bare(how: str, setting: Setting, at_once: int) -> Measured:
    pipe = asyncio.subprocess.PIPE
    async with AsyncExitStack() as running:
        sandbox = await running.enter_async_context(processes.sandbox())
        vendor = await running.enter_async_context(rooms.control(sandbox.url))
        tasks = await vendor.start(setting.rooms, people=False)
        await vendor.move_away(setting.distance_seconds)
        arguments = ["-m", "benchmarks.peers", "bare", how, sandbox.url, str(at_once)]
        database: Database | None = None
        if how == "recorded":
            _, (database,) = running.enter_context(databases.sqlite([0]))
            contenders.insert_tasks(database, tasks)
            database.application.execute("UPDATE zego_tasks SET user_count = 0")
            arguments.append(str(database.engine.url.database))
        process = await running.enter_async_context(processes.process(*arguments, out=pipe, take=pipe))
        await contenders.expect(process, "ready")
        before = processes.cpu_seconds([process.pid])
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - the same
        process.stdin.write(json.dumps(tasks).encode() + b"\n")
        seconds = float(await process.stdout.readline())
        spent = processes.cpu_seconds([process.pid]) - before
        memory = processes.memory_bytes([process.pid])
        if database is not None:
            (left,) = database.application.execute("SELECT count(*) FROM zego_tasks WHERE status = 'active'").fetchone()
            if left:
                raise RuntimeError(f"{LIMITS[how]} left {left} tasks of {setting.rooms} without a recorded outcome")
        await vendor.read()
    stops = len(vendor.stops())
    return Measured(LIMITS[how], True, stops, seconds, setting.rooms - stops, 0, spent, memory)


async def measure(entry: Entry, setting: Setting, more: Sections = MappingProxyType({})) -> Measured:
    """One contender. Raises RuntimeError for a peer that could not take note of all tasks before they were due.

    ``more`` are sections of the daemon's configuration, beside those of the setting.
    """
    clock = SystemClock()
    async with processes.sandbox() as sandbox, rooms.control(sandbox.url) as vendor:
        tasks = await vendor.start(setting.rooms, people=False)
        await vendor.move_away(setting.distance_seconds)
        async with entry.start(sandbox.url, tasks, {**setting.sections(), **more}) as contender:
            before = contender.cpu_seconds()
            due_at = clock.time() + setting.grace_seconds
            await contender.application.empty(tasks, due_at)
            if contender.database is None:
                if clock.time() > due_at:
                    raise RuntimeError(f"{entry.name} was still being told when the tasks came due: a longer grace")
                await clock.sleep(due_at - clock.time())
                await vendor.wait_for_stops(setting.rooms, _GIVE_UP_SECONDS)
                until = max((stop["received_at"] for stop in vendor.stops()), default=clock.time())
            else:
                await clock.sleep(setting.grace_seconds)
                await all_ended(contender.database)
                due_at, until = first_and_last(contender.database)
            spent = contender.cpu_seconds() - before
            memory = contender.memory_bytes()
        await vendor.read()
    return measured(entry, vendor, setting.rooms, until - due_at, (spent, memory))


def measured(entry: Entry, vendor: Vendor, tasks: int, seconds: float, cost: tuple[float, int]) -> Measured:
    """What the sandbox's log says of it; ``cost`` is seconds of processor time, and bytes."""
    stops = len(vendor.stops())
    asked = Counter(request["task_id"] for request in vendor.of("stop_requested"))
    doubles = sum(times > 1 for times in asked.values())
    return Measured(entry.name, entry.is_peer, stops, seconds, tasks - stops, doubles, *cost)


async def all_ended(database: Database) -> None:
    """Return when no task is active any more, by another connection, or progress has stopped."""
    clock = SystemClock()
    left, until = -1, 0.0
    while left != 0:
        await clock.sleep(_LOOK_EVERY_SECONDS)
        (now_left,) = database.application.execute("SELECT count(*) FROM zego_tasks WHERE status = 'active'").fetchone()
        if now_left != left:
            left, until = now_left, clock.monotonic() + _GIVE_UP_SECONDS
        elif clock.monotonic() > until:
            break


def first_and_last(database: Database) -> tuple[float, float]:
    """The Unix times at which the first of the tasks was due and the last one ended, by tasks and ledger."""
    times = partial(unix_time, database.engine.dialect.name)
    due = f"SELECT {times('min(due_at)')} FROM zego_stop_attempts"  # noqa: S608  # an expression of our own
    ended = f"SELECT {times('max(ended_at)')} FROM zego_tasks"  # noqa: S608  # the same
    (first,), (last,) = (database.application.execute(statement).fetchone() for statement in (due, ended))
    return float(first), float(last)
