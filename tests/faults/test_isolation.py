"""Rows 52 to 56 and 61: nothing that is slow, refused or dead delays the stops of the others.

$FAULTS_FULL   set: row 52 with 250 rooms within 20 s, instead of 80 at once
"""

import asyncio
import os
import signal
from itertools import pairwise

import pytest

from tests.faults.client import LISTEN, address, metric
from tests.faults.harness import REQUEST_SECONDS, Daemon, Stage, fault
from watchdog.sandbox import Action, Behave, Drop, Misbehaviour, Start

FULL = bool(os.environ.get("FAULTS_FULL"))
LONG_WINDOW = {"max_idle_seconds": 60}
QUESTIONS = 'operation="user_counts"'


async def questions(daemon: Daemon) -> float:
    """How many requests for the occupancy of rooms have been answered."""
    return await asyncio.to_thread(metric, address(daemon), "zego_watchdog_vendor_request_seconds_count", QUESTIONS)


# -- 52: verification is slower than the stops --


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(52, "more is due than can be verified within a lease, with vendor faults", quick=True)
async def test_verification_is_slow(stage: Stage) -> None:
    """Four daemons share two or ten questions a second; the pace of the stops would allow five hundred."""
    rooms_at_once, waves, questions_per_second = (25, 10, 10) if FULL else (80, 1, 2)
    await stage.open(max_idle_seconds=30)
    for action in (Action.STOP, Action.USER_NUM):
        stage.sandbox.perform(Misbehaviour(action=action, probability=0.03, drop_reply=Drop.BEFORE))
    for _ in range(4):
        await stage.daemon(
            stop={
                "requests_per_second": 500,
                "occupancy_requests_per_second": questions_per_second,
                "request_timeout_seconds": REQUEST_SECONDS,
                "lease_seconds": 5,
            }
        ).start()
    rooms: list[str] = []
    for _ in range(waves):
        rooms += await stage.abandon(rooms_at_once)
        stage.struck()
        await stage.clock.sleep(2 if FULL else 0)
    due_at = stage.clock.time() + 0.5
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    longest = max(later - earlier for earlier, later in pairwise([due_at, *arrivals(stage)]))
    assert longest < stage.daemons[0].silence_seconds(), "a stop leaves as long as work is due"
    await stage.audit(stopped=rooms)


def arrivals(stage: Stage) -> list[float]:
    return sorted(event["received_at"] for event in stage.requests())


# -- 53: a dead daemon keeps nothing --


@fault(53, "five daemons of this host killed, one after another", quick=True)
async def test_the_dead_keep_no_share(stage: Stage) -> None:
    """Who is restarted has the whole pace at once: it would be a sixth of it for fifteen seconds."""
    await stage.open()
    daemon = stage.daemon(stop={"requests_per_second": 4})
    for _ in range(5):
        await daemon.start()
        await daemon.end(signal.SIGKILL)
        stage.struck()
    await daemon.start()
    rooms = await stage.abandon(16)
    stage.lifted()
    took = await stage.recovers("all have ended", lambda: stage.ended(rooms))
    assert took < 12, "4 s is the pace"
    await stage.audit(stopped=rooms)


# -- 54: polling --


@fault(54, "rooms that nobody ever reported, behind many with fresh hints", quick=True)
async def test_polling_asks_about_the_oldest_evidence(stage: Stage) -> None:
    await stage.open()
    fresh = [(f"fresh-{number}", f"fresh-room-{number}") for number in range(600)]
    for task, room in fresh:
        await asyncio.to_thread(
            stage.application.execute,
            "INSERT INTO zego_tasks (task_id, room_id, user_count, grace_seconds) VALUES (?, ?, 2, 3600)",
            task,
            room,
        )
    unreported = []
    for number in range(5):
        task = str(stage.sandbox.perform(Start(room=f"unreported-{number}"))["task_id"])
        stage.application.execute(
            "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, f"unreported-{number}"
        )
        unreported.append(task)
    stage.struck()
    await stage.daemon(
        stop={"occupancy_requests_per_second": 4}, schedule={"poll_seconds": 0.2, "occupancy_poll_seconds": 20}
    ).start()
    took = await stage.recovers("the unreported ones have ended", lambda: stage.ended(unreported))
    assert took < 12, "after all others it would be 20 s"
    await stage.audit(stopped=unreported)


# -- 55 and 56: rooms and AppIds that the occupancy API refuses --


@fault(55, "rooms that ZEGO refuses among the others", quick=True)
async def test_refused_rooms_delay_nobody(stage: Stage) -> None:
    daemon = await stage.begin(http=LISTEN, stop={"occupancy_requests_per_second": 10})
    refused = [f"not a RoomId {number}" for number in range(10)]
    for room in refused:
        stage.application.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 0)", room, room)
    await stage.strikes("each is known", lambda: len(daemon.events("room_refused")) == len(refused))
    before = await questions(daemon)
    rooms = []
    for _ in range(5):
        rooms += (last := await stage.abandon(4))
        stage.lifted()
        await stage.recovers("the others are stopped", lambda: stage.ended(last))
    await stage.clock.sleep(2)
    asked = await questions(daemon) - before
    assert asked <= 2 * 5, f"{asked:.0f} questions for 5 groups of rooms: the refused ones are asked about again"
    assert len(daemon.events("room_refused")) == len(refused), "said once of each"
    stage.visible(daemon, "room_refused")
    await stage.audit(stopped=rooms)


@fault(56, "the occupancy API refuses the AppId: service not enabled", quick=True)
async def test_the_occupancy_api_refuses_the_app(stage: Stage) -> None:
    daemon = await stage.begin(http=LISTEN, max_idle_seconds=60, policy=LONG_WINDOW, stop={"blocked_retry_seconds": 2})
    stage.sandbox.perform(Misbehaviour(action=Action.USER_NUM, code=410000006))
    rooms = await stage.abandon(40)
    await stage.strikes("it is blocked", lambda: bool(daemon.events("app_blocked")))
    # What was asked before that is answered meanwhile.
    await stage.clock.sleep(1)
    before = await questions(daemon)
    await stage.clock.sleep(5)
    asked = await questions(daemon) - before
    assert asked <= 6, f"{asked:.0f} questions in 5 s: one task every 2 s is meant"
    assert stage.requests() == []
    stage.sandbox.perform(Behave())
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    stage.visible(daemon, "app_blocked", "app_unblocked")
    await stage.audit(stopped=rooms)


# -- 61: who only looks --


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(61, "an observing daemon beside an enforcing one", quick=True)
async def test_an_observer_takes_nothing(stage: Stage) -> None:
    await stage.open()
    observers = [stage.daemon(policy={"mode": "observe"}) for _ in range(2)]
    for daemon in (*observers, stage.daemon()):
        await daemon.start()
    # An observer that wakes first must not win.
    rooms: list[str] = []
    for _ in range(3):
        rooms += (last := await stage.abandon(9))
        stage.struck()
        await stage.recovers("all have ended", lambda: stage.ended(last), seconds=10)
    assert stage.attempts("would_stop") == []
    await stage.audit(stopped=rooms)
