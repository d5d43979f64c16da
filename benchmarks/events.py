"""Events, from the transaction that ends a task to the webhook's receiver, with many delivered ones in the table.

The application ends tasks at a steady pace, in SQL; a daemon delivers the events to a receiver on the same machine.
Before it starts, so many have been written that it has a backlog. An event's time is that of the database, its arrival
that of the receiver: one clock. And a mass exodus, with the outbox and the webhook, and without.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from time import perf_counter
from typing import Any, Final

import httpx2 as httpx

from benchmarks import exodus, processes
from benchmarks.contenders import ENTRIES
from benchmarks.databases import Database, task_id
from benchmarks.processes import Running
from benchmarks.report import duration_or_dash, megabytes, percentiles, spread, table
from watchdog.clock import SystemClock
from watchdog.store.events import EventStore

FIRST: Final = 10_000_000
"""The number of the first task that ends; those of ``databases`` are below it."""

MODES: Final = {"off": "events off", "outbox": "written", "webhook": "written and delivered"}
_AT_ONCE: Final = 20
"""How many tasks one transaction of the application ends."""

_LOOK_EVERY_SECONDS: Final = 0.2
_GIVE_UP_SECONDS: Final = 60.0
_WARM_UP: Final = 10
_TASK: Final = {"task_id": "1920370518175780864", "kind": "realtime_asr", "app_id": 1234567890, "room_id": "room-1"}
_STOP: Final = {"status": "stopped", "reason": "empty_room", "outcome": "stopped", "attempt": 1, "code": "0"}
_TIMES: Final = ("started_at", "empty_since", "due_at", "auto_stop_at", "ended_at")
_DATA: Final = json.dumps(_TASK | _STOP | dict.fromkeys(_TIMES, "2026-11-30T06:00:00.000000Z"))
_IS_PENDING: Final = "SELECT count(*) FROM zego_events WHERE wake_at IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Setting:
    """``delivered`` events are in the table; ``rate`` a second are written for ``seconds``, after ``backlog`` at once.

    ``claims`` are timed. The mass exodus is measured ``rounds`` times in each mode.
    """

    delivered: int
    backlog: int
    seconds: float
    exodus: exodus.Setting
    rounds: int
    rate: int = 1000
    claims: int = 300


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates are events a second, ``within`` is seconds from written to received, sorted, ``memory`` is in bytes.

    ``delivered`` counts from the time at which the first of them was written.

    ``memory`` is the daemon's when the backlog is delivered, a quarter of the time later, and at the end. The claims,
    each in seconds, find nothing pending: with an empty table, with a full one before the daemon runs, and afterwards.
    """

    backlog: float
    written: float
    delivered: float
    within: Sequence[float]
    missing: int
    doubles: int
    cpu_milliseconds: float
    memory: Sequence[int]
    claims: Mapping[str, Sequence[float]]


def measure(empty: Database, full: Database, setting: Setting) -> Measured:
    """Fill the table of ``full``, whose tasks end, and measure."""
    fill(full, setting.delivered)
    claims: dict[str, list[float]] = {"empty": [], "full": [], "afterwards": []}
    _time_claims({"empty": empty, "full": full}, setting.claims, claims)
    return asyncio.run(_measure(full, setting, claims))


def fill(database: Database, number: int) -> None:
    """Add so many delivered events, six a minute, the newest now."""
    sqlite = database.engine.dialect.name == "sqlite"
    ago = (
        f"strftime('%Y-%m-%d %H:%M:%f000', 'now', (10 * (i - {number})) || ' seconds')"
        if sqlite
        else f"now() + make_interval(secs => 10 * (i - {number}))"
    )
    columns = {
        "type": "'task.stopped'",
        "task_id": "'ended-' || CAST(i AS text)",
        "kind": "'realtime_asr'",
        "app_id": "1234567890",
        "room_id": "'ended-' || CAST(i AS text)",
        "occurred_at": ago,
        "data": f"'{_DATA}'",
        "delivered_at": ago,
        "attempts": "1",
    }
    insert = f"INSERT INTO zego_events ({', '.join(columns)}) {_numbered(database, number, columns.values())}"
    database.application.execute(insert)
    database.application.execute("PRAGMA wal_checkpoint(TRUNCATE)" if sqlite else "VACUUM (ANALYZE) zego_events")


