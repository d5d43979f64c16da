"""The sandbox as a program of its own, behind the command ``zego-watchdog sandbox``."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchdog.clock import Clock, SystemClock
from watchdog.errors import ConfigError
from watchdog.sandbox.callbacks import EXAMPLE_CALLBACK_SECRET, CallbackEncoding
from watchdog.sandbox.misbehaviour import FAITHFUL, CallbackBehaviour
from watchdog.sandbox.operations import parse_operation
from watchdog.sandbox.script import Script, play
from watchdog.sandbox.server import Sandbox
from watchdog.sandbox.vendor import Limits

EXAMPLE_APP_ID: Final = 12345
EXAMPLE_SERVER_SECRET: Final = "9193cc662a4c0ec135ec71fb57194b38"  # noqa: S105  # the vendor's published example
SECRET_VARIABLE: Final = "ZEGO_SANDBOX_SERVER_SECRET"  # noqa: S105  # a name
CALLBACK_SECRET_VARIABLE: Final = "ZEGO_SANDBOX_CALLBACK_SECRET"  # noqa: S105  # a name


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How ``run_sandbox`` runs.

    ``concurrent_tasks`` 0 is no quota, ``seed`` None a random one, ``callback_url`` None no callbacks.
    """

    host: str = "127.0.0.1"
    port: int = 8766
    app_id: int = EXAMPLE_APP_ID
    server_secret: str = field(default=EXAMPLE_SERVER_SECRET, repr=False)
    script: Path | None = None
    seed: int | None = None
    limits: Limits = field(default_factory=Limits)
    concurrent_tasks: int = 10
    max_idle_seconds: int = 120
    crash_timeout_seconds: float = 100.0
    clock_offset_seconds: float = 0.0
    callback_url: str | None = None
    callback_secret: str = field(default=EXAMPLE_CALLBACK_SECRET, repr=False)
    callback_encoding: CallbackEncoding = CallbackEncoding.JSON
    callback_behaviour: CallbackBehaviour = FAITHFUL


def read_server_secret(file: Path | None, environment: Mapping[str, str]) -> str:
    """Return the ServerSecret: the file's, else ``$ZEGO_SANDBOX_SERVER_SECRET``, else the vendor's example."""
    return _read_secret("ServerSecret", file, environment, SECRET_VARIABLE, EXAMPLE_SERVER_SECRET)


def read_callback_secret(file: Path | None, environment: Mapping[str, str]) -> str:
    """Return the callback secret: the file's, else ``$ZEGO_SANDBOX_CALLBACK_SECRET``, else the vendor's example."""
    return _read_secret("callback secret", file, environment, CALLBACK_SECRET_VARIABLE, EXAMPLE_CALLBACK_SECRET)


def _read_secret(name: str, file: Path | None, environment: Mapping[str, str], variable: str, example: str) -> str:
    if file is None:
        secret, origin = environment.get(variable, example), f"${variable}"
    else:
        try:
            secret, origin = file.read_text(encoding="utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the sandbox's {name} cannot be read: {error}") from error
    secret = secret.strip()
    if not secret:
        raise ConfigError(f"{origin} is empty: put the {name} there that your application uses")
    return secret


async def run_sandbox(
    settings: SandboxSettings, announce: Callable[[str], None], *, clock: Clock | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, playing the script if there is one; ``announce`` gets lines for people.

    Raises ConfigError where the port or the script cannot be used, also for a step that turns out to be impossible.
    Call it in the main thread: it handles the signals.
    """
    clock = SystemClock() if clock is None else clock
    script = Script(()) if settings.script is None else Script.load(settings.script)
    sandbox = Sandbox(
        {settings.app_id: settings.server_secret},
        host=settings.host,
        port=settings.port,
        clock=clock,
        seed=settings.seed,
        limits=settings.limits,
        concurrent_tasks=settings.concurrent_tasks,
        max_idle_seconds=settings.max_idle_seconds,
        crash_timeout_seconds=settings.crash_timeout_seconds,
        clock_offset_seconds=settings.clock_offset_seconds,
        callback_secrets={settings.app_id: settings.callback_secret},
    )
    sandbox.perform(settings.callback_behaviour)
    if settings.callback_url is not None:
        fields = {"url": settings.callback_url, "encoding": settings.callback_encoding}
        sandbox.perform(parse_operation("send_callbacks", fields))
    with _stop_signal() as stop:
        async with sandbox:
            announce(f"A fake ZEGO listens on {sandbox.url} for AppId {settings.app_id}; seed {sandbox.seed}.")
            if settings.callback_url is not None:
                announce(f"Callbacks go to {settings.callback_url}.")
            announce(f"Move people about and read the log under {sandbox.url}_sandbox/; stop with Ctrl-C.")
            stopping = asyncio.create_task(stop.wait())
            playing = asyncio.create_task(_play(script, sandbox, announce, clock))
            try:
                await asyncio.wait({stopping, playing}, return_when=asyncio.FIRST_COMPLETED)
                if playing.done():
                    playing.result()
                    await stopping
            finally:
                for task in (stopping, playing):
                    task.cancel()
                await asyncio.gather(stopping, playing, return_exceptions=True)


async def _play(script: Script, sandbox: Sandbox, announce: Callable[[str], None], clock: Clock) -> None:
    async for step, result in play(script, sandbox.perform, clock):
        announce(f"{step}: {step.operation} {result}")


@contextlib.contextmanager
def _stop_signal() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
