"""HTTP/1.1 on one guarded connection, with h11, for a client that sends much.

The library's own way from a request to the stream has a pool, a lock, a scope and several traces a request, and writes
head and body one after the other, which wakes the receiver twice. This one is half as expensive, which a thousand
events a second need. It has no proxies, no redirects and no timeouts: its caller sets a deadline for the whole.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import h11
import httpcore2 as httpcore
import httpx2 as httpx

from watchdog.network.connections import KEEPALIVE_SECONDS
from watchdog.network.streams import GuardedBackend

_READ_BYTES: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}
_OURS: Final[dict[type[Exception], type[httpx.TransportError]]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    h11.RemoteProtocolError: httpx.RemoteProtocolError,
    h11.LocalProtocolError: httpx.LocalProtocolError,
}
"""What the streams and h11 raise, and what a transport of httpx2 raises instead."""


@contextmanager
def _as_transport_error() -> Iterator[None]:
    try:
        yield
    except tuple(_OURS) as error:
        raise _OURS[type(error)](str(error)) from error


class _Link:
    """A connection and the state of its conversation."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self.stream = stream
        self.state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ_BYTES)

    async def send(self, request: httpx.Request) -> None:
        """Write the whole request at once. Raises ConnectionNotAvailable if another connection is to be used."""
        head = h11.Request(
            method=request.method.encode(), target=request.url.raw_path, headers=list(request.headers.raw)
        )
        parts = [self.state.send(head), self.state.send(h11.Data(request.content)), self.state.send(h11.EndOfMessage())]
        # The receiver may have answered, and closed, before it read the request.
        with suppress(httpcore.WriteError):
            await self.stream.write(b"".join(part for part in parts if part))

    async def receive(self) -> h11.Event | type[h11.PAUSED]:
        """Return the next part of the reply."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            data = await self.stream.read(_READ_BYTES)
            if not data and self.state.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("Server disconnected without sending a response.")
            self.state.receive_data(data)
        return event  # type: ignore[return-value]  # mypy does not see that it is not NEED_DATA


class OneConnection(httpx.AsyncBaseTransport):
    """One request at a time, on one connection, which is opened for the first and whenever it cannot be used again."""

    def __init__(
        self, backend: GuardedBackend, tls: ssl.SSLContext | None = None, socket_options: Sequence[Any] = ()
    ) -> None:
        """``tls`` is for https."""
        self._backend = backend
        self._tls = tls
        self._socket_options = socket_options
        self._link: _Link | None = None
        self._idle_since = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raise the errors of httpx2's own transport."""
        with _as_transport_error():
            link = await self._send(request)
            while isinstance(event := await link.receive(), h11.InformationalResponse):
                pass
        assert isinstance(event, h11.Response)  # noqa: S101 - h11 has no other order
        return httpx.Response(event.status_code, headers=event.headers.raw_items(), stream=_Body(self, link))

    async def _send(self, request: httpx.Request) -> _Link:
        link, self._link = self._link, None
        if link is not None:
            if asyncio.get_running_loop().time() - self._idle_since <= KEEPALIVE_SECONDS:
                with suppress(httpcore.ConnectionNotAvailable):
                    self._link = link
                    await link.send(request)
                    return link
            await link.stream.aclose()
        self._link = link = _Link(await self._open(request.url))
        await link.send(request)
        return link

    async def _open(self, url: httpx.URL) -> httpcore.AsyncNetworkStream:
        host, port = url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
        stream = await self._backend.connect_tcp(host, port, socket_options=self._socket_options)
        if url.scheme == "https":
            assert self._tls is not None  # noqa: S101 - https needs one
            return await stream.start_tls(self._tls, server_hostname=host)
        return stream

    async def done(self, link: _Link) -> None:
        """Keep the connection if the reply has been read to its end, else close it."""
        if link.state.our_state is h11.DONE and link.state.their_state is h11.DONE:
            link.state.start_next_cycle()
            self._idle_since = asyncio.get_running_loop().time()
        else:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, whatever is under way."""
        link, self._link = self._link, None
        if link is not None:
            await link.stream.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, transport: OneConnection, link: _Link) -> None:
        self._transport = transport
        self._link = link

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_transport_error():
            while isinstance(event := await self._link.receive(), h11.Data):
                yield bytes(event.data)

    async def aclose(self) -> None:
        await self._transport.done(self._link)
