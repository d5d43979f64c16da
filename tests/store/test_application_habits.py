"""What applications and their object-relational mappers do to rows that the watchdog writes, too."""

import sqlite3
from collections.abc import Mapping
from itertools import count
from types import ModuleType
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session, registry
from sqlalchemy.orm.attributes import flag_modified

from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.store import attempts as attempts_store
from watchdog.store import room_tasks, tables
from watchdog.store import tasks as tasks_store
from watchdog.store.engine import reading
from watchdog.store.records import Intent
from watchdog.store.tables import deleted_tasks, metadata, tasks

REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)
DAEMONS = (
    *("last_occupied_at", "empty_since", "due_at", "auto_stop_at", "wake_at", "claimed_by", "attempts"),
    *("asked_at", "vendor_occupied_at", "discovered_at"),
)
APPLICATIONS = (
    *("app_id", "max_idle_seconds", "grace_seconds", "hold_until", "started_at"),
    *("user_count", "user_count_at", "user_count_source", "status", "ended_at"),
)


@pytest.fixture
def world(every_world: World) -> World:
    return every_world


def test_every_column_is_one_or_the_others() -> None:
    """A new one needs its place in the triggers."""
    assert {*DAEMONS, *APPLICATIONS, "task_id", "room_id", "kind", "bot_user_id"} == set(tasks.c.keys())


class Row:
    """A task as an application maps it."""

    task_id: str
    room_id: str
    user_count: int | None
    user_count_at: Any
    grace_seconds: int | None
    status: str


registry(metadata=metadata).map_imperatively(Row, tasks)


def stale(world: World, row: Mapping[str, Any], **changes: Any) -> int:
    """Write a whole row as it was once, as Django's ``save()`` does; return how many rows that were."""
    columns = {name: value for name, value in {**row, **changes}.items() if name != "task_id"}
    return world.app.change(row["task_id"], **columns)


def at_work(world: World, task_id: str = "t") -> Mapping[str, Any]:
    """Bring about an empty room whose task is claimed, with a plan and attempts; return the row as it was before."""
    world.app.start(task_id, "room", user_count=2)
    before = world.task(task_id)
    world.advance(10)
    world.app.change(task_id, user_count=0)
    world.app.change(task_id, due_at=world.ahead(45), auto_stop_at=world.ahead(150), wake_at=world.ahead(45))
    world.app.change(task_id, claimed_by="host/1", wake_at=world.ahead(20), attempts=2, asked_at=world.now)
    world.advance(5)
    return before


def stop(world: World, task_id: str = "t") -> Mapping[str, Any]:
    world.app.change(task_id, status="stopped")
    return world.task(task_id)


class TestEnded:
    """The application's stale write of a task that has ended counts, and changes nothing of its end."""

    def test_a_mapper_flushes_three_rows_of_which_one_has_ended(self, world: World) -> None:
        for task_id in "abc":
            world.app.start(task_id, "room")
        with Session(world.engine, expire_on_commit=False) as session:
            rows = session.scalars(sa.select(Row)).all()
            session.commit()
            ended = stop(world, "b")
            world.advance(10)
            for row in rows:
                row.status = "released"
            session.commit()
        assert [world.task(task_id)["status"] for task_id in "abc"] == ["released", "stopped", "released"]
        assert world.task("b") == ended

    def test_many_parameters_in_one_statement(self, world: World) -> None:
        for task_id in "ab":
            world.app.start(task_id, "room")
        ended = stop(world, "b")
        statement = sa.update(tasks).where(tasks.c.task_id == sa.bindparam("b_id")).values(status="released")
        with world.engine.begin() as connection:
            assert connection.execute(statement, [{"b_id": "a"}, {"b_id": "b"}]).rowcount == 2
        assert world.task("a")["status"] == "released"
        assert world.task("b") == ended

    @pytest.mark.parametrize("status", ["active", "released", "stopped"])
    def test_a_whole_stale_row_changes_nothing_of_it(self, world: World, status: str) -> None:
        before = at_work(world)
        ended = stop(world)
        world.advance(10)
        assert stale(world, before, status=status) == 1
        assert world.task("t") == ended

    def test_its_other_columns_are_written(self, world: World) -> None:
        before = at_work(world)
        planned = stop(world)
        assert stale(world, before, status="released", app_id=7, grace_seconds=9) == 1
        assert world.task("t") == {**planned, "app_id": 7, "grace_seconds": 9}

    @pytest.mark.parametrize("number", [0, 3, None])
    @pytest.mark.parametrize("source", ["app", "api"])
    def test_a_hint_of_it_is_ignored(self, world: World, number: int | None, source: str) -> None:
        at_work(world)
        ended = stop(world)
        world.advance(10)
        assert world.app.change("t", user_count=number, user_count_source=source) == 1
        assert world.app.change("t", user_count=number, user_count_at=world.now, user_count_source=source) == 1
        assert world.task("t") == ended


