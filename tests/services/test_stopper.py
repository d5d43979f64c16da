"""What becomes of a task whose room is empty: sweeper and stopper on both databases."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx2
import pytest
import structlog

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.policy import LEAD_SECONDS


async def test_an_abandoned_task_is_verified_stopped_and_recorded(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        await it.after(45 - LEAD_SECONDS - 0.1)
        assert it.vendor.stops == []
        assert it.vendor.asked == []

        await it.after(0.2)

        assert it.vendor.asked == [["room"]]
        assert it.vendor.stops == ["t"]
        (row,) = world.attempts("t")
        assert row["outcome"] == "stopped"
        assert (row["code"], row["request_id"], row["http_status"]) == ("0", "request-1", 200)
        assert (row["attempt"], row["reason"], row["evidence_source"]) == (1, "empty_room", "api")
        assert row["sent_at"] == row["due_at"] == world.now
        task = world.task("t")
        assert (task["status"], task["claimed_by"], task["ended_at"]) == ("stopped", None, world.now)
        assert world.history("t")["seconds_before_auto_stop"] == 105


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
            httpx2.Response(
                200, text='{"Code": 0, "Message": "Success", "RequestId": 340282366920938463463374607431768211456}'
            )
        )
        await it.after(45)
        assert world.attempts("t")[0]["request_id"] == "340282366920938463463374607431768211456"


async def test_people_in_the_room_spare_the_task_until_they_leave(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.people["room"] = 3
        await it.after(45)
        assert it.vendor.stops == []
        (row,) = world.attempts("t")
        assert (row["outcome"], row["attempt"], row["sent_at"]) == ("spared", None, None)
        task = world.task("t")
        assert (task["user_count"], task["user_count_source"], task["empty_since"]) == (3, "api", None)

        it.vendor.people["room"] = 0
        world.app.people("room", 0)
        await it.sweep()
        await it.after(45)
        assert it.outcomes() == ["spared", "stopped"]


async def test_admins_are_not_people(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.admins["room"] = 2
        await it.after(45)
        assert it.outcomes() == ["stopped"]


@pytest.mark.parametrize(
    "broken",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        reply(206),
        httpx2.Response(502, text="<html>bad gateway</html>"),
        reply(0, Data={"UserCountList": []}),
        reply(0, Data={"UserCountList": [{"RoomId": "room", "UserCount": -1, "AdminUserCount": 0}]}),
    ],
    ids=["refused", "time-out", "throttled", "html", "room missing", "negative"],
)
async def test_without_the_vendors_word_nothing_is_sent_and_that_is_said_once(
    world: World, broken: httpx2.Response | Exception
) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.count_replies += [broken] * 3
        await it.after(45)
        await it.after(5)
        await it.after(5)
        assert it.vendor.stops == []
        (row,) = world.attempts("t")
        assert (row["outcome"], row["detail"]) == ("withheld", "unconfirmed" if no_answer(broken) else "no_evidence")

        await it.after(10)
        assert it.outcomes() == ["withheld", "stopped"]


def no_answer(broken: httpx2.Response | Exception) -> bool:
    return isinstance(broken, Exception) or broken.status_code != 200 or broken.json()["Code"] != 0


async def test_when_possible_takes_a_fresh_hint_for_an_answer_that_does_not_come(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}) as it:
        await empty_room(it, "fresh", "fresh")
        await empty_room(it, "stale", "stale", grace_seconds=60, max_idle_seconds=1800)
        world.app.change("stale", user_count_at=world.ago(400))
        it.vendor.count_replies += [httpx2.ConnectError("refused")] * 2
        await it.after(45)
        await it.after(15)
        assert it.outcomes("fresh") == ["stopped"]
        assert world.attempts("fresh")[0]["evidence_source"] == "app"
        assert [(row["outcome"], row["detail"]) for row in world.attempts("stale")] == [("withheld", "stale_hint")]


async def test_when_possible_does_not_take_absence_for_emptiness(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}) as it:
        await empty_room(it)
        it.vendor.count_replies.append(reply(0, Data={"UserCountList": []}))
        await it.after(45)
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "no_evidence")]


async def test_verify_off_asks_nobody(world: World) -> None:
    async with bench(world, policy={"verify": "off"}) as it:
        await empty_room(it)
        it.vendor.people["room"] = 5
        await it.after(45)
        assert it.vendor.asked == []
        assert it.outcomes() == ["stopped"]


async def test_after_a_gap_a_hint_alone_is_not_enough(world: World) -> None:
    world.app.start("t", "room", user_count=2)
    world.app.people("room", 0)
    world.advance(100)
    async with bench(world, policy={"verify": "off"}) as it:
        await it.sweep()
        await it.after(10)
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "hint_before_gap")]
        world.app.people("room", 0)
        await it.after(10)
        assert it.outcomes() == ["withheld", "stopped"]


async def test_a_late_plan_still_waits_until_emptiness_was_confirmed(world: World) -> None:
    world.app.start("t", "room", user_count=2)
    world.app.people("room", 0)
    world.advance(100)
    async with bench(world) as it:
        await it.sweep()
        assert it.vendor.asked == []
        await it.after(5)
        assert it.outcomes() == ["stopped"]


async def test_a_lost_answer_is_unknown_and_the_next_request_finds_out(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)
        it.vendor.stop_replies += [httpx2.ReadTimeout("no answer"), reply(410001002)]
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
        it.vendor.stop_replies += [httpx2.ConnectError("refused"), reply(410001002)]
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


@pytest.mark.parametrize("rate", [0.6, 1, 10, 50, 1000])
async def test_the_last_one_claimed_gets_its_turn_within_its_lease(world: World, rate: float) -> None:
    """Otherwise it is given back unsent, claimed again, is the last one again, and nothing is ever sent."""
    stop = {"requests_per_second": rate, "request_timeout_seconds": 8, "lease_seconds": 10.5, "concurrency": 1000}
    async with bench(world, stop=stop) as it:
        most, full = it.parts.stopper.capacity()
        assert 1 <= most <= max(1, rate * 2.5 / 2)
        assert full == set()


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


async def test_a_blocked_app_does_not_hide_when_the_next_task_is_due(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it, "refused", "refused")
        await empty_room(it, "other", "other", app_id=2, grace_seconds=48)
        it.vendor.stop_replies.append(reply(100000005))
        await it.after(45)
        world.advance(2)
        swept = await it.parts.sweeper.run_once()
        assert (swept.claimed, swept.due, swept.wake_seconds) == (0, True, 1 - LEAD_SECONDS / 2)


async def test_a_task_of_an_app_without_secret_is_withheld(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it, app_id=99)
        await it.after(45)
        assert it.vendor.stops == []
        assert it.vendor.asked == []
        assert [(row["outcome"], row["detail"]) for row in world.attempts("t")] == [("withheld", "app_not_configured")]


@pytest.mark.parametrize("what", ["people", "released", "held", "deleted", "unknown"])
async def test_what_the_application_writes_while_we_ask_wins(world: World, what: str) -> None:
    def meanwhile() -> None:
        match what:
            case "people":
                world.app.people("room", 1)
            case "released":
                world.app.release("t")
            case "held":
                world.app.change("t", hold_until=world.ahead(60))
            case "deleted":
                world.app.execute("DELETE FROM zego_tasks WHERE task_id = 't'")
            case "unknown":
                world.app.people("room", None)

    async with bench(world) as it:
        await empty_room(it)
        it.vendor.before_count = meanwhile
        await it.after(45)
        assert it.vendor.asked == [["room"]]
        assert it.vendor.stops == []
        assert it.outcomes() == []


async def test_a_stale_answer_is_asked_for_again_before_the_request(world: World) -> None:
    """People came while we waited for our turn: the first answer must not be acted upon."""

    def slow_once() -> None:
        it.vendor.before_count = lambda: it.vendor.people.update(room=1)
        world.advance(6)

    async with bench(world) as it:
        await empty_room(it)
        it.vendor.before_count = slow_once
        await it.after(45)
        assert len(it.vendor.asked) == 2
        assert it.vendor.stops == []
        assert it.outcomes() == ["spared"]


async def test_nothing_is_sent_on_a_lease_that_is_nearly_over(world: World) -> None:
    async with bench(world, policy={"verification_max_age_seconds": 30}) as it:
        await empty_room(it)
        it.vendor.before_count = lambda: world.advance(13)
        world.advance(45)
        await it.parts.sweeper.run_once()
        await it.parts.stopper.drain()
        assert it.vendor.asked == [["room"]]
        assert it.vendor.stops == []
        assert world.task("t")["claimed_by"] is None
        it.vendor.before_count = lambda: None
        await it.sweep()
        assert it.outcomes() == ["stopped"]


async def test_an_answer_after_the_lease_changes_the_ledger_but_not_anothers_task(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it)

        def other_daemon_takes_over() -> None:
            world.advance(21)
            world.store.claim("other/1", limit=1, lease_seconds=20, default_app=1)

        it.vendor.before_stop = other_daemon_takes_over
        world.advance(45)
        await it.parts.sweeper.run_once()
        with structlog.testing.capture_logs() as logs:
            await it.parts.stopper.drain()
        assert it.outcomes() == ["stopped"], "unknown when the lease was taken over, and completed by its own answer"
        assert world.attempts("t")[0]["request_id"] == "request-1"
        assert (world.task("t")["status"], world.task("t")["claimed_by"]) == ("active", "other/1")
        assert "answer_came_after_lease" in {event["event"] for event in logs}


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


async def test_observe_mode_notes_once_per_spell(world: World) -> None:
    async with bench(world, policy={"mode": "observe"}) as it:
        await empty_room(it)
        await it.after(45)
        await it.after(300)
        assert it.outcomes() == ["would_stop"]
        world.app.people("room", 1)
        world.app.people("room", 0)
        await it.sweep()
        await it.after(45)
        assert it.outcomes() == ["would_stop", "would_stop"]
        assert it.vendor.stops == []


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
