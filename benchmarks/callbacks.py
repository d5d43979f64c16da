"""How many callbacks a daemon takes, and what becomes of its stops meanwhile: real processes, real HTTP.

One daemon, one sandbox. Rooms empty at a steady pace, first in silence, then while callbacks come as fast as they are
answered. Lateness is ``sent_at`` minus ``due_at`` in the ledger.
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx2
import sqlalchemy as sa
import yaml

from benchmarks.databases import Database
from watchdog.clock import SystemClock
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET
from watchdog.signing import callback_signature

_CALLBACK_SECRET: Final = "secret"  # noqa: S105 - the vendor's published example
_ROOMS: Final = 200
_EMPTYING_EVERY_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 1.0

Execute = Callable[..., list[Any]]
"""Runs one statement with its parameters, as ``?``, on the benchmark's database, commits, and returns the rows."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All in seconds; ``answered`` are the latencies of callbacks that were answered with 200."""

    load_seconds: float
    answered: Sequence[float]
    refused: int
    lateness_quiet: Sequence[float]
    lateness_loaded: Sequence[float]


def measure(database: Database, *, seconds: float, connections: int) -> Measured:
    """Measure on one database, both phases ``seconds`` long."""

    def execute(statement: str, *parameters: object) -> list[Any]:
        found = database.application.execute(statement.replace("?", database.mark), parameters)
        return list(found.fetchall()) if statement.startswith("SELECT") else []

    return asyncio.run(_measure(database.engine.url, execute, seconds=seconds, connections=connections))


async def _measure(url: sa.URL, execute: Execute, *, seconds: float, connections: int) -> Measured:
    clock = SystemClock()
    async with _sandbox() as vendor, _daemon(url.render_as_string(hide_password=False), vendor) as listening:
        await _empty_rooms(vendor, execute, "quiet", seconds, clock)
        emptying = asyncio.create_task(_empty_rooms(vendor, execute, "loaded", seconds, clock))
        began = clock.monotonic()
        latencies, refused = await _storm(f"{listening}/callbacks/zego", seconds, connections, clock)
        took = clock.monotonic() - began
        await emptying
    late = {
        phase: [float(row[0]) for row in execute(_LATENESS[url.get_backend_name()], f"{phase}-%")]
        for phase in ("quiet", "loaded")
    }
    return Measured(took, latencies, refused, late["quiet"], late["loaded"])


_LATENESS: Final = {
    "sqlite": (
        "SELECT (julianday(sent_at) - julianday(due_at)) * 86400 FROM zego_stop_attempts"
        " WHERE outcome = 'stopped' AND room_id LIKE ?"
    ),
    "postgresql": (
        "SELECT extract(epoch FROM sent_at - due_at) FROM zego_stop_attempts"
        " WHERE outcome = 'stopped' AND room_id LIKE ?"
    ),
}


async def _empty_rooms(vendor: str, execute: Execute, phase: str, seconds: float, clock: SystemClock) -> None:
    """Start a task in an empty room again and again, and wait until the last one is due and stopped."""
    async with httpx2.AsyncClient(base_url=vendor, trust_env=False) as control:
        for number in range(int(seconds / _EMPTYING_EVERY_SECONDS)):
            room = f"{phase}-{number}"
            started = (await control.post("_sandbox/start", json={"room": room})).raise_for_status().json()
            insert = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 0)"
            execute(insert, started["task_id"], room)
            await clock.sleep(_EMPTYING_EVERY_SECONDS)
    await clock.sleep(_GRACE_SECONDS + 1)


async def _storm(url: str, seconds: float, connections: int, clock: SystemClock) -> tuple[list[float], int]:
    """People come and go in rooms that nobody recognises, as fast as the daemon answers."""
    latencies: list[float] = []
    refused = 0
    numbers = count()
    until = clock.monotonic() + seconds

    async def one(client: httpx2.AsyncClient) -> None:
        nonlocal refused
        while clock.monotonic() < until:
            body = _callback(next(numbers), clock.time())
            began = clock.monotonic()
            answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
            if answer.status_code == httpx2.codes.OK:
                latencies.append(clock.monotonic() - began)
            else:
                refused += 1

    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(limits=limits, timeout=10, trust_env=False) as client, asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one(client))
    return latencies, refused


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
        "signature": callback_signature(_CALLBACK_SECRET, str(int(now)), nonce),
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


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    command = ["sandbox", "--port", "0", "--concurrency", "0"]
    for limit in ("--start-rate", "--stop-rate", "--user-num-rate"):
        command += [limit, "0"]
    async with _process(*command, out=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        first = (await process.stdout.readline()).decode()
        yield next(word for word in first.split() if word.startswith("http://"))


@asynccontextmanager
async def _daemon(url: str, vendor: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as name:
        folder = Path(name)
        for secret, content in (("server", EXAMPLE_SERVER_SECRET), ("callback", _CALLBACK_SECRET)):
            (folder / secret).write_text(content)
            (folder / secret).chmod(0o600)
        app = {"app_id": EXAMPLE_APP_ID, "server_secret_file": "server", "callback_secret_file": "callback"}
        port = _free_port()
        config = {
            "database": {"url": url},
            "zego": {"apps": [app], "asr_url": vendor, "rtc_url": vendor},
            "policy": {
                "grace_seconds": _GRACE_SECONDS,
                "never_joined_grace_seconds": _GRACE_SECONDS,
                "confirm_seconds": 0,
            },
            "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0},
            "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0},
            "http": {"listen": f"127.0.0.1:{port}"},
            "log": {"level": "error"},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        async with _process("--config", str(folder / "config.yaml"), "run"):
            listening = f"http://127.0.0.1:{port}"
            await _answers(f"{listening}/readyz")
            yield listening


@asynccontextmanager
async def _process(*arguments: str, out: int = asyncio.subprocess.DEVNULL) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZEGO_WATCHDOG_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchdog", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out,
        env=environment | {"NO_PROXY": "127.0.0.1"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(url: str) -> None:
    clock = SystemClock()
    async with httpx2.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            try:
                if (await client.get(url)).status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            await clock.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def _free_port() -> int:
    import socket  # noqa: PLC0415 - only to ask for a number

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
