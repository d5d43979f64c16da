"""What the page shows first agrees with ``status``, and reads no whole table."""

from tests.support.store_steps import due, empty, plan, tried
from tests.support.time_travel import World
from watchdog.core.model import Outcome
from watchdog.store.records import Instance
from watchdog.store.reports.glance import NEXT_LISTED, glance, lately
from watchdog.store.reports.situation import situation


def test_it_agrees_with_status(world: World) -> None:
    world.heartbeats.beat(Instance("host/1", "host", 1, "1.0", "enforce"), 60, fresh=True)
    for number in range(NEXT_LISTED + 2):
        empty(world, f"t{number}")
        plan(world, f"t{number}", due=30 + number)
    tried(world, "old", Outcome.STOPPED)
    world.advance(86_401)
    tried(world, "sent", Outcome.SENT)
    tried(world, "blocked", Outcome.BLOCKED)
    late = {"empty_since": world.ago(120), "evidence_at": world.now, "auto_stop_at": world.ahead(30)}
    tried(world, "missed", Outcome.AUTO_STOPPED, attempt=None, code="1202", **late)
    now, day, told = glance(world.engine), lately(world.engine), situation(world.engine)
    assert [task.task_id for task in now.upcoming] == [f"t{number}" for number in range(NEXT_LISTED)]
    assert (now.upcoming[0].task_id, now.upcoming[0].due_at) == (told.next_task_id, told.next_due_at)
    assert (now.now, now.daemons, now.in_flight) == (told.now, told.daemons, told.in_flight)
    assert now.in_flight == 1
    assert (now.blocked_apps, now.events) == (told.blocked_apps, told.events)
    assert now.blocked_apps == [12345]
    assert (day.outcomes, day.returns, day.windows) == (told.latest, told.returns, told.windows)
    assert day.outcomes == {Outcome.SENT: 1, Outcome.BLOCKED: 1, Outcome.AUTO_STOPPED: 1}
    assert day.windows is not None


def test_nothing_is_there(world: World) -> None:
    now, late = glance(world.engine), lately(world.engine)
    assert (now.daemons, now.upcoming, now.in_flight, now.blocked_apps) == ([], [], 0, [])
    assert (late.outcomes, late.windows) == ({}, None)


def test_a_claimed_task_is_still_listed(world: World) -> None:
    due(world, "task")
    world.tasks.claim("host/1/1", limit=1, lease_seconds=20, default_app=12345)
    assert [task.task_id for task in glance(world.engine).upcoming] == ["task"]
