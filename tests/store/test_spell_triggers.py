"""One row for each empty spell that ends, whoever ends it, with the right ending; none for one that goes on."""

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store_steps import APP, answer, due, empty, send, take_one
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Source
from watchdog.core.presence import Facts, RoomFact, UserFact
from watchdog.store import schema
from watchdog.store.callbacks import AutoStop, CallbackStore, Presence
from watchdog.store.engine import open_engine, reading
from watchdog.store.polling import PollStore
from watchdog.store.tables import empty_spells

ENDINGS = {
    "stopped": "stopped",
    "auto_stopped": "auto_stopped",
    "released": "released",
    "gone": "unknown",
    "failed": "unknown",
}

# SQLite's own statements.
on_sqlite = pytest.mark.parametrize("every_world", ["sqlite", "sqlite with recursive triggers"], indirect=True)


@pytest.fixture
def world(every_world: World) -> World:
    return every_world


def found(world: World) -> list[Mapping[str, Any]]:
    with reading(world.engine) as connection:
        return [row._asdict() for row in connection.execute(sa.select(empty_spells).order_by(empty_spells.c.id))]


def written(world: World) -> list[tuple[str, datetime, datetime, str]]:
    return [(row["task_id"], row["empty_since"], row["ended_at"], row["ending"]) for row in found(world)]


def endings(world: World) -> list[tuple[str, str]]:
    return [(row["task_id"], row["ending"]) for row in found(world)]


@pytest.fixture
def since(world: World) -> datetime:
    """A task whose room has been empty for 30 seconds; return since when."""
    world.app.start("t", "room", user_count=2, started_at=world.ago(60))
    world.advance(10)
    world.app.people("room", 0)
    world.advance(30)
    assert found(world) == []
    return world.ago(30)


# People return


def by_the_application(world: World) -> str:
    world.app.people("room", 3)
    return "app"


def by_polling(world: World) -> str:
    PollStore(world.engine).observe(APP, APP, {"room": Evidence(1, world.now, Source.API)})
    return "api"


def by_callback(world: World) -> str:
    room = RoomFact(APP, "room", "r1", created_at=world.ago(100))
    user = UserFact(APP, "room", "r1", "ann", "s1", login_at=world.now)
    CallbackStore(world.engine, "host/1", APP).receive([Presence(Facts(room, user), ())])
    return "callback"


@pytest.mark.parametrize("comes_back", [by_the_application, by_polling, by_callback])
def test_people_return(world: World, since: datetime, comes_back: Callable[[World], str]) -> None:
    world.app.change("t", max_idle_seconds=120, grace_seconds=50)
    source = comes_back(world)
    (spell,) = found(world)
    assert spell == {
        "id": spell["id"],
        "task_id": "t",
        "kind": "asr",
        "app_id": None,
        "room_id": "room",
        "started_at": world.ago(100),
        "last_occupied_at": world.ago(40),
        "max_idle_seconds": 120,
        "grace_seconds": 50,
        "empty_since": since,
        "ended_at": world.now,
        "ending": "returned",
        "evidence_source": source,
    }
    comes_back(world)
    assert len(found(world)) == 1


def test_a_room_in_which_nobody_was(world: World) -> None:
    world.app.start("t", "room", user_count=0, app_id=APP)
    world.advance(20)
    world.app.people("room", 1)
    (spell,) = found(world)
    assert (spell["last_occupied_at"], spell["app_id"], spell["empty_since"]) == (None, APP, world.ago(20))


def test_each_spell_of_a_task_has_a_row(world: World, since: datetime) -> None:
    expected = []
    for _ in range(3):
        world.app.people("room", 1)
        expected.append(("t", since, world.now, "returned"))
        world.advance(5)
        since = world.now
        world.app.people("room", 0)
        world.advance(5)
    assert written(world) == expected


def test_the_observation_may_be_some_seconds_old(world: World, since: datetime) -> None:
    world.app.people("room", 1, user_count_at=world.ago(7), user_count_source="callback")
    assert written(world) == [("t", since, world.ago(7), "returned")]
    assert found(world)[0]["evidence_source"] == "callback"


def test_an_observation_from_the_future_is_from_now(world: World, since: datetime) -> None:
    world.app.people("room", 1, user_count_at=world.ahead(60))
    assert written(world) == [("t", since, world.now, "returned")]


