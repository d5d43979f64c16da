"""The client of ZEGO's server APIs, as far as the watchdog needs them. One call is one request on the wire.

Nothing here retries, follows a redirect or decides: a call returns what was answered, whatever it was, or raises what
is known of the request's fate.

    NotSent     no byte of the request left: no address, no connection, no TLS, no free slot in the pool, no time
    NoAnswer    it may have arrived, and may have been acted on: connection lost, garbled HTTP, no time

The line between them is the moment when the request's headers begin to be written, which the transport reports
(httpx2's ``trace`` extension). A transport that reports nothing is taken to have sent at once.
"""

import asyncio
import json
import logging
import secrets
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import httpx2

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.core.model import Reply, RoomCount, RoomUser
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.core.signing import sign
from watchdog.errors import ConfigError, NoAnswer, NotSent, RequestError
from watchdog.observer import Observer
from watchdog.zego.connection_pool import Connections

# httpx2 logs every URL at INFO, and ours carry a signature that is good for ten minutes.
logging.getLogger("httpx2").setLevel(logging.WARNING)
logging.getLogger("httpcore2").setLevel(logging.WARNING)

ROOMS_PER_CALL: Final = 10
"""The most rooms one DescribeUserNum takes (ZEGO, "DescribeUserNum")."""

USERS_PER_PAGE: Final = 200
"""The most users one DescribeUserList returns (ZEGO, "DescribeUserList")."""

USER_LISTS_PER_SECOND: Final = 200
"""DescribeUserList requests for each AppId (ZEGO, "DescribeUserList"); one a second for each room besides."""

FATE: Final[Mapping[type[Exception], type[RequestError]]] = MappingProxyType(
    {
        httpx2.InvalidURL: NotSent,
        httpx2.ConnectError: NotSent,  # refused, unreachable, no address, TLS failed
        httpx2.ConnectTimeout: NotSent,
        httpx2.PoolTimeout: NotSent,
        httpx2.ProxyError: NotSent,  # the proxy made no tunnel
        httpx2.UnsupportedProtocol: NotSent,
        httpx2.ReadError: NoAnswer,
        httpx2.ReadTimeout: NoAnswer,
        httpx2.WriteError: NoAnswer,  # part of it may have left
        httpx2.WriteTimeout: NoAnswer,
        httpx2.CloseError: NoAnswer,
        httpx2.RemoteProtocolError: NoAnswer,
        httpx2.LocalProtocolError: NoAnswer,  # may be noticed with the headers gone
        httpx2.DecodingError: NoAnswer,
        httpx2.TooManyRedirects: NoAnswer,
        httpx2.SSEError: NoAnswer,
    }
)
"""What each of the HTTP library's errors says of the request by itself; one that is not listed says NoAnswer."""

# OSError: our own deadline is one (TimeoutError), and so is a broken TLS record, which the library lets through.
_FOREIGN_ERRORS: Final = (httpx2.RequestError, httpx2.InvalidURL, OSError)

_HEADERS: Final = {
    "Accept": "application/json",
    # Nothing to unpack, so that the limit on a body is one.
    "Accept-Encoding": "identity",
    "User-Agent": f"zego-watchdog/{__version__}",
}
_HEADERS_WITH_BODY: Final = {**_HEADERS, "Content-Type": "application/json"}

_OPERATIONS: Final = {
    "StopRealtimeASRTask": "stop",
    "DescribeUserNum": "user_counts",
    "DescribeUserList": "user_list",
}

_BODY_LIMIT_BYTES: Final = 64 * 1024
_TEXT_LIMIT: Final = 500
_IDENTIFIER_LIMIT: Final = 200
_COUNT_LIMIT_DIGITS: Final = 9
_KEEPALIVE_SECONDS: Final = 5.0

_Send = Callable[[httpx2.Request], Awaitable[httpx2.Response]]

Gate = Callable[[], Awaitable[None]]
"""Returns when a request may leave; what it raises keeps the request back, and comes out of the call."""


@dataclass(frozen=True, slots=True)
class Counts:
    """DescribeUserNum's answer.

    ``rooms`` has the rooms that were asked for and whose numbers make sense. A room that is missing there is unknown,
    which is not empty; without success in ``reply`` all of them are missing.
    """

    reply: Reply
    rooms: Mapping[str, RoomCount]


