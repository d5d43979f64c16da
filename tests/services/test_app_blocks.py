"""AppIds that ZEGO refuses: left alone, probed, served again."""

import structlog

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World


async def test_a_blocked_app_is_left_alone_then_probed_with_one_task(world: World) -> None:
    async with bench(world) as it:
        for number in range(5):
            await empty_room(it, f"t{number}", f"room{number}")
        await empty_room(it, "other", "other", app_id=2, grace_seconds=50)
        it.vendor.stop_replies += [reply(100000005) for _ in range(6)]
        with structlog.testing.capture_logs() as logs:
            await it.after(45)
        assert len(it.vendor.stops) == 5
        assert [event["app_id"] for event in logs if event["event"] == "app_blocked"] == [1], (
            "said once, not five times"
        )

        it.vendor.stop_replies.clear()
        await it.after(10)
        assert it.vendor.stops[5:] == ["other"], "the other AppId is served, the refused one is not hammered"

        it.vendor.stop_replies.append(reply(100000005))
        await it.after(20)
        assert len(it.vendor.stops) == 7, "one probe"
        await it.after(10)
        assert len(it.vendor.stops) == 7

        await it.after(20)
        await it.sweep()
        assert {world.task(f"t{number}")["status"] for number in range(5)} == {"stopped"}


async def test_what_waits_for_its_turn_is_not_sent_to_an_app_that_is_blocked_by_then(world: World) -> None:
    async with bench(world, stop={"concurrency": 1}) as it:
        for number in range(4):
            await empty_room(it, f"t{number}", f"room{number}")
        it.vendor.stop_replies.append(reply(100000005))
        await it.after(45)
        assert len(it.vendor.stops) == 1
        await it.after(30)
        await it.sweep()
        assert {world.task(f"t{number}")["status"] for number in range(4)} == {"stopped"}


async def test_credentials_that_the_room_api_refuses_block_the_app(world: World) -> None:
    async with bench(world) as it:
        for number in range(25):
            await empty_room(it, f"t{number}", f"room{number}")
        it.vendor.count_replies += [reply(100000005) for _ in range(4)]
        with structlog.testing.capture_logs() as logs:
            await it.after(45)
            asked = len(it.vendor.asked)
            await it.after(10)
        assert [event["app_id"] for event in logs if event["event"] == "app_blocked"] == [1]
        assert len(it.vendor.asked) == asked <= 3, "left alone"

        await it.after(20)
        assert len(it.vendor.asked) == asked + 1, "one probe"
        it.vendor.people["room0"] = 1
        with structlog.testing.capture_logs() as logs:
            await it.after(30)
            await it.sweep()
        assert [event["event"] for event in logs if event["event"] == "app_unblocked"] == ["app_unblocked"]
        assert {world.task(f"t{number}")["status"] for number in range(1, 25)} == {"stopped"}


async def test_credentials_that_the_room_api_refuses_block_nothing_that_can_do_without(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}) as it:
        await empty_room(it)
        it.vendor.count_replies.append(reply(100000005))
        await it.after(45)
        assert it.outcomes() == ["stopped"]
