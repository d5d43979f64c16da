"""Tasks as commands read them, and the hold."""

from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from tests.support.store_steps import planned, tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome, Status, Task
from watchdog.store.records import Instance
from watchdog.store.reports.tasks import biography, find_tasks, hold, similar


def listed(world: World, **choice: Any) -> list[str]:
    return [task.task_id for task in find_tasks(world.engine, limit=100, **choice).tasks]


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
    assert find_tasks(world.engine, limit=3).more is False
    listing = find_tasks(world.engine, limit=2)
    assert (len(listing.tasks), listing.more, listing.now) == (2, True, world.now)


def test_a_biography_has_the_row_and_every_attempt_in_order(world: World) -> None:
    world.app.start("task", "room")
    tried(world, "task", Outcome.RETRY, code="410000001", request_id="18446744073709551617")
    tried(world, "other")
    tried(world, "task", Outcome.STOPPED, attempt=2, code="0")
    story = biography(world.engine, "task")
    assert story is not None
    assert story.task is not None
    assert story.task.room_id == "room"
    assert [(row["attempt"], row["outcome"], row["code"]) for row in story.attempts] == [
        (1, "retry", "410000001"),
        (2, "stopped", "0"),
    ]
    assert story.attempts[0]["request_id"] == "18446744073709551617"
    assert biography(world.engine, "nobody") is None


def test_a_deleted_task_still_has_its_attempts(world: World) -> None:
    world.app.start("task")
    tried(world, "task")
    world.app.execute("DELETE FROM zego_tasks")
    story = biography(world.engine, "task")
    assert story is not None
    assert story.task is None
    assert len(story.attempts) == 1


def test_a_stretch_of_watching_counts_only_while_somebody_watches(world: World) -> None:
    world.app.start("task")
    world.heartbeats.beat(Instance("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    began = world.now
    world.advance(10)
    story = biography(world.engine, "task")
    assert story is not None
    assert (story.daemon_alive, story.watching_since) == (True, began)
    world.advance(10)
    story = biography(world.engine, "task")
    assert story is not None
    assert (story.daemon_alive, story.watching_since) == (False, world.now)


def test_a_mistyped_task_finds_its_like_and_a_room_its_tasks(world: World) -> None:
    world.app.start("1920370518175780864", "lecture")
    world.app.start("8800000000000000000", "100%")
    assert similar(world.engine, "lecture") == (["1920370518175780864"], True)
    assert similar(world.engine, "19203705181757808") == (["1920370518175780864"], False)
    assert similar(world.engine, "1920370518175780846") == (["1920370518175780864"], False)
    assert similar(world.engine, "%%%%%%%%") == ([], False)
    assert similar(world.engine, "") == ([], False)
    assert similar(world.engine, "1920370518175799999") == (["1920370518175780864"], False), "by half of it"


def test_what_is_like_a_task_is_found_by_the_primary_key(world: World) -> None:
    """LIKE reads all of a million tasks on PostgreSQL."""
    statements: list[str] = []
    sa.event.listen(world.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert similar(world.engine, "19203705181757808") == ([], False)
    assert statements
    assert [statement for statement in statements if " LIKE " in statement] == []


def test_a_hold_goes_by_the_databases_clock_and_takes_the_plan_away(world: World) -> None:
    world.clock.host_is_off_by = 3600
    world.app.start("task", "room")
    world.app.people("room", 0)
    planned(world)
    changed = hold(world.engine, "task", seconds=600)
    assert changed is not None
    now, task = changed
    assert now == world.now
    assert task.hold_until == world.ahead(600)
    assert (task.due_at, task.wake_at) == (None, None)
    planned(world)
    assert world.task("task")["due_at"] == world.ahead(600)


def test_a_hold_can_have_an_end_of_ones_own_or_be_ended(world: World) -> None:
    world.app.start("task")
    changed = hold(world.engine, "task", until=world.ahead(90))
    assert changed is not None
    assert changed[1].hold_until == world.ahead(90)
    changed = hold(world.engine, "task")
    assert changed is not None
    assert changed[1].hold_until is None


def test_what_has_ended_or_never_was_cannot_be_held(world: World) -> None:
    world.app.start("task")
    world.app.release("task")
    assert hold(world.engine, "task", seconds=60) is None
    assert hold(world.engine, "nobody", seconds=60) is None
    assert world.task("task")["hold_until"] is None


def test_a_task_is_read_with_all_its_columns(world: World) -> None:
    world.app.start("task", "room", app_id=4294967295, max_idle_seconds=600)
    (task,) = find_tasks(world.engine, limit=1).tasks
    assert {field.name: getattr(task, field.name) for field in fields(Task)} == dict(world.task("task"))
