"""The sandbox as a program: ``zego-watchdog sandbox``."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from watchdog.clock import Clock, SystemClock
from watchdog.errors import ConfigError
from watchdog.sandbox.callbacks import EXAMPLE_CALLBACK_SECRET
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.script import Script, play
from watchdog.sandbox.server import Sandbox

EXAMPLE_APP_ID: Final = 12345
EXAMPLE_SERVER_SECRET: Final = "9193cc662a4c0ec135ec71fb57194b38"  # noqa: S105  # the vendor's published example
_SECRETS: Final = {
    "ServerSecret": ("ZEGO_SANDBOX_SERVER_SECRET", EXAMPLE_SERVER_SECRET),
    "callback secret": ("ZEGO_SANDBOX_CALLBACK_SECRET", EXAMPLE_CALLBACK_SECRET),
}
_FULL_COLLECTION_EVERY: Final = 1000
"""One full garbage collection per this many of the second generation; Python's default is 10."""


def read_secret(name: str, file: Path | None, environment: Mapping[str, str]) -> str:
    """Return ``ServerSecret`` or ``callback secret``: from the file, the environment, or the vendor's example."""
    variable, example = _SECRETS[name]
    if file is None:
        secret, origin = environment.get(variable, example), f"${variable}"
    else:
        try:
            secret, origin = file.read_text(encoding="utf-8"), str(file)
        except OSError as error:
            told = f"the sandbox's {name} cannot be read: {file}: {error.strerror}; correct the path"
            raise ConfigError(told) from error
        except UnicodeDecodeError:
            # Not chained: the exception carries the bytes.
            raise ConfigError(f"{file} is not UTF-8 text; it must contain only the secret") from None
    secret = secret.strip()
    if not secret:
        raise ConfigError(f"{origin} is empty: put your application's {name} there")
    return secret


def how_to_use(url: str, app_id: int, server_secret: str) -> Iterator[str]:
    """The lines of a configuration to paste. The vendor's public example is shown, a secret of the user is not."""
    yield "Paste this into config.yaml:"
    yield "zego:"
    yield f"  asr_url: {url}"
    yield f"  rtc_url: {url}"
    others = ", ".join(f"{kind}: {url}" for kind in Kind if kind is not Kind.ASR)
    yield f"  urls: {{{others}}}"
    yield "  apps:"
    yield f"    - app_id: {app_id}"
    yield "      server_secret_file: sandbox-secret"
    if server_secret == EXAMPLE_SERVER_SECRET:
        yield f"and make the file with its ServerSecret: (umask 077; printf %s {server_secret} > sandbox-secret)"
    else:
        yield "and put the ServerSecret that you gave into the file sandbox-secret, mode 600."


def serve(
    sandbox: Sandbox,
    script: Path | None,
    announce: Callable[[str], None],
    instruct: Callable[[str], Iterable[str]] = lambda _url: (),
) -> None:
    """Run the sandbox until SIGINT or SIGTERM. Raises ConfigError.

    ``announce`` gets messages for the user; ``instruct`` returns more of them, about the sandbox at this URL.
    """
    steps = Script(()) if script is None else Script.load(script)
    # The log keeps growing, so a full collection would delay replies, and delayed stops would look like a burst.
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_EVERY)
    asyncio.run(run_sandbox(sandbox, steps, announce, instruct=instruct))


async def run_sandbox(
    sandbox: Sandbox,
    script: Script,
    announce: Callable[[str], None],
    *,
    clock: Clock | None = None,
    instruct: Callable[[str], Iterable[str]] = lambda _url: (),
) -> None:
    """Serve until SIGINT or SIGTERM, and play the script.

    Raises ConfigError if the port cannot be opened or a step is not possible. Call it in the main thread, because it
    handles signals.
    """
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(_play(script, sandbox, announce, clock or SystemClock(), instruct))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, playing.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await playing
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _play(
    script: Script,
    sandbox: Sandbox,
    announce: Callable[[str], None],
    clock: Clock,
    instruct: Callable[[str], Iterable[str]],
) -> None:
    """Serve and play the script until cancelled."""
    async with sandbox:
        apps = ", ".join(map(str, sandbox.app_ids))
        announce(f"A fake ZEGO listens on {sandbox.url} for AppId {apps}; seed {sandbox.seed}.")
        for line in instruct(sandbox.url):
            announce(line)
        if sandbox.callback_url is not None:
            announce(f"Callbacks go to {sandbox.callback_url}.")
        announce(f"Control it under {sandbox.url}_sandbox/ (see docs/sandbox.md); stop it with Ctrl-C.")
        async for step, result in play(script, sandbox.perform, clock):
            announce(f"{step}: {step.operation} {result}")
        await asyncio.Event().wait()
