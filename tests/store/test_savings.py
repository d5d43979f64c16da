"""``zego_savings``, and the last day of it in ``status``, against a ledger made by hand; alike on both databases."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from tests.support.store_steps import tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome, Reason
from watchdog.store.engine import reading
from watchdog.store.reports.savings import Savings, savings

APP, OTHER = 12345, 67890
_numbers = count()

NOTHING = {
    **dict.fromkeys(("stops", "no_auto_stop", "missed", "spared", "back_within_60", "back_within_600"), 0),
    "slot_seconds_freed": 0.0,
    "seconds_before_auto_stop": None,
}


def stopped(
    world: World, left: float | None = None, outcome: Outcome = Outcome.STOPPED, task: str | None = None, **columns: Any
) -> str:
    """Put a stop on record, now, so long before ZEGO's own; return its TaskId."""
    task = task or f"task-{next(_numbers)}"
    auto_stop_at = None if left is None else world.ahead(left)
    # As the ledger does it: recorded when the request left.
    world.advance(-0.5)
    columns = {"recorded_at": world.now} | columns
    world.advance(0.5)
    tried(world, task, outcome, replied_at=world.now, auto_stop_at=auto_stop_at, **columns)
    return task


def back(world: World, task: str, after: float) -> None:
    """People came back to the room of a task that was stopped now."""
    names = "(task_id, room_id, stopped_at, watch_until, rejoined_at)"
    values = task, "room", world.now, world.ahead(600), world.ahead(after)
    world.app.execute(f"INSERT INTO zego_rejoins {names} VALUES (?, ?, ?, ?, ?)", *values)


def view(world: World) -> dict[tuple[str, str, int | None], Mapping[str, Any]]:
    rows = world.app.rows("SELECT * FROM zego_savings")
    found: dict[tuple[str, str, int | None], Mapping[str, Any]] = {
        (str(row["day"]), row["kind"], row["app_id"]): dict(list(row.items())[3:]) for row in rows
    }
    assert len(found) == len(rows)
    return found


def only(world: World) -> Mapping[str, Any]:
    (row,) = view(world).values()
    return row


def last_day(world: World) -> Savings:
    with reading(world.engine) as connection:
        return savings(connection, world.now)


def test_without_a_stop_there_is_nothing(world: World) -> None:
    for outcome in Outcome:
        if outcome not in {Outcome.STOPPED, Outcome.STOPPED_EARLIER, Outcome.AUTO_STOPPED, Outcome.SPARED}:
            tried(world, "task", outcome)
    assert view(world) == {}
    assert last_day(world) == Savings(0, 0.0, 0)
    assert last_day(world).seconds_before_auto_stop is None


def test_seconds_between_our_stop_and_zegos(world: World) -> None:
    for left, outcome in ((100.25, Outcome.STOPPED), (20.125, Outcome.STOPPED_EARLIER), (0.001, Outcome.STOPPED)):
        stopped(world, left, outcome)
        world.advance(1)
    assert only(world) == NOTHING | {
        "stops": 3,
        "slot_seconds_freed": 120.376,
        "seconds_before_auto_stop": 40.125,
    }
    assert last_day(world) == Savings(3, 120.376, 0)
    assert last_day(world).seconds_before_auto_stop == pytest.approx(40.125, abs=0.001)


def test_a_stop_after_the_planned_auto_stop_has_freed_nothing(world: World) -> None:
    stopped(world, -3600)
    stopped(world, 60)
    assert only(world) == NOTHING | {"stops": 2, "slot_seconds_freed": 60.0, "seconds_before_auto_stop": 30.0}
    assert last_day(world) == Savings(2, 60.0, 0)


def test_stops_with_nothing_to_compare_with(world: World) -> None:
    stopped(world, 100, reason=Reason.BOTS_ONLY.value)
    stopped(world, None)
    assert only(world) == NOTHING | {"stops": 2, "no_auto_stop": 2}
    assert last_day(world) == Savings(2, 0.0, 2)
    assert last_day(world).seconds_before_auto_stop is None
    stopped(world, 30, reason=Reason.NEVER_JOINED.value)
    expected = {"stops": 3, "no_auto_stop": 2, "slot_seconds_freed": 30.0, "seconds_before_auto_stop": 30.0}
    assert only(world) == NOTHING | expected
    assert last_day(world) == Savings(3, 30.0, 2)


