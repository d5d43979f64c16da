"""The users that tasks bring along, on both databases."""

import sqlalchemy as sa

from tests.store.test_query_plans import recorded, whole_tables
from tests.support.time_travel import World
from watchdog.store.bots import BotStore
from watchdog.store.engine import writing


def test_they_are_those_of_the_rooms_tasks(world: World) -> None:
    store = BotStore(world.engine, 1)
    world.app.start("asr", "room")
    assert (store.are_known(), store.of(1, "room")) == (False, [])
    world.app.start("a", "room", kind="agent", bot_user_id="helper")
    world.app.start("b", "room", kind="agent", bot_user_id="other", app_id=1)
    world.app.start("c", "room", kind="agent", bot_user_id="helper", app_id=1)
    world.app.start("d", "room", kind="agent", bot_user_id="of-another-app", app_id=2)
    world.app.start("e", "elsewhere", kind="agent", bot_user_id="of-another-room")
    assert store.are_known()
    assert sorted(store.of(1, "room")) == ["helper", "other"]
    assert store.of(2, "room") == ["of-another-app"]
    world.app.release("b")
    world.advance(59)
    assert sorted(store.of(1, "room")) == ["helper", "other"], "it may still be leaving"
    world.advance(2)
    assert store.of(1, "room") == ["helper"]
    assert BotStore(world.engine).of(1, "elsewhere") == [], "the AppId of a task without one is not known"


def test_no_statement_reads_all_tasks(world: World) -> None:
    rows = [{"task": f"t{number}", "room": f"r{number}"} for number in range(3000)]
    with writing(world.engine) as connection:
        connection.execute(sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES (:task, :room)"), rows)
    world.app.start("agent", "room", kind="agent", bot_user_id="helper")
    with writing(world.engine) as connection:
        connection.execute(sa.text("ANALYZE"))
    store = BotStore(world.engine, 1)
    with recorded(world.engine) as statements:
        assert (store.are_known(), store.of(1, "room")) == (True, ["helper"])
    assert len(statements) == 2
    for statement, parameters in statements:
        assert whole_tables(world.engine, statement, parameters) == set(), statement
