"""The daemon's HTTP server, inside its event loop: callbacks in, health out.

    POST /callbacks/zego   at most 64 KiB, read within 5 s, 64 at a time
    GET  /healthz          200 while sweeps follow one another, else 503; asks the database nothing
    GET  /readyz           200 once the daemon has started, else 503, and while the database is away
    GET  /metrics          for Prometheus; made at most once a second, and without the database

Where there is a token, the last two are for those who have it.

Whoever is slow, large or many gets an answer or is cut off, and costs nobody else anything.
"""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from watchdog.core.callback_body import BODY_LIMIT_BYTES
from watchdog.daemon.metrics import Exposition
from watchdog.errors import ConfigError
from watchdog.services.callbacks import Answer, Webhook

CALLBACK_PATH: Final = "/callbacks/zego"
READ_SECONDS: Final = 5.0
"""For a callback's headers, and for its body."""

ANSWER_SECONDS: Final = 5.0
"""For the database to take a callback in. Then it is tried no less, but the vendor is told to come again."""

CONCURRENT: Final = 64
_CONNECTIONS: Final = 512
_DRAIN_BYTES: Final = 1 << 20  # a sender that is cut off while it writes does not read why
_STOP_SECONDS: Final = 2


class _Protocol(H11Protocol):
    """Prints no request, and closes connections on which none has come within ``read_seconds``."""

    read_seconds = READ_SECONDS
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        # Query strings may hold anything. The setting of this name would yield to what the process's logging says.
        self.access_log = False
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        # Before the next request is looked for, which may be here already.
        self._expect_request()
        super().on_response_complete()

    def _expect_request(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
        self._too_slow = self.loop.call_later(self.read_seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        """Wait, instead of looking ten times a second whether it is over; what else it looks after is off."""
        await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the daemon."""
        yield


class HttpServer:
    """``bind``, ``start``, ``stop``. ``is_healthy`` says whether sweeps are fresh, ``is_ready`` whether all began."""

    def __init__(
        self,
        address: tuple[str, int] | None,
        webhook: Webhook,
        *,
        is_healthy: Callable[[], bool],
        is_ready: Callable[[], bool],
        metrics: Exposition | None = None,
        token: Callable[[], str | None] = lambda: None,
        read_seconds: float = READ_SECONDS,
        passed: Sequence[socket.socket] = (),
    ) -> None:
        """Serve on the ``passed`` sockets, which listen already, or else on ``address``. ``token`` may change."""
        self._address = address
        self._passed = tuple(passed)
        self._read_seconds = read_seconds
        self._webhook = webhook
        self._callbacks = 0
        self._listening: tuple[socket.socket, ...] = ()
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

        async def healthz(_request: Request) -> Response:
            return _health(is_healthy(), "no sweep has succeeded lately: see the daemon's log")

        async def readyz(_request: Request) -> Response:
            return _health(is_ready(), "starting, or the database is away: see the daemon's log")

        routes = [
            Route(CALLBACK_PATH, self._callback, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", _for_bearers(token, readyz)),
        ]
        if metrics is not None:

            async def scrape(request: Request) -> Response:
                page = metrics.page(request.headers.get("Accept", ""))
                return Response(page.body, headers={"Content-Type": page.content_type})

            routes.append(Route("/metrics", _for_bearers(token, scrape)))
        self.app = Starlette(routes=routes)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        if not self._listening:
            raise RuntimeError("The server is not bound yet; call bind first.")
        if self._listening[0].family == socket.AF_UNIX:
            return f"unix:{self._listening[0].getsockname()}"
        host, port = self._listening[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def bind(self) -> None:
        """Take the address; whoever comes before ``start`` waits. Raises ConfigError."""
        if self._passed or self._address is None:
            self._listening = self._passed
            return
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol named, unlike in socket.create_server, asyncio turns Nagle's algorithm off: 40 ms an answer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(512)
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"http.listen: cannot listen on {host} port {port}: {error.strerror or error}; choose another address"
            ) from error
        self._listening = (listening,)

    async def start(self) -> None:
        """Begin to answer."""
        if not self._listening:
            self.bind()
        config = uvicorn.Config(
            self.app,
            http=type("_TimedProtocol", (_Protocol,), {"read_seconds": self._read_seconds}),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=list(self._listening)))

    async def stop(self) -> None:
        """Take nothing new, finish what is being answered, within two seconds."""
        listening, server, serving = self._listening, self._server, self._serving
        self._listening, self._server, self._serving = (), None, None
        if server is not None and serving is not None:
            server.end()
            await serving
        for one in listening:
            one.close()

    async def _callback(self, request: Request) -> Response:
        if self._callbacks >= CONCURRENT:
            answer = self._webhook.refuse(503, "busy", f"{CONCURRENT} callbacks are being answered already")
        else:
            self._callbacks += 1
            try:
                answer = await self._answer(request)
            finally:
                self._callbacks -= 1
        headers = {"Retry-After": "2"} if answer.http_status == 503 else None
        if answer.is_refusal:
            # What is left of the body is not waited for.
            headers = {"Connection": "close"} | (headers or {})
        return PlainTextResponse(answer.kind + "\n", answer.http_status, headers)

    async def _answer(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self._read_seconds):
                body = await _body(request)
        except TimeoutError:
            return self._webhook.refuse(408, "too_slow", f"the body had not come after {self._read_seconds:g} s")
        except ClientDisconnect:
            return self._webhook.refuse(400, "disconnected", "the sender left before the body had come")
        if body is None:
            return self._webhook.refuse(413, "too_large", f"the body is longer than {BODY_LIMIT_BYTES} bytes")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._webhook.receive(request.headers.get("Content-Type"), body)
        except TimeoutError:
            return self._webhook.refuse(503, "database_slow", f"not committed after {ANSWER_SECONDS:g} s")


_Endpoint = Callable[[Request], Awaitable[Response]]


def _for_bearers(token: Callable[[], str | None], endpoint: _Endpoint) -> _Endpoint:
    """``endpoint`` for those who show the token; without one, for everybody."""

    async def guarded(request: Request) -> Response:
        wanted = token()
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Starlette reads headers as Latin-1, so these are the bytes that came.
        shown = given.strip().encode("latin-1")
        if wanted is None or (scheme.lower() == "bearer" and hmac.compare_digest(shown, wanted.encode())):
            return await endpoint(request)
        return PlainTextResponse(
            "the token of http.token_file is needed, as: Authorization: Bearer TOKEN\n",
            401,
            {"WWW-Authenticate": 'Bearer realm="zego-watchdog"'},
        )

    return guarded


def _health(is_well: bool, reason: str) -> Response:  # noqa: FBT001 - its only argument that varies
    return PlainTextResponse("ok\n" if is_well else reason + "\n", 200 if is_well else 503)


async def _body(request: Request) -> bytes | None:
    """The body; None if it is too large, of which no more than ``BODY_LIMIT_BYTES`` are ever kept."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > _DRAIN_BYTES:
        return None
    kept, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size > _DRAIN_BYTES:
            return None
        if size <= BODY_LIMIT_BYTES:
            kept += part
        else:
            kept.clear()
    return bytes(kept) if size <= BODY_LIMIT_BYTES else None
