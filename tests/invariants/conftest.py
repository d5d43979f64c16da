"""The machine's drivers, one for each database."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.invariants.database import Driver, PostgresqlDriver, SqliteDriver


@pytest.fixture
def sqlite(sqlite_template: Path, tmp_path: Path) -> Iterator[Driver]:
    with closing(SqliteDriver(sqlite_template, tmp_path / "invariants.db")) as driver:
        yield driver


@pytest.fixture
def postgresql(postgresql_in_virtual_time: str) -> Iterator[Driver]:
    with closing(PostgresqlDriver(postgresql_in_virtual_time)) as driver:
        yield driver


@pytest.fixture(params=["sqlite", "postgresql"])
def driver(request: pytest.FixtureRequest) -> Driver:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Driver)
    return found
