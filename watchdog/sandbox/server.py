"""The sandbox as a running server, inside the caller's event loop."""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from watchdog.clock import Clock, SystemClock
from watchdog.embedded_server import EmbeddedServer, QuietProtocol, listen, url_of
from watchdog.errors import ConfigError
from watchdog.sandbox.application import Application
from watchdog.sandbox.control import Control
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.misbehaviour import Misbehaviours
from watchdog.sandbox.operations import parse_operation
from watchdog.sandbox.outbox import Outbox
from watchdog.sandbox.sender import Sender
from watchdog.sandbox.vendor import Limits, Vendor
from watchdog.sandbox.world import World, stream


class _Protocol(QuietProtocol):
    """Shows the connection to the application, because some misbehaviours close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Sandbox:
    """A fake ZEGO on a port of this machine, running inside ``async with``.

    ``secrets_by_app`` maps AppIds to ServerSecrets; the first AppId is the default of every operation. Port 0 takes a
    free port; ``url`` has it. ``seed`` None takes a random one. Callbacks go to ``callback_url``, None for nowhere,
    signed with the app's secret in ``callback_secrets``, by default the vendor's example. ``Application``, ``World``
    and ``Limits`` explain the rest. Entering raises ConfigError if the port cannot be opened.
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
        account_limits: Mapping[Kind, int] = MappingProxyType({}),
        max_idle_seconds: int = 120,
        crash_timeout_seconds: float = 100.0,
        clock_offset_seconds: float = 0.0,
        callback_url: str | None = None,
        callback_secrets: Mapping[int, str] | None = None,
    ) -> None:
        if not secrets_by_app:
            raise ConfigError("the sandbox needs at least one app: an AppId and its ServerSecret")
        clock = SystemClock() if clock is None else clock
        self.app_ids = tuple(secrets_by_app)
        self.callback_url = callback_url
        self.seed = secrets.randbits(32) if seed is None else seed
        world = World(
            seed=self.seed,
            concurrent_tasks=concurrent_tasks,
            account_limits=account_limits,
            max_idle_seconds=max_idle_seconds,
            crash_timeout_seconds=crash_timeout_seconds,
        )
        outbox = Outbox(world, seed=self.seed, secrets=callback_secrets, clock_offset_seconds=clock_offset_seconds)
        self._sender = Sender(outbox, clock)
        misbehaviours = Misbehaviours(stream(self.seed, "misbehaviour"))
        control = Control(
            app_ids=self.app_ids,
            world=world,
            outbox=outbox,
            sender=self._sender,
            misbehaviours=misbehaviours,
            clock=clock,
        )
        self._app = Application(
            vendor=Vendor(world, secrets_by_app, Limits() if limits is None else limits),
            control=control,
            misbehaviours=misbehaviours,
            sender=self._sender,
            clock=clock,
            clock_offset_seconds=clock_offset_seconds,
        )
        # The same operations in Python as over HTTP.
        self.perform, self.events, self.state = control.perform, control.events, control.state
        if callback_url is not None:
            self.perform(parse_operation("send_callbacks", {"url": callback_url}))
        self._address = host, port
        self._url: str | None = None
        self._server: EmbeddedServer | None = None
        self._sending: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Its address with a final slash, for all URLs of ``zego``. Raises RuntimeError unless running."""
        if self._url is None:
            raise RuntimeError("The sandbox is not running; enter its context first.")
        return self._url

    async def __aenter__(self) -> Self:
        host, port = self._address
        try:
            listening = listen(host, port, 2048)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; choose another address or port"
            ) from error
        self._url = url_of(listening) + "/"
        self._server = EmbeddedServer(self._app, [listening], protocol=_Protocol, log_level="warning", finish_seconds=1)
        self._sending = asyncio.create_task(self._sender.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, sending = self._server, self._sending
        if server is None or sending is None:
            return
        self._url = self._server = self._sending = None
        self._app.break_off()
        await server.end()
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
