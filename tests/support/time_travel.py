"""Databases whose time a test sets, with no hook in the code under test.

SQLite lets a function replace a built-in one, and PostgreSQL looks functions up along the search path. On both, "now"
is the test's time: for the product, for the triggers and for the fake application::

    def test_something(world: World) -> None:
        world.app.start("task", "room")
        world.app.people("room", 0)
        world.advance(45)
        assert world.task("task")["empty_since"] == world.now - timedelta(seconds=45)
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row

from simulation.virtual import START, SqliteTime
from tests.support.clock import SettableClock
from watchdog.store import schema
from watchdog.store.attempts import Ledger
from watchdog.store.engine import open_engine, reading
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.tables import attempts, metadata, tasks
from watchdog.store.tasks import Tasks


class PostgresqlTime:
    """A PostgreSQL database's time on a SettableClock, for every connection made after ``install``."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    @staticmethod
    def install(url: str) -> None:
        """Put the database at ``url`` permanently under virtual time, which starts at START."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA time_travel")
            connection.execute("CREATE TABLE time_travel.clock (moment timestamptz NOT NULL)")
            connection.execute("INSERT INTO time_travel.clock VALUES (%s)", [START])
            for name in ("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"):
                # STABLE, so that a comparison with it may use an index, as with the real one.
                connection.execute(
                    f"CREATE FUNCTION time_travel.{name}() RETURNS timestamptz LANGUAGE sql STABLE"
                    " AS 'SELECT moment FROM time_travel.clock'"
                )
            # public first: that is where new tables go.
            connection.execute(
                f'ALTER DATABASE "{connection.info.dbname}" SET search_path = public, time_travel, pg_catalog'
            )

    @staticmethod
    def reach_own_paths(url: str) -> None:
        """Extend virtual time to functions with a search path of their own, once they exist."""
        with psycopg.connect(url, autocommit=True) as connection:
            for (name,) in connection.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'zego_%' AND prosecdef"):
                connection.execute(f"ALTER FUNCTION {name} SET search_path = time_travel, pg_catalog")

    def set(self, moment: datetime) -> None:
        self._connection.execute("UPDATE time_travel.clock SET moment = %s", [moment])

    def clear(self) -> None:
        """Close all other connections and empty the product's tables."""
        self._connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in metadata.sorted_tables:
            self._connection.execute(f"TRUNCATE {table.name}")

    def close(self) -> None:
        self._connection.close()


class Connection(Protocol):
    """What the drivers of both databases have in common."""

    def execute(self, query: Any, parameters: Any = ..., /) -> Any: ...

    def close(self) -> None: ...


class Application:
    """The smallest backend whose tasks are watched: a driver and design §3's statements."""

    def __init__(self, connection: Connection, mark: str) -> None:
        self._connection = connection
        self._mark = mark

    def start(self, task_id: str, room_id: str = "room", /, **columns: Any) -> None:
        """Insert a task, as after StartRealtimeASRTask."""
        names = ("task_id", "room_id", *columns)
        self.execute(
            f"INSERT INTO zego_tasks ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            task_id,
            room_id,
            *columns.values(),
        )

    def people(self, room_id: str, number: int | None, /, **columns: Any) -> int:
        """Write the number of people in a room; return how many rows were changed."""
        more = "".join(f", {name} = ?" for name in columns)
        return self.execute(
            f"UPDATE zego_tasks SET user_count = ?{more} WHERE room_id = ? AND status = 'active'",
            number,
            *columns.values(),
            room_id,
        )

    def release(self, task_id: str) -> int:
        """Release a task, as after the application's own StopRealtimeASRTask."""
        return self.execute("UPDATE zego_tasks SET status = 'released' WHERE task_id = ?", task_id)

    def change(self, task_id: str, /, **columns: Any) -> int:
        """Write other columns of a task."""
        setting = ", ".join(f"{name} = ?" for name in columns)
        return self.execute(f"UPDATE zego_tasks SET {setting} WHERE task_id = ?", *columns.values(), task_id)

    def execute(self, statement: str, *parameters: Any) -> int:
        """Run any statement, its parameters as ``?``; return how many rows were changed."""
        changed = self._connection.execute(statement.replace("?", self._mark), self._written(parameters)).rowcount
        assert isinstance(changed, int)
        return changed

    def rows(self, statement: str, *parameters: Any) -> list[Mapping[str, Any]]:
        """Return the rows of a query, as the driver gives them."""
        found = self._connection.execute(statement.replace("?", self._mark), self._written(parameters))
        return [dict(row) for row in found.fetchall()]

    def close(self) -> None:
        self._connection.close()

    def _written(self, parameters: Sequence[Any]) -> list[Any]:
        if self._mark != "?":
            return list(parameters)
        return [value.isoformat(" ") if isinstance(value, datetime) else value for value in parameters]


class Stores(NamedTuple):
    """What one daemon has of the store."""

    engine: sa.Engine
    tasks: Tasks
    ledger: Ledger
    heartbeats: Heartbeats