def test_a_clock_that_was_set_back_ends_no_spell_before_it_began(world: World, since: datetime) -> None:
    world.advance(-90)
    world.app.people("room", 1)
    assert world.task("t")["empty_since"] is None
    assert written(world) == [("t", since, since, "returned")]


def test_a_spell_without_length_gives_way_to_one_that_began_at_the_same_moment(world: World, since: datetime) -> None:
    world.app.people("room", 1)
    began = world.now
    for number in (0, 1, 0):
        world.app.people("room", number)
    world.advance(20)
    world.app.people("room", 1, user_count_source="api", user_count_at=world.now)
    assert written(world) == [("t", since, began, "returned"), ("t", began, world.now, "returned")]
    assert found(world)[-1]["evidence_source"] == "api"


# The count becomes unknown


def test_nobody_knows_any_more(world: World, since: datetime) -> None:
    world.app.people("room", None)
    assert written(world) == [("t", since, world.now, "unknown")]
    assert found(world)[0]["evidence_source"] == "app"


# The task ends


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (Outcome.STOPPED, "stopped"),
        (Outcome.STOPPED_EARLIER, "stopped"),
        (Outcome.AUTO_STOPPED, "auto_stopped"),
        (Outcome.GONE, "unknown"),
        (Outcome.REJECTED, "unknown"),
    ],
)
def test_the_daemon_records_an_answer(world: World, outcome: Outcome, ending: str) -> None:
    due(world)
    began = world.now
    attempt = send(world, take_one(world), Evidence(0, world.now, Source.API))
    world.advance(0.25)
    given = answer(world, attempt, outcome)
    world.ledger.record([given])
    world.ledger.record([given])
    assert written(world) == [("task", began, world.now, ending)]
    assert found(world)[0]["evidence_source"] == "api"


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.BLOCKED])
def test_an_answer_after_which_the_task_goes_on(world: World, outcome: Outcome) -> None:
    due(world)
    world.ledger.record([answer(world, send(world, take_one(world)), outcome)])
    assert found(world) == []


def test_a_callback_that_the_vendor_ended_it(world: World) -> None:
    empty(world)
    began = world.now
    world.advance(150)
    told = AutoStop(APP, "task", world.ago(1), 1202, "MaxIdleTime")
    store = CallbackStore(world.engine, "host/1", APP)
    for _ in range(2):
        store.receive([told])
    assert written(world) == [("task", began, world.ago(1), "auto_stopped")]


@pytest.mark.parametrize("status", ENDINGS)
def test_a_statement_ends_the_task(world: World, since: datetime, status: str) -> None:
    world.app.change("t", status=status)
    expected = [("t", since, world.now, ENDINGS[status])]
    assert written(world) == expected
    world.advance(1)
    world.app.change("t", status=status)
    world.app.change("t", status="released", user_count=1)
    assert written(world) == expected


def test_the_end_is_the_one_that_the_application_gives(world: World, since: datetime) -> None:
    world.app.change("t", status="released", ended_at=world.ago(12))
    assert written(world) == [("t", since, world.ago(12), "released")]


@pytest.mark.parametrize(("seconds", "counts"), [(-3600, -30), (3600, 0)])
def test_an_end_outside_the_spell(world: World, since: datetime, seconds: float, counts: float) -> None:
    world.app.change("t", status="released", ended_at=world.ahead(seconds))
    assert written(world) == [("t", since, world.ahead(counts), "released")]


def test_a_row_is_deleted(world: World, since: datetime) -> None:
    for _ in range(2):
        world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
    assert written(world) == [("t", since, world.now, "released")]


def test_an_ended_row_is_deleted(world: World, since: datetime) -> None:
    world.app.release("t")
    world.advance(9)
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
    assert written(world) == [("t", since, world.ago(9), "released")]


def test_people_return_in_the_statement_that_ends_the_task(world: World, since: datetime) -> None:
    world.app.change("t", user_count=1, status="released")
    assert written(world) == [("t", since, world.now, "returned")]


def test_the_count_becomes_null_in_the_statement_that_ends_the_task(world: World, since: datetime) -> None:
    world.app.change("t", user_count=None, status="stopped")
    assert written(world) == [("t", since, world.now, "stopped")]


