"""An HTTP server in the caller's event loop, for the daemon and for the sandbox."""

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A socket that already listens: a client that connects before the server runs waits. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's algorithm (40 ms a response) only if the protocol is named; create_server does not.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def url_of(listening: socket.socket) -> str:
    """Its address, without a slash at the end."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class QuietProtocol(HttpToolsProtocol):
    """Logs no requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        # Query strings may hold secrets. The setting of this name depends on the process's logging.
        self.access_log = False


class EmbeddedServer(uvicorn.Server):
    """Serves ``app`` on ``sockets`` from now until ``end``, which lets requests in progress finish for some seconds."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        protocol: type[QuietProtocol],
        log_level: str,
        finish_seconds: int,
        connections: int | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level=log_level,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=connections,
            timeout_graceful_shutdown=finish_seconds,
        )
        super().__init__(config)
        self._ended = asyncio.Event()
        self._serving = asyncio.create_task(self.serve(sockets=list(sockets)))

    async def end(self) -> None:
        self.should_exit = True
        self._ended.set()
        await self._serving

    async def main_loop(self) -> None:
        """Wait, instead of polling ten times a second; what else uvicorn does here is switched off."""
        await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process."""
        yield
