"""What an HTTP connection stands on, over real sockets, in the clear and through TLS."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET

import httpcore2
import pytest
import trustme

from watchdog.clock import SystemClock
from watchdog.zego.tcp import Network, Wire

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Call = Callable[[Conversation], Awaitable[Wire]]
"""Serves the conversation, and connects to it."""

HOST = "localhost"
PLENTY = b"0123456789abcdef" * 65536


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
async def connect(request: pytest.FixtureRequest, authority: trustme.CA) -> AsyncIterator[Call]:
    async with _calls(authority if request.param == "tls" else None) as call:
        yield call


@asynccontextmanager
async def _calls(authority: trustme.CA | None) -> AsyncIterator[Call]:
    theirs = ours = None
    if authority is not None:
        theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert(HOST).configure_cert(theirs)
        authority.configure_trust(ours)
    servers: list[asyncio.Server] = []
    wires: list[Wire] = []

    async def call(conversation: Conversation) -> Wire:
        server = await asyncio.start_server(_closing(conversation), "127.0.0.1", 0, ssl=theirs)
        servers.append(server)
        wire = await Network().connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1], timeout=5)
        wires.append(wire)
        return wire if ours is None else await wire.start_tls(ours, HOST, timeout=5)

    try:
        yield call
    finally:
        for wire in wires:
            await wire.aclose()
        for server in servers:
            server.close()


def _closing(conversation: Conversation) -> Conversation:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await conversation(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return converse


async def test_what_is_written_arrives_and_so_does_the_answer(connect: Call) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    wire = await connect(echo)
    assert not wire.get_extra_info("is_readable")
    for line in (b"one\n", b"two\n"):
        await wire.write(line)
        assert await wire.read(100, timeout=5) == line
    assert not wire.get_extra_info("is_readable")


async def test_much_arrives_whole_and_is_not_all_kept_meanwhile(connect: Call) -> None:
    sent = asyncio.Event()

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(32):
            writer.write(PLENTY)
            await writer.drain()
        sent.set()

    wire = await connect(pour)
    with pytest.raises(TimeoutError):
        # More than the kernel and both sides keep: it waits until somebody reads.
        await asyncio.wait_for(sent.wait(), 0.5)
    length = 0
    while data := await wire.read(65536, timeout=5):
        assert len(data) <= 65536
        length += len(data)
    assert length == 32 * len(PLENTY)
    assert sent.is_set()


async def test_the_end_is_told_again_and_again(connect: Call) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    wire = await connect(hang_up)
    assert [await wire.read(100, timeout=5) for _ in range(3)] == [b"bye", b"", b""]
    assert wire.get_extra_info("is_readable")
    with pytest.raises(httpcore2.WriteError):
        await wire.write(b"are you there?")


async def test_a_connection_that_is_cut_is_an_error_after_what_had_arrived() -> None:
    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"so far")
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))

    async with _calls(None) as call:
        wire = await call(cut)
        assert await wire.read(100, timeout=5) == b"so far"
        with pytest.raises(httpcore2.ReadError):
            await wire.read(100, timeout=5)


async def test_what_nobody_asked_for_shows_without_being_read(connect: Call) -> None:
    """An idle connection with something on it must not be used: the next answer would be taken from it."""
    hold = asyncio.Event()

    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await hold.wait()

    wire = await connect(babble)
    async with asyncio.timeout(5):
        while not wire.get_extra_info("is_readable"):
            await SystemClock().sleep(0.01)
    hold.set()


async def test_silence_is_a_time_out(connect: Call) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    wire = await connect(silent)
    with pytest.raises(httpcore2.ReadTimeout):
        await wire.read(100, timeout=0.05)
    with pytest.raises(httpcore2.ReadTimeout):
        await wire.read(100, timeout=0.05)


async def test_closing_tells_the_other_side_at_once(connect: Call) -> None:
    over = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            over.set()

    wire = await connect(listen)
    await wire.aclose()
    await wire.aclose()
    await asyncio.wait_for(over.wait(), 5)


@pytest.mark.parametrize("host", ["other.test", HOST])
async def test_a_certificate_of_another_host_or_authority_is_refused(authority: trustme.CA, host: str) -> None:
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(theirs)
    (authority if host != HOST else trustme.CA()).configure_trust(ours)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=theirs)
    async with server:
        wire = await Network().connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1], timeout=5)
        with pytest.raises(httpcore2.ConnectError, match="certificate verify failed"):
            await wire.start_tls(ours, host, timeout=5)


async def test_a_handshake_that_nobody_answers_is_a_time_out() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _calls(None) as call:
        wire = await call(silent)
        with pytest.raises(httpcore2.ConnectTimeout):
            await wire.start_tls(ssl.create_default_context(), HOST, timeout=0.05)


async def test_a_port_where_nobody_listens_and_a_name_that_nobody_knows() -> None:
    with pytest.raises(httpcore2.ConnectError):
        await Network().connect_tcp("127.0.0.1", 1, timeout=5)
    with pytest.raises(httpcore2.ConnectError):
        await Network().connect_tcp("a..b", 1, timeout=5)
