"""Real daemon processes against a real sandbox, and an application that speaks plain SQL."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import yaml
from psycopg.rows import dict_row

from watchdog.clock import SystemClock
from watchdog.core.kinds import KINDS
from watchdog.sandbox import Limits, Sandbox, Start
from watchdog.sandbox.referee import Verdict, judge
from watchdog.store import schema
from watchdog.store.engine import open_engine

APP_ID = 12345
SECRET = "not-a-real-secret"


def fake_zego(apps: Mapping[int, str] | None = None, **settings: Any) -> Sandbox:
    """Return a sandbox, not started yet, with quick windows and a vendor's limits; ``settings`` are its own."""
    limits = Limits(start=0, stop=100, user_num=100)
    defaults: dict[str, Any] = {"seed": 7, "limits": limits, "concurrent_tasks": 0, "max_idle_seconds": 30}
    return Sandbox(apps or {APP_ID: SECRET}, **defaults | settings)


def secret_file(path: Path, secret: str = SECRET) -> str:
    """Write a file that the daemon accepts as one with a secret; return its path."""
    path.write_text(secret)
    path.chmod(0o600)
    return str(path)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the product's settings, and without a proxy to the sandbox."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZEGO_WATCHDOG_")}
    return kept | {"NO_PROXY": "127.0.0.1"} | more


def free_port() -> int:
    """Return a TCP port of the loopback that is free at the moment."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])


async def eventually(what: str, happened: Callable[[], bool], *, seconds: float = 30) -> None:
    """Return as soon as ``happened()``; fail with ``what`` after ``seconds``.

    ``happened`` runs in a thread, because it must not block the sandbox on the test's event loop.
    """
    clock = SystemClock()
    until = clock.monotonic() + seconds
    while not await asyncio.to_thread(happened):
        assert clock.monotonic() < until, f"after {seconds} s still not: {what}"
        await clock.sleep(0.02)


class Application:
    """A backend: three statements in plain SQL, and queries of the ledger."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        engine = open_engine(url.replace("postgresql://", "postgresql+psycopg://"), must_exist=False)
        schema.migrate(engine)
        engine.dispose()

    def execute(self, statement: str, *parameters: object) -> None:
        if self.is_sqlite:
            with closing(self._sqlite()) as connection:
                connection.execute(statement, parameters)
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement.replace("?", "%s"), parameters)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        if self.is_sqlite:
            with closing(self._sqlite()) as connection:
                return [dict(row) for row in connection.execute(statement)]
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(statement).fetchall()

    def old_rows(self, number: int) -> None:
        """Insert tasks old-0, old-1 … as before the schema refused their ``max_idle_seconds``."""
        if self.is_sqlite:
            (trigger,) = self.rows("SELECT sql FROM sqlite_master WHERE name = 'zego_tasks_refused'")
            without, again = "DROP TRIGGER zego_tasks_refused", trigger["sql"]
        else:
            without, again = (
                f"ALTER TABLE zego_tasks {word} TRIGGER zego_tasks_refused" for word in ("DISABLE", "ENABLE")
            )
        self.execute(without)
        for one in range(number):
            self.execute(f"INSERT INTO zego_tasks (task_id, room_id, max_idle_seconds) VALUES ('old-{one}', 'r', 2)")
        self.execute(again)

    def _sqlite(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None, timeout=10)
        connection.row_factory = sqlite3.Row
        return connection

    async def start(self, sandbox: Sandbox, room: str) -> str:
        """Start a task at the vendor and insert it as the README says."""
        task_id = str(sandbox.perform(Start(room=room))["task_id"])
        statement = "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)"
        await asyncio.to_thread(self.execute, statement, task_id, room)
        return task_id

    async def abandon(self, sandbox: Sandbox, rooms: Sequence[str]) -> list[str]:
        """Start a task in each room; the application sees people join and leave."""
        started = []
        for room in rooms:
            started.append(await self.start(sandbox, room))
            await asyncio.to_thread(self.people, room, 2)
            await asyncio.to_thread(self.people, room, 0)
        return started

    def people(self, room: str, count: int) -> None:
        self.execute("UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'", count, room)

    def attempts(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM zego_stop_attempts ORDER BY id")

    def statuses(self) -> dict[str, str]:
        return {row["task_id"]: row["status"] for row in self.rows("SELECT task_id, status FROM zego_tasks")}

    def judge(self, sandbox: Sandbox, watched: Sequence[str], *, daemon_killed: bool = False) -> Verdict:
        return judge(sandbox.events(), self.attempts(), watched=watched, daemon_killed=daemon_killed)


OTHER_KINDS: Final = [name for name, kind in KINDS.items() if not kind.is_default]


class DaemonProcess:
    """A process of ``zego-watchdog run`` that logs to a file."""

    def __init__(self, folder: Path, url: str, sandbox: Sandbox, **sections: Mapping[str, object]) -> None:
        self.folder = folder
        secret = secret_file(folder / "server_secret")
        config = {
            "database": {"url": url, "statement_timeout_seconds": 1},
            "zego": {
                "apps": [{"app_id": APP_ID, "server_secret_file": secret}],
                "asr_url": sandbox.url,
                "rtc_url": sandbox.url,
                "urls": dict.fromkeys(OTHER_KINDS, sandbox.url),
            },
            "policy": {
                "max_idle_seconds": 30,
                "grace_seconds": 1,
                "never_joined_grace_seconds": 2,
                "safety_margin_seconds": 5,
                "confirm_seconds": 0.5,
            }
            | dict(sections.get("policy", {})),
            # Most tests are about the application's hints, so polling is off.
            "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0} | dict(sections.get("schedule", {})),
            "guard": dict(sections.get("guard", {})),
            "stop": {"requests_per_second": 50, "occupancy_requests_per_second": 50} | dict(sections.get("stop", {})),
        }
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.log = folder / "daemon.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str, seconds: float = 30) -> None:
        """Return when its log says that it has started; ``options`` are those of ``run``."""
        before = len(self.events("started"))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "watchdog", "--config", str(self.config), "run", *options),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=environment(),
            )
        await eventually(
            f"the daemon has started: {self.log.read_text()}",
            lambda: len(self.events("started")) > before or not self.alive,
            seconds=seconds,
        )
        assert self.alive, self.log.read_text()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def events(self, name: str) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [event for event in lines if event["event"] == name]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 20) -> int:
        """Send the signal, and return the exit code."""
        assert self.process is not None
        if self.alive:
            self.send(number)
        async with asyncio.timeout(seconds):
            return await self.process.wait()
