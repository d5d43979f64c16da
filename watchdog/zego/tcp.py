"""The bytes of one connection, straight on the event loop: a network backend for httpcore2.

The library's own stands on anyio, which puts a cancel scope around each read and each write: an eighth of the
interpreter's time of a stop. It also drops a socket when its request is cancelled while the connection is made, or in
its handshake; this one closes it.
"""

import asyncio
import select
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore2

_READ_AHEAD_BYTES: Final = 65536
_HAPPY_EYEBALLS_SECONDS: Final = 0.25
"""How long one address may be silent before the next is tried as well (RFC 8305)."""


class Network(httpcore2.AsyncNetworkBackend):
    """Opens connections over TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> "Wire":
        """Raises httpcore2.ConnectTimeout and httpcore2.ConnectError."""
        opening = asyncio.create_task(_open(host, port, timeout, local_address))
        try:
            # asyncio's race of the addresses loses a socket when it is cancelled in the wrong moment: it never is.
            wire = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        for option in socket_options or ():
            wire.get_extra_info("socket").setsockopt(*option)
        return wire


async def _open(host: str, port: int, timeout: float | None, local_address: str | None) -> "Wire":  # noqa: ASYNC109 - as above
    async with asyncio.timeout(timeout):
        _, wire = await asyncio.get_running_loop().create_connection(
            Wire,
            host,
            port,
            local_addr=None if local_address is None else (local_address, 0),
            happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS,
        )
    return wire


def _close(opening: "asyncio.Task[Wire]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


class Wire(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection. A request is small, so nobody waits until it has been written."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._arrived = bytearray()
        self._has_ended = False
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface's
        """Return what has arrived, and wait for it where that is nothing; b"" at the end.

        Raises httpcore2.ReadTimeout and httpcore2.ReadError.
        """
        if not self._arrived and not self._has_ended:
            self._news = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._news
            except TimeoutError as error:
                raise httpcore2.ReadTimeout(str(error)) from error
            finally:
                self._news = None
        if self._error is not None and not self._arrived:
            raise httpcore2.ReadError(str(self._error)) from self._error
        data = bytes(self._arrived[:max_bytes])
        del self._arrived[:max_bytes]
        if self._transport is not None and not self._has_ended and not self._transport.is_reading():
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109, ARG002 - the interface's
        """Hand it to the kernel, or keep it until the kernel takes it. Raises httpcore2.WriteError."""
        if self._transport is None or self._transport.is_closing():
            raise httpcore2.WriteError("the connection is closed")
        self._transport.write(buffer)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
    ) -> "Wire":
        """Speak TLS from now on; who fails is closed by the event loop.

        Raises httpcore2.ConnectTimeout and httpcore2.ConnectError.
        """
        assert self._transport is not None  # noqa: S101 - connected, or nobody would have it
        try:
            async with asyncio.timeout(timeout):
                self._transport = await asyncio.get_running_loop().start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        return self

    async def aclose(self) -> None:
        """Do as ``abort``; the library waits for it."""
        self.abort()

    def abort(self) -> None:
        """Close it at once: what has not been sent is thrown away."""
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, info: str) -> Any:
        """``ssl_object``, ``socket``, and ``is_readable``: whether there is anything that has not been read."""
        if info == "is_readable":
            return bool(self._arrived) or self._has_ended or _is_readable(self.get_extra_info("socket"))
        return None if self._transport is None else self._transport.get_extra_info(info)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        if len(self._arrived) > _READ_AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._has_ended = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _is_readable(socket: Any) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
