"""Requests are begun a few at a time, in the order of their arrival; what a sender pushes stays in its connection."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.support.clock import SettableClock
from tests.support.running import eventually
from watchdog.daemon import http_protocol
from watchdog.daemon.http_protocol import HEAD_LIMIT_BYTES, TURN_SECONDS, TimedProtocol, Turns
from watchdog.embedded_server import EmbeddedServer, listen

READ_SECONDS = 0.2


class Counted:
    """What was done, and in which turn of the event loop."""

    def __init__(self, clock: SettableClock) -> None:
        self.clock = clock
        self.turn = 0
        self.done: list[tuple[str, int]] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.done.append((name, self.turn))
            self.clock.advance(seconds)

        return work

    async def turns(self, number: int) -> None:
        for _ in range(number):
            self.turn += 1
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop


@pytest.fixture
def counted() -> Counted:
    return Counted(SettableClock())


async def test_a_turn_of_the_loop_gets_no_more_than_fits(counted: Counted) -> None:
    turns = Turns(counted.clock)
    for name in "abcde":
        turns.add(counted.work(name, TURN_SECONDS / 2))
    await counted.turns(9)
    assert counted.done == [("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 3)]


async def test_one_that_takes_long_has_its_turn_alone(counted: Counted) -> None:
    turns = Turns(counted.clock)
    turns.add(counted.work("a", 1.0))
    turns.add(counted.work("b", 1.0))
    await counted.turns(3)
    turns.add(counted.work("c", 1.0))
    await counted.turns(3)
    assert counted.done == [("a", 1), ("b", 2), ("c", 4)]


async def test_what_is_added_meanwhile_comes_after_it(counted: Counted) -> None:
    turns = Turns(counted.clock)

    def first() -> None:
        counted.work("a", TURN_SECONDS)()
        turns.add(counted.work("c", 0))

    turns.add(first)
    turns.add(counted.work("b", 0))
    await counted.turns(5)
    assert counted.done == [("a", 1), ("b", 2), ("c", 2)]


async def test_while_stops_need_the_time_a_turn_is_put_off(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    monkeypatch.setattr(http_protocol, "GIVING_WAY_SECONDS", 0.01)
    is_stopping = True
    turns = Turns(counted.clock, lambda: is_stopping)
    turns.add(counted.work("a", TURN_SECONDS))
    turns.add(counted.work("b", TURN_SECONDS))
    await counted.turns(5)
    assert counted.done == []
    is_stopping = False
    await eventually("the first has its turn", lambda: len(counted.done) == 2)


async def test_an_error_does_not_stop_the_others(counted: Counted) -> None:
    turns = Turns(counted.clock)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def broken() -> None:
        raise OSError

    turns.add(broken)
    turns.add(counted.work("b", 0))
    await counted.turns(3)
    assert [type(error) for error in errors] == [OSError]
    assert counted.done == [("b", 2)]


class LateTurns(Turns):
    """Nobody has a turn before ``release``."""

    def __init__(self) -> None:
        super().__init__(SettableClock())
        self.held: list[Callable[[], None]] = []
        self.is_released = False

    def add(self, work: Callable[[], None]) -> None:
        if self.is_released:
            super().add(work)
        else:
            self.held.append(work)

    def release(self) -> None:
        self.is_released = True
        for work in self.held:
            super().add(work)


class Served:
    """A server that answers every request with its path or ``answer``, once it may ``go``."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.answer = ""
        self.go = asyncio.Event()
        self.go.set()
        self.listening = listen("127.0.0.1", 0, 8)
        self.turns = late = LateTurns()
        self.protocols: list[TimedProtocol] = []
        protocols = self.protocols

        class Protocol(TimedProtocol):
            read_seconds = READ_SECONDS
            turns = late

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
                protocols.append(self)
                super().connection_made(transport)

        self.server = EmbeddedServer(
            self._answer, [self.listening], protocol=Protocol, log_level="error", finish_seconds=1
        )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await Request(scope, receive).body()
        await self.go.wait()
        await PlainTextResponse(self.answer or scope["path"])(scope, receive, send)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listening.getsockname())


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    yield served
    await served.server.end()
    served.listening.close()


