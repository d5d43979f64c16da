"""What the report counts, the same on both databases."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.store_steps import planned, tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome
from watchdog.store.engine import reading
from watchdog.store.reports import report
from watchdog.store.reports.distributions import BELOW_ZERO
from watchdog.store.reports.report import CodeCount, Findings, Savings, findings
from watchdog.store.tables import attempts

WEEK = timedelta(days=7)


def at(world: World, seconds: float) -> datetime:
    """Return a time by its seconds from now."""
    return world.ahead(seconds)


def stopped(world: World, task: str, *, late: float = 0.0, early: float = 75.0, **columns: Any) -> None:
    """Put a stop on record that was due a second ago and is answered now."""
    times = {
        "empty_since": at(world, -46),
        "due_at": at(world, -1),
        "sent_at": at(world, late - 1),
        "replied_at": at(world, 0),
        "auto_stop_at": at(world, early),
    }
    tried(world, task, **{"code": "0", "message": "Success", **times, **columns})


def ended_by_zego(world: World, task: str, window: float, expected: float = 150) -> None:
    """Put an auto-stop on record that happened now, in a room that was empty for ``window`` seconds."""
    tried(
        world,
        task,
        Outcome.AUTO_STOPPED,
        attempt=None,
        code="1202",
        evidence_at=at(world, 0),
        empty_since=at(world, -window),
        auto_stop_at=at(world, expected - window),
    )


def returned(world: World, task: str, after: float) -> None:
    """Put a stop on record that happened now, with a return ``after`` seconds."""
    world.app.execute(
        "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at) VALUES (?, ?, ?, ?, ?)",
        *(task, "room", at(world, 0), at(world, 600), at(world, after)),
    )


def test_an_empty_database_has_a_report(world: World) -> None:
    found = findings(world.engine, WEEK)
    assert (found.now, found.since, found.by_day) == (world.now, world.now - WEEK, False)
    assert (found.outcomes, found.late, found.early, found.windows, found.returns) == ({}, {}, {}, {}, {})
    assert (found.codes, found.other_codes, found.savings, found.longest) == ([], 0, [], [])


def test_attempts_are_counted_by_hour_and_outcome(world: World) -> None:
    stopped(world, "before")
    world.advance(WEEK.total_seconds())
    world.advance(1)
    stopped(world, "a")
    tried(world, "b", Outcome.SPARED)
    world.advance(3600)
    stopped(world, "c")
    stopped(world, "d")
    found = findings(world.engine, WEEK)
    first, second = (f"{world.now - timedelta(hours=hours):%Y-%m-%d %H}" for hours in (1, 0))
    assert found.outcomes == {
        (first, Outcome.STOPPED): 1,
        (first, Outcome.SPARED): 1,
        (second, Outcome.STOPPED): 2,
    }
    assert (found.count(Outcome.STOPPED), found.count(Outcome.STOPPED, Outcome.SPARED)) == (3, 4)
    since = findings(world.engine, world.now - timedelta(minutes=1))
    assert since.outcomes == {(second, Outcome.STOPPED): 2}


def test_a_long_period_is_counted_by_day(world: World) -> None:
    stopped(world, "a")
    world.advance(15 * 86_400)
    found = findings(world.engine, timedelta(days=16))
    assert found.by_day
    assert found.outcomes == {(f"{world.now - timedelta(days=15):%Y-%m-%d}", Outcome.STOPPED): 1}


def test_lateness_is_of_first_requests_to_three_digits(world: World) -> None:
    for number, late in enumerate([0, 0.003, 0.003, 0.999, 1.239, 61.237, 1234.5]):
        stopped(world, f"task-{number}", late=late)
    stopped(world, "again", late=5, attempt=2)
    stopped(world, "by-hand", late=7, reason="manual")
    stopped(world, "early", late=-0.5)
    tried(world, "unsent", Outcome.SPARED, due_at=at(world, 0), sent_at=None)
    found = findings(world.engine, WEEK)
    assert found.late == {0: 1, 3: 2, 999: 1, 1230: 1, 61_200: 1, 1_230_000: 1, BELOW_ZERO: 1}


def test_stops_are_compared_with_the_auto_stop_that_they_forestalled(world: World) -> None:
    stopped(world, "a", early=75.5)
    stopped(world, "b", early=75.5, outcome=Outcome.STOPPED_EARLIER)
    stopped(world, "late", early=-2)
    stopped(world, "bots", reason="bots_only")
    stopped(world, "by-hand", reason="manual")
    stopped(world, "no-auto-stop", auto_stop_at=None)
    tried(world, "kept", Outcome.SPARED, auto_stop_at=at(world, 60), replied_at=at(world, 0))
    assert findings(world.engine, WEEK).early == {75_500: 2, BELOW_ZERO: 1}


def test_a_time_just_before_a_full_second_is_not_rounded(world: World) -> None:
    moment = world.now.replace(microsecond=999_600)
    tried(world, "task", Outcome.STOPPED, replied_at=moment, auto_stop_at=moment + timedelta(milliseconds=500))
    assert findings(world.engine, timedelta(days=1)).early == {500: 1}


def test_windows_are_what_zego_itself_took(world: World) -> None:
    ended_by_zego(world, "a", 121.24)
    ended_by_zego(world, "b", 151.07)
    stopped(world, "c")
    found = findings(world.engine, WEEK)
    assert found.windows == {121_000: 1, 151_000: 1}
    assert found.windows_off == {28_700: 1, -1_000: 1}


def test_codes_are_counted_with_their_latest_message(world: World) -> None:
    stopped(world, "a", message="first")
    stopped(world, "b", message="second")
    tried(world, "c", Outcome.RETRY, code="206", message=None)
    tried(world, "d", Outcome.UNKNOWN, code=None)
    found = findings(world.engine, WEEK)
    assert found.codes == [CodeCount("0", 2, "second"), CodeCount("206", 1, None)]
    assert found.other_codes == 0


def test_the_rarest_codes_are_counted_together(world: World) -> None:
    for number in range(report.CODES_SHOWN + 5):
        tried(world, f"task-{number}", Outcome.RETRY, code=f"{number:03}")
    tried(world, "again", Outcome.RETRY, code="024")
    found = findings(world.engine, WEEK)
    assert [code.code for code in found.codes] == ["024", *(f"{number:03}" for number in range(19))]
    assert found.other_codes == 5


def test_returns_are_counted_by_how_long_after_the_stop(world: World) -> None:
    returned(world, "old", 5)
    world.advance(WEEK.total_seconds() + 1)
    returned(world, "a", 12.5)
    returned(world, "b", 301.57)
    world.app.execute(
        "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until) VALUES ('c', 'room', ?, ?)",
        *(at(world, 0), at(world, 600)),
    )
    assert findings(world.engine, WEEK).returns == {12_500: 1, 301_000: 1}


def saved(world: World) -> list[Savings]:
    """Put one of everything on record, over two days; what the report says of it."""
    stopped(world, "a", early=75.5)
    returned(world, "a", 59)
    stopped(world, "b", early=20, outcome=Outcome.STOPPED_EARLIER, app_id=7)
    returned(world, "b", 300)
    stopped(world, "late", early=-5)
    stopped(world, "bots", reason="bots_only")
    stopped(world, "by-hand", reason="manual")
    ended_by_zego(world, "missed", 130)
    tried(world, "missed", Outcome.GONE)
    world.advance(86_400)
    stopped(world, "other-kind", kind="other", app_id=None)
    tried(world, "spared", Outcome.SPARED)
    # Told twice: the second answer is of the same stop.
    stopped(world, "a", attempt=2)
    return list(findings(world.engine, WEEK).savings)


def test_savings_are_by_day_kind_and_app(world: World) -> None:
    found = saved(world)
    before, today = (f"{world.now - timedelta(days=days):%Y-%m-%d}" for days in (1, 0))
    assert found == [
        Savings(before, "asr", 7, 1, 20_000, 0, 0, 0, 0, 1),
        Savings(before, "asr", 12345, 3, 75_500, 1, 1, 0, 1, 1),
        Savings(today, "asr", 12345, 0, 0, 0, 0, 1, 0, 0),
        Savings(today, "other", None, 1, 75_000, 0, 0, 0, 0, 0),
    ]


def test_savings_are_those_of_the_view(world: World) -> None:
    found = saved(world)
    view = world.app.rows("SELECT * FROM zego_savings ORDER BY day, kind, coalesce(app_id, 0)")
    names = ("stops", "no_auto_stop", "missed", "spared", "back_within_60", "back_within_600")
    assert len(view) == len(found) > 3
    for row, one in zip(view, found, strict=True):
        assert (str(row["day"]), row["kind"], row["app_id"]) == (one.day, one.kind, one.app_id)
        assert [row[name] for name in names] == [getattr(one, name) for name in names]
        assert row["slot_seconds_freed"] == pytest.approx(one.freed_milliseconds / 1000)


def test_the_longest_empty_rooms_have_ended_or_still_run(world: World) -> None:
    world.app.start("running", "lobby", app_id=7, user_count=0)
    world.app.start("people", "full", user_count=3)
    world.advance(100)
    world.app.start("planned", "hall", user_count=0)
    planned(world)
    world.advance(20)
    stopped(world, "stopped", room_id="lecture")
    tried(world, "kept", Outcome.SPARED, empty_since=at(world, -500), evidence_at=at(world, 0))
    found = findings(world.engine, WEEK)
    assert [(room.room_id, room.app_id, room.outcome, room.milliseconds) for room in found.longest] == [
        ("lobby", 7, None, 120_000),
        ("lecture", 12345, Outcome.STOPPED, 46_000),
        ("hall", None, None, 20_000),
    ]


def test_only_so_many_rooms_are_listed(world: World) -> None:
    for number in range(report.ROOMS_SHOWN + 3):
        stopped(world, f"task-{number:02}", empty_since=at(world, -number))
        world.app.start(f"running-{number:02}", f"room-{number}", user_count=0)
        world.advance(1)
    longest = findings(world.engine, WEEK).longest
    assert len(longest) == report.ROOMS_SHOWN
    assert longest[0].milliseconds == 23_000
    assert [room.milliseconds for room in longest] == sorted((room.milliseconds for room in longest), reverse=True)


def summary(found: Findings) -> Mapping[str, Any]:
    return {name: getattr(found, name) for name in Findings.__slots__}


def test_slices_add_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(world)
    for number in range(20):
        stopped(world, f"task-{number}", late=number, early=number, code=str(number % 3), message=str(number))
    # Ids may have gaps.
    if world.dialect == "postgresql":
        world.app.execute("ALTER TABLE zego_stop_attempts ALTER COLUMN id RESTART WITH 5000000")
        stopped(world, "far")
    else:
        stopped(world, "far", id=5_000_000)
    whole = summary(findings(world.engine, WEEK))
    monkeypatch.setattr(report, "SLICE", 3)
    assert summary(findings(world.engine, WEEK)) == whole


def test_what_is_recorded_meanwhile_belongs_to_the_next_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        stopped(world, f"task-{number}")
    monkeypatch.setattr(report, "SLICE", 2)
    count = 0

    @sa.event.listens_for(world.engine, "begin")
    def write(_: sa.Connection) -> None:
        nonlocal count
        count += 1
        if count == 2:
            stopped(world, "meanwhile")

    assert findings(world.engine, WEEK).count(Outcome.STOPPED) == 5
    with reading(world.engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(attempts)).scalar_one() == 6
