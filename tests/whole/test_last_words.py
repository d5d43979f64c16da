"""Real processes: answers arrive while the database is away, and the daemon is killed before it is back."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.support.postgresql import Server
from tests.support.running import Application, DaemonProcess, eventually, fake_zego
from tests.support.spool import noted
from watchdog.sandbox import Action, Misbehaviour, Sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with fake_zego() as running:
        # ZEGO acts at once, and says so later.
        running.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(1.5, 1.5), requests=8))
        yield running


class Daemon:
    """Daemons one after the other on one database, with one spool directory."""

    def __init__(self, tmp_path: Path, url: str, sandbox: Sandbox) -> None:
        folder = tmp_path / "daemon"
        folder.mkdir()
        self.spool = tmp_path / "spool"
        self.spool.mkdir()
        stop = {"journal_directory": str(self.spool), "request_timeout_seconds": 4, "lease_seconds": 7}
        self.process = DaemonProcess(folder, url, sandbox, stop=stop)

    def noted(self) -> list[str]:
        """The RequestIds in the spool."""
        return noted(self.spool, "request_id")


def sent(application: Application) -> int:
    return sum(row["outcome"] == "sent" for row in application.attempts())


def taken(sandbox: Sandbox) -> int:
    """How many tasks the vendor has stopped; it says so later."""
    return sum(event["event"] == "task_stopped" for event in sandbox.events())


def answers(sandbox: Sandbox) -> dict[str, str]:
    """By the sandbox's own log: which request stopped which task."""
    requested = [event for event in sandbox.events() if event["event"] == "stop_requested" and event["accepted"]]
    return {event["task_id"]: event["request_id"] for event in requested}


def agree(application: Application, sandbox: Sandbox, tasks: list[str]) -> None:
    """The ledger has each answer once, and nothing was sent again."""
    rows = application.attempts()
    assert {row["task_id"]: row["request_id"] for row in rows} == answers(sandbox)
    assert [(row["outcome"], row["code"], row["attempt"]) for row in rows] == [("stopped", "0", 1)] * len(tasks)
    assert set(application.statuses().values()) == {"stopped"}
    verdict = application.judge(sandbox, tasks, daemon_killed=True)
    assert (verdict.disagreements, verdict.wrong_stops, verdict.missed) == ((), (), ())
    assert verdict.requests_received == len(tasks)


async def test_sqlite_is_locked_and_the_daemon_killed(tmp_path: Path, sqlite_url: str, sandbox: Sandbox) -> None:
    application = Application(sqlite_url)
    daemon = Daemon(tmp_path, sqlite_url, sandbox)
    await daemon.process.start()
    tasks = await application.abandon(sandbox, [f"room-{number}" for number in range(6)])
    await eventually("all requests are in flight", lambda: sent(application) == 6)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        await eventually("the answers are in the spool", lambda: len(daemon.noted()) == 6)
        # Beyond the busy time-out of one second.
        await eventually("it has been tried", lambda: bool(daemon.process.events("answers_not_recorded_yet")))
        await daemon.process.end(signal.SIGKILL)
    assert sent(application) == 6

    await daemon.process.start()
    await eventually("the answers are written", lambda: sent(application) == 0)
    assert await daemon.process.end() == 0
    (event,) = daemon.process.events("answers_replayed")
    assert (event["answers"], event["written"]) == (6, 6)
    assert list(daemon.spool.glob("*")) == []
    agree(application, sandbox, tasks)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "lives"])
async def test_postgresql_is_stopped(
    tmp_path: Path, own_server: Server, own_postgresql_url: str, sandbox: Sandbox, *, killed: bool
) -> None:
    application = Application(own_postgresql_url)
    daemon = Daemon(tmp_path, own_postgresql_url, sandbox)
    await daemon.process.start()
    tasks = await application.abandon(sandbox, [f"room-{number}" for number in range(6)])
    # Not only in the database: without the answer of its commit no request leaves.
    await eventually("all requests are with the vendor", lambda: taken(sandbox) == 6)
    await asyncio.to_thread(own_server.stop, "fast")
    await eventually("the answers are in the spool", lambda: len(daemon.noted()) == 6)
    if killed:
        await daemon.process.end(signal.SIGKILL)
    await asyncio.to_thread(own_server.start)
    if killed:
        await daemon.process.start()
    await eventually("the answers are written", lambda: sent(application) == 0)
    await eventually("the spool is empty", lambda: daemon.noted() == [])
    assert await daemon.process.end() == 0
    assert len(daemon.process.events("answers_replayed")) == killed
    assert list(daemon.spool.glob("*")) == []
    agree(application, sandbox, tasks)


async def test_another_daemon_has_closed_the_attempts_meanwhile(
    tmp_path: Path, postgresql_url: str, sandbox: Sandbox
) -> None:
    """The survivor reaps, asks again, and hears that the tasks are gone; the spool then completes the first rows."""
    application = Application(postgresql_url)
    daemon = Daemon(tmp_path, postgresql_url, sandbox)
    await daemon.process.start()
    tasks = await application.abandon(sandbox, ["a", "b", "c"])
    await eventually("all requests are in flight", lambda: sent(application) == 3)
    with psycopg.connect(postgresql_url) as blocker:
        blocker.execute("LOCK TABLE zego_stop_attempts IN EXCLUSIVE MODE")
        await eventually("the answers are in the spool", lambda: len(daemon.noted()) == 3)
        await daemon.process.end(signal.SIGKILL)
    (tmp_path / "other").mkdir()
    # On another machine: it does not see the spool.
    survivor = DaemonProcess(tmp_path / "other", postgresql_url, sandbox)
    await survivor.start()
    await eventually("the survivor has ended the tasks", lambda: set(application.statuses().values()) == {"stopped"})
    assert {row["outcome"] for row in application.attempts()} == {"unknown", "stopped_earlier"}

    await daemon.process.start()
    await eventually("the answers are written", lambda: bool(daemon.process.events("answers_replayed")))
    for one in (daemon.process, survivor):
        assert await one.end() == 0
    rows = application.attempts()
    assert sorted(row["outcome"] for row in rows) == ["stopped"] * 3 + ["stopped_earlier"] * 3
    assert {row["task_id"]: row["request_id"] for row in rows if row["outcome"] == "stopped"} == answers(sandbox)
    verdict = application.judge(sandbox, tasks, daemon_killed=True)
    assert (verdict.disagreements, verdict.missed) == ((), ())