@dataclass(frozen=True, slots=True)
class UserList:
    """DescribeUserList's answer: one page, in the order of login.

    ``users`` is None without success in ``reply``, and where an entry makes no sense: who else is there is not known
    then. ``marker`` begins the next page; it is empty on the last one.
    """

    reply: Reply
    users: tuple[RoomUser, ...] | None
    marker: str


class ZegoClient:
    """Signs requests to ZEGO and reads the replies; belongs to one event loop, ``aclose()`` ends it."""

    def __init__(
        self,
        server_secrets: Mapping[int, str],
        *,
        asr_url: str,
        rtc_url: str | None,
        timeout_seconds: float,
        clock: Clock,
        transport: httpx2.AsyncBaseTransport | None = None,
        max_connections: int = 64,
        observer: Observer | None = None,
    ) -> None:
        """Serve the AppIds of ``server_secrets``; without ``rtc_url`` there is no occupancy API.

        ``timeout_seconds`` is the deadline of a whole call, to the last byte of the reply; it begins anew where a gate
        opens. ``transport`` replaces the network. Raises ConfigError for a URL that cannot be called.
        """
        self.set_secrets(server_secrets)
        self._asr = _Endpoint.parse("zego.asr_url", asr_url)
        self._rtc = _Endpoint.parse("zego.rtc_url", rtc_url) if rtc_url else None
        self._clock = clock
        self._observer = observer or Observer()
        self._offsets: dict[str, float] = {}
        self._timeout_seconds = timeout_seconds
        # Half of the time for getting a connection: a request that leaves with no time for its answer turns a harmless
        # NotSent into a NoAnswer. The rest is the deadline's affair.
        self._timeouts = httpx2.Timeout(None, connect=timeout_seconds / 2, pool=timeout_seconds / 2).as_dict()
        self._reports_departure = transport is None or isinstance(transport, httpx2.AsyncHTTPTransport)
        if transport is None and urllib.request.getproxies().keys() & {"http", "https", "all"}:
            # Which of them is for whom, and how to speak to it, the library knows.
            client = httpx2.AsyncClient(
                limits=httpx2.Limits(
                    max_connections=max_connections,
                    max_keepalive_connections=max_connections,
                    keepalive_expiry=_KEEPALIVE_SECONDS,
                ),
            )
            self._send: _Send = partial(client.send, stream=True, follow_redirects=False)
            self._close = client.aclose
        else:
            # Without a client, which is for redirects, cookies and other things that a call of an API has no use for.
            # Keepalive is short: a request on a connection that the vendor is just closing is one of unknown fate.
            transport = transport or Connections(max_connections, keepalive_seconds=_KEEPALIVE_SECONDS)
            self._send = transport.handle_async_request
            self._close = transport.aclose

    def set_secrets(self, server_secrets: Mapping[int, str]) -> None:
        """Sign with these from the next request on."""
        self._signers = {app_id: _Signer(app_id, secret) for app_id, secret in server_secrets.items()}

    @property
    def app_ids(self) -> frozenset[int]:
        """The AppIds whose secret is known."""
        return frozenset(self._signers)

    @property
    def clock_offset_seconds(self) -> Mapping[str, float]:
        """By host, the vendor's clock minus ours, where a reply has taught us to correct our timestamps by it."""
        return MappingProxyType(self._offsets)

    async def stop_task(self, app_id: int, task_id: str, *, gate: Gate | None = None) -> Reply:
        """Send one StopRealtimeASRTask (ZEGO, "Cloud Realtime ASR: stop a task").

        Everything is ready when ``gate`` is asked, the connection too: once it opens only the writing is left.
        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret.
        """
        body = json.dumps({"TaskId": task_id}).encode()
        return await self._call(self._asr, "StopRealtimeASRTask", app_id, body=body, gate=gate)

    async def user_counts(self, app_id: int, room_ids: Sequence[str]) -> Counts:
        """Send one DescribeUserNum for 1 to 10 rooms (ZEGO, "DescribeUserNum").

        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret or where there is no ``rtc_url``.
        """
        if not 1 <= len(room_ids) <= ROOMS_PER_CALL:
            raise ValueError(f"DescribeUserNum takes 1 to {ROOMS_PER_CALL} rooms, not {len(room_ids)}")
        if self._rtc is None:
            raise ConfigError("zego.rtc_url is empty, so nobody can be asked who is in a room: set it")
        rooms = "".join(f"&RoomId[]={quote(room_id, safe='')}" for room_id in room_ids)
        reply = await self._call(self._rtc, "DescribeUserNum", app_id, query=rooms)
        succeeded = classify(reply) is ReplyClass.STOPPED
        return Counts(reply, _room_counts(reply.data, frozenset(room_ids)) if succeeded else {})

    async def user_list(self, app_id: int, room_id: str, *, limit: int = USERS_PER_PAGE, marker: str = "") -> UserList:
        """Send one DescribeUserList for at most ``limit`` users after ``marker`` (ZEGO, "DescribeUserList").

        Raises NotSent or NoAnswer, and ConfigError for an AppId without a secret or where there is no ``rtc_url``.
        """
        if self._rtc is None:
            raise ConfigError("zego.rtc_url is empty, so nobody can be asked who is in a room: set it")
        query = f"&RoomId={quote(room_id, safe='')}&Mode=0&Limit={limit}&Marker={quote(marker, safe='')}"
        reply = await self._call(self._rtc, "DescribeUserList", app_id, query=query)
        succeeded = classify(reply) is ReplyClass.STOPPED
        return UserList(reply, *(_user_list(reply.data) if succeeded else (None, "")))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._close()

    async def _call(
        self,
        endpoint: "_Endpoint",
        action: str,
        app_id: int,
        *,
        query: str = "",
        body: bytes | None = None,
        gate: Gate | None = None,
    ) -> Reply:
        signer = self._signers.get(app_id)
        if signer is None:
            raise ConfigError(f"AppId {app_id} has no server secret: add it to zego.apps")
        timestamp = int(self._clock.time() + self._offsets.get(endpoint.host, 0.0))
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
                request = httpx2.Request(
                    "GET" if body is None else "POST",
                    f"{endpoint.url}?Action={action}&{signer.query(timestamp)}{query}",
                    headers=_HEADERS if body is None else _HEADERS_WITH_BODY,
                    content=body,
                    extensions={"timeout": self._timeouts, "trace": departure},
                )
                async with aclosing(await self._send(request)) as response:
                    # Read the clock before the body: the header is as old as the body is slow.
                    offset = _clock_offset(response.headers.get("date"), self._clock.time())
                    reply = read_reply(response.status_code, await _read_body(response), offset)
        except _FOREIGN_ERRORS as error:
            failure = self._failure(error, endpoint, action, begun=departure.begun)
            self._observe(action, "not_sent" if isinstance(failure, NotSent) else "no_answer", began)
            raise failure from error
        reply_class = classify(reply)
        self._observe(action, "ok" if reply_class is ReplyClass.STOPPED else reply_class, began)
        if reply.clock_offset_seconds is not None and reply_class is ReplyClass.CLOCK:
            self._offsets[endpoint.host] = reply.clock_offset_seconds
        return reply

    def _observe(self, action: str, reply_class: str, began: float) -> None:
        self._observer.request(_OPERATIONS[action], reply_class, self._clock.monotonic() - began)

    def _failure(self, error: Exception, endpoint: "_Endpoint", action: str, *, begun: bool) -> RequestError:
        # Any other TimeoutError than the library's is the deadline of the whole call.
        late = isinstance(error, TimeoutError)
        said = str(error).rstrip(".") or type(error).__name__
        reason = f"not done within {self._timeout_seconds:g} s" if late else said
        if not begun or FATE.get(type(error)) is NotSent:
            return NotSent(f"{action} was not sent to {endpoint.host}: {reason}. It is safe to repeat.")
        return NoAnswer(f"{action} got no answer from {endpoint.host}: {reason}. ZEGO may have acted on it.")


