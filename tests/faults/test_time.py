"""Rows 16 and 17: clocks that are wrong, or jump.

SQLite's clock is the process's, so it jumps along; PostgreSQL's is another's.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.clocks import WallClock
from tests.faults.harness import Nursery, Stage, fault
from tests.support.running import Application
from watchdog.clock import SystemClock
from watchdog.sandbox import Action, Join, Misbehaviour, Start

GRACE_SECONDS = 5.0
JUMPS: dict[str, Callable[[], int]] = {
    "ahead": lambda: 3600,
    "back": lambda: -3600,
    "2038": lambda: 2**31 + 10 - int(time.time()),  # noqa: TID251 - the true time is what the other is reckoned from
}


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def nursery(wall_clock: WallClock, tmp_path: Path) -> Iterator[Nursery]:
    """Daemons here live by ``wall_clock``."""
    with wall_clock.preloaded():
        running = Nursery(tmp_path / "nursery.log")
    yield running
    running.close()


def written(stage: Stage, wall_clock: WallClock, rooms: int, *, people: int = 0) -> list[str]:
    """Start tasks whose rooms the application sees becoming empty, by the same wall clock as the daemon."""
    tasks = {}
    for number in range(rooms):
        room = f"later-{wall_clock.seconds}-{people}-{number}"
        tasks[str(stage.sandbox.perform(Start(room=room))["task_id"])] = room
        if people:
            stage.sandbox.perform(Join(room=room, user="alice"))
    statements: list[tuple[str, list[Any]]] = [
        ("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", [list(pair) for pair in tasks.items()]),
        ("UPDATE zego_tasks SET user_count = 2 WHERE task_id = ?", [[task] for task in tasks]),
        ("UPDATE zego_tasks SET user_count = 0 WHERE task_id = ?", [[task] for task in tasks]),
    ]
    if stage.is_sqlite:
        wall_clock.write(stage.url.removeprefix("sqlite:///"), statements)
    else:
        for statement, rows in statements:
            for row in rows:
                stage.application.execute(statement, *row)
    return list(tasks)


class TrueTime(Application):
    """The ledger with the times that a wrong clock wrote put right."""

    def __init__(self, url: str, ahead_seconds: int) -> None:
        super().__init__(url)
        self._ahead_seconds = ahead_seconds

    def attempts(self) -> list[dict[str, Any]]:
        rows = super().attempts()
        for row in rows:
            if row["sent_at"] is not None:
                sent_at = datetime.fromisoformat(row["sent_at"]).replace(tzinfo=UTC)
                if abs(sent_at.timestamp() - SystemClock().time()) > abs(self._ahead_seconds) / 2:
                    sent_at -= timedelta(seconds=self._ahead_seconds)
                    row["sent_at"] = sent_at.replace(tzinfo=None).isoformat()
        return rows


async def audited(stage: Stage, wall_clock: WallClock, *, stopped: list[str], kept: list[str]) -> None:
    """Audit; what SQLite dated by the wrong clock is read by the true one."""
    if stage.is_sqlite:
        stage._application = TrueTime(stage.url, wall_clock.seconds)
    await stage.audit(stopped=stopped, kept=kept)


@fault(16, "wall clock an hour ahead, an hour back, to 2038, while running", halts=math.inf)
@pytest.mark.parametrize("jump", list(JUMPS))
async def test_a_jump_of_the_wall_clock_stops_nobody(stage: Stage, wall_clock: WallClock, jump: str) -> None:
    await stage.begin(max_idle_seconds=60, policy={"grace_seconds": GRACE_SECONDS, "max_idle_seconds": 60})
    talking = await stage.talk(2)
    waiting = await stage.abandon(3)
    emptied_at = stage.clock.time()
    statement = "SELECT due_at FROM zego_tasks WHERE due_at IS NOT NULL"
    await stage.until("all are planned", lambda: len(stage.application.rows(statement)) == len(talking + waiting))

    wall_clock.set_ahead(JUMPS[jump]())
    stage.struck()
    later = await asyncio.to_thread(written, stage, wall_clock, 3)
    talking += await asyncio.to_thread(written, stage, wall_clock, 1, people=1)
    await stage.recovers("tasks are stopped as ever", lambda: stage.ended(later))
    if not stage.is_sqlite:
        # There the time since when these rooms are empty is lost: in doubt ZEGO ends their tasks.
        await stage.until("those whose grace ran are, too", lambda: stage.ended(waiting))
        later += waiting
    stops = {event["task_id"]: event["at"] for event in stage.sandbox.events() if event["event"] == "task_stopped"}
    early = [task for task in waiting if stops.get(task, emptied_at + 60) < emptied_at + GRACE_SECONDS - 0.5]
    assert early == [], f"stopped {[stops[task] - emptied_at for task in early]} s after they were left"
    await audited(stage, wall_clock, stopped=later, kept=talking)


@fault(16, "wall clock ahead with a request in flight", quick=True, halts=math.inf)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seconds", [120, 3600])
async def test_a_lease_that_jumped_is_not_taken_over(stage: Stage, wall_clock: WallClock, seconds: int) -> None:
    await stage.begin()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(1.5, 1.5), requests=2))
    rooms = await stage.abandon(2)
    await stage.until("requests are under way", lambda: len(stage.attempts("sent")) == len(rooms))
    # A committed request is not signed yet: the pace delays it by up to a quarter of a second.
    await SystemClock().sleep(0.3)
    wall_clock.set_ahead(seconds)
    stage.struck()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    await audited(stage, wall_clock, stopped=rooms, kept=[])
    assert [stage.outcomes(task) for task in rooms] == [["stopped"]] * 2


@fault(17, "application's clock five minutes off")
@pytest.mark.parametrize(("off_seconds", "verify"), [(-300, "required"), (300, "required"), (-300, "when_possible")])
async def test_the_applications_clock_is_off(stage: Stage, off_seconds: int, verify: str) -> None:
    await stage.begin(policy={"verify": verify, "grace_seconds": 2})
    talking = await stage.talk(2)
    stage.struck()
    rooms = await stage.abandon(2)
    # There is no moment "now" for these: the same statement in both languages.
    moment = (
        f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{off_seconds} seconds')"
        if stage.is_sqlite
        else f"now() + interval '{off_seconds} seconds'"
    )
    dated = []
    for number in range(4):
        room = f"dated-{number}"
        task = str(stage.sandbox.perform(Start(room=room))["task_id"])
        stage.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, room)
        if number % 2:
            stage.sandbox.perform(Join(room=room, user="alice"))
            talking.append(task)
        else:
            dated.append(task)
        for people in (2, 0):
            stage.application.execute(
                f"UPDATE zego_tasks SET user_count = ?, user_count_at = {moment} WHERE task_id = ?", people, task
            )
    await stage.recovers("abandoned rooms' tasks are stopped", lambda: stage.ended([*rooms, *dated]))
    await stage.until(
        "the others are spared", lambda: {row["task_id"] for row in stage.attempts("spared")} == set(talking)
    )
    await stage.audit(stopped=[*rooms, *dated], kept=talking)
