"""The daemon's HTTP server, in its event loop: callbacks, health and metrics.

    POST /callbacks/zego   at most 64 KiB, 64 at a time
    GET  /healthz          200 while sweeps succeed, else 503; does not ask the database
    GET  /readyz           200 once the daemon has started; 503 before that, and while the database is away or refuses
                           a statement
    GET  /metrics          for Prometheus; rendered at most once a second, does not ask the database
    GET  /, /tasks …       pages for people, if http.page is true: watchdog.page

If there is a token, all but the first two need it.

A client that is slow, sends too much or opens too many connections is answered or cut off; others are not affected.
On every path the headers must come within 5 s, and so must the body.
"""

import asyncio
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from watchdog.core.callback_body import BODY_LIMIT_BYTES
from watchdog.daemon.http_protocol import TimedProtocol, Turns
from watchdog.daemon.metrics import Exposition
from watchdog.embedded_server import EmbeddedServer, listen, url_of
from watchdog.errors import ConfigError
from watchdog.page.site import Site
from watchdog.services import callbacks
from watchdog.services.callbacks import CallbackIntake

CALLBACK_PATH: Final = "/callbacks/zego"
_CALLBACK_PATHS: Final = (CALLBACK_PATH, CALLBACK_PATH + "/")
_OTHER_PATHS: Final = ("/healthz", "/readyz", "/metrics")
READ_SECONDS: Final = 5.0
"""For a request's headers, and for its body."""

CONCURRENT: Final = 64
_CONNECTIONS: Final = 512
_DRAIN_BYTES: Final = 1 << 20  # read on that far: a sender that is cut off while it writes does not read the response
_STOP_SECONDS: Final = 2
_MORE_HEADERS: Final = {503: {"Retry-After": "2"}, 405: {"Allow": "GET, HEAD"}}


class HttpServer:
    """Call ``bind``, ``start``, ``stop``. ``is_healthy``: sweeps succeed. ``not_ready``: why not, or nothing."""

    def __init__(
        self,
        address: tuple[str, int] | None,
        intake: CallbackIntake,
        *,
        is_healthy: Callable[[], bool],
        not_ready: Callable[[], str],
        turns: Turns,
        metrics: Exposition | None = None,
        token: Callable[[], str | None] = lambda: None,
        read_seconds: float = READ_SECONDS,
        passed: Sequence[socket.socket] = (),
        site: Site | None = None,
    ) -> None:
        """Serve on the ``passed`` sockets, which listen already, or else on ``address``. ``token`` may change.

        ``site``: the pages; closed with the server. Requests begin in ``turns``.
        """
        self._site = site
        self._address = address
        self._passed = tuple(passed)
        self._read_seconds = read_seconds
        self._turns = turns
        self._intake = intake
        self._callbacks = 0
        self._listening: tuple[socket.socket, ...] = ()
        self._server: EmbeddedServer | None = None

        async def healthz(_request: Request) -> Response:
            return _health(is_healthy(), "no sweep has succeeded lately: see the daemon's log")

        async def readyz(_request: Request) -> Response:
            reason = not_ready()
            return _health(not reason, f"{reason}: see the daemon's log")

        routes = [
            *(Route(path, self._callback, methods=["POST"]) for path in _CALLBACK_PATHS),
            Route("/healthz", healthz),
            Route("/readyz", _for_bearers(token, readyz)),
        ]
        if metrics is not None:

            async def scrape(request: Request) -> Response:
                page = metrics.page(request.headers.get("Accept", ""))
                return Response(page.body, headers={"Content-Type": page.content_type})

            routes.append(Route("/metrics", _for_bearers(token, scrape)))
        self._routes = Starlette(routes=routes)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        if not self._listening:
            raise RuntimeError("The server is not bound yet; call bind first.")
        return url_of(self._listening[0])

    def bind(self) -> None:
        """Listen; clients that connect before ``start`` wait. Raises ConfigError."""
        if self._passed or self._address is None:
            self._listening = self._passed
            return
        host, port = self._address
        try:
            self._listening = (listen(host, port, 512),)
        except OSError as error:
            raise ConfigError(
                f"http.listen: cannot listen on {host} port {port}: {error.strerror or error}; choose another address"
            ) from error

    async def start(self) -> None:
        if not self._listening:
            self.bind()
        self._server = EmbeddedServer(
            self._answer,
            self._listening,
            protocol=type("_Protocol", (TimedProtocol,), {"read_seconds": self._read_seconds, "turns": self._turns}),
            log_level="error",
            connections=_CONNECTIONS,
            finish_seconds=_STOP_SECONDS,
        )

    async def stop(self) -> None:
        """Accept nothing new, and finish requests in progress within two seconds."""
        listening, server = self._listening, self._server
        self._listening, self._server = (), None
        if server is not None:
            await server.end()
        for one in listening:
            one.close()
        if self._site is not None:
            await self._site.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, the ASGI way. Only a callback's body is used, but every other one must end in time too."""
        if scope["method"] == "POST" and scope["path"] in _CALLBACK_PATHS:
            # Without the router: there may be hundreds a second.
            answer: ASGIApp = await self._callback(scope, receive)
        else:
            answer = await self._of_another_path(scope, receive)
        await answer(scope, receive, send)

    async def _of_another_path(self, scope: Scope, receive: Receive) -> ASGIApp:
        try:
            body = await self._body_in_time(scope, receive)
        except TimeoutError:
            return _cut_off("too_slow", 408)
        except ClientDisconnect:
            return _nobody
        if body is None:
            return _cut_off("too_large", 413)
        if self._site is not None and scope["method"] != "POST" and self._site.serves(scope["path"]):
            return await self._site.answer(Request(scope, receive))
        if scope["method"] == "POST" and scope["path"] not in _OTHER_PATHS:
            # ZEGO posts nothing else, so its console may have a wrong address. Anybody may post, so only a part.
            path = ascii(scope["path"][:80])
            reason = f"{path} is no path of this server; callbacks go to {CALLBACK_PATH}"
            is_page = self._site is not None and self._site.serves(scope["path"])
            response = self._intake.refuse(405 if is_page else 404, "unknown_path", reason)
            return _cut_off(response.kind, response.http_status)
        return self._routes

    async def _body_in_time(self, scope: Scope, receive: Receive) -> bytes | None:
        async with asyncio.timeout(self._read_seconds):
            return await _body(scope, receive)

    async def _callback(self, scope: Scope, receive: Receive) -> Response:
        if self._callbacks >= CONCURRENT:
            response = self._intake.refuse(503, "busy", f"{CONCURRENT} callbacks are being answered already")
            if not await self._drain(receive):
                return _cut_off(response.kind, response.http_status)
        else:
            self._callbacks += 1
            try:
                response = await self._receive(scope, receive)
            finally:
                self._callbacks -= 1
        if response.is_refusal and response.http_status != 503:
            return _cut_off(response.kind, response.http_status)
        # The body has come. Who is to repeat a callback keeps the connection: another one costs more than the answer.
        return _kept(response.kind, response.http_status)

    async def _drain(self, receive: Receive) -> bool:
        """Read the body and forget it; whether it came to its end."""
        size = 0
        try:
            async with asyncio.timeout(self._read_seconds):
                async for part in _parts(receive):
                    size += len(part)
                    if size > _DRAIN_BYTES:
                        return False
        except (TimeoutError, ClientDisconnect):
            return False
        return True

    async def _receive(self, scope: Scope, receive: Receive) -> callbacks.Response:
        try:
            body = await self._body_in_time(scope, receive)
        except TimeoutError:
            return self._intake.refuse(408, "too_slow", f"the body had not come after {self._read_seconds:g} s")
        except ClientDisconnect:
            return self._intake.refuse(400, "disconnected", "the sender left before the body had come")
        if body is None:
            return self._intake.refuse(413, "too_large", f"the body is longer than {BODY_LIMIT_BYTES} bytes")
        return await self._intake.receive(Headers(scope=scope).get("Content-Type"), body)


