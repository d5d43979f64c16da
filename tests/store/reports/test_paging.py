"""Tasks a page at a time: each once, in the order of ``tasks``, however many have the same time."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.support.store_steps import empty, plan
from tests.support.time_travel import World
from watchdog.store.engine import reading
from watchdog.store.reports.paging import Choice, Mark, is_mark, task_page
from watchdog.store.reports.tasks import find_tasks


def walked(world: World, choice: Choice, limit: int, room: str | None = None) -> list[str]:
    found: list[str] = []
    after: Mark | None = None
    while True:
        page = task_page(world.engine, choice, limit=limit, room_id=room, after=after)
        assert page.now == world.now
        assert len(page.tasks) <= limit
        found += [task.task_id for task in page.tasks]
        if page.next is None:
            return found
        assert is_mark(choice, page.next)
        after = page.next


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_each_task_is_on_one_page_whatever_the_size(world: World, limit: int) -> None:
    for number in range(4):
        empty(world, f"planned-{number}")
        plan(world, f"planned-{number}", due=45)
    world.advance(5)
    for number in range(3):
        empty(world, f"unplanned-{number}")
    for number in range(4):
        world.app.start(f"occupied-{number}", f"room-{number % 2}", user_count=1)
    for number in range(3):
        world.app.start(f"ended-{number}")
        world.app.change(f"ended-{number}", status="released")
    active = walked(world, Choice.ACTIVE, limit)
    assert active == [
        *(f"planned-{number}" for number in range(4)),
        *(f"unplanned-{number}" for number in range(3)),
        *("occupied-0", "occupied-2", "occupied-1", "occupied-3"),
    ]
    assert set(active) == {task.task_id for task in find_tasks(world.engine, limit=100).tasks}
    assert walked(world, Choice.EMPTY, limit) == active[:7]
    assert walked(world, Choice.ENDED, limit) == ["ended-2", "ended-1", "ended-0"]
    assert walked(world, Choice.ACTIVE, limit, "room-1") == ["occupied-1", "occupied-3"]


def test_a_row_that_goes_away_between_two_pages_is_no_obstacle(world: World) -> None:
    for number in range(4):
        empty(world, f"t{number}")
    page = task_page(world.engine, Choice.ACTIVE, limit=2)
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't1'")
    assert [task.task_id for task in task_page(world.engine, Choice.ACTIVE, limit=2, after=page.next).tasks] == [
        "t2",
        "t3",
    ]


def test_marks_from_outside(world: World) -> None:
    moment = world.now - timedelta(seconds=1)
    assert is_mark(Choice.ACTIVE, Mark(0, moment, "t"))
    assert is_mark(Choice.ACTIVE, Mark(2, "room", "t"))
    assert is_mark(Choice.ENDED, Mark(0, "t", "t"))
    for choice, mark in (
        (Choice.ACTIVE, Mark(0, "room", "t")),
        (Choice.ACTIVE, Mark(2, moment, "t")),
        (Choice.ACTIVE, Mark(3, "room", "t")),
        (Choice.ACTIVE, Mark(-1, "room", "t")),
        (Choice.EMPTY, Mark(2, "room", "t")),
        (Choice.ENDED, Mark(0, moment, "t")),
    ):
        assert not is_mark(choice, mark)


def test_a_later_page_reads_an_index_and_not_the_table(sqlite_world: World) -> None:
    """So that the last page of a million costs what the first one does."""
    statements: list[tuple[str, object]] = []

    @sa.event.listens_for(sqlite_world.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
        statements.append((statement, parameters))

    for part, value in ((0, sqlite_world.now), (1, sqlite_world.now), (2, "room")):
        task_page(sqlite_world.engine, Choice.ACTIVE, limit=50, after=Mark(part, value, "t"))
    task_page(sqlite_world.engine, Choice.ENDED, limit=50, after=Mark(0, "t", "t"))
    plans = []
    with reading(sqlite_world.engine) as connection:
        for statement, parameters in [one for one in statements if "FROM zego_tasks" in one[0]]:
            rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)  # type: ignore[arg-type]
            plans.append(" ".join(row[-1] for row in rows))
    assert plans
    assert [plan for plan in plans if "SCAN" in plan and "USING INDEX" not in plan] == []
