"""The stage of every fault: a real database, a real sandbox and real daemon processes.

A test reads like this:

    @fault(2, "killed after commit, before send", quick=True, halts=math.inf)
    async def test_killed_before_sending(stage: Stage) -> None:
        daemon = await stage.begin(faults="intend.committed=kill")      # see chaos_daemon for the places
        rooms = await stage.abandon(3)
        await stage.strikes("it is dead", lambda: not daemon.alive)
        await daemon.start()
        await stage.recovers("all are stopped", lambda: stage.ended(rooms))
        await stage.audit(stopped=rooms, killed=True)           # I1 to I7 and I9; see audit

- The fixture ``stage`` (conftest) runs the test once on each database; restrict it with
  ``@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)``.
- ``stage.sandbox`` is the vendor: ``perform(Misbehaviour(...))``, ``perform(Join(...))``, ``events()``.
- ``stage.proxy(target)`` puts something that can break between a daemon and the vendor, or PostgreSQL.
- ``Supervisor`` is what systemd does for a unit with ``WatchdogSec`` and ``Restart=always``.
- ``strikes``, ``lifted`` and ``recovers`` measure; the figures are only reported.
- Wait for conditions with ``stage.until``; sleep only to see that something does *not* happen.
- ``fault(..., quick=True)`` runs in ``make test`` as well; ``make faults`` runs all.

The timings are short: a request takes 2 s at most, a lease 4.2 s, a grace half a second, and ZEGO's window is 30 s.
"""

import asyncio
import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from simulation import liveness
from tests.faults.audit import Case, inspect, install
from tests.faults.proxy import Proxy, Target
from tests.support.running import Application, DaemonProcess, environment, eventually, fake_zego
from watchdog.clock import SystemClock
from watchdog.core.kinds import KINDS
from watchdog.sandbox import Join, Kind, Sandbox, Start
from watchdog.sandbox.world import Event

ROOT = Path(__file__).parent.parent.parent
REQUEST_SECONDS = 2.0
LEASE_SECONDS = 4.2
BUSY_SECONDS = 2.0
"""What a busy machine may add to a silence."""
LOOK_SECONDS = 5.0
"""``policy.verification_max_age_seconds``."""

_POLICY: Mapping[str, object] = {
    "max_idle_seconds": 30,
    "grace_seconds": 0.5,
    "never_joined_grace_seconds": 0.5,
    "safety_margin_seconds": 5,
    "confirm_seconds": 0.3,
}
_STOP: Mapping[str, object] = {
    "request_timeout_seconds": REQUEST_SECONDS,
    "lease_seconds": LEASE_SECONDS,
    "shutdown_seconds": 3,
}


def fault(row: int, what: str, *, quick: bool = False, halts: float = 0.0) -> pytest.MarkDecorator:
    """Mark a test as row ``row`` of the fault matrix; a ``quick`` one is part of ``make test``.

    ``halts`` is for how many seconds the fault halts all daemons, their database or the way to ZEGO, which I9 allows.
    """
    return pytest.mark.fault(row, what, quick=quick, halts=halts)


@dataclass(slots=True)
class Record:
    """What the report says of one test; see ``report``."""

    row: int
    fault: str
    backend: str
    halts: float = 0.0
    """For how many seconds the fault halts everything; infinite: I9 is not judged."""
    times: int = 0
    """How often the fault struck."""
    recovered_seconds: list[float] = field(default_factory=list)
    invariants: set[str] = field(default_factory=set)

    def as_property(self) -> dict[str, Any]:
        """Return the same for a test's report, which crosses from process to process."""
        return asdict(self) | {"invariants": sorted(self.invariants)}


