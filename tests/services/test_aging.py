"""The age limit in the services: who is reported, woken, stopped and spared, and how much work one step may be."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.bench import Bench, bench, configured, reply, value
from tests.support.time_travel import World
from watchdog.daemon.metrics import Metrics
from watchdog.services.aging import REMEMBERED, TOLD_AT_ONCE
from watchdog.store.records import Instance

HOUR = 3600
STOP = {"max_age_seconds": HOUR, "on_max_age": "stop"}
ALERT = {"max_age_seconds": HOUR}
SEEN = {"user_count": 2, "user_count_source": "callback"}
REGARDLESS = {"max_age_seconds": HOUR, "on_max_age": "stop_with_people_inside"}


def old(world: World, task_id: str = "t", room_id: str = "room", /, **columns: Any) -> None:
    """Start a task that reaches the limit now, and in whose room ZEGO has seen people."""
    world.app.start(task_id, room_id, started_at=world.ago(HOUR), **(SEEN | columns))


async def walk(it: Bench) -> int:
    """Walk once through all tasks; return how many were woken."""
    woken = 0
    while not (looked := await it.parts.aging.run_once()).is_complete:
        woken += looked.woken
    return woken + looked.woken


async def minute(it: Bench) -> None:
    """Let a minute pass: walk, and sweep what was woken."""
    it.world.advance(60)
    await walk(it)
    await it.sweep()


async def test_without_a_limit_nothing_is_read(world: World) -> None:
    old(world)
    metrics = Metrics()
    async with bench(world, metrics) as it:
        it.parts.storage.aging.store = None  # type: ignore[assignment]  # nobody may use it
        assert await walk(it) == 0
        assert await it.parts.aging.step() == 60
        assert value(metrics, "tasks_too_old") is None


@pytest.mark.parametrize("policy", [ALERT, STOP | {"mode": "observe"}, STOP, REGARDLESS])
async def test_old_tasks_are_counted_and_warned_of_once(world: World, policy: dict[str, Any]) -> None:
    old(world, hold_until="9999-12-31")
    world.app.start("new", "new", user_count=1)
    metrics = Metrics()
    async with bench(world, metrics, policy=policy) as it:
        with capture_logs() as logs:
            for _ in range(3):
                await minute(it)
        (line,) = (line for line in logs if line["event"] == "task_too_old")
        assert (line["task_id"], line["room_id"], line["age_seconds"]) == ("t", "room", HOUR + 60)
        assert line["log_level"] == "warning"
        assert value(metrics, "tasks_too_old") == 1
        world.app.release("t")
        await minute(it)
        assert value(metrics, "tasks_too_old") == 0


async def test_alert_stops_nothing(world: World) -> None:
    for number, people in enumerate((2, None)):
        old(world, f"t{number}", f"room{number}", user_count=people)
    async with bench(world, policy=ALERT) as it:
        for _ in range(6):
            await minute(it)
        assert (it.vendor.stops, it.vendor.asked) == ([], [])
        assert it.outcomes("t0") == it.outcomes("t1") == []


@pytest.mark.parametrize("hint", [2, None])
async def test_a_forgotten_task_is_stopped_although_its_hint_was_forgotten_too(world: World, hint: int | None) -> None:
    old(world)
    world.app.people("room", hint)
    async with bench(world, policy=STOP) as it:
        await minute(it)
        assert it.vendor.stops == ["t"]
        (row,) = world.attempts("t")
        assert (row["outcome"], row["reason"], row["evidence_source"]) == ("stopped", "max_age", "api")
        assert (row["due_at"], row["auto_stop_at"]) == (None, None)
        assert world.task("t")["status"] == "stopped"


async def test_people_spare_it_once_and_are_asked_about_every_five_minutes(world: World) -> None:
    old(world)
    async with bench(world, policy=STOP) as it:
        it.vendor.people["room"] = 2
        for _ in range(11):
            await minute(it)
        assert it.vendor.stops == []
        assert len(it.vendor.asked) == 3
        (row,) = world.attempts("t")
        assert (row["outcome"], row["reason"], row["detail"]) == ("spared", "max_age", "old_but_occupied")
        it.vendor.people["room"] = 0
        world.advance(300)
        await minute(it)
        assert it.outcomes() == ["spared", "stopped"]


async def test_without_an_answer_it_is_withheld(world: World) -> None:
    old(world, user_count=None)
    async with bench(world, policy=STOP) as it:
        it.vendor.refusal = reply(206)
        await minute(it)
        (row,) = world.attempts("t")
        assert (row["outcome"], row["reason"], row["detail"]) == ("withheld", "max_age", "no_evidence")
        assert (it.vendor.stops, world.task("t")["wake_at"]) == ([], None)


async def test_a_room_that_people_leave_has_no_grace(world: World) -> None:
    old(world)
    async with bench(world, policy=STOP) as it:
        it.vendor.people["room"] = 2
        await minute(it)
        it.vendor.people["room"] = 0
        world.advance(1)
        world.app.people("room", 0)
        await it.sweep()
        await it.after(5)
        assert it.outcomes() == ["spared", "stopped"]
        row = world.attempts("t")[-1]
        assert (row["reason"], row["due_at"]) == ("max_age", world.now)
        assert (row["auto_stop_at"] - row["empty_since"]).total_seconds() == 150


class TestWithPeopleInside:
    async def test_it_is_stopped(self, world: World) -> None:
        old(world)
        async with bench(world, policy=REGARDLESS) as it:
            it.vendor.people["room"] = 2
            await minute(it)
            assert (it.vendor.asked, it.vendor.stops) == ([["room"]], ["t"])
            (row,) = world.attempts("t")
            assert (row["outcome"], row["reason"]) == ("stopped", "max_age")
            assert world.app.rows("SELECT * FROM zego_rejoins") == []

    @pytest.mark.parametrize(("verify", "outcome"), [("required", "withheld"), ("when_possible", "stopped")])
    async def test_without_an_answer(self, world: World, verify: str, outcome: str) -> None:
        old(world)
        async with bench(world, policy=REGARDLESS | {"verify": verify}) as it:
            it.vendor.refusal = reply(206)
            await minute(it)
            assert it.outcomes() == [outcome]
            assert it.vendor.stops == (["t"] if outcome == "stopped" else [])

    async def test_a_hold_prevents_it(self, world: World) -> None:
        old(world, hold_until=world.ahead(600))
        async with bench(world, policy=REGARDLESS) as it:
            for _ in range(9):
                await minute(it)
            assert it.vendor.stops == []
            for _ in range(6):
                await minute(it)
            assert it.vendor.stops == ["t"]

    async def test_the_guard_limits_those_that_zego_has_not_confirmed(self, world: World) -> None:
        for number in range(8):
            old(world, f"t{number}", f"room{number}")
        policy = REGARDLESS | {"verify": "off"}
        async with bench(world, policy=policy, guard={"unverified_per_minute": 3}) as it:
            await minute(it)
            assert len(it.vendor.stops) == 3
            held = world.app.rows("SELECT reason, detail FROM zego_stop_attempts WHERE outcome = 'withheld'")
            assert [(row["reason"], row["detail"]) for row in held] == [("max_age", "guarded")] * 5


async def test_a_stop_that_failed_is_tried_again_in_the_next_walk(world: World) -> None:
    old(world)
    async with bench(world, policy=STOP) as it:
        it.vendor.stop_replies.append(reply(410000001))
        await minute(it)
        await minute(it)
        assert it.outcomes() == ["retry", "stopped"]


async def test_what_becomes_too_old_is_woken_at_once(world: World) -> None:
    async with bench(world, policy=STOP) as it:
        await minute(it)
        world.app.start("t", "room", started_at=world.ago(HOUR - 90), **SEEN)
        await minute(it)
        assert it.vendor.asked == []
        await minute(it)
        assert it.vendor.stops == ["t"]


async def test_a_new_limit_begins_a_new_walk(world: World) -> None:
    old(world)
    async with bench(world, policy=ALERT) as it:
        await minute(it)
        it.parts.adopt(configured(policy=STOP))
        await minute(it)
        assert it.vendor.stops == ["t"]
        it.parts.adopt(configured())
        await minute(it)
        assert it.parts.aging.too_old is None


class TestObserveMode:
    async def test_it_notes_what_it_would_stop(self, world: World) -> None:
        old(world)
        async with bench(world, policy=STOP | {"mode": "observe"}) as it:
            await minute(it)
            assert it.vendor.stops == []
            (row,) = world.attempts("t")
            assert (row["outcome"], row["reason"], row["detail"]) == ("would_stop", "max_age", "old_and_empty")
            await minute(it)
            assert it.outcomes() == ["would_stop"]

    async def test_it_wakes_nothing_for_others(self, world: World) -> None:
        old(world)
        async with bench(world, policy=STOP | {"mode": "observe"}) as it:
            world.heartbeats.beat(Instance("other", "host", 7, "0", "enforce"), 60, fresh=True)
            await it.parts.heartbeat.run_once()
            assert await walk(it) == 0
            assert world.task("t")["wake_at"] is None


class TestBounds:
    async def test_each_step_reads_and_wakes_a_limited_number(self, world: World) -> None:
        world.app.execute(MANY[world.dialect], world.ago(HOUR))
        async with bench(world, policy=STOP) as it:
            aging = it.parts.aging
            aging.rows_at_once, aging.woken_at_once = 400, 150
            steps = [await aging.run_once()]
            while not steps[-1].is_complete:
                steps.append(await aging.run_once())
            aging.rows_at_once = aging.woken_at_once = 2500
            assert [await aging.step() for _ in range(3)] == [1, 1, 60]
            assert (aging.too_old, sum(step.aged for step in steps)) == (5000, 5000)
            assert sum(step.woken for step in steps) == 5000
            assert max(step.woken for step in steps) == 150
            assert max(step.aged for step in steps) <= 400

    async def test_warnings_are_limited(self, world: World) -> None:
        world.app.execute(MANY[world.dialect], world.ago(HOUR))
        async with bench(world, policy=ALERT) as it:
            with capture_logs() as logs:
                steps = 1
                while not (await it.parts.aging.run_once()).is_complete:
                    steps += 1
                assert len(logs) == steps * TOLD_AT_ONCE
                for _ in range(REMEMBERED // (steps * TOLD_AT_ONCE) + 1):
                    await walk(it)
            assert len({line["task_id"] for line in logs}) == len(logs) == REMEMBERED


_MANY = "INSERT INTO zego_tasks (task_id, room_id, user_count, started_at) "
MANY = {
    "sqlite": _MANY + "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
    "SELECT 't' || i, 'room' || (i / 3), 1, ? FROM n",
    "postgresql": _MANY + "SELECT 't' || i, 'room' || (i / 3), 1, ? FROM generate_series(1, 5000) AS n(i)",
}
