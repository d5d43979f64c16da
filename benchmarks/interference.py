"""How late stops are while something else is busy: one daemon, one sandbox, real processes, each disturbance by itself.

Rooms empty at a steady pace, in silence and under each disturbance. All rows use one database with active tasks and a
long ledger; each has a daemon of its own. Lateness is as in ``callbacks``: arrival by the sandbox's log, minus
``due_at``.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx

from benchmarks import callbacks, databases, events, processes, rooms
from benchmarks.databases import Database
from benchmarks.peers.receiver import BEHAVIOURS
from watchdog.clock import SystemClock

TARGET_SECONDS: Final = 0.02
_EMPTYING_EVERY_SECONDS: Final = 0.05
_SCRAPERS: Final = 100
_SCRAPED_EVERY_SECONDS: Final = 1.0
_CONNECTIONS: Final = 128
"""More than the daemon works on at once: what it cannot take it has to refuse."""

_STRAGGLERS_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 10.0
_EVENTS: Final = {"takes": 1000}
_EVENTS_TO_A_BAD_RECEIVER: Final = 100
"""Events a second, beside those of the stops."""

_OLD: Final = {"tasks_days": 7, "attempts_days": 7}
_LEDGER_EVERY_SECONDS: Final = 10
"""As ``databases.fill_ledger`` has it."""

_RETENTION_AT_ONCE: Final = (
    "from watchdog.services import retention; retention.FIRST_PASS_SECONDS = 0.5; from watchdog.cli import main; main()"
)
"""The daemon without the ten minutes that retention waits after a start."""


@dataclass(frozen=True, slots=True)
class Setting:
    """``tasks`` are active, and polled in one row; ``attempts`` are in the ledger; ``seconds`` are for each row."""

    tasks: int
    attempts: int
    seconds: float
    rates: Sequence[int] = (50, 200, 1000)


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: lateness in seconds, sorted; how many stops did not arrive; and what the disturbance came to."""

    name: str
    late: Sequence[float]
    missing: int
    came_to: str


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a disturbance acts on."""

    database: Database
    execute: callbacks.Execute
    daemon: processes.Running
    clock: SystemClock
    seconds: float
    receiver: processes.Running | None


Disturb = Callable[[_Scene], Coroutine[Any, Any, str]]
"""Disturbs for ``seconds``; returns what was done."""


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    disturb: Disturb
    sections: Mapping[str, Mapping[str, Any]]
    program: Sequence[str] = ("-m", "watchdog")
    receiver: str | None = None
    """How the webhook's receiver behaves; None: there is none."""
    prepare: Callable[[Database], None] | None = None
    """What is done to the database before the daemon starts."""


def measure(database: Database, setting: Setting, tell: Callable[[str], None]) -> list[Measured]:
    """Measure every row on one database, whose ledger is filled first."""
    databases.fill_ledger(database, setting.attempts)
    found = []
    for row in _rows(setting):
        tell(row.name)
        found.append(asyncio.run(_measure(database, row, setting.seconds)))
    return found


def _rows(setting: Setting) -> list[_Row]:
    polling = {"schedule": {"occupancy_poll_seconds": _POLL_SECONDS}}
    return [
        _Row("in silence", _nothing, {}),
        *(_Row(f"{rate:,} callbacks a second", partial(_callbacks, rate), {}) for rate in setting.rates),
        _Row(f"{_SCRAPERS} scrapes at once, every second", _scrapes, {}),
        _Row("pages, each as fast as it is answered", _pages, {"http": {"page": True}}),
        _Row("`history export`, again and again", partial(_commands, ("history", "export")), {}),
        _Row("`status`, again and again", partial(_commands, ("status",)), {}),
        _Row(f"a round of polling, {setting.tasks:,} rooms", _polling, polling),
        _Row("retention", _retention, {"retention": _OLD}, ("-c", _RETENTION_AT_ONCE)),
        *(_webhook_row(number, how, setting.seconds) for number, how in enumerate(BEHAVIOURS)),
    ]


def _webhook_row(number: int, how: str, seconds: float) -> _Row:
    rate = _EVENTS.get(how, _EVENTS_TO_A_BAD_RECEIVER)
    first, tasks = events.FIRST * (number + 1), int(rate * seconds)

    def prepare(database: Database) -> None:
        # What the row before has left is not of this receiver.
        database.application.execute("UPDATE zego_events SET wake_at = NULL WHERE wake_at IS NOT NULL")
        events.start_tasks(database, first, tasks)

    disturb = partial(_events, first, tasks, rate)
    return _Row(f"{rate:,} events a second, the receiver {how}", disturb, {}, receiver=how, prepare=prepare)


