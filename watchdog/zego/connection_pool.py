"""Keeps connections as the HTTP library does, at a cost that does not grow with their number.

The library's pool looks after every idle connection whenever a request comes or goes, twice a request, with system
calls: with some dozens of them that is more than a third of the processor time of a stop. Here the last connection that
was used is the first to be used again, and nobody looks at the others. What speaks HTTP on a connection is the
library's own (httpcore2, on which httpx2 stands).
"""

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

import httpcore2
import httpx2

from watchdog.zego.tcp import Network

_NETWORK: Final = Network()

ERRORS: Final[dict[type[Exception], type[httpx2.TransportError]]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.ProxyError: httpx2.ProxyError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
}
"""Every error of a connection, and what it is to the users of httpx2."""

_FOREIGN: Final = tuple(ERRORS)

# What has not arrived when a connection is closed must never arrive. Otherwise the kernel goes on trying to deliver a
# request that was given up, for minutes, and a network that is mended by then brings a stop that was decided long ago.
_FORGET_WHEN_CLOSED: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

_Key = tuple[bytes, bytes, int]
_Idle = deque[tuple[float, httpcore2.AsyncHTTPConnection]]
"""Since when, by the event loop's clock, and what; the last one used is last."""


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
        self._idle: dict[_Key, _Idle] = {}
        self._is_closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises what httpx2.AsyncHTTPTransport raises."""
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx2.PoolTimeout("no free connection", request=request) from error
        url = request.url
        bare = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        origin = bare.url.origin
        one: httpcore2.AsyncHTTPConnection | None = None
        try:
            one = await self._take(origin)
            response = await one.handle_async_request(bare)
        except BaseException as error:
            await self._discard(one)
            if isinstance(error, _FOREIGN):
                raise ERRORS[type(error)](str(error), request=request) from error
            raise
        assert isinstance(response.stream, AsyncIterable)  # noqa: S101 - an asynchronous connection's are
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Stream(response.stream, self, _key(origin), one),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the idle connections now, and those in use when their replies have been read."""
        self._is_closed = True
        for idle in self._idle.values():
            while idle:
                await idle.pop()[1].aclose()

    async def _take(self, origin: httpcore2.Origin) -> httpcore2.AsyncHTTPConnection:
        """Return a connection that is still good, or a new one, which is not connected yet."""
        idle = self._idle.setdefault(_key(origin), deque())
        while idle:
            _, one = idle.pop()
            if not one.has_expired():
                return one
            await one.aclose()
        return httpcore2.AsyncHTTPConnection(
            origin,
            ssl_context=self._tls,
            keepalive_expiry=self._keepalive_seconds,
            network_backend=_NETWORK,
            socket_options=[_FORGET_WHEN_CLOSED],
        )

    async def give_back(self, key: _Key, one: httpcore2.AsyncHTTPConnection) -> None:
        """Take back a connection whose reply has been closed; where not all of it was read it is of no more use."""
        if self._is_closed or not one.is_idle():
            await self._discard(one)
            return
        self._slots.release()
        idle, now = self._idle[key], asyncio.get_running_loop().time()
        idle.append((now, one))
        while now - idle[0][0] > self._keepalive_seconds:
            await idle.popleft()[1].aclose()

    async def _discard(self, one: httpcore2.AsyncHTTPConnection | None) -> None:
        """Free the slot, and close a connection of which it is not known in what state it is."""
        self._slots.release()
        if one is not None:
            await one.aclose()


def _key(origin: httpcore2.Origin) -> _Key:
    return origin.scheme, origin.host, origin.port


class _Stream(httpx2.AsyncByteStream):
    """A reply's body; when it is closed its connection is free."""

    def __init__(
        self,
        stream: AsyncIterable[bytes],
        connections: Connections,
        key: _Key,
        one: httpcore2.AsyncHTTPConnection,
    ) -> None:
        self._stream = stream
        self._connections: Connections | None = connections
        self._key = key
        self._one = one

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except _FOREIGN as error:
            raise ERRORS[type(error)](str(error)) from error

    async def aclose(self) -> None:
        connections, self._connections = self._connections, None
        if connections is None:
            return
        try:
            await self._stream.aclose()  # type: ignore[attr-defined]  # of HTTP/1.1's streams
        finally:
            await connections.give_back(self._key, self._one)
