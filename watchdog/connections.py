"""Keeps connections as the HTTP library does, at a cost that does not grow with their number.

The library's pool looks after every idle connection whenever a request comes or goes, twice a request, with system
calls: with some dozens of them that is more than a third of the processor time of a stop. Here each connection is a
pool of one, and the last one used is the first to be used again.
"""

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import httpx2

# What has not arrived when a connection is closed must never arrive. Otherwise the kernel goes on trying to deliver a
# request that was given up, for minutes, and a network that is mended by then brings a stop that was decided long ago.
_FORGET_WHEN_CLOSED: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

_Origin = tuple[str, str, int | None]
_Idle = tuple[float, httpx2.AsyncHTTPTransport]
"""Since when, by the event loop's clock, and what."""


class Connections(httpx2.AsyncBaseTransport):
    """A transport for at most ``most`` requests at a time; belongs to one event loop.

    A connection that has been idle for ``keepalive_seconds`` is used no more. A request that finds no free slot within
    its pool time-out raises httpx2.PoolTimeout.
    """

    def __init__(self, most: int, *, keepalive_seconds: float) -> None:
        self._slots: Final = asyncio.Semaphore(most)
        self._keepalive_seconds = keepalive_seconds
        # Made once: reading the machine's certificates takes as long as dozens of requests.
        self._tls: Final[ssl.SSLContext] = httpx2.create_ssl_context()
        self._idle: dict[_Origin, deque[_Idle]] = {}
        self._is_closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises what httpx2.AsyncHTTPTransport raises."""
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx2.PoolTimeout("no free connection", request=request) from error
        origin = (request.url.scheme, request.url.host, request.url.port)
        idle = self._idle.setdefault(origin, deque())
        one = idle.pop()[1] if idle else self._connection()
        try:
            response = await one.handle_async_request(request)
        except BaseException:
            await self.discard(one)
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - the asynchronous transport's are
        response.stream = _Stream(response.stream, self, origin, one)
        return response

    async def aclose(self) -> None:
        """Close the idle connections now, and those in use when their replies have been read."""
        self._is_closed = True
        for idle in self._idle.values():
            while idle:
                await idle.pop()[1].aclose()

    async def keep(self, origin: _Origin, one: httpx2.AsyncHTTPTransport) -> None:
        """Take back a connection whose reply has been read."""
        if self._is_closed:
            await self.discard(one)
            return
        self._slots.release()
        idle, now = self._idle[origin], asyncio.get_running_loop().time()
        idle.append((now, one))
        while now - idle[0][0] > self._keepalive_seconds:
            await idle.popleft()[1].aclose()

    async def discard(self, one: httpx2.AsyncHTTPTransport) -> None:
        """Close a connection of which it is not known in what state it is."""
        self._slots.release()
        await one.aclose()

    def _connection(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive_seconds)
        return httpx2.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, limits=limits, socket_options=[_FORGET_WHEN_CLOSED]
        )


class _Stream(httpx2.AsyncByteStream):
    """A reply's body; when it is closed its connection is free."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, connections: Connections, origin: _Origin, one: httpx2.AsyncHTTPTransport
    ) -> None:
        self._stream = stream
        self._connections: Connections | None = connections
        self._origin = origin
        self._one = one

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        connections, self._connections = self._connections, None
        if connections is None:
            return
        try:
            await self._stream.aclose()
        except BaseException:
            await connections.discard(self._one)
            raise
        await connections.keep(self._origin, self._one)
