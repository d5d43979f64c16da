"""The client of the ZEGO server APIs that the watchdog uses. One call is one request on the wire.

The client does not follow redirects or decide, and does not retry, with one exception (``_call``). A call returns what
ZEGO answered, whatever it was, or raises what is known about the request:

    NotSent     no byte of the request left: no address, no connection, no TLS, no free connection, no time
    NoAnswer    ZEGO may have received the request and acted on it: connection lost, bad HTTP, no time

The two are told apart by the moment when the request's headers begin to be written. The transport reports it through
httpx2's ``trace`` extension. A transport without such reports counts as having sent at once.
"""

import asyncio
import json
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import httpx2 as httpx
import structlog

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.core.capacity import ROOMS_PER_CALL
from watchdog.core.kinds import DEFAULT_KIND, KINDS, Kind
from watchdog.core.model import Reply
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.signing import sign
from watchdog.errors import ConfigError, NoAnswer, NotSent, RequestError, in_words
from watchdog.network.certificates import tls_context
from watchdog.observer import Observer
from watchdog.zego.replies import (
    Counts,
    UserList,
    clock_offset,
    read_reply,
    read_room_counts,
    read_user_list,
)
from watchdog.zego.transport import network_transport, read_body

# httpx2 logs every URL at INFO, and our URLs carry a signature that is valid for ten minutes.
logging.getLogger("httpx2").setLevel(logging.WARNING)
logging.getLogger("httpcore2").setLevel(logging.WARNING)

log = structlog.get_logger(__name__)

NO_REUSE_SECONDS: Final = 600.0
"""How long each request to a host has a connection of its own, after the host dropped one that was used again."""

USERS_PER_PAGE: Final = 200
"""The most users one DescribeUserList returns (ZEGO, "DescribeUserList")."""

USER_LISTS_PER_SECOND: Final = 200
"""DescribeUserList requests for each AppId (ZEGO, "DescribeUserList"); in addition, one a second for each room."""

FATE: Final[Mapping[type[Exception], type[RequestError]]] = MappingProxyType(
    {
        httpx.InvalidURL: NotSent,
        httpx.ConnectError: NotSent,  # refused, unreachable, no address, TLS failed
        httpx.ConnectTimeout: NotSent,
        httpx.PoolTimeout: NotSent,
        httpx.ProxyError: NotSent,  # the proxy made no tunnel
        httpx.UnsupportedProtocol: NotSent,
        httpx.ReadError: NoAnswer,
        httpx.ReadTimeout: NoAnswer,
        httpx.WriteError: NoAnswer,  # part of it may have left
        httpx.WriteTimeout: NoAnswer,
        httpx.CloseError: NoAnswer,
        httpx.RemoteProtocolError: NoAnswer,
        httpx.LocalProtocolError: NoAnswer,  # may be noticed with the headers gone
        httpx.DecodingError: NoAnswer,
        httpx.TooManyRedirects: NoAnswer,
        httpx.SSEError: NoAnswer,
    }
)
"""What each error of the HTTP library says about the request. An error that is not listed means NoAnswer."""

_CONNECTION_LOST: Final = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)

# OSError: our own deadline raises one (TimeoutError); the library also lets a broken TLS record through as one.
_FOREIGN_ERRORS: Final = (httpx.RequestError, httpx.InvalidURL, OSError)

_HEADERS: Final = {
    "Accept": "application/json",
    # Nothing to unpack: otherwise a small body could unpack beyond the limit.
    "Accept-Encoding": "identity",
    "User-Agent": f"zego-watchdog/{__version__}",
}
_HEADERS_WITH_BODY: Final = {**_HEADERS, "Content-Type": "application/json"}

_OPERATIONS: Final = {
    **{kind.action: kind.pace for kind in KINDS.values()},
    "DescribeUserNum": "user_counts",
    "DescribeUserList": "user_list",
    **{kind.listing.action: "task_list" for kind in KINDS.values() if kind.listing is not None},
}
"""The name of each action in metrics."""

