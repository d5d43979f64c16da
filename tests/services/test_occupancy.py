"""How the vendor is asked who is in the rooms: ten rooms a call, and in the background."""

import asyncio

import pytest

from simulation.virtual import VirtualClock, loop_seconds, run_virtual
from tests.support.bench import bench, reply
from tests.support.room_api import APP, Bench, Now
from tests.support.room_api import bench as room_bench
from tests.support.time_travel import World
from watchdog.services.occupancy import BACKGROUND_CALLS, Occupancy
from watchdog.zego.pacing import Pace


async def test_ten_rooms_a_call(world: World) -> None:
    async with bench(world) as it:
        for number in range(25):
            world.app.start(f"t{number}", f"room{number}", user_count=0)
        await it.sweep()
        await it.after(90)
        assert [len(rooms) for rooms in it.vendor.asked] == [10, 10, 5]
        assert len(it.vendor.stops) == 25


async def test_one_odd_room_does_not_cost_the_others_their_answer(world: World) -> None:
    async with bench(world) as it:
        for number in range(3):
            world.app.start(f"t{number}", f"room{number}", user_count=0)
        await it.sweep()
        it.vendor.count_replies += [reply(410000003), reply(410000003)]
        await it.after(90)
        assert [len(rooms) for rooms in it.vendor.asked] == [3, 1, 1, 1]
        assert it.vendor.stops == ["t1", "t2"]
        assert [row["detail"] for row in world.attempts("t0")] == ["unconfirmed"]


async def test_two_tasks_in_one_room_are_asked_about_once(world: World) -> None:
    async with bench(world) as it:
        world.app.start("a", "room", user_count=0)
        world.app.start("b", "room", user_count=0)
        await it.sweep()
        await it.after(90)
        assert it.vendor.asked == [["room"]]
        assert sorted(it.vendor.stops) == ["a", "b"]


async def test_a_vendor_that_hangs_holds_up_so_many_background_calls_and_no_verification() -> None:
    async with room_bench() as it:
        it.vendor.gate.clear()
        rooms = [f"room-{number}" for number in range(40 * 10)]
        polling = asyncio.create_task(it.occupancy.ask(APP, rooms, in_background=True))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - no time: lets the others have their turn
        assert it.vendor.counts == BACKGROUND_CALLS
        verifying = asyncio.create_task(it.occupancy.ask(APP, ["due"]))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - the same
        assert it.vendor.counts == BACKGROUND_CALLS + 1
        it.vendor.gate.set()
        assert len(await verifying) == 1
        assert len(await polling) == 400


def test_in_the_background_four_fifths_of_the_pace_are_used() -> None:
    async def scenario() -> None:
        it = Bench(())
        paces = [Pace[int](rate, clock=VirtualClock()) for rate in (10, 8)]
        occupancy = Occupancy(it.zego, paces[0], Now(it.clock), background=paces[1])  # type: ignore[arg-type] # its now()
        assert occupancy.background_rate(APP) == 8
        began = loop_seconds()
        await occupancy.ask(APP, [f"room-{number}" for number in range(41 * 10)], in_background=True)
        assert 40 / (loop_seconds() - began) == pytest.approx(8, rel=0.05)
        await it.zego.aclose()

    run_virtual(scenario())
