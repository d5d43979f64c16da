"""A TCP proxy that can break: between a daemon and the vendor, or a daemon and PostgreSQL. Needs no privileges.

    async with Proxy(target) as proxy:
        ... proxy.url, proxy.port ...
        await proxy.set(Mode.REFUSE)

``target`` is ``("127.0.0.1", 8766)``, or the path of a Unix socket. What it cannot do: the kernel acknowledges whatever
is sent to the proxy, so that time-outs of unacknowledged data (TCP_USER_TIMEOUT) never come into play here.
"""

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from types import TracebackType
from typing import Self

from watchdog.clock import SystemClock

Target = tuple[str, int] | str
_CHUNK_BYTES = 65536


class Mode(StrEnum):
    """What the proxy does."""

    PASS = "pass"
    REFUSE = "refuse"
    """Connections are refused, and open ones are reset."""
    BLACK_HOLE = "black_hole"
    """A SYN gets no reply, and data on open connections is lost."""
    RESET = "reset"
    """Connections are accepted and reset at once."""
    RESET_REPLY = "reset_reply"
    """The request arrives; instead of the reply comes a reset."""
    SILENT = "silent"
    """Half-open: connections are accepted and stay open; data is lost in both directions."""
    DRIP = "drip"
    """The replies come at one byte a second."""
    RESET_REUSE = "reset_reuse"
    """The second request on each connection is lost, and the connection reset."""
    FLOOD = "flood"
    """Instead of a reply comes an endless series of informational responses (1xx)."""


class Proxy:
    """One listening port on loopback that leads to ``target``; see ``set``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._mode = Mode.PASS
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._plug: list[socket.socket] = []
        self.port = 0
        self.accepted = 0
        """How many connections have been accepted."""

    @property
    def url(self) -> str:
        """The address as a vendor's URL."""
        return f"http://127.0.0.1:{self.port}/"

    async def set(self, mode: Mode) -> None:
        """Behave like this from now on. A connection whose bytes were swallowed ends when that is over."""
        before, self._mode = self._mode, mode
        for plug in self._plug:
            plug.close()
        self._plug.clear()
        if mode in {Mode.REFUSE, Mode.RESET} or before in {Mode.SILENT, Mode.BLACK_HOLE}:
            self._cut()
        if mode in {Mode.REFUSE, Mode.BLACK_HOLE}:
            self._deafen()
            if mode is Mode.BLACK_HOLE:
                self._plug_up()
        elif self._server is None:
            await self._listen()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for plug in self._plug:
            plug.close()
        self._deafen()
        relaying = list(self._connections.values())
        self._cut()
        for task in relaying:
            task.cancel()
        await asyncio.gather(*relaying, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._bound(backlog=128))

    def _bound(self, *, backlog: int) -> socket.socket:
        # With the protocol named asyncio turns Nagle's algorithm off.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        listening.listen(backlog)
        return listening

    def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _plug_up(self) -> None:
        """Listen, never accept, and fill the queue: from then on the kernel drops every SYN."""
        self._plug = [self._bound(backlog=0)]
        for _ in range(8):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._plug.append(filler)

    def _cut(self) -> None:
        for writer in self._connections:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._mode is Mode.RESET:
            _reset(writer)
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._connections[writer] = task
        upstream: asyncio.StreamWriter | None = None
        try:
            if isinstance(self._target, str):
                replies, upstream = await asyncio.open_unix_connection(self._target)
            else:
                replies, upstream = await asyncio.open_connection(*self._target)
            there = asyncio.create_task(self._pump(reader, upstream, writer))
            back = asyncio.create_task(self._pump(replies, writer, writer, is_reply=True))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in (there, back):
                    pump.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except OSError:
            _reset(writer)
        finally:
            del self._connections[writer]
            for end in (writer, upstream):
                if end is not None:
                    end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        is_reply: bool = False,
    ) -> None:
        requests = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                requests += data.startswith((b"GET ", b"POST "))
                if self._mode in {Mode.SILENT, Mode.BLACK_HOLE}:
                    continue
                if is_reply and self._mode is Mode.RESET_REPLY:
                    _reset(writer)
                    return
                if self._mode is Mode.RESET_REUSE and requests > 1:
                    _reset(client)
                    return
                while is_reply and self._mode is Mode.FLOOD:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
                    await writer.drain()
                if is_reply and self._mode is Mode.DRIP:
                    await self._drip(data, writer)
                else:
                    writer.write(data)
                await writer.drain()
        if is_reply and self._mode in {Mode.SILENT, Mode.BLACK_HOLE}:
            # The target's close is lost as well, until ``set`` ends it.
            await asyncio.Event().wait()

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await SystemClock().sleep(1)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, as a host does that knows nothing of the connection."""
    underneath = writer.get_extra_info("socket")
    if underneath is not None and underneath.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            underneath.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