Gate = Callable[[], Awaitable[None]]
"""Returns when a request may leave. An error that it raises stops the request and leaves the call."""


class ZegoClient:
    """Signs requests to ZEGO and reads the replies. Belongs to one event loop; ``aclose()`` ends it."""

    def __init__(
        self,
        server_secrets: Mapping[int, str],
        *,
        asr_url: str,
        rtc_url: str | None,
        timeout_seconds: float,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
        max_connections: int = 64,
        observer: Observer | None = None,
        urls: Mapping[str, str] | None = None,
    ) -> None:
        """Serve the AppIds of ``server_secrets``. Without ``rtc_url`` there is no occupancy API.

        ``urls`` are the base URLs of kinds of tasks other than ASR; those not given are the vendor's.
        ``timeout_seconds`` is the deadline of a whole call, to the last byte of the reply; it starts again when a gate
        opens. ``max_connections`` is for each API. ``transport`` replaces the network. Raises ConfigError
        for a URL or a proxy that cannot be used.
        """
        self.set_secrets(server_secrets)
        bases = {name: (urls or {}).get(name, kind.url) for name, kind in KINDS.items()} | {DEFAULT_KIND: asr_url}
        encrypted = any(url.lower().startswith("https:") for url in (*bases.values(), rtc_url or ""))
        tls = tls_context("ZEGO's") if encrypted and transport is None else None

        def endpoint(key: str, text: str) -> _Endpoint:
            url = _base_url(key, text)
            kept, single = (
                transport or network_transport(url, max_connections, tls, reuse=reuse) for reuse in (True, False)
            )
            return _Endpoint(str(url), url.netloc.decode(), kept, single)

        self._stops = {
            name: endpoint("zego.asr_url" if name == DEFAULT_KIND else f"zego.urls.{name}", url)
            for name, url in bases.items()
        }
        self._rtc = endpoint("zego.rtc_url", rtc_url) if rtc_url else None
        self._clock = clock
        self._observer = observer or Observer()
        self._offsets: dict[str, float] = {}
        self._timeout_seconds = timeout_seconds
        # At most half of the time for a connection: a request that leaves too late for its answer would turn a
        # harmless NotSent into a NoAnswer. The deadline of the call limits the rest.
        self._timeouts = httpx.Timeout(None, connect=timeout_seconds / 2, pool=timeout_seconds / 2).as_dict()
        self._reports_departure = transport is None or isinstance(transport, httpx.AsyncHTTPTransport)

    def set_secrets(self, server_secrets: Mapping[int, str]) -> None:
        """Sign with these from the next request on."""
        self._signers = {app_id: _Signer(app_id, secret) for app_id, secret in server_secrets.items()}

    @property
    def clock_offset_seconds(self) -> Mapping[str, float]:
        """By host: the vendor's clock minus ours, where a reply made us correct our timestamps."""
        return MappingProxyType(self._offsets)

    async def stop_task(
        self, app_id: int, task_id: str, *, kind: str = DEFAULT_KIND, gate: Gate | None = None
    ) -> Reply:
        """Send one request that stops a task of this kind: the ``action`` of ``core.kinds``.

        When ``gate`` is asked, everything is ready, the connection included: only the writing is left.
        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret.
        """
        of = KINDS[kind]
        body = json.dumps({of.id_field: task_id}).encode()
        return await self._call(self._stops[kind], of.action, app_id, of, is_question=False, body=body, gate=gate)

    async def user_counts(self, app_id: int, room_ids: Sequence[str]) -> Counts:
        """Send one DescribeUserNum for 1 to 10 rooms (ZEGO, "DescribeUserNum").

        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret or where there is no ``rtc_url``.
        """
        if not 1 <= len(room_ids) <= ROOMS_PER_CALL:
            raise ValueError(f"DescribeUserNum takes 1 to {ROOMS_PER_CALL} rooms, not {len(room_ids)}")
        if self._rtc is None:
            raise ConfigError("zego.rtc_url is empty, so ZEGO cannot be asked who is in a room: set it")
        rooms = "".join(f"&RoomId[]={quote(room_id, safe='')}" for room_id in room_ids)
        reply = await self._call(self._rtc, "DescribeUserNum", app_id, is_question=True, query=rooms)
        succeeded = classify(None, reply) is ReplyClass.STOPPED
        return Counts(reply, read_room_counts(reply.data, frozenset(room_ids)) if succeeded else {})

    async def user_list(self, app_id: int, room_id: str, *, limit: int = USERS_PER_PAGE, marker: str = "") -> UserList:
        """Send one DescribeUserList for at most ``limit`` users after ``marker`` (ZEGO, "DescribeUserList").

        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret or where there is no ``rtc_url``.
        """
        if self._rtc is None:
            raise ConfigError("zego.rtc_url is empty, so ZEGO cannot be asked who is in a room: set it")
        query = f"&RoomId={quote(room_id, safe='')}&Mode=0&Limit={limit}&Marker={quote(marker, safe='')}"
        reply = await self._call(self._rtc, "DescribeUserList", app_id, is_question=True, query=query)
        succeeded = classify(None, reply) is ReplyClass.STOPPED
        return UserList(reply, *(read_user_list(reply.data) if succeeded else (None, "")))

    async def ask(self, kind: Kind, action: str, app_id: int, question: Mapping[str, object]) -> Reply:
        """Send one question to the API of ``kind``. Raises NotSent, NoAnswer, and ConfigError as ``user_counts``."""
        body = json.dumps(question).encode()
        return await self._call(self._stops[kind.name], action, app_id, kind, is_question=True, body=body)

    async def aclose(self) -> None:
        """Close the connections."""
        for endpoint in filter(None, (*self._stops.values(), self._rtc)):
            await endpoint.kept.aclose()
            await endpoint.single.aclose()

    async def _call(
        self,
        endpoint: "_Endpoint",
        action: str,
        app_id: int,
        kind: Kind | None = None,
        *,
        is_question: bool,
        query: str = "",
        body: bytes | None = None,
        gate: Gate | None = None,
    ) -> Reply:
        """Send a request to the API of ``kind`` (None: the RTC API). A question changes nothing at ZEGO.

        Some hosts drop a connection when it is used a second time. Then nobody knows whether ZEGO received the request,
        so only a question is asked again, at once and once, on a connection of its own.
        """
        signer = self._signers.get(app_id)
        if signer is None:
            raise ConfigError(f"AppId {app_id} has no server secret: add it to zego.apps")
        began = self._clock.monotonic()

        async def pass_gate() -> None:
            nonlocal began
            if gate is not None:
                deadline.reschedule(None)
                await gate()
                began = self._clock.monotonic()
                deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_seconds)

        departure = _Departure(pass_gate)
        try:
            async with asyncio.timeout(self._timeout_seconds) as deadline:
                if not self._reports_departure:
                    await departure.begin()
                try:
                    reply = await self._exchange(endpoint, action, signer, query, body, departure)
                except _CONNECTION_LOST as error:
                    if not departure.reuses_connection:
                        raise
                    self._stop_reusing(endpoint, error)
                    if not is_question:
                        raise
                    reply = await self._exchange(endpoint, action, signer, query, body, departure)
        except _FOREIGN_ERRORS as error:
            failure = self._failure(error, endpoint, action, begun=departure.begun)
            self._observe(action, "not_sent" if isinstance(failure, NotSent) else "no_answer", began)
            raise failure from error
        reply_class = classify(kind, reply)
        self._observe(action, "ok" if reply_class is ReplyClass.STOPPED else reply_class, began)
        if reply.clock_offset_seconds is not None and reply_class is ReplyClass.CLOCK:
            self._offsets[endpoint.host] = reply.clock_offset_seconds
        return reply

    async def _exchange(
        self,
        endpoint: "_Endpoint",
        action: str,
        signer: "_Signer",
        query: str,
        body: bytes | None,
        departure: "_Departure",
    ) -> Reply:
        timestamp = int(self._clock.time() + self._offsets.get(endpoint.host, 0.0))
        request = httpx.Request(
            "GET" if body is None else "POST",
            f"{endpoint.url}?Action={action}&{signer.query(timestamp)}{query}",
            headers=_HEADERS if body is None else _HEADERS_WITH_BODY,
            content=body,
            extensions={"timeout": self._timeouts, "trace": departure},
        )
        transport = endpoint.transport(self._clock.monotonic())
        async with aclosing(await transport.handle_async_request(request)) as response:
            # Read the clock before the body: a slow body makes the header old.
            offset = clock_offset(response.headers.get("date"), self._clock.time())
            return read_reply(response.status_code, await read_body(response), offset)

    def _stop_reusing(self, endpoint: "_Endpoint", error: Exception) -> None:
        now = self._clock.monotonic()
        if now >= endpoint.reuse_from:
            log.warning("connections_not_reused", host=endpoint.host, seconds=NO_REUSE_SECONDS, error=in_words(error))
        endpoint.reuse_from = now + NO_REUSE_SECONDS

    def _observe(self, action: str, reply_class: str, began: float) -> None:
        self._observer.request(_OPERATIONS[action], reply_class, self._clock.monotonic() - began)

    def _failure(self, error: Exception, endpoint: "_Endpoint", action: str, *, begun: bool) -> RequestError:
        # A TimeoutError that is not the library's is the deadline of the whole call.
        late = isinstance(error, TimeoutError)
        reason = f"not done within {self._timeout_seconds:g} s" if late else in_words(error)
        if not begun or FATE.get(type(error)) is NotSent:
            return NotSent(f"{action} was not sent to {endpoint.host}: {reason}. It is safe to repeat.")
        return NoAnswer(f"{action} got no answer from {endpoint.host}: {reason}. ZEGO may have acted on it.")