def test_an_operators_order_is_not_counted(world: World) -> None:
    for outcome in (Outcome.STOPPED, Outcome.AUTO_STOPPED, Outcome.SPARED):
        stopped(world, 100, outcome, reason=Reason.MANUAL.value)
    assert view(world) == {}
    assert last_day(world) == Savings(0, 0.0, 0)


def test_each_task_counts_once_by_its_first_end(world: World) -> None:
    """A late answer completes an earlier request, after another daemon's request found the task gone."""
    task = stopped(world, 100, Outcome.UNKNOWN)
    stopped(world, 90, Outcome.STOPPED_EARLIER, task)
    stopped(world, 80, Outcome.STOPPED, task)
    stopped(world, 0, Outcome.AUTO_STOPPED, task)
    ended = stopped(world, 0, Outcome.AUTO_STOPPED)
    stopped(world, 0, Outcome.AUTO_STOPPED, ended)
    expected = {"stops": 1, "slot_seconds_freed": 90.0, "seconds_before_auto_stop": 90.0, "missed": 1}
    assert only(world) == NOTHING | expected
    assert last_day(world) == Savings(1, 90.0, 0)


def test_misses_and_spared_tasks(world: World) -> None:
    for _ in range(2):
        stopped(world, 10, Outcome.AUTO_STOPPED)
    # Once in each empty period of a task; and it may be stopped all the same.
    task = stopped(world, 50, Outcome.SPARED)
    stopped(world, 40, Outcome.SPARED, task)
    stopped(world, 30, task=task)
    expected = {"missed": 2, "spared": 2, "stops": 1, "slot_seconds_freed": 30.0, "seconds_before_auto_stop": 30.0}
    assert only(world) == NOTHING | expected


def test_people_who_came_back(world: World) -> None:
    for after in (0.0, 60.0, 60.001, 600.0, 600.001):
        back(world, stopped(world, 100), after)
    back(world, stopped(world, 100, reason=Reason.BOTS_ONLY.value), 5)
    # Nobody came back to this one; and this one was not stopped by us.
    stopped(world, 100)
    back(world, stopped(world, 100, Outcome.AUTO_STOPPED), 5)
    row = only(world)
    assert (row["stops"], row["back_within_60"], row["back_within_600"]) == (7, 3, 5)


def test_days_kinds_and_apps(world: World) -> None:
    world.advance((datetime(2026, 3, 4, 23, 59, 59, 900_000, tzinfo=UTC) - world.now).total_seconds())
    stopped(world, 10, app_id=APP)
    world.advance(0.1)
    # Its request left on the day before.
    stopped(world, 20, app_id=APP)
    stopped(world, 30, app_id=OTHER)
    stopped(world, 40, app_id=None)
    stopped(world, 50, kind="tts", app_id=APP)
    assert {key: (row["stops"], row["slot_seconds_freed"]) for key, row in view(world).items()} == {
        ("2026-03-04", "asr", APP): (1, 10.0),
        ("2026-03-05", "asr", APP): (1, 20.0),
        ("2026-03-05", "asr", OTHER): (1, 30.0),
        ("2026-03-05", "asr", None): (1, 40.0),
        ("2026-03-05", "tts", APP): (1, 50.0),
    }
    assert last_day(world) == Savings(5, 150.0, 0)
    world.advance(86_400)
    assert last_day(world).stops == 0


def test_what_has_no_answer_counts_on_the_day_of_its_row(world: World) -> None:
    """As what ZEGO's callback reports."""
    tried(world, "told", Outcome.AUTO_STOPPED, auto_stop_at=world.now)
    assert view(world) == {(f"{world.now:%Y-%m-%d}", "asr", APP): NOTHING | {"missed": 1}}
