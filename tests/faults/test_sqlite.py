"""Rows 18 to 21: what can happen to a SQLite file."""

import asyncio
import math
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults.client import LISTEN, Pulse, address, metric, request
from tests.faults.disks import SmallDisk
from tests.faults.harness import Daemon, Stage, fault
from tests.support.tools import needs_root
from watchdog.sandbox import Action, Misbehaviour

BUSY_SECONDS = 2
HOLD_SECONDS = 5.0
"""Longer than the busy time-out, several calls over."""

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def file_of(stage: Stage) -> Path:
    return Path(stage.url.removeprefix("sqlite:///"))


def move(file: Path, to: Path) -> None:
    """Move a database with what belongs to it."""
    for suffix in ("", "-wal", "-shm"):
        if (part := Path(f"{file}{suffix}")).exists():
            part.rename(f"{to}{suffix}")


def replace(file: Path, by: Path) -> None:
    """Put another database in the place of this one."""
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    by.rename(file)


@contextmanager
def writer_held(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@on_sqlite
@fault(18, "SQLite's writer held by the application", quick=True, halts=math.inf)
async def test_the_writer_is_held(stage: Stage) -> None:
    sandbox = await stage.open()
    daemon = stage.daemon(http=LISTEN, database={"url": stage.url, "statement_timeout_seconds": BUSY_SECONDS})
    await daemon.start()
    # Some requests are under way when it begins, and their answers come while nobody can write them down.
    sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(1.0, 1.0), requests=2))
    first = await stage.abandon(2)
    await stage.until("requests are under way", lambda: len(stage.attempts("sent")) == 2)
    rooms = [*first, *await stage.abandon(3)]
    async with Pulse(daemon) as pulse:
        with writer_held(file_of(stage)):
            stage.struck()
            await stage.clock.sleep(HOLD_SECONDS)
            stage.visible(daemon, "database_away")
        stage.lifted()
        await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    assert pulse.longest_seconds < 0.75 * BUSY_SECONDS, "the event loop waited for the database, too"
    stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms)


@on_sqlite
@fault(19, "a SQLite reader that does not end")
async def test_a_long_reader(stage: Stage) -> None:
    daemon = await stage.begin(http=LISTEN)
    where = address(daemon)
    with closing(sqlite3.connect(file_of(stage), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM zego_tasks").fetchone()
        stage.struck()
        rooms = await stage.abandon(20)
        # More than a checkpoint's worth of pages, none of which can be checkpointed away.
        for _ in range(8):
            await asyncio.to_thread(
                stage.application.execute,
                "INSERT INTO zego_room_sessions (app_id, room_id, room_session_id) "
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
                "SELECT 1, hex(randomblob(20)), i FROM n",
            )
        length = "zego_watchdog_sqlite_wal_bytes"
        page = partial(request, where, "GET", "/metrics")
        await stage.until("it has been measured", lambda: f"\n{length} " in page()[1])
        await stage.until("it is seen in the metrics", lambda: metric(where, length) > 4_000_000)
        stage.record.invariants.add("I8")
        await stage.recovers("all are stopped all the same", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)


@pytest.fixture
async def stage_on_disk(stage: Stage, tmp_path: Path) -> AsyncIterator[tuple[Stage, SmallDisk]]:
    with SmallDisk(tmp_path / "disk", megabytes=2) as disk:
        stage.url = f"sqlite:///{disk.folder}/watchdog.db"
        yield stage, disk
        await stage.close()


@needs_root
@on_sqlite
@fault(20, "disk full at intent", halts=math.inf)
async def test_the_disk_is_full_at_intent(stage_on_disk: tuple[Stage, SmallDisk]) -> None:
    stage, disk = stage_on_disk
    daemon = await stage.begin(faults="intend.commit=freeze")
    rooms = await stage.abandon(3)
    # All that is needed to send is there, but for the commit.
    await stage.until("it is frozen", lambda: daemon.is_frozen)
    disk.fill()
    stage.struck()
    daemon.send(signal.SIGCONT)
    await stage.until("it is said", lambda: bool(daemon.events("database_away")))
    await stage.clock.sleep(3)
    assert stage.requests() == [], "no intent, no request"
    assert daemon.events("claims_dropped"), "it was at its intents that the disk was full"
    disk.make_room()
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    await stage.until("it is said that it is over", lambda: bool(daemon.events("database_back")))
    stage.visible(daemon, "claims_dropped", "database_away", "database_back")
    await stage.audit(stopped=rooms)


@needs_root
@on_sqlite
@fault(20, "disk full at outcome", halts=math.inf)
async def test_the_disk_is_full_at_outcome(stage_on_disk: tuple[Stage, SmallDisk]) -> None:
    stage, disk = stage_on_disk
    daemon = await stage.begin()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(1.0, 1.0), requests=3))
    rooms = await stage.abandon(3)
    await stage.until("requests are under way", lambda: len(stage.attempts("sent")) == len(rooms))
    disk.fill()
    stage.struck()
    await stage.until("the answers are kept", lambda: bool(daemon.events("answers_not_recorded_yet")))
    await stage.until("all have been answered", lambda: len(stage.requests()) == len(rooms))
    disk.make_room()
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    stage.visible(daemon, "answers_not_recorded_yet")
    await stage.audit(stopped=rooms)
    assert len(stage.requests()) == len(rooms), "nothing was sent twice"


