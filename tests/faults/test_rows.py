"""Row 26: odd rows that an application may write, and rows that are never eligible."""

import asyncio
import sqlite3

import psycopg
import pytest

from tests.faults.harness import Stage, fault
from watchdog.sandbox import Start

ODD_ROOMS = (
    "",
    " ",
    "room with spaces",
    "房间\N{PARTY POPPER}",
    "'; DROP TABLE zego_tasks; --",
    "line\nbreak\ttab\x01",
    "%s ? :b_room {0} $1",
    "r" * 100_000,
    "RoomId[]=x&RoomId[]=y",
)
ODD_TASKS = ("", "\N{PARTY POPPER}", "%(x)s", "t" * 100_000, "'--", "..", "0")
ODD_VALUES = (
    ("app_id", 99),
    ("app_id", -1),
    ("kind", "somethingelse"),
    ("grace_seconds", 2_147_483_647),
    ("max_idle_seconds", 1),
    ("user_count_source", "a" * 1000),
    ("user_count", 2_147_483_647),
    ("hold_until", "9999-12-31 23:59:59"),
    ("started_at", "0001-01-01 00:00:00"),
    ("user_count_at", "not a time"),
)


@pytest.mark.parametrize("verify", ["required", "off"])
@fault(26, "poison rows: nulls, odd text, rows that are never eligible")
async def test_poison_rows(stage: Stage, verify: str) -> None:
    await stage.open()
    # The guard has a test of its own.
    daemon = stage.daemon(policy={"verify": verify}, guard={"unverified_per_minute": 0, "unverified_share": 0})
    # Some are asked about in the same call as the odd ones.
    rooms = [] if verify == "off" else await stage.abandon(5)
    await asyncio.to_thread(poison, stage)
    await daemon.start()
    rooms += await stage.abandon(15)
    stage.struck()
    # A real one among them, with senseless numbers.
    task = str(stage.sandbox.perform(Start(room="odd-numbers"))["task_id"])
    stage.application.execute(
        "INSERT INTO zego_tasks (task_id, room_id, user_count, grace_seconds, max_idle_seconds) "
        "VALUES (?, 'odd-numbers', 0, 0, 2147483647)",
        task,
    )
    await stage.recovers("the others are stopped", lambda: stage.ended(rooms))
    await stage.until("the odd one, too", lambda: stage.ended([task]))
    assert not [row for row in stage.attempts("withheld") if row["task_id"] in rooms], "a neighbour is no reason"
    assert not daemon.events("job_failed")
    assert not daemon.events("claims_dropped")
    assert stage.application.rows("SELECT count(*) AS n FROM zego_tasks WHERE task_id LIKE 'idle-%'") == [{"n": 10_000}]
    await stage.audit(stopped=[*rooms, task])


def poison(stage: Stage) -> None:
    """Write everything odd that the database accepts."""
    texts = [(f"odd-room-{number}", room) for number, room in enumerate(ODD_ROOMS)]
    texts += [(task, "odd-task") for task in ODD_TASKS]
    written = [
        allowed(stage, "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 0)", *row) for row in texts
    ]
    assert sum(written) >= len(written) // 2, "most of it is allowed"
    for number, (column, value) in enumerate(ODD_VALUES):
        allowed(
            stage,
            f"INSERT INTO zego_tasks (task_id, room_id, {column}) VALUES (?, 'odd-value', ?)",
            f"odd-value-{number}",
            value,
        )
        allowed(
            stage,
            "UPDATE zego_tasks SET user_count = 0 WHERE task_id = ? AND user_count IS NULL",
            f"odd-value-{number}",
        )
    numbers = (
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n) AS n"
        if stage.is_sqlite
        else "generate_series(1, 10000) AS n(i)"
    )
    stage.application.execute(
        "INSERT INTO zego_tasks (task_id, room_id, user_count) "
        f"SELECT 'idle-' || i, 'idle-' || i, CASE WHEN i < 5000 THEN 3 END FROM {numbers}"
    )


def allowed(stage: Stage, statement: str, *values: object) -> bool:
    """Whether the database takes it."""
    try:
        stage.application.execute(statement, *values)
    except (sqlite3.Error, psycopg.Error):
        return False
    return True