def start_tasks(database: Database, first: int, number: int) -> None:
    """Insert active tasks of these numbers, with people in their rooms."""
    columns = {"task_id": "CAST(i AS text)", "room_id": "'told-' || CAST(i AS text)", "user_count": "2"}
    rows = _numbered(database, number, columns.values(), int(task_id(first)))
    database.application.execute(f"INSERT INTO zego_tasks ({', '.join(columns)}) {rows}")


def end_tasks(database: Database, first: int, number: int) -> None:
    """End the tasks of these numbers in one transaction, as an operator may; each writes an event."""
    database.application.execute(
        "UPDATE zego_tasks SET status = 'stopped' WHERE status = 'active'"  # noqa: S608  # marks
        f" AND task_id >= {database.mark} AND task_id < {database.mark}",
        (task_id(first), task_id(first + number)),
    )


async def end_at_pace(database: Database, first: int, number: int, rate: int) -> float:
    """End tasks, so many a second; return how many seconds it took."""
    clock = SystemClock()
    began = clock.monotonic()
    for done in range(0, number, _AT_ONCE):
        await clock.sleep(max(0.0, began + done / rate - clock.monotonic()))
        end_tasks(database, first + done, min(_AT_ONCE, number - done))
    return clock.monotonic() - began


@asynccontextmanager
async def receiver(how: str = "takes") -> AsyncIterator[Running]:
    """A receiver that behaves in one of the ways of ``peers.receiver.BEHAVIOURS``."""
    arguments = ("-m", "benchmarks.peers", "receiver", how)
    async with processes.process(*arguments, out=asyncio.subprocess.PIPE) as running:
        assert running.stdout is not None  # noqa: S101 - a pipe was asked for
        yield Running(running, (await running.stdout.readline()).decode().strip())


def section(url: str) -> dict[str, Any]:
    """The daemon's configuration for a webhook there; for the outbox alone, if ``url`` is empty."""
    return {"notify": {"url": url, "events": ["all"], **({"secret_file": "webhook"} if url else {})}}


