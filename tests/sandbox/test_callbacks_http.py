"""Callbacks over HTTP: a real sandbox, a real receiver, and what is set at run time."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx2 as httpx
import pytest

from tests.support.clock import SettableClock
from watchdog.core.signing import callback_signature, sign
from watchdog.errors import ConfigError
from watchdog.sandbox import (
    Action,
    Behave,
    CallbackBehaviour,
    CallbackEncoding,
    Crash,
    Join,
    Leave,
    Sandbox,
    SendCallbacks,
    Speak,
    Start,
    Stop,
)
from watchdog.sandbox.operations import parse_operation
from watchdog.sandbox.world import Event

APP, NOW = 12345, 1_700_000_000.25


class Receiver:
    """An HTTP server that answers the statuses it was given, one a request, and 200 after that; None never answers."""

    def __init__(self, statuses: Iterable[int | None]) -> None:
        self._statuses = iter(statuses)
        self.bodies: list[bytes] = []
        self.content_types: list[str] = []
        self.heads: list[str] = []
        self._arrived = asyncio.Condition()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                async with self._arrived:
                    self.heads.append(head)
                    self.bodies.append(body)
                    self.content_types.append(headers["content-type"])
                    self._arrived.notify_all()
                status = next(self._statuses, 200)
                if status is None:
                    continue
                writer.write(f"HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def received(self, number: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.bodies) >= number)
        return [json.loads(body) for body in self.bodies]


@asynccontextmanager
async def receiving(*statuses: int | None) -> AsyncIterator[Receiver]:
    receiver = Receiver(statuses)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callbacks/zego?from=vendor"
    try:
        yield receiver
    finally:
        server.close()


async def logged(sandbox: Sandbox, number: int) -> list[Event]:
    """Return the callback_sent entries once there are so many: they follow the answer that the sandbox has read."""
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=sandbox.url) as http:
        while True:
            # Each turn is an exchange with the sandbox, so whatever it has to do gets done.
            events = (await http.get("/_sandbox/log")).json()["events"]
            sent = [event for event in events if event["event"] == "callback_sent"]
            if len(sent) >= number:
                return sent


async def test_callbacks_arrive_over_http_and_are_sent_again_until_they_are_taken() -> None:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with (
        receiving(500, 404) as receiver,
        Sandbox({APP: "s"}, clock=clock, seed=1, callback_url=receiver.url, callback_secrets={APP: "cs"}) as sandbox,
    ):
        sandbox.perform(Join(room="room", user="alice"))
        bodies = await receiver.received(2)
        assert {body["event"] for body in bodies} == {"room_create", "room_login"}
        assert {event["status"] for event in await logged(sandbox, 2)} == {500, 404}
        clock.advance(1.9)
        await logged(sandbox, 2)
        assert len(receiver.bodies) == 2
        clock.advance(0.2)
        await receiver.received(4)
        sent = await logged(sandbox, 4)
        assert [(event["attempt"], event["status"]) for event in sent[2:]] == [(2, 200), (2, 200)]
        assert sorted(receiver.bodies[:2]) == sorted(receiver.bodies[2:])
        clock.advance(1000)
        await logged(sandbox, 4)
        assert len(receiver.bodies) == 4
    body = next(body for body in bodies if body["event"] == "room_create")
    assert body["signature"] == callback_signature("cs", str(body["timestamp"]), body["nonce"])
    assert receiver.heads[0].startswith("POST /callbacks/zego?from=vendor HTTP/1.1\r\n")
    assert set(receiver.content_types) == {"application/json"}


async def test_what_only_time_brings_is_told_too() -> None:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with (
        receiving() as receiver,
        Sandbox({APP: "s"}, clock=clock, callback_url=receiver.url, crash_timeout_seconds=10) as sandbox,
    ):
        task_id = sandbox.perform(Start(room="room", max_idle_seconds=30))["task_id"]
        sandbox.perform(Join(room="room", user="alice"))
        sandbox.perform(Speak(room="room", user="alice", text="hello"))
        await receiver.received(3)
        sandbox.perform(Crash(room="room", user="alice"))
        await logged(sandbox, 3)
        for seconds, number in ((10, 5), (30, 6)):
            clock.advance(seconds)
            await receiver.received(number)
            await logged(sandbox, number)
    names = [body.get("event") or body["Event"] for body in await receiver.received(6)]
    # Sent at the same moment, so in any order.
    assert set(names[:3]) == {"room_create", "room_login", "ASRResult"}
    assert set(names[3:5]) == {"room_logout", "room_close"}
    last = json.loads(receiver.bodies[5])
    assert (last["Data"]["Code"], last["TaskId"]) == (1202, task_id)


async def test_a_task_started_over_the_api_is_told_of_when_it_ends_by_itself() -> None:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with (
        receiving() as receiver,
        Sandbox({APP: "s"}, clock=clock, callback_url=receiver.url) as sandbox,
        httpx.AsyncClient(base_url=sandbox.url) as http,
    ):
        signature = sign(APP, "n", "s", int(NOW))
        query = f"Action={Action.START}&AppId={APP}&SignatureNonce=n&Timestamp={int(NOW)}&SignatureVersion=2.0"
        started = (await http.post(f"/?{query}&Signature={signature}", json={"RoomId": "room"})).json()
        await http.get("/_sandbox/state")
        clock.advance(120)
        (body,) = await receiver.received(1)
    assert (body["Event"], body["TaskId"]) == ("Exception", started["Data"]["TaskId"])


async def nobody() -> str:
    async with receiving() as receiver:
        return receiver.url


@pytest.mark.parametrize("url", [None, "http://exa mple/", f"http://{'x' * 64}/"])
async def test_a_receiver_that_is_not_there_counts_as_one_that_does_not_answer(url: str | None) -> None:
    clock = SettableClock(NOW, sleepers_wait=True)
    async with Sandbox({APP: "s"}, clock=clock, callback_url=url or await nobody()) as sandbox:
        sandbox.perform(Join(room="room", user="alice"))
        assert [event["status"] for event in await logged(sandbox, 2)] == [None, None]


async def test_closing_does_not_wait_for_a_receiver_that_never_answers() -> None:
    async with receiving(None, None) as receiver:
        async with asyncio.timeout(30), Sandbox({APP: "s"}, callback_url=receiver.url) as sandbox:
            sandbox.perform(Join(room="room", user="alice"))
            await receiver.received(2)
        assert not [event for event in sandbox.events() if event["event"].startswith("callback_")]


async def test_callbacks_and_their_behaviour_are_set_at_run_time() -> None:
    async with (
        receiving() as receiver,
        Sandbox({APP: "s"}) as sandbox,
        httpx.AsyncClient(base_url=sandbox.url) as http,
    ):

        async def control(name: str, **fields: object) -> httpx.Response:
            return await http.post(f"/_sandbox/{name}", json=fields)

        sandbox.perform(Join(room="room", user="before"))
        assert (await control("send_callbacks", url=receiver.url)).status_code == 200
        assert (await control("misbehave_callbacks", lose=1)).status_code == 200
        await control("join", room="room", user="lost")
        assert (await control("misbehave_callbacks", duplicate=1)).status_code == 200
        await control("join", room="room", user="twice")
        await receiver.received(2)
        assert (await control("behave")).status_code == 200
        await control("join", room="room", user="once")
        await receiver.received(3)
        await control("send_callbacks", url=receiver.url, encoding="form")
        await control("leave", room="room", user="once")
        await logged(sandbox, 4)
    accounts = [json.loads(body)["user_account"] for body in receiver.bodies[:3]]
    assert accounts == ["twice", "twice", "once"]
    assert parse_qs(receiver.bodies[3].decode())["event"] == ["room_logout"]
    assert receiver.content_types[3] == "application/x-www-form-urlencoded"
    assert [e["callback"] for e in sandbox.events() if e["event"] == "callback_lost"] == ["room_login"]


async def test_behaviour_holds_for_what_happens_afterwards_even_in_the_same_moment() -> None:
    async with receiving() as receiver, Sandbox({APP: "s"}, callback_url=receiver.url) as sandbox:
        sandbox.perform(Join(room="room", user="alice"))
        sandbox.perform(CallbackBehaviour(lose=1))
        sandbox.perform(Join(room="room", user="bob"))
        sandbox.perform(Behave())
        sandbox.perform(SendCallbacks(url=receiver.url, encoding=CallbackEncoding.JSON))
        sandbox.perform(Leave(room="room", user="alice"))
        await logged(sandbox, 3)
    assert sorted(json.loads(body)["event"] for body in receiver.bodies) == ["room_create", "room_login", "room_logout"]


async def test_without_an_address_nothing_is_collected() -> None:
    async with Sandbox({APP: "s"}) as sandbox:
        task_id = sandbox.perform(Start(room="room"))["task_id"]
        sandbox.perform(CallbackBehaviour(lose=1))
        sandbox.perform(Join(room="room", user="alice"))
        sandbox.perform(Behave())
        sandbox.perform(Stop(task_id=task_id))
        assert [event["event"] for event in await all_events(sandbox)] == ["task_started", "join", "task_stopped"]


async def all_events(sandbox: Sandbox) -> list[Event]:
    await logged(sandbox, 0)
    return sandbox.events()


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("send_callbacks", {}, "send_callbacks.url: "),
        ("send_callbacks", {"url": "ftp://127.0.0.1/"}, "send_callbacks.url: "),
        ("send_callbacks", {"url": "http:///callbacks"}, "send_callbacks.url: "),
        ("send_callbacks", {"url": "http://127.0.0.1:x/"}, "send_callbacks.url: "),
        ("send_callbacks", {"url": "http://127.0.0.1/", "encoding": "xml"}, "send_callbacks.encoding: "),
        ("misbehave_callbacks", {"lose": 1.5}, "misbehave_callbacks.lose: "),
        ("misbehave_callbacks", {"delay_seconds": [5, 1]}, "misbehave_callbacks.delay_seconds: "),
        ("misbehave_callbacks", {"misplace": 1}, "misbehave_callbacks.misplace: "),
        ("crash", {"room": "room"}, "crash.user: "),
        ("speak", {"room": "room", "user": "alice"}, "speak.text: "),
    ],
)
def test_bad_input_names_the_key(name: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_operation(name, fields)
    assert str(caught.value).startswith(says)


def test_a_bad_address_is_told_before_anything_is_served() -> None:
    with pytest.raises(ConfigError, match=r"^send_callbacks\.url: "):
        Sandbox({APP: "s"}, callback_url="nowhere")


async def test_who_is_not_there_neither_crashes_nor_speaks() -> None:
    async with Sandbox({APP: "s"}) as sandbox:
        sandbox.perform(Join(room="room", user="alice"))
        sandbox.perform(Crash(room="room", user="alice"))
        with pytest.raises(ConfigError, match=r"^speak\.user: alice is not in room room$"):
            sandbox.perform(Speak(room="room", user="alice", text="hello"))
        with pytest.raises(ConfigError, match=r"^crash\.user: alice is not in room room$"):
            sandbox.perform(Crash(room="room", user="alice"))