@needs_root
@on_sqlite
@fault(20, "disk full at checkpoint", halts=math.inf)
async def test_the_disk_is_full_at_checkpoint(stage_on_disk: tuple[Stage, SmallDisk]) -> None:
    stage, disk = stage_on_disk
    await stage.begin()
    with closing(sqlite3.connect(file_of(stage), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM zego_tasks").fetchone()
        # These pages are in the log only; to bring them into the file needs room there.
        stage.application.execute(
            "INSERT INTO zego_room_sessions (app_id, room_id, room_session_id) "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
            "SELECT 1, hex(randomblob(20)), i FROM n"
        )
        rooms = await stage.abandon(3)
        disk.fill()
        stage.struck()
    with closing(sqlite3.connect(file_of(stage), isolation_level=None)) as other:
        with pytest.raises(sqlite3.OperationalError, match="full"):
            other.execute("PRAGMA wal_checkpoint(FULL)")
        other.execute("SELECT count(*) FROM zego_room_sessions").fetchone()
    await stage.clock.sleep(1)
    disk.make_room()
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)


@on_sqlite
@fault(21, "database file moved away", quick=True, halts=math.inf)
async def test_the_file_is_moved(stage: Stage) -> None:
    daemon = await stage.begin()
    file = file_of(stage)
    rooms = await stage.abandon(2)
    await stage.until("all are stopped", lambda: stage.ended(rooms))
    later = await stage.abandon(2)
    move(file, Path(f"{file}.moved"))
    stage.struck()
    await stage.until("it is said", lambda: bool(daemon.events("database_away")), seconds=10)
    move(Path(f"{file}.moved"), file)
    stage.lifted()
    await stage.recovers("work goes on", lambda: stage.ended(later))
    stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms + later)


@on_sqlite
@fault(21, "database file replaced by a copy", halts=math.inf)
async def test_the_file_is_replaced(stage: Stage) -> None:
    """As by somebody who restores a backup: the daemon must not go on with the old file that nobody sees."""
    await stage.begin()
    file = file_of(stage)
    rooms = await stage.abandon(2)
    await stage.until("all are stopped", lambda: stage.ended(rooms))
    with closing(sqlite3.connect(file)) as connection, closing(sqlite3.connect(f"{file}.copy")) as copy:
        connection.backup(copy)
    replace(file, Path(f"{file}.copy"))
    stage.struck()
    later = await stage.abandon(2)
    await stage.recovers("those in the new file are stopped", lambda: stage.ended(later))
    await stage.audit(stopped=rooms + later)


@on_sqlite
@pytest.mark.parametrize("to_bytes", [0, 20_000])
@fault(21, "database file truncated", halts=math.inf)
async def test_the_file_is_truncated(stage: Stage, to_bytes: int) -> None:
    daemon = await stage.begin()
    file = file_of(stage)
    rooms = await stage.abandon(2)
    await stage.until("all are stopped", lambda: stage.ended(rooms))
    await daemon.end()
    shutil.copy(file, backup := f"{file}.backup")
    await daemon.start()
    # Soon all that it needs of the file is in its cache.
    await stage.clock.sleep(2)
    with file.open("r+b") as truncated:
        truncated.truncate(to_bytes)
    stage.struck()
    await stage.until("it is said", lambda: bool(daemon.events("database_away")))
    await stage.until("it goes on trying", lambda: daemon.alive)
    sent = len(stage.requests())
    await daemon.end()
    # A new one refuses, and says what is wrong.
    code = await refused(daemon)
    assert code in {1, 78}, code
    assert str(file) in daemon.log.read_text().splitlines()[-1]
    assert len(stage.requests()) == sent
    replace(file, Path(backup))
    stage.lifted()
    await daemon.start()
    later = await stage.abandon(2)
    await stage.recovers("with the backup work goes on", lambda: stage.ended(later))
    stage.visible(daemon, "database_away")
    await stage.audit(stopped=rooms + later)


async def refused(daemon: Daemon, *, without_root_powers: bool = False) -> int:
    """Start it, which must fail; return the exit code. What it said is in its log."""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if without_root_powers else []
    with daemon.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(*command, sys.executable, "-m", "watchdog", "--config", str(daemon.config), "run"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    async with asyncio.timeout(30):
        return await process.wait()


@needs_root
@on_sqlite
@fault(21, "database file unreadable, or on a read-only disk", halts=math.inf)
@pytest.mark.parametrize("how", ["unreadable", "read-only file", "read-only disk", "folder not writable"])
async def test_the_file_cannot_be_used(stage_on_disk: tuple[Stage, SmallDisk], how: str) -> None:
    stage, disk = stage_on_disk
    await stage.open()
    file = file_of(stage)
    daemon = stage.daemon()
    match how:
        case "unreadable":
            file.chmod(0o000)
        case "read-only file":
            file.chmod(0o444)
        case "read-only disk":
            disk.remount("ro")
        case _:
            disk.folder.chmod(0o555)
    stage.struck()
    code = await refused(daemon, without_root_powers=True)
    said = daemon.log.read_text()
    assert code in {1, 75, 78}, said
    assert str(file) in said, "which file?"
    assert "Traceback" not in said
    assert any(word in said for word in ("unable to open", "readonly", "read-only", "permission", "Permission")), said
    disk.remount("rw")
    disk.folder.chmod(0o755)
    file.chmod(0o644)
    stage.lifted()
    await daemon.start()
    rooms = await stage.abandon(1)
    await stage.recovers("work goes on", lambda: stage.ended(rooms))
    stage.record.invariants.add("I8")
    await stage.audit(stopped=rooms)
