"""A PgBouncer in transaction mode in front of a test's PostgreSQL, on a Unix socket of its own."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import sqlalchemy as sa

from tests.support.tools import program
from watchdog.clock import SystemClock


@contextmanager
def pgbouncer(url: str, *, servers: int = 2) -> Iterator[str]:
    """Yield the address of the same database through a pooler with so many connections to the server."""
    where = sa.make_url(url)
    with tempfile.TemporaryDirectory(prefix="zego-pooler-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        file = folder / "pgbouncer.ini"
        file.write_text(
            "[databases]\n"
            f"{where.database} = host={where.query['host']} user={where.username} dbname={where.database}\n"
            "[pgbouncer]\n"
            f"unix_socket_dir = {folder}\nlisten_addr =\nlisten_port = 6432\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {servers}\nlogfile = {folder}/log\n"
        )
        file.chmod(0o644)
        # It refuses to run as root, and must reach the server's socket: it runs as the server does.
        user = ["--user", Path(str(where.query["host"])).owner()] if os.geteuid() == 0 else []
        with subprocess.Popen([program("pgbouncer"), "--quiet", *user, file]) as process:
            pooled = f"postgresql://{where.username}@/{where.database}?host={folder}&port=6432"
            try:
                _wait_until_it_answers(pooled, process)
                yield pooled
            finally:
                process.terminate()


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    clock = SystemClock()
    until = clock.monotonic() + 10
    while clock.monotonic() < until and process.poll() is None:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
    raise AssertionError(f"PgBouncer does not answer at {url}")
