"""Rows 1 to 8: what can happen to the process."""

import math
import os
import random
import resource
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import pytest

from tests.faults.harness import Daemon, Stage, Supervisor, fault
from watchdog.sandbox import Action, Join, Misbehaviour

KILLS: Final = int(os.environ.get("FAULTS_KILLS", "40"))
MEMORY: Final = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}
SHORT: Final = {"request_timeout_seconds": 0.8, "lease_seconds": 2.9}
"""For tests that run in ``make test``, too."""
SLOW_REPLY: Final = Misbehaviour(action=Action.STOP, reply_latency_seconds=(0.7, 0.7))


@fault(1, "killed before the attempt is committed", quick=True, halts=math.inf)
async def test_killed_before_the_attempt_is_committed(stage: Stage) -> None:
    daemon = await stage.begin(faults="intend.commit=kill", stop=SHORT)
    rooms = await stage.abandon(3)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    assert stage.attempts() == [], "it was to die before the commit"
    assert stage.requests() == []

    await daemon.start()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    assert [stage.outcomes(task) for task in rooms] == [["stopped"]] * 3


@fault(2, "killed after commit, before send", quick=True, halts=math.inf)
async def test_killed_before_the_request_leaves(stage: Stage) -> None:
    """And while nobody is there, people come back to one of the rooms: what was intended counts for nothing."""
    daemon = await stage.begin(faults="intend.committed=kill", stop=SHORT)
    rooms = await stage.abandon(3)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    intended = [row["task_id"] for row in stage.attempts("sent")]
    assert intended, "it was to die after the commit"
    assert stage.requests() == []
    back = intended[0]
    stage.sandbox.perform(Join(room=stage.room_of(back), user="alice"))

    await daemon.start()
    empty = [task for task in rooms if task != back]
    await stage.recovers("the others are stopped", lambda: stage.ended(empty))
    await stage.until("the room is spared", lambda: "spared" in stage.outcomes(back))
    await stage.audit(stopped=empty, kept=[back])
    assert stage.outcomes(back) == ["unknown", "spared"]


@pytest.mark.parametrize("place", ["stop.left", "stop.answered", "record.commit"])
@fault(3, "killed after the vendor accepted", halts=math.inf)
async def test_killed_after_the_vendor_accepted(stage: Stage, place: str) -> None:
    daemon = await stage.begin(faults=f"{place}=kill")
    (task,) = await stage.abandon(1)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    await stage.until("the vendor has stopped it", lambda: [one["accepted"] for one in stage.requests()] == [True])
    assert stage.outcomes(task) == ["sent"]

    await daemon.start()
    await stage.recovers("it has ended", lambda: stage.ended([task]))
    await stage.audit(stopped=[task], killed=True)
    # What had been read may have been noted elsewhere than in the database; what had not is found out.
    found_out = ["unknown", "stopped_earlier"]
    assert stage.outcomes(task) in ([found_out] if place == "stop.left" else [found_out, ["stopped"]])


@fault(4, "kill -9 at random, under load", halts=math.inf)
async def test_killed_at_random(stage: Stage) -> None:
    """Two daemons on one database, one of them killed again and again, while rooms become empty all the time."""
    window = {"max_idle_seconds": 900}
    await stage.open(max_idle_seconds=900)
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(0, 0.3)))
    await kill_at_random(stage, [stage.daemon(policy=window), stage.daemon(policy=window)], KILLS)


async def kill_at_random(stage: Stage, daemons: Sequence[Daemon], kills: int) -> None:
    """Start the daemons, kill them again and again while rooms become empty, and audit what they did."""
    chance = random.Random(4)  # noqa: S311 - a test's own
    for daemon in daemons:
        await daemon.start()
    talking = await stage.talk(5)
    rooms: list[str] = []
    for _ in range(kills):
        rooms += await stage.abandon(4)
        victim = chance.choice(daemons)
        await stage.clock.sleep(chance.uniform(0, 0.6))
        await victim.end(signal.SIGKILL)
        stage.struck()
        await victim.start()

    await stage.recovers("every room's task has ended", lambda: stage.ended(rooms), seconds=120)
    for daemon in daemons:
        assert await daemon.end() == 0
    await stage.audit(stopped=rooms, kept=talking, killed=True)


