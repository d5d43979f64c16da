"""Sweeps: when a task is planned and claimed."""

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.timing import LEAD_SECONDS


async def test_a_late_plan_still_waits_until_emptiness_was_confirmed(world: World) -> None:
    world.app.start("t", "room", user_count=2)
    world.app.people("room", 0)
    world.advance(100)
    async with bench(world) as it:
        await it.sweep()
        assert it.vendor.asked == []
        await it.after(5)
        assert it.outcomes() == ["stopped"]


async def test_a_blocked_app_does_not_hide_when_the_next_task_is_due(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it, "refused", "refused")
        await empty_room(it, "other", "other", app_id=2, grace_seconds=48)
        it.vendor.stop_replies.append(reply(100000005))
        await it.after(45)
        world.advance(2)
        swept = await it.parts.sweeper.run_once()
        assert (swept.claimed, swept.due, swept.wake_seconds) == (0, True, 1 - LEAD_SECONDS / 2)
