"""The history: the view, its newest rows, and the beginning of a stretch of time."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from simulation.virtual import START
from tests.support.store_steps import tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome
from watchdog.store.reports.history import history


def test_history_is_the_view_with_the_newest_first(world: World) -> None:
    for number in range(5):
        tried(world, f"task-{number}", Outcome.RETRY)
    for number in (2, 0, 4):
        world.advance(1)
        tried(
            world, f"task-{number}", attempt=2, replied_at=world.now, due_at=world.ago(2), auto_stop_at=world.ahead(60)
        )
    now, rows = history(world.engine, limit=100)
    assert now == world.now
    assert [row["task_id"] for row in rows] == ["task-4", "task-0", "task-2", "task-3", "task-1"]
    assert rows[0]["attempts"] == 2
    assert rows[0]["reaction_seconds"] == pytest.approx(2)
    assert rows[0]["seconds_before_auto_stop"] == pytest.approx(60)
    assert rows[0]["stopped_at"] == world.now
    view = world.app.rows("SELECT * FROM zego_stop_history")
    assert list(rows[0]) == [*view[0], "recorded_at", "attempt_id"]
    assert {row["task_id"]: row["outcome"] for row in rows} == {row["task_id"]: row["outcome"] for row in view}


def test_history_can_be_narrowed_down(world: World) -> None:
    tried(world, "old", Outcome.STOPPED, room_id="a")
    world.advance(3600)
    tried(world, "miss", Outcome.AUTO_STOPPED, room_id="b")
    tried(world, "spared-then-stopped", Outcome.SPARED, room_id="b")
    tried(world, "spared-then-stopped", Outcome.STOPPED, room_id="b")

    def tasks(**choice: Any) -> list[str]:
        return [row["task_id"] for row in history(world.engine, limit=choice.pop("limit", 9), **choice)[1]]

    assert tasks(limit=1) == ["spared-then-stopped"]
    assert tasks(outcome=Outcome.STOPPED) == ["spared-then-stopped", "old"]
    assert tasks(outcome=Outcome.SPARED) == []
    assert tasks(task_id="old") == ["old"]
    assert tasks(room_id="b") == ["spared-then-stopped", "miss"]
    assert tasks(since=timedelta(minutes=1)) == ["spared-then-stopped", "miss"]
    assert tasks(since=world.ago(3600)) == ["spared-then-stopped", "miss", "old"]
    assert tasks(since=timedelta(days=2), outcome=Outcome.AUTO_STOPPED) == ["miss"]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 8, 13])
def test_the_beginning_of_a_stretch_of_time_is_found_whatever_the_number_of_attempts(
    sqlite_world: World, number: int
) -> None:
    times: list[datetime] = []
    for index in range(number):
        sqlite_world.advance(60)
        tried(sqlite_world, f"task-{index}")
        times.append(sqlite_world.now)
    # Rows may be missing: whoever keeps the ledger short deletes the oldest, or some.
    sqlite_world.app.execute("DELETE FROM zego_stop_attempts WHERE id % 5 = 3")
    kept = [time for index, time in enumerate(times, 1) if index % 5 != 3]
    for minutes in range(number + 2):
        since = sqlite_world.ago(minutes * 60 + 30)
        found = history(sqlite_world.engine, limit=100, since=since)[1]
        assert len(found) == sum(time >= since for time in kept)


class TestView:
    def test_a_stop_in_numbers(self, world: World) -> None:
        self.attempt(world, 1, "retry", replied=3.0, code="410000001")
        self.attempt(world, 2, "stopped", replied=12.345, code="0", request_id="42", message="Success", app_id=7)
        row = dict(world.history("task"))
        for name in ("empty_since", "due_at", "stopped_at", "auto_stop_at"):
            row[name] = str(row[name])[:19]
        assert row == {
            "task_id": "task",
            "room_id": "room",
            "app_id": 7,
            "kind": "asr",
            "reason": "empty_room",
            "outcome": "stopped",
            "code": "0",
            "message": "Success",
            "request_id": "42",
            "attempts": 2,
            "empty_since": "2026-03-01 12:00:00",
            "due_at": "2026-03-01 12:00:45",
            "stopped_at": "2026-03-01 12:00:57",
            "auto_stop_at": "2026-03-01 12:02:30",
            "reaction_seconds": 12.345,
            "seconds_before_auto_stop": 92.655,
            "rejoined_after_seconds": None,
        }

    @pytest.mark.parametrize(("came_back", "seconds"), [(None, None), (0.0, 0.0), (33.25, 33.25)])
    def test_people_who_came_back(self, world: World, came_back: float | None, seconds: float | None) -> None:
        self.attempt(world, 1, "stopped", replied=1.0)
        self.attempt(world, 1, "stopped", replied=1.0, task_id="another")
        stopped = START + timedelta(seconds=46)
        world.app.execute(
            "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at) VALUES (?, ?, ?, ?, ?)",
            *("task", "room", stopped, stopped + timedelta(seconds=600)),
            None if came_back is None else stopped + timedelta(seconds=came_back),
        )
        assert world.history("task")["rejoined_after_seconds"] == seconds
        assert world.history("another")["rejoined_after_seconds"] is None
        assert len(world.app.rows("SELECT task_id FROM zego_stop_history")) == 2

    @pytest.mark.parametrize("outcome", Outcome)
    def test_only_a_stop_of_ours_has_a_time(self, world: World, outcome: Outcome) -> None:
        self.attempt(world, 1, outcome, replied=1.0)
        row = world.history("task")
        stopped = outcome in {Outcome.STOPPED, Outcome.STOPPED_EARLIER}
        assert (row["stopped_at"] is not None) == stopped
        assert row["reaction_seconds"] == (1.0 if stopped else None)
        assert row["seconds_before_auto_stop"] == (104.0 if stopped else None)
        assert row["outcome"] == outcome

    def test_a_stop_after_the_time_is_negative(self, world: World) -> None:
        self.attempt(world, 1, "stopped", replied=110.0)
        assert world.history("task")["seconds_before_auto_stop"] == -5.0

    def test_one_row_per_task(self, world: World) -> None:
        self.attempt(world, None, "withheld", replied=None)
        for number in (1, 2):
            self.attempt(world, number, "unknown", replied=None)
        self.attempt(world, None, "spared", replied=None, task_id="spared")
        rows = world.app.rows("SELECT task_id, outcome, attempts FROM zego_stop_history ORDER BY task_id")
        assert [tuple(row.values()) for row in rows] == [("spared", "spared", 0), ("task", "unknown", 2)]

    @staticmethod
    def attempt(world: World, number: int | None, outcome: str, *, replied: float | None, **columns: Any) -> None:
        """Write a row of the ledger; ``replied`` in seconds after it was due."""
        due = START + timedelta(seconds=45)
        row = {
            "task_id": "task",
            "kind": "asr",
            "room_id": "room",
            "attempt": number,
            "reason": "empty_room",
            "empty_since": START,
            "due_at": due,
            "auto_stop_at": START + timedelta(seconds=150),
            "replied_at": None if replied is None else due + timedelta(seconds=replied),
            "outcome": str(outcome),
            "instance": "host/1",
            **columns,
        }
        marks = ", ".join("?" * len(row))
        world.app.execute(f"INSERT INTO zego_stop_attempts ({', '.join(row)}) VALUES ({marks})", *row.values())