def test_a_stale_hint_in_the_statement_that_ends_the_task(world: World, since: datetime) -> None:
    world.app.change("t", user_count=1, user_count_at=world.ago(60), status="failed")
    assert written(world) == [("t", since, world.now, "unknown")]


# What ends nothing


@pytest.mark.parametrize("people", [0, 1, None])
def test_a_stale_hint(world: World, since: datetime, people: int | None) -> None:
    world.app.people("room", people, user_count_at=world.ago(60))
    assert world.task("t")["empty_since"] == since
    assert found(world) == []


@pytest.mark.parametrize(
    "columns",
    [
        {"user_count": 0},
        {"user_count": 0, "user_count_source": "callback"},
        {"status": "active"},
        {"hold_until": None, "grace_seconds": 5},
        {"claimed_by": "host/1"},
        {"due_at": None, "wake_at": None, "auto_stop_at": None},
    ],
)
def test_what_leaves_the_room_empty(world: World, since: datetime, columns: Mapping[str, Any]) -> None:
    world.app.change("t", **columns)
    assert world.task("t")["empty_since"] == since
    assert found(world) == []


def test_a_task_in_whose_room_people_are(world: World) -> None:
    world.app.start("t", "room", user_count=1)
    world.app.people("room", 2)
    world.app.people("room", None)
    world.app.release("t")
    world.app.start("u", "room")
    world.app.execute("DELETE FROM zego_tasks")
    world.app.start("v", "room", user_count=0, status="released")
    world.app.change("v", status="stopped", user_count=1)
    world.app.execute("DELETE FROM zego_tasks")
    assert found(world) == []


# Whole rows, saved as they were some time ago


def save(world: World, before: Mapping[str, Any], **columns: Any) -> None:
    world.app.change("t", **{name: value for name, value in before.items() if name != "task_id"} | columns)


@pytest.fixture
def occupied(world: World) -> Mapping[str, Any]:
    """The row as it was while people were there; the room has been empty since."""
    world.app.start("t", "room", user_count=2)
    row = world.task("t")
    world.advance(10)
    world.app.people("room", 0)
    world.advance(10)
    return row


def test_a_whole_row_with_an_old_hint_ends_nothing(world: World, occupied: Mapping[str, Any]) -> None:
    save(world, occupied)
    assert world.task("t")["empty_since"] == world.ago(10)
    assert found(world) == []


@pytest.mark.parametrize("given", [None, -3.0])
def test_a_whole_row_with_a_hint_that_counts(world: World, occupied: Mapping[str, Any], given: float | None) -> None:
    at = None if given is None else world.ahead(given)
    save(world, occupied, user_count_at=at, room_id="other")
    row = world.task("t")
    assert (row["empty_since"], row["room_id"]) == (None, "other")
    assert written(world) == [("t", world.ago(10), at or world.now, "returned")]
    (spell,) = found(world)
    # The room that was empty; and when people were there before, whatever the save says.
    assert (spell["room_id"], spell["last_occupied_at"], spell["evidence_source"]) == ("room", world.ago(20), "app")


@pytest.mark.parametrize("status", ENDINGS)
def test_a_whole_row_ends_the_task(world: World, occupied: Mapping[str, Any], status: str) -> None:
    save(world, occupied, status=status)
    assert written(world) == [("t", world.ago(10), world.now, ENDINGS[status])]


def test_a_whole_row_of_a_task_that_has_ended(world: World, since: datetime) -> None:
    before = world.task("t")
    world.app.change("t", status="stopped")
    expected = written(world)
    for columns in ({}, {"user_count": 1, "user_count_at": None}, {"status": "failed"}):
        world.advance(1)
        save(world, before, **columns)
        assert written(world) == expected == [("t", since, expected[0][2], "stopped")]


# Statements that are repeated


INSERT = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('t', 'room', ?)"
UPSERT = f"{INSERT} ON CONFLICT (task_id) DO UPDATE SET user_count = excluded.user_count, room_id = excluded.room_id"
REPLACE = INSERT.replace("INSERT", "INSERT OR REPLACE")


@pytest.fixture(params=["upsert", "replace"])
def repeated(request: pytest.FixtureRequest, world: World) -> str:
    """Return a statement that an application repeats; PostgreSQL has no REPLACE."""
    return REPLACE if request.param == "replace" and world.dialect == "sqlite" else UPSERT


