"""The sandbox over real HTTP on the loopback, on a clock turned by hand."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2 as httpx
import pytest

from tests.support.clock import SettableClock
from watchdog.core.model import Outcome
from watchdog.core.signing import sign
from watchdog.errors import ConfigError
from watchdog.sandbox import Action, Body, Drop, Join, Leave, Limits, Misbehaviour, RequestIdStyle, Sandbox, Start, Stop
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.referee import judge
from watchdog.sandbox.replies import HUGE_BYTES
from watchdog.sandbox.world import Event

APP, SECRET, NOW = 12345, "9193cc662a4c0ec135ec71fb57194b38", 1_700_000_000.0


class Client:
    """A sandbox, a client of it, and their clock."""

    def __init__(self, sandbox: Sandbox, clock: SettableClock, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.clock = clock
        self.http = http

    def query(self, action: str) -> str:
        timestamp = int(self.clock.time())
        return urlencode(
            {
                "Action": action,
                "AppId": APP,
                "SignatureNonce": "4fd24687296dd9f3",
                "Timestamp": timestamp,
                "SignatureVersion": "2.0",
                "Signature": sign(APP, "4fd24687296dd9f3", SECRET, timestamp),
            }
        )

    async def stop(self, task_id: str = "1") -> httpx.Response:
        return await self.http.post(f"/?{self.query(Action.STOP)}", json={"TaskId": task_id})

    def start(self, room: str = "room") -> str:
        return str(self.sandbox.perform(Start(room=room))["task_id"])

    def stop_requests(self) -> list[Event]:
        return [event for event in self.sandbox.events() if event["event"] == "stop_requested"]

    def is_running(self, task_id: str) -> bool:
        return task_id in [task["task_id"] for task in self.sandbox.state()["tasks"]]

    async def stop_in_the_background(self, task_id: str) -> asyncio.Task[httpx.Response]:
        request = asyncio.create_task(self.stop(task_id))
        await self.clock.asleep()
        return request

    async def gone(self) -> None:
        """Return once the sandbox has noticed that the client's connection is closed."""
        await self.http.aclose()
        async with httpx.AsyncClient(base_url=self.sandbox.url) as another:
            await another.get("/_sandbox/state")


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Client]:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with (
        Sandbox({APP: SECRET}, clock=clock, seed=1, **settings) as sandbox,
        httpx.AsyncClient(base_url=sandbox.url, timeout=10) as http,
    ):
        yield Client(sandbox, clock, http)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(limits=Limits(stop=0, user_num=0)) as served:
        yield served


async def test_a_room_from_start_to_auto_stop(client: Client) -> None:
    body = {"RoomId": "room", "AdvancedConfig": {"MaxIdleTime": 60}}
    started = (await client.http.post(f"/?{client.query(Action.START)}", json=body)).json()
    assert (started["Code"], started["Message"]) == (0, "Success")
    task_id = started["Data"]["TaskId"]
    client.sandbox.perform(Join(room="room", user="alice"))
    client.clock.advance(500)
    client.sandbox.perform(Leave(room="room", user="alice"))
    client.clock.advance(59.9)
    assert client.is_running(task_id)
    client.clock.advance(30)
    reply = await client.stop(task_id)
    assert reply.json()["Code"] == 410001002
    assert [(e["event"], e["at"] - NOW) for e in client.sandbox.events()] == [
        ("task_started", 0),
        ("join", 0),
        ("leave", 500),
        ("auto_stopped", 560),
        ("stop_requested", pytest.approx(589.9)),
    ]


