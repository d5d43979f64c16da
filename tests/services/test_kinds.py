"""Tasks of other kinds than ASR: on both databases, with the client, the pace and the blocks of the daemon."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx2 as httpx
import pytest

from tests.support.bench import SECRET, bench, empty_room, reply
from tests.support.time_travel import World
from watchdog.core.kinds import KINDS
from watchdog.core.model import ALL_KINDS, Api
from watchdog.store.records import claim_token

OTHERS = [name for name, kind in KINDS.items() if not kind.is_default]
WINDOWLESS = [name for name, kind in KINDS.items() if kind.window_seconds is None]
WITH_WINDOW = [name for name in OTHERS if name not in WINDOWLESS]


def history(world: World, task: str = "t") -> dict[str, object]:
    (row,) = world.app.rows("SELECT * FROM zego_stop_history WHERE task_id = ?", task)
    return dict(row)


@pytest.mark.parametrize("kind", OTHERS)
async def test_each_kind_is_stopped_by_its_own_request(world: World, kind: str) -> None:
    async with bench(world) as it:
        await empty_room(it, kind=kind)
        await it.after(45)
        of = KINDS[kind]
        assert it.vendor.actions == [(httpx.URL(of.url).host, of.action, of.id_field)]
        (row,) = world.attempts("t")
        assert (row["kind"], row["outcome"], row["reason"], row["code"]) == (kind, "stopped", "empty_room", "0")
        assert world.task("t")["status"] == "stopped"


@pytest.mark.parametrize("kind", WITH_WINDOW)
async def test_a_kind_has_its_own_window_and_margin(world: World, kind: str) -> None:
    async with bench(world) as it:
        await empty_room(it, kind=kind)
        row = world.task("t")
        window, due = {"agent": (120, 45), "recording": (30, 10)}[kind]
        assert row["auto_stop_at"] - row["empty_since"] == timedelta(seconds=window)
        assert row["due_at"] - row["empty_since"] == timedelta(seconds=due)
    policy = {"kinds": {kind: {"max_idle_seconds": 600, "grace_seconds": 70, "safety_margin_seconds": 30}}}
    async with bench(world, policy=policy) as it:
        await empty_room(it, "other", "other", kind=kind)
        await empty_room(it, "own", "own", kind=kind, max_idle_seconds=90)
        for task, window, due in (("other", 600, 70), ("own", 90, 60)):
            row = world.task(task)
            assert row["auto_stop_at"] - row["empty_since"] == timedelta(seconds=window)
            assert row["due_at"] - row["empty_since"] == timedelta(seconds=due)


@pytest.mark.parametrize("kind", WINDOWLESS)
async def test_what_never_ends_by_itself_cannot_be_missed(world: World, kind: str) -> None:
    async with bench(world) as it:
        await empty_room(it, kind=kind, max_idle_seconds=60)
        assert world.task("t")["auto_stop_at"] is None
        world.advance(7200)
        it.vendor.stop_replies.append(reply(next(iter(KINDS[kind].gone), 0)))
        await it.sweep()
        row = history(world)
        assert row["outcome"] in {"gone", "stopped"}
        assert (row["auto_stop_at"], row["seconds_before_auto_stop"]) == (None, None)
        await empty_room(it, "next", "next", kind=kind)
        await it.after(45)
        (saved,) = world.app.rows("SELECT * FROM zego_savings WHERE kind = ?", kind)
        stops = 2 if row["outcome"] == "stopped" else 1
        assert (saved["stops"], saved["no_auto_stop"], saved["missed"]) == (stops, stops, 0)
        assert (saved["slot_seconds_freed"], saved["seconds_before_auto_stop"]) == (0, None)


async def test_a_player_that_does_not_answer_and_is_then_unknown_stays_unknown(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it, kind="player")
        it.vendor.stop_replies += [httpx.ReadTimeout("no answer"), reply(350009999), reply(350009999), reply(0)]
        await it.after(45)
        for _ in range(3):
            await it.after(10)
        assert it.outcomes() == ["unknown", "unknown", "unknown", "stopped"]
        assert [row["code"] for row in world.attempts("t")] == [None, "350009999", "350009999", "0"]


async def test_what_cannot_be_stopped_is_given_up_after_a_day(world: World) -> None:
    async with bench(world, stop={"max_attempts": 3}) as it:
        await empty_room(it, kind="digital_human")
        it.vendor.stop_replies += [reply(400010000) for _ in range(10)]
        await it.after(45)
        for _ in range(4):
            await it.after(60)
        assert world.task("t")["status"] == "active", "an outage does not last a day"
        await it.after(86_400)
        assert (world.task("t")["status"], it.outcomes()[-1]) == ("failed", "rejected")


async def test_an_api_that_refuses_the_app_blocks_only_its_own_tasks(world: World) -> None:
    async with bench(world) as it:
        for number in range(3):
            await empty_room(it, f"agent{number}", f"agent{number}", kind="agent")
        it.vendor.refusals["DeleteAgentInstance"] = reply(100000005)
        await it.after(45)
        assert it.parts.blocks.blocked() == {Api(1, "agent")}
        stopped_before = len(it.vendor.stops)
        await empty_room(it, "asr", "asr")
        await empty_room(it, "recording", "recording", kind="recording")
        await it.after(45)
        assert sorted(it.vendor.stops[stopped_before:])[1:] == ["asr", "recording"], "beside one probe of an agent"
        it.vendor.refusals.clear()
        await it.after(60)
        await it.sweep()
        assert {row["status"] for row in world.app.rows("SELECT status FROM zego_tasks")} == {"stopped"}


async def test_the_room_api_blocks_all_kinds(world: World) -> None:
    async with bench(world) as it:
        await empty_room(it, "asr", "asr")
        await empty_room(it, "agent", "agent", kind="agent")
        it.vendor.refusal = reply(100000005)
        await it.after(45)
        assert it.parts.blocks.blocked() == {Api(1, ALL_KINDS)}
        assert it.vendor.stops == []
        it.vendor.refusal = None
        await it.after(60)
        await it.sweep()
        assert sorted(it.vendor.stops) == ["agent", "asr"]
        assert it.parts.blocks.blocked() == set()


async def test_requests_in_flight_at_one_api_take_no_slots_from_another(world: World) -> None:
    async with bench(world, stop={"concurrency": 2}) as it, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(it.parts.workload.slot(Api(1, "agent")))
        async with asyncio.timeout(10):
            async with it.parts.workload.slot(Api(1, "asr")):
                assert it.parts.workload._requests["agent"].locked(), "a third agent would wait"
                assert not it.parts.workload._requests["asr"].locked()


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_backlog_of_one_kind_does_not_keep_another_waiting(world: World, *, is_known: bool) -> None:
    apps = [{"app_id": 1, "server_secret": SECRET}]
    async with bench(world, zego={"apps": apps}, stop={"requests_per_second": 10}) as it:
        if is_known:
            await empty_room(it, "first", "first", kind="player")
            await it.after(60)
        for number in range(300):
            world.app.start(f"asr{number}", f"room{number}", user_count=2)
            world.app.people(f"room{number}", 0)
        world.app.start("player", "its room", user_count=2, kind="player")
        world.app.people("its room", 0)
        it.vendor.gate.clear()
        await it.parts.sweeper.run_once()
        world.advance(60)
        await it.parts.sweeper.run_once()
        assert world.task("player")["claimed_by"] is not None
        it.vendor.gate.set()
        await it.parts.stopper.drain(0)


async def test_a_kind_that_is_not_used_does_not_narrow_what_is_claimed(world: World) -> None:
    async with bench(world, stop={"requests_per_second": 1000, "occupancy_requests_per_second": 0}) as it:
        before, _ = it.parts.workload.capacity()
        await empty_room(it, kind="agent")
        await it.after(45)
        assert it.parts.workload.capacity()[0] < before, "an agent's ten a second, now that there are agents"


@pytest.mark.parametrize("kind", OTHERS)
def test_a_program_that_does_not_know_kinds_claims_none_of_them(world: World, kind: str) -> None:
    world.app.start("asr", "room", user_count=0)
    world.app.start("other", "room", user_count=0, kind=kind)
    world.app.execute("UPDATE zego_tasks SET due_at = ?, wake_at = ?", world.now, world.now)

    def claimed(token: str) -> list[str]:
        _, claims = world.tasks.claim(token, limit=10, lease_seconds=20, default_app=1)
        return [claim.task.task_id for claim in claims]

    assert claimed("old-program-1/1") == ["asr"]
    assert claimed(claim_token("new-program-1", 1)) == ["other"]
    assert world.task("other")["claimed_by"] == "new-program-1/1+"


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_may_have_a_shorter_window(world: World, kind: str) -> None:
    world.app.start("t", kind=kind, max_idle_seconds=5)
    world.app.execute("UPDATE zego_tasks SET max_idle_seconds = 10")
    with pytest.raises(Exception, match="zego_max_idle_seconds_at_least_30"):
        world.app.start("speech", max_idle_seconds=10)


@pytest.mark.parametrize("kind", WINDOWLESS)
async def test_an_auto_stop_that_an_older_program_planned_does_not_count(world: World, kind: str) -> None:
    async with bench(world) as it:
        await empty_room(it, kind=kind)
        world.app.execute("UPDATE zego_tasks SET auto_stop_at = ?", world.now)
        await it.after(45)
        assert world.attempts("t")[-1]["auto_stop_at"] is None
        (saved,) = world.app.rows("SELECT * FROM zego_savings WHERE kind = ?", kind)
        assert (saved["no_auto_stop"], saved["missed"]) == (1, 0)


def test_only_known_kinds_are_registered(world: World) -> None:
    with pytest.raises(Exception, match="zego_kind_known"):
        world.app.start("t", kind="mix")
    with pytest.raises(Exception, match="zego_bot_user_id_not_empty"):
        world.app.start("t", kind="agent", bot_user_id="")


@pytest.mark.parametrize("kind", WINDOWLESS)
async def test_a_plan_that_takes_the_task_for_one_of_asr_makes_no_auto_stop(world: World, kind: str) -> None:
    """A program from before the kinds plans every row, and a row's kind may be corrected after its plan."""
    async with bench(world) as it:
        await empty_room(it)
        world.app.change("t", kind=kind)
        assert world.task("t")["auto_stop_at"] is not None
        it.vendor.refusals[KINDS[kind].action] = reply(next(iter(sorted(KINDS[kind].transient))))
        for _ in range(30):
            await it.after(15)
        assert world.task("t")["attempts"] > 20
        assert world.task("t")["status"] == "active"
        assert {row["auto_stop_at"] for row in world.attempts("t")} == {None}
