"""Rows 57 to 60: the vendor's clock, connections and replies, and what others send to the daemon's HTTP server."""

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any

import pytest

from tests.faults.client import LISTEN, Pulse, address, hanging, request
from tests.faults.harness import Daemon, Stage, fault
from tests.faults.proxy import Mode
from tests.faults.test_evidence import CALLBACK_SECRET, JSON, with_callbacks
from tests.support.running import APP_ID
from watchdog.core.signing import callback_signature

AHEAD_SECONDS = 30.0
NONCE = "654321"
FLOODED, DRIPPING = 20, 30


async def post(daemon: Daemon, body: dict[str, Any]) -> str:
    """Send a callback; return the answer in one word."""
    content = json.dumps(body).encode()
    _, answer = await asyncio.to_thread(request, address(daemon), "POST", "/callbacks/zego", body=content, headers=JSON)
    return answer.strip()


def task_event(event: str, timestamp: str, nonce: str, **fields: Any) -> dict[str, Any]:
    seal = {"Timestamp": timestamp, "Nonce": nonce, "Signature": callback_signature(CALLBACK_SECRET, timestamp, nonce)}
    return {"AppId": APP_ID, "Event": event} | seal | fields


def room_event(event: str, timestamp: str, nonce: str, **fields: Any) -> dict[str, Any]:
    seal = {"timestamp": timestamp, "nonce": nonce, "signature": callback_signature(CALLBACK_SECRET, timestamp, nonce)}
    return {"event": event, "appid": str(APP_ID)} | seal | fields


# -- 57: the vendor's clock --


@pytest.mark.parametrize("ahead", [AHEAD_SECONDS, -AHEAD_SECONDS], ids=["ahead", "behind"])
@fault(57, "the clock of ZEGO's callbacks 30 s off, and speech that arrives after the stop", quick=True)
async def test_speech_before_a_stop_is_no_return(stage: Stage, ahead: float) -> None:
    await stage.open()
    daemon = with_callbacks(stage)
    await daemon.start()
    nonce = 100_000

    def speech(task: str, room: str) -> dict[str, Any]:
        nonlocal nonce
        nonce += 1
        said = {"UserId": "alice", "Text": "Hello?"}
        timestamp = str(round((stage.clock.time() + ahead) * 1000))
        return task_event("ASRResult", timestamp, str(nonce), TaskId=task, RoomId=room, Data=said)

    (kept,) = await stage.talk(1, says=2)
    assert await post(daemon, speech(kept, stage.room_of(kept))) == "accepted"
    (task,) = await stage.abandon(1)
    late = speech(task, stage.room_of(task))
    stage.struck()
    await stage.recovers("it has ended", lambda: stage.ended([task]))
    assert await post(daemon, late) == "accepted"
    assert returns(stage) == [None], "it was said before the stop"
    await stage.clock.sleep(0.1)
    assert await post(daemon, speech(task, stage.room_of(task))) == "accepted"
    assert returns(stage) != [None], "this was said after it"
    await stage.audit(stopped=[task], kept=[kept])


def returns(stage: Stage) -> list[Any]:
    return [row["rejoined_at"] for row in stage.application.rows("SELECT rejoined_at FROM zego_rejoins")]


# -- 58: connections that may be used once --


@fault(58, "each connection to ZEGO is reset when it is used a second time", quick=True)
async def test_connections_may_be_used_once(stage: Stage) -> None:
    await stage.open()
    proxies = [await stage.proxy() for _ in range(2)]
    for proxy in proxies:
        await proxy.set(Mode.RESET_REUSE)
    daemon = stage.daemon(zego={"asr_url": proxies[0].url, "rtc_url": proxies[1].url})
    await daemon.start()
    rooms = []
    for _ in range(8):
        rooms += await stage.abandon(1)
        stage.struck()
        await stage.clock.sleep(0.4)
    took = await stage.recovers("all have ended", lambda: stage.ended(rooms))
    assert took < 10, "one backoff"
    assert len(stage.attempts("unknown")) <= 1, "after the first reset no connection is used again"
    assert stage.attempts("withheld") == [], "a question is asked again at once"
    stage.visible(daemon, "connections_not_reused")
    await stage.audit(stopped=rooms)


