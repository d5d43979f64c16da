"""A vendor that floods its connections with informational responses: the request is given up, the event loop lives."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.clock import SettableClock
from tests.zego.test_client import APP_ID, SECRET, SUCCESS, Conversation, http_reply, read_request, serving
from watchdog.clock import SystemClock
from watchdog.errors import NoAnswer
from watchdog.network.streams import INFORMATIONAL_LIMIT
from watchdog.zego.client import ZegoClient

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
AT_ONCE = 16
"""Requests at the same time."""


@asynccontextmanager
async def client_for(url: str) -> AsyncIterator[ZegoClient]:
    client = ZegoClient({APP_ID: SECRET}, asr_url=url, rtc_url=None, timeout_seconds=5.0, clock=SettableClock())
    try:
        yield client
    finally:
        await client.aclose()


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    while True:
        writer.write(CONTINUE * 10_000)
        await writer.drain()


async def crumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n{\r\n" * 10_000)
        await writer.drain()


async def stretch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Almost all of the reply is framing."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write((b"1;" + b"x" * 2000 + b"\r\n{\r\n") * 10)
        await writer.drain()


async def longest_turn() -> float:
    """Return for how much processor time the event loop was busy at once, until cancelled; the machine is shared."""
    clock, longest = SystemClock(), 0.0
    try:
        while True:
            began = time.thread_time()
            await clock.sleep(0.001)
            longest = max(longest, time.thread_time() - began)
    except asyncio.CancelledError:
        return longest


async def test_a_flood_is_no_answer_and_says_so() -> None:
    async with serving(flood) as url, client_for(url) as client:
        with pytest.raises(NoAnswer, match=r"more than 8 informational responses \(1xx\)\. ZEGO may have acted on it"):
            await client.stop_task(APP_ID, "task")


@pytest.mark.parametrize(
    ("vendor", "reason"), [(crumble, "a reply in more than 128 parts"), (stretch, "a reply of more than 131072 bytes")]
)
async def test_a_reply_in_crumbs_is_no_answer_and_says_so(vendor: Conversation, reason: str) -> None:
    async with serving(vendor) as url, client_for(url) as client:
        with pytest.raises(NoAnswer, match=reason):
            await client.stop_task(APP_ID, "task")


@pytest.mark.parametrize("vendor", [flood, crumble])
async def test_a_flood_on_many_connections_leaves_the_event_loop_to_others(vendor: Conversation) -> None:
    """The vendor is in this event loop too, so what is measured is more than the client's part."""
    async with serving(vendor) as url, client_for(url) as client:
        turns = asyncio.create_task(longest_turn())
        stops = [client.stop_task(APP_ID, f"task-{number}") for number in range(AT_ONCE)]
        answers = await asyncio.gather(*stops, return_exceptions=True)
        turns.cancel()
        assert await turns < 0.5
        assert {type(answer) for answer in answers} == {NoAnswer}


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("informational", "code"), [(INFORMATIONAL_LIMIT, "0"), (INFORMATIONAL_LIMIT + 1, None)])
async def test_a_few_are_skipped_however_they_are_cut(pieces: int, informational: int, code: str | None) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            reply = CONTINUE * informational + http_reply(SUCCESS)
            step = max(1, len(reply) // pieces)
            for begin in range(0, len(reply), step):
                writer.write(reply[begin : begin + step])
                await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, so that the pieces arrive one by one

    async with serving(converse) as url, client_for(url) as client:
        for _ in range(2):
            try:
                assert (await client.stop_task(APP_ID, "task")).code == code
            except NoAnswer:
                assert code is None