class _Signer:
    """One AppId's secret, and the query that it signs; shows neither."""

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


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One API's base URL, and the host in it, by which it is called in messages."""

    url: str
    host: str

    @classmethod
    def parse(cls, key: str, text: str) -> "_Endpoint":
        try:
            url = httpx2.URL(text)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"{key} is not a URL ({error}): write it like https://host/") from error
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment or url.userinfo:
            raise ConfigError(f"{key} is not a base URL: write it like https://host/, with nothing after the path")
        return cls(str(url), url.netloc.decode())


class _Departure:
    """Has a request pass the gate just before its headers are written, and notes it; httpx2's ``trace`` extension."""

    __slots__ = ("_pass_gate", "begun")

    def __init__(self, pass_gate: Gate) -> None:
        self._pass_gate = pass_gate
        self.begun = False

    async def begin(self) -> None:
        await self._pass_gate()
        self.begun = True

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        # A proxy's tunnel is asked for with headers as well, which are not the request's.
        if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            await self.begin()


async def _read_body(response: httpx2.Response) -> bytes:
    """Return the body, or of an oversized one so much that it shows."""
    # As it comes: identity was asked for, and unpacking anything else would defeat the limit.
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - an asynchronous transport's are
    body = b""
    async for chunk in response.stream:
        body += chunk
        if len(body) > _BODY_LIMIT_BYTES:
            break
    return body