async def test_an_accepted_stop_is_recorded_with_everything_the_referee_needs(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Join(room="room", user="alice"))
    reply = await client.stop(task_id)
    assert reply.status_code == 200
    assert list(reply.json()) == ["Code", "Message", "RequestId"]
    stopped, requested = client.sandbox.events()[-2:]
    assert stopped["event"] == "task_stopped"
    assert requested == {
        "seq": 4,
        "at": NOW,
        "event": "stop_requested",
        "received_at": NOW,
        "processed_at": NOW,
        "app_id": APP,
        "nonce": "4fd24687296dd9f3",
        "kind": "asr",
        "task_id": task_id,
        "room_id": "room",
        "people": 1,
        "users": [{"user_id": "alice", "role": 1}],
        "code": 0,
        "http_status": 200,
        "request_id": reply.json()["RequestId"],
        "processed": True,
        "accepted": True,
        "readable": True,
        "delivered": True,
    }


async def test_an_accepted_stop_of_an_agent_is_recorded_with_its_kind(client: Client) -> None:
    agent = client.sandbox.perform(Start(room="room", kind=Kind.AGENT, user="robot"))["task_id"]
    reply = await client.http.post(f"/?{client.query(Action.STOP_AGENT)}", json={"AgentInstanceId": agent})
    assert reply.json()["Code"] == 0
    (requested,) = client.stop_requests()
    assert (requested["kind"], requested["task_id"], requested["accepted"]) == ("agent", agent, True)
    assert (requested["people"], requested["users"]) == (
        0,
        [{"user_id": "robot", "role": 1, "brought_by": "agent"}],
    )
    assert not client.is_running(agent)


async def test_a_list_and_a_count_are_no_stop_requests(client: Client) -> None:
    for action in (Action.LIST_PLAYERS, Action.START_RECORDING):
        await client.http.post(f"/?{client.query(action)}", json={"RoomId": "room"})
    assert client.stop_requests() == []


async def test_the_control_api_ends_the_media_of_a_player_and_stops_an_agent_gracefully(client: Client) -> None:
    player = client.sandbox.perform(Start(room="room", kind=Kind.PLAYER, max_idle_seconds=5))["task_id"]
    agent = client.sandbox.perform(Start(room="room", kind=Kind.AGENT))["task_id"]
    assert await control(client, "end_media", {"task_id": player}) == (200, {"task_id": player})
    assert await control(client, "stop", {"task_id": agent, "graceful_seconds": 3}) == (200, {"task_id": agent})
    client.clock.advance(2)
    assert client.is_running(agent)
    client.clock.advance(3)
    assert client.sandbox.state()["tasks"] == []


async def test_user_num_and_user_list_over_http(client: Client) -> None:
    client.sandbox.perform(Join(room="room", user="alice", name="Alice"))
    reply = await client.http.get(f"/?{client.query(Action.USER_NUM)}&RoomId[]=room&RoomId[]=other")
    counts = [(c["RoomId"], c["UserCount"]) for c in reply.json()["Data"]["UserCountList"]]
    assert counts == [("room", 1), ("other", 0)]
    reply = await client.http.get(f"/?{client.query(Action.USER_LIST)}&RoomId=room")
    assert reply.json()["Data"]["UserList"] == [{"UserId": "alice", "UserName": "Alice", "UserRole": 1}]


async def test_every_stop_has_one_entry_whatever_came_of_it() -> None:
    async with serving(limits=Limits(stop=2)) as client:
        task_id = client.start()
        await client.stop(task_id)
        await client.stop(task_id)
        await client.stop(task_id)
        await client.http.post(f"/?{client.query(Action.STOP)}", content=b"not json")
        await client.http.post("/?Action=StopRealtimeASRTask", json={"TaskId": task_id})
        client.sandbox.perform(Misbehaviour(http_status=500))
        await client.stop(task_id)
        assert [(r["code"], r["http_status"], r["task_id"]) for r in client.stop_requests()] == [
            (0, 200, task_id),
            (410001002, 200, task_id),
            (206, 200, task_id),
            (206, 200, None),
            (100000001, 200, task_id),
            (None, 500, task_id),
        ]