async def received(url: str) -> list[tuple[str, float, float]]:
    """Return the ``webhook-id`` of each request that a receiver got, and when it was written and received."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        found = (await client.get(url)).raise_for_status().json()
    return [(webhook_id, datetime.fromisoformat(at).timestamp(), arrived) for webhook_id, at, arrived in found]


async def mass_exodus(kind: str, setting: Setting) -> dict[str, list[exodus.Measured]]:
    """Measure each mode so many times, in turns, so that other load on the machine affects all of them."""
    found: dict[str, list[exodus.Measured]] = {mode: [] for mode in MODES}
    for number in range(setting.rounds):
        for mode in list(MODES)[:: -1 if number % 2 else 1]:
            async with AsyncExitStack() as stack:
                url = (await stack.enter_async_context(receiver())).url if mode == "webhook" else ""
                more = {} if mode == "off" else section(url)
                found[mode].append(await exodus.measure(ENTRIES[kind], setting.exodus, more))
    return found


def rows(one: Measured) -> list[list[str]]:
    """The rows of the table: a figure and what it is."""
    _, quarter, end = one.memory
    names = {"empty": "with an empty table", "full": "with the full one", "afterwards": "with the full one, afterwards"}
    first = median(one.claims["empty"])
    claims = [
        [
            f"claim with nothing pending, {name}",
            f"{spread(one.claims[key])}, **{median(one.claims[key]) / first:.2f}**",
        ]
        for key, name in names.items()
    ]
    return [
        ["backlog delivered, a second", f"{one.backlog:,.0f}"],
        ["written, a second", f"{one.written:,.0f}"],
        ["delivered, a second", f"{one.delivered:,.0f}"],
        ["written to received: p50, p99, worst", ", ".join(map(duration_or_dash, percentiles(one.within)))],
        ["not delivered, delivered twice", f"{one.missing}, {one.doubles}"],
        ["the daemon's CPU per event", f"{one.cpu_milliseconds:.2f} ms"],
        ["its memory: before, after a quarter, at the end", ", ".join(map(megabytes, one.memory))],
        ["growth from the quarter to the end", megabytes(end - quarter)],
        *claims,
    ]


def exodus_table(found: Mapping[str, Sequence[exodus.Measured]]) -> list[str]:
    """The best run of each mode, and how much slower it is than without events."""
    best = {mode: max(runs, key=lambda one: one.rate) for mode, runs in found.items()}
    cells = [
        [
            MODES[mode],
            f"{one.rate:,.0f}",
            f"{1 - one.rate / best['off'].rate:.1%}",
            f"{one.cpu_milliseconds:.2f} ms",
            str(one.left),
            str(one.doubles),
        ]
        for mode, one in best.items()
    ]
    return table(["", "stops a second", "lost", "CPU per stop", "not stopped", "stopped twice"], cells)


async def _measure(database: Database, setting: Setting, claims: dict[str, list[float]]) -> Measured:
    clock = SystemClock()
    number = int(setting.rate * setting.seconds)
    start_tasks(database, FIRST, setting.backlog + number)
    EventStore(database.engine, "bench").choose({"task.stopped": True})
    end_tasks(database, FIRST, setting.backlog)
    url = database.engine.url.render_as_string(hide_password=False)
    async with (
        receiver() as hook,
        processes.sandbox() as sandbox,
        processes.daemon(url, sandbox.url, section(hook.url)) as daemon,
    ):
        await _none_is_pending(database, clock)
        backlog = await received(hook.url)
        memory, before = [daemon.resident_bytes()], daemon.cpu_seconds()
        quarter = asyncio.create_task(_resident_after(daemon, setting.seconds / 4, clock))
        took = await end_at_pace(database, FIRST + setting.backlog, number, setting.rate)
        await _none_is_pending(database, clock)
        spent = daemon.cpu_seconds() - before
        memory += [await quarter, daemon.resident_bytes()]
        found = (await received(hook.url))[len(backlog) :]
    _time_claims({"afterwards": database}, setting.claims, claims)
    ids = {webhook_id for webhook_id, _, _ in found}
    return Measured(
        backlog=_rate(arrived for _, _, arrived in backlog),
        written=number / took,
        delivered=len(found) / (max(arrived for _, _, arrived in found) - min(at for _, at, _ in found)),
        within=sorted(arrived - at for _, at, arrived in found),
        missing=number - len(ids),
        doubles=len(found) - len(ids),
        cpu_milliseconds=1000 * spent / max(1, len(found)),
        memory=memory,
        claims=claims,
    )


def _numbered(database: Database, number: int, columns: Iterable[str], first: int = 0) -> str:
    """A query with so many rows, whose columns may use their number ``i``."""
    chosen = ", ".join(columns)
    if database.engine.dialect.name == "sqlite":
        following = f"SELECT i + 1 FROM n WHERE i < {first + number - 1}"  # noqa: S608  # numbers
        return f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL {following}) SELECT {chosen} FROM n"  # noqa: S608  # numbers
    return f"SELECT {chosen} FROM generate_series({first}, {first + number - 1}) AS n(i)"  # noqa: S608  # numbers


def _time_claims(databases: Mapping[str, Database], number: int, claims: Mapping[str, list[float]]) -> None:
    """Claim where nothing is pending, in turns; the first ones are not counted. Raises RuntimeError if something is."""
    stores = {name: EventStore(database.engine, "bench") for name, database in databases.items()}
    for turn in range(-_WARM_UP, number):
        for name, store in stores.items():
            began = perf_counter()
            claimed, next_seconds = store.claim(1, lease_seconds=30)
            took = perf_counter() - began
            if claimed or next_seconds is not None:
                raise RuntimeError("an event is pending, and the claim should have found nothing")
            if turn >= 0:
                claims[name].append(took)


async def _none_is_pending(database: Database, clock: SystemClock) -> None:
    """Wait until all events are delivered. Raises TimeoutError if there is no progress."""
    left, until = -1, 0.0
    while left != 0:
        await clock.sleep(_LOOK_EVERY_SECONDS)
        (now_left,) = database.application.execute(_IS_PENDING).fetchone()
        if now_left != left:
            left, until = now_left, clock.monotonic() + _GIVE_UP_SECONDS
        elif clock.monotonic() > until:
            raise TimeoutError(f"{left:,} events are still pending")


async def _resident_after(daemon: Running, seconds: float, clock: SystemClock) -> int:
    await clock.sleep(seconds)
    return daemon.resident_bytes()


def _rate(moments: Iterable[float]) -> float:
    """Events a second, from the first to the last."""
    found = sorted(moments)
    return (len(found) - 1) / max(1e-6, found[-1] - found[0]) if len(found) > 1 else 0.0