def test_repeated_inserts(world: World, since: datetime, repeated: str) -> None:
    for _ in range(2):
        world.app.execute(repeated, 0)
        assert found(world) == []
        world.advance(1)
    world.app.execute(repeated, 2)
    assert written(world) == [("t", since, world.now, "returned")]
    (spell,) = found(world)
    assert spell["last_occupied_at"] == world.ago(42)
    world.app.execute(repeated, 2)
    world.app.execute(repeated, 0)
    assert len(found(world)) == 1


def test_an_insert_that_does_nothing(world: World, since: datetime) -> None:
    del since
    world.app.execute(f"{INSERT} ON CONFLICT DO NOTHING", 3)
    assert found(world) == []
    # What SQLite's triggers copied then is of no meaning later.
    world.app.execute("DELETE FROM zego_tasks")
    assert endings(world) == [("t", "released")]


@on_sqlite
class TestReplace:
    """What only SQLite has."""

    @pytest.mark.parametrize("status", ENDINGS)
    def test_it_ends_the_task(self, world: World, since: datetime, status: str) -> None:
        for _ in range(2):
            world.app.execute(f"REPLACE INTO zego_tasks (task_id, room_id, status) VALUES ('t', 'room', '{status}')")
        assert written(world) == [("t", since, world.now, ENDINGS[status])]

    def test_of_a_stale_hint(self, world: World, since: datetime) -> None:
        more = "(task_id, room_id, user_count, user_count_at) VALUES ('t', 'room', 4, ?)"
        world.app.execute(f"REPLACE INTO zego_tasks {more}", world.ago(60))
        assert world.task("t")["empty_since"] == since
        assert found(world) == []
        world.app.execute(f"REPLACE INTO zego_tasks {more}", world.ago(1))
        assert written(world) == [("t", since, world.ago(1), "returned")]

    def test_of_all_rows_by_themselves(self, world: World, since: datetime) -> None:
        del since
        world.app.start("u", "room", user_count=0)
        world.app.execute("REPLACE INTO zego_tasks SELECT * FROM zego_tasks")
        assert found(world) == []

    @pytest.mark.parametrize("word", ["IGNORE", "REPLACE", "FAIL", "ABORT", "ROLLBACK"])
    def test_the_words_of_updates(self, world: World, since: datetime, word: str) -> None:
        """They overrule what a trigger says about conflicts."""
        world.app.execute(f"UPDATE OR {word} zego_tasks SET user_count = 1")
        world.app.execute(
            "INSERT INTO zego_empty_spells (task_id, kind, room_id, started_at, empty_since, ended_at, ending)"
            " VALUES ('t', 'asr', 'room', ?, ?, ?, 'unknown')",
            *[world.now.strftime("%Y-%m-%d %H:%M:%S.%f")] * 3,
        )
        world.app.execute(f"UPDATE OR {word} zego_tasks SET user_count = 0")
        assert world.app.execute(f"UPDATE OR {word} zego_tasks SET status = 'released'") == 1
        assert endings(world) == [("t", "returned"), ("t", "released")]
        assert found(world)[0]["empty_since"] == since


# Discovered rows


@pytest.fixture
def discovered(world: World) -> datetime:
    """A row that the daemon inserted, in whose room nobody has been for 30 seconds; return since when."""
    columns = {"max_idle_seconds": 120, "started_at": world.ago(60), "app_id": APP, "discovered_at": world.now}
    world.app.start("t", "room", user_count=1, user_count_source="callback", **columns)
    world.advance(1)
    world.app.people("room", 0, user_count_source="callback", user_count_at=world.now)
    world.advance(30)
    return world.ago(30)


def taken_over(world: World, **columns: Any) -> None:
    """In a statement with two other rows, of which one is discovered and empty too."""
    world.app.start("s", "room of s", user_count=0, discovered_at=world.now)
    names = ("task_id", "room_id", *columns)
    marks = ", ".join("?" * len(columns))
    rows = ", ".join(f"('{task}', 'room'{', ' if marks else ''}{marks})" for task in ("u", "t", "s"))
    world.app.execute(f"INSERT INTO zego_tasks ({', '.join(names)}) VALUES {rows}", *(list(columns.values()) * 3))