# Numbers stay the characters they are: codes and ids are compared and stored, not calculated with, and some exceed
# 2**53. Control characters within strings are let pass here and replaced later.
_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)


def read_reply(http_status: int, body: bytes, clock_offset_seconds: float | None) -> Reply:
    """Read the envelope that all of ZEGO's server APIs share: ``Code``, ``Message``, ``RequestId``, ``Data``.

    Never fails: what cannot be used is None, and then ``excerpt`` has the beginning of the body. A code or RequestId
    of over 200 characters, or with control characters in it, cannot be used; the other of the two still counts.
    """
    text = body.decode("utf-8-sig", "replace")
    envelope = _parse(text) if len(body) <= _BODY_LIMIT_BYTES else {}
    code, request_id = _identifier(envelope.get("Code")), _identifier(envelope.get("RequestId"))
    message = envelope.get("Message")
    return Reply(
        http_status=http_status,
        code=code,
        message=_legible(message) if isinstance(message, str) else None,
        request_id=request_id,
        data=envelope.get("Data"),
        excerpt=_legible(text) if code is None or request_id is None else None,
        clock_offset_seconds=clock_offset_seconds,
    )


def _parse(text: str) -> Mapping[str, object]:
    try:
        parsed = _JSON.decode(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _identifier(value: object) -> str | None:
    # NUL and lone surrogates are not printable either, and no database would take them.
    if not isinstance(value, str) or len(value) > _IDENTIFIER_LIMIT or not value.isprintable():
        return None
    return value


def _legible(text: str) -> str:
    shown = text[:_TEXT_LIMIT]
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def _room_counts(data: object, asked: frozenset[str]) -> Mapping[str, RoomCount]:
    entries = data.get("UserCountList") if isinstance(data, dict) else None
    read: dict[str, RoomCount | None] = {}
    for entry in entries if isinstance(entries, list) else ():
        room_id = entry.get("RoomId") if isinstance(entry, dict) else None
        if isinstance(room_id, str) and room_id in asked:
            count = _room_count(entry)
            # Two entries that disagree on one room say nothing about it.
            read[room_id] = count if read.get(room_id, count) == count else None
    return {room_id: count for room_id, count in read.items() if count is not None}


def _room_count(entry: Mapping[str, object]) -> RoomCount | None:
    users, admins = _count(entry.get("UserCount")), _count(entry.get("AdminUserCount"))
    # The admins are among the users (ZEGO, "DescribeUserNum"); more of them than users would read as an empty room.
    if users is None or admins is None or admins > users:
        return None
    return RoomCount(users, admins)


def _user_list(data: object) -> tuple[tuple[RoomUser, ...] | None, str]:
    if not isinstance(data, dict) or not isinstance(entries := data.get("UserList"), list):
        return None, ""
    marker = data.get("Marker")
    users: list[RoomUser] = []
    for entry in entries:
        user_id = entry.get("UserId") if isinstance(entry, dict) else None
        if not isinstance(user_id, str) or not user_id:
            return None, ""
        name = entry.get("UserName")
        users.append(RoomUser(user_id, name if isinstance(name, str) else "", _count(entry.get("UserRole"))))
    return tuple(users), marker if isinstance(marker, str) else ""


def _count(value: object) -> int | None:
    if not isinstance(value, str) or len(value) > _COUNT_LIMIT_DIGITS:
        return None
    return int(value) if value.isascii() and value.isdecimal() else None


def _clock_offset(date: str | None, now: float) -> float | None:
    sent_at = None if date is None else _unix_time(date)
    return None if sent_at is None else sent_at - now


@lru_cache(maxsize=16)
def _unix_time(date: str) -> int | None:
    """Read an HTTP ``Date`` header. Cached: within a second all replies carry the same."""
    try:
        parts = parsedate_tz(date)
        return None if parts is None else mktime_tz(parts)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