async def test_a_sender_that_does_not_wait_fills_its_own_connection(served: Served) -> None:
    """And it is answered in order, once it has its turn; meanwhile it is not taken for silent."""
    requests = 300
    reader, writer = await served.connect()
    padding = "x" * 8_000
    for number in range(requests):
        writer.write(f"GET /{number}. HTTP/1.1\r\nHost: x\r\nPadding: {padding}\r\n\r\n".encode())
    await eventually("it is not read from any more", lambda: len(served.turns.held) == 2)
    assert not served.protocols[0].transport.is_reading()
    await asyncio.sleep(2 * READ_SECONDS)  # noqa: TID251 - the server's own timer
    served.turns.release()
    async with asyncio.timeout(30):
        for number in range(requests):
            await reader.readuntil(f"/{number}.".encode())
    writer.close()


async def test_what_comes_too_late_is_not_read(served: Served) -> None:
    _, writer = await served.connect()
    writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually("it has arrived", lambda: len(served.turns.held) == 1)
    # A reset, not the orderly end of what is sent.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await eventually("its sender has left", served.protocols[0].transport.is_closing)
    served.turns.release()
    await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop
    assert served.protocols[0].cycle is None


async def test_what_was_sent_before_the_end_is_read(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /last. HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write_eof()
    await eventually("it has arrived", lambda: len(served.turns.held) == 2)
    served.turns.release()
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()
    assert served.paths == ["/last."]


async def test_who_drips_a_head_while_others_have_their_turn_is_left(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(b"GET /")
    await eventually("it waits for its turn", lambda: len(served.turns.held) == 1)
    await eventually("the timer waits behind it", lambda: len(served.turns.held) == 2)
    served.turns.release()
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_who_asks_on_and_on_is_read_from_only_when_an_answer_is_taken(served: Served) -> None:
    served.turns.release()
    served.go.clear()
    _, writer = await served.connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 500_000)
    await eventually("the first is being answered", lambda: served.paths == ["/x"])
    protocol = served.protocols[0]
    await asyncio.sleep(0.2)  # noqa: TID251 - the server may read what it wants to
    assert not protocol.transport.is_reading()
    assert len(protocol._unparsed) < 1 << 20
    assert len(protocol.pipeline) < 100
    writer.transport.abort()
    served.go.set()


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\n", b"Name: " + b"x" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nName: ", b"x" * 1000),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;extension=" + b"x" * 1000 + b"\r\n\0\r\n"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Name: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["path", "headers", "header", "chunks", "trailers"],
)
async def test_who_sends_much_beside_the_body_is_cut_off(served: Served, beginning: bytes, more: bytes) -> None:
    served.turns.release()
    reader, writer = await served.connect()
    writer.write(b"GET /before. HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        await reader.readuntil(b"/before.")
    enough = HEAD_LIMIT_BYTES // len(more)
    writer.write(beginning + (enough - 1) * more)
    await eventually("it is parsed", lambda: served.protocols[0]._beside_body >= (enough - 1) * 1000)
    assert not served.protocols[0].transport.is_closing()
    writer.write(2 * more)
    async with asyncio.timeout(30):
        assert b"Too much beside the body." in await reader.read()
    writer.close()


async def test_a_long_body_in_few_pieces_is_not_beside_itself(served: Served) -> None:
    served.turns.release()
    reader, writer = await served.connect()
    for _ in range(2):
        body = b"x" * (8 * HEAD_LIMIT_BYTES)
        writer.write(b"POST /long. HTTP/1.1\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        async with asyncio.timeout(30):
            await reader.readuntil(b"/long.")
    writer.close()


async def test_who_does_not_take_the_answer_is_left(served: Served) -> None:
    served.turns.release()
    served.answer = "x" * (32 << 20)
    _, writer = await served.connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually("it has connected", lambda: len(served.protocols) == 1)
    await eventually("it is cut off", lambda: served.protocols[0] not in served.server.server_state.connections)
    writer.transport.abort()


async def test_who_asks_for_another_protocol_is_refused_and_its_body_is_no_request(served: Served) -> None:
    served.turns.release()
    reader, writer = await served.connect()
    body = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
    head = "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert served.paths == []


async def test_who_is_silent_is_left(served: Served) -> None:
    served.turns.release()
    reader, writer = await served.connect()
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
