"""How many callbacks a daemon takes, and what becomes of its stops meanwhile: real processes, real HTTP.

One daemon, one sandbox. Rooms empty at a steady pace, first in silence, then while callbacks come as fast as they are
answered. Lateness is when the Stop request arrived, by the sandbox's log, minus ``due_at`` in the ledger, whose
``sent_at`` is when it was to leave.
"""

import asyncio
import json
import math
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx2 as httpx

from benchmarks import processes, rooms
from benchmarks.contenders import conninfo, expect
from benchmarks.databases import Database, unix_time
from benchmarks.processes import CALLBACK_SECRET
from watchdog.clock import SystemClock
from watchdog.core.signing import callback_signature
from watchdog.sandbox.command import EXAMPLE_APP_ID

_ROOMS: Final = 200
_EMPTYING_EVERY_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 10.0
_STRAGGLERS_SECONDS: Final = 10.0
"""How long is waited for a stop after the one before it."""

SETTINGS: Final = {"policy": {"grace_seconds": _GRACE_SECONDS, "never_joined_grace_seconds": _GRACE_SECONDS}}

_ONE_BY_ONE: Final = (
    "from watchdog.store.aio import callbacks; callbacks.MOST = callbacks.LEAST = 1;"
    " callbacks.BEGIN_WITHIN_SECONDS = 9; from watchdog.cli import main; main()"
)
"""The daemon with a transaction for each callback, as it was before, and patient."""

_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]

Execute = Callable[..., list[Any]]
"""Runs one statement with its parameters, as ``?``, on the benchmark's database, commits, and returns the rows."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All in seconds; ``answered`` are the latencies of callbacks that were answered with 200 while stops left.

    ``alone``, ``one_by_one`` and ``bare`` are callbacks a second without stops: of the daemon, of one that commits each
    by itself, and of an endpoint that checks the signature and commits one row for each, in groups.
    """

    alone: float
    one_by_one: float
    bare: float
    load_seconds: float
    answered: Sequence[float]
    refused: int
    lateness_quiet: Sequence[float]
    lateness_loaded: Sequence[float]


def measure(database: Database, *, seconds: float, connections: int) -> Measured:
    """Measure on one database, both phases ``seconds`` long."""
    return asyncio.run(_measure(database, seconds=seconds, connections=connections))


def executor(database: Database) -> Execute:
    """What runs statements through the application's connection."""

    def execute(statement: str, *parameters: object) -> list[Any]:
        found = database.application.execute(statement.replace("?", database.mark), parameters)
        return list(found.fetchall()) if statement.startswith("SELECT") else []

    return execute


async def _measure(database: Database, *, seconds: float, connections: int) -> Measured:
    clock, execute = SystemClock(), executor(database)
    url = database.engine.url.render_as_string(hide_password=False)
    one_by_one = await _one_by_one(url, seconds, connections, clock)
    bare = await _bare(database, seconds, connections, clock)
    async with (
        processes.sandbox() as vendor,
        rooms.control(vendor.url) as log,
        processes.daemon(url, vendor.url, SETTINGS) as daemon,
    ):
        quiet = await empty_rooms(vendor.url, execute, "quiet", seconds, clock)
        await log.wait_for_stops(quiet, _STRAGGLERS_SECONDS)
        alone = await _rate(f"{daemon.url}callbacks/zego", seconds, connections, clock)
        emptying = asyncio.create_task(empty_rooms(vendor.url, execute, "loaded", seconds, clock))
        began = clock.monotonic()
        latencies, refused = await storm(f"{daemon.url}callbacks/zego", seconds, connections, clock)
        took = clock.monotonic() - began
        await log.wait_for_stops(quiet + await emptying, _STRAGGLERS_SECONDS)
    late = {
        phase: lateness(database, execute, [stop for stop in log.stops() if stop["room_id"].startswith(f"{phase}-")])
        for phase in ("quiet", "loaded")
    }
    return Measured(alone, one_by_one, bare, took, latencies, refused, late["quiet"], late["loaded"])


async def _one_by_one(url: str, seconds: float, connections: int, clock: SystemClock) -> float:
    async with (
        processes.sandbox() as vendor,
        processes.daemon(url, vendor.url, SETTINGS, program=("-c", _ONE_BY_ONE)) as daemon,
    ):
        return await _rate(f"{daemon.url}callbacks/zego", seconds, connections, clock)


