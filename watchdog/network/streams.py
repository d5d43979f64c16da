"""The byte streams of the HTTP library, straight on asyncio, with three things that its own ones leave out.

    pool ──► GuardedBackend ──► GuardedStream ──► asyncio's transport ──► socket

The pool looks whether an idle connection was closed when it hands the connection out. A stop then waits for its due
time. So the stream looks again just before the first byte is written: if the other side has closed meanwhile, nothing
is sent, and the pool takes another connection.

The library skips informational responses (1xx), any number of them, and takes a body in chunks of one byte, thousands
without a turn for the event loop. So the stream counts both where they arrive, and hands on a little at a time. It does
not know where a reply's head ends; a body that quotes as many status lines counts too.

The library keeps bytes that follow a reply, and would read them as the reply to the next request. So the connection of
a request with two replies is not used again. Nor may anything arrive in clear text before a TLS handshake: it would be
read as if it were encrypted.
"""

import asyncio
import re
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import aiohappyeyeballs
import httpcore2 as httpcore

INFORMATIONAL_LIMIT: Final = 8
"""How many informational responses may precede a reply. Servers send none; proxies send one or two."""

_AT_ONCE_BYTES: Final = 2048
_STATUS: Final = re.compile(rb"HTTP/\d\.\d (\d)")
_STATUS_BYTES: Final = len(b"HTTP/1.1 2")
_NEXT_ADDRESS_SECONDS: Final = 0.25
"""When to try the host's next address as well (RFC 8305, "Happy Eyeballs")."""

Address = tuple[int, int, int, str, Any]
"""As ``getaddrinfo`` returns it; the last item has the IP address and the port."""

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Finds the addresses of a host and a port. Raises OSError, also for a host that may not be connected to."""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Ask the system. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


@contextmanager
def _as_connect_error() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except (OSError, UnicodeError, TypeError) as error:
        # UnicodeError: a host name with a part that is empty or too long. TypeError: Python 3.11, if TLS in TLS fails.
        raise httpcore.ConnectError(str(error)) from error


class _Arrived(asyncio.Protocol):
    """What has arrived on a connection and was not read; pauses the connection when that is much."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.bytes = bytearray()
        self.is_over = False
        """Whether nothing more will arrive."""
        self.error: Exception | None = None
        self.transport = asyncio.Transport()
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.bytes += data
        if len(self.bytes) > self._limit_bytes:
            self.transport.pause_reading()
        self._tell()

    def eof_received(self) -> None:
        self.is_over = True
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        # Python 3.11 has a TypeError if TLS in TLS fails.
        self.is_over, self.error = True, OSError(str(exc)) if isinstance(exc, TypeError) else exc
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def take(self, most: int) -> bytes:
        """Return up to so many bytes, as soon as there are some; none at the end. Raises OSError of a broken one."""
        if self.bytes:
            # Whatever is there has been there: others have a turn before the next part of it.
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop
        while not self.bytes and not self.is_over:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if not self.bytes and self.error is not None:
            raise self.error
        taken = bytes(self.bytes[:most])
        del self.bytes[:most]
        if not self.is_over and len(self.bytes) <= self._limit_bytes:
            self.transport.resume_reading()
        return taken


class GuardedStream(httpcore.AsyncNetworkStream):
    """One connection; each request begins with a ``write`` and ends with the last ``read`` before the next one.

    Without ``timeout``, a call waits for as long as its caller lets it. A request is small: it never waits to be sent.
    """

    def __init__(self, transport: asyncio.Transport, arrived: _Arrived, limit_bytes: int) -> None:
        self._transport = transport
        self._arrived = arrived
        self._limit_bytes = limit_bytes
        self._socket = transport.get_extra_info("socket")
        self._is_writing = self._has_read = False
        self._begin_reply()

    def _begin_reply(self) -> None:
        self._received = self._informational = self._replies = 0
        self._end = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raise RemoteProtocolError if the reply to this request is too long or follows too many informational ones."""
        self._is_writing, self._has_read = False, True
        try:
            async with asyncio.timeout(timeout):
                data = await self._arrived.take(min(max_bytes, _AT_ONCE_BYTES))
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        self._received += len(data)
        # A status line may be cut in two; what is kept is too short to be counted twice.
        classes = _STATUS.findall(self._end + data)
        self._informational += classes.count(b"1")
        self._replies += len(classes) - classes.count(b"1")
        self._end = (self._end + data)[1 - _STATUS_BYTES :]
        if self._informational > INFORMATIONAL_LIMIT:
            raise httpcore.RemoteProtocolError(f"more than {INFORMATIONAL_LIMIT} informational responses (1xx)")
        if self._received > self._limit_bytes:
            raise httpcore.RemoteProtocolError(f"a reply of more than {self._limit_bytes} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raise ConnectionNotAvailable, on which the pool takes another connection, if this one cannot be used again.

        Raise ConnectError if it was closed before its first request. In both cases nothing is sent.
        """
        del timeout
        if not self._is_writing:
            if self._has_read and self._is_spent():
                raise httpcore.ConnectionNotAvailable
            if self._arrived.is_over:
                raise httpcore.ConnectError("closed before the request")
            self._is_writing = True
            self._begin_reply()
        if self._transport.is_closing():
            raise httpcore.WriteError("the connection was closed")
        self._transport.write(buffer)

    async def aclose(self) -> None:
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        if self._arrived.bytes or self._arrived.is_over:
            self._transport.abort()
            raise httpcore.ConnectError("closed, or not silent, before TLS")
        try:
            with _as_connect_error():
                async with asyncio.timeout(timeout):
                    transport = await loop.start_tls(
                        self._transport, self._arrived, ssl_context, server_hostname=server_hostname
                    )
            # The documentation promises one; the type does not.
            assert transport is not None  # noqa: S101 - as above
        except BaseException:
            self._transport.abort()
            raise
        self._arrived.transport = transport
        return GuardedStream(transport, self._arrived, self._limit_bytes)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._is_spent()
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))

    def _is_spent(self) -> bool:
        """Whether it is closed, or more has come than the reply, so that no further request can use it."""
        if self._replies > 1 or self._arrived.bytes or self._arrived.is_over or self._socket.fileno() < 0:
            return True
        # The kernel may know more than the event loop has seen.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens guarded connections over TCP, to no address but those that ``resolve`` returned.

    A reply has at most ``limit_bytes``, with head and framing.
    """

    def __init__(self, limit_bytes: int, resolve: Resolve = resolve) -> None:
        self._limit_bytes = limit_bytes
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _as_connect_error():
            async with asyncio.timeout(timeout):
                transport, arrived = await self._connect(host, port, local_address)
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return GuardedStream(transport, arrived, self._limit_bytes)

    async def _connect(self, host: str, port: int, local_address: str | None) -> tuple[asyncio.Transport, _Arrived]:
        addresses = await self._resolve(host, port)
        local = None if local_address is None else await resolve(local_address, 0)
        # asyncio's own race leaves a socket open if it is cancelled at the wrong moment.
        connected = await aiohappyeyeballs.start_connection(
            list(addresses),
            local_addr_infos=None if local is None else list(local),
            happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
        )
        loop = asyncio.get_running_loop()
        return await loop.create_connection(lambda: _Arrived(self._limit_bytes), sock=connected)
