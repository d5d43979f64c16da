"""The byte streams of the HTTP library, with two things that it leaves out.

    pool ──► GuardedBackend ──► GuardedStream ──► the library's stream ──► socket

The pool looks whether an idle connection was closed when it hands the connection out. A stop then waits for its due
time. So the stream looks again just before the first byte is written: if the other side has closed meanwhile, nothing
is sent, and the pool takes another connection.

The library skips informational responses (1xx), any number of them, and takes a body in chunks of one byte, thousands
without a turn for the event loop. So the stream counts both where they arrive, and reads a little at a time. It does
not know where a reply's head ends; a body that quotes as many status lines counts too.
"""

import re
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore2 as httpcore

from watchdog.zego.replies import BODY_LIMIT_BYTES

INFORMATIONAL_LIMIT: Final = 8
"""How many informational responses may precede a reply. ZEGO sends none; proxies send one or two."""

WIRE_LIMIT_BYTES: Final = 2 * BODY_LIMIT_BYTES
"""How long a reply may be, with head and framing. A plain body that is too long is cut before."""

_AT_ONCE_BYTES: Final = 2048
_INFORMATIONAL: Final = re.compile(rb"HTTP/\d\.\d 1")
_LENGTH: Final = len(b"HTTP/1.1 1")


class GuardedStream(httpcore.AsyncNetworkStream):
    """One connection; each request begins with a ``write`` and ends with the last ``read`` before the next one."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._is_reading = False
        self._begin_reply()

    def _begin_reply(self) -> None:
        self._received = self._informational = 0
        self._end = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raise RemoteProtocolError if the reply to this request is too long or follows too many informational ones."""
        self._is_reading = True
        data = await self._stream.read(min(max_bytes, _AT_ONCE_BYTES), timeout)
        self._received += len(data)
        # A status line may be cut in two; what is kept is too short to be counted twice.
        self._informational += len(_INFORMATIONAL.findall(self._end + data))
        self._end = (self._end + data)[1 - _LENGTH :]
        if self._informational > INFORMATIONAL_LIMIT:
            raise httpcore.RemoteProtocolError(f"more than {INFORMATIONAL_LIMIT} informational responses (1xx)")
        if self._received > WIRE_LIMIT_BYTES:
            raise httpcore.RemoteProtocolError(f"a reply of more than {WIRE_LIMIT_BYTES} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raise ConnectionNotAvailable, on which the pool takes another connection, if this one was closed."""
        if self._is_reading and self.get_extra_info("is_readable"):
            raise httpcore.ConnectionNotAvailable
        self._is_reading = False
        self._begin_reply()
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
