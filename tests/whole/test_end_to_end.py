"""The main path with real processes, databases and HTTP; the sandbox's log is the referee."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.running import SECRET, Application, DaemonProcess, eventually, fake_zego
from tests.support.tools import find, postgresql_programs
from watchdog.clock import SystemClock
from watchdog.sandbox import Action, Drop, Join, Limits, Misbehaviour, Sandbox, Start


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


class NewDaemon(Protocol):
    """Makes a daemon, not started yet, that does not outlive the test."""

    def __call__(self, sandbox: Sandbox, **sections: Mapping[str, object]) -> DaemonProcess: ...


@pytest.fixture
async def new_daemon(database_url: str, tmp_path: Path) -> AsyncIterator[NewDaemon]:
    made: list[DaemonProcess] = []

    def make(sandbox: Sandbox, **sections: Mapping[str, object]) -> DaemonProcess:
        folder = tmp_path / f"daemon-{len(made)}"
        folder.mkdir()
        made.append(DaemonProcess(folder, database_url, sandbox, **sections))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.alive:
            await daemon.end(signal.SIGKILL)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with fake_zego() as running:
        yield running


def all_ended(application: Application, tasks: list[str]) -> bool:
    statuses = application.statuses()
    return all(statuses[task] != "active" for task in tasks)


async def test_ledger_and_vendor_agree_one_to_one_whatever_the_vendor_does(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    for misbehaviour in (
        # Budgets, so that the API is reachable in the last 30 s of the window: that is what I3 asks for.
        Misbehaviour(action=Action.STOP, probability=0.3, requests=10, http_status=502),
        Misbehaviour(action=Action.STOP, probability=0.3, requests=10, code=410000001),
        Misbehaviour(action=Action.STOP, probability=0.3, requests=5, code=206),
        Misbehaviour(action=Action.STOP, probability=0.4, requests=10, drop_reply=Drop.AFTER),
        Misbehaviour(action=Action.STOP, probability=0.3, requests=5, drop_reply=Drop.BEFORE),
        Misbehaviour(action=Action.STOP, latency_seconds=(0, 0.1), reply_latency_seconds=(0, 0.1)),
        Misbehaviour(action=Action.USER_NUM, probability=0.3, requests=3, http_status=500),
    ):
        sandbox.perform(misbehaviour)
    daemon = new_daemon(sandbox)
    await daemon.start()
    abandoned = await application.abandon(sandbox, [f"room-{number}" for number in range(60)])
    # The application says that these are empty; the vendor knows that they are not.
    talking = await application.abandon(sandbox, [f"talk-{number}" for number in range(6)])
    for number in range(6):
        sandbox.perform(Join(room=f"talk-{number}", user="alice"))
    never_hinted = await application.start(sandbox, "silent")

    await eventually("every abandoned task has ended", lambda: all_ended(application, abandoned))
    await eventually("every talk was spared", lambda: spared_rooms(application) == 6)
    assert await daemon.end() == 0

    verdict = application.judge(sandbox, abandoned)
    assert verdict.disagreements == ()
    assert verdict.wrong_stops == ()
    assert verdict.missed == ()
    assert verdict.stopped_in_time == 60
    assert verdict.requests_received > 60, "the vendor did not misbehave at all"
    statuses = application.statuses()
    assert {statuses[task] for task in abandoned} == {"stopped"}
    assert {statuses[task] for task in (*talking, never_hinted)} == {"active"}
    outcomes = {row["outcome"] for row in application.attempts()}
    assert {"stopped", "retry", "unknown", "stopped_earlier", "spared"} <= outcomes
    assert SECRET not in daemon.log.read_text()
    assert "Signature" not in daemon.log.read_text()


def spared_rooms(application: Application) -> int:
    return len({row["room_id"] for row in application.attempts() if row["outcome"] == "spared"})


async def test_killed_in_mid_flight_and_started_again(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    # The vendor acts at once and answers late.
    slow = Misbehaviour(action=Action.STOP, reply_latency_seconds=(1.0, 1.0), requests=20)
    sandbox.perform(slow)
    daemon = new_daemon(sandbox, stop={"request_timeout_seconds": 2, "lease_seconds": 4.5, "concurrency": 10})
    await daemon.start()
    abandoned = await application.abandon(sandbox, [f"room-{number}" for number in range(30)])

    await eventually("requests are in flight", lambda: in_flight(application) >= 5 and taken(sandbox))
    await daemon.end(signal.SIGKILL)
    assert in_flight(application) >= 1, "killed too late to prove anything"
    await daemon.start()
    await eventually("every abandoned task has ended", lambda: all_ended(application, abandoned))
    await eventually("no attempt is left open", lambda: in_flight(application) == 0)
    assert await daemon.end() == 0

    verdict = application.judge(sandbox, abandoned, daemon_killed=True)
    assert verdict.disagreements == ()
    assert verdict.wrong_stops == ()
    assert verdict.missed == ()
    rows = application.attempts()
    doubtful = {row["task_id"] for row in rows if row["outcome"] == "unknown"}
    assert doubtful
    answered = {row["request_id"] for row in rows}
    did_it_before_the_kill = {
        event["task_id"]
        for event in sandbox.events()
        if event["event"] == "stop_requested" and event["accepted"] and event["request_id"] not in answered
    }
    assert did_it_before_the_kill
    for task in doubtful:
        last = "stopped_earlier" if task in did_it_before_the_kill else "stopped"
        assert [row["outcome"] for row in rows if row["task_id"] == task] == ["unknown", last]
    assert set(application.statuses().values()) == {"stopped"}


def in_flight(application: Application) -> int:
    return sum(row["outcome"] == "sent" for row in application.attempts())


def taken(sandbox: Sandbox) -> bool:
    """Whether the vendor has stopped a task. The row of an attempt is written before its request leaves."""
    return any(event["event"] == "task_stopped" for event in sandbox.events())


async def test_ends_in_good_order_with_requests_in_flight(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(0.7, 0.7)))
    daemon = new_daemon(sandbox)
    await daemon.start()
    abandoned = await application.abandon(sandbox, [f"room-{number}" for number in range(20)])
    await eventually("requests are in flight", lambda: in_flight(application) >= 3)

    assert await daemon.end(seconds=10) == 0

    assert in_flight(application) == 0
    verdict = application.judge(sandbox, abandoned)
    assert verdict.disagreements == ()
    assert all(row["outcome"] == "stopped" for row in application.attempts())
    # What was not sent was given back, so no lease blocks the next daemon.
    assert application.rows("SELECT task_id FROM zego_tasks WHERE claimed_by IS NOT NULL") == []


async def test_second_signal_cuts_short_and_says_unknown(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(7, 7)))
    daemon = new_daemon(sandbox)
    await daemon.start()
    abandoned = await application.abandon(sandbox, ["room"])
    await eventually("the request is with the vendor", lambda: taken(sandbox))

    daemon.send(signal.SIGTERM)
    await eventually("it says that it is stopping", lambda: bool(daemon.events("stopping")))
    assert await daemon.end(signal.SIGTERM) == 0

    assert [row["outcome"] for row in application.attempts()] == ["unknown"]
    assert application.judge(sandbox, abandoned).disagreements == ()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_ends_in_time_though_the_database_is_away(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(5, 5), requests=1))
    daemon = new_daemon(sandbox, stop={"request_timeout_seconds": 6, "lease_seconds": 9, "shutdown_seconds": 1})
    await daemon.start()
    abandoned = await application.abandon(sandbox, ["room"])
    await eventually("the request is with the vendor", lambda: taken(sandbox))

    with closing(sqlite3.connect(application.url.removeprefix("sqlite:///"), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert await daemon.end(seconds=15) == 0
    assert in_flight(application) == 1, "nobody could write it down"

    await daemon.start()
    await eventually("the task has ended", lambda: all_ended(application, abandoned))
    assert [row["outcome"] for row in application.attempts()] == ["unknown", "stopped_earlier"]


async def test_observe_mode_sends_nothing_and_says_once_what_it_would_do(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon(sandbox, policy={"mode": "observe"})
    await daemon.start()
    abandoned = await application.abandon(sandbox, ["a", "b", "c"])
    await eventually("all three are noted", lambda: len(application.attempts()) == 3)
    await SystemClock().sleep(1.5)  # three more sweeps
    assert await daemon.end() == 0

    assert {row["outcome"] for row in application.attempts()} == {"would_stop"}
    assert len(application.attempts()) == 3
    assert not [event for event in sandbox.events() if event["event"] == "stop_requested"]
    assert {application.statuses()[task] for task in abandoned} == {"active"}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_two_daemons_share_the_work_and_the_pace(application: Application, new_daemon: NewDaemon) -> None:
    async with fake_zego(limits=Limits(start=0, stop=60, user_num=60)) as sandbox:
        daemons = [new_daemon(sandbox), new_daemon(sandbox)]
        for daemon in daemons:
            await daemon.start()
        await eventually("each has heard of the other", lambda: all_met(application))
        abandoned = await application.abandon(sandbox, [f"room-{number}" for number in range(80)])
        await eventually("every abandoned task has ended", lambda: all_ended(application, abandoned))
        for daemon in daemons:
            assert await daemon.end() == 0

        verdict = application.judge(sandbox, abandoned)
        assert verdict.disagreements == ()
        assert verdict.stopped_in_time == 80
        assert verdict.requests_received == 80, "a task was stopped twice"
        shares = {row["instance"] for row in application.attempts()}
        assert len(shares) == 2, "one of them did it all"
        assert not [event for event in sandbox.events() if event["event"] == "throttled"]


def all_met(application: Application) -> bool:
    daemons = application.rows("SELECT started_at, seen_at FROM zego_daemons")
    return all(one["seen_at"] > other["started_at"] for one in daemons for other in daemons)


BY_HAND = """
INSERT INTO zego_tasks (task_id, room_id) VALUES ('{task}', 'by-hand');
UPDATE zego_tasks SET user_count = 0 WHERE room_id = 'by-hand' AND status = 'active';
"""


async def test_a_row_written_by_hand_is_enough(
    application: Application, sandbox: Sandbox, new_daemon: NewDaemon
) -> None:
    """With the databases' own command lines, ``sqlite3`` and ``psql``."""
    daemon = new_daemon(sandbox)
    await daemon.start()
    task = str(sandbox.perform(Start(room="by-hand"))["task_id"])
    kept = str(sandbox.perform(Start(room="other"))["task_id"])
    own = str(sandbox.perform(Start(room="own"))["task_id"])

    command_line(application, BY_HAND.format(task=task))
    command_line(application, f"INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('{kept}', 'other', 3);")
    command_line(application, f"INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('{own}', 'own', 0);")
    command_line(application, f"UPDATE zego_tasks SET status = 'released' WHERE task_id = '{own}';")

    await eventually("the task is stopped", lambda: application.statuses()[task] == "stopped")
    assert await daemon.end() == 0
    assert application.statuses() == {task: "stopped", kept: "active", own: "released"}
    (attempt,) = application.attempts()
    (request,) = [event for event in sandbox.events() if event["event"] == "stop_requested"]
    assert (attempt["code"], attempt["request_id"]) == ("0", request["request_id"])


def command_line(application: Application, statements: str) -> None:
    """Run the statements as an operator would; on a machine without ``sqlite3`` Python's own module stands in."""
    if not application.is_sqlite:
        psql = str(postgresql_programs() / "psql")
        command = [psql, application.url, "--set", "ON_ERROR_STOP=1", "--command", statements]
    elif shell := find("sqlite3"):
        # Without a time-out the shell gives up at once when somebody else is writing.
        command = [shell, "-cmd", ".timeout 5000", application.url.removeprefix("sqlite:///"), statements]
    else:
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
        command = [sys.executable, "-c", script, application.url.removeprefix("sqlite:///"), statements]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