async def _bare(database: Database, seconds: float, connections: int, clock: SystemClock) -> float:
    kind, port = database.engine.url.get_backend_name(), processes.free_port()
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as folder:
        where = f"{folder}/bare.db" if kind == "sqlite" else conninfo(database)
        arguments = ("-m", "benchmarks.peers", "callback_endpoint", kind, where, str(port))
        async with processes.process(*arguments, out=asyncio.subprocess.PIPE) as endpoint:
            await expect(endpoint, "ready")
            return await _rate(f"http://127.0.0.1:{port}/callbacks/zego", seconds, connections, clock)


async def _rate(url: str, seconds: float, connections: int, clock: SystemClock) -> float:
    began = clock.monotonic()
    latencies, _ = await storm(url, seconds, connections, clock)
    return len(latencies) / (clock.monotonic() - began)


def lateness(database: Database, execute: Execute, stops: Sequence[rooms.Event]) -> list[float]:
    """How many seconds after their due times these stops arrived."""
    due_at = unix_time(database.engine.url.get_backend_name(), "due_at")
    since = unix_time(database.engine.url.get_backend_name(), "sent_at")
    sent = execute(
        f"SELECT task_id, {due_at} FROM zego_stop_attempts WHERE {since} > ?",  # noqa: S608  # expressions
        min((stop["received_at"] for stop in stops), default=0.0) - 60,
    )
    due = {task_id: float(moment) for task_id, moment in sent}
    return [stop["received_at"] - due[stop["task_id"]] for stop in stops]


async def empty_rooms(
    vendor: str,
    execute: Execute,
    phase: str,
    seconds: float,
    clock: SystemClock,
    *,
    every_seconds: float = _EMPTYING_EVERY_SECONDS,
) -> int:
    """Start a task in an empty room so often; return how many when the last one is due."""
    tasks = int(seconds / every_seconds)
    async with httpx.AsyncClient(base_url=vendor, trust_env=False) as control:
        for number in range(tasks):
            room = f"{phase}-{number}"
            started = (await control.post("_sandbox/start", json={"room": room})).raise_for_status().json()
            insert = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 0)"
            execute(insert, started["task_id"], room)
            await clock.sleep(every_seconds)
    await clock.sleep(_GRACE_SECONDS)
    return tasks


async def storm(
    url: str, seconds: float, connections: int, clock: SystemClock, *, rate: float = math.inf
) -> tuple[list[float], int]:
    """People come and go in rooms that nobody recognises, so often a second, or as fast as the daemon answers.

    Returns how long each accepted callback took, and how many were refused. Speaks HTTP by itself: a client takes more
    processor time than the server that it measures.
    """
    latencies: list[float] = []
    refused = 0
    numbers = count()
    parts = urlsplit(url)
    since = clock.monotonic()
    until = since + seconds

    async def one() -> None:
        nonlocal refused
        link: _Link | None = None
        while clock.monotonic() < until:
            number = next(numbers)
            at = since + number / rate
            if at >= until:
                break
            await clock.sleep(max(0.0, at - clock.monotonic()))
            body = _callback(number, clock.time())
            began = clock.monotonic()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    link = link or await asyncio.open_connection(parts.hostname, parts.port)
                    status, is_last = await _post(link, parts, body)
            except (OSError, EOFError):
                status, is_last = 0, True
            if is_last and link is not None:
                link[1].close()
                link = None
            if status == httpx.codes.OK:
                latencies.append(clock.monotonic() - began)
            else:
                refused += 1
        if link is not None:
            link[1].close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one())
    return latencies, refused


async def _post(link: _Link, url: SplitResult, body: bytes) -> tuple[int, bool]:
    """Send a body; return the status of the answer, and whether the connection ends with it."""
    reader, writer = link
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", answer)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(answer[9:12]), b"connection: close" in answer


def _callback(number: int, now: float) -> bytes:
    """The ``number``-th login or logout: everybody who comes leaves with the next round."""
    turn, room = divmod(number, _ROOMS)
    came = str(int(now * 1000) - 1000)
    nonce = secrets.token_hex(8)
    fields = {
        "event": "room_login" if turn % 2 == 0 else "room_logout",
        "appid": str(EXAMPLE_APP_ID),
        "timestamp": str(int(now)),
        "nonce": nonce,
        "signature": callback_signature(CALLBACK_SECRET, str(int(now)), nonce),
        "room_id": f"talk-{room}",
        "room_seq": str(10**17 + room),
        "user_account": f"user-{turn // 2}",
        "session_id": str(10**17 + turn // 2),
        "login_time": came,
        "user_role": "1",
        "relogin": "0",
        "user_update_seq": str(turn),
    }
    if turn % 2:
        fields |= {"logout_time": str(int(now * 1000)), "reason": "0"}
    return json.dumps(fields).encode()