@pytest.mark.parametrize(
    "module", [tables, tasks_store, attempts_store, room_tasks], ids=lambda module: module.__name__
)
def test_the_daemons_own_statements_ask_for_an_active_task(module: ModuleType) -> None:
    """A row counts although a trigger put it back, so the count alone does not say that the write took effect."""
    updates = [one for one in vars(module).values() if isinstance(one, sa.Update) and one.table is tasks]
    assert updates
    for one in updates:
        assert "zego_tasks.status = 'active'" in str(one.compile(dialect=sqlite.dialect()))


class TestStaleHint:
    def test_it_counts_and_only_the_hint_is_ignored(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        assert world.app.change("t", user_count=3, user_count_at=world.ago(60), app_id=7) == 1
        assert world.task("t") == {**before, "app_id": 7}
        # A hold that is written together with it holds.
        assert world.app.change("t", user_count=3, user_count_at=world.ago(60), hold_until=world.ahead(60)) == 1
        row = world.task("t")
        assert (row["user_count"], row["hold_until"], row["due_at"]) == (0, world.ahead(60), None)
        assert row["claimed_by"] == "host/1"

    def test_the_end_in_the_same_statement_takes_the_claim_away(self, world: World) -> None:
        at_work(world)
        assert world.app.change("t", user_count=3, user_count_at=world.ago(60), status="released") == 1
        row = world.task("t")
        assert (row["user_count"], row["status"], row["claimed_by"], row["wake_at"]) == (0, "released", None, None)

    def test_a_mapper_writes_one(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        with Session(world.engine) as session:
            row = session.get_one(Row, "t")
            row.user_count, row.user_count_at = 1, world.ago(60)
            session.commit()
        assert world.task("t") == before


class TestWholeRow:
    """A save of every column, perhaps of a stale object: what is the daemon's stays."""

    def test_the_daemons_columns_stay(self, world: World) -> None:
        before = at_work(world)
        now = world.task("t")
        assert stale(world, before, user_count=0, user_count_at=now["user_count_at"], grace_seconds=None) == 1
        row = world.task("t")
        assert {name: row[name] for name in DAEMONS} == {name: now[name] for name in DAEMONS}

    def test_by_a_mapper_with_every_attribute_dirty(self, world: World) -> None:
        at_work(world)
        world.app.change("t", claimed_by=None, attempts=0)
        with Session(world.engine, expire_on_commit=False) as session:
            row = session.get_one(Row, "t")
            session.commit()
            world.app.change("t", claimed_by="host/2", wake_at=world.ahead(20), attempts=3)
            claimed = world.task("t")
            for column in tasks.c:
                if not column.primary_key:
                    flag_modified(row, column.name)
            row.grace_seconds = 7
            session.commit()
        assert world.task("t") == {
            **claimed,
            "user_count_at": world.now,
            "grace_seconds": 7,
            # A changed limit needs a new plan.
            "due_at": None,
            "auto_stop_at": None,
        }

    def test_the_time_of_an_end_is_not_lost(self, world: World) -> None:
        world.app.start("t", "room")
        before = world.task("t")
        ended = stop(world)
        assert stale(world, before, status="stopped") == 1
        assert world.task("t") == ended

    def test_another_room_is_written(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        assert world.app.change("t", room_id="other", attempts=0, claimed_by=None) == 1
        assert world.task("t") == {**before, "room_id": "other"}


_numbers = count()
moments = st.sampled_from([None, -40.0, -10.0, -5.0, 0.0, 30.0])
sources = st.sampled_from([None, "app", "api", "callback"])
counts = st.sampled_from([None, 0, 0, 2])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stored=st.tuples(counts, moments, sources),
    written=st.tuples(counts, moments, sources),
    limits=st.sampled_from([{}, {"grace_seconds": 3}, {"hold_until": 60.0}]),
    status=st.sampled_from(["active", "active", "released"]),
    ended=st.booleans(),
    claimed=st.booleans(),
    rubbish=st.booleans(),
)
def test_a_whole_row_comes_to_what_the_applications_columns_alone_would(
    world: World,
    *,
    stored: tuple[Any, ...],
    written: tuple[Any, ...],
    limits: dict[str, Any],
    status: str,
    ended: bool,
    claimed: bool,
    rubbish: bool,
) -> None:
    world.advance(100)
    number = next(_numbers)
    twins = f"a{number}", f"b{number}"

    def hint(number: int | None, seconds: float | None, source: str | None) -> dict[str, Any]:
        at = None if seconds is None else world.ahead(seconds)
        return {"user_count": number, "user_count_at": at, "user_count_source": source}

    for task in twins:
        world.app.start(task, "room", **hint(*stored))
        world.app.change(task, attempts=2, asked_at=world.ago(3))
        if world.task(task)["empty_since"] is not None:
            world.app.change(task, due_at=world.ahead(9), auto_stop_at=world.ahead(99), wake_at=world.ahead(9))
        if claimed:
            world.app.change(task, claimed_by="host/1", wake_at=world.ahead(20))
        if ended:
            world.app.change(task, status="stopped")
    row = world.task(twins[0])
    world.advance(1)
    columns = {name: row[name] for name in APPLICATIONS} | hint(*written) | {"status": status}
    columns |= {name: world.ahead(value) if name == "hold_until" else value for name, value in limits.items()}
    others = dict.fromkeys(DAEMONS, world.ago(50)) | {"claimed_by": "x", "attempts": 9}
    if not rubbish:
        others = dict.fromkeys(DAEMONS) | {"attempts": 0, "asked_at": world.ago(50)}
    assert world.app.change(twins[0], room_id="room", **others, **columns) == 1
    assert world.app.change(twins[1], **columns) == 1
    found, expected = ({**world.task(task), "task_id": ""} for task in twins)
    assert found == expected


INSERT = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('t', 'room', ?)"
REPLACE = INSERT.replace("INSERT", "INSERT OR REPLACE")
UPSERT = f"{INSERT} ON CONFLICT (task_id) DO UPDATE SET user_count = excluded.user_count"
# As a mapper writes it that knows all columns.
WHOLE = f"{UPSERT}, room_id = excluded.room_id, " + ", ".join(
    f"{name} = excluded.{name}" for name in (*DAEMONS, *APPLICATIONS) if name not in {"user_count", "started_at"}
)


@pytest.fixture(params=["upsert", "whole row", "replace"])
def repeated(request: pytest.FixtureRequest, world: World) -> str:
    """Return a statement that an application repeats every second; PostgreSQL has no REPLACE."""
    if request.param == "replace" and world.dialect == "sqlite":
        return REPLACE
    return UPSERT if request.param == "upsert" else WHOLE


def remembered(world: World) -> list[str]:
    with reading(world.engine) as connection:
        return list(connection.execute(sa.select(deleted_tasks.c.task_id)).scalars())


class TestRepeated:
    """INSERT OR REPLACE and upserts, again and again."""

    def test_zero_keeps_the_wait_the_plan_and_the_claim(self, world: World, repeated: str) -> None:
        at_work(world)
        before = world.task("t")
        for _ in range(3):
            world.advance(1)
            assert world.app.execute(repeated, 0) == 1
        assert world.task("t") == {**before, "user_count_at": world.now}
        world.app.execute(repeated, 2)
        row = world.task("t")
        assert (row["empty_since"], row["due_at"], row["last_occupied_at"]) == (None, None, world.now)
        assert row["claimed_by"] == "host/1"
        assert remembered(world) == []

    def test_from_the_first_insert_on(self, world: World, repeated: str) -> None:
        began = world.now
        for _ in range(3):
            world.app.execute(repeated, 0)
            world.advance(1)
        row = world.task("t")
        assert (row["started_at"], row["empty_since"], row["user_count_at"]) == (began, began, world.ago(1))

    def test_a_final_status_stays(self, world: World, repeated: str) -> None:
        at_work(world)
        ended = stop(world)
        for number in (0, 3):
            world.advance(1)
            assert world.app.execute(repeated, number) == 1
        assert world.task("t") == ended

    def test_the_daemon_stops_the_task_meanwhile(self, world: World, repeated: str) -> None:
        at_work(world)
        world.app.change("t", claimed_by=None, due_at=world.now, wake_at=world.now)
        _, (claim,) = world.tasks.claim("token", limit=1, lease_seconds=20, default_app=1)
        world.app.execute(repeated, 0)
        evidence = Evidence(0, world.now, Source.API)
        (attempt,) = world.ledger.intend([Intent(claim, 1, Reason.EMPTY_ROOM, evidence, None)])
        assert attempt is not None
        world.app.execute(repeated, 0)
        assert world.ledger.record([attempt.answer(Outcome.STOPPED, replied_at=world.now)]) == [True]
        world.app.execute(repeated, 0)
        row = world.task("t")
        assert (row["status"], row["attempts"], row["claimed_by"]) == ("stopped", 3, None)

    def test_a_row_that_is_deleted_is_a_new_one_afterwards(self, world: World, repeated: str) -> None:
        at_work(world)
        world.app.execute(repeated, 0)
        world.app.execute("DELETE FROM zego_tasks")
        assert remembered(world) == ["t"]
        world.app.execute(INSERT, 0)
        row = world.task("t")
        assert (row["attempts"], row["claimed_by"], row["empty_since"]) == (0, None, world.now)

    def test_a_plain_insert_is_refused_as_ever(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        with pytest.raises(REFUSED, match=r"(?i)unique"):
            world.app.execute(INSERT, 0)
        world.app.execute(f"{INSERT} ON CONFLICT DO NOTHING", 5)
        assert world.task("t") == before


@pytest.mark.parametrize("every_world", ["sqlite", "sqlite with recursive triggers"], indirect=True)
class TestReplace:
    """What only SQLite has."""

    def test_many_rows_and_many_statements(self, world: World) -> None:
        for task_id in "abc":
            at_work(world, task_id)
        ended = stop(world, "b")
        before = {task_id: world.task(task_id) for task_id in "abc"}
        world.advance(1)
        values = ", ".join(f"('{task_id}', 'room', 0)" for task_id in "aabbcdd")
        assert world.app.execute(f"REPLACE INTO zego_tasks (task_id, room_id, user_count) VALUES {values}") == 7
        world.app.execute("REPLACE INTO zego_tasks SELECT * FROM zego_tasks")
        for task_id in "ac":
            assert world.task(task_id) == {**before[task_id], "user_count_at": world.now}
        assert world.task("b") == ended
        assert world.task("d")["empty_since"] == world.now
        assert len(world.app.rows("SELECT 1 FROM zego_tasks")) == 4
        assert remembered(world) == []

    def test_what_it_does_not_give_stays(self, world: World) -> None:
        limits = {"app_id": 7, "max_idle_seconds": 60, "grace_seconds": 9, "hold_until": world.ahead(600)}
        world.app.start("t", "room", started_at=world.ago(9), user_count=3, **limits)
        before = world.task("t")
        world.advance(5)
        world.app.execute("REPLACE INTO zego_tasks (task_id, room_id) VALUES ('t', 'other')")
        assert world.task("t") == {**before, "room_id": "other"}
        world.app.execute(
            "REPLACE INTO zego_tasks (task_id, room_id, grace_seconds, app_id) VALUES ('t', 'room', 1, 8)"
        )
        assert world.task("t") == {**before, "grace_seconds": 1, "app_id": 8}

    def test_it_may_end_the_task(self, world: World) -> None:
        at_work(world)
        world.app.execute("REPLACE INTO zego_tasks (task_id, room_id, status) VALUES ('t', 'room', 'released')")
        row = world.task("t")
        assert (row["status"], row["ended_at"], row["claimed_by"], row["attempts"]) == ("released", world.now, None, 2)

    def test_of_an_observation_older_than_the_stored_one(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        more = "(task_id, room_id, user_count, user_count_at) VALUES ('t', 'room', 4, ?)"
        world.app.execute(f"REPLACE INTO zego_tasks {more}", world.ago(60))
        assert world.task("t") == before
        world.app.execute(f"REPLACE INTO zego_tasks {more}", world.ago(1))
        assert world.task("t")["last_occupied_at"] == world.ago(1)

    @pytest.mark.parametrize("word", ["IGNORE", "FAIL", "ABORT", "ROLLBACK"])
    def test_the_other_words_leave_the_row(self, world: World, word: str) -> None:
        at_work(world)
        before = world.task("t")
        statement = REPLACE.replace("REPLACE", word)
        if word == "IGNORE":
            assert world.app.execute(statement, 4) == 0
        else:
            with pytest.raises(REFUSED, match="UNIQUE"):
                world.app.execute(statement, 4)
        assert world.task("t") == before
        # What was copied then is of no meaning later.
        world.app.execute("DELETE FROM zego_tasks")
        assert remembered(world) == ["t"]
        world.app.execute(INSERT, 0)
        assert world.task("t")["attempts"] == 0

    def test_what_is_refused_leaves_the_row(self, world: World) -> None:
        at_work(world)
        before = world.task("t")
        with pytest.raises(REFUSED, match="zego_user_count_not_negative"):
            world.app.execute(REPLACE, -1)
        assert world.task("t") == before


class TestRefused:
    """By a name that says what is wrong, for new values only."""

    @pytest.mark.parametrize("task_id", ["1920370518175780864", "task-1", "1e5", "1.5", "a1001.0", "1001.0.0", "12e+x"])
    @pytest.mark.parametrize("room_id", ["1001", "1.0", "12.0", "1e+5", "v100.0", "100.0.0", "room 1.5e+20"])
    def test_ids_that_are_none_are_stored(self, world: World, task_id: str, room_id: str) -> None:
        world.app.start(task_id, room_id)
        assert world.task(task_id)["room_id"] == room_id

    @pytest.mark.parametrize("text", ["1.9203705181757809e+18", "1.92037051817578e+18", "1e+21", "1001.0", "7.0"])
    def test_a_task_id_that_was_a_number(self, world: World, text: str) -> None:
        with pytest.raises(REFUSED, match="zego_task_id_not_a_number"):
            world.app.start(text)
        world.app.start("t")
        with pytest.raises(REFUSED, match="zego_task_id_not_a_number"):
            world.app.change("t", task_id=text)

    @pytest.mark.parametrize("text", ["1.9203705181757809e+18", "1e+21", "1001.0", "100.0"])
    def test_a_room_id_that_was_a_number(self, world: World, text: str) -> None:
        with pytest.raises(REFUSED, match="zego_room_id_not_a_number"):
            world.app.start("t", text)
        world.app.start("t")
        with pytest.raises(REFUSED, match="zego_room_id_not_a_number"):
            world.app.change("t", room_id=text)

    @pytest.mark.parametrize("number", [1920370518175780864.0, 1e15, 1001.0])
    def test_numbers_as_node_hands_them_over(self, sqlite_world: World, number: float) -> None:
        for statement in ("INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE"):
            insert = f"{statement} INTO zego_tasks (task_id, room_id) VALUES (?, ?)"
            with pytest.raises(REFUSED, match="zego_task_id_not_a_number"):
                sqlite_world.app.execute(insert, number, "room")
            with pytest.raises(REFUSED, match="zego_room_id_not_a_number"):
                sqlite_world.app.execute(insert, "t", number)

    def test_a_number_that_a_driver_hands_over_on_postgresql(self, postgresql_world: World) -> None:
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            postgresql_world.app.start(1920370518175780864.0)  # type: ignore[arg-type] # the mistake
        assert caught.value.diag.constraint_name == "zego_task_id_not_a_number"

    @pytest.mark.parametrize("seconds", [1, 2, 29])
    def test_a_window_that_zego_does_not_have(self, world: World, seconds: int) -> None:
        with pytest.raises(REFUSED, match="zego_max_idle_seconds_at_least_30"):
            world.app.start("t", max_idle_seconds=seconds)
        world.app.start("t", max_idle_seconds=30)
        with pytest.raises(REFUSED, match="zego_max_idle_seconds_at_least_30"):
            world.app.change("t", max_idle_seconds=seconds)
        world.app.change("t", max_idle_seconds=None)
