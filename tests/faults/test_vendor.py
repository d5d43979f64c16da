"""Rows 9 to 15: what the vendor, and the way to it, can do."""

import asyncio
import math
import signal
import sys
from itertools import pairwise
from typing import Final

import pytest

from tests.faults.harness import REQUEST_SECONDS, ROOT, Daemon, Stage, fault
from tests.faults.proxy import Mode
from tests.support.running import APP_ID, SECRET, secret_file
from tests.support.tools import needs_root
from watchdog.sandbox import Action, Behave, Body, Drop, Misbehaviour, RequestIdStyle
from watchdog.sandbox.world import Event

OTHER_APP: Final = 777
OTHER_SECRET: Final = "another-made-up-secret"
LONG_WINDOW: Final = {"max_idle_seconds": 60}
"""I3 asks for the last 30 s of the window: what comes before may be lost."""


@pytest.mark.parametrize(
    ("mode", "outcomes"),
    [
        (Mode.REFUSE, {"retry"}),
        (Mode.BLACK_HOLE, {"retry"}),
        # Before the first byte of the request or after it: nobody can tell in advance.
        (Mode.RESET, {"retry", "unknown"}),
        (Mode.RESET_REPLY, {"unknown"}),
        (Mode.SILENT, {"unknown"}),
    ],
    ids=["refused", "black hole", "reset", "reset instead of a reply", "half-open"],
)
@fault(9, "the way of the stops broken: refused, black hole, reset, half-open", halts=math.inf)
async def test_stops_cannot_be_sent(stage: Stage, mode: Mode, outcomes: set[str]) -> None:
    """The occupancy API answers: all that is missing is the stop itself."""
    await stage.open(max_idle_seconds=60)
    proxy = await stage.proxy()
    daemon = stage.daemon(policy=LONG_WINDOW, zego={"asr_url": proxy.url})
    await daemon.start()
    await proxy.set(mode)
    rooms = await stage.abandon(5)
    await stage.strikes("all were tried", lambda: len({one["task_id"] for one in stage.attempts(*outcomes)}) == 5)
    assert {row["outcome"] for row in stage.attempts()} <= outcomes | {"sent"}
    await proxy.set(Mode.PASS)
    stage.lifted()
    await stage.recovers("all have ended", lambda: stage.ended(rooms), seconds=60)
    assert any(daemon.events(outcome) for outcome in outcomes), "it is to be seen in the log"
    # An answer that was read and reset may have been read, as far as the sandbox can tell.
    await stage.audit(stopped=rooms, killed=mode is Mode.RESET_REPLY)
    if mode is Mode.RESET_REPLY:
        assert {stage.outcomes(task)[-1] for task in rooms} == {"stopped_earlier"}


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.BLACK_HOLE, Mode.SILENT], ids=str)
@fault(9, "the vendor unreachable altogether", halts=math.inf)
async def test_vendor_unreachable(stage: Stage, mode: Mode) -> None:
    """Nobody can be asked who is in the rooms: nothing is sent, and it is said why."""
    await stage.open(max_idle_seconds=60)
    proxy = await stage.proxy()
    daemon = stage.daemon(policy=LONG_WINDOW, zego={"asr_url": proxy.url, "rtc_url": proxy.url})
    await daemon.start()
    await proxy.set(mode)
    rooms = await stage.abandon(5)
    await stage.strikes("it is said of each", lambda: len(stage.attempts("withheld")) == 5)
    assert stage.requests() == []
    await proxy.set(Mode.PASS)
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=60)
    stage.visible(daemon, "occupancy_unreachable", "withheld")
    await stage.audit(stopped=rooms)
    assert len(stage.attempts("withheld")) == 5, "said once of each"


@needs_root
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@fault(9, "the way a black hole while a request is sent: it must not arrive later", halts=math.inf)
async def test_what_was_given_up_does_not_arrive_later(stage: Stage) -> None:
    """Without a daemon or a database: it is between the client and the kernel."""
    stage.struck()
    program = await asyncio.create_subprocess_exec(
        *("unshare", "--net", sys.executable, "-m", "tests.faults.late_arrival"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(40):
        arrived, _ = await program.communicate()
    assert arrived.split() == [b"in-time"]
    stage.record.invariants |= {"I1", "I4"}


@fault(10, "reply dropped after processing", quick=True)
async def test_reply_dropped_after_processing(stage: Stage) -> None:
    await stage.begin()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, drop_reply=Drop.AFTER, requests=3))
    rooms = await stage.abandon(3)
    await stage.strikes("nobody knows", lambda: len(stage.attempts("unknown")) == 3)
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    assert [stage.outcomes(task) for task in rooms] == [["unknown", "stopped_earlier"]] * 3