# -- 59: a captured callback --


@fault(59, "a captured callback with another body, its signature divided in another way", quick=True)
async def test_a_captured_callback_is_not_forged(stage: Stage) -> None:
    """Timestamp and nonce are hashed as one text, so ``…113654`` + ``321`` has the seal of ``…113`` + ``654321``."""
    await stage.open()
    daemon = with_callbacks(stage, policy={"verify": "off"}, guard={"unverified_per_minute": 0, "unverified_share": 0})
    await daemon.start()
    talking = await stage.talk(2, says=2)
    seconds = str(int(stage.clock.time()))
    milliseconds, rest = seconds + NONCE[:3], NONCE[3:]
    login = {"room_seq": "1", "user_account": "alice", "session_id": "7", "login_time": milliseconds, "user_role": "1"}
    genuine = room_event("room_login", seconds, NONCE, room_id=stage.room_of(talking[0]), **login)
    assert await post(daemon, genuine) == "accepted"
    idle = {"Code": 1202, "Message": "idle"}
    ended = task_event("Exception", milliseconds, rest, TaskId=talking[0], RoomId=stage.room_of(talking[0]), Data=idle)
    assert ended["Signature"] == genuine["signature"], "the same characters, divided in another way"
    await post(daemon, ended)
    stage.struck()

    said = {"UserId": "alice", "Text": "Hello?"}
    milliseconds, rest = str(int(seconds) + 1) + "777", "888"
    room = stage.room_of(talking[1])
    heard = task_event("ASRResult", milliseconds, rest, TaskId=talking[1], RoomId=room, Data=said)
    assert await post(daemon, heard) == "accepted"
    closing = {"room_session_id": 9, "room_close_time": milliseconds, "close_reason": 0}
    closed = room_event("room_close", milliseconds[:10], milliseconds[10:] + rest, room_id=room, **closing)
    assert closed["signature"] == heard["Signature"]
    await post(daemon, closed)
    stage.struck()
    await stage.clock.sleep(2)
    assert not stage.requests()
    await stage.audit(kept=talking)


# -- 60: slow and endless --


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
@fault(60, "bodies that drip, on every path of the HTTP server", quick=True)
async def test_bodies_drip(stage: Stage, path: str) -> None:
    daemon = await stage.begin(http=LISTEN)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode()
    slow = [await asyncio.to_thread(hanging, address(daemon), head) for _ in range(DRIPPING)]
    stage.struck(DRIPPING)
    rooms = await stage.abandon(5)
    await stage.recovers("tasks are stopped meanwhile", lambda: stage.ended(rooms))

    def all_are_closed() -> bool:
        for one in slow:
            with suppress(ConnectionError):
                one.sendall(b" ")
        return all(is_closed(one) for one in slow)

    await stage.until("no connection is held", all_are_closed)
    for one in slow:
        one.close()
    await stage.audit(stopped=rooms)


def is_closed(one: socket.socket) -> bool:
    """Whether the other side has closed; what it said before is thrown away."""
    one.setblocking(False)
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        one.setblocking(True)
    return True


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@fault(60, "a flood of 1xx responses instead of the replies to stops", quick=True)
async def test_a_flood_of_informational_responses(stage: Stage) -> None:
    await stage.open(max_idle_seconds=60)
    proxy = await stage.proxy()
    daemon = stage.daemon(policy={"max_idle_seconds": 60}, zego={"asr_url": proxy.url}, http=LISTEN)
    await daemon.start()
    await proxy.set(Mode.FLOOD)
    rooms = await stage.abandon(FLOODED)
    async with Pulse(daemon) as pulse:
        await stage.strikes("none has an answer", lambda: len(stage.attempts("unknown")) >= FLOODED)
    assert pulse.longest_seconds < 5, "the event loop has time for others"
    await proxy.set(Mode.PASS)
    stage.lifted()
    await stage.recovers("all have ended", lambda: stage.ended(rooms), seconds=40)
    details = {row["detail"] for row in stage.attempts("unknown")}
    assert all("informational responses" in detail for detail in details), details
    await stage.audit(stopped=rooms, killed=True)