@fault(5, "SIGTERM with requests in flight", halts=math.inf)
async def test_told_to_end_with_requests_in_flight(stage: Stage) -> None:
    daemon = await stage.begin()
    stage.sandbox.perform(SLOW_REPLY)
    rooms = await stage.abandon(20)
    await stage.until("requests are in flight", lambda: len(stage.attempts("sent")) >= 3)
    stage.struck()
    assert await daemon.end() == 0
    assert stage.attempts("sent") == []
    assert {row["outcome"] for row in stage.attempts()} == {"stopped"}
    held = "SELECT task_id FROM zego_tasks WHERE claimed_by IS NOT NULL"
    assert stage.application.rows(held) == [], "what was not sent was to be given back"

    await daemon.start()
    await stage.recovers("the rest is stopped", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    assert all(stage.outcomes(task) == ["stopped"] for task in rooms)


@fault(5, "a second SIGTERM", halts=math.inf)
async def test_told_twice_to_end(stage: Stage) -> None:
    daemon = await stage.begin()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(1.8, 1.8), requests=3))
    rooms = await stage.abandon(3)

    def taken() -> int:
        return sum(event["event"] == "task_stopped" for event in stage.sandbox.events())

    await stage.until("the requests are with ZEGO", lambda: taken() == 3)
    daemon.send(signal.SIGTERM)
    await stage.until("it says that it is ending", lambda: bool(daemon.events("stopping")))
    stage.struck()
    assert await daemon.end(signal.SIGTERM, seconds=10) == 0
    assert {row["outcome"] for row in stage.attempts()} == {"unknown"}, "nobody waits for an answer any more"

    # The audit cannot know that nobody waits, and would take the next request for one too many.
    await stage.until("ZEGO has done with them", lambda: len(stage.requests()) == 3)
    await daemon.start()
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms, killed=True)


@fault(6, "frozen for longer than its lease, an answer on its way", halts=math.inf)
async def test_frozen_with_a_request_in_flight(stage: Stage) -> None:
    await stage.open()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(1.5, 1.5), requests=1))
    frozen, other = stage.daemon(), stage.daemon()
    await frozen.start()
    (task,) = await stage.abandon(1)
    await stage.until(
        "the vendor has stopped it", lambda: "task_stopped" in [one["event"] for one in stage.sandbox.events()]
    )
    await freeze(stage, frozen)
    await other.start()
    await stage.recovers("the other one has ended it", lambda: stage.ended([task]))
    assert stage.outcomes(task) == ["unknown", "stopped_earlier"]

    await thaw(stage, frozen)
    await stage.audit(stopped=[task], killed=True)
    assert stage.outcomes(task)[-1] == "stopped_earlier"


@fault(6, "frozen for longer than its lease, about to send", halts=math.inf)
async def test_frozen_before_the_request_leaves(stage: Stage) -> None:
    """The one that is frozen has all it needs to send, and nobody at ZEGO's would know better."""
    await stage.open()
    frozen, other = stage.daemon(), stage.daemon()
    await frozen.start(faults="intend.committed=freeze")
    (task,) = await stage.abandon(1)
    await stage.strikes("it is frozen", lambda: frozen.is_frozen)
    assert stage.outcomes(task) == ["sent"]
    await other.start()
    # People come back before the lease is over: the other one finds them.
    stage.sandbox.perform(Join(room=stage.room_of(task), user="alice"))
    await stage.recovers("the other one spares it", lambda: stage.outcomes(task) == ["unknown", "spared"])

    await thaw(stage, frozen)
    await stage.audit(kept=[task])
    assert not [one for one in stage.requests() if one["task_id"] == task]
    assert stage.outcomes(task)[-1] == "spared"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(6, "frozen within a transaction", halts=math.inf)