@pytest.mark.parametrize("columns", [{}, {"user_count": 0}, {"user_count": 1, "user_count_at": "old"}])
def test_the_spell_of_a_row_that_is_taken_over_goes_on(
    world: World, discovered: datetime, columns: Mapping[str, Any]
) -> None:
    taken_over(world, **{name: world.ago(90) if value == "old" else value for name, value in columns.items()})
    assert world.task("t")["empty_since"] == discovered
    assert found(world) == []
    world.advance(5)
    world.app.people("room", 1)
    assert ("t", discovered, world.now, "returned") in written(world)


def test_it_is_taken_over_with_people(world: World, discovered: datetime) -> None:
    taken_over(world, user_count=2)
    assert written(world) == [("t", discovered, world.now, "returned"), ("s", world.now, world.now, "returned")]
    spell = found(world)[0]
    assert (spell["last_occupied_at"], spell["evidence_source"]) == (world.ago(31), "app")
    # The application's columns win, and a limit that it does not give stays.
    assert (spell["app_id"], spell["started_at"], spell["max_idle_seconds"]) == (None, world.now, 120)


@pytest.mark.parametrize("status", ENDINGS)
def test_it_is_taken_over_as_ended(world: World, discovered: datetime, status: str) -> None:
    taken_over(world, status=status)
    assert written(world) == [
        ("t", discovered, world.now, ENDINGS[status]),
        ("s", world.now, world.now, ENDINGS[status]),
    ]
    assert found(world)[0]["evidence_source"] == "callback"


def test_it_is_taken_over_deleted_and_inserted_again(world: World, discovered: datetime) -> None:
    """In one transaction, in which PostgreSQL's triggers remember what was taken over."""
    world.app.execute("BEGIN")
    world.app.start("t", "room")
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
    world.app.start("t", "room", user_count=1)
    world.app.execute("COMMIT")
    assert written(world) == [("t", discovered, world.now, "released")]


@pytest.mark.parametrize("conflict", ["NOTHING", "UPDATE SET max_idle_seconds = 90"])
def test_it_is_taken_over_and_registered_again_in_one_transaction(
    world: World, discovered: datetime, conflict: str
) -> None:
    world.app.execute("BEGIN")
    for _ in range(2):
        statement = (
            f"INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room') ON CONFLICT (task_id) DO {conflict}"
        )
        world.app.execute(statement)
    world.app.execute("COMMIT")
    assert (world.task("t")["empty_since"], found(world)) == (discovered, [])


def test_who_says_that_an_ended_row_was_empty(world: World, discovered: datetime) -> None:
    world.app.start("t", "room", user_count=0, status="released")
    assert written(world) == [("t", discovered, world.now, "released")]
    assert found(world)[0]["evidence_source"] == "app"


def test_it_is_taken_over_after_its_end(world: World, discovered: datetime) -> None:
    world.app.change("t", status="stopped")
    taken_over(world, user_count=1)
    assert ("t", discovered, world.now, "stopped") in written(world)
    assert [task for task, _ in endings(world)].count("t") == 1


# By chance


_numbers = count()
steps = st.one_of(
    st.tuples(st.just("hint"), st.sampled_from([0, 0, 1, None]), st.sampled_from([None, -40.0, -5.0, 0.0, 30.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.125, 1.0, 40.0]), st.none()),
    st.tuples(st.just("save"), st.sampled_from([0, 1, None, "as it was"]), st.sampled_from([None, -5.0])),
    st.tuples(st.just("repeat"), st.sampled_from([0, 2, None]), st.none()),
    st.tuples(st.just("end"), st.sampled_from(sorted(ENDINGS)), st.none()),
    st.tuples(st.just("delete"), st.none(), st.none()),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(steps, min_size=1, max_size=14))