class Nursery:
    """The process that forks daemons; see ``chaos_daemon``. They end with it."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.chaos_daemon"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=environment(),
            )
        self._started: SimpleQueue[int] = SimpleQueue()
        self._ends: dict[int, Future[int]] = {}
        self._listening = threading.Thread(target=self._listen, name="nursery")
        self._listening.start()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._listening.join()
        self._process.stdout.close()

    def fork(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Return the pid of a new daemon."""
        assert self._process.stdin is not None
        order = {"arguments": list(arguments), "log": str(log), "environment": dict(environment)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._started.get(timeout=60)

    def code(self, pid: int) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        end = self._ends[pid]
        return end.result() if end.done() else None

    async def wait(self, pid: int) -> int:
        return await asyncio.shield(asyncio.wrap_future(self._ends[pid]))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "started" in said:
                self._ends[said["started"]] = Future()
                self._started.put(said["started"])
            elif "ended" in said:
                self._ends[said["ended"]].set_result(said["code"])


class Daemon(DaemonProcess):
    """One daemon: a configuration, a log and one process at a time."""

    def __init__(
        self, folder: Path, url: str, sandbox: Sandbox, nursery: Nursery, **sections: Mapping[str, object]
    ) -> None:
        super().__init__(folder, url, sandbox, **sections)
        self._nursery = nursery
        self.pid = 0
        self.first_started_at = math.inf
        self.configure(**sections)

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Change sections of the configuration file; send SIGHUP to apply them."""
        config = yaml.safe_load(self.config.read_text())
        for name, section in sections.items():
            config[name] = config.get(name, {}) | dict(section)
        self.config.write_text(yaml.safe_dump(config))

    async def start(
        self, *options: str, seconds: float = 30, faults: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        """Return when it says that it has started, or has died of a fault; ``faults`` are chaos_daemon's."""
        before = len(self.events("started"))
        arguments = ("--config", str(self.config), "run", *options)
        self.pid = await asyncio.to_thread(
            self._nursery.fork, arguments, self.log, {"FAULTS": faults, **(environment or {})}
        )
        await eventually(
            f"the daemon has started: {self.log.read_text() if self.log.exists() else ''}",
            lambda: len(self.events("started")) > before or not self.alive,
            seconds=seconds,
        )
        assert self.alive or faults, self.log.read_text()
        self.first_started_at = min(self.first_started_at, SystemClock().time())

    def silence_seconds(self) -> float:
        """The longest silence that I9 allows with this configuration, on a busy machine."""
        config = yaml.safe_load(self.config.read_text())
        return BUSY_SECONDS + liveness.allowed_seconds(
            stops_per_second=config["stop"]["requests_per_second"],
            calls_per_second=config["stop"]["occupancy_requests_per_second"],
            request_timeout_seconds=config["stop"]["request_timeout_seconds"],
            sweep_seconds=config["schedule"]["poll_seconds"],
        )

    @property
    def alive(self) -> bool:
        return self.pid != 0 and self._nursery.code(self.pid) is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 20) -> int:
        """Send the signal, and return the exit code."""
        if self.alive:
            with suppress(ProcessLookupError):
                self.send(number)
        async with asyncio.timeout(seconds):
            return await self._nursery.wait(self.pid)

    @property
    def is_frozen(self) -> bool:
        """Whether it has been stopped by SIGSTOP."""
        return self.alive and Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def status(self, name: str) -> int:
        return process_status(self.pid, name)


