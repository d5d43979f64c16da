"""Connections: how each database is opened, and whose fault it is when a statement fails.

SQLite: one connection, used from one thread at a time; every transaction begins IMMEDIATE, because an upgrade from
reading to writing fails at once whatever the busy time-out; ``synchronous=FULL``, because a committed attempt must
survive a power cut. PostgreSQL: a small pool whose every wait is bounded, for a lock, a statement, a dead socket.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from watchdog.errors import ConfigError, DatabaseError, DatabaseUnavailable, RowLocked

SQLITE_VERSION = sqlite3.sqlite_version
SQLITE_MINIMUM = (3, 35)
"""RETURNING came with 3.35."""


def open_engine(
    url: str,
    *,
    password: str | None = None,
    statement_timeout_seconds: float = 5,
    connect_timeout_seconds: float = 5,
    pool_size: int = 4,
    must_exist: bool = True,
) -> sa.Engine:
    """An engine on ``sqlite:///path`` or ``postgresql+psycopg://…``; nothing is connected yet.

    Raises ConfigError for a URL of another kind, and, with ``must_exist``, for a SQLite file that is not there: a
    mistyped path must not silently become an empty database.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, statement_timeout_seconds, must_exist=must_exist)
    if parsed.get_backend_name() == "postgresql":
        if password is not None:
            parsed = parsed.set(password=password)
        return _postgresql(parsed, statement_timeout_seconds, connect_timeout_seconds, pool_size)
    raise ConfigError(
        f"database.url: {parsed.get_backend_name()} is not supported; use sqlite:///FILE or postgresql://USER@HOST/DB"
    )


def _sqlite(url: sa.URL, busy_seconds: float, *, must_exist: bool) -> sa.Engine:
    if sqlite3.sqlite_version_info < SQLITE_MINIMUM:
        wanted = ".".join(map(str, SQLITE_MINIMUM))
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: {wanted} or later is needed")
    if url.database in {None, "", ":memory:"}:
        raise ConfigError("database.url: a database in memory ends with its process; name a file: sqlite:///FILE")
    file = Path(str(url.database))
    if must_exist and _is_missing(file):
        raise ConfigError(f"database.url: there is no file {file.absolute()}; create it with: zego-watchdog migrate")
    mode = "rw" if must_exist else "rwc"

    def connect() -> sqlite3.Connection:
        # isolation_level None: the driver starts no transactions of its own, the "begin" event below does.
        connection = sqlite3.connect(
            f"file:{quote(str(file))}?mode={mode}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    # One connection for the whole program, waited for rather than refused: the writers take turns.
    engine = sa.create_engine(
        url.set(drivername="sqlite", query={}),
        creator=connect,
        poolclass=sa.pool.QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=busy_seconds,
    )

    @event.listens_for(engine, "connect")
    def remember(_: object, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info["file"] = _look_at(file)

    @event.listens_for(engine, "checkout")
    def check(_: object, record: sa.pool.ConnectionPoolEntry, __: object) -> None:
        # A file that was moved away or replaced is still open, and what is written there nobody will ever read. One
        # that was cut short would not be noticed while what is needed of it is in the cache.
        before, now = record.info["file"], _look_at(file)
        if now.identity != before.identity or now.length < before.length:
            raise sa.exc.DisconnectionError(f"{file} is not the file that was opened")
        record.info["file"] = now

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if not connection.get_execution_options().get("reading") else "BEGIN"
        )

    return engine


class _Look(NamedTuple):
    """Which file it is, whatever its name, and how long; None and 0 where there is none, or we may not look."""

    identity: tuple[int, int] | None
    length: int


def _look_at(file: Path) -> _Look:
    try:
        status = file.stat()
    except OSError:
        return _Look(None, 0)
    return _Look((status.st_dev, status.st_ino), status.st_size)


def _is_missing(file: Path) -> bool:
    try:
        return not file.exists()
    except OSError:
        # We may not even look; connecting will say so.
        return False


def _postgresql(url: sa.URL, statement_seconds: float, connect_seconds: float, pool_size: int) -> sa.Engine:
    statement_ms = int(statement_seconds * 1000)
    options = (
        f"-c statement_timeout={statement_ms} -c lock_timeout={statement_ms // 2}"
        f" -c idle_in_transaction_session_timeout={statement_ms * 2} -c timezone=UTC"
    )
    arguments = {
        "connect_timeout": max(1, round(connect_seconds)),
        "application_name": "zego-watchdog",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        # A half-open socket hangs for a quarter of an hour without it, whatever the statement time-out.
        "tcp_user_timeout": statement_ms + 5000,
    }
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_seconds,
        pool_pre_ping=True,
        # What the operator wrote into the URL has the last word.
        connect_args={
            **{name: value for name, value in arguments.items() if name not in url.query},
            "options": " ".join([options, *url.normalized_query.get("options", ())]),
        },
    )

    @event.listens_for(engine, "handle_error")
    def leave_replica(context: sa.engine.ExceptionContext) -> None:
        # After a failover a connection may lead to what is a replica now, for ever: the next one may not.
        if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
            context.is_disconnect = True

    return engine


def longest_call_seconds(statement_timeout_seconds: float, connect_timeout_seconds: float) -> float:
    """How long one transaction may take before it must have come back, well or not: a generous bound.

    Waiting for a connection, noticing that it is dead, making another, and a few statements that all are slow.
    """
    return 10 + 2 * connect_timeout_seconds + 4 * statement_timeout_seconds


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that commits at the end of the block; database errors become ours."""
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A short transaction that takes no write lock; database errors become ours."""
    with translated(engine), engine.connect().execution_options(reading=True) as connection, connection.begin():
        yield connection


@contextmanager
def translated(engine: sa.Engine) -> Iterator[None]:
    """Turns every error of SQLAlchemy and the drivers into DatabaseError or DatabaseUnavailable."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise DatabaseUnavailable(f"{place(engine)}: every connection is busy; trying again will do") from error
    except sa.exc.DBAPIError as error:
        kind = DatabaseUnavailable if _may_pass(error) else DatabaseError
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            kind = RowLocked
        raise kind(f"{place(engine)}: {_first_line(error.orig)}") from error
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseError(f"{place(engine)}: {_first_line(error)}") from error


def place(engine: sa.Engine) -> str:
    """The database as a person may see it: never with a password."""
    if engine.dialect.name == "sqlite":
        return f"SQLite {engine.url.database}"
    return f"PostgreSQL {engine.url.render_as_string(hide_password=True)}"


def identify(engine: sa.Engine) -> str:
    """Which database this is, whoever connects to it: no user, no password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"sqlite:{Path(str(url.database)).resolve()}"
    hosts = [*filter(None, [url.host]), *url.normalized_query.get("host", ())]
    ports = [*filter(None, [url.port]), *url.normalized_query.get("port", ())]
    return f"postgresql://{','.join(hosts)}:{','.join(map(str, ports))}/{url.database}"


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _may_pass(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_may_pass(error.orig)
    # OperationalError is what the server or the network does to us: shutdown, lock time-outs, lost connections …
    # InternalError covers a read-only replica after a failover (25006), which is over when the failover is.
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InternalError)


def _sqlite_may_pass(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # The primary code is the low byte. A full disk and an I/O error pass when somebody makes room.
    return code is not None and code & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
