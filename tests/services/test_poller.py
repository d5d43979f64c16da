"""Every active room is known without a single hint: what is asked when, what is made of it, and who comes back."""

import asyncio
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx2 as httpx
import pytest
import structlog

from simulation.virtual import VirtualClock, loop_seconds, run_virtual
from tests.support.bench import Bench, bench, reply
from tests.support.clock import SettableClock
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Source, Status
from watchdog.sandbox import Join, Leave, Limits, Sandbox
from watchdog.services.occupancy import BACKGROUND_SHARE, Occupancy
from watchdog.services.poller import Polled, Poller
from watchdog.store.aio.calls import AsyncPolling
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.figures import FigureStore
from watchdog.store.polling import PollStore
from watchdog.store.retention import RetentionStore
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

P = ParamSpec("P")
R = TypeVar("R")


def rejoins(world: World) -> list[Mapping[str, Any]]:
    return world.app.rows("SELECT * FROM zego_rejoins ORDER BY task_id")


async def test_without_a_single_hint_an_abandoned_task_is_stopped_in_time(world: World) -> None:
    async with bench(world) as it:
        world.app.start("t", "room")
        it.vendor.users["room"] = ["alice"]
        assert await it.poll() == Polled(asked=1, answered=1, changed=1)
        task = world.task("t")
        assert (task["user_count"], task["user_count_source"], task["user_count_at"]) == (1, "api", world.now)
        assert task["vendor_occupied_at"] == task["last_occupied_at"] == world.now

        world.advance(20)
        it.vendor.users["room"] = []
        assert (await it.poll()).changed == 1
        emptied = world.now
        for _ in range(12):
            await it.sweep()
            await it.poll()
            world.advance(5)
        (row,) = world.attempts("t")
        assert (row["outcome"], row["reason"], row["empty_since"]) == ("stopped", "empty_room", emptied)
        assert (row["sent_at"] - emptied).total_seconds() == 45


async def test_a_room_is_asked_about_once_in_a_while_and_by_one_daemon(world: World) -> None:
    async with bench(world) as it:
        for number in range(25):
            world.app.start(f"t{number}", f"room-{number}")
        world.app.start("second", "room-3")
        assert (await it.poll()).asked == 25
        assert sorted(map(len, it.vendor.asked)) == [5, 10, 10]
        assert await it.poll() == Polled()
        world.advance(14)
        assert await it.poll() == Polled()
        assert PollStore(world.engine).take(100, 15, 1, 1).rooms == []
        world.advance(2)
        assert len(PollStore(world.engine).take(10, 15, 1, 1).rooms) == 10
        # A room with two tasks counts once.
        assert (await it.poll()).asked in {15, 16}


async def test_the_oldest_evidence_is_asked_for_first_and_young_evidence_costs_no_request(world: World) -> None:
    async with bench(world) as it:
        insert = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES "
        for start in range(0, 3000, 500):
            rows = ", ".join(f"('t{number}', 'hinted-{number}', 2)" for number in range(start, start + 500))
            world.app.execute(insert + rows)
        for number in range(20):
            world.app.start(f"n{number}", f"never-{number}")
        assert (await it.poll()).asked == 20
        assert rooms_asked(it) == {f"never-{number}" for number in range(20)}
        # A young hint also spares a room that was asked about long ago.
        world.advance(14)
        world.app.people("never-3", 1)
        world.advance(6)
        it.vendor.asked.clear()
        await it.poll()
        assert len(rooms_asked(it)) >= 500
        assert "never-3" not in rooms_asked(it)


def rooms_asked(it: Bench) -> set[str]:
    return {room for call in it.vendor.asked for room in call}


async def test_rooms_without_evidence_come_before_rooms_with_old_evidence(world: World) -> None:
    world.app.execute(
        "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES "
        + ", ".join(f"('t{number}', 'hinted-{number}', 2)" for number in range(100))
    )
    world.advance(60)
    for number in range(10):
        world.app.start(f"n{number}", f"never-{number}")
    store = PollStore(world.engine)
    assert store.take(10, 15, 1, 1).rooms == [f"never-{number}" for number in range(10)]
    assert len(store.take(10, 15, 1, 1).rooms) == 10