async def _measure(database: Database, row: _Row, seconds: float) -> Measured:
    clock = SystemClock()
    execute = callbacks.executor(database)
    url = database.engine.url.render_as_string(hide_password=False)
    sections = {**callbacks.SETTINGS, **row.sections}
    if row.prepare is not None:
        row.prepare(database)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(processes.sandbox())
        vendor = await stack.enter_async_context(rooms.control(sandbox.url))
        receiver = None
        if row.receiver is not None:
            receiver = await stack.enter_async_context(events.receiver(row.receiver))
            sections |= events.section(receiver.url)
        daemon = await stack.enter_async_context(processes.daemon(url, sandbox.url, sections, program=row.program))
        scene = _Scene(database, execute, daemon, clock, seconds, receiver)
        disturbing = asyncio.create_task(row.disturb(scene))
        number = await callbacks.empty_rooms(
            sandbox.url, execute, "room", seconds, clock, every_seconds=_EMPTYING_EVERY_SECONDS
        )
        came_to = await disturbing
        await vendor.wait_for_stops(number, _STRAGGLERS_SECONDS)
    late = sorted(callbacks.lateness(database, execute, vendor.stops()))
    return Measured(row.name, late, number - len(late), came_to)


async def _nothing(scene: _Scene) -> str:
    await scene.clock.sleep(scene.seconds)
    return "–"


async def _callbacks(rate: int, scene: _Scene) -> str:
    answered, refused = await callbacks.storm(
        f"{scene.daemon.url}callbacks/zego", scene.seconds, _CONNECTIONS, scene.clock, rate=rate
    )
    return f"{len(answered) / scene.seconds:.0f} a second accepted, {refused / scene.seconds:.0f} refused"


async def _scrapes(scene: _Scene) -> str:
    times = []
    limits = httpx.Limits(max_connections=_SCRAPERS, max_keepalive_connections=_SCRAPERS)
    async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:

        async def scrape() -> None:
            began = scene.clock.monotonic()
            (await client.get(f"{scene.daemon.url}metrics")).raise_for_status()
            times.append(scene.clock.monotonic() - began)

        async for _ in _every(_SCRAPED_EVERY_SECONDS, scene):
            await asyncio.gather(*(scrape() for _ in range(_SCRAPERS)))
    return f"{len(times):,} pages, the slowest after {max(times):.2f} s"


async def _pages(scene: _Scene) -> str:
    """As a browser does that asks for the next page as soon as the one before has come."""
    times: list[float] = []
    (some,) = scene.execute("SELECT task_id FROM zego_stop_attempts ORDER BY id DESC LIMIT 1")
    paths = ("", "tasks", "tasks?choice=ended", "history", "history?outcome=spared", f"tasks/{some[0]}")
    until = scene.clock.monotonic() + scene.seconds
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        while scene.clock.monotonic() < until:
            for path in paths:
                began = scene.clock.monotonic()
                (await client.get(f"{scene.daemon.url}{path}")).raise_for_status()
                times.append(scene.clock.monotonic() - began)
    return f"{len(times):,} pages, the slowest after {max(times):.2f} s"


async def _commands(command: Sequence[str], scene: _Scene) -> str:
    number = 0
    program = str(Path(sys.executable).parent / "zego-watchdog")
    url = scene.database.engine.url.render_as_string(hide_password=False)
    variables = {
        "ZEGO_WATCHDOG_DATABASE__URL": url,
        "ZEGO_WATCHDOG_CONFIG": os.devnull,
        "ZEGO_WATCHDOG_POLICY__MODE": "observe",
    }
    until = scene.clock.monotonic() + scene.seconds
    while (left := until - scene.clock.monotonic()) > 0:
        async with processes.process(*command, program=program, variables=variables) as running:
            try:
                await asyncio.wait_for(running.wait(), left)
            except TimeoutError:
                break
            if running.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} has failed")
            number += 1
    return f"{number} finished, one under way"


async def _polling(scene: _Scene) -> str:
    await scene.clock.sleep(scene.seconds)
    (asked,) = scene.execute("SELECT count(*) FROM zego_tasks WHERE asked_at > '2000-01-01'")
    return f"{asked[0]:,} rooms asked about"


async def _retention(scene: _Scene) -> str:
    count = "SELECT count(*) FROM zego_tasks WHERE room_id LIKE ?"
    (before,) = scene.execute(count, "ended-%")
    await scene.clock.sleep(scene.seconds)
    (after,) = scene.execute(count, "ended-%")
    removed = before[0] - after[0]
    if before[0] * _LEDGER_EVERY_SECONDS > 86_400 * _OLD["tasks_days"] and not removed:
        raise RuntimeError("retention has removed nothing")
    return f"{removed:,} tasks removed"


async def _events(first: int, number: int, rate: int, scene: _Scene) -> str:
    assert scene.receiver is not None  # noqa: S101 - the row has one
    await events.end_at_pace(scene.database, first, number, rate)
    requests = len(await events.received(scene.receiver.url))
    if not requests:
        raise RuntimeError("no event was sent")
    (delivered,) = scene.execute(
        "SELECT count(*) FROM zego_events WHERE delivered_at IS NOT NULL AND task_id >= ? AND task_id < ?",
        databases.task_id(first),
        databases.task_id(first + number),
    )
    return f"{number:,} written, {requests:,} requests, {delivered[0]:,} delivered"


async def _every(seconds: float, scene: _Scene) -> AsyncIterator[None]:
    """Yield so often, for as long as the row lasts; late where the one before is not done."""
    began = scene.clock.monotonic()
    at = began
    while at < began + scene.seconds:
        await scene.clock.sleep(max(0.0, at - scene.clock.monotonic()))
        yield
        at = max(at + seconds, scene.clock.monotonic())
