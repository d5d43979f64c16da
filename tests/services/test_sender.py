"""What a request's outcome makes of a task: on both databases."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx2 as httpx
import pytest
import structlog

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Source
from watchdog.core.timing import LEAD_SECONDS


@pytest.mark.parametrize(
    ("code", "http_status", "outcome", "status", "wakes"),
    [
        (0, 200, "stopped", "stopped", False),
        ("0", 200, "stopped", "stopped", False),
        (410001002, 200, "gone", "gone", False),
        (410000001, 200, "retry", "active", True),
        (410000011, 200, "retry", "active", True),
        (206, 200, "retry", "active", True),
        (0, 500, "retry", "active", True),
        (99999, 200, "retry", "active", True),
        (410000003, 200, "rejected", "failed", False),
        (100000005, 200, "blocked", "active", True),
        (410000006, 200, "blocked", "active", True),
    ],
)
async def test_what_a_return_code_makes_of_a_task(
    world: World, code: object, http_status: int, outcome: str, status: str, *, wakes: bool
) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.stop_replies.append(reply(code, http_status))
        with structlog.testing.capture_logs() as logs:
            await it.after(45)
        (row,) = world.attempts("t")
        assert (row["outcome"], row["code"], row["http_status"]) == (outcome, str(code), http_status)
        task = world.task("t")
        assert task["status"] == status
        assert (task["wake_at"] is not None) == wakes
        assert task["claimed_by"] is None
        (event,) = [event for event in logs if event["event"] == outcome]
        assert (event["task_id"], event["room_id"], event["app_id"]) == ("t", "room", 1)
        assert (event["code"], event["request_id"]) == (str(code), "r" if code not in {0, "0"} else event["request_id"])


async def test_numbers_beyond_64_bits_are_stored_as_they_were_answered(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.stop_replies.append(
            httpx.Response(
                200, text='{"Code": 0, "Message": "Success", "RequestId": 340282366920938463463374607431768211456}'
            )
        )
        await it.after(45)
        assert world.attempts("t")[0]["request_id"] == "340282366920938463463374607431768211456"


async def test_a_lost_answer_is_unknown_and_the_next_request_finds_out(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.stop_replies += [httpx.ReadTimeout("no answer"), reply(410001002)]
        await it.after(45)
        assert it.outcomes() == ["unknown"]
        assert world.task("t")["status"] == "active"
        await it.after(1)
        assert it.outcomes() == ["unknown", "stopped_earlier"]
        assert world.task("t")["status"] == "stopped"


async def test_gone_after_auto_stop_is_a_miss(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        world.advance(150)
        it.vendor.stop_replies.append(reply(410001002))
        await it.sweep()
        assert it.outcomes() == ["auto_stopped"]
        assert world.task("t")["status"] == "auto_stopped"


async def test_a_request_that_never_left_is_tried_again(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.stop_replies += [httpx.ConnectError("refused"), reply(410001002)]
        await it.after(45)
        await it.after(1)
        assert it.outcomes() == ["retry", "gone"]
        assert [row["attempt"] for row in world.attempts("t")] == [1, 2]


async def test_retries_go_on_until_zego_itself_must_have_ended_the_task(world: World) -> None:
    async with bench(world, stop={"max_attempts": 3}) as it:
        await empty_room(it)
        it.vendor.stop_replies += [reply(410000001) for _ in range(99)]
        await it.after(45)
        while world.task("t")["status"] == "active":
            await it.after(5)
        assert world.now >= world.task("t")["auto_stop_at"]
        assert it.outcomes()[-1] == "rejected"
        assert set(it.outcomes()[:-1]) == {"retry"}
        assert world.attempts("t")[-1]["detail"].startswith("attempts exhausted")


async def test_an_expired_signature_teaches_the_offset_and_is_sent_again_at_once(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        world.clock.host_is_off_by = -900
        date = format_datetime(datetime.fromtimestamp(world.now.timestamp() + 45, UTC), usegmt=True)
        expired = reply(100000004)
        expired.headers["Date"] = date
        it.vendor.stop_replies.append(expired)
        await it.after(45)
        assert it.outcomes() == ["retry", "stopped"]
        assert it.vendor.timestamps[-1] == int(world.now.timestamp())


async def test_an_answer_after_the_lease_changes_the_ledger_but_not_anothers_task(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)

        def other_daemon_takes_over() -> None:
            world.advance(21)
            world.tasks.claim("other/1", limit=1, lease_seconds=20, default_app=1)

        it.vendor.before_stop = other_daemon_takes_over
        world.advance(45)
        await it.parts.sweeper.run_once()
        with structlog.testing.capture_logs() as logs:
            await it.parts.stopper.drain()
        assert it.outcomes() == ["stopped"], "unknown when the lease was taken over, and completed by its own answer"
        assert world.attempts("t")[0]["request_id"] == "request-1"
        assert (world.task("t")["status"], world.task("t")["claimed_by"]) == ("active", "other/1")
        assert "answer_came_after_lease" in {event["event"] for event in logs}


async def test_cut_short_it_records_unknown(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.gate.clear()
        world.advance(45)
        await it.parts.sweeper.run_once()
        await it.vendor.reached.wait()
        await it.parts.stopper.drain(0)
        assert it.outcomes() == ["unknown"]
        assert world.attempts("t")[0]["detail"] == "shut down before the answer came"


async def test_people_seen_after_the_commit_hold_back_the_request(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)

        def alice_is_seen(_now: datetime) -> None:
            if world.attempts("t") and not it.vendor.stops:
                it.parts.sightings.note(1, {"room": Evidence(1, world.now, Source.API)})

        world.clock.followed_by(alice_is_seen)
        await it.after(45 - LEAD_SECONDS)
        assert it.vendor.stops == []
        assert it.outcomes()[0] == "withheld"
        assert "people" in world.attempts("t")[0]["detail"]
        await it.after(30)
        assert it.vendor.stops == []
        assert it.outcomes() == ["withheld", "spared"]