@fault(10, "reply later than the deadline")
async def test_reply_after_the_deadline(stage: Stage) -> None:
    await stage.open()
    late = REQUEST_SECONDS + 1
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(late, late), requests=3))
    daemon = stage.daemon()
    await daemon.start()
    rooms = await stage.abandon(3)
    await stage.strikes("nobody knows", lambda: len(stage.attempts("unknown")) == 3)
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    # What was sent after the deadline was delivered, as far as the sandbox can tell.
    await stage.until("the last reply is out", lambda: len(stage.requests()) >= 6)
    await stage.audit(stopped=rooms, killed=True)
    assert [stage.outcomes(task) for task in rooms] == [["unknown", "stopped_earlier"]] * 3


@pytest.mark.parametrize("action", [Action.STOP, Action.USER_NUM], ids=["stop", "occupancy"])
@fault(11, "one byte a second")
async def test_one_byte_a_second(stage: Stage, action: Action) -> None:
    """No single read takes long, and the reply would take more than a minute."""
    await stage.begin(max_idle_seconds=60, policy=LONG_WINDOW)
    stage.sandbox.perform(Misbehaviour(action=action, drip=True, requests=1))
    rooms = await stage.abandon(1)
    stage.struck()
    given_up = "unknown" if action is Action.STOP else "withheld"
    await stage.until("it is given up", lambda: bool(stage.attempts(given_up)), seconds=20)
    # Nobody waits for it meanwhile, and nobody does afterwards.
    rooms += await stage.abandon(10)
    await stage.recovers("all have ended", lambda: stage.ended(rooms), seconds=40)
    await stage.until("the sandbox has noticed, too", lambda: len(stage.requests()) >= 11, seconds=90)
    await stage.audit(stopped=rooms)


@pytest.mark.parametrize(
    "burst",
    [
        Misbehaviour(action=Action.STOP, http_status=429, requests=20),
        Misbehaviour(action=Action.STOP, http_status=503, requests=20),
        Misbehaviour(action=Action.STOP, code=206, requests=20),
        Misbehaviour(action=Action.STOP, code=207, requests=20),
        Misbehaviour(action=Action.USER_NUM, code=206, requests=5),
    ],
    ids=["429", "503", "206", "207", "206 of the occupancy"],
)
@fault(12, "bursts of 429, 5xx, 206, 207")
async def test_burst(stage: Stage, burst: Misbehaviour) -> None:
    await stage.begin(max_idle_seconds=60, policy=LONG_WINDOW)
    stage.sandbox.perform(burst)
    rooms = await stage.abandon(15)
    stage.struck()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=60)
    await stage.audit(stopped=rooms)
    assert_no_storm(stage)
    if burst.action is Action.STOP:
        assert len(stage.requests()) == 15 + 20, "one request for each refusal, and one for each task"


@fault(12, "throttled down to the slowest pace, and more due than it can take")
async def test_throttled_with_a_queue(stage: Stage) -> None:
    """What waits for its turn for longer than its lease lasts is given back; and yet the queue must move."""
    await stage.begin(max_idle_seconds=120, policy={"max_idle_seconds": 120}, stop={"requests_per_second": 10})
    throttling = Misbehaviour(action=Action.STOP, code=206)
    stage.sandbox.perform(throttling)
    rooms = await stage.abandon(40)
    stage.struck()
    await stage.until("it is slow", lambda: len(stage.attempts("retry")) >= 14, seconds=40)
    await stage.clock.sleep(3)
    stage.sandbox.perform(Behave())
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=70)
    await stage.audit(stopped=rooms)
    assert_no_storm(stage)