async def test_the_date_header_follows_the_vendors_clock() -> None:
    async with serving(clock_offset_seconds=-900.0) as client:
        reply = await client.stop()
        assert reply.json()["Code"] == 100000004
        assert parsedate_to_datetime(reply.headers["date"]).timestamp() == NOW - 900
        client.clock.advance(2.5)
        reply = await client.http.get("/")
        assert parsedate_to_datetime(reply.headers["date"]).timestamp() == NOW - 898
        assert client.stop_requests()[0]["at"] == NOW


async def test_the_referee_agrees_with_what_a_client_saw_and_notices_what_it_forgot(client: Client) -> None:
    first, second = client.start("a"), client.start("b")
    client.sandbox.perform(Misbehaviour(http_status=502, requests=1))
    client.sandbox.perform(Misbehaviour(drop_reply=Drop.AFTER, requests=1))
    rows: list[dict[str, Any]] = []

    def record(task_id: str, outcome: Outcome, status: int | None, reply: Mapping[str, Any]) -> None:
        code, request_id = reply.get("Code"), reply.get("RequestId")
        rows.append({"task_id": task_id, "outcome": outcome, "http_status": status, "code": code})
        rows[-1]["request_id"] = request_id

    record(first, Outcome.RETRY, (await client.stop(first)).status_code, {})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.stop(second)
    record(second, Outcome.UNKNOWN, None, {})
    for task_id, outcome in ((first, Outcome.STOPPED), (second, Outcome.STOPPED_EARLIER)):
        reply = await client.stop(task_id)
        record(task_id, outcome, reply.status_code, reply.json())
    verdict = judge(client.sandbox.events(), rows)
    assert verdict.disagreements == ()
    assert (verdict.stopped_in_time, verdict.requests_received, verdict.attempts_recorded) == (2, 4, 4)
    for forgotten in range(4):
        assert len(judge(client.sandbox.events(), rows[:forgotten] + rows[forgotten + 1 :]).disagreements) == 1


# --- misbehaviour


async def test_http_errors_are_a_gateways_page_and_leave_the_task_alone(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(action=Action.STOP, http_status=502, requests=1))
    reply = await client.stop(task_id)
    assert reply.status_code == 502
    assert reply.headers["content-type"] == "text/html"
    assert client.is_running(task_id)
    (request,) = client.stop_requests()
    assert (request["code"], request["request_id"], request["processed"], request["readable"]) == (
        None,
        None,
        False,
        False,
    )
    assert (await client.stop(task_id)).json()["Code"] == 0


async def test_an_http_error_may_hide_a_stop_that_took_place(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(http_status=504, processed=True))
    assert (await client.stop(task_id)).status_code == 504
    assert not client.is_running(task_id)
    assert client.stop_requests()[0]["accepted"] is True


async def test_a_told_code_replaces_the_vendors(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(code=410000001))
    reply = (await client.stop(task_id)).json()
    assert reply["Code"] == 410000001
    assert client.is_running(task_id)
    (request,) = client.stop_requests()
    assert (request["code"], request["request_id"], request["accepted"]) == (410000001, reply["RequestId"], False)


async def test_a_told_code_may_hide_a_stop_that_took_place(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(code=410000001, processed=True))
    reply = (await client.stop(task_id)).json()
    stopped, request = client.sandbox.events()[-2:]
    assert (stopped["event"], stopped["request_id"]) == ("task_stopped", reply["RequestId"])
    assert (request["code"], request["accepted"]) == (410000001, True)


@pytest.mark.parametrize(("drop", "survives"), [(Drop.BEFORE, True), (Drop.AFTER, False)])
async def test_a_dropped_reply(client: Client, drop: Drop, *, survives: bool) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(drop_reply=drop, requests=1))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.stop(task_id)
    assert client.is_running(task_id) is survives
    (request,) = client.stop_requests()
    assert (request["processed"], request["delivered"]) == (not survives, False)
    assert (request["request_id"] is None) is survives
    assert (await client.stop(task_id)).json()["Code"] == (0 if survives else 410001002)


