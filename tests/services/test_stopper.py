"""What becomes of a task whose room is empty: sweeper and stopper on both databases."""

from datetime import datetime

import pytest

from tests.support.bench import bench, empty_room
from tests.support.time_travel import World
from watchdog.core.timing import COMMIT_LEAD_SECONDS, LEAD_SECONDS, SHORTEST_COMMIT_LEAD_SECONDS
from watchdog.services.claims import Claimed


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


@pytest.mark.parametrize("seconds", [13, 25])
async def test_a_lease_that_ran_short_during_the_verification_is_renewed(world: World, seconds: float) -> None:
    """Given back, the task would be claimed again, and the next answer would come as late."""
    async with bench(world, policy={"verification_max_age_seconds": 30}) as it:
        await empty_room(it)
        it.vendor.before_count = lambda: world.advance(seconds)
        world.advance(45)
        await it.parts.sweeper.run_once()
        leases: list[datetime] = []
        it.vendor.before_stop = lambda: leases.append(world.task("t")["wake_at"])
        await it.parts.stopper.drain()
        assert it.vendor.asked == [["room"]]
        assert leases == [world.ahead(20)]
        assert it.outcomes() == ["stopped"]


async def test_nothing_is_sent_when_another_process_has_taken_over_the_lease(world: World) -> None:
    def another_takes_it() -> None:
        world.advance(25)
        assert world.tasks.claim_one("t", "another", lease_seconds=20) is not None

    async with bench(world, policy={"verification_max_age_seconds": 30}) as it:
        await empty_room(it)
        it.vendor.before_count = another_takes_it
        world.advance(45)
        await it.parts.sweeper.run_once()
        await it.parts.stopper.drain()
        assert it.vendor.stops == []
        assert it.outcomes() == []
        assert world.task("t")["claimed_by"] == "another"


class TestReadyInTime:
    """The vendor is asked a moment before a task is due, so that its request leaves when it is, and never earlier."""

    async def test_asked_before_and_stopped_at_the_due_moment(self, world: World) -> None:
        async with bench(world) as it:
            await empty_room(it)
            swept = await it.parts.sweeper.run_once()
            assert swept.wake_seconds == 45 - LEAD_SECONDS / 2
            await it.after(swept.wake_seconds)
            (row,) = world.attempts("t")
            assert row["outcome"] == "stopped"
            assert row["sent_at"] == row["due_at"] == world.now
            assert row["evidence_at"] == world.ago(LEAD_SECONDS / 2)

    async def test_committed_before_and_sent_at_the_due_moment(self, world: World) -> None:
        async with bench(world) as it:
            await empty_room(it)
            seen: list[tuple[int, int]] = []
            world.clock.followed_by(lambda _: seen.append((len(world.attempts("t")), len(it.vendor.stops))))
            requested: list[datetime] = []
            it.vendor.before_stop = lambda: requested.append(world.now)
            await it.after(45 - LEAD_SECONDS)
            (row,) = world.attempts("t")
            assert requested == [row["sent_at"]] == [row["due_at"]]
            assert (1, 0) in seen

    async def test_by_hand_there_is_no_moment_to_wait_for(self, world: World) -> None:
        async with bench(world) as it:
            await empty_room(it)
            world.advance(45 - COMMIT_LEAD_SECONDS / 2)
            claim = world.tasks.claim_one("t", "me", lease_seconds=20)
            assert claim is not None
            await it.parts.stopper.work(Claimed(claim, 1, world.clock.monotonic() + 20, manual=True))
            (row,) = world.attempts("t")
            assert row["sent_at"] == world.now < row["due_at"]

    @pytest.mark.parametrize("verify", ["required", "off"])
    async def test_people_who_come_back_in_that_moment_are_spared(self, world: World, verify: str) -> None:
        async with bench(world, policy={"verify": verify}) as it:
            await empty_room(it)
            world.advance(45 - LEAD_SECONDS)
            committed_at = world.ahead(LEAD_SECONDS - SHORTEST_COMMIT_LEAD_SECONDS)

            def come_back(now: datetime) -> None:
                if now == committed_at:
                    world.app.people("room", 1)

            world.clock.followed_by(come_back)
            await it.sweep()
            assert (it.vendor.stops, it.outcomes()) == ([], [])
            assert world.task("t")["status"] == "active"
            assert (it.vendor.asked == []) == (verify == "off")

    async def test_a_clock_set_back_in_that_moment_has_it_given_back(self, world: World) -> None:
        async with bench(world) as it:
            await empty_room(it)
            world.advance(45 - LEAD_SECONDS)
            it.vendor.before_count = lambda: it.parts.storage.clock.synchronise(world.ago(3600))
            await it.parts.sweeper.run_once()
            await it.parts.stopper.drain()
            assert it.vendor.stops == []
            assert world.task("t")["claimed_by"] is None
