"""The guard at work, over a real database in virtual time: broken feeds, real exoduses, and who may open it."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import structlog
from typer.testing import CliRunner

from tests.support.bench import Bench, bench
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually
from tests.support.time_travel import World
from watchdog.cli.app.root import app
from watchdog.sandbox import Limits, Sandbox
from watchdog.services.claims import Claimed
from watchdog.store.records import Activity, Instance
from watchdog.store.reports import health

OFF = {"verify": "off"}


def rooms(world: World, number: int) -> None:
    """Bring about that many active tasks, in rooms that people are in."""
    world.app.execute("BEGIN")
    for task in range(number):
        world.app.start(f"t{task}", f"room-{task}", user_count=2)
    world.app.execute("COMMIT")


def read(world: World, people: int, number: int, first: int = 0) -> None:
    """What the feed says of so many rooms."""
    world.app.execute("BEGIN")
    for task in range(first, first + number):
        world.app.people(f"room-{task}", people)
    world.app.execute("COMMIT")


def outcomes(world: World) -> Counter[str]:
    rows = world.app.rows("SELECT outcome, count(*) AS number FROM zego_stop_attempts GROUP BY outcome")
    return Counter({row["outcome"]: row["number"] for row in rows})


def beat(it: Bench, active: int, *, daemons: int = 1, released_until: datetime | None = None) -> None:
    """What the heartbeat does every five seconds."""
    it.parts.storage.clock.synchronise(it.world.now)
    it.parts.guard.look(active=active, daemons=daemons, released_until=released_until)


def tripped(it: Bench) -> bool:
    return it.parts.guard.tripped_at is not None


async def minutes(it: Bench, number: float, active: int) -> None:
    for _ in range(int(number * 6)):
        await it.after(10)
        beat(it, active)


async def test_when_the_feed_reads_all_rooms_empty_at_most_the_limit_is_stopped(world: World) -> None:
    async with bench(world, policy=OFF | {"hint_max_age_seconds": 86400}) as it:
        rooms(world, 1000)
        beat(it, 1000)
        read(world, 0, 1000)
        await it.sweep()
        with structlog.testing.capture_logs() as logs:
            await it.after(45)
            await minutes(it, 3, 1000)
        assert len(it.vendor.stops) <= 60
        assert outcomes(world) == {"stopped": len(it.vendor.stops), "withheld": 1000 - len(it.vendor.stops)}
        assert world.app.rows("SELECT DISTINCT detail FROM zego_stop_attempts WHERE outcome = 'withheld'") == [
            {"detail": "guarded"}
        ]
        (said_once,) = [event for event in logs if event["event"] == "guard_tripped"]
        assert said_once["log_level"] == "error"
        assert {name: said_once[name] for name in ("asked", "allowed", "active_tasks", "share_asked")} == {
            "asked": 61,
            "allowed": 60,
            "active_tasks": 1000,
            "share_asked": 0.061,
        }
        assert "guard release" in said_once["next_step"]
        summaries = [event for event in logs if event["event"] == "guard_holds"]
        assert [event["held_tasks"] for event in summaries] == [1000 - len(it.vendor.stops)] * len(summaries)
        assert len(summaries) == 3, "once a minute"
        said = Counter(event["event"] for event in logs)
        assert said["withheld"] == 1000 - len(it.vendor.stops), "once a task, not once a look"

        # The feed is mended: nobody had left.
        read(world, 2, 1000)
        stopped = len(it.vendor.stops)
        with structlog.testing.capture_logs() as logs:
            await minutes(it, 1.5, 1000)
        assert [event["event"] for event in logs] == ["guard_opened"]
        assert len(it.vendor.stops) == stopped

        # And now a few people really leave.
        read(world, 0, 50, first=500)
        await it.sweep()
        await minutes(it, 1, 900)
        assert len(it.vendor.stops) == stopped + 50


async def test_a_real_exodus_below_the_limit_passes(world: World) -> None:
    async with bench(world, policy=OFF) as it:
        rooms(world, 200)
        beat(it, 200)
        read(world, 0, 50)
        await it.sweep()
        with structlog.testing.capture_logs() as logs:
            await it.after(45)
        assert outcomes(world) == {"stopped": 50}
        assert "guard_tripped" not in {event["event"] for event in logs}


async def test_five_may_always_go(world: World) -> None:
    async with bench(world, policy=OFF) as it:
        rooms(world, 5)
        beat(it, 5)
        read(world, 0, 5)
        await it.sweep()
        await it.after(45)
        assert outcomes(world) == {"stopped": 5}


async def test_verified_stops_never_pass_the_guard(world: World) -> None:
    async with bench(world, guard={"unverified_per_minute": 1}) as it:
        rooms(world, 100)
        beat(it, 100)
        read(world, 0, 100)
        await it.sweep()
        await it.after(45)
        assert outcomes(world) == {"stopped": 100}


async def test_an_api_that_is_dead_and_comes_back(world: World) -> None:
    async with bench(world, policy={"verify": "when_possible"}, guard={"unverified_per_minute": 5}) as it:
        rooms(world, 50)
        beat(it, 50)
        read(world, 0, 50)
        await it.sweep()
        it.vendor.count_replies += [httpx.ConnectError("refused")] * 1000
        await it.after(45)
        await minutes(it, 0.5, 50)
        assert outcomes(world) == {"stopped": 5, "withheld": 45}
        assert tripped(it)
        it.vendor.count_replies.clear()
        await it.after(10)
        assert outcomes(world) == {"stopped": 50, "withheld": 45}, "verified, so the guard has no say"
        beat(it, 0)
        assert tripped(it), "it opens a minute later"
        world.advance(60)
        beat(it, 0)
        assert not tripped(it)


async def test_an_operator_lets_them_pass(world: World) -> None:
    async with bench(world, policy=OFF, guard={"unverified_per_minute": 5}) as it:
        rooms(world, 50)
        beat(it, 50)
        read(world, 0, 50)
        await it.sweep()
        await it.after(45)
        assert outcomes(world)["stopped"] == 5
        until = world.ahead(600)
        with structlog.testing.capture_logs() as logs:
            beat(it, 50, released_until=until)
            beat(it, 50, released_until=until)
            await it.after(30)
        assert outcomes(world)["stopped"] == 50
        said = Counter(event["event"] for event in logs)
        assert (said["guard_released"], said["guard_opened"]) == (1, 1)


async def test_observe_mode_shows_what_the_guard_would_do(world: World) -> None:
    async with bench(world, policy=OFF | {"mode": "observe"}, guard={"unverified_per_minute": 5}) as it:
        rooms(world, 50)
        beat(it, 50)
        read(world, 0, 50)
        await it.sweep()
        await it.after(45)
        await minutes(it, 1, 50)
        assert it.vendor.stops == []
        assert outcomes(world) == {"would_stop": 5, "withheld": 45}


async def test_an_operators_own_order_is_not_held_back(world: World) -> None:
    async with bench(world, policy=OFF, guard={"unverified_per_minute": 1}) as it:
        rooms(world, 3)
        read(world, 0, 3)
        await it.sweep()
        await it.after(45)
        assert outcomes(world) == {"stopped": 1, "withheld": 2}
        (left, *_) = (f"t{task}" for task in range(3) if world.task(f"t{task}")["status"] == "active")
        claim = world.tasks.claim_one(left, "token", lease_seconds=20)
        assert claim is not None
        finished = await it.parts.stopper.work(Claimed(claim, 1, world.clock.monotonic() + 20, manual=True))
        assert finished.outcome == "stopped"


async def test_what_waits_for_the_pace_is_held_back_too_once_it_has_tripped(sqlite_world: World) -> None:
    """The first of them passed the guard before anybody could know how many would follow."""
    world = sqlite_world
    paced = {"concurrency": 16, "requests_per_second": 50}
    async with bench(world, policy=OFF, guard={"unverified_per_minute": 5}, stop=paced) as it:
        rooms(world, 50)
        beat(it, 50)
        read(world, 0, 50)
        await it.sweep()
        await it.after(45)
        assert len(it.vendor.stops) < 5


async def test_several_daemons_share_the_limit(world: World) -> None:
    guard = {"unverified_per_minute": 20}
    async with bench(world, policy=OFF, guard=guard) as one, bench(world, policy=OFF, guard=guard) as other:
        rooms(world, 200)
        for it in (one, other):
            beat(it, 200, daemons=2)
        read(world, 0, 200)
        await one.sweep()
        world.advance(45)
        # In turns, as two processes would.
        for _ in range(20):
            for it in (one, other):
                await it.parts.sweeper.run_once()
                await it.parts.stopper.drain()
                beat(it, 200, daemons=2)
        assert len(one.vendor.stops) <= 10
        assert len(other.vendor.stops) <= 10
        assert outcomes(world)["stopped"] == len(one.vendor.stops) + len(other.vendor.stops) > 0
        assert outcomes(world)["withheld"] == 200 - outcomes(world)["stopped"]


async def test_a_reload_changes_the_limits(world: World) -> None:
    async with bench(world, policy=OFF, guard={"unverified_per_minute": 5}) as it:
        rooms(world, 50)
        beat(it, 50)
        read(world, 0, 50)
        await it.sweep()
        await it.after(45)
        assert tripped(it)
        section = it.parts.config.guard.model_copy(update={"unverified_per_minute": 0, "unverified_share": 0})
        it.parts.adopt(it.parts.config.model_copy(update={"guard": section}))
        assert not tripped(it)
        await it.after(30)
        assert outcomes(world)["stopped"] == 50


class TestDaemonsRow:
    """What the heartbeat writes of it, and the order that it reads."""

    ONE = Instance("host/1", "host", 1, "0", "enforce")

    def test_what_a_daemon_does_stands_in_its_row(self, world: World) -> None:
        activity = Activity(in_flight=7, requests=1234, guard_tripped_at=world.now, guard_held=940)
        world.heartbeats.beat(self.ONE, 60, fresh=True, activity=activity)
        _, (row,) = health.all_daemons(world.engine)
        assert (row.in_flight, row.requests, row.guard_held) == (7, 1234, 940)
        assert row.guard_tripped_at == world.now
        assert row.has_tripped
        world.heartbeats.beat(self.ONE, 60, fresh=False, activity=Activity(requests=1300))
        _, (row,) = health.all_daemons(world.engine)
        assert (row.in_flight, row.requests, row.guard_held, row.guard_tripped_at) == (0, 1300, 0, None)

    def test_the_dead_do_not_trip(self, world: World) -> None:
        world.heartbeats.beat(self.ONE, 60, fresh=True, activity=Activity(guard_tripped_at=world.now))
        world.advance(60)
        _, (row,) = health.all_daemons(world.engine)
        assert not row.has_tripped

    def test_an_order_reaches_the_living_and_stands_until_it_is_over(self, world: World) -> None:
        two = Instance("host/2", "host", 2, "0", "enforce")
        world.heartbeats.beat(self.ONE, 60, fresh=True)
        world.advance(60)
        assert world.another_store("host/2").heartbeats.beat(two, 60, fresh=True).guard_released_until is None
        assert health.release_guard(world.engine, 600) == 1
        assert world.heartbeats.beat(two, 60, fresh=False).guard_released_until == world.ahead(600)
        assert world.heartbeats.beat(self.ONE, 60, fresh=False).guard_released_until is None


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    limits = Limits(start=0, stop=100, user_num=100)
    async with Sandbox({APP_ID: SECRET}, seed=7, limits=limits, concurrent_tasks=0, max_idle_seconds=120) as running:
        yield running


async def test_a_daemon_trips_says_so_everywhere_and_obeys_the_command(
    database_url: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    application = Application(database_url)
    guard = {"unverified_per_minute": 6, "unverified_share": 0}
    daemon = DaemonProcess(tmp_path, database_url, sandbox, policy=OFF | {"max_idle_seconds": 120}, guard=guard)
    await daemon.start()
    try:
        tasks = await application.abandon(sandbox, [f"room-{number}" for number in range(30)])
        await eventually("all are looked at", lambda: len({row["task_id"] for row in application.attempts()}) == 30)
        await eventually("the row says so", lambda: command(daemon, "guard", "--json")["held"] > 0)
        told = command(daemon, "guard", "--json")
        stopped = [task for task, status in application.statuses().items() if status == "stopped"]
        assert len(stopped) <= 6
        assert told["tripped"]
        assert (told["allowed_per_minute"], told["active_tasks"]) == (6, 30 - len(stopped))
        assert len(daemon.events("guard_tripped")) == 1

        held = next(task for task in tasks if task not in stopped)
        story = command(daemon, "explain", held, "--json")
        assert (story["decision"]["verdict"], story["decision"]["rule"]) == ("unknown", "guarded")
        assert "the guard holds all of them back" in spoken(daemon, "explain", held)
        assert "TRIPPED" in spoken(daemon, "status")
        assert "requests so far" in spoken(daemon, "status")
        assert "TRIPPED" in spoken(daemon, "guard")
        (row,) = command(daemon, "status", "--json")["daemons"]
        assert (row["requests"], row["guard_held"]) == (len(stopped), told["held"])

        assert command(daemon, "guard", "release", "--minutes", "2", "--json") == {
            "released_daemons": 1,
            "minutes": 2.0,
        }
        assert "released" in spoken(daemon, "guard")
        await eventually("all are stopped", lambda: set(application.statuses().values()) == {"stopped"}, seconds=60)
        assert len(daemon.events("guard_released")) == 1
    finally:
        assert await daemon.end() == 0
    result = run(daemon, "guard", "release")
    assert result.exit_code == 1
    assert "no daemon is alive" in result.stderr
    assert "no daemon is alive" in spoken(daemon, "guard")
    verdict = application.judge(sandbox, tasks)
    assert (verdict.disagreements, verdict.stopped_in_time) == ((), 30)


def run(daemon: DaemonProcess, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--config", str(daemon.config), *arguments])


def spoken(daemon: DaemonProcess, *arguments: str) -> str:
    result = run(daemon, *arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def command(daemon: DaemonProcess, *arguments: str) -> Any:
    result = run(daemon, *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
