"""What people's commands read, on both databases, in virtual time."""

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.time_travel import World
from watchdog.core.model import Outcome, Status, Task
from watchdog.core.policy import Policy, plan
from watchdog.store.reports import tasks as reports
from watchdog.store.tasks import Daemon


def tried(world: World, task_id: str, outcome: Outcome = Outcome.STOPPED, **columns: Any) -> None:
    """Put an attempt on record, now."""
    values = {
        "task_id": task_id,
        "kind": "asr",
        "room_id": "room",
        "app_id": 12345,
        "attempt": 1,
        "reason": "empty_room",
        "outcome": outcome.value,
        "instance": "host-1",
        **columns,
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    world.app.execute(f"INSERT INTO zego_stop_attempts ({names}) VALUES ({marks})", *values.values())


def planned(world: World) -> None:
    """Do what a sweep's first half does."""
    now, found = world.store.newly_empty(100)
    world.store.save_plans([made for task in found if (made := plan(task, Policy(), now)) is not None])


def listed(world: World, **choice: Any) -> list[str]:
    return [task.task_id for task in reports.find_tasks(world.engine, limit=100, **choice).tasks]


def test_tasks_come_in_the_order_in_which_something_happens_to_them(world: World) -> None:
    world.app.start("full", "a-room")
    world.app.people("a-room", 3)
    world.app.start("later", "later")
    world.app.start("sooner", "sooner", grace_seconds=10)
    for room in ("later", "sooner"):
        world.app.people(room, 1)
        world.app.people(room, 0)
    planned(world)
    world.app.start("unplanned", "unplanned")
    world.app.people("unplanned", 0)
    world.app.start("first-released", "x")
    world.app.start("last-released", "x")
    for task_id in ("first-released", "last-released"):
        world.advance(1)
        world.app.release(task_id)

    assert listed(world) == ["sooner", "later", "unplanned", "full"]
    assert listed(world, status=None) == [*listed(world), "last-released", "first-released"]
    assert listed(world, status=Status.RELEASED) == ["last-released", "first-released"]
    assert listed(world, status=Status.STOPPED) == []
    assert listed(world, room_id="x") == []
    assert listed(world, room_id="x", status=None) == ["last-released", "first-released"]
    assert listed(world, due=True) == []
    world.advance(20)
    assert listed(world, due=True) == ["sooner"]


def test_a_list_says_whether_there_is_more_and_what_time_it_is(world: World) -> None:
    for number in range(3):
        world.app.start(f"task-{number}", f"room-{number}")
    assert reports.find_tasks(world.engine, limit=3).more is False
    listing = reports.find_tasks(world.engine, limit=2)
    assert (len(listing.tasks), listing.more, listing.now) == (2, True, world.now)


def test_a_biography_has_the_row_and_every_attempt_in_order(world: World) -> None:
    world.app.start("task", "room")
    tried(world, "task", Outcome.RETRY, code="410000001", request_id="18446744073709551617")
    tried(world, "other")
    tried(world, "task", Outcome.STOPPED, attempt=2, code="0")
    story = reports.biography(world.engine, "task")
    assert story is not None
    assert story.task is not None
    assert story.task.room_id == "room"
    assert [(row["attempt"], row["outcome"], row["code"]) for row in story.attempts] == [
        (1, "retry", "410000001"),
        (2, "stopped", "0"),
    ]
    assert story.attempts[0]["request_id"] == "18446744073709551617"
    assert reports.biography(world.engine, "nobody") is None


def test_a_deleted_task_still_has_its_attempts(world: World) -> None:
    world.app.start("task")
    tried(world, "task")
    world.app.execute("DELETE FROM zego_tasks")
    story = reports.biography(world.engine, "task")
    assert story is not None
    assert story.task is None
    assert len(story.attempts) == 1


def test_a_stretch_of_watching_counts_only_while_somebody_watches(world: World) -> None:
    world.app.start("task")
    world.store.pulse(Daemon("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    began = world.now
    world.advance(10)
    story = reports.biography(world.engine, "task")
    assert story is not None
    assert (story.daemon_alive, story.watching_since) == (True, began)
    world.advance(10)
    story = reports.biography(world.engine, "task")
    assert story is not None
    assert (story.daemon_alive, story.watching_since) == (False, world.now)


def test_a_daemon_that_said_goodbye_is_not_alive(world: World) -> None:
    world.store.pulse(Daemon("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    assert [one.alive for one in reports.all_daemons(world.engine)[1]] == [True]
    world.store.depart()
    assert [one.alive for one in reports.all_daemons(world.engine)[1]] == [False]


def test_a_mistyped_task_finds_its_like_and_a_room_its_tasks(world: World) -> None:
    world.app.start("1920370518175780864", "lecture")
    world.app.start("8800000000000000000", "100%")
    assert reports.similar(world.engine, "lecture") == (["1920370518175780864"], True)
    assert reports.similar(world.engine, "19203705181757808") == (["1920370518175780864"], False)
    assert reports.similar(world.engine, "1920370518175780846") == (["1920370518175780864"], False)
    assert reports.similar(world.engine, "%%%%%%%%") == ([], False)
    assert reports.similar(world.engine, "") == ([], False)


def test_history_is_the_view_with_the_newest_first(world: World) -> None:
    for number in range(5):
        tried(world, f"task-{number}", Outcome.RETRY)
    for number in (2, 0, 4):
        world.advance(1)
        tried(
            world, f"task-{number}", attempt=2, replied_at=world.now, due_at=world.ago(2), auto_stop_at=world.ahead(60)
        )
    now, rows = reports.history(world.engine, limit=100)
    assert now == world.now
    assert [row["task_id"] for row in rows] == ["task-4", "task-0", "task-2", "task-3", "task-1"]
    assert rows[0]["attempts"] == 2
    assert rows[0]["reaction_seconds"] == pytest.approx(2)
    assert rows[0]["seconds_before_auto_stop"] == pytest.approx(60)
    assert rows[0]["stopped_at"] == world.now
    view = world.app.rows("SELECT * FROM zego_stop_history")
    assert list(rows[0]) == list(view[0])
    assert {row["task_id"]: row["outcome"] for row in rows} == {row["task_id"]: row["outcome"] for row in view}


def test_history_can_be_narrowed_down(world: World) -> None:
    tried(world, "old", Outcome.STOPPED, room_id="a")
    world.advance(3600)
    tried(world, "miss", Outcome.AUTO_STOPPED, room_id="b")
    tried(world, "spared-then-stopped", Outcome.SPARED, room_id="b")
    tried(world, "spared-then-stopped", Outcome.STOPPED, room_id="b")

    def tasks(**choice: Any) -> list[str]:
        return [row["task_id"] for row in reports.history(world.engine, limit=choice.pop("limit", 9), **choice)[1]]

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
        found = reports.history(sqlite_world.engine, limit=100, since=since)[1]
        assert len(found) == sum(time >= since for time in kept)


def test_the_situation_counts_everything_once(world: World) -> None:
    world.app.start("full", "full")
    world.app.people("full", 2)
    world.app.start("unknown", "unknown")
    world.app.start("empty", "empty")
    world.app.people("empty", 0)
    emptied = world.now
    world.advance(5)
    world.app.start("emptied-later", "emptied-later")
    world.app.people("emptied-later", 0)
    planned(world)
    world.app.start("released", "released")
    world.app.release("released")
    tried(world, "yesterday", Outcome.AUTO_STOPPED)
    world.advance(25 * 3600)
    for outcome in (Outcome.STOPPED, Outcome.STOPPED, Outcome.SPARED, Outcome.SENT):
        tried(world, "task", outcome)
    world.store.pulse(Daemon("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)

    found = reports.situation(world.engine)
    assert found.by_status == {**dict.fromkeys(Status, 0), Status.ACTIVE: 4, Status.RELEASED: 1}
    assert (found.occupied, found.empty, found.unknown) == (1, 2, 1)
    assert found.longest_empty_since == emptied
    assert found.next_task_id == "empty"
    assert found.next_due_at == world.task("empty")["due_at"]
    assert found.latest == {Outcome.STOPPED: 2, Outcome.SPARED: 1, Outcome.SENT: 1}
    assert found.in_flight == 1
    assert found.blocked_apps == []
    assert [one.alive for one in found.daemons] == [True]


def test_an_empty_database_is_a_situation_too(world: World) -> None:
    found = reports.situation(world.engine)
    assert set(found.by_status.values()) == {0}
    assert (found.next_task_id, found.longest_empty_since, found.latest, found.daemons) == (None, None, {}, [])


def test_an_app_is_blocked_as_long_as_its_latest_request_says_so_and_is_recent(world: World) -> None:
    tried(world, "a", Outcome.BLOCKED, app_id=1)
    tried(world, "a", Outcome.BLOCKED, app_id=2)
    tried(world, "b", Outcome.STOPPED, app_id=2)
    tried(world, "c", Outcome.BLOCKED, app_id=3)
    tried(world, "d", Outcome.WITHHELD, app_id=3, attempt=None)
    assert reports.situation(world.engine).blocked_apps == [1, 3]
    world.advance(reports.BLOCKED_SECONDS + 1)
    assert reports.situation(world.engine).blocked_apps == []


def test_a_hold_goes_by_the_databases_clock_and_takes_the_plan_away(world: World) -> None:
    world.clock.host_is_off_by = 3600
    world.app.start("task", "room")
    world.app.people("room", 0)
    planned(world)
    changed = reports.hold(world.engine, "task", seconds=600)
    assert changed is not None
    now, task = changed
    assert now == world.now
    assert task.hold_until == world.ahead(600)
    assert (task.due_at, task.wake_at) == (None, None)
    planned(world)
    assert world.task("task")["due_at"] == world.ahead(600)


def test_a_hold_can_have_an_end_of_ones_own_or_be_ended(world: World) -> None:
    world.app.start("task")
    changed = reports.hold(world.engine, "task", until=world.ahead(90))
    assert changed is not None
    assert changed[1].hold_until == world.ahead(90)
    changed = reports.hold(world.engine, "task")
    assert changed is not None
    assert changed[1].hold_until is None


def test_what_has_ended_or_never_was_cannot_be_held(world: World) -> None:
    world.app.start("task")
    world.app.release("task")
    assert reports.hold(world.engine, "task", seconds=60) is None
    assert reports.hold(world.engine, "nobody", seconds=60) is None
    assert world.task("task")["hold_until"] is None


def test_vitals_name_the_triggers_that_are_there(world: World) -> None:
    before = reports.vitals(world.engine)
    assert before.writable
    assert before.server.lower().startswith(world.dialect)
    assert before.journal_mode == ("wal" if world.dialect == "sqlite" else None)
    assert {"zego_tasks_hinted", "zego_tasks_ended", "zego_stop_attempts_append_only"} <= before.triggers


def test_hints_are_counted_among_active_tasks_only(world: World) -> None:
    assert reports.hints(world.engine) == reports.Hints(world.now, 0, 0, None)
    world.app.start("without", "a")
    world.app.start("with", "b")
    world.app.people("b", 1)
    newest = world.now
    world.app.start("ended", "c")
    world.advance(5)
    world.app.people("c", 1)
    world.app.release("ended")
    assert reports.hints(world.engine) == reports.Hints(world.now, 2, 1, newest)


def test_a_task_is_read_with_all_its_columns(world: World) -> None:
    world.app.start("task", "room", app_id=4294967295, max_idle_seconds=600)
    (task,) = reports.find_tasks(world.engine, limit=1).tasks
    assert {field.name: getattr(task, field.name) for field in fields(Task)} == dict(world.task("task"))
