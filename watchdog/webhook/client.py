"""The client of the webhook: one signed POST for each event, and what came of it.

Only the status counts. Redirects are not followed, because the signed body is meant for one receiver. Proxies that the
environment names are not used: through a proxy the address that is reached could not be checked.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import httpx2 as httpx

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.core.webhook import Result, Verdict, judge, signatures
from watchdog.errors import ConfigError, NoAnswer, in_words
from watchdog.network.certificates import tls_context
from watchdog.network.connections import Connections
from watchdog.network.http11 import OneConnection
from watchdog.network.streams import GuardedBackend, Resolve
from watchdog.webhook.addresses import Destinations, Network

TEXT_LIMIT_BYTES: Final = 4096
"""How much of an answer's body is read. More is not taken, and the connection is not used again."""

_WIRE_LIMIT_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 1.0
"""How long the body of an answer may take. It changes nothing."""

_EXCERPT: Final = 200
_RESET_ON_CLOSE: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
_CONNECTION_LOST: Final = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
# OSError: our own deadline raises one (TimeoutError); the library also lets a broken TLS record through as one.
_FOREIGN_ERRORS: Final = (httpx.RequestError, httpx.InvalidURL, OSError)


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where events go. ``url`` may contain a secret; ``keys`` are secrets."""

    url: str
    keys: Sequence[bytes]
    timeout_seconds: float = 15.0
    """The deadline of a request, from the lookup of the host to the answer's status."""
    concurrency: int = 8
    """Requests, and connections, at a time."""
    allowed_networks: Sequence[Network] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, the beginning of its body in one line, and two headers."""

    status: int
    text: str
    retry_after: str | None
    date: str | None


class WebhookClient:
    """Sends to one target. Belongs to one event loop; ``aclose()`` ends it."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``transport`` replaces the network, ``resolve`` the DNS, ``tls`` the system's certificates.

        Raises ConfigError for a URL or certificates that cannot be used.
        """
        self.target = target
        self._clock = clock
        try:
            url = httpx.URL(target.url)
        except httpx.InvalidURL:
            # Not chained: it may quote a secret.
            raise ConfigError("notify.url cannot be read: write it like https://host/path") from None
        if url.scheme == "https" and transport is None and tls is None:
            tls = tls_context("the webhook receiver's")
        self._url = url
        self._tls = tls
        self._backend = GuardedBackend(_WIRE_LIMIT_BYTES, Destinations(target.allowed_networks, resolve))
        self._transport = transport or Connections(self._connection, target.concurrency)
        self._extensions = {"timeout": httpx.Timeout(None).as_dict()}

    @property
    def host(self) -> str:
        """The receiver's host and port, which contain no secret."""
        return self._url.netloc.decode()

    def _connection(self) -> OneConnection:
        # One that was given up delivers nothing any more; a broken receiver holds no socket.
        return OneConnection(self._backend, self._tls, socket_options=[_RESET_ON_CLOSE])

    async def post(self, webhook_id: str, body: bytes) -> Verdict:
        """Send one event; raises nothing but a cancellation."""
        try:
            answer = await self.ask(webhook_id, body)
        except NoAnswer as error:
            return Verdict(Result.NO_ANSWER, str(error))
        return judge(answer.status, answer.text, answer.retry_after, answer.date, self._clock.time())

    async def ask(self, webhook_id: str, body: bytes) -> Answer:
        """Send one event. Raises NoAnswer, also if the event certainly was not sent: it is sent again anyway."""
        try:
            async with asyncio.timeout(self.target.timeout_seconds):
                try:
                    return await self._exchange(webhook_id, body)
                except _CONNECTION_LOST:
                    # Servers close idle connections, also at this very moment. The same event twice does no harm.
                    return await self._exchange(webhook_id, body)
        except _FOREIGN_ERRORS as error:
            late = isinstance(error, TimeoutError)
            reason = f"no answer within {self.target.timeout_seconds:g} s" if late else in_words(error)
            raise NoAnswer(f"{self.host}: {reason}") from error

    async def _exchange(self, webhook_id: str, body: bytes) -> Answer:
        timestamp = int(self._clock.time())
        request = httpx.Request(
            "POST",
            self._url,
            headers={
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"zego-watchdog/{__version__}",
                "webhook-id": webhook_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signatures(self.target.keys, webhook_id, timestamp, body),
            },
            content=body,
            extensions=self._extensions,
        )
        async with aclosing(await self._transport.handle_async_request(request)) as response:
            text = await _text(response)
            headers = response.headers
            return Answer(response.status_code, text, headers.get("retry-after"), headers.get("date"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


async def _text(response: httpx.Response) -> str:
    """Return the beginning of the body in one line; what can be had of it soon."""
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous transport's are
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in response.stream:
                body += chunk
                if len(body) > TEXT_LIMIT_BYTES:
                    break
    except _FOREIGN_ERRORS:
        # The status has been read, and it alone counts.
        pass
    text = "".join(c if c.isprintable() else " " for c in body[: 4 * _EXCERPT].decode("utf-8", "replace"))
    return " ".join(text.split())[:_EXCERPT]
