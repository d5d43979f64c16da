"""The sandbox as a running server, inside the caller's event loop."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from watchdog.clock import Clock, SystemClock
from watchdog.errors import ConfigError
from watchdog.sandbox.application import Application
from watchdog.sandbox.operations import Operation, parse_operation
from watchdog.sandbox.outbox import Outbox
from watchdog.sandbox.sender import Sender
from watchdog.sandbox.vendor import Limits
from watchdog.sandbox.world import Event, World


class _Protocol(H11Protocol):
    """Lets the application see the connection: some misbehaviours consist in closing it. Prints no request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # Query strings hold signatures. The setting of this name would yield to whatever the process's logging says.
        self.access_log = False


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process that the sandbox is a guest in."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, unlike in socket.create_server, asyncio turns Nagle's algorithm off: 40 ms a reply.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {error}; choose another port") from error
    return listening


class Sandbox:
    """A fake ZEGO on a port of this machine, for as long as the context lasts.

    ``secrets_by_app`` maps AppIds to ServerSecrets. Port 0 takes a free one; ``url`` has it. ``seed`` None takes a
    random one, so that two runs never give the same TaskIds; ``seed`` tells which. Callbacks go to ``callback_url``,
    None for nowhere, signed with the app's secret in ``callback_secrets``, the vendor's example where it has none; see
    also the operations ``SendCallbacks`` and ``CallbackBehaviour``. The rest is explained in ``Application``, ``World``
    and ``Limits``. Entering raises ConfigError where the port cannot be had.
    """

    def __init__(  # noqa: PLR0913  # an argument is a setting
        self,
        secrets_by_app: Mapping[int, str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        seed: int | None = None,
        limits: Limits | None = None,
        concurrent_tasks: int = 10,
        max_idle_seconds: int = 120,
        crash_timeout_seconds: float = 100.0,
        clock_offset_seconds: float = 0.0,
        callback_url: str | None = None,
        callback_secrets: Mapping[int, str] | None = None,
    ) -> None:
        clock = SystemClock() if clock is None else clock
        self.seed = secrets.randbits(32) if seed is None else seed
        world = World(
            seed=self.seed,
            concurrent_tasks=concurrent_tasks,
            max_idle_seconds=max_idle_seconds,
            crash_timeout_seconds=crash_timeout_seconds,
        )
        outbox = Outbox(world, seed=self.seed, secrets=callback_secrets, clock_offset_seconds=clock_offset_seconds)
        self._sender = Sender(outbox, clock)
        self.app = Application(
            secrets_by_app,
            world=world,
            outbox=outbox,
            sender=self._sender,
            clock=clock,
            seed=self.seed,
            limits=Limits() if limits is None else limits,
            clock_offset_seconds=clock_offset_seconds,
        )
        if callback_url is not None:
            self.app.perform(parse_operation("send_callbacks", {"url": callback_url}))
        self._address = host, port
        self._url: str | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, with a slash at the end, as the configuration wants ``asr_url`` and ``rtc_url``."""
        if self._url is None:
            raise RuntimeError("The sandbox is not running; enter its context first.")
        return self._url

    def perform(self, operation: Operation) -> dict[str, Any]:
        """Do something to the rooms or the behaviour; see ``Application.perform``."""
        return self.app.perform(operation)

    def events(self, since: int = 0) -> list[Event]:
        """Return the truth log after entry ``since``."""
        return self.app.events(since)

    async def __aenter__(self) -> Self:
        host, port = self._address
        listening = _listen(host, port)
        bound = listening.getsockname()[1]
        self._url = f"http://[{host}]:{bound}/" if ":" in host else f"http://{host}:{bound}/"
        config = uvicorn.Config(
            self.app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        # The socket listens already: a client that comes before the task has run waits in the backlog.
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        self._sending = asyncio.create_task(self._sender.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, serving, sending = self._server, self._serving, self._sending
        if server is None or serving is None or sending is None:
            return
        self._url = self._server = self._serving = self._sending = None
        self.app.break_off()
        server.should_exit = True
        await serving
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
