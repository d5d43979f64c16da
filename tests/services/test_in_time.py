"""When things happen: a stop at its due moment, a sweep when there is something to do, a turn before a slot."""

import asyncio
from datetime import datetime

import pytest

from tests.support.bench import bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.policy import COMMIT_LEAD_SECONDS, LEAD_SECONDS
from watchdog.services.sender import Held


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
            claim = world.store.claim_one("t", "me", lease_seconds=20)
            assert claim is not None
            await it.parts.stopper.work([Held(claim, 1, world.clock.monotonic() + 20, manual=True)])
            (row,) = world.attempts("t")
            assert row["sent_at"] == world.now < row["due_at"]

    @pytest.mark.parametrize("verify", ["required", "off"])
    async def test_people_who_come_back_in_that_moment_are_spared(self, world: World, verify: str) -> None:
        async with bench(world, policy={"verify": verify}) as it:
            await empty_room(it)
            world.advance(45 - LEAD_SECONDS)
            committed_at = world.ahead(LEAD_SECONDS - COMMIT_LEAD_SECONDS)

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
            it.vendor.before_count = lambda: it.parts.storage.synchronise(world.ago(3600))
            await it.parts.sweeper.run_once()
            await it.parts.stopper.drain()
            assert it.vendor.stops == []
            assert world.task("t")["claimed_by"] is None

    async def test_observed_no_earlier_either(self, world: World) -> None:
        async with bench(world, policy={"mode": "observe"}) as it:
            await empty_room(it)
            await it.after(45 - LEAD_SECONDS)
            (row,) = world.attempts("t")
            assert (row["outcome"], row["due_at"]) == ("would_stop", world.ahead(COMMIT_LEAD_SECONDS))


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
