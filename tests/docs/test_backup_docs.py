"""docs/operations.md, Backup and restore: every way of the page brings back every column of every row."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.docs.test_operations_docs import BLOCKS, Block, Machine
from tests.support.operator import Operator
from tests.support.store_steps import REPLY, take
from tests.support.tools import program
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.core.policy import Plan
from watchdog.store import contract, schema
from watchdog.store.attempts import Ledger
from watchdog.store.engine import open_engine, reading, writing
from watchdog.store.records import Intent
from watchdog.store.tables import metadata
from watchdog.store.tasks import Tasks

RESTORES = {
    "zego-watchdog.db": ("sqlite", "stopped"),
    "zego-watchdog.sql": ("sqlite", "empty"),
    "calls.dump": ("postgresql", "empty"),
    "zego-watchdog.dump": ("postgresql", "stopped"),
    "rows.dump": ("postgresql", "empty"),
}
"""Each backup of the page, and where it is restored: into a stopped daemon's database, or an empty one."""


def block(file: str, *words: str) -> Block:
    """The block of the page that writes or reads that backup."""
    (found,) = (one for one in BLOCKS if f"/var/backups/{file}" in one.text and one.words == frozenset(words))
    return found


def busy(url: str) -> dict[str, list[str]]:
    """Leave a claimed task with a plan, one that has ended, and a ledger, as a daemon at work does; return all."""
    engine = open_engine(url, must_exist=False)
    schema.migrate(engine)
    with writing(engine) as connection:
        for task in ("ended", "waits"):
            connection.exec_driver_sql(
                "INSERT INTO zego_tasks (task_id, room_id, user_count, user_count_source)"
                f" VALUES ('{task}', 'r', 2, 'api')"
            )
        connection.exec_driver_sql("UPDATE zego_tasks SET user_count = 0")
    store, ledger = Tasks(engine, "me"), Ledger(engine, "me")
    now, tasks = store.newly_empty(10)
    later = now + timedelta(seconds=60)
    store.save_plans([Plan(task.task_id, task.empty_since, now, later) for task in tasks if task.empty_since])
    claims = take(store)
    evidence = Evidence(0, now, Source.API)
    attempts = ledger.intend([Intent(claim, 1, Reason.EMPTY_ROOM, evidence, None) for claim in claims])
    (answer,) = (
        attempt.answer(Outcome.STOPPED, replied_at=now, reply=REPLY, wake_seconds=0)
        for attempt, claim in zip(attempts, claims, strict=True)
        if attempt is not None and claim.task.task_id == "ended"
    )
    assert ledger.record([answer]) == [True]
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO zego_tasks (task_id, room_id) VALUES ('deleted', 'r')")
        connection.exec_driver_sql("DELETE FROM zego_tasks WHERE task_id = 'deleted'")
    engine.dispose()
    found = content(url)
    assert {name for name, rows in found.items() if rows} >= {"zego_tasks", "zego_stop_attempts", "zego_deleted_tasks"}
    assert any("'attempts': 1" in row and "'claimed_by': 'host" in row for row in found["zego_tasks"])
    return found


def content(url: str) -> dict[str, list[str]]:
    """Return every row of every table, and see that nothing of the contract is missing."""
    engine = open_engine(url)
    contract.require(engine)
    assert contract.compare(engine).slowing == ()
    with reading(engine) as connection:
        rows = {
            name: sorted(map(str, connection.execute(sa.select(table)).mappings()))
            for name, table in metadata.tables.items()
        }
    engine.dispose()
    return rows


@pytest.fixture
def somebodys_url(postgresql_server: str) -> Iterator[str]:
    """Yield the address of an empty database that belongs to its user, who is no superuser."""
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute("CREATE ROLE somebody LOGIN")
        server.execute("CREATE DATABASE restored OWNER somebody")
        yield postgresql_server.replace("/postgres?", "/restored?").replace("postgres@", "somebody@")
        server.execute("DROP DATABASE restored WITH (FORCE)")
        server.execute("DROP ROLE somebody")


def machine(folder: Path, url: str) -> Machine:
    (folder / "backups").mkdir(parents=True)
    return Machine(folder, "127.0.0.1:1", url, Operator(folder, url).write())


@pytest.mark.parametrize("file", RESTORES)
async def test_everything_comes_back(file: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dialect, into = RESTORES[file]
    if dialect == "sqlite":
        program("sqlite3")
        urls = [f"sqlite:///{tmp_path}/{place}/zego-watchdog.db" for place in ("old", "new")]
    else:
        urls = [request.getfixturevalue(name) for name in ("postgresql_url", "somebodys_url")]
    old, new = (machine(tmp_path / place, url) for place, url in zip(("old", "new"), urls, strict=True))
    before = busy(old.url)
    await old.run(block(file, dialect))
    shutil.copytree(old.folder / "backups", new.folder / "backups", dirs_exist_ok=True)
    await new.run(block(file, dialect, into))
    assert content(new.url) == before


async def test_a_compact_copy_is_whole(tmp_path: Path) -> None:
    program("sqlite3")
    old = machine(tmp_path, f"sqlite:///{tmp_path}/zego-watchdog.db")
    before = busy(old.url)
    await old.run(block("zego-watchdog-compact.db", "sqlite"))
    assert content(f"sqlite:///{tmp_path}/backups/zego-watchdog-compact.db") == before
