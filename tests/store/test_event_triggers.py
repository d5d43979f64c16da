"""One event for each end, discovery and return, whoever writes it, and none for anything else."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.store_steps import APP, answer, aside, due, empty, plan, send, take_one
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Source
from watchdog.core.presence import Facts, RoomFact, UserFact
from watchdog.store import schema
from watchdog.store.attempts import Ledger
from watchdog.store.callbacks import AutoStop, CallbackStore, Presence, Speech
from watchdog.store.engine import open_engine, reading
from watchdog.store.events import EventStore
from watchdog.store.polling import PollStore
from watchdog.store.tables import events

ENDS = ("stopped", "gone", "auto_stopped", "failed")
TYPES = (*(f"task.{status}" for status in ENDS), "task.discovered", "task.would_stop", "room.rejoined")


# SQLite's own statements.
on_sqlite = pytest.mark.parametrize("every_world", ["sqlite", "sqlite with recursive triggers"], indirect=True)


@pytest.fixture
def world(every_world: World) -> World:
    EventStore(every_world.engine, "host/1").choose(dict.fromkeys(TYPES, True))
    return every_world


def written(world: World) -> list[tuple[str, str]]:
    return [(row["type"], row["task_id"]) for row in found(world)]


def found(world: World) -> list[Mapping[str, Any]]:
    with reading(world.engine) as connection:
        return [row._asdict() for row in connection.execute(sa.select(events).order_by(events.c.id))]


def data(world: World) -> Mapping[str, Any]:
    """Return the details of the only event."""
    (event,) = found(world)
    assert isinstance(event["data"], dict)
    return event["data"]


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


# What ends a task


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.STOPPED, "stopped"),
        (Outcome.STOPPED_EARLIER, "stopped"),
        (Outcome.GONE, "gone"),
        (Outcome.AUTO_STOPPED, "auto_stopped"),
        (Outcome.REJECTED, "failed"),
    ],
)
def test_the_daemon_records_an_answer(world: World, outcome: Outcome, status: str) -> None:
    started = world.now
    empty(world, started_at=started)
    world.advance(45)
    plan(world, due=0, auto_stop=105)
    attempt = send(world, take_one(world))
    world.advance(0.25)
    given = answer(world, attempt, outcome)
    world.ledger.record([given])
    world.ledger.record([given])
    (event,) = found(world)
    assert {name: event[name] for name in ("type", "task_id", "kind", "app_id", "room_id", "attempts")} == {
        "type": f"task.{status}",
        "task_id": "task",
        "kind": "asr",
        "app_id": APP,
        "room_id": "task",
        "attempts": 0,
    }
    assert event["occurred_at"] == event["wake_at"] == world.now
    assert event["handled_at"] is event["delivered_at"] is event["claimed_by"] is event["error"] is None
    assert event["data"] == {
        "task_id": "task",
        "kind": "asr",
        "app_id": APP,
        "room_id": "task",
        "status": status,
        "reason": "empty_room",
        "outcome": outcome,
        "attempt": 1,
        "code": "0",
        "request_id": "003151527792559699732",
        "http_status": 200,
        "started_at": iso(started),
        "empty_since": iso(started),
        "due_at": iso(world.ago(0.25)),
        "auto_stop_at": iso(world.ahead(104.75)),
        "ended_at": iso(world.now),
    }


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.BLOCKED])
def test_an_answer_after_which_the_task_goes_on(world: World, outcome: Outcome) -> None:
    due(world)
    world.ledger.record([answer(world, send(world, take_one(world)), outcome)])
    assert written(world) == []


def test_a_replayed_answer(world: World) -> None:
    due(world)
    stopped = answer(world, send(world, take_one(world)), Outcome.STOPPED)
    world.ledger.replay([stopped])
    world.ledger.replay([stopped])
    assert written(world) == [("task.stopped", "task")]
    assert data(world)["outcome"] == "stopped"


def test_an_answer_that_comes_after_the_reaper(world: World) -> None:
    due(world)
    attempt = send(world, take_one(world))
    world.advance(60)
    assert len(world.ledger.reap(30)) == 1
    assert written(world) == []
    world.ledger.record([answer(world, attempt, Outcome.STOPPED)])
    assert written(world) == [("task.stopped", "task")]


def test_a_late_answer_after_another_daemons(world: World) -> None:
    due(world)
    first = send(world, take_one(world))
    world.advance(60)
    second = send(world, take_one(world))
    world.ledger.record([answer(world, second, Outcome.STOPPED_EARLIER)])
    world.ledger.record([answer(world, first, Outcome.STOPPED)])
    assert written(world) == [("task.stopped", "task")]
    assert data(world)["outcome"] == "stopped_earlier"


def test_a_callback_that_the_vendor_ended_it(world: World) -> None:
    empty(world)
    world.advance(150)
    store = CallbackStore(world.engine, "host/1", APP)
    told = AutoStop(APP, "task", world.ago(1), 1202, "MaxIdleTime")
    for _ in range(2):
        store.receive([told])
    assert written(world) == [("task.auto_stopped", "task")]
    details = data(world)
    assert (details["outcome"], details["code"], details["app_id"]) == ("auto_stopped", "1202", APP)
    assert details["ended_at"] == iso(world.ago(1))


@pytest.mark.parametrize("status", ENDS)
def test_an_operators_statement(world: World, status: str) -> None:
    world.app.start("t")
    world.app.change("t", status=status)
    world.app.change("t", status=status)
    assert written(world) == [(f"task.{status}", "t")]
    assert data(world)["reason"] is data(world)["outcome"] is None


def test_what_the_application_does_itself(world: World) -> None:
    world.app.start("released")
    world.app.release("released")
    world.app.start("deleted")
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 'deleted'")
    world.app.start("born stopped", status="stopped")
    assert written(world) == []


# What does not end it again


@pytest.fixture
def ended(world: World) -> Mapping[str, Any]:
    """A row as it was while its task was active; the task has been stopped since."""
    world.app.start("t", "room", user_count=0)
    row = world.task("t")
    world.advance(10)
    world.app.change("t", status="stopped")
    assert written(world) == [("task.stopped", "t")]
    return row


@pytest.mark.parametrize("status", ["active", *ENDS, "released"])
def test_a_whole_row_is_saved_as_it_was(world: World, ended: Mapping[str, Any], status: str) -> None:
    world.app.change("t", **{name: value for name, value in ended.items() if name != "task_id"} | {"status": status})
    world.app.change("t", status=status, user_count=3)
    assert world.task("t")["status"] == "stopped"
    assert written(world) == [("task.stopped", "t")]


@pytest.mark.parametrize(
    "then",
    [
        "DO NOTHING",
        "DO UPDATE SET status = 'active', room_id = excluded.room_id",
        "DO UPDATE SET status = 'failed'",
    ],
)
def test_an_upsert(world: World, ended: Mapping[str, Any], then: str) -> None:
    del ended
    world.app.execute(f"INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room') ON CONFLICT (task_id) {then}")
    assert world.task("t")["status"] == "stopped"
    assert written(world) == [("task.stopped", "t")]


@on_sqlite
@pytest.mark.parametrize(
    "columns", [{}, {"status": "active"}, {"status": "failed"}, {"status": "stopped", "user_count": 2}]
)
def test_sqlites_replace(world: World, ended: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    del ended
    names = ", ".join(("task_id", "room_id", *columns))
    marks = ", ".join("?" * (2 + len(columns)))
    for _ in range(2):
        world.app.execute(
            f"INSERT OR REPLACE INTO zego_tasks ({names}) VALUES ({marks})", "t", "room", *columns.values()
        )
    assert world.task("t")["status"] == "stopped"
    assert written(world) == [("task.stopped", "t")]


@on_sqlite
def test_sqlites_replace_ends_an_active_task(world: World) -> None:
    world.app.start("t", "room")
    for _ in range(2):
        world.app.execute(
            "INSERT OR REPLACE INTO zego_tasks (task_id, room_id, status) VALUES ('t', 'room', 'stopped')"
        )
    assert written(world) == [("task.stopped", "t")]
    # An upsert leaves what it replaced for the triggers to see.
    world.app.start("u", "room")
    upsert = "ON CONFLICT (task_id) DO UPDATE SET room_id = excluded.room_id"
    world.app.execute(f"INSERT INTO zego_tasks (task_id, room_id) VALUES ('u', 'other') {upsert}")
    world.app.change("u", status="stopped")
    assert written(world) == [("task.stopped", "t"), ("task.stopped", "u")]


@on_sqlite
def test_sqlites_update_or_replace(world: World) -> None:
    world.app.start("a")
    world.app.start("b")
    world.app.change("b", status="stopped")
    world.app.execute("UPDATE OR REPLACE zego_tasks SET task_id = 'b' WHERE task_id = 'a'")
    assert world.task("b")["status"] == "active"
    assert written(world) == [("task.stopped", "b")]


def test_a_task_that_is_inserted_again_does_not_end_twice(world: World, ended: Mapping[str, Any]) -> None:
    del ended
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
    world.app.start("t")
    world.app.change("t", status="stopped")
    assert written(world) == [("task.stopped", "t")]


# Discovery


def speech(world: World) -> Speech:
    return Speech(APP, "room", "t", world.now, is_person=True, discover=True)


def discover(world: World) -> None:
    store = CallbackStore(world.engine, "host/1", APP)
    for _ in range(2):
        store.receive([speech(world)])


def test_a_discovered_task(world: World) -> None:
    discover(world)
    assert written(world) == [("task.discovered", "t")]
    details = data(world)
    assert (details["status"], details["room_id"], details["app_id"]) == ("active", "room", APP)
    assert details["started_at"] == iso(world.now)
    assert details["outcome"] is details["ended_at"] is details["due_at"] is None


def test_a_task_that_the_application_registered_is_not_discovered(world: World) -> None:
    world.app.start("t")
    discover(world)
    assert written(world) == []


def taken_over(world: World, status: str) -> None:
    world.app.execute(
        "INSERT INTO zego_tasks (task_id, room_id, status) VALUES ('u', 'room', 'active'), ('t', 'room', ?)", status
    )


@pytest.mark.parametrize("status", ["active", "released"])
def test_the_application_takes_it_over(world: World, status: str) -> None:
    discover(world)
    taken_over(world, status)
    assert world.task("t")["status"] == status
    world.app.change("t", status="stopped")
    ends = [("task.stopped", "t")] if status == "active" else []
    assert written(world) == [("task.discovered", "t"), *ends]


@pytest.mark.parametrize("status", ENDS)
def test_the_application_takes_it_over_as_ended(world: World, status: str) -> None:
    discover(world)
    taken_over(world, status)
    assert written(world) == [("task.discovered", "t"), (f"task.{status}", "t")]


@pytest.mark.parametrize("status", ["active", "failed"])
def test_the_application_takes_it_over_after_its_end(world: World, status: str) -> None:
    discover(world)
    world.app.change("t", status="stopped")
    taken_over(world, status)
    assert world.task("t")["status"] == "stopped"
    assert written(world) == [("task.discovered", "t"), ("task.stopped", "t")]


@on_sqlite
def test_sqlites_replace_of_a_whole_discovered_row(world: World) -> None:
    # It was discovered while events were off.
    store = EventStore(world.engine, "host/1")
    store.choose({})
    discover(world)
    store.choose({"task.discovered": True})
    row = dict(world.task("t"))
    marks = ", ".join("?" * len(row))
    world.app.execute(f"INSERT OR REPLACE INTO zego_tasks ({', '.join(row)}) VALUES ({marks})", *row.values())
    assert written(world) == []


# Observe mode


def test_a_stop_in_observe_mode(world: World) -> None:
    due(world)
    for _ in range(2):
        aside(world, take_one(world), Outcome.WOULD_STOP, wake=0.0)
    assert written(world) == [("task.would_stop", "task")]
    details = data(world)
    assert (details["status"], details["reason"], details["outcome"]) == ("active", "empty_room", "would_stop")
    assert details["due_at"] == iso(world.now)


@pytest.mark.parametrize("outcome", [Outcome.SPARED, Outcome.WITHHELD])
def test_no_stop(world: World, outcome: Outcome) -> None:
    due(world)
    aside(world, take_one(world), outcome)
    assert written(world) == []


# Returns


@pytest.fixture
def stopped(world: World) -> World:
    due(world, "task")
    ledger = Ledger(world.engine, "host/1", rejoin_watch_seconds=300)
    ledger.record([answer(world, send(world, take_one(world)), Outcome.STOPPED)])
    assert written(world) == [("task.stopped", "task")]
    return world


def by_polling(world: World) -> None:
    PollStore(world.engine).observe(APP, APP, {"task": Evidence(1, world.now, Source.API)})


def by_callback(world: World) -> None:
    room = RoomFact(APP, "task", "r1", first_seen_at=world.now)
    user = UserFact(APP, "task", "r1", "ann", "s1", login_at=world.now)
    CallbackStore(world.engine, "host/1", APP).receive([Presence(Facts(room, user), ())])


def by_speech(world: World) -> None:
    CallbackStore(world.engine, "host/1", APP).receive(
        [Speech(APP, "task", "other", world.now, is_person=True, discover=False)]
    )


@pytest.mark.parametrize("comes_back", [by_polling, by_callback, by_speech])
def test_people_come_back(stopped: World, comes_back: Callable[[World], None]) -> None:
    world = stopped
    for _ in range(2):
        world.advance(7.5)
        comes_back(world)
    assert written(world) == [("task.stopped", "task"), ("room.rejoined", "task")]
    event = found(world)[-1]
    assert event["data"] == {
        "task_id": "task",
        "kind": "asr",
        "app_id": APP,
        "room_id": "task",
        "stopped_at": iso(world.ago(15)),
        "rejoined_at": iso(world.ago(7.5)),
        "absent_seconds": 7.5,
    }


# The text


def test_any_text_becomes_json(world: World) -> None:
    room = 'a"b\\c\n\t\x01\x1f€😀' + "\x7f"
    world.app.start("t" + room * 60, room)
    world.app.change("t" + room * 60, status="failed")
    (row,) = world.app.rows("SELECT * FROM zego_events")
    details = json.loads(row["data"]) if isinstance(row["data"], str) else row["data"]
    assert details["room_id"] == row["room_id"] == room
    assert row["task_id"] == "t" + room * 60
    assert details["task_id"] == row["task_id"][:500]


def test_the_longest_texts_fit_into_a_webhook(world: World) -> None:
    task_id = "😀" * 600
    world.app.start(task_id, "room", user_count=1)
    world.app.people("room", 0)
    plan(world, task_id, due=0)
    attempt = send(world, take_one(world))
    given = answer(world, attempt, Outcome.REJECTED)
    endless = "\x01😀" * 1000
    world.ledger.record([replace(given, code=endless, request_id=endless)])
    assert len(json.dumps(data(world))) < 15_000


# Where the tables are


def test_the_schema_may_have_any_name_also_another_later(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Odd, schema"')
        engine = open_engine(f'{postgresql_url}&options=-csearch_path%3D"Odd\\, schema"'.replace(" ", "%5C%20"))
        schema.migrate(engine)
        EventStore(engine, "host/1").choose({"task.stopped": True})
        engine.dispose()
        for name in ('"Odd, schema"', "renamed"):
            table = f"{name}.zego_tasks"
            connection.execute(f"INSERT INTO {table} (task_id, room_id) VALUES ('{len(name)}', 'room')")
            connection.execute(f"UPDATE {table} SET status = 'stopped'")
            if name != "renamed":
                connection.execute(f"ALTER SCHEMA {name} RENAME TO renamed")
        found = connection.execute("SELECT task_id FROM renamed.zego_events ORDER BY id").fetchall()
        assert found == [("13",), ("7",)]