async def test_frozen_within_a_transaction(stage: Stage) -> None:
    """On SQLite it would hold the one write lock, and everybody waits for it: that is row 18."""
    await stage.open()
    frozen, other = stage.daemon(), stage.daemon()
    await frozen.start(faults="intend.commit=freeze")
    rooms = await stage.abandon(3)
    await stage.strikes("it is frozen", lambda: frozen.is_frozen)
    more = await stage.abandon(3)
    await other.start()
    await stage.recovers("the other one stops all", lambda: stage.ended([*rooms, *more]))

    await thaw(stage, frozen)
    await stage.audit(stopped=[*rooms, *more])
    wanted = sorted([*rooms, *more])
    assert sorted(one["task_id"] for one in stage.requests() if one["task_id"] in wanted) == wanted, "one request each"


@fault(7, "event loop blocked", halts=math.inf)
async def test_event_loop_blocked(stage: Stage) -> None:
    await stage.open()
    daemon = stage.daemon()
    async with Supervisor(daemon, watchdog_seconds=4) as supervisor:
        await stage.until("it has started", lambda: bool(daemon.events("started")))
        before = await stage.abandon(2)
        await stage.until("it works", lambda: stage.ended(before))
        daemon.send(signal.SIGUSR1)
        stage.struck()
        rooms = await stage.abandon(3)
        await stage.recovers("its successor has stopped all", lambda: stage.ended(rooms))
        assert supervisor.timeouts >= 1
        assert supervisor.starts >= 2
        await stage.audit(stopped=[*before, *rooms], killed=True)


@fault(8, "out of file descriptors", halts=math.inf)
async def test_out_of_file_descriptors(stage: Stage) -> None:
    daemon = await stage.begin(max_idle_seconds=60, policy={"max_idle_seconds": 60})
    # What is open stays open; and there is no connection to ZEGO yet.
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    rooms = await stage.abandon(40)
    await stage.strikes("it cannot ask ZEGO", lambda: bool(daemon.events("occupancy_unreachable")))
    assert daemon.alive
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=60)
    stage.visible(daemon, "occupancy_unreachable")
    await stage.audit(stopped=rooms)


@fault(8, "out of memory", halts=math.inf)
async def test_out_of_memory(stage: Stage) -> None:
    """Nobody can promise to go on without memory; the service manager restarts what does not."""
    await stage.open(max_idle_seconds=90)
    daemon = stage.daemon(policy={"max_idle_seconds": 90})
    async with Supervisor(daemon, watchdog_seconds=4) as supervisor:
        await stage.until("it has started", lambda: bool(daemon.events("started")))
        pid = daemon.pid
        for what, name in MEMORY.items():
            resource.prlimit(pid, what, (daemon.status(name) * 1024, resource.RLIM_INFINITY))
        rooms = await stage.abandon(300)
        await stage.strikes(
            "it has no memory", lambda: "MemoryError" in daemon.log.read_text() or supervisor.starts > 1, seconds=20
        )
        await stage.clock.sleep(2)
        if daemon.pid == pid and daemon.alive:
            for what in MEMORY:
                resource.prlimit(pid, what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        stage.lifted()
        await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=60)
        await stage.audit(stopped=rooms, killed=True)


async def freeze(stage: Stage, daemon: Daemon) -> None:
    """Freeze it where it does not happen to hold SQLite's write lock, and with it everybody else."""
    for _ in range(20):
        daemon.send(signal.SIGSTOP)
        await stage.until("it is frozen", lambda: daemon.is_frozen)
        if not stage.is_sqlite or is_free(stage):
            stage.struck()
            return
        daemon.send(signal.SIGCONT)
        await stage.clock.sleep(0.02)
    raise AssertionError("it always writes")


def is_free(stage: Stage) -> bool:
    with closing(sqlite3.connect(stage.url.removeprefix("sqlite:///"), isolation_level=None, timeout=0.2)) as writer:
        try:
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


async def thaw(stage: Stage, daemon: Daemon) -> None:
    """Let it go on, and wait until it has proved that it is well: it stops a task of its own."""
    for other in stage.daemons:
        if other is not daemon and other.alive:
            assert await other.end() == 0
    daemon.send(signal.SIGCONT)
    proof = await stage.abandon(1)
    await stage.until("it works again", lambda: stage.ended(proof))
