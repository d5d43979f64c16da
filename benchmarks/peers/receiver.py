"""A receiver of the webhook: takes every event, or behaves badly. Prints its URL when it listens.

The argument is one of ``BEHAVIOURS``. ``GET`` returns, as JSON, the ``webhook-id``, the event's time and the Unix time
of arrival of each request so far. It checks no signature: a test does, and here the daemon is measured.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from typing import Final

from watchdog.clock import SystemClock

_GIGABYTE: Final = 10**9
_CHUNK: Final = b"x" * 65_536
_DRIP_SECONDS: Final = 0.01
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_TIME: Final = re.compile(rb'"timestamp":"([^"]+)"')

Arrival = tuple[str, str, float]


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, how: str, received: list[Arrival]) -> None:
        self._answer = BEHAVIOURS[how]
        self._received = received
        self._clock = SystemClock()
        self._buffer = b""
        self._left = 0
        self._may_write = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP server
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            end += int(length[1]) if length else 0
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[len(head) : end], self._buffer[end:]
            if head.startswith(b"GET "):
                self._say(b"200 OK", json.dumps(self._received).encode())
                continue
            webhook_id, at = _ID.search(head), _TIME.search(body)
            if webhook_id is None or at is None:
                self._say(b"400 Bad Request", b"this is no event")
                continue
            self._received.append((webhook_id[1].decode(), at[1].decode(), self._clock.time()))
            self._answer(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._left = 0

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        while self._left > 0 and self._may_write and not self.transport.is_closing():
            self._left -= len(_CHUNK)
            self.transport.write(_CHUNK)

    def hang(self) -> None:
        """Say nothing."""

    def take(self) -> None:
        self._say(b"204 No Content")

    def fail(self) -> None:
        self._say(b"500 Internal Server Error")

    def end(self) -> None:
        self._say(b"410 Gone")

    def redirect(self) -> None:
        self._say(b"307 Temporary Redirect\r\nLocation: /elsewhere")

    def flood(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _GIGABYTE)
        self._left = _GIGABYTE
        self.resume_writing()

    def drip(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drop()

    def _drop(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"x")
            asyncio.get_running_loop().call_later(_DRIP_SECONDS, self._drop)

    def _say(self, status: bytes, body: bytes = b"") -> None:
        length = b"" if status.startswith(b"204") else b"Content-Length: %d\r\n" % len(body)
        self.transport.write(b"HTTP/1.1 %s\r\n%s\r\n%s" % (status, length, body))


BEHAVIOURS: Final[dict[str, Callable[[Conversation], None]]] = {
    "takes": Conversation.take,
    "hangs": Conversation.hang,
    "answers 500": Conversation.fail,
    "answers 410": Conversation.end,
    "redirects": Conversation.redirect,
    "sends 1 GB": Conversation.flood,
    "drips": Conversation.drip,
}


async def _serve(how: str) -> None:
    received: list[Arrival] = []
    server = await asyncio.get_running_loop().create_server(lambda: Conversation(how, received), "127.0.0.1", 0)
    async with server:
        sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/\n")
        sys.stdout.flush()
        await server.serve_forever()


def main(how: str) -> None:
    """Serve until the process is ended."""
    asyncio.run(_serve(how))