async def test_latency_passes_before_the_request_takes_effect(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(latency_seconds=(3, 3)))
    request = await client.stop_in_the_background(task_id)
    client.sandbox.perform(Join(room="room", user="alice"))
    assert client.is_running(task_id)
    client.clock.advance(3)
    assert (await request).json()["Code"] == 0
    (entry,) = client.stop_requests()
    assert (entry["received_at"] - NOW, entry["processed_at"] - NOW, entry["people"]) == (0, 3, 1)


async def test_reply_latency_passes_after_it(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(reply_latency_seconds=(3, 3)))
    request = await client.stop_in_the_background(task_id)
    assert not client.is_running(task_id)
    client.sandbox.perform(Join(room="room", user="alice"))
    client.clock.advance(3)
    assert (await request).json()["Code"] == 0
    assert client.stop_requests()[0]["people"] == 0


async def test_a_client_that_gives_up_is_not_delivered_to_but_its_stop_takes_effect(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(latency_seconds=(30, 30)))
    request = await client.stop_in_the_background(task_id)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await client.gone()
    client.clock.advance(30)
    async with httpx.AsyncClient(base_url=client.sandbox.url) as another:
        log = (await another.get("/_sandbox/log")).json()["events"]
    (entry,) = [event for event in log if event["event"] == "stop_requested"]
    assert (entry["accepted"], entry["delivered"], entry["code"]) == (True, False, 0)


async def test_garbage_instead_of_json(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(body=Body.HTML))
    reply = await client.stop()
    assert (reply.status_code, reply.content[:6]) == (200, b"<html>")


async def test_cut_json(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(body=Body.CUT))
    reply = await client.stop()
    assert reply.content.startswith(b'{"Code":410001002')
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    (entry,) = client.stop_requests()
    assert (entry["readable"], entry["delivered"], entry["code"]) == (False, True, 410001002)


async def test_a_huge_body(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(body=Body.HUGE))
    size = 0
    async with client.http.stream("POST", f"/?{client.query(Action.STOP)}", json={"TaskId": "1"}) as reply:
        async for part in reply.aiter_raw():
            size += len(part)
    assert HUGE_BYTES < size < HUGE_BYTES + 200
    assert client.stop_requests()[0]["readable"] is False


async def test_a_request_id_that_is_a_number(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(request_id=RequestIdStyle.NUMBER))
    request_id = (await client.stop()).json()["RequestId"]
    assert isinstance(request_id, int)
    assert client.stop_requests()[0]["request_id"] == str(request_id)


async def test_a_request_id_beyond_64_bit(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(request_id=RequestIdStyle.LONG))
    request_id = (await client.stop()).json()["RequestId"]
    assert int(request_id) > 2**64
    assert client.stop_requests()[0]["request_id"] == request_id


