"""How much is claimed at once, whose turn it is, and when another sweep is needed."""

import asyncio

import pytest
import structlog

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World


@pytest.mark.parametrize("rate", [0.6, 1, 10, 50, 1000])
async def test_the_last_one_claimed_gets_its_turn_within_its_lease(world: World, rate: float) -> None:
    """Otherwise it is given back unsent, claimed again, is the last one again, and nothing is ever sent."""
    stop = {"requests_per_second": rate, "request_timeout_seconds": 8, "lease_seconds": 10.5, "concurrency": 1000}
    async with bench(world, stop=stop) as it:
        most, full = it.parts.workload.capacity()
        assert 1 <= most <= max(1, rate * 2.5 / 2)
        assert full == set()


@pytest.mark.parametrize(("rate", "most"), [(0.5, 10), (2.5, 12), (10, 50)])
async def test_no_more_is_claimed_than_can_be_verified_within_the_lease(world: World, rate: float, most: int) -> None:
    stop = {
        "requests_per_second": 500,
        "occupancy_requests_per_second": rate,
        "request_timeout_seconds": 2,
        "lease_seconds": 5,
        "concurrency": 1000,
    }
    async with bench(world, stop=stop) as it:
        assert it.parts.workload.capacity()[0] == most
    async with bench(world, stop=stop, policy={"verify": "off"}) as it:
        assert it.parts.workload.capacity()[0] > most


async def test_an_app_that_is_slow_leaves_the_others_their_share(world: World) -> None:
    async with bench(world, stop={"requests_per_second": 10}) as it:
        for number in range(40):
            world.app.start(f"slow{number}", f"room{number}", user_count=2)
            world.app.people(f"room{number}", 0)
        await it.sweep()
        await empty_room(it, "other", "other", app_id=2)
        world.advance(60)
        await it.parts.sweeper.run_once()
        held = {world.task(f"slow{number}")["claimed_by"] for number in range(40)} - {None}
        assert held
        other = world.task("other")
        # By now it may even have been stopped.
        assert other["claimed_by"] or other["status"] == "stopped", "though its room was the last to become empty"
        await it.parts.stopper.drain()


async def test_more_due_tasks_than_can_be_verified_are_warned_of_once_a_minute(world: World) -> None:
    async with bench(world, stop={"occupancy_requests_per_second": 0.5}) as it:
        it.vendor.gate.clear()
        for number in range(40):
            await empty_room(it, f"t{number}", f"room{number}")
        world.advance(45)
        with structlog.testing.capture_logs() as logs:
            assert (await it.parts.sweeper.run_once()).claimed == 10
            assert logs == []
            for seconds in (6, 6, 60):
                world.advance(seconds)
                await it.parts.sweeper.run_once()
        warnings = [event for event in logs if event["event"] == "verification_overloaded"]
        # The clock of a real PostgreSQL goes on meanwhile.
        assert [event["waited_seconds"] for event in warnings] == [pytest.approx(6, abs=5), pytest.approx(72, abs=5)]
        assert (warnings[0]["app_id"], warnings[0]["rooms_per_second"], warnings[0]["at_a_time"]) == (1, 5, 10)
        assert "stop.occupancy_requests_per_second" in warnings[0]["next_step"]
        await it.parts.stopper.drain(0)


async def test_tasks_that_wait_for_the_pace_of_stops_are_no_overload_of_verification(world: World) -> None:
    async with bench(world, stop={"occupancy_requests_per_second": 100, "requests_per_second": 1}) as it:
        it.vendor.gate.clear()
        for number in range(40):
            await empty_room(it, f"t{number}", f"room{number}")
        world.advance(45)
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await it.parts.sweeper.run_once()
                world.advance(6)
        assert "verification_overloaded" not in {event["event"] for event in logs}
        await it.parts.stopper.drain(0)


class TestProgress:
    """Who sweeps is told when another sweep would find something to do, and not with every task that has ended."""

    @pytest.mark.parametrize(
        ("code", "people", "told"), [(0, 0, False), (410001002, 0, False), (410000001, 0, True), (0, 1, True)]
    )
    async def test_when_something_was_given_back(self, world: World, code: int, people: int, *, told: bool) -> None:
        progress: list[None] = []
        async with bench(world, on_progress=lambda: progress.append(None)) as it:
            await empty_room(it)
            it.vendor.people["room"] = people
            it.vendor.stop_replies.append(reply(code))
            await it.after(45)
            assert it.outcomes()
            assert bool(progress) == told

    @pytest.mark.parametrize(("code", "people", "ends"), [(0, 0, 1), (410001002, 0, 1), (410000001, 0, 0), (0, 1, 0)])
    async def test_each_end_of_a_task_is_told_to_who_delivers_its_event(
        self, world: World, code: int, people: int, ends: int
    ) -> None:
        ended: list[None] = []
        async with bench(world, on_end=lambda: ended.append(None)) as it:
            await empty_room(it)
            it.vendor.people["room"] = people
            it.vendor.stop_replies.append(reply(code))
            await it.after(45)
            assert it.outcomes()
            assert len(ended) == ends

    @pytest.mark.parametrize(("tasks", "told"), [(3, False), (6, True)])
    async def test_when_more_was_due_than_could_be_taken(self, world: World, tasks: int, *, told: bool) -> None:
        progress: list[None] = []
        async with bench(world, on_progress=lambda: progress.append(None), stop={"concurrency": 1}) as it:
            for number in range(tasks):
                await empty_room(it, f"t{number}", f"room{number}")
            world.advance(45)
            assert (await it.parts.sweeper.run_once()).claimed == min(tasks, 4)
            await it.parts.stopper.drain()
            await asyncio.sleep(0)  # noqa: TID251 - no time: whoever waits for a task is told before us
            assert bool(progress) == told

    async def test_when_an_app_is_served_again(self, world: World) -> None:
        progress: list[None] = []
        async with bench(world, on_progress=lambda: progress.append(None)) as it:
            for task in ("probe", "other"):
                await empty_room(it, task, task)
            it.vendor.stop_replies += [reply(100000005), reply(100000005)]
            await it.after(45)
            progress.clear()
            world.advance(61)
            await it.parts.sweeper.run_once()
            await it.parts.stopper.drain()
            assert len(it.vendor.stops) == 3
            assert progress


async def test_who_waits_for_its_turn_is_in_nobodys_way(sqlite_world: World) -> None:
    """On SQLite, for there the pace goes by the event loop's time: on PostgreSQL, in virtual time, nobody waits."""
    async with bench(sqlite_world, stop={"requests_per_second": 5, "concurrency": 1}) as it:
        for task, app_id in (("first", 1), ("second", 1), ("others", 2)):
            await empty_room(it, task, task, app_id=app_id)
        await it.after(45)
        assert it.vendor.stops.index("others") < it.vendor.stops.index("second")
