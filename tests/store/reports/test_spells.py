"""Empty spells, how long each was observed, and the watches after our stops."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from tests.support.store_steps import tried
from tests.support.time_travel import World
from watchdog.core.advice import Circumstances, Spells
from watchdog.core.model import Ending, Outcome
from watchdog.store.reports.spells import find_spells, newest_spells

DAY = 86_400
LEFT = Circumstances(None, None)
_numbers = count()


def stored(world: World, moment: Any) -> Any:
    """Return a time as the triggers write it; SQLite compares text."""
    is_text = isinstance(moment, datetime) and world.dialect == "sqlite"
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}" if is_text else moment


def spell(world: World, seconds: float, ending: str = "returned", *, ago: float = 0.0, **columns: Any) -> str:
    """Put a spell on record that ended so many seconds ago; return its task."""
    task_id: str = columns.pop("task_id", f"task-{next(_numbers)}")
    ended = world.ago(ago)
    values = {
        "task_id": task_id,
        "kind": "asr",
        "room_id": "room",
        "started_at": ended - timedelta(seconds=seconds + 100),
        "last_occupied_at": ended - timedelta(seconds=seconds + 1),
        "empty_since": ended - timedelta(seconds=seconds),
        "ended_at": ended,
        "ending": ending,
        "evidence_source": "app",
        **columns,
    }
    world.app.execute(
        f"INSERT INTO zego_empty_spells ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        *(stored(world, value) for value in values.values()),
    )
    return task_id


def watch(
    world: World, task_id: str, *, stopped_ago: float, length: float = 600.0, back_after: float | None = None
) -> None:
    """Put the watch after a stop on record; people came back so many seconds after the stop."""
    stopped = world.ago(stopped_ago)
    back = None if back_after is None else stopped + timedelta(seconds=back_after)
    world.app.execute(
        "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at) VALUES (?, ?, ?, ?, ?)",
        *(stored(world, value) for value in (task_id, "room", stopped, stopped + timedelta(seconds=length), back)),
    )


def stop(world: World, *, ago: float, watched: float | None = 600.0, back_after: float | None = None) -> str:
    """Put a spell on record that our stop ended after 45 s, and its watch if it has one."""
    task_id = spell(world, 45, "stopped", ago=ago)
    if watched is not None:
        watch(world, task_id, stopped_ago=ago, length=watched, back_after=back_after)
    return task_id


def observed(world: World, since: datetime | timedelta = timedelta(days=60)) -> list[tuple[bool, float]]:
    """Return for each spell whether people returned, and for how long it was observed."""
    found = find_spells(world.engine, since).spells
    return sorted((one.returned, one.seconds) for one in found for _ in range(one.count))


def test_the_triggers_spells_are_read(world: World) -> None:
    for task in ("returns", "released", "unknown"):
        world.app.start(task, task, user_count=1, max_idle_seconds=120, grace_seconds=30)
    world.app.start("never", "never")
    world.advance(7)
    world.app.people("never", 0)
    for room in ("returns", "released", "unknown"):
        world.app.people(room, 0)
    world.advance(12.34)
    world.app.people("returns", 2)
    world.app.release("released")
    world.app.people("unknown", None)
    world.app.release("never")
    found = find_spells(world.engine, timedelta(days=1))
    limits = Circumstances(120, 30)
    assert sorted(found.spells, key=lambda one: (one.circumstances.is_joined, one.ending)) == [
        Spells(Circumstances(None, None, 7.0), Ending.RELEASED, returned=False, seconds=12.3),
        Spells(limits, Ending.RELEASED, returned=False, seconds=12.3),
        Spells(limits, Ending.RETURNED, returned=True, seconds=12.3),
        Spells(limits, Ending.UNKNOWN, returned=False, seconds=12.3),
    ]
    assert (found.count, found.now, found.since) == (4, world.now, world.ago(DAY))
    assert found.sources == {"app": 4}


def test_alike_ones_are_counted(world: World) -> None:
    for _ in range(3):
        spell(world, 10.04)
    spell(world, 10.0, evidence_source="callback")
    spell(world, 10.06, evidence_source=None)
    found = find_spells(world.engine, timedelta(days=1))
    assert {(one.seconds, one.count) for one in found.spells} == {(10.0, 4), (10.1, 1)}
    assert found.sources == {"app": 3, "callback": 1, None: 1}


@pytest.mark.parametrize(
    ("seconds", "returned", "rounded"),
    [
        (1.04, True, 1.0),
        (1.05, True, 1.1),
        (119.94, True, 119.9),
        (120.4, True, 120.0),
        (120.5, True, 121.0),
        (7200, True, 7200.0),
        (9000, False, 7200.0),
    ],
)
def test_times_are_rounded_and_end_after_two_hours(
    world: World, seconds: float, *, returned: bool, rounded: float
) -> None:
    spell(world, seconds)
    assert observed(world) == [(returned, rounded)]


def test_a_room_that_looked_empty_for_a_moment_does_not_count(world: World) -> None:
    for seconds in (0.0, 0.999, 1.0):
        spell(world, seconds)
        spell(world, seconds, "released")
    assert observed(world) == [(False, 1.0), (True, 1.0)]


def test_a_beginning_that_a_callback_moved_is_no_return(world: World) -> None:
    """The application saw the last person leave 20 s before ZEGO did."""
    world.app.start("task", user_count=1)
    world.advance(60)
    world.app.people("room", 0)
    world.advance(20.5)
    for number, at in ((1, world.ago(0.501)), (0, world.ago(0.5))):
        world.app.people("room", number, user_count_at=at, user_count_source="callback")
    assert world.task("task")["empty_since"] == world.ago(0.5)
    assert len(world.app.rows("SELECT id FROM zego_empty_spells")) == 1
    assert observed(world) == []
    world.advance(30)
    world.app.people("room", 2)
    assert observed(world) == [(True, 30.5)]
    # A callback that shows a return in between is one.
    world.app.people("room", 0)
    world.advance(7)
    world.app.people("room", 1, user_count_source="callback")
    world.advance(2)
    world.app.people("room", 0)
    assert observed(world) == [(True, 7.0), (True, 30.5)]


def test_a_task_that_nobody_joined_has_its_age_within_the_longest_window(world: World) -> None:
    for age in (-5.0, 3.9, 5000.0):
        started = world.now - timedelta(seconds=60 + age)
        spell(world, 60, "released", started_at=started, last_occupied_at=None)
    found = find_spells(world.engine, timedelta(days=1)).spells
    assert sorted(one.circumstances.age_seconds or 0.0 for one in found) == [0.0, 3.0, 1800.0]


def test_since_and_app(world: World) -> None:
    spell(world, 1, ago=3 * DAY, app_id=7)
    spell(world, 2, ago=2 * DAY, app_id=8)
    spell(world, 3, ago=DAY)

    def found(since: datetime | timedelta, **apps: Any) -> Sequence[float]:
        return sorted(one.seconds for one in find_spells(world.engine, since, **apps).spells)

    assert found(timedelta(days=4)) == [1, 2, 3]
    assert found(timedelta(days=2)) == [2, 3]
    assert found(world.ago(DAY)) == [3]
    assert found(world.now) == []
    assert found(timedelta(days=4), app_id=7) == [1]
    assert found(timedelta(days=4), app_id=7, default_app=7) == [1, 3]
    assert found(timedelta(days=4), app_id=8, default_app=7) == [2]
    newest = newest_spells(world.engine, world.ago(4 * DAY), app_id=7, default_app=7)
    assert [one.spell.seconds for one in newest] == [3, 1]


def test_the_newest_have_names(world: World) -> None:
    first, second = spell(world, 5, room_id="a"), spell(world, 6, room_id="b")
    newest, oldest = newest_spells(world.engine, world.ago(60))
    assert (newest.task_id, newest.room_id, newest.empty_since) == (second, "b", world.ago(6))
    assert (oldest.task_id, oldest.spell) == (first, Spells(LEFT, Ending.RETURNED, returned=True, seconds=5.0))


def test_more_than_one_page(world: World) -> None:
    world.app.execute(
        "INSERT INTO zego_empty_spells"
        " (task_id, kind, room_id, started_at, last_occupied_at, empty_since, ended_at, ending)"
        " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
        " SELECT 't' || i, 'asr', 'room', ?, ?, ?, ?, 'returned' FROM n",
        *(stored(world, moment) for moment in (world.ago(100), world.ago(50), world.ago(40), world.now)),
    )
    (found,) = find_spells(world.engine, timedelta(days=1)).spells
    assert (found.count, found.seconds) == (60_000, 40.0)
    assert len(newest_spells(world.engine, world.ago(60))) == 20_000


def test_rooms_with_bots_only_have_no_auto_stop(world: World) -> None:
    for reason, outcome in (
        ("bots_only", Outcome.STOPPED),
        ("bots_only", Outcome.SPARED),
        ("empty_room", Outcome.STOPPED),
    ):
        tried(world, stop(world, ago=60), outcome, reason=reason)
    tried(world, spell(world, 20, task_id="returned"), Outcome.STOPPED, reason="bots_only")
    found = newest_spells(world.engine, world.ago(600))
    assert [(one.spell.ending, one.spell.has_auto_stop) for one in found] == [
        (Ending.RETURNED, True),
        (Ending.STOPPED, True),
        (Ending.STOPPED, True),
        (Ending.STOPPED, False),
    ]


class TestYoungStops:
    """Of the last day every watch is still there."""

    def test_a_return_after_the_stop_is_one(self, world: World) -> None:
        stop(world, ago=3600, back_after=30)
        assert observed(world) == [(True, 75.0)]

    def test_without_a_return_the_watch_counts(self, world: World) -> None:
        stop(world, ago=3600)
        assert observed(world) == [(False, 645.0)]

    def test_a_watch_that_goes_on_counts_until_now(self, world: World) -> None:
        stop(world, ago=100)
        assert observed(world) == [(False, 145.0)]
        world.advance(50)
        assert observed(world) == [(False, 195.0)]

    def test_without_a_watch_the_stop_is_the_end(self, world: World) -> None:
        stop(world, ago=3600, back_after=30)
        stop(world, ago=3500, watched=None)
        stop(world, ago=3400)
        assert observed(world) == [(False, 45.0), (False, 645.0), (True, 75.0)]

    def test_only_the_task_that_was_stopped_has_a_watch(self, world: World) -> None:
        """An earlier spell of the same task ended with a return."""
        task_id = stop(world, ago=3600, back_after=30)
        spell(world, 20, ago=4000, task_id=task_id)
        assert observed(world) == [(True, 20.0), (True, 75.0)]


class TestOldStops:
    """Of older stops only the watches with a return are left."""

    def test_between_two_watches_that_are_left_a_stop_was_watched(self, world: World) -> None:
        for days, back in ((9, 20), (8, None), (7, 100), (6, None), (5, None), (4, 20)):
            stop(world, ago=days * DAY, watched=None if back is None else 600, back_after=back)
        # The oldest and the newest one are where the time begins that is known to have been watched.
        assert observed(world) == [
            *((False, 45.0), (False, 45.0)),
            *((False, 645.0), (False, 645.0), (False, 645.0)),
            (True, 145.0),
        ]

    def test_removing_old_watches_changes_nothing(self, world: World) -> None:
        """With a hundred stops a day, of which one in ten has a return; the oldest and the newest day aside."""
        for number in range(200):
            stop(world, ago=1000 + number * 3600, back_after=60 if number % 10 == 0 else None)
        before = observed(world)
        world.app.execute(
            "DELETE FROM zego_rejoins WHERE rejoined_at IS NULL AND watch_until < ?", stored(world, world.ago(DAY))
        )
        after = observed(world)
        # Nine stops before the oldest watch that is left, and that one.
        assert before.count((False, 645.0)) - after.count((False, 645.0)) == 9
        assert before.count((True, 105.0)) - after.count((True, 105.0)) == 1

    def test_the_length_of_the_watch_is_that_of_its_time(self, world: World) -> None:
        for days, length in ((20, 100), (19, None), (18, 100), (10, 600), (9, None), (8, 600), (7, 600)):
            stop(world, ago=days * DAY, watched=length, back_after=None if length is None else 50)
        assert observed(world) == [
            *[(False, 45.0)] * 4,
            *((False, 145.0), (False, 645.0)),
            (True, 95.0),
        ]

    def test_where_lengths_overlap_the_shorter_one_counts(self, world: World) -> None:
        """Two daemons were configured differently: nothing is observed that was not."""
        for days, length, back in ((9, 600, 5), (8, 100, 5), (7, 600, 300), (6, None, None), (5, 100, 5), (4, 600, 5)):
            stop(world, ago=days * DAY, watched=length, back_after=back)
        assert observed(world) == [
            *[(False, 45.0)] * 2,
            # Within the shorter one's time, even the return after 300 s counts as not seen.
            *[(False, 145.0)] * 2,
            *[(True, 50.0)] * 2,
        ]
