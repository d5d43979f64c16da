"""Observe mode: what would be stopped is noted, and nothing is kept from a daemon that enforces."""

import pytest

from tests.support.bench import Bench, bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.timing import LEAD_SECONDS
from watchdog.store.records import Instance

OBSERVE = {"mode": "observe"}


async def look(it: Bench) -> None:
    await it.parts.sweeper.run_once()
    await it.parts.dry_run.drain()


async def test_an_observer_takes_no_task_from_a_daemon_that_enforces(postgresql_world: World) -> None:
    world = postgresql_world
    async with bench(world, policy=OBSERVE) as observing, bench(world) as enforcing:
        for number in range(9):
            await empty_room(enforcing, f"t{number}", f"room{number}")
        world.advance(45)
        for first in (observing, enforcing) * 3:
            await first.sweep()
        assert {world.task(f"t{number}")["status"] for number in range(9)} == {"stopped"}
        assert observing.vendor.stops == []
        assert sorted(enforcing.vendor.stops) == [f"t{number}" for number in range(9)]
        assert {world.history(f"t{number}")["outcome"] for number in range(9)} == {"stopped"}


async def test_a_row_is_left_as_it_is(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it)
        world.advance(45)
        before = world.task("t")
        await it.sweep()
        assert it.outcomes() == ["would_stop"]
        assert world.task("t") == before


async def test_noted_once_per_spell_and_asked_about_once(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it)
        for _ in range(5):
            await it.after(45)
        assert it.outcomes() == ["would_stop"]
        assert it.vendor.asked == [["room"]]
        world.app.people("room", 1)
        world.app.people("room", 0)
        await it.sweep()
        await it.after(45)
        assert it.outcomes() == ["would_stop", "would_stop"]


async def test_noted_no_earlier_than_it_would_be_stopped(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it)
        await it.after(45 - LEAD_SECONDS)
        assert it.outcomes() == []
        await it.after(LEAD_SECONDS)
        (row,) = world.attempts("t")
        assert (row["outcome"], row["due_at"]) == ("would_stop", world.now)


async def test_people_in_the_room_are_noted_and_the_hint_is_corrected(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it)
        it.vendor.people["room"] = 2
        await it.after(45)
        assert it.outcomes() == ["spared"]
        task = world.task("t")
        assert (task["user_count"], task["user_count_source"], task["due_at"]) == (2, "api", None)


async def test_without_an_answer_it_looks_again(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it)
        it.vendor.count_replies += [reply(206)]
        await it.after(45)
        assert it.outcomes() == ["withheld"]
        await it.after(10)
        assert it.outcomes() == ["withheld", "would_stop"]


async def test_a_refused_app_is_asked_about_by_one_task_at_a_time(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        for number in range(30):
            await empty_room(it, f"t{number}", f"room{number}")
        it.vendor.count_replies += [reply(100000005)] * 4
        for _ in range(10):
            await it.after(10)
        # Three calls before the first refusal, then one for each probe.
        assert len(it.vendor.asked) == 4
        for _ in range(6):
            await it.after(10)
        assert len(it.vendor.asked) == 4 + 1 + 3
        assert {world.attempts(f"t{number}")[-1]["outcome"] for number in range(30)} == {"would_stop"}


async def test_a_foreign_app_is_noted_once(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        await empty_room(it, app_id=99)
        await it.after(45)
        await it.after(70)
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "app_not_configured")]


async def test_every_due_task_is_looked_at(world: World) -> None:
    async with bench(world, policy=OBSERVE) as it:
        for number in range(250):
            world.app.start(f"t{number}", f"room{number}", user_count=2)
            world.app.people(f"room{number}", 0)
        await it.sweep()
        await it.after(45)
        noted = world.app.rows("SELECT DISTINCT task_id FROM zego_stop_attempts WHERE outcome = 'would_stop'")
        assert len(noted) == 250
        assert all(len(rooms) <= 10 for rooms in it.vendor.asked)


@pytest.mark.parametrize(("other", "plans"), [("enforce", False), ("observe", True)])
async def test_it_plans_only_where_no_daemon_enforces(world: World, other: str, *, plans: bool) -> None:
    async with bench(world, policy=OBSERVE) as it:
        world.heartbeats.beat(Instance("other", "host", 7, "0", other), 60, fresh=True)
        await it.parts.heartbeat.run_once()
        await empty_room(it)
        assert (world.task("t")["due_at"] is not None) == plans
