"""The application's INSERT over a row that a callback discovered: it succeeds and wins, and nothing known is lost."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.store.callbacks import CallbackStore, Speech, _discover
from watchdog.store.engine import reading, writing
from watchdog.store.records import Intent
from watchdog.store.tables import deleted_tasks

APP, OTHER_APP = 1, 2
APPLICATIONS = ("room_id", "app_id", "max_idle_seconds", "grace_seconds", "hold_until", "started_at")


@pytest.fixture
def world(every_world: World) -> World:
    return every_world


def speech(world: World, task: str = "t", app_id: int = APP) -> Speech:
    return Speech(app_id, "room", task, world.now, is_person=True, discover=True)


def discover(world: World, task: str = "t", app_id: int = APP) -> None:
    (received,) = CallbackStore(world.engine, "host/1", APP).receive([speech(world, task, app_id)])
    assert received.discovered


def remembered(world: World) -> list[str]:
    with reading(world.engine) as connection:
        return list(connection.execute(sa.select(deleted_tasks.c.task_id)).scalars())


@pytest.mark.parametrize("app_id", [APP, OTHER_APP])
def test_the_insert_succeeds_and_its_columns_win(world: World, app_id: int) -> None:
    world.advance(10)
    discover(world, app_id=app_id)
    assert world.task("t")["discovered_at"] == world.now
    world.advance(5)
    columns = {"max_idle_seconds": 120, "grace_seconds": 7, "hold_until": world.ahead(60), "started_at": world.ago(20)}
    assert (
        world.app.execute(
            f"INSERT INTO zego_tasks (task_id, room_id, {', '.join(columns)}) VALUES ('t', 'theirs', ?, ?, ?, ?)",
            *columns.values(),
        )
        == 1
    )
    row = world.task("t")
    assert {name: row[name] for name in APPLICATIONS} == columns | {"room_id": "theirs", "app_id": None}
    assert (row["discovered_at"], row["status"]) == (None, "active")
    # What was heard is the newest that is known.
    assert (row["user_count"], row["user_count_at"], row["user_count_source"]) == (1, world.ago(5), "callback")
    assert row["last_occupied_at"] == row["vendor_occupied_at"] == world.ago(5)
    assert remembered(world) == []
    assert len(world.app.rows("SELECT 1 FROM zego_tasks")) == 1
    # From now on it is like any other.
    with pytest.raises(Exception, match=r"(?i)unique"):
        world.app.start("t")
    world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
    assert remembered(world) == ["t"]


@pytest.mark.parametrize(
    "rest",
    [
        "VALUES ('t', 'room', 3) ON CONFLICT (task_id) DO UPDATE SET user_count = excluded.user_count",
        "VALUES ('t', 'room', 3) ON CONFLICT DO NOTHING",
        "SELECT 't', 'room', 3",
        "VALUES ('t', 'room', 3), ('u', 'room', 3) RETURNING task_id",
    ],
)
def test_every_kind_of_insert_wins(world: World, rest: str) -> None:
    discover(world)
    world.advance(5)
    statement = f"INSERT INTO zego_tasks (task_id, room_id, user_count) {rest}"
    if "RETURNING" in rest:
        assert len(world.app.rows(statement)) == 2
    else:
        assert world.app.execute(statement) == 1
    row = world.task("t")
    assert (row["user_count"], row["user_count_at"], row["discovered_at"]) == (3, world.now, None)


def test_sqlites_own_kinds_of_insert_win_too(sqlite_world: World) -> None:
    world = sqlite_world
    for task, word in (("a", "REPLACE"), ("b", "IGNORE")):
        discover(world, task)
        statement = f"INSERT OR {word} INTO zego_tasks (task_id, room_id, user_count) VALUES (?, 'room', 3)"
        assert world.app.execute(statement, task) == 1
        assert world.task(task)["discovered_at"] is None
        assert world.task(task)["user_count"] == 3


_numbers = count()
hints = st.tuples(st.sampled_from([None, 0, 0, 2]), st.sampled_from([-30.0, -20.0, -10.0, 0.0]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(known=st.lists(hints, max_size=2), inserted=hints, claimed=st.booleans(), ended=st.booleans())
def test_it_comes_to_what_an_update_would_have_made(
    world: World,
    known: list[Any],
    inserted: Any,
    *,
    claimed: bool,
    ended: bool,
) -> None:
    world.advance(100)
    number = next(_numbers)
    tasks = f"t{number}", f"u{number}"
    for task in tasks:
        discover(world, task)
        world.advance(50)
        for people, seconds in known:
            world.app.change(task, user_count=people, user_count_at=world.ahead(seconds), user_count_source="callback")
        world.app.change(task, attempts=2, due_at=world.ahead(9), wake_at=world.ahead(9))
        if claimed:
            world.app.change(task, claimed_by="token", wake_at=world.ahead(20))
        if ended:
            world.app.change(task, status="stopped", ended_at=world.ago(1))
        world.advance(-50)
    world.advance(50)
    people, seconds = inserted
    values = {"user_count": people, "user_count_at": world.ahead(seconds), "user_count_source": "app"}
    world.app.start(tasks[0], "room", grace_seconds=5, **(values if people is not None else {}))
    world.app.change(tasks[1], grace_seconds=5, started_at=world.now, discovered_at=None, app_id=None)
    if people is not None:
        # As with an INSERT, an equal time is a time.
        if world.task(tasks[1])["user_count_at"] == world.ahead(seconds) and not ended:
            world.app.change(tasks[1], user_count_at=None)
        world.app.change(tasks[1], **values)
    found, expected = ({**world.task(task), "task_id": ""} for task in tasks)
    # An ended task's plan is of no use.
    plan = {"due_at": None, "auto_stop_at": None}
    assert found | plan == expected | plan


def test_a_request_in_flight_gets_its_answer(world: World) -> None:
    discover(world)
    world.advance(10)
    world.app.people("room", 0)
    now = world.now
    world.app.change("t", due_at=now, auto_stop_at=world.ahead(100), wake_at=now)
    _, (claim,) = world.tasks.claim("token", limit=1, lease_seconds=20, default_app=APP)
    evidence = Evidence(0, now, Source.API)
    (attempt,) = world.ledger.intend([Intent(claim, APP, Reason.EMPTY_ROOM, evidence, None)])
    assert attempt is not None
    world.app.start("t", "room")
    assert world.tasks.claim("other", limit=1, lease_seconds=20, default_app=APP)[1] == []
    assert world.ledger.record([attempt.answer(Outcome.STOPPED, replied_at=now)]) == [True]
    row = world.task("t")
    assert (row["status"], row["attempts"], row["claimed_by"]) == ("stopped", 1, None)


def test_what_has_ended_stays_so(world: World) -> None:
    discover(world)
    world.app.change("t", status="stopped")
    world.advance(10)
    world.app.start("t", "room", user_count=1)
    row = world.task("t")
    assert (row["status"], row["ended_at"]) == ("stopped", world.ago(10))


# Two connections at once


def test_an_insert_waits_for_a_discovery_that_is_under_way(postgresql_world: World) -> None:
    world = postgresql_world
    with ThreadPoolExecutor(1) as threads:
        with writing(world.engine) as connection:
            assert list(_discover(connection, [speech(world)])) == ["t"]
            inserting = threads.submit(world.app.start, "t", "theirs", grace_seconds=7)
            waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not connection.execute(waiting).scalar_one():
                assert not inserting.done()
        inserting.result()
    row = world.task("t")
    assert (row["room_id"], row["grace_seconds"], row["discovered_at"]) == ("theirs", 7, None)


@pytest.mark.parametrize("committed", [True, False])
def test_a_discovery_does_not_wait_for_an_insert_that_is_under_way(postgresql_world: World, committed: bool) -> None:  # noqa: FBT001 - its parameter
    world = postgresql_world
    store = CallbackStore(world.engine, "host/1", APP)
    world.app.execute("BEGIN")
    world.app.start("t", "theirs")
    assert not store.receive([speech(world)])[0].discovered
    world.app.execute("COMMIT" if committed else "ROLLBACK")
    assert store.receive([speech(world)])[0].discovered is not committed
    assert world.task("t")["room_id"] == ("theirs" if committed else "room")


def test_an_application_that_inserts_many_at_once_needs_few_locks(postgresql_world: World) -> None:
    world = postgresql_world
    world.app.execute("BEGIN")
    many = "SELECT n::text, 'room' FROM generate_series(1, 5000) AS n"
    world.app.execute(f"INSERT INTO zego_tasks (task_id, room_id) {many}")
    (found,) = world.app.rows("SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory'")
    assert found["locks"] <= 64
    world.app.execute("ROLLBACK")


def test_inserts_and_discoveries_of_the_same_tasks_never_fail(postgresql_world: World) -> None:
    world = postgresql_world
    application = world.connect()
    names = [f"t{number}" for number in range(150)]

    def insert() -> None:
        for name in names:
            application.start(name, "theirs")

    def hear() -> None:
        store = CallbackStore(world.another_store("host/2").engine, "host/2", APP)
        for name in names:
            store.receive([speech(world, name)])

    with ThreadPoolExecutor(2) as threads:
        for running in (threads.submit(insert), threads.submit(hear)):
            running.result()
    rows = world.app.rows("SELECT room_id, discovered_at FROM zego_tasks")
    assert [row for row in rows if row["room_id"] != "theirs" or row["discovered_at"] is not None] == []
    assert len(rows) == len(names)