async def raw_stop(client: Client, task_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(client.sandbox.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    body = json.dumps({"TaskId": task_id}).encode()
    head = f"POST /?{client.query(Action.STOP)} HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


async def test_a_dripping_body_comes_at_one_byte_a_second(client: Client) -> None:
    client.sandbox.perform(Misbehaviour(drip=True))
    reader, writer = await raw_stop(client, "1")
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    while not body.endswith(b"}"):
        await client.clock.asleep()
        client.clock.advance(1)
        body += await reader.readexactly(1)
    assert json.loads(body)["Code"] == 410001002
    assert f"content-length: {len(body)}".encode() in head
    assert client.clock.time() - NOW == len(body)
    assert client.stop_requests()[0]["delivered"] is True
    writer.close()


async def test_a_drip_that_the_client_cuts_short_is_not_delivered(client: Client) -> None:
    task_id = client.start()
    client.sandbox.perform(Misbehaviour(drip=True))
    reader, writer = await raw_stop(client, task_id)
    await reader.readuntil(b"\r\n\r\n")
    await client.clock.asleep()
    writer.close()
    await writer.wait_closed()
    await client.http.get("/_sandbox/state")
    client.clock.advance(1)
    await client.http.get("/_sandbox/state")
    (entry,) = client.stop_requests()
    assert (entry["accepted"], entry["delivered"]) == (True, False)


async def test_closing_does_not_wait_for_what_is_held_up(caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with httpx.AsyncClient() as http:
        async with Sandbox({APP: SECRET}, clock=clock) as sandbox:
            http.base_url = sandbox.url
            client = Client(sandbox, clock, http)
            task_id = client.start()
            sandbox.perform(Misbehaviour(latency_seconds=(3000, 3000)))
            request = await client.stop_in_the_background(task_id)
        with pytest.raises(httpx.RemoteProtocolError):
            await request
    (entry,) = client.stop_requests()
    assert (entry["processed"], entry["delivered"], entry["task_id"]) == (False, False, task_id)
    assert not [record for record in caplog.records if record.name == "uvicorn.error"]


async def misbehaving_run(seed: int) -> list[tuple[int, str]]:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with (
        Sandbox({APP: SECRET}, clock=clock, seed=seed, limits=Limits(stop=0)) as sandbox,
        httpx.AsyncClient(base_url=sandbox.url) as http,
    ):
        sandbox.perform(Misbehaviour(probability=0.5, code=410000001))
        client = Client(sandbox, clock, http)
        replies = [(await client.stop()).json() for _ in range(20)]
        return [(reply["Code"], reply["RequestId"]) for reply in replies]


async def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = [await misbehaving_run(seed) for seed in (1, 1, 2)]
    assert first == second != other
    assert {code for code, _ in first} == {410000001, 410001002}


# --- control API


async def control(client: Client, name: str, body: object) -> tuple[int, Mapping[str, Any]]:
    reply = await client.http.post(f"/_sandbox/{name}", json=body)
    value: Mapping[str, Any] = reply.json()
    return reply.status_code, value


async def test_the_control_api_moves_people_and_tasks(client: Client) -> None:
    status, started = await control(client, "start", {"room": "room", "max_idle_seconds": 30})
    assert status == 200
    assert await control(client, "join", {"room": "room", "user": "alice"}) == (
        200,
        {"room_id": "room", "people": 1, "users": [{"user_id": "alice", "role": 1}]},
    )
    state = (await client.http.get("/_sandbox/state")).json()
    assert state["tasks"] == [
        {
            "task_id": started["task_id"],
            "app_id": APP,
            "kind": "asr",
            "room_id": "room",
            "started_at": NOW,
            "max_idle_seconds": 30,
            "auto_stop_at": None,
        }
    ]
    assert [(room["room_id"], room["people"]) for room in state["rooms"]] == [("room", 1)]
    assert (await control(client, "leave", {"room": "room", "user": "alice"}))[1]["people"] == 0
    assert (await client.http.get("/_sandbox/state")).json()["tasks"][0]["auto_stop_at"] == NOW + 30
    assert (await control(client, "stop", {"task_id": started["task_id"]}))[0] == 200
    assert client.stop_requests() == []


async def test_the_log_can_be_read_on_from_where_one_left_off(client: Client) -> None:
    client.start()
    log = (await client.http.get("/_sandbox/log")).json()
    assert (log["last_seq"], [event["event"] for event in log["events"]]) == (1, ["task_started"])
    client.clock.advance(120)
    log = (await client.http.get("/_sandbox/log", params={"since": 1})).json()
    assert [(event["event"], event["at"]) for event in log["events"]] == [("auto_stopped", NOW + 120)]
    assert (await client.http.get("/_sandbox/log", params={"since": log["last_seq"]})).json()["events"] == []


async def test_misbehaviour_through_the_control_api(client: Client) -> None:
    assert (await control(client, "misbehave", {"action": "StopRealtimeASRTask", "http_status": 429}))[0] == 200
    assert (await client.stop()).status_code == 429
    assert (await control(client, "behave", {}))[0] == 200
    assert (await client.stop()).status_code == 200


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("join", {"room": "room"}, "join.user: "),
        ("join", {"room": "a b", "user": "x"}, "join.room: "),
        ("join", {"room": "a", "user": "x", "colour": 1}, "join.colour: "),
        ("join", {"room": "a", "user": "x", "app_id": 7}, "app_id: the sandbox has no app 7; it has 12345"),
        ("join", ["a"], "join: expected a mapping"),
        ("leave", {"room": "a", "user": "x"}, "leave.user: x is not in room a"),
        ("start", {"room": "a", "max_idle_seconds": 5}, "start.max_idle_seconds: "),
        ("start", {"room": "a", "kind": "agent", "max_idle_seconds": 9}, "start.max_idle_seconds: "),
        ("start", {"room": "a", "kind": "mix"}, "start.kind: "),
        ("start", {"room": "a", "user": "robot"}, "start.user: "),
        ("end_media", {"task_id": "7"}, "end_media.task_id: app 12345 runs no player 7"),
        ("stop", {"task_id": "7"}, "stop.task_id: app 12345 runs no task 7"),
        ("misbehave", {"probability": 2}, "misbehave.probability: "),
        ("misbehave", {"latency_seconds": [3, 1]}, "misbehave.latency_seconds: "),
        ("misbehave", {"action": "Dance"}, "misbehave.action: "),
        ("misbehave", {"requests": 0}, "misbehave.requests: "),
        ("behave", {"well": True}, "behave.well: "),
    ],
)
async def test_bad_input_to_the_control_api_is_a_400_that_names_the_key(
    client: Client, name: str, body: object, says: str
) -> None:
    status, value = await control(client, name, body)
    assert status == 400
    assert value["error"].startswith(says)
    assert len(client.sandbox.events()) == 0


async def test_other_mistakes_with_the_control_api(client: Client) -> None:
    reply = await client.http.post("/_sandbox/join", content=b"{")
    assert (reply.status_code, reply.json()["error"][:27]) == (400, "join: the body is not JSON:")
    reply = await client.http.get("/_sandbox/log?since=yesterday")
    assert (reply.status_code, reply.json()["error"][:6]) == (400, "since:")
    assert (await client.http.get("/_sandbox/join")).status_code == 405
    assert (await client.http.post("/_sandbox/log")).status_code == 405
    assert (await client.http.get("/_sandbox/nothing")).status_code == 404
    assert (await client.http.get("/elsewhere")).status_code == 404


async def test_the_quota_holds_for_the_control_api_too() -> None:
    async with serving(concurrent_tasks=1) as client:
        client.start()
        status, value = await control(client, "start", {"room": "b"})
        assert (status, value["error"]) == (
            400,
            "start: app 12345 already runs 1 tasks; stop one or raise the limit",
        )
        client.sandbox.perform(Stop(task_id=client.sandbox.state()["tasks"][0]["task_id"]))
        assert (await control(client, "start", {"room": "b"}))[0] == 200


# --- the server itself


async def test_a_taken_port_is_said_plainly(client: Client) -> None:
    port = urlsplit(client.sandbox.url).port
    assert port is not None
    with pytest.raises(
        ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another"
    ):
        await Sandbox({APP: SECRET}, port=port).__aenter__()


def test_without_an_app_there_is_no_sandbox() -> None:
    with pytest.raises(ConfigError, match="at least one app"):
        Sandbox({})


async def test_nothing_is_logged_that_holds_a_signature(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="uvicorn.access")
    client.sandbox.perform(Misbehaviour(drop_reply=Drop.AFTER, requests=1))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.stop()
    await client.http.post(f"/?{client.query(Action.STOP)}", content=b"x" * (2 << 20))
    await client.stop()
    records = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in records if "Signature" in record.getMessage()]
    assert not [record for record in records if record.levelno >= logging.WARNING]


async def test_a_body_beyond_any_use_is_refused_without_being_kept(client: Client) -> None:
    task_id = client.start()
    body = {"TaskId": task_id, "padding": "x" * (2 << 20)}
    reply = await client.http.post(f"/?{client.query(Action.STOP)}", json=body)
    assert reply.json()["Code"] == 410000004
    assert client.is_running(task_id)
