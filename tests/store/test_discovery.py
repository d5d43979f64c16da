"""Tasks that ZEGO lists are registered once, and none that the application has ended or deleted; on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.store.test_query_plans import recorded, whole_tables
from tests.support.time_travel import World
from watchdog.core.model import RunningTask
from watchdog.store.discovery import AdoptionStore
from watchdog.store.engine import writing

APP = 1


def running(world: World, task: str = "p", *, room: str = "room", ago: float | None = 3600) -> RunningTask:
    return RunningTask(task, "player", room, APP, None if ago is None else world.ago(ago))


@pytest.fixture
def store(world: World) -> AdoptionStore:
    return AdoptionStore(world.engine)


def test_a_task_without_a_row_is_registered_once(world: World, store: AdoptionStore) -> None:
    world.app.start("known", "elsewhere", kind="player")
    listed = [running(world), running(world, "known"), running(world, "p"), running(world, "unborn", ago=None)]
    assert [task.task_id for task in store.unknown(listed)] == ["p", "unborn"]
    assert world.app.rows("SELECT task_id FROM zego_tasks WHERE task_id = 'p'") == [], "to look changes nothing"
    assert [task.task_id for task in store.register(listed)] == ["p", "unborn"]
    row = world.task("p")
    assert {name: row[name] for name in ("kind", "room_id", "app_id", "status", "started_at", "discovered_at")} == {
        "kind": "player",
        "room_id": "room",
        "app_id": APP,
        "status": "active",
        "started_at": world.ago(3600),
        "discovered_at": world.now,
    }
    assert (row["user_count"], row["empty_since"], row["bot_user_id"]) == (None, None, None)
    assert world.task("unborn")["started_at"] == world.now
    assert (world.task("known")["room_id"], world.task("known")["discovered_at"]) == ("elsewhere", None)
    world.advance(60)
    assert store.register(listed) == store.unknown(listed) == []
    assert world.task("p")["discovered_at"] == world.ago(60)


def test_a_start_in_the_future_is_now(world: World, store: AdoptionStore) -> None:
    assert store.register([running(world, ago=-30)])
    assert world.task("p")["started_at"] == world.now


@pytest.mark.parametrize("end", ["released", "stopped", "deleted"])
def test_a_task_that_is_over_is_not_revived(world: World, store: AdoptionStore, end: str) -> None:
    world.app.start("p", "room", kind="player")
    if end == "deleted":
        world.app.execute("DELETE FROM zego_tasks WHERE task_id = 'p'")
    else:
        world.app.change("p", status=end)
    assert store.unknown([running(world)]) == store.register([running(world)]) == []
    assert world.app.rows("SELECT 1 FROM zego_tasks WHERE status = 'active'") == []


def test_the_applications_insert_takes_the_row_over(world: World, store: AdoptionStore) -> None:
    store.register([running(world)])
    world.advance(5)
    world.app.start("p", "theirs", kind="player", bot_user_id="player-1", grace_seconds=7)
    row = world.task("p")
    names = ("room_id", "app_id", "kind", "bot_user_id", "grace_seconds", "discovered_at")
    assert [row[name] for name in names] == ["theirs", None, "player", "player-1", 7, None]


def test_several_daemons_register_each_task_once(world: World) -> None:
    listed = [running(world, f"p{number}") for number in range(50)]
    stores = [AdoptionStore(world.another_store(f"host/{number}").engine) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        inserted = [task for tasks in threads.map(lambda store: store.register(listed), stores) for task in tasks]
    assert sorted(task.task_id for task in inserted) == sorted(task.task_id for task in listed)
    assert len(world.app.rows("SELECT 1 FROM zego_tasks")) == 50


def test_nothing_is_nothing(world: World, store: AdoptionStore) -> None:
    assert store.register([]) == store.unknown([]) == []
    assert world.app.rows("SELECT 1 FROM zego_tasks") == []


def test_no_statement_reads_all_tasks(world: World, store: AdoptionStore) -> None:
    rows = [{"task": f"t{number}"} for number in range(3000)]
    with writing(world.engine) as connection:
        connection.execute(sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES (:task, 'room')"), rows)
    with writing(world.engine) as connection:
        connection.execute(sa.text("ANALYZE"))
    with recorded(world.engine) as statements:
        store.unknown([running(world)])
    assert statements
    for statement, parameters in statements:
        assert whole_tables(world.engine, statement, parameters) == set(), statement
