"""A transport with many connections to one host, of which each is a transport of its own; the last one used goes first.

The library's pool looks at all of its connections twice a request. With 64 of them that takes longer than the request.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import httpx2 as httpx

KEEPALIVE_SECONDS: Final = 5.0
"""Short: a request on a connection that the vendor is closing at this moment has an unknown fate."""


class Connections(httpx.AsyncBaseTransport):
    """At most ``limit`` requests at a time; each transport that ``make`` returns has one connection."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport], limit: int) -> None:
        """Raises what ``make`` raises."""
        self._make = make
        self._free = asyncio.Semaphore(limit)
        # With the time since when each is idle; the first has been idle for longest.
        self._idle: deque[tuple[httpx.AsyncBaseTransport, float]] = deque([(make(), 0.0)])
        self._busy: set[httpx.AsyncBaseTransport] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raise PoolTimeout if no connection is free in time."""
        seconds = request.extensions.get("timeout", {}).get("pool")
        try:
            async with asyncio.timeout(seconds if self._free.locked() else None):
                await self._free.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("no connection was free in time") from error
        transport = self._idle.pop()[0] if self._idle else self._make()
        self._busy.add(transport)
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            # Its connection is of no more use, and the library keeps one whose tunnel got no TLS, as if it were busy.
            self._busy.discard(transport)
            self._free.release()
            await transport.aclose()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous transport's are
        response.stream = _Body(response.stream, lambda: self._done(transport))
        return response

    async def _done(self, transport: httpx.AsyncBaseTransport) -> None:
        self._busy.discard(transport)
        self._idle.append((transport, asyncio.get_running_loop().time()))
        self._free.release()
        # One is enough: it happens after every request.
        if self._idle[-1][1] - self._idle[0][1] > KEEPALIVE_SECONDS:
            await self._idle.popleft()[0].aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (*self._busy, *(transport for transport, _ in self._idle)):
            await transport.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, done: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._done = done

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._done()
