"""A vendor that drops connections when they are used again: what is asked again, and on which connection."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog

from tests.support.clock import SettableClock
from tests.zego.test_client import APP_ID, SECRET, SUCCESS, http_reply, read_request, serving
from watchdog.core.kinds import KINDS
from watchdog.core.model import Reply
from watchdog.errors import NoAnswer
from watchdog.zego.client import NO_REUSE_SECONDS, ZegoClient
from watchdog.zego.lists import list_tasks

TASKS = [f"task-{number}" for number in range(8)]


class Vendor:
    """Answers the first request of each connection; ``requests`` are those that arrived, by connection."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.resets = True

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[str] = []
        self.requests.append(mine)
        self.writers.append(writer)
        while True:
            head, body = await read_request(reader)
            mine.append(body.decode() or head.partition("Action=")[2].partition("&")[0])
            if len(mine) == 2 and self.resets:
                reset(writer)
                return
            writer.write(http_reply(SUCCESS))

    @property
    def received(self) -> int:
        return sum(map(len, self.requests))


def reset(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@asynccontextmanager
async def client_and_vendor(clock: SettableClock) -> AsyncIterator[tuple[ZegoClient, Vendor]]:
    vendor = Vendor()
    async with serving(vendor.converse) as url:
        client = ZegoClient(
            {APP_ID: SECRET},
            asr_url=url,
            rtc_url=url,
            urls={"recording": url},
            timeout_seconds=5.0,
            clock=clock,
        )
        yield client, vendor
        await client.aclose()


async def who_is_there(client: ZegoClient) -> Reply:
    return (await client.user_counts(APP_ID, ["room"])).reply


async def what_runs(client: ZegoClient) -> Reply:
    return (await list_tasks(client, KINDS["recording"], APP_ID, SettableClock().time())).reply


@pytest.mark.parametrize("question", [who_is_there, what_runs])
async def test_a_question_is_asked_again_at_once_and_then_on_connections_of_its_own(
    question: Callable[[ZegoClient], Awaitable[Reply]],
) -> None:
    async with client_and_vendor(SettableClock()) as (client, vendor):
        with structlog.testing.capture_logs() as logs:
            for _ in range(5):
                assert (await question(client)).code == "0"
        assert [len(mine) for mine in vendor.requests] == [2, 1, 1, 1, 1]
        assert [(event["event"], event["seconds"]) for event in logs] == [("connections_not_reused", 600)]


async def test_a_stop_that_left_is_not_repeated_and_the_next_ones_succeed() -> None:
    async with client_and_vendor(SettableClock()) as (client, vendor):
        answered = []
        for task in TASKS:
            try:
                answered.append((await client.stop_task(APP_ID, task)).code)
            except NoAnswer:
                answered.append(None)
        assert answered == ["0", None, *["0"] * 6]
        assert vendor.received == len(TASKS), "one request for each"
        assert [len(mine) for mine in vendor.requests] == [2, *[1] * 6]


async def test_a_stop_on_a_connection_that_closes_before_its_due_time_leaves_on_another() -> None:
    """The pool has handed out the connection, and the stop waits at its gate."""
    async with client_and_vendor(SettableClock()) as (client, vendor):
        await client.stop_task(APP_ID, "first")
        gates = 0

        async def gate() -> None:
            nonlocal gates
            gates += 1
            reset(vendor.writers[0])
            for _ in range(3):
                await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, so that the reset arrives

        reply = await client.stop_task(APP_ID, "task", gate=gate)
        assert (reply.code, gates) == ("0", 1)
        assert vendor.requests == [['{"TaskId": "first"}'], ['{"TaskId": "task"}']]


async def test_after_a_while_connections_are_used_again() -> None:
    clock = SettableClock()
    async with client_and_vendor(clock) as (client, vendor):
        for _ in range(3):
            await client.user_counts(APP_ID, ["room"])
        assert [len(mine) for mine in vendor.requests] == [2, 1, 1]
        vendor.resets = False
        clock.advance(NO_REUSE_SECONDS)
        for _ in range(3):
            await client.user_counts(APP_ID, ["room"])
        assert [len(mine) for mine in vendor.requests] == [2, 1, 1, 3]


async def test_without_resets_one_connection_carries_all() -> None:
    async with client_and_vendor(SettableClock()) as (client, vendor):
        vendor.resets = False
        for task in TASKS:
            await client.stop_task(APP_ID, task)
        assert [len(mine) for mine in vendor.requests] == [len(TASKS)]


async def test_a_connection_that_is_lost_at_once_is_no_matter_of_reuse() -> None:
    """The first request of each connection is reset: asking again would only double the load."""
    received = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_request(reader))
        reset(writer)

    async with serving(converse) as url:
        client = ZegoClient({APP_ID: SECRET}, asr_url=url, rtc_url=url, timeout_seconds=5.0, clock=SettableClock())
        with pytest.raises(NoAnswer):
            await client.user_counts(APP_ID, ["room"])
        assert len(received) == 1
        await client.aclose()
