"""How the vendor is asked who is in the rooms: ten rooms a call, and in the background."""

import asyncio

import pytest

from simulation.virtual import VirtualClock, loop_seconds, run_virtual
from tests.support.bench import bench, reply
from tests.support.room_api import APP, Bench, Now
from tests.support.room_api import bench as room_bench
from tests.support.time_travel import World
from watchdog.core.outcomes import ReplyClass
from watchdog.services.occupancy import BACKGROUND_CALLS, REFUSED_SECONDS, Occupancy
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
        assert [len(rooms) for rooms in it.vendor.asked] == [3, 1, 2]
        assert it.vendor.stops == ["t1", "t2"]
        assert [row["detail"] for row in world.attempts("t0")] == ["room_refused"]


async def test_two_tasks_in_one_room_are_asked_about_once(world: World) -> None:
    async with bench(world) as it:
        world.app.start("a", "room", user_count=0)
        world.app.start("b", "room", user_count=0)
        await it.sweep()
        await it.after(90)
        assert it.vendor.asked == [["room"]]
        assert sorted(it.vendor.stops) == ["a", "b"]


async def ask_all(occupancy: Occupancy, calls: int) -> int:
    """Ask about ten rooms a call in the background; return how many were answered."""
    rooms = [[f"room-{call}-{number}" for number in range(10)] for call in range(calls)]
    return sum(map(len, await asyncio.gather(*(occupancy.ask(APP, ten) for ten in rooms))))


async def test_a_vendor_that_hangs_holds_up_so_many_background_calls_and_no_verification() -> None:
    async with room_bench() as it:
        it.vendor.gate.clear()
        polling = asyncio.create_task(ask_all(it.occupancy, 40))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - no time: lets the others have their turn
        assert it.vendor.counts == BACKGROUND_CALLS
        verifying = asyncio.create_task(it.occupancy.verify(APP, "due", 0.0))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - the same
        assert it.vendor.counts == BACKGROUND_CALLS + 1
        it.vendor.gate.set()
        assert await verifying is not None
        assert await polling == 400


def test_in_the_background_four_fifths_of_the_pace_are_used() -> None:
    async def scenario() -> None:
        it = Bench(())
        paces = [Pace[int](rate, clock=VirtualClock()) for rate in (10, 8)]
        occupancy = Occupancy(it.zego, paces[0], Now(it.clock), VirtualClock(), background=paces[1])  # type: ignore[arg-type] # its now()
        assert occupancy.background_rate(APP) == 8
        began = loop_seconds()
        await ask_all(occupancy, 41)
        assert 40 / (loop_seconds() - began) == pytest.approx(8, rel=0.05)
        await it.zego.aclose()

    run_virtual(scenario())


def test_each_call_takes_the_ten_rooms_that_are_most_urgent_when_it_leaves() -> None:
    async def scenario() -> None:
        it = Bench(())
        occupancy = Occupancy(it.zego, Pace[int](2, clock=VirtualClock()), Now(it.clock), VirtualClock())  # type: ignore[arg-type] # its now()
        # The least urgent come first, one by one, as claims do.
        waiting = [asyncio.create_task(occupancy.verify(APP, f"room-{n:02}", 100.0 - n)) for n in range(40)]
        await asyncio.sleep(1.1)  # noqa: TID251 - virtual time
        urgent = asyncio.create_task(occupancy.verify(APP, "urgent", 0.0))
        given_up = waiting[0]
        given_up.cancel()
        assert await urgent is not None
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [len(rooms) for rooms in it.vendor.asked] == [10, 10, 10, 10]
        assert it.vendor.asked[0] == [f"room-{n:02}" for n in range(30, 40)]
        # After 1.1 s three calls of four have left; it goes with the next one.
        assert "urgent" in it.vendor.asked[3]
        assert all("room-00" not in rooms for rooms in it.vendor.asked)
        await it.zego.aclose()

    run_virtual(scenario())


async def test_a_background_call_waits_while_a_verification_does() -> None:
    async with room_bench() as it:
        it.vendor.gate.clear()
        verifying = [asyncio.create_task(it.occupancy.verify(APP, f"due-{n}", 0.0)) for n in range(3)]
        polling = asyncio.create_task(it.occupancy.ask(APP, ["background"]))
        for _ in range(50):
            await asyncio.sleep(0)  # noqa: TID251 - no time: lets the others have their turn
        it.vendor.gate.set()
        await asyncio.gather(*verifying, polling)
        assert it.vendor.asked == [["due-0", "due-1", "due-2"], ["background"]]


def test_a_slot_goes_to_a_verification_though_a_background_call_waited_for_it_first() -> None:
    """With calls of both kinds in turn, verifications came too late for their leases, one after another."""

    async def scenario() -> None:
        it = Bench(())
        occupancy = Occupancy(it.zego, Pace[int](0.2, clock=VirtualClock()), Now(it.clock), VirtualClock())  # type: ignore[arg-type] # its now()
        await occupancy.ask(APP, ["first"])
        polling = asyncio.create_task(occupancy.ask(APP, ["polled"]))
        await asyncio.sleep(1)  # noqa: TID251 - virtual time
        await occupancy.verify(APP, "due", 0.0)
        assert loop_seconds() < 6
        assert len(await polling) == 1
        given_up = asyncio.create_task(occupancy.ask(APP, ["given up"]))
        await asyncio.sleep(1)  # noqa: TID251 - the same
        given_up.cancel()
        await occupancy.verify(APP, "due", 0.0)
        assert it.vendor.asked == [["first"], ["due"], ["polled"], ["due"]]
        await it.zego.aclose()

    run_virtual(scenario())


async def test_a_room_that_is_refused_is_found_by_halves_and_left_alone_for_ten_minutes() -> None:
    async with room_bench() as it:
        it.vendor.refused = {"bad": reply(2)}
        rooms = [f"room-{n}" for n in range(9)] + ["bad"]
        assert sorted(await it.occupancy.ask(APP, rooms)) == rooms[:9]
        assert len(it.vendor.asked) <= 9
        assert it.occupancy.is_refused(APP, "bad")
        asked = len(it.vendor.asked)
        assert len(await it.occupancy.ask(APP, rooms)) == 9
        assert await it.occupancy.verify(APP, "bad", 0.0) is None
        assert len(it.vendor.asked) == asked + 1, "one call for the others, none for it"
        it.clock.advance(REFUSED_SECONDS)
        it.vendor.refused = {}
        assert await it.occupancy.verify(APP, "bad", 0.0) is not None


async def test_a_configuration_refusal_costs_two_requests_and_blocks_the_app() -> None:
    async with room_bench() as it:
        it.vendor.refused = {f"room-{n}": reply(100000002) for n in range(10)}
        assert await it.occupancy.ask(APP, list(it.vendor.refused)) == {}
        assert len(it.vendor.asked) == 2
        refusal = it.occupancy.refusal(APP)
        assert refusal is not None
        assert refusal[0] is ReplyClass.CONFIGURATION
        assert not it.occupancy.is_refused(APP, "room-0")
