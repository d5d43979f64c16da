"""What ``status`` counts."""

from tests.support.store_steps import planned, tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome, Status
from watchdog.store.events import EventStore
from watchdog.store.records import Delivery, EventCounts, Instance
from watchdog.store.reports.situation import BLOCKED_SECONDS, old_tasks, situation


def test_the_situation_counts_everything_once(world: World) -> None:
    world.app.start("full", "full")
    world.app.people("full", 2)
    world.app.start("unknown", "unknown")
    world.app.start("empty", "empty")
    world.app.people("empty", 0)
    emptied = world.now
    world.advance(5)
    world.app.start("emptied-later", "emptied-later")
    world.app.people("emptied-later", 0)
    planned(world)
    world.app.start("released", "released")
    world.app.release("released")
    tried(world, "yesterday", Outcome.AUTO_STOPPED)
    world.advance(25 * 3600)
    for outcome in (Outcome.STOPPED, Outcome.STOPPED, Outcome.SPARED, Outcome.SENT):
        tried(world, "task", outcome)
    world.heartbeats.beat(Instance("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)

    found = situation(world.engine)
    assert found.by_status == {**dict.fromkeys(Status, 0), Status.ACTIVE: 4, Status.RELEASED: 1}
    assert (found.occupied, found.empty, found.unknown) == (1, 2, 1)
    assert found.longest_empty_since == emptied
    assert found.next_task_id == "empty"
    assert found.next_due_at == world.task("empty")["due_at"]
    assert found.latest == {Outcome.STOPPED: 2, Outcome.SPARED: 1, Outcome.SENT: 1}
    # One task: its first stop counts.
    assert (found.savings.stops, found.savings.no_auto_stop) == (1, 1)
    assert found.in_flight == 1
    assert found.blocked_apps == []
    assert [one.alive for one in found.daemons] == [True]


def test_tasks_older_than_the_limit_are_counted_and_named(world: World) -> None:
    for hours in range(1, 9):
        world.app.start(f"t{hours}", "room", started_at=world.ago(3600 * hours))
    world.app.release("t8")
    assert situation(world.engine).too_old is None
    assert situation(world.engine, 2 * 3600).too_old == 6
    assert old_tasks(world.engine, 2 * 3600) == (6, ["t7", "t6", "t5", "t4", "t3"])
    assert old_tasks(world.engine, 7 * 3600 + 1) == (0, [])


def test_an_empty_database_is_a_situation_too(world: World) -> None:
    found = situation(world.engine)
    assert set(found.by_status.values()) == {0}
    assert (found.next_task_id, found.longest_empty_since, found.latest, found.daemons) == (None, None, {}, [])


def test_an_app_is_blocked_as_long_as_its_latest_request_says_so_and_is_recent(world: World) -> None:
    tried(world, "a", Outcome.BLOCKED, app_id=1)
    tried(world, "a", Outcome.BLOCKED, app_id=2)
    tried(world, "b", Outcome.STOPPED, app_id=2)
    tried(world, "c", Outcome.BLOCKED, app_id=3)
    tried(world, "d", Outcome.WITHHELD, app_id=3, attempt=None)
    assert situation(world.engine).blocked_apps == [1, 3]
    world.advance(BLOCKED_SECONDS + 1)
    assert situation(world.engine).blocked_apps == []


def test_an_app_is_blocked_even_if_another_api_accepts_it(world: World) -> None:
    tried(world, "a", Outcome.BLOCKED, app_id=1, kind="agent")
    tried(world, "b", Outcome.STOPPED, app_id=1)
    tried(world, "c", Outcome.BLOCKED, app_id=2, kind="player")
    tried(world, "d", Outcome.BLOCKED, app_id=2)
    assert situation(world.engine).blocked_apps == [1, 2]
    tried(world, "a", Outcome.STOPPED, app_id=1, kind="agent")
    assert situation(world.engine).blocked_apps == [2]


def test_events_are_counted_until_they_are_delivered(world: World) -> None:
    store = EventStore(world.engine, "host/1")
    store.choose({"task.stopped": True})
    for task in ("a", "b", "c"):
        world.app.start(task)
        world.app.change(task, status="stopped")
        world.advance(5)
    claimed, _ = store.claim(2, 30.0)
    store.conclude(
        [
            Delivery(claimed[0].id, delivered=True, error=None, wake_seconds=None),
            Delivery(claimed[1].id, delivered=False, error="400", wake_seconds=None),
        ]
    )
    assert situation(world.engine).events == EventCounts(world.now, 1, 1, world.ago(5))
