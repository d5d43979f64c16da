"""The watchdog and its peers, each running and ready to be told of rooms, beside a sandbox.

A contender is an application that takes orders, with its daemon, worker, database server and broker. Its cost is
the sum of theirs.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks import databases, processes
from benchmarks.databases import Database
from benchmarks.peers.orders import Rooms
from benchmarks.peers.vendor import CONCURRENCY

MAX_IDLE_SECONDS: Final = 1800
"""What all tasks are started with: no auto-stop while something is measured."""

Sections = Mapping[str, Mapping[str, Any]]
"""The parts of the daemon's configuration that a benchmark sets."""


def due_after(grace_seconds: float) -> dict[str, float]:
    """Return the daemon's policy by which a task is due so long after its room has emptied."""
    return {"grace_seconds": grace_seconds, "never_joined_grace_seconds": grace_seconds, "confirm_seconds": 0}


class Application:
    """A process that carries out orders, one after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._turn = asyncio.Lock()

    async def empty(self, rooms: Rooms, due_at: float) -> None:
        """Say that these rooms have emptied, due at a Unix time. Returns when it is recorded."""
        await self._order({"empty": list(rooms), "due_at": due_at})

    async def occupied(self, rooms: Rooms) -> None:
        """Say that people are back in these rooms."""
        await self._order({"occupied": list(rooms)})

    async def _order(self, order: Mapping[str, object]) -> None:
        async with self._turn:
            assert self.process.stdin is not None  # noqa: S101 - a pipe was asked for
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            await expect(self.process, "ok")


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is running. ``database`` is the watchdog's, None for a peer; ``pids`` are the roots of all it needs."""

    application: Application
    pids: Sequence[int]
    database: Database | None = None

    def cpu_seconds(self) -> float:
        """Processor time so far, the database server's and the broker's included."""
        return processes.cpu_seconds(self.pids)

    def memory_bytes(self) -> int:
        """Memory at present, the servers' included; what they share is counted once."""
        return processes.memory_bytes(self.pids)


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender by its name. ``start`` needs the vendor's URL, the tasks, and the daemon's settings."""

    name: str
    start: Callable[[str, Rooms, Sections], AbstractAsyncContextManager[Contender]]
    is_peer: bool = True
    needs: str | None = None
    """A program that must be installed, and the Debian package of the same name that has it."""


async def expect(process: asyncio.subprocess.Process, word: str) -> None:
    """Wait for the line. Raises RuntimeError if the process ends instead."""
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    if (said := (await process.stdout.readline()).decode().strip()) != word:
        raise RuntimeError(f"a contender said {said or 'nothing'} instead of {word}")


@asynccontextmanager
async def _application(
    module: str, *arguments: str, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Application]:
    pipe = asyncio.subprocess.PIPE
    program = ("-m", "benchmarks.peers", module, *arguments)
    async with processes.process(*program, out=pipe, take=pipe, variables=variables) as process:
        await expect(process, "ready")
        yield Application(process)


@asynccontextmanager
async def _worker(*arguments: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[int]:
    async with processes.process(*arguments, out=asyncio.subprocess.PIPE, variables=variables) as process:
        await expect(process, "ready")
        yield process.pid


@asynccontextmanager
async def _watchdog(kind: str, vendor: str, tasks: Rooms, sections: Sections) -> AsyncIterator[Contender]:
    with (databases.sqlite if kind == "sqlite" else databases.postgresql)([0]) as (_, (database,)):
        insert_tasks(database, tasks)
        url = database.engine.url.render_as_string(hide_password=False)
        server = [] if kind == "sqlite" else [databases.postmaster(database)]
        grace = sections["policy"]["grace_seconds"]
        where = str(database.engine.url.database) if kind == "sqlite" else conninfo(database)
        async with (
            processes.daemon(url, vendor, sections) as daemon,
            _application("watchdog_application", kind, where, str(grace)) as application,
        ):
            yield Contender(application, [application.process.pid, daemon.process.pid, *server], database)


def of_watchdog(contender: Contender) -> Database:
    """The watchdog's database. Raises TypeError for a peer."""
    if contender.database is None:
        raise TypeError("a peer keeps no ledger")
    return contender.database