async def test_people_that_a_poll_has_seen_hold_back_a_stop_before_the_database_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = asyncio.Event()

    async def call(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if method.__name__ == "observe":
            await stored.wait()
        return await real(method, *args, **kwargs)

    async with bench(world) as it:
        real = it.parts.storage.threads.background.call
        world.app.start("t", "room", user_count=1)
        world.app.people("room", 0)
        await it.sweep()
        world.advance(44)
        it.vendor.users["room"] = ["alice"]
        assert it.parts.poller is not None
        it.parts.storage.clock.synchronise(world.now)
        monkeypatch.setattr(it.parts.storage.threads.background, "call", call)
        (asking,) = await it.parts.poller.begin()
        await eventually("she is seen", lambda: it.parts.sightings.since(1, "room", None) is not None)
        assert it.vendor.asked == [["room"]]
        # She has left again; that she was there is not stored yet.
        it.vendor.users["room"] = []
        world.advance(1)
        await it.sweep()
        assert it.vendor.stops == []
        assert [row["outcome"] for row in world.attempts("t")] == ["spared"]
        assert world.task("t")["last_occupied_at"] == world.ago(1)
        stored.set()
        await asking
        assert world.task("t")["user_count"] == 1


async def test_answers_queue_for_the_database_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite there is one connection: hundreds of answers in its queue kept each stop waiting for a second."""
    waiting = [0]

    async def call(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if method.__name__ != "observe":
            return await real(method, *args, **kwargs)
        waiting.append(waiting[-1] + 1)
        try:
            return await real(method, *args, **kwargs)
        finally:
            waiting.append(waiting[-1] - 1)

    async with bench(world) as it:
        real = it.parts.storage.threads.background.call
        for number in range(200):
            world.app.start(f"t{number}", f"room-{number}")
        monkeypatch.setattr(it.parts.storage.threads.background, "call", call)
        assert (await it.poll()).changed == 200
        assert max(waiting) == 1


async def test_after_each_transaction_the_database_is_left_to_others_for_as_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has no queue for its lock: the application found no gap between those of a round, for a second."""
    clock = SettableClock()
    clock.step_seconds = 1.0
    async with bench(world) as it:
        assert it.parts.poller is not None
        monkeypatch.setattr(it.parts.poller, "_clock", clock)
        for number in range(60):
            world.app.start(f"t{number}", f"room-{number}")
        assert (await it.poll()).changed == 60
    # Three takes of the first AppId, the last of which finds nothing, one of the other; six answers in four groups.
    assert len(clock.slept) == 8
    assert min(clock.slept) >= 1.0


async def test_apps_are_asked_about_their_own_rooms_and_foreign_ones_not_at_all(world: World) -> None:
    async with bench(world) as it:
        world.app.start("a", "room", app_id=1)
        world.app.start("b", "room", app_id=2)
        world.app.start("c", "room", app_id=3)
        world.app.start("d", "other")
        assert (await it.poll()).answered == 3
        assert sorted(it.vendor.asked) == [["other", "room"], ["room"]]
        assert {task: world.task(task)["user_count"] for task in "abcd"} == {"a": 0, "b": 0, "c": None, "d": 0}


async def test_what_is_not_known_is_not_written(world: World) -> None:
    async with bench(world) as it:
        world.app.start("t", "room")
        it.vendor.refusal = reply(0, Data={"UserCountList": []})
        assert await it.poll() == Polled(asked=1, answered=1)
        assert world.task("t")["user_count"] is None


async def test_a_later_word_of_the_application_stands(world: World) -> None:
    world.app.start("t", "room")
    at = world.now
    world.advance(1)
    world.app.people("room", 2)
    seen = PollStore(world.engine).observe(1, 1, {"room": Evidence(0, at, Source.API)})
    assert (seen.changed, seen.contradicted) == (0, ())
    assert (world.task("t")["user_count"], world.task("t")["user_count_source"]) == (2, "app")


async def test_zegos_zero_is_not_believed_of_a_room_it_has_never_seen_anybody_in(world: World) -> None:
    async with bench(world) as it:
        world.app.start("t", "mistyped", user_count=3)
        world.advance(16)
        with structlog.testing.capture_logs() as logs:
            assert (await it.poll()).contradicted == 1
            world.advance(20)
            assert (await it.poll()).contradicted == 1
        assert [event["room_id"] for event in logs if event["event"] == "hint_contradicted"] == ["mistyped"]
        assert (world.task("t")["user_count"], world.task("t")["empty_since"]) == (3, None)

        it.vendor.users["mistyped"] = ["alice"]
        world.advance(20)
        await it.poll()
        it.vendor.users["mistyped"] = []
        world.advance(20)
        assert (await it.poll()).contradicted == 0
        assert world.task("t")["user_count"] == 0


async def test_a_room_with_bots_only_is_empty_and_its_task_is_stopped_for_that(world: World) -> None:
    async with bench(world, zego={"bot_user_ids": ["asr-*"]}) as it:
        world.app.start("t", "room")
        it.vendor.users["room"] = ["asr-1", "alice"]
        await it.poll()
        assert world.task("t")["user_count"] == 1
        it.vendor.users["room"] = ["asr-1"]
        world.advance(20)
        await it.poll()
        assert world.task("t")["user_count"] == 0
        await it.sweep()
        world.advance(45)
        await it.sweep()
        assert [(row["outcome"], row["reason"]) for row in world.attempts("t")] == [("stopped", "bots_only")]


async def test_who_comes_back_after_a_stop_is_noticed(world: World) -> None:
    async with bench(world) as it:
        for task in ("back", "gone"):
            world.app.start(task, task, user_count=1)
            world.app.people(task, 0)
        await it.sweep()
        world.advance(45)
        await it.sweep()
        stopped = world.now
        assert [(row["task_id"], row["room_id"], row["rejoined_at"]) for row in rejoins(world)] == [
            ("back", "back", None),
            ("gone", "gone", None),
        ]
        world.advance(30)
        assert (await it.poll()).asked == 2
        it.vendor.users["back"] = ["alice"]
        world.advance(30)
        with structlog.testing.capture_logs() as logs:
            await it.poll()
        assert [(event["task_id"], event["after_seconds"]) for event in logs if event["event"] == "rejoined"] == [
            ("back", 60)
        ]
        assert world.history("back")["rejoined_after_seconds"] == 60
        assert world.history("gone")["rejoined_after_seconds"] is None
        assert (world.now - stopped).total_seconds() == 60

        # Noticed once, and not after the watch.
        it.vendor.users["gone"] = ["bob"]
        world.advance(541)
        it.vendor.asked.clear()
        assert await it.poll() == Polled()
        assert world.history("gone")["rejoined_after_seconds"] is None


def test_only_what_is_seen_after_the_stop_and_within_the_watch_is_a_return(world: World) -> None:
    store = PollStore(world.engine)
    world.app.execute(
        "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until) VALUES ('t', 'room', ?, ?)",
        world.now,
        world.ahead(600),
    )
    for seconds, people in ((-1, 1), (0, 1), (601, 1), (10, 0)):
        seen = store.observe(1, 1, {"room": Evidence(people, world.ahead(seconds), Source.API)})
        assert seen.returned == ()
    assert store.observe(2, 1, {"room": Evidence(1, world.ahead(10), Source.API)}).returned == ()
    (returned,) = store.observe(1, 1, {"room": Evidence(1, world.ahead(10), Source.API)}).returned
    assert (returned.task_id, returned.after_seconds) == ("t", 10)
    assert store.observe(1, 1, {"room": Evidence(1, world.ahead(20), Source.API)}).returned == ()


@pytest.mark.parametrize(("seconds", "watched"), [(600, 1), (0, 0)])
async def test_only_stops_are_watched_and_nothing_is_by_zero_seconds(
    world: World, seconds: float, watched: int
) -> None:
    async with bench(world, policy={"rejoin_watch_seconds": seconds}) as it:
        world.app.start("released", "released")
        world.app.release("released")
        world.app.start("t", "room", user_count=1)
        world.app.people("room", 0)
        await it.sweep()
        world.advance(45)
        await it.sweep()
        assert world.task("t")["status"] == Status.STOPPED
        assert len(rejoins(world)) == watched


def test_watches_are_forgotten_after_a_day_and_returns_are_kept(world: World) -> None:
    store = RetentionStore(world.engine)
    for task, rejoined_at in (("back", world.now), ("gone", None)):
        world.app.execute(
            "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at) VALUES (?, ?, ?, ?, ?)",
            task,
            task,
            world.now,
            world.ahead(600),
            rejoined_at,
        )
    world.advance(86_400)
    assert store.prune_gone() == 0
    world.advance(601)
    assert store.prune_gone() == 1
    assert [row["task_id"] for row in rejoins(world)] == ["back"]


def test_the_newest_hint_and_the_number_of_active_tasks(world: World) -> None:
    store = PollStore(world.engine)
    assert (store.active(), store.newest_hint()) == (0, None)
    world.app.start("a", "a", user_count=1)
    world.advance(10)
    world.app.start("b", "b", user_count=0)
    newest = world.now
    world.app.start("c", "c")
    world.app.start("ended", "ended", user_count=1)
    world.app.release("ended")
    world.advance(5)
    assert (store.active(), store.newest_hint()) == (3, newest)


async def test_the_rooms_of_a_single_lost_call_are_asked_about_again_at_once(world: World) -> None:
    async with bench(world) as it:
        world.app.start("t", "room")
        it.vendor.count_replies = [reply(410000001)]
        assert (await it.poll()).changed == 1
        assert len(it.vendor.asked) == 2
        assert world.task("t")["user_count"] == 0


async def test_a_vendor_that_does_not_answer_is_asked_less_and_less_and_complained_of_once(world: World) -> None:
    async with bench(world, schedule={"occupancy_poll_seconds": 1}) as it:
        for number in range(30):
            world.app.start(f"t{number}", f"room-{number}")
        it.vendor.refusal = reply(100000005)
        asked: list[int] = []
        with structlog.testing.capture_logs() as logs:
            for _ in range(60):
                before = len(it.vendor.asked)
                await it.poll()
                asked.append(len(it.vendor.asked) - before)
                world.advance(1.001)
            it.vendor.refusal = None
            for _ in range(30):
                await it.poll()
                world.advance(1.001)
        # One of them is sent again.
        assert asked[0] == 4
        assert max(asked[1:]) == 1
        assert sum(asked) <= 12
        assert [event["event"] for event in logs if event["log_level"] != "debug"] == [
            "polling_unanswered",
            "polling_answered_again",
        ]
        assert all(world.task(f"t{number}")["user_count"] == 0 for number in range(30))


# Virtual time: three thousand rooms, the vendor's own limit


def loop_and_database(world: World) -> VirtualClock:
    """Return a clock on the event loop's time, which the database follows."""

    def seconds() -> float:
        now = loop_seconds()
        world.clock.advance_to(max(now, world.clock.monotonic()))
        return now

    return VirtualClock(seconds)


class InlineThreads(DatabaseThreads):
    """No threads: virtual time would run ahead of them."""

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._clock.monotonic()
        return method(*args, **kwargs)


class Limited:
    """A vendor that takes its time and counts requests a second."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.arrivals: list[float] = []
        self.throttling = False

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.arrivals.append(loop_seconds())
        await VirtualClock().sleep(self.latency)
        if self.throttling:
            return reply(206)
        rooms = request.url.params.get_list("RoomId[]")
        return reply(0, Data={"UserCountList": [{"RoomId": r, "UserCount": 2, "AdminUserCount": 0} for r in rooms]})

    def most_in_a_second(self) -> int:
        return max(sum(start <= time < start + 1 for time in self.arrivals) for start in self.arrivals)


class Many:
    """A poller for many rooms at the vendor's pace, ticking like the daemon's job."""

    def __init__(self, world: World, vendor: Limited) -> None:
        clock = loop_and_database(world)
        self.figures = FigureStore(world.engine, "")
        polling = AsyncPolling(InlineThreads(world.engine, clock), PollStore(world.engine))
        database_clock = DatabaseClock(clock)
        database_clock.synchronise(world.now)
        self.zego = ZegoClient(
            {1: SECRET},
            asr_url="http://zego/",
            rtc_url="http://zego/",
            timeout_seconds=8,
            clock=clock,
            transport=httpx.MockTransport(vendor),
        )
        paces = [Pace[int](rate, clock=clock) for rate in (10, 10 * BACKGROUND_SHARE)]
        self.occupancy = Occupancy(self.zego, paces[0], database_clock, clock, background=paces[1])
        self.poller = Poller(polling=polling, occupancy=self.occupancy, apps=[1], every_seconds=15, clock=clock)
        self.clock = clock


def many_rooms(world: World, number: int, stopped: int = 0) -> None:
    world.app.execute("BEGIN")
    for room in range(number):
        world.app.start(f"t{room}", f"room-{room}")
    for room in range(stopped):
        world.app.execute(
            "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until) VALUES (?, ?, ?, ?)",
            f"s{room}",
            f"stopped-{room}",
            world.now,
            world.ahead(600),
        )
    world.app.execute("COMMIT")


@pytest.mark.parametrize("latency", [0.02, 0.8])
def test_with_three_thousand_rooms_no_evidence_is_older_than_45_seconds(sqlite_world: World, latency: float) -> None:
    vendor = Limited(latency)
    many_rooms(sqlite_world, 3000, stopped=500)
    ages: list[float] = []
    delays: list[float] = []

    async def scenario() -> None:
        many = Many(sqlite_world, vendor)
        for second in range(140):
            await many.poller.begin()
            if second % 3 == 0:
                # The poller's calls are in line by now.
                await VirtualClock().sleep(0.01)
                before = many.clock.monotonic()
                assert await many.occupancy.verify(1, "due", 0.0) is not None
                delays.append(many.clock.monotonic() - before - latency)
                await VirtualClock().sleep(max(0.0, 0.99 - latency - delays[-1]))
            else:
                await VirtualClock().sleep(1)
            many.clock.monotonic()
            active = many.figures.walk_active()
            if second >= 50:
                assert active is not None
                assert active.unknown == 0
                assert active.oldest_evidence_at is not None
                ages.append((sqlite_world.now - active.oldest_evidence_at).total_seconds())
        await many.poller.close()
        await many.zego.aclose()

    run_virtual(scenario())
    assert max(ages) <= 45
    assert vendor.most_in_a_second() <= 10
    # A verification waits behind one question of the poller's, not behind all of them.
    assert max(delays) <= 0.35
    # And the rooms whose tasks were stopped had their turn as well.
    asked = sqlite_world.app.rows("SELECT count(*) AS n FROM zego_rejoins WHERE asked_at > '2000'")
    assert asked[0]["n"] == 500


def test_throttling_slows_polling_down_and_starves_no_verification(sqlite_world: World) -> None:
    vendor = Limited(0.02)
    many_rooms(sqlite_world, 3000)

    async def scenario() -> None:
        many = Many(sqlite_world, vendor)
        vendor.throttling = True
        for _ in range(40):
            await many.poller.begin()
            await VirtualClock().sleep(1)
        assert many.occupancy.background_rate(1) <= 0.8 * 10 / 4
        vendor.throttling = False
        before = many.clock.monotonic()
        assert await many.occupancy.verify(1, "due", 0.0) is not None
        assert many.clock.monotonic() - before <= 2 / many.occupancy.background_rate(1) + 1
        for _ in range(60):
            await many.poller.begin()
            await VirtualClock().sleep(1)
        assert many.occupancy.background_rate(1) == pytest.approx(8)
        await many.poller.close()
        await many.zego.aclose()

    run_virtual(scenario())
    assert len([at for at in vendor.arrivals if at < 40]) < 60
    assert math.isclose(vendor.arrivals[-1], 100, abs_tol=20)


# A real daemon


async def test_a_daemon_needs_no_hint(database_url: str, tmp_path: Path) -> None:
    application = Application(database_url)
    async with Sandbox(
        {APP_ID: SECRET}, seed=7, limits=Limits(start=0, stop=0, user_num=100), concurrent_tasks=0, max_idle_seconds=30
    ) as sandbox:
        daemon = DaemonProcess(tmp_path, database_url, sandbox, schedule={"occupancy_poll_seconds": 0.5})
        tasks = {room: await application.start(sandbox, room) for room in ("talk", "left")}
        for room in tasks:
            sandbox.perform(Join(room=room, user="alice"))
        await daemon.start()
        try:
            await eventually(
                "both rooms are known",
                lambda: [row["user_count"] for row in application.rows("SELECT * FROM zego_tasks")] == [1, 1],
            )
            sandbox.perform(Leave(room="left", user="alice"))
            await eventually("it was stopped", lambda: application.statuses()[tasks["left"]] == "stopped")
            sandbox.perform(Join(room="left", user="alice"))
            await eventually(
                "her return was noticed",
                lambda: any(
                    row["rejoined_after_seconds"] is not None
                    for row in application.rows("SELECT * FROM zego_stop_history")
                ),
            )
            assert application.statuses()[tasks["talk"]] == "active"
            assert await daemon.end() == 0
        finally:
            if daemon.alive:
                await daemon.end()
        assert application.judge(sandbox, [tasks["left"]]).wrong_stops == ()
