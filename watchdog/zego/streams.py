"""The byte streams of the HTTP library, with what it leaves out: a last look before a connection is used again.

    pool ──► GuardedBackend ──► GuardedStream ──► the library's stream ──► socket

The pool looks whether an idle connection was closed when it hands the connection out. A stop then waits for its due
time. So the stream looks again just before the first byte is written: if the other side has closed meanwhile, nothing
is sent, and the pool takes another connection.
"""

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2 as httpcore


class GuardedStream(httpcore.AsyncNetworkStream):
    """One connection; each request begins with a ``write`` and ends with the last ``read`` before the next one."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._is_reading = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._is_reading = True
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raise ConnectionNotAvailable, on which the pool takes another connection, if this one was closed."""
        if self._is_reading and self.get_extra_info("is_readable"):
            raise httpcore.ConnectionNotAvailable
        self._is_reading = False
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return GuardedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens guarded connections over TCP."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return GuardedStream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))
