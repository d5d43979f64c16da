"""Many daemons on one PostgreSQL: two are killed, one is frozen past its lease and resumed, and they keep one pace.

The sandbox counts: it lets through as many stops a second as the daemons together may send, or in small a few more, and
throttles the next.

$FAULTS_FULL   set: eight daemons and 5,000 tasks due within a minute, instead of four and 600
"""

import asyncio
import os
import signal
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

import psycopg
import pytest

from tests.faults.harness import Stage, fault
from watchdog.sandbox import Limits, Start

FULL = bool(os.environ.get("FAULTS_FULL"))
DAEMONS, TASKS, SPREAD_SECONDS = (8, 5000, 55) if FULL else (4, 600, 4)
"""Due a little faster than they can be stopped, or one pace would be no different from many."""
PACE = 100
DAEMONS_PACE = PACE if FULL else 0.9 * PACE
"""In small it is played beside other tests, and what is late on a busy machine arrives together."""

LEASE_SECONDS = 20.0 if FULL else 8.0
WINDOW_SECONDS = 300


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(25, "many daemons share the work: two killed, one frozen past its lease")
async def test_many_daemons_share_work_and_pace(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox = await stage.open(
        limits=Limits(start=0, stop=PACE, user_num=PACE), concurrent_tasks=0, max_idle_seconds=WINDOW_SECONDS
    )
    daemons = [
        stage.daemon(
            policy={"max_idle_seconds": WINDOW_SECONDS},
            stop={
                "requests_per_second": DAEMONS_PACE,
                "occupancy_requests_per_second": PACE,
                "request_timeout_seconds": 5,
                "lease_seconds": LEASE_SECONDS,
            },
            schedule={"poll_seconds": 1},
        )
        for _ in range(DAEMONS)
    ]
    for daemon in daemons:
        await daemon.start()
    tasks = []
    for number in range(TASKS):
        tasks.append(str(sandbox.perform(Start(room=f"many-{number}"))["task_id"]))
        if not number % 100:
            await stage.clock.sleep(0)  # the sandbox lives in this loop, too
    began, began_at = stage.clock.monotonic(), stage.clock.time()
    stalls: list[tuple[float, float]] = []
    stalling = asyncio.create_task(watch_for_stalls(stage, stalls))
    await asyncio.to_thread(due_within, stage.url, tasks, 3, SPREAD_SECONDS)

    def stopped() -> int:
        return sum(status != "active" for status in stage.application.statuses().values())

    first, second, frozen = daemons[:3]
    await stage.until("a fifth is done", lambda: stopped() > TASKS / 5, seconds=120)
    await first.end(signal.SIGKILL)
    frozen.send(signal.SIGSTOP)
    frozen_at = stage.clock.monotonic()
    stage.struck(2)
    await stage.until("two fifths are done", lambda: stopped() > 2 * TASKS / 5, seconds=120)
    await second.end(signal.SIGKILL)
    stage.struck()
    await stage.clock.sleep(max(0.0, frozen_at + LEASE_SECONDS + 2 - stage.clock.monotonic()))
    frozen.send(signal.SIGCONT)
    resumed_at = stage.clock.time()
    await stage.recovers("all have ended", lambda: stopped() == TASKS, seconds=180)
    took = stage.clock.monotonic() - began
    stalling.cancel()

    requests = stage.requests()
    arrivals = sorted(event["received_at"] for event in requests)
    throttled = [event for event in sandbox.events() if event["event"] == "throttled"]
    per_task = Counter(event["task_id"] for event in requests)
    per_daemon = Counter(row["instance"] for row in stage.attempts("stopped", "stopped_earlier"))
    names = [daemon.events("started")[-1]["instance"] for daemon in daemons]
    most, busiest_at = busiest_second(arrivals)
    # Requests that arrive while the sandbox is stalled, on a busy machine, seem to arrive at once.
    about_then = max((seconds for at, seconds in stalls if 0 <= at - busiest_at < 1.5), default=0.0)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are the purpose
            f"\n{DAEMONS} daemons, {TASKS} tasks due within {SPREAD_SECONDS} s, {PACE} stops a second allowed: "
            f"all ended after {took:.1f} s\n"
            f"  {len(requests)} requests, {sum(count > 1 for count in per_task.values())} tasks asked for twice; "
            f"outcomes {dict(Counter(row['outcome'] for row in stage.attempts()))}\n"
            f"  most within one second {most}, which began "
            f"{busiest_at - began_at:.1f} s after the first (the frozen one was resumed after "
            f"{resumed_at - began_at:.1f} s); the sandbox itself stood still for up to "
            f"{max((seconds for at, seconds in stalls), default=0.0):.2f} s, "
            f"{about_then:.2f} s about then; throttled by action "
            f"{dict(Counter(event['action'] for event in throttled))}\n"
            f"  stopped by each {[per_daemon[name] for name in names]} (killed, killed, frozen, …)"
        )
    await stage.audit(stopped=tasks, killed=True)
    assert most <= PACE * (1 + about_then)
    assert [event for event in throttled if not stood_still(stalls, event["at"])] == []
    assert all(per_daemon[name] > TASKS / DAEMONS / 4 for name in names[3:]), "the work is spread"
    # As far as the vendor allows: what a daemon that died had under way, another has to ask about.
    assert sum(count > 1 for count in per_task.values()) <= 3 * 64


def due_within(url: str, tasks: Sequence[str], after_seconds: int, spread_seconds: int) -> None:
    """Write down tasks whose rooms have just emptied, and whose graces end evenly within ``spread_seconds``."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO zego_tasks (task_id, room_id, grace_seconds, user_count) VALUES (%s, %s, %s, 2)",
            [
                (task, f"many-{number}", after_seconds + number * spread_seconds // len(tasks))
                for number, task in enumerate(tasks)
            ],
        )
        cursor.execute("UPDATE zego_tasks SET user_count = 0")


async def watch_for_stalls(stage: Stage, stalls: list[tuple[float, float]]) -> None:
    """Note when the sandbox's event loop could not run: what came meanwhile seems to have come together."""
    before = stage.clock.monotonic()
    while True:
        await stage.clock.sleep(0.01)
        now = stage.clock.monotonic()
        stalls.append((stage.clock.time(), now - before - 0.01))
        before = now


def stood_still(stalls: Sequence[tuple[float, float]], at: float) -> bool:
    """Whether the sandbox did within the second that counts for a request at that time."""
    return any(seconds > 0.05 and -0.1 <= at - until < 1.5 for until, seconds in stalls)


def busiest_second(arrivals: Sequence[float]) -> tuple[int, float]:
    """The most requests within any second, and when that began."""
    return max(((bisect_right(arrivals, at + 1) - number, at) for number, at in enumerate(arrivals)), default=(0, 0.0))
