"""The transport of one connection: when it is used again, what it reads, and what it raises."""

import asyncio
from collections.abc import Sequence

import httpcore2 as httpcore
import httpx2 as httpx
import pytest

from tests.zego.test_client import Conversation, read_request, serving
from watchdog.network import http11
from watchdog.network.http11 import OneConnection
from watchdog.network.streams import GuardedBackend

LIMIT_BYTES = 64 * 1024
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


def transport() -> OneConnection:
    return OneConnection(GuardedBackend(LIMIT_BYTES))


class Server:
    """Answers the requests of each connection in turn; keeps the bodies, by connection."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers = answers
        self.closes = closes
        self.got: list[list[bytes]] = []
        self.has_closed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.got.append(mine)
        for answer in self.answers:
            mine.append((await read_request(reader))[1])
            writer.write(answer)
        if self.closes:
            writer.close()
            self.has_closed.set()
        else:
            await reader.read()


async def post(server: Conversation, *bodies: bytes, reads: bool = True) -> Sequence[str]:
    """Send these one after another; return what was answered."""
    answered = []
    async with serving(server) as url, transport() as one:
        for body in bodies:
            response = await one.handle_async_request(httpx.Request("POST", url, content=body))
            if reads:
                answered.append((await response.aread()).decode())
            await response.aclose()
    return answered


async def test_one_connection_carries_many_requests() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n2\r\n, \r\n0\r\n\r\n"
    early = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
    server = Server(chunked, early, EMPTY)
    assert await post(server, b"1", b"2" * 10_000, b"") == ["one, ", "two", ""]
    assert server.got == [[b"1", b"2" * 10_000, b""]]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        # More than the reply: it would be taken for the reply to the next request.
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_connection_that_cannot_be_used_again_is_not(answer: bytes) -> None:
    server = Server(answer, answer)
    await post(server, b"1", b"2")
    assert server.got == [[b"1"], [b"2"]]


async def test_nor_one_whose_reply_was_not_read_to_its_end() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", EMPTY)
    await post(server, b"1", b"2", reads=False)
    assert server.got == [[b"1"], [b"2"]]


async def test_nor_one_that_has_been_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http11, "KEEPALIVE_SECONDS", -1.0)
    server = Server(EMPTY, EMPTY)
    await post(server, b"1", b"2")
    assert server.got == [[b"1"], [b"2"]]


async def test_nor_one_that_the_server_has_closed() -> None:
    server = Server(EMPTY, closes=True)
    async with serving(server) as url, transport() as one:
        for body in (b"1", b"2"):
            async with asyncio.timeout(10):
                await (await one.handle_async_request(httpx.Request("POST", url, content=body))).aclose()
                await server.has_closed.wait()
    assert server.got == [[b"1"], [b"2"]]


async def test_an_answer_that_comes_before_the_request_counts() -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    assert await post(impatient, b"x" * 20_000) == ["no"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhat", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * LIMIT_BYTES, httpx.RemoteProtocolError),
    ],
)
async def test_what_is_no_answer_is_an_error_of_the_library(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await post(Server(answer, closes=True), b"1")


async def test_nobody_there_is_an_error_of_the_library() -> None:
    async with serving(Server()) as url:
        pass
    with pytest.raises(httpx.ConnectError):
        await transport().handle_async_request(httpx.Request("POST", url, content=b"1"))


@pytest.mark.parametrize("name", ["ConnectTimeout", "ConnectError", "ReadError", "WriteError", "RemoteProtocolError"])
def test_every_error_of_a_stream_has_its_equal(name: str) -> None:
    with pytest.raises(getattr(httpx, name)), http11._as_transport_error():  # the seam itself
        raise getattr(httpcore, name)