def insert_tasks(database: Database, tasks: Rooms) -> None:
    """As the application does after Start, with somebody in each room."""
    mark = database.mark
    insert = (
        "INSERT INTO zego_tasks (task_id, room_id, user_count, max_idle_seconds)"  # noqa: S608  # a mark, and a number
        f" VALUES ({mark}, {mark}, 1, {MAX_IDLE_SECONDS})"
    )
    database.application.execute("BEGIN")
    for task in tasks:
        database.application.execute(insert, tuple(task))
    database.application.execute("COMMIT")


def conninfo(database: Database) -> str:
    """The address of a PostgreSQL database as psycopg takes it."""
    return sa.make_url(str(database.engine.url)).set(drivername="postgresql").render_as_string(hide_password=False)


def _watchdog_on(kind: str) -> Callable[[str, Rooms, Sections], AbstractAsyncContextManager[Contender]]:
    return lambda vendor, tasks, sections: _watchdog(kind, vendor, tasks, sections)


@asynccontextmanager
async def _script(vendor: str, _tasks: Rooms, _sections: Sections) -> AsyncIterator[Contender]:
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as folder:
        path = str(Path(folder) / "application.db")
        async with (
            _application("script", "application", path) as application,
            _worker("-m", "benchmarks.peers", "script", "worker", path, vendor) as worker,
        ):
            yield Contender(application, [application.process.pid, worker])


@asynccontextmanager
async def _date_jobs(vendor: str, _tasks: Rooms, _sections: Sections) -> AsyncIterator[Contender]:
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as folder:
        async with _application("date_jobs", f"sqlite:///{folder}/jobs.db", vendor) as application:
            yield Contender(application, [application.process.pid])


@asynccontextmanager
async def _scheduled_jobs(vendor: str, _tasks: Rooms, _sections: Sections) -> AsyncIterator[Contender]:
    with databases.postgresql([0]) as (_, (database,)):
        where = conninfo(database)
        async with (
            _application("scheduled_jobs", "application", where) as application,
            _worker("-m", "benchmarks.peers", "scheduled_jobs", "worker", where, vendor) as worker,
        ):
            yield Contender(application, [application.process.pid, worker, databases.postmaster(database)])


@asynccontextmanager
async def _eta_tasks(vendor: str, _tasks: Rooms, _sections: Sections) -> AsyncIterator[Contender]:
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as folder:
        socket = f"{folder}/redis.sock"
        variables = {
            "BENCHMARK_BROKER": f"redis+socket://{socket}",
            "BENCHMARK_VENDOR": vendor,
            "PYTHONWARNINGS": "ignore::UserWarning",  # that we are root, as in many a container
        }
        # Debian's defaults otherwise: a snapshot now and then, no log of appends.
        server = ("--port", "0", "--unixsocket", socket, "--dir", folder)
        celery = ("-m", "celery", "--app", "benchmarks.peers.eta_tasks", "--quiet", "worker")
        # What is of no use to a single worker is off, as Celery's users' guide has it.
        options = ("--pool", "threads", "--concurrency", str(CONCURRENCY), "--loglevel", "ERROR")
        alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        async with (
            processes.process(*server, program=_REDIS) as redis,
            _worker(*celery, *options, *alone, variables=variables) as worker,
            _application("eta_tasks", variables=variables) as application,
        ):
            yield Contender(application, [application.process.pid, worker, redis.pid])


_REDIS: Final = "redis-server"

ENTRIES: Final = {
    "sqlite": Entry("zego-watchdog, SQLite", _watchdog_on("sqlite"), is_peer=False),
    "postgresql": Entry("zego-watchdog, PostgreSQL", _watchdog_on("postgresql"), is_peer=False),
    "script": Entry("script: SELECT every 5 s", _script),
    "apscheduler": Entry("APScheduler, SQLite", _date_jobs),
    "procrastinate": Entry("procrastinate, PostgreSQL", _scheduled_jobs),
    "celery": Entry("Celery, Redis", _eta_tasks, needs=_REDIS),
}
"""All that are compared, by the word for the command line."""


def missing(names: Sequence[str]) -> list[str]:
    """The programs, and Debian packages, that these contenders need and that are not installed."""
    wanted = {ENTRIES[name].needs for name in names}
    return sorted(program for program in wanted if program is not None and shutil.which(program) is None)