async def _nobody(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answers nothing: the client has left."""


_Endpoint = Callable[[Request], Awaitable[Response]]


def _for_bearers(token: Callable[[], str | None], endpoint: _Endpoint) -> _Endpoint:
    """``endpoint`` for clients that send the token; for all if there is none."""

    async def guarded(request: Request) -> Response:
        wanted = token()
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Starlette decodes headers as Latin-1: this restores the bytes.
        shown = given.strip().encode("latin-1")
        if wanted is None or (scheme.lower() == "bearer" and hmac.compare_digest(shown, wanted.encode())):
            return await endpoint(request)
        return PlainTextResponse(
            "the token of http.token_file is needed, as: Authorization: Bearer TOKEN\n",
            401,
            {"WWW-Authenticate": 'Bearer realm="zego-watchdog"'},
        )

    return guarded


@cache
def _kept(kind: str, http_status: int) -> Response:
    """An answer after which the connection stays; the kinds are few, and so are the objects."""
    return PlainTextResponse(kind + "\n", http_status, _MORE_HEADERS.get(http_status))


def _cut_off(kind: str, http_status: int) -> Response:
    """A refusal that does not wait for the rest of the body."""
    headers = {"Connection": "close"} | _MORE_HEADERS.get(http_status, {})
    return PlainTextResponse(kind + "\n", http_status, headers)


def _health(is_well: bool, reason: str) -> Response:  # noqa: FBT001 - its only argument that varies
    return PlainTextResponse("ok\n" if is_well else reason + "\n", 200 if is_well else 503)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises ClientDisconnect."""
    is_last = False
    while not is_last:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        is_last = not message.get("more_body", False)
        yield message["body"]


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The body, or None if it is too large; at most ``BODY_LIMIT_BYTES`` are kept in memory."""
    declared = Headers(scope=scope).get("Content-Length", "")
    if declared.isdecimal() and int(declared) > _DRAIN_BYTES:
        return None
    kept, size = bytearray(), 0
    async for part in _parts(receive):
        size += len(part)
        if size > _DRAIN_BYTES:
            return None
        if size <= BODY_LIMIT_BYTES:
            kept += part
        else:
            kept.clear()
    return bytes(kept) if size <= BODY_LIMIT_BYTES else None