class World:
    """One database with the product's schema, in virtual time."""

    def __init__(
        self,
        clock: SettableClock,
        connect_engine: Callable[[], sa.Engine],
        connect_application: Callable[[], Application],
    ) -> None:
        self._connect_engine = connect_engine
        self._connect_application = connect_application
        self._open = ExitStack()
        self.clock = clock
        self.engine, self.tasks, self.ledger, self.heartbeats = self.another_store("host/1")
        self.app = self.connect()

    def another_store(self, instance: str) -> Stores:
        """Return the store of one more daemon, with connections of its own."""
        engine = self._connect_engine()
        self._open.callback(engine.dispose)
        return Stores(engine, Tasks(engine, instance), Ledger(engine, instance), Heartbeats(engine))

    def connect(self) -> Application:
        """Return one more connection of the application's."""
        application = self._connect_application()
        self._open.callback(application.close)
        return application

    def close(self) -> None:
        self._open.close()

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @property
    def now(self) -> datetime:
        return self.clock.now

    def ago(self, seconds: float) -> datetime:
        return self.now - timedelta(seconds=seconds)

    def ahead(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def task(self, task_id: str) -> Mapping[str, Any]:
        """Return the row, times as aware datetimes."""
        with reading(self.engine) as connection:
            return connection.execute(sa.select(tasks).where(tasks.c.task_id == task_id)).one()._asdict()

    def attempts(self, task_id: str) -> list[Mapping[str, Any]]:
        """Return the ledger's rows of a task, oldest first."""
        query = sa.select(attempts).where(attempts.c.task_id == task_id).order_by(attempts.c.id)
        with reading(self.engine) as connection:
            return [row._asdict() for row in connection.execute(query)]

    def history(self, task_id: str) -> Mapping[str, Any]:
        """Return the task's row of the view, as the driver gives it."""
        (row,) = self.app.rows("SELECT * FROM zego_stop_history WHERE task_id = ?", task_id)
        return row


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file with the schema, to be copied."""
    file = tmp_path_factory.mktemp("template") / "watchdog.db"
    engine = open_engine(f"sqlite:///{file}", must_exist=False)
    schema.migrate(engine)
    engine.dispose()
    return file


@pytest.fixture(scope="session")
def postgresql_in_virtual_time(postgresql_server: str) -> str:
    """Return the address of a PostgreSQL database with the schema, in virtual time; emptied before each use."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE world")
    url = postgresql_server.replace("/postgres?", "/world?")
    PostgresqlTime.install(url)
    engine = open_engine(url)
    schema.migrate(engine)
    engine.dispose()
    PostgresqlTime.reach_own_paths(url)
    return url


@pytest.fixture
def sqlite_world(sqlite_template: Path, tmp_path: Path) -> Iterator[World]:
    """A World on SQLite."""
    file = tmp_path / "world.db"
    shutil.copy(sqlite_template, file)
    clock = SettableClock()
    with closing(SqliteTime(clock)) as time:

        def connect_application() -> Application:
            connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            # No power cut is tested here.
            connection.execute("PRAGMA synchronous = OFF")
            connection.row_factory = sqlite3.Row
            time.govern(connection)
            return Application(connection, "?")

        def connected(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA synchronous = OFF")
            time.govern(connection)

        def connect_engine() -> sa.Engine:
            engine = open_engine(f"sqlite:///{file}")
            sa.event.listen(engine, "connect", connected)
            return engine

        world = World(clock, connect_engine, connect_application)
        with closing(world):
            yield world


@pytest.fixture
def postgresql_world(postgresql_in_virtual_time: str) -> Iterator[World]:
    """A World on PostgreSQL."""
    url = postgresql_in_virtual_time
    clock = SettableClock()
    with closing(PostgresqlTime(url)) as time:
        time.clear()
        clock.followed_by(time.set)

        def connect_application() -> Application:
            return Application(psycopg.connect(url, autocommit=True, row_factory=dict_row), "%s")

        world = World(clock, lambda: open_engine(url), connect_application)
        with closing(world):
            yield world


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> World:
    """A World on each database in turn."""
    found = request.getfixturevalue(f"{request.param}_world")
    assert isinstance(found, World)
    return found


@pytest.fixture(params=["sqlite", "sqlite with recursive triggers", "postgresql"])
def every_world(request: pytest.FixtureRequest) -> World:
    """Both databases, and SQLite once more as it may be elsewhere: its triggers recursive, and in another order."""
    name, _, recursive = request.param.partition(" with ")
    found = request.getfixturevalue(f"{name}_world")
    assert isinstance(found, World)
    if recursive:
        found.app.execute("PRAGMA recursive_triggers = ON")
        for trigger in found.app.rows("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid DESC"):
            found.app.execute(f"DROP TRIGGER {trigger['name']}")
            found.app.execute(trigger["sql"])
    return found