def process_status(pid: int, name: str) -> int:
    """Return a number of ``/proc/PID/status``, such as VmRSS in kB or Threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[name].split()[0])


class Supervisor:
    """Acts as systemd: restarts the daemon, and kills it when WATCHDOG=1 is late."""

    def __init__(self, daemon: Daemon, *, watchdog_seconds: float) -> None:
        self._daemon = daemon
        self._watchdog_seconds = watchdog_seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = daemon.folder / "notify"
        self._running: asyncio.Task[None] | None = None
        self.starts = 0
        self.timeouts = 0

    async def __aenter__(self) -> Self:
        # A socket's path may be 107 bytes long, and a test's folder is longer.
        os.symlink(self._daemon.folder, short := Path(f"/tmp/faults-{os.getpid()}-{id(self):x}"))  # noqa: S108, PTH211 - short
        self._short = short
        self._socket.bind(str(short / "notify"))
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._socket.close()
        self._short.unlink()

    async def _run(self) -> None:
        environment = {
            "NOTIFY_SOCKET": str(self._short / "notify"),
            "WATCHDOG_USEC": str(round(self._watchdog_seconds * 1_000_000)),
        }
        while True:
            self.starts += 1
            with suppress(AssertionError):
                await self._daemon.start(environment=environment)
            await self._watch()
            if self._daemon.alive:
                self.timeouts += 1
                await self._daemon.end(signal.SIGABRT)

    async def _watch(self) -> None:
        """Return when it has died, or has been silent for too long."""
        clock, loop = SystemClock(), asyncio.get_running_loop()
        heard_at = clock.monotonic()
        while self._daemon.alive and clock.monotonic() - heard_at < self._watchdog_seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    message = await loop.sock_recv(self._socket, 4096)
                    if b"WATCHDOG=1" in message or b"READY=1" in message:
                        heard_at = clock.monotonic()


class Stage:
    """One database, one sandbox, any number of daemons and proxies; ``audit`` is the end of a test."""

    def __init__(self, folder: Path, url: str, nursery: Nursery, record: Record) -> None:
        self.folder = folder
        self.url = url
        self.record = record
        self.clock = SystemClock()
        self.daemons: list[Daemon] = []
        self._nursery = nursery
        self._exits = AsyncExitStack()
        self._application: Application | None = None
        self._sandbox: Sandbox | None = None
        self._struck_at = 0.0
        self._rooms = 0
        self.kind = "asr"
        self.window_seconds: int | None = None

    async def open(self, *, apps: Mapping[int, str] | None = None, **settings: Any) -> Sandbox:
        """Make the database and start the sandbox; ``settings`` are the sandbox's, ``apps`` its AppIds' secrets."""
        self._application = await asyncio.to_thread(Application, self.url)
        await asyncio.to_thread(install, self._application)
        self._sandbox = await self._exits.enter_async_context(fake_zego(apps, **settings))
        return self._sandbox

    async def close(self) -> None:
        for daemon in self.daemons:
            if daemon.alive:
                daemon.send(signal.SIGKILL)
                await self._nursery.wait(daemon.pid)
        await self._exits.aclose()

    @property
    def sandbox(self) -> Sandbox:
        assert self._sandbox is not None, "the stage is not open"
        return self._sandbox

    @property
    def application(self) -> Application:
        assert self._application is not None, "the stage is not open"
        return self._application

    @property
    def is_sqlite(self) -> bool:
        return self.application.is_sqlite

    @property
    def vendor(self) -> Target:
        """The sandbox's address, for a proxy."""
        address = urlsplit(self.sandbox.url)
        return str(address.hostname), int(address.port or 0)

    def daemon(self, *, database_url: str = "", **sections: Any) -> Daemon:
        """Make a daemon, not started yet. It does not outlive the test."""
        folder = self.folder / f"daemon-{len(self.daemons)}"
        folder.mkdir()
        merged = dict(sections)
        for name, defaults in (("policy", _POLICY), ("stop", _STOP), ("schedule", {"poll_seconds": 0.2})):
            merged[name] = {**defaults, **sections.get(name, {})}
        daemon = Daemon(folder, database_url or self.url, self.sandbox, self._nursery, **merged)
        self.daemons.append(daemon)
        return daemon

    async def begin(self, *, faults: str = "", max_idle_seconds: float = 30, **sections: Any) -> Daemon:
        """Open the stage and start one daemon on it."""
        await self.open(max_idle_seconds=max_idle_seconds)
        daemon = self.daemon(**sections)
        await daemon.start(faults=faults)
        return daemon

    async def proxy(self, target: Target | None = None) -> Proxy:
        """Put a proxy in front of ``target``, by default the sandbox. It does not outlive the test."""
        return await self._exits.enter_async_context(Proxy(target or self.vendor))

    # -- application and people --

    async def abandon(self, number: int, *, app_id: int | None = None) -> list[str]:
        """Start that many tasks, each in a room that people have left; return the TaskIds."""
        tasks = self._start(number, app_id)
        await asyncio.to_thread(self._write_down, tasks, app_id, (2, 0))
        return list(tasks)

    async def talk(self, number: int, *, says: int = 0) -> list[str]:
        """Start tasks in occupied rooms; ``says`` is the application's count (0: it is wrong)."""
        tasks = self._start(number, None)
        for room in tasks.values():
            self.sandbox.perform(Join(room=room, user="alice"))
        await asyncio.to_thread(self._write_down, tasks, None, (2, says))
        return list(tasks)

    def _start(self, number: int, app_id: int | None) -> dict[str, str]:
        tasks = {}
        for _ in range(number):
            self._rooms += 1
            room = f"room-{self._rooms}"
            start = Start(
                room=room,
                kind=Kind(self.kind),
                user=self._bot(room),
                app_id=app_id,
                max_idle_seconds=self.window_seconds,
            )
            tasks[str(self.sandbox.perform(start)["task_id"])] = room
        return tasks

    def _bot(self, room: str) -> str | None:
        """Return the user that a task of the kind brings into its room."""
        return f"bot-of-{room}" if KINDS[self.kind].brings_user else None

    def _write_down(self, tasks: Mapping[str, str], app_id: int | None, counts: Iterable[int]) -> None:
        """Insert each task as a backend does, then write the counts one after the other."""
        columns = "task_id, room_id, app_id, kind, bot_user_id, max_idle_seconds"
        insert = f"INSERT INTO zego_tasks ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
        update = "UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'"
        rows = [
            (task_id, room, app_id, self.kind, self._bot(room), self.window_seconds) for task_id, room in tasks.items()
        ]
        hints = [(count, room) for count in counts for room in tasks.values()]
        if self.is_sqlite:
            file = self.url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(file, timeout=20)) as lite, lite:
                lite.executemany(insert, rows)
                lite.executemany(update, hints)
        else:
            with psycopg.connect(self.url) as postgresql, postgresql.cursor() as cursor:
                cursor.executemany(insert.replace("?", "%s"), rows)
                cursor.executemany(update.replace("?", "%s"), hints)

    # -- watching --

    async def until(self, what: str, happened: Callable[[], bool], *, seconds: float = 30) -> None:
        """Return as soon as ``happened()``, which runs in a thread; fail with ``what`` after ``seconds``."""
        try:
            await eventually(what, happened, seconds=seconds)
        except AssertionError as error:
            error.add_note(self.logs())
            raise

    def logs(self, lines: int = 15, characters: int = 300) -> str:
        """Return the last lines of every daemon's log, shortened."""
        return "\n".join(
            "\n".join(
                [
                    f"-- {daemon.folder.name}:",
                    *(line[:characters] for line in daemon.log.read_text().splitlines()[-lines:]),
                ]
            )
            for daemon in self.daemons
            if daemon.log.exists()
        )

    def ended(self, tasks: Collection[str]) -> bool:
        """Whether all these tasks have ended."""
        statuses = self.application.statuses()
        return all(statuses[task] != "active" for task in tasks)

    def attempts(self, *outcomes: str) -> list[dict[str, Any]]:
        """Return the ledger's rows, of these outcomes only if any are named."""
        return [row for row in self.application.attempts() if not outcomes or row["outcome"] in outcomes]

    def outcomes(self, task: str) -> list[str]:
        """Return the outcomes of one task's attempts, first to last."""
        return [row["outcome"] for row in self.application.attempts() if row["task_id"] == task]

    def room_of(self, task: str) -> str:
        (row,) = self.application.rows(f"SELECT room_id FROM zego_tasks WHERE task_id = '{task}'")
        return str(row["room_id"])

    def requests(self) -> list[Event]:
        """Return the Stop requests that the vendor has completed."""
        return [event for event in self.sandbox.events() if event["event"] == "stop_requested"]

    # -- measuring --

    async def strikes(self, what: str, happened: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until the fault has struck; the recovery time starts then."""
        await self.until(what, happened, seconds=seconds)
        self.struck()

    def struck(self, times: int = 1) -> None:
        """Note that the fault strikes now."""
        self.record.times += times
        self.lifted()

    def lifted(self) -> None:
        """Note that the fault is over; the recovery time starts now."""
        self._struck_at = self.clock.monotonic()

    async def recovers(self, what: str, happened: Callable[[], bool], *, seconds: float = 30) -> float:
        """Wait for the recovery; report and return how long it took."""
        await self.until(what, happened, seconds=seconds)
        took = self.clock.monotonic() - self._struck_at
        self.record.recovered_seconds.append(round(took, 2))
        return took

    def visible(self, daemon: Daemon, *events: str) -> None:
        """Check I8: the daemon has logged these events."""
        for event in events:
            assert daemon.events(event), f"I8: {event} is not in the log:\n{self.logs()}"
        self.record.invariants.add("I8")

    async def audit(
        self,
        *,
        stopped: Sequence[str] = (),
        kept: Sequence[str] = (),
        killed: bool = False,
        settle_seconds: float = 30,
    ) -> None:
        """Wait until no attempt is open and nothing is under way, then check I1 to I7 and I9; see ``audit``.

        ``killed``: a daemon was killed, and may have lost any answer.
        """
        await self.until("no attempt is left open", lambda: not self.attempts("sent"), seconds=settle_seconds)
        case = Case(
            application=self.application,
            events=self.sandbox.events(),
            stopped=stopped,
            kept=kept,
            killed=killed,
            look_seconds=LOOK_SECONDS,
            request_seconds=REQUEST_SECONDS,
            lively_since=min(daemon.first_started_at for daemon in self.daemons),
            silence_seconds=self.record.halts + max(daemon.silence_seconds() for daemon in self.daemons),
        )
        breaches = await asyncio.to_thread(inspect, case)
        if breaches:
            error = AssertionError("\n".join(breaches))
            error.add_note(self.logs())
            raise error
        self.record.invariants |= {"I1", "I2", "I4", "I5", "I6", "I7"} | ({"I3"} if stopped else set())
        if stopped and self.record.halts < math.inf:
            self.record.invariants.add("I9")
