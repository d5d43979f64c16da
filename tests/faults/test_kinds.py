"""Rows 1 to 4, 10, 12 and 15 with tasks of other kinds than ASR: the same promises, another API."""

import math
from typing import Final

import pytest

from tests.faults.harness import Stage, fault
from tests.faults.test_processes import kill_at_random
from watchdog.sandbox import Action, Behave, Drop, Join, Misbehaviour

SHORT: Final = {"request_timeout_seconds": 0.8, "lease_seconds": 2.9}
KILLS: Final = 10
WINDOW_SECONDS: Final = 60


@fault(1, "of an agent: killed before the attempt is committed", quick=True, halts=math.inf)
async def test_killed_before_the_attempt_is_committed(stage: Stage) -> None:
    stage.kind = "agent"
    daemon = await stage.begin(faults="intend.commit=kill", stop=SHORT)
    rooms = await stage.abandon(3)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    assert stage.requests() == []
    await daemon.start()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    assert {(row["kind"], row["outcome"], row["reason"]) for row in stage.attempts()} == {
        ("agent", "stopped", "empty_room")
    }


@fault(2, "of an agent: killed after commit, before send", halts=math.inf)
async def test_killed_before_the_request_leaves(stage: Stage) -> None:
    stage.kind = "agent"
    daemon = await stage.begin(faults="intend.committed=kill", stop=SHORT)
    rooms = await stage.abandon(3)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    back = stage.attempts("sent")[0]["task_id"]
    stage.sandbox.perform(Join(room=stage.room_of(back), user="alice"))
    await daemon.start()
    empty = [task for task in rooms if task != back]
    await stage.recovers("the others are stopped", lambda: stage.ended(empty))
    await stage.until("the room is spared", lambda: "spared" in stage.outcomes(back))
    await stage.audit(stopped=empty, kept=[back])


@fault(3, "of an agent: killed after the vendor accepted", halts=math.inf)
async def test_killed_after_the_vendor_accepted(stage: Stage) -> None:
    stage.kind = "agent"
    daemon = await stage.begin(faults="stop.left=kill")
    (task,) = await stage.abandon(1)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    await stage.until("the vendor has stopped it", lambda: [one["accepted"] for one in stage.requests()] == [True])
    await daemon.start()
    await stage.recovers("it has ended", lambda: stage.ended([task]))
    await stage.audit(stopped=[task], killed=True)
    assert stage.outcomes(task) == ["unknown", "stopped_earlier"]


@fault(4, "of recordings: kill -9 at random, under load", halts=math.inf)
async def test_killed_at_random(stage: Stage) -> None:
    stage.kind, stage.window_seconds = "recording", 900
    await stage.open()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP_RECORDING, reply_latency_seconds=(0, 0.3)))
    await kill_at_random(stage, [stage.daemon(), stage.daemon()], KILLS)


@pytest.mark.parametrize("kind", ["agent", "digital_human"])
@fault(10, "of an agent or a digital human: reply dropped after processing", quick=True)
async def test_reply_dropped_after_processing(stage: Stage, kind: str) -> None:
    stage.kind = kind
    await stage.begin()
    action = Action.STOP_AGENT if kind == "agent" else Action.STOP_DIGITAL_HUMAN
    stage.sandbox.perform(Misbehaviour(action=action, drop_reply=Drop.AFTER, requests=3))
    rooms = await stage.abandon(3)
    await stage.strikes("nobody knows", lambda: len(stage.attempts("unknown")) == 3)
    await stage.recovers("all have ended", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)
    assert [stage.outcomes(task) for task in rooms] == [["unknown", "stopped_earlier"]] * 3


@fault(10, "of a player, which has no code for that it is gone: reply dropped after processing")
async def test_a_player_whose_reply_was_dropped_is_never_guessed_at(stage: Stage) -> None:
    stage.kind = "player"
    await stage.begin()
    stage.sandbox.perform(Misbehaviour(action=Action.STOP_PLAYER, drop_reply=Drop.AFTER, requests=1))
    (task,) = await stage.abandon(1)
    await stage.strikes("nobody knows", lambda: stage.outcomes(task) == ["unknown"])
    await stage.recovers("it was asked again", lambda: len(stage.attempts("unknown")) >= 3)
    assert {row["code"] for row in stage.attempts("unknown")} == {None, "350006003"}
    assert not stage.ended([task])
    stage.record.invariants |= {"I1", "I2", "I4"}


@fault(12, "of recordings: bursts of 429, 5xx, and the code for too many requests")
@pytest.mark.parametrize(
    "burst",
    [
        Misbehaviour(action=Action.STOP_RECORDING, http_status=429, requests=20),
        Misbehaviour(action=Action.STOP_RECORDING, http_status=503, requests=20),
        Misbehaviour(action=Action.STOP_RECORDING, code=300000003, requests=20),
    ],
    ids=["429", "503", "300000003"],
)
async def test_burst(stage: Stage, burst: Misbehaviour) -> None:
    stage.kind, stage.window_seconds = "recording", WINDOW_SECONDS
    await stage.begin()
    stage.sandbox.perform(burst)
    rooms = await stage.abandon(15)
    stage.struck()
    await stage.recovers("all are stopped", lambda: stage.ended(rooms), seconds=60)
    await stage.audit(stopped=rooms)
    assert len(stage.requests()) == 15 + 20, "one request for each refusal, and one for each task"


@fault(15, "of recordings: refused for the whole AppId, and tasks of ASR beside them", quick=True, halts=math.inf)
async def test_refused(stage: Stage) -> None:
    daemon = await stage.begin(stop={"blocked_retry_seconds": 2})
    stage.sandbox.perform(Misbehaviour(action=Action.STOP_RECORDING, code=100000005))
    stage.kind, stage.window_seconds = "recording", WINDOW_SECONDS
    recordings = await stage.abandon(5)
    await stage.strikes("it is blocked", lambda: bool(stage.attempts("blocked")))
    stage.kind, stage.window_seconds = "asr", WINDOW_SECONDS
    speech = await stage.abandon(5)
    await stage.until("ASR is served meanwhile", lambda: stage.ended(speech))
    assert not stage.ended(recordings[:1])
    stage.visible(daemon, "app_blocked")
    stage.sandbox.perform(Behave())
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(recordings), seconds=40)
    stage.visible(daemon, "app_unblocked")
    await stage.audit(stopped=[*recordings, *speech])