def test_any_sequence_leaves_one_row_for_each_spell(world: World, sequence: list[tuple[str, Any, Any]]) -> None:
    """What is seen of ``empty_since`` between the statements is what is on record."""
    task = f"task-{next(_numbers)}"
    world.app.start(task, task, user_count=1)
    first = before = world.task(task)
    expected: list[tuple[datetime, datetime, str]] = []
    for what, value, seconds in sequence:
        at = None if seconds is None else world.ahead(seconds)
        match what:
            case "wait":
                world.advance(value)
            case "hint":
                world.app.people(task, value, user_count_at=at)
            case "save" if value == "as it was":
                world.app.change(task, **{name: first[name] for name in first if name != "task_id"})
            case "save":
                columns = {**first} | {"user_count": value, "user_count_at": at}
                world.app.change(task, **{name: columns[name] for name in columns if name != "task_id"})
            case "repeat":
                statement = REPLACE if world.dialect == "sqlite" else UPSERT
                world.app.execute(statement.replace("'t', 'room'", f"'{task}', '{task}'"), value)
            case "end":
                world.app.change(task, status=value)
            case _:
                world.app.execute("DELETE FROM zego_tasks WHERE task_id = ?", task)
        expected += ended(before, after := row_of(world, task), world.now)
        if after is None:
            break
        before = after
    # Of those that began at the same moment, the last one.
    of_each = {since: (task, since, end, ending) for since, end, ending in expected}
    assert sorted(spell for spell in written(world) if spell[0] == task) == sorted(of_each.values())


def row_of(world: World, task: str) -> Mapping[str, Any] | None:
    rows = world.app.rows("SELECT 1 FROM zego_tasks WHERE task_id = ?", task)
    return world.task(task) if rows else None


def ended(
    before: Mapping[str, Any], after: Mapping[str, Any] | None, now: datetime
) -> list[tuple[datetime, datetime, str]]:
    """Return the spell that has ended between two looks at a row, if one has."""
    since = before["empty_since"]
    if since is None or before["status"] != "active":
        return []
    if after is None:
        return [(since, now, "released")]
    if after["status"] == "active" and after["empty_since"] is not None:
        assert after["empty_since"] == since
        return []
    if after["empty_since"] is None and after["user_count"]:
        return [(since, max(since, after["user_count_at"]), "returned")]
    if after["status"] != "active":
        return [(since, after["ended_at"], ENDINGS[after["status"]])]
    return [(since, max(since, after["user_count_at"]), "unknown")]


# Where the tables are


def test_the_schema_may_have_any_name_also_another_later(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Odd, schema"')
        engine = open_engine(f'{postgresql_url}&options=-csearch_path%3D"Odd\\, schema"'.replace(" ", "%5C%20"))
        schema.migrate(engine)
        engine.dispose()
        for name in ('"Odd, schema"', "renamed"):
            table = f"{name}.zego_tasks"
            connection.execute(f"INSERT INTO {table} (task_id, room_id, user_count) VALUES ('{len(name)}', 'room', 0)")
            connection.execute(f"UPDATE {table} SET user_count = 1")
            if name != "renamed":
                connection.execute(f"ALTER SCHEMA {name} RENAME TO renamed")
        found = connection.execute("SELECT task_id FROM renamed.zego_empty_spells ORDER BY id").fetchall()
        assert found == [("13",), ("7",)]


def test_no_statement_of_the_application_fails_for_want_of_the_index(world: World, since: datetime) -> None:
    del since
    world.app.execute("DROP INDEX zego_empty_spells_task")
    try:
        world.app.people("room", 1)
        world.app.execute("DELETE FROM zego_tasks")
    finally:
        world.app.execute("CREATE UNIQUE INDEX zego_empty_spells_task ON zego_empty_spells (task_id, empty_since)")
    assert endings(world) == [("t", "returned")]


def test_a_hint_builds_no_table_to_check_a_constraint(sqlite_world: World) -> None:
    """``IN`` with three values or more does so at each hint, which costs as much as the row of a spell."""
    hint = "UPDATE zego_tasks SET user_count = 1, user_count_source = 'app' WHERE task_id = 't' AND status = 'active'"
    operations = [row["opcode"] for row in sqlite_world.app.rows(f"EXPLAIN {hint}")]
    assert "Program" in operations, "the triggers are in it"
    assert "OpenEphemeral" not in operations


def test_the_constraints_still_refuse_what_is_not_known(world: World, since: datetime) -> None:
    del since
    world.app.people("room", 1)
    for statement in (
        "UPDATE zego_tasks SET user_count = 1, user_count_source = 'nobody'",
        "UPDATE zego_empty_spells SET ending = 'nowhere'",
    ):
        with pytest.raises(
            (sqlite3.IntegrityError, psycopg.IntegrityError), match=r"zego_(user_count_source|ending)_known"
        ):
            world.app.execute(statement)