class _Signer:
    """Signs the query of one AppId; shows neither secret nor query."""

    __slots__ = ("_app_id", "_server_secret")

    def __init__(self, app_id: int, server_secret: str) -> None:
        self._app_id = app_id
        self._server_secret = server_secret

    def query(self, timestamp: int) -> str:
        nonce = secrets.token_hex(8)
        signature = sign(self._app_id, nonce, self._server_secret, timestamp)
        return (
            f"AppId={self._app_id}&SignatureNonce={nonce}&Timestamp={timestamp}"
            f"&SignatureVersion=2.0&Signature={signature}"
        )


@dataclass(slots=True)
class _Endpoint:
    """One API: its base URL, the host that messages name, and what carries the requests.

    ``kept`` uses connections again, ``single`` does not. ``reuse_from`` is a moment of the monotonic clock.
    """

    url: str
    host: str
    kept: httpx.AsyncBaseTransport
    single: httpx.AsyncBaseTransport
    reuse_from: float = -math.inf

    def transport(self, now: float) -> httpx.AsyncBaseTransport:
        return self.kept if now >= self.reuse_from else self.single


def _base_url(key: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{key} is not a URL ({error}): write it like https://host/") from error
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment or url.userinfo:
        raise ConfigError(f"{key} is not a base URL: write it like https://host/, with nothing after the path")
    return url


class _Departure:
    """httpx2's ``trace`` extension: asks the gate just before the headers are written, and notes that they left.

    ``reuses_connection``: they left, and no connection was opened for them.
    """

    __slots__ = ("_has_connected", "_pass_gate", "begun")

    def __init__(self, pass_gate: Gate) -> None:
        self._pass_gate = pass_gate
        self._has_connected = False
        self.begun = False

    @property
    def reuses_connection(self) -> bool:
        return self.begun and not self._has_connected

    async def begin(self) -> None:
        # The second time, if the first connection was found closed: the gate has been passed.
        if not self.begun:
            await self._pass_gate()
        self.begun = True

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._has_connected = True
        # The headers of CONNECT ask a proxy for a tunnel; they are not the request's.
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            await self.begin()