def assert_no_storm(stage: Stage) -> None:
    """Check that no task was tried again before a backoff was over."""
    by_task: dict[str, list[float]] = {}
    for request in stage.requests():
        by_task.setdefault(request["task_id"], []).append(request["received_at"])
    gaps = [later - earlier for times in by_task.values() for earlier, later in pairwise(sorted(times))]
    assert min(gaps, default=1.0) > 0.7, "the shortest backoff is 0.8 s"


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        (Misbehaviour(action=Action.STOP, code=410000001, requests=2), None),
        (Misbehaviour(action=Action.STOP, body=Body.HTML, requests=2), "<html>"),
        (Misbehaviour(action=Action.STOP, body=Body.CUT, requests=2), '{"Code"'),
        (Misbehaviour(action=Action.STOP, body=Body.HUGE, requests=2), '{"Code"'),
        (Misbehaviour(action=Action.STOP, request_id=RequestIdStyle.LONG, requests=2), None),
    ],
    ids=["an error code", "HTML", "cut JSON", "64 MiB", "a RequestId beyond 64 bit"],
)
@fault(13, "200 with an error code, HTML, cut JSON, a huge body")
async def test_odd_replies(stage: Stage, reply: Misbehaviour, shown: str | None) -> None:
    daemon = await stage.begin()
    stage.sandbox.perform(reply)
    rooms = await stage.abandon(2)
    stage.struck(2)
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    if shown is not None:
        kept = [row["detail"] for row in stage.attempts() if row["code"] is None]
        assert len(kept) == 2
        assert all(shown in detail for detail in kept), "the raw reply is kept"
        assert all(len(detail) <= 600 for detail in kept), "the beginning of it"
    assert daemon.status("VmHWM") < 200_000, "kB: two replies of 64 MiB would not fit"


@pytest.mark.parametrize("offset", [900, -900], ids=["15 min slow", "15 min fast"])
@fault(14, "signature expired: the host's clock is 15 min off", halts=math.inf)
async def test_clock_is_off(stage: Stage, offset: float) -> None:
    """What counts is the difference, so it is the vendor's clock that is set; a shim for ours is in row 16."""
    await stage.open(clock_offset_seconds=offset)
    daemon = stage.daemon()
    await daemon.start()
    rooms = await stage.abandon(5)
    await stage.strikes("a signature is refused", lambda: bool(refusals(stage)))
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    assert len(refusals(stage)) <= 3, "learned from the first"
    await stage.audit(stopped=rooms)


def refusals(stage: Stage) -> list[Event]:
    return [event for event in stage.sandbox.events() if event["event"] == "rejected_signature"]


@fault(15, "wrong secret", halts=math.inf)
async def test_wrong_secret(stage: Stage) -> None:
    """It concerns one AppId: the other one is served, and this one as soon as its secret is right."""
    await stage.open(apps={APP_ID: SECRET, OTHER_APP: OTHER_SECRET}, max_idle_seconds=60)
    daemon = two_apps(stage, "a-wrong-secret")
    await daemon.start()
    refused = await stage.abandon(20, app_id=OTHER_APP)
    served = await stage.abandon(10)
    await stage.strikes("it is refused", lambda: bool(refusals(stage)))
    await stage.until("the other AppId is served", lambda: stage.ended(served))
    before = len(refusals(stage))
    await stage.clock.sleep(5)
    assert len(refusals(stage)) - before <= 5, f"hammering: {len(refusals(stage)) - before} requests in 5 s"
    stage.visible(daemon, "app_blocked")

    (daemon.folder / "other_secret").write_text(OTHER_SECRET)
    daemon.send(signal.SIGHUP)
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(refused), seconds=40)
    await stage.audit(stopped=[*served, *refused])
    assert len(daemon.events("app_blocked")) == 1, "said once"


@fault(15, "service not enabled", halts=math.inf)
async def test_service_not_enabled(stage: Stage) -> None:
    daemon = await stage.begin(max_idle_seconds=60, policy=LONG_WINDOW, stop={"blocked_retry_seconds": 2})
    stage.sandbox.perform(Misbehaviour(action=Action.STOP, code=410000006))
    rooms = await stage.abandon(40)
    await stage.strikes("it is blocked", lambda: bool(stage.attempts("blocked")))
    await stage.until("what was on its way is back", lambda: not stage.attempts("sent"))
    before = len(stage.requests())
    await stage.clock.sleep(6)
    probes = len(stage.requests()) - before
    assert 1 <= probes <= 4, f"{probes} requests in 6 s: one every 2 s is meant"
    stage.visible(daemon, "app_blocked")

    stage.sandbox.perform(Behave())
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=40)
    stage.visible(daemon, "app_unblocked")
    await stage.audit(stopped=rooms)


def two_apps(stage: Stage, other_secret: str) -> Daemon:
    """Make a daemon that serves two AppIds; the second one's secret is in ``other_secret`` in its folder."""
    daemon = stage.daemon(policy=LONG_WINDOW, stop={"blocked_retry_seconds": 2})
    apps = []
    for app_id, name, secret in ((APP_ID, "server_secret", SECRET), (OTHER_APP, "other_secret", other_secret)):
        apps.append({"app_id": app_id, "server_secret_file": secret_file(daemon.folder / name, secret)})
    daemon.configure(zego={"apps": apps})
    return daemon
