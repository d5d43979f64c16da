"""What the database itself promises to whoever writes to it (design §3): by the drivers alone, on both databases."""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.support.time_travel import World

REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError, psycopg.DataError)
FINAL = ("stopped", "gone", "auto_stopped", "failed", "released")
PLAN = ("due_at", "auto_stop_at", "wake_at")
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
Row = Mapping[str, Any]


@pytest.fixture
def world(every_world: World) -> World:
    return every_world


def plan(world: World, task_id: str = "task") -> None:
    """Write a plan as the daemon does."""
    world.app.change(task_id, due_at=world.ahead(45), auto_stop_at=world.ahead(150), wake_at=world.ahead(45))


def claim(world: World, task_id: str = "task") -> None:
    """Claim a task as the daemon does."""
    world.app.change(task_id, claimed_by="host/1/1", wake_at=world.ahead(20))


def emptied(world: World) -> None:
    """Bring about a task whose room people have left, with a plan."""
    world.app.start("task", user_count=2)
    world.advance(10)
    world.app.people("room", 0)
    plan(world)


def only(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


class TestInsert:
    def test_a_bare_row_is_a_task_about_which_nothing_is_known(self, world: World) -> None:
        world.app.start("task", "room")
        assert dict(world.task("task")) == {
            "task_id": "task",
            "room_id": "room",
            "app_id": None,
            "kind": "asr",
            "max_idle_seconds": None,
            "grace_seconds": None,
            "hold_until": None,
            "started_at": world.now,
            "user_count": None,
            "user_count_at": None,
            "user_count_source": None,
            "last_occupied_at": None,
            "empty_since": None,
            "due_at": None,
            "auto_stop_at": None,
            "wake_at": None,
            "claimed_by": None,
            "attempts": 0,
            "status": "active",
            "ended_at": None,
            "asked_at": LONG_AGO,
            "vendor_occupied_at": None,
            "discovered_at": None,
            "bot_user_id": None,
        }

    @pytest.mark.parametrize(("number", "moved"), [(0, "empty_since"), (3, "last_occupied_at")])
    def test_a_hint_in_the_insert_counts_like_any_other(self, world: World, number: int, moved: str) -> None:
        world.app.start("task", user_count=number)
        row = world.task("task")
        expected = {"empty_since": None, "last_occupied_at": None, moved: world.now}
        assert only(row, *expected) == expected
        assert only(row, "user_count_at", "user_count_source") == {
            "user_count_at": world.now,
            "user_count_source": "app",
        }

    @pytest.mark.parametrize(("offset", "stored"), [(-30, -30), (0, 0), (30, 0)])
    def test_an_observations_time_is_kept_unless_it_lies_in_the_future(
        self, world: World, offset: float, stored: float
    ) -> None:
        world.app.start("task", user_count=0, user_count_at=world.ahead(offset), user_count_source="callback")
        row = world.task("task")
        assert row["user_count_at"] == row["empty_since"] == world.ahead(stored)
        assert row["user_count_source"] == "callback"

    def test_a_time_or_a_source_of_no_observation_is_dropped(self, world: World) -> None:
        world.app.start("task", user_count_at=world.now, user_count_source="app")
        assert only(world.task("task"), "user_count_at", "user_count_source") == {
            "user_count_at": None,
            "user_count_source": None,
        }

    def test_what_belongs_to_the_daemon_starts_clean_whatever_was_written(self, world: World) -> None:
        moment = world.ago(600)
        times = (
            "last_occupied_at",
            "empty_since",
            "due_at",
            "auto_stop_at",
            "wake_at",
            "ended_at",
            "vendor_occupied_at",
        )
        world.app.start("task", claimed_by="me", attempts=7, asked_at=moment, **dict.fromkeys(times, moment))
        row = world.task("task")
        assert only(row, *times, "claimed_by", "attempts", "asked_at") == {
            **dict.fromkeys((*times, "claimed_by")),
            "attempts": 0,
            "asked_at": LONG_AGO,
        }

    @pytest.mark.parametrize("status", FINAL)
    def test_a_task_may_be_written_down_when_it_is_over(self, world: World, status: str) -> None:
        world.app.start("task", status=status)
        world.app.start("dated", status=status, ended_at=world.ago(5))
        assert only(world.task("task"), "status", "ended_at") == {"status": status, "ended_at": world.now}
        assert world.task("dated")["ended_at"] == world.ago(5)

    def test_the_applications_own_columns_are_stored_as_written(self, world: World) -> None:
        columns = {
            "app_id": 4294967295,
            "max_idle_seconds": 30,
            "grace_seconds": 0,
            "hold_until": world.ahead(3600),
            "started_at": world.ago(7),
        }
        world.app.start("task", "r" * 128, **columns)
        assert only(world.task("task"), *columns) == columns

    def test_an_upsert_is_a_hint_too(self, world: World) -> None:
        upsert = (
            "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, ?)"
            " ON CONFLICT (task_id) DO UPDATE SET user_count = excluded.user_count"
        )
        world.app.execute(upsert, "task", "room", 2)
        world.advance(5)
        world.app.execute(upsert, "task", "room", 0)
        world.advance(5)
        world.app.execute(upsert, "task", "room", 0)
        row = world.task("task")
        assert (row["last_occupied_at"], row["empty_since"]) == (world.ago(10), world.ago(5))
        assert row["user_count_at"] == world.now


class TestHint:
    @pytest.mark.parametrize("before", [None, 1, 50])
    def test_zero_after_anything_else_starts_the_clock(self, world: World, before: int | None) -> None:
        world.app.start("task", user_count=before)
        world.advance(10)
        assert world.app.people("room", 0) == 1
        row = world.task("task")
        assert row["empty_since"] == row["user_count_at"] == world.now

    def test_zero_after_zero_keeps_the_clock_and_the_plan(self, world: World) -> None:
        emptied(world)
        planned = world.task("task")
        world.advance(10)
        world.app.people("room", 0)
        row = world.task("task")
        assert only(row, "empty_since", *PLAN) == only(planned, "empty_since", *PLAN)
        assert row["user_count_at"] == world.now

    @pytest.mark.parametrize("number", [1, None])
    def test_people_or_ignorance_stop_the_clock_and_clear_the_plan(self, world: World, number: int | None) -> None:
        emptied(world)
        world.advance(10)
        world.app.people("room", number)
        row = world.task("task")
        assert only(row, "empty_since", *PLAN) == dict.fromkeys(("empty_since", *PLAN))
        assert row["user_count_at"] == world.now
        assert row["last_occupied_at"] == (world.now if number else world.ago(20))
        assert row["user_count_source"] == ("app" if number else None)

    def test_a_hint_is_for_every_active_task_of_the_room_and_no_other(self, world: World) -> None:
        for task_id, room_id in (("a", "room"), ("b", "room"), ("ended", "room"), ("other", "other")):
            world.app.start(task_id, room_id)
        world.app.release("ended")
        assert world.app.people("room", 0) == 2
        assert [world.task(task_id)["empty_since"] for task_id in ("a", "b", "ended", "other")] == [
            *(world.now, world.now),
            *(None, None),
        ]

    def test_an_observation_may_have_happened_earlier(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.advance(60)
        world.app.people("room", 2, user_count_at=world.ago(40), user_count_source="callback")
        assert world.task("task")["last_occupied_at"] == world.ago(40)
        world.app.people("room", 0, user_count_at=world.ago(30), user_count_source="callback")
        row = world.task("task")
        assert row["empty_since"] == row["user_count_at"] == world.ago(30)
        assert (row["last_occupied_at"], row["user_count_source"]) == (world.ago(40), "callback")

    def test_an_observation_from_the_future_is_one_of_now(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.advance(10)
        world.app.people("room", 0, user_count_at=world.ahead(300))
        row = world.task("task")
        assert row["empty_since"] == row["user_count_at"] == world.now

    @pytest.mark.parametrize("number", [0, 5, None])
    def test_an_observation_older_than_the_stored_one_is_ignored(self, world: World, number: int | None) -> None:
        emptied(world)
        before = world.task("task")
        world.advance(10)
        assert world.app.people("room", number, user_count_at=world.ago(11)) == 1
        assert world.task("task") == before

    @pytest.mark.parametrize("number", [0, 5])
    def test_the_same_observation_again_is_one_of_now(self, world: World, number: int) -> None:
        """SQL cannot tell "not given" from "given as it was", in whatever spelling."""
        world.app.start("task", user_count=1)
        world.advance(10)
        moment = world.now
        world.app.people("room", number, user_count_at=moment)
        world.advance(10)
        world.app.people("room", number, user_count_at=moment)
        assert world.task("task")["user_count_at"] == world.now

    def test_a_time_given_as_null_is_not_given(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.advance(10)
        world.app.people("room", 0, user_count_at=None)
        assert world.task("task")["user_count_at"] == world.task("task")["empty_since"] == world.now

    def test_a_time_taken_away_leaves_a_hint_of_unknown_age(self, world: World) -> None:
        world.app.start("task", user_count=0)
        world.advance(10)
        world.app.change("task", user_count_at=None)
        assert world.task("task")["user_count_at"] is None

    def test_a_time_written_alone_is_never_in_the_future(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.advance(10)
        world.app.change("task", user_count_at=world.ahead(60))
        assert world.task("task")["user_count_at"] == world.now
        world.app.change("task", user_count_at=world.ago(5))
        assert world.task("task")["user_count_at"] == world.ago(5)

    def test_a_source_not_given_is_the_application(self, world: World) -> None:
        world.app.start("task")
        world.app.people("room", 1, user_count_at=world.ago(1), user_count_source="api")
        assert world.task("task")["user_count_source"] == "api"
        world.app.people("room", 2)
        assert world.task("task")["user_count_source"] == "app"

    def test_a_hint_leaves_the_rest_of_the_row_alone(self, world: World) -> None:
        world.app.start("task", app_id=5, max_idle_seconds=60, grace_seconds=3, hold_until=world.ahead(60))
        before = world.task("task")
        world.advance(10)
        world.app.people("room", 0)
        changed = {name for name, value in world.task("task").items() if value != before[name]}
        assert changed == {"user_count", "user_count_at", "user_count_source", "empty_since"}

    @pytest.mark.parametrize("number", [0, 4, None])
    def test_under_a_claim_the_lease_stays_whoever_comes(self, world: World, number: int | None) -> None:
        """Or the row could be claimed, and its task be sent a second request, while the first is under way (I4)."""
        emptied(world)
        claim(world)
        leased = world.task("task")
        world.advance(5)
        world.app.people("room", number)
        row = world.task("task")
        assert only(row, "wake_at", "claimed_by") == only(leased, "wake_at", "claimed_by")
        assert row["due_at"] == (leased["due_at"] if number == 0 else None)


class TestSeenByTheVendor:
    """``vendor_occupied_at``: the last time that the vendor itself, by API or callback, saw people."""

    @pytest.mark.parametrize("source", ["api", "callback"])
    def test_people_by_its_word(self, world: World, source: str) -> None:
        world.app.start("task")
        world.advance(10)
        world.app.people("room", 2, user_count_at=world.ago(3), user_count_source=source)
        assert world.task("task")["vendor_occupied_at"] == world.ago(3)
        world.advance(10)
        world.app.people("room", 1, user_count_at=world.ago(1), user_count_source=source)
        assert world.task("task")["vendor_occupied_at"] == world.ago(1)

    @pytest.mark.parametrize("source", ["api", "callback"])
    @pytest.mark.parametrize("more", [{}, {"user_count_at": None}], ids=["not given", "null"])
    def test_now_if_it_gives_no_time(self, world: World, source: str, more: dict[str, Any]) -> None:
        for task_id, hinted in (("new", {}), ("hinted", {"user_count": 1})):
            world.app.start(task_id, **hinted)
        world.advance(10)
        world.app.people("room", 2, user_count_source=source, **more)
        assert [world.task(task_id)["vendor_occupied_at"] for task_id in ("new", "hinted")] == [world.now] * 2

    @pytest.mark.parametrize("source", ["api", "callback"])
    def test_never_in_the_future(self, world: World, source: str) -> None:
        world.app.start("task")
        world.app.people("room", 2, user_count_at=world.ahead(60), user_count_source=source)
        assert world.task("task")["vendor_occupied_at"] == world.now

    @pytest.mark.parametrize("source", ["api", "callback"])
    @pytest.mark.parametrize("number", [0, None])
    def test_no_people_leave_it_as_it_was(self, world: World, source: str, number: int | None) -> None:
        world.app.start("task")
        world.app.people("room", number, user_count_at=world.ago(2), user_count_source=source)
        assert world.task("task")["vendor_occupied_at"] is None
        world.app.people("room", 1, user_count_at=world.now, user_count_source=source)
        seen = world.now
        world.advance(10)
        world.app.people("room", number, user_count_at=world.now, user_count_source=source)
        assert world.task("task")["vendor_occupied_at"] == seen

    @pytest.mark.parametrize("columns", [{}, {"user_count_source": "app"}, {"user_count_source": None}], ids=str)
    def test_the_applications_word_is_not_its(self, world: World, columns: dict[str, Any]) -> None:
        world.app.start("task", user_count=1, **columns)
        world.advance(10)
        world.app.people("room", 5, **columns)
        assert world.task("task")["vendor_occupied_at"] is None

    @pytest.mark.parametrize(
        "columns",
        [{}, {"user_count_at": None}, {"user_count_source": "app"}, {"user_count_source": None}],
        ids=["nothing more", "a time of null", "its source", "a source of null"],
    )
    def test_nor_is_it_after_the_vendor_spoke(self, world: World, columns: dict[str, Any]) -> None:
        world.app.start("task")
        world.app.people("room", 2, user_count_at=world.now, user_count_source="api")
        seen = world.now
        for _ in range(2):
            world.advance(10)
            world.app.people("room", 3, **columns)
            row = world.task("task")
            assert (row["vendor_occupied_at"], row["user_count_source"]) == (seen, "app")
            assert row["last_occupied_at"] == world.now

    def test_an_older_observation_is_ignored(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.advance(10)
        assert world.app.people("room", 2, user_count_at=world.ago(11), user_count_source="api") == 1
        assert world.task("task")["vendor_occupied_at"] is None

    @pytest.mark.parametrize("source", ["api", "callback", "app", None])
    @pytest.mark.parametrize("number", [0, 2, None])
    @pytest.mark.parametrize("offset", [-5, 60, None])
    def test_on_insert(self, world: World, source: str | None, number: int | None, offset: float | None) -> None:
        at = None if offset is None else world.ahead(offset)
        world.app.start("task", user_count=number, user_count_at=at, user_count_source=source)
        seen = world.ago(5) if offset == -5 else world.now
        expected = seen if number and source in {"api", "callback"} else None
        assert world.task("task")["vendor_occupied_at"] == expected


class TestRefused:
    """A loud error in the application beats a row that nobody can work with."""

    @pytest.mark.parametrize(
        ("column", "value", "constraint"),
        [
            ("user_count", -1, "zego_user_count_not_negative"),
            ("user_count_source", "gossip", "zego_user_count_source_known"),
            ("max_idle_seconds", 0, "zego_max_idle_seconds_positive"),
            ("grace_seconds", -1, "zego_grace_seconds_not_negative"),
            ("app_id", 0, "zego_app_id_uint32"),
            ("app_id", 4294967296, "zego_app_id_uint32"),
            ("kind", "", "zego_kind_known"),
            ("status", "paused", "zego_status_known"),
            ("room_id", "", "zego_room_id_1_to_128_bytes"),
            ("room_id", "房" * 43, "zego_room_id_1_to_128_bytes"),
            # A zero value of many a language, which would read as an emptiness of two thousand years.
            ("user_count_at", datetime(1, 1, 1, tzinfo=UTC), "zego_user_count_at_is_a_time"),
            ("started_at", datetime(1, 1, 1, tzinfo=UTC), "zego_started_at_is_a_time"),
            # Nothing could be added to it.
            ("started_at", datetime(9999, 12, 31, tzinfo=UTC), "zego_started_at_is_a_time"),
        ],
    )
    @pytest.mark.parametrize("statement", ["insert", "update"])
    def test_what_makes_no_sense_by_the_name_of_its_constraint(
        self, world: World, statement: str, column: str, value: object, constraint: str
    ) -> None:
        world.app.start("task", user_count=1)
        before = world.task("task")

        def write() -> None:
            if statement == "update":
                world.app.change("task", **{column: value})
            elif column == "room_id":
                world.app.start("new", str(value))
            else:
                world.app.start("new", **{"user_count": 0, column: value})

        with pytest.raises(REFUSED, match=constraint):
            write()
        assert world.task("task") == before

    @pytest.mark.parametrize("column", ["room_id", "status", "started_at", "kind", "attempts"])
    def test_null_where_there_must_be_something(self, world: World, column: str) -> None:
        world.app.start("task")
        with pytest.raises(REFUSED):
            world.app.change("task", **{column: None})

    def test_the_same_task_twice(self, world: World) -> None:
        world.app.start("task")
        with pytest.raises(REFUSED):
            world.app.start("task")

    def test_a_task_without_a_name(self, world: World) -> None:
        with pytest.raises(REFUSED, match="zego_task_id_not_empty"):
            world.app.start("")

    @pytest.mark.parametrize("column", ["hold_until", "started_at", "user_count_at", "ended_at"])
    def test_what_is_not_a_time(self, world: World, column: str) -> None:
        world.app.start("task", user_count=1)
        for text in (
            "soon",
            "",
            "12:30",
            "18:00:00+08:00",
            "2461100.5",
            "1772366400",
            "2026-13-01",
            "2026-03-01 25:00",
        ):
            with pytest.raises(REFUSED, match=f"zego_{column}_is_a_time" if world.dialect == "sqlite" else None):
                world.app.change("task", **{column: text})

    @pytest.mark.parametrize("column", ["user_count", "max_idle_seconds", "grace_seconds", "app_id"])
    def test_what_is_not_a_number(self, world: World, column: str) -> None:
        world.app.start("task")
        with pytest.raises(REFUSED, match=f"zego_{column}_" if world.dialect == "sqlite" else None):
            world.app.change("task", **{column: "many"})

    @pytest.mark.parametrize("column", ["max_idle_seconds", "grace_seconds"])
    def test_a_length_of_time_beyond_all_calendars(self, world: World, column: str) -> None:
        world.app.start("task")
        with pytest.raises(REFUSED, match=f"zego_{column}_" if world.dialect == "sqlite" else None):
            world.app.change("task", **{column: 2**31})

    def test_half_a_person(self, sqlite_world: World) -> None:
        """PostgreSQL rounds what it is given before anybody may look at it."""
        sqlite_world.app.start("task")
        with pytest.raises(REFUSED, match="zego_user_count_not_negative"):
            sqlite_world.app.change("task", user_count=0.5)


class TestSpelling:
    """SQLite stores text: every spelling its own functions read becomes ours, in UTC, so that it sorts."""

    OURS = "2026-03-01 10:00:00.250000"
    SPELLINGS = (
        "2026-03-01 10:00:00.250000",
        "2026-03-01 10:00:00.25",
        "2026-03-01T10:00:00.250",
        "2026-03-01T10:00:00.25Z",
        "2026-03-01T10:00:00.2500Z",
        "2026-03-01 10:00:00.25000Z",
        "2026-03-01T18:00:00.25+08:00",
        "2026-03-01 04:30:00.250 -05:30",
    )

    @pytest.mark.parametrize("column", ["hold_until", "started_at", "user_count_at"])
    @pytest.mark.parametrize("statement", ["insert", "update", "update alone"])
    def test_is_brought_into_one_form(self, sqlite_world: World, column: str, statement: str) -> None:
        app = sqlite_world.app
        for spelling in self.SPELLINGS:
            if statement == "insert":
                app.start(spelling, **{"user_count": 3, column: spelling})
            else:
                app.start(spelling, user_count=3, user_count_at="2026-03-01 09:00")
                more = {"user_count": 2} if statement == "update" else {}
                app.change(spelling, **more, **{column: spelling})
        found = app.rows(f"SELECT task_id, {column} FROM zego_tasks")
        assert {row["task_id"]: row[column] for row in found} == dict.fromkeys(self.SPELLINGS, self.OURS)

    def test_of_an_end_too(self, sqlite_world: World) -> None:
        app = sqlite_world.app
        for spelling in self.SPELLINGS:
            app.start(f"inserted {spelling}", status="released", ended_at=spelling)
            app.start(f"ended {spelling}")
            app.change(f"ended {spelling}", status="released", ended_at=spelling)
            app.start(f"corrected {spelling}")
            app.release(f"corrected {spelling}")
            app.change(f"corrected {spelling}", ended_at=spelling)
        assert {row["ended_at"] for row in app.rows("SELECT ended_at FROM zego_tasks")} == {self.OURS}

    def test_the_same_moment_in_another_spelling_is_the_same_moment(self, sqlite_world: World) -> None:
        app = sqlite_world.app
        app.start("task", user_count=0, user_count_at="2026-03-01T10:00:00Z")
        app.people("room", 0, user_count_at="2026-03-01T18:00:00+08:00")
        assert sqlite_world.task("task")["user_count_at"] == sqlite_world.now

    def test_a_hold_that_is_only_spelt_anew_leaves_the_plan(self, sqlite_world: World) -> None:
        emptied(sqlite_world)
        sqlite_world.app.change("task", hold_until="2026-03-01T10:00:00Z")
        plan(sqlite_world)
        sqlite_world.app.change("task", hold_until="2026-03-01T10:00:00+00:00")
        row = sqlite_world.task("task")
        assert row["wake_at"] == sqlite_world.ahead(45)
        assert row["hold_until"] == datetime(2026, 3, 1, 10, tzinfo=UTC)

    def test_a_day_is_its_midnight(self, world: World) -> None:
        world.app.start("task", hold_until="2026-03-02", started_at="2026-02-28 23:59")
        row = world.task("task")
        assert row["hold_until"] == datetime(2026, 3, 2, tzinfo=UTC)
        assert row["started_at"] == datetime(2026, 2, 28, 23, 59, tzinfo=UTC)

    def test_a_hold_may_be_for_ever(self, world: World) -> None:
        world.app.start("task", hold_until="9999-12-31 23:59:59")
        assert world.task("task")["hold_until"] == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    @pytest.mark.parametrize("column", ["hold_until", "started_at", "user_count_at", "ended_at"])
    def test_no_time_is_stored_that_the_daemon_could_not_read(self, world: World, column: str) -> None:
        world.app.start("task", user_count=0)
        for text in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "9999-12-31 23:59:59-08:00"):
            # An observation of the far future may as well become one of now.
            with pytest.raises(REFUSED) if column != "user_count_at" else suppress(*REFUSED):
                world.app.change("task", **{column: text})
        assert world.task("task")["started_at"] == world.now
        assert len(world.tasks.newly_empty(10)[1]) == 1


class TestReplan:
    CHANGES = (
        {"hold_until": "2026-03-01 13:00:00"},
        {"grace_seconds": 10},
        {"max_idle_seconds": 600},
        {"started_at": "2026-03-01 11:59:00"},
    )

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
    def test_a_changed_limit_calls_for_a_new_plan(self, world: World, change: dict[str, Any]) -> None:
        emptied(world)
        before = world.task("task")
        world.app.change("task", **change)
        row = world.task("task")
        assert only(row, *PLAN) == dict.fromkeys(PLAN)
        assert row["empty_since"] == before["empty_since"]
        plan(world)
        planned = world.task("task")
        world.app.change("task", **change)
        assert world.task("task") == planned, "written as it was, it changes nothing"

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
    def test_under_a_claim_the_plan_goes_and_the_lease_stays(self, world: World, change: dict[str, Any]) -> None:
        emptied(world)
        claim(world)
        leased = world.task("task")
        world.app.change("task", **change)
        row = world.task("task")
        assert only(row, "wake_at", "claimed_by") == only(leased, "wake_at", "claimed_by")
        assert only(row, "due_at", "auto_stop_at") == {"due_at": None, "auto_stop_at": None}

    def test_a_hold_taken_back_calls_for_a_new_plan(self, world: World) -> None:
        emptied(world)
        world.app.change("task", hold_until=world.ahead(600))
        plan(world)
        world.app.change("task", hold_until=None)
        assert only(world.task("task"), "hold_until", *PLAN) == dict.fromkeys(("hold_until", *PLAN))


class TestEnd:
    @pytest.mark.parametrize("status", FINAL)
    def test_an_ended_task_has_a_time_and_nobody_waits_for_it(self, world: World, status: str) -> None:
        emptied(world)
        claim(world)
        planned = world.task("task")
        world.advance(5)
        assert world.app.change("task", status=status) == 1
        row = world.task("task")
        assert only(row, "status", "ended_at", "claimed_by", "wake_at") == {
            "status": status,
            "ended_at": world.now,
            "claimed_by": None,
            "wake_at": None,
        }
        assert only(row, "due_at", "auto_stop_at") == only(planned, "due_at", "auto_stop_at")

    @pytest.mark.parametrize("first", FINAL)
    def test_a_final_status_never_changes(self, world: World, first: str) -> None:
        world.app.start("task")
        world.app.change("task", status=first)
        before = world.task("task")
        world.advance(5)
        for second in ("active", *FINAL):
            if second != first:
                assert world.app.change("task", status=second, ended_at=world.now) == 1, "the row counts as updated"
        assert world.task("task") == before
        world.app.change("task", status=first)
        assert world.task("task") == before

    def test_the_application_may_date_the_end(self, world: World) -> None:
        world.app.start("task")
        world.app.change("task", status="released", ended_at=world.ago(5))
        assert world.task("task")["ended_at"] == world.ago(5)

    def test_an_old_observation_in_the_same_statement_does_not_prevent_the_end(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.app.change("task", status="released", user_count=0, user_count_at=world.ago(60))
        assert world.task("task")["status"] == "released"

    def test_a_hint_for_an_ended_task_wakes_nobody(self, world: World) -> None:
        world.app.start("task", user_count=1)
        world.app.release("task")
        world.app.change("task", user_count=0)
        assert world.task("task")["wake_at"] is None
        assert not world.tasks.peek().newly_empty

    def test_a_task_may_be_deleted_and_its_ledger_stays(self, world: World) -> None:
        world.app.start("task")
        note(world)
        assert world.app.execute("DELETE FROM zego_tasks WHERE task_id = ?", "task") == 1
        assert len(world.attempts("task")) == 1
        assert world.history("task")["outcome"] == "sent"


def note(world: World, **columns: Any) -> None:
    """Write a row of the ledger."""
    row = {
        "task_id": "task",
        "kind": "asr",
        "room_id": "room",
        "reason": "empty_room",
        "outcome": "sent",
        "instance": "host/1",
        **columns,
    }
    world.app.execute(
        f"INSERT INTO zego_stop_attempts ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values()
    )


class TestLedger:
    @pytest.mark.parametrize(
        "outcome",
        [
            *("stopped", "gone", "stopped_earlier", "auto_stopped", "retry", "unknown", "rejected", "blocked"),
            *("spared", "withheld", "would_stop"),
        ],
    )
    def test_a_row_is_never_updated_after_its_outcome(self, world: World, outcome: str) -> None:
        note(world)
        world.app.execute("UPDATE zego_stop_attempts SET outcome = ?, code = ?", outcome, "0")
        (before,) = world.attempts("task")
        for change in ("outcome = 'sent'", "code = '1'", "detail = 'x'", "instance = instance"):
            with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="never updated"):
                world.app.execute(f"UPDATE zego_stop_attempts SET {change}")
        assert world.attempts("task") == [before]

    def test_an_unknown_without_any_answer_is_completed_once(self, world: World) -> None:
        note(world)
        world.app.execute("UPDATE zego_stop_attempts SET outcome = 'unknown', detail = 'no answer'")
        for change in ("outcome = 'sent'", "detail = 'x'", "code = '0'", "outcome = 'unknown', code = '0'"):
            with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="never updated"):
                world.app.execute(f"UPDATE zego_stop_attempts SET {change}")
        world.app.execute("UPDATE zego_stop_attempts SET outcome = 'stopped', code = '0'")
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="never updated"):
            world.app.execute("UPDATE zego_stop_attempts SET outcome = 'gone'")
        assert world.attempts("task")[0]["outcome"] == "stopped"

    def test_an_unknown_outcome_is_refused(self, world: World) -> None:
        with pytest.raises(REFUSED, match="zego_outcome_known"):
            note(world, outcome="perhaps")

    def test_a_row_knows_when_it_was_written(self, world: World) -> None:
        note(world)
        assert world.attempts("task")[0]["recorded_at"] == world.now

    def test_code_and_request_id_are_kept_to_the_letter(self, world: World) -> None:
        big = "0031515277925596997329999999"
        note(world, code="0", request_id=big, outcome="stopped")
        assert only(world.attempts("task")[0], "code", "request_id") == {"code": "0", "request_id": big}
