"""Events as commands read them."""

from tests.support.time_travel import World
from watchdog.store.events import EventStore
from watchdog.store.reports.events import chosen_types, find_events
from watchdog.store.reports.tasks import biography


def test_newest_first_and_by_task_and_undelivered(world: World) -> None:
    EventStore(world.engine, "host/1").choose({"task.stopped": True})
    for task in ("a", "b", "c"):
        world.app.start(task)
        world.app.change(task, status="stopped")
    world.app.execute("UPDATE zego_events SET attempts = 3, wake_at = NULL WHERE task_id = 'b'")

    def names(**chosen: object) -> list[str]:
        now, rows = find_events(world.engine, **{"limit": 10, **chosen})  # type: ignore[arg-type] # options
        assert now == world.now
        return [row["task_id"] for row in rows]

    assert names() == ["c", "b", "a"]
    assert names(limit=2) == ["c", "b"]
    assert names(undelivered=True) == ["b"]
    assert names(task_id="a") == ["a"]
    assert names(task_id="a", undelivered=True) == []
    found = biography(world.engine, "a")
    assert found is not None
    assert [(event["type"], event["data"]["status"]) for event in found.events] == [("task.stopped", "stopped")]


def test_the_switch_as_it_is(world: World) -> None:
    assert chosen_types(world.engine) == {}
    EventStore(world.engine, "host/1").choose({"task.stopped": True, "task.failed": False})
    assert chosen_types(world.engine) == {"task.stopped": True, "task.failed": False}
