"""Connections: how each database is opened, and how its errors become ours.

SQLite: one connection, used by one thread at a time. Every writing transaction begins IMMEDIATE, because an upgrade
from reading to writing fails at once, whatever the busy_timeout; ``synchronous=FULL``, because a committed attempt must
survive a power cut. PostgreSQL: a small pool; every wait is bounded, for a lock, a statement, or a dead socket.
"""

import codecs
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from watchdog.errors import (
    ConfigError,
    DatabaseError,
    DatabaseUnavailable,
    RowLocked,
    RowReferenced,
    StatementRefused,
    in_words,
)
from watchdog.store.sqlite_file import is_mount_point

SQLITE_VERSION = sqlite3.sqlite_version
SQLITE_MINIMUM = (3, 35)
"""RETURNING came with 3.35."""

_SQLITE_REFUSALS = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_READONLY_DIRECTORY,
}

# The second is a foreign key with ON DELETE RESTRICT.
_SQLITE_KEPT = {sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, sqlite3.SQLITE_CONSTRAINT_TRIGGER}

Engine = sa.Engine
"""For callers outside the store, which pass it on without SQL of their own."""


def open_engine(
    url: str,
    *,
    shown: str | None = None,
    password: str | None = None,
    statement_timeout_seconds: float = 5,
    connect_timeout_seconds: float = 5,
    pool_size: int = 4,
    pooled: bool = False,
    must_exist: bool = True,
) -> sa.Engine:
    """Return an engine on ``sqlite:///path`` or ``postgresql+psycopg://…``; nothing is connected yet.

    ``shown`` is the address for people. Raises ConfigError for another kind of URL, and, with ``must_exist``, if the
    SQLite file does not exist: a mistyped path must not silently become an empty database. ``pooled``: between us and
    PostgreSQL is a pooler that gives each transaction another connection.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, statement_timeout_seconds, must_exist=must_exist)
    if parsed.get_backend_name() == "postgresql":
        if password is not None:
            parsed = parsed.set(password=password)
        engine = _postgresql(parsed, statement_timeout_seconds, connect_timeout_seconds, pool_size, pooled=pooled)
        engine.logging_name = shown
        return engine
    raise ConfigError(
        f"database.url: {parsed.get_backend_name()} is not supported; use sqlite:///FILE or postgresql://USER@HOST/DB"
    )


def _sqlite(url: sa.URL, busy_seconds: float, *, must_exist: bool) -> sa.Engine:
    if sqlite3.sqlite_version_info < SQLITE_MINIMUM:
        wanted = ".".join(map(str, SQLITE_MINIMUM))
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: {wanted} or later is needed")
    file = _sqlite_file(url, must_exist=must_exist)
    mode = "rw" if must_exist else "rwc"

    def connect() -> sqlite3.Connection:
        # isolation_level None: the driver begins no transactions; the "begin" event below does.
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
            # The application's tables may refer to ours.
            connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    # One connection for the whole program; callers wait for it, so writers are serialised.
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
        # A file that was moved or replaced stays open, and what is written to it is lost. A file that was truncated is
        # not noticed while the needed pages are cached.
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


def _sqlite_file(url: sa.URL, *, must_exist: bool) -> Path:
    if url.database in {None, "", ":memory:"}:
        raise ConfigError("database.url: a database in memory is lost with its process; name a file: sqlite:///FILE")
    file = Path(str(url.database))
    if must_exist and _is_missing(file):
        raise ConfigError(f"database.url: there is no file {file.absolute()}; create it with: zego-watchdog migrate")
    if is_mount_point(file):
        raise ConfigError(
            f"database.url: {file.absolute()} is itself a mount point, so its -wal file lies beside it on another "
            "file system, and other processes would not see what is written; mount its directory instead"
        )
    return file


class _Look(NamedTuple):
    """The identity and the length of a file; None and 0 if it does not exist or may not be examined."""

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
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        # No permission to look; connecting will report it.
        return False
    return False


def _postgresql(
    url: sa.URL, statement_seconds: float, connect_seconds: float, pool_size: int, *, pooled: bool
) -> sa.Engine:
    statement_ms = int(statement_seconds * 1000)
    # The server, the database or the role may have other defaults for all of these.
    settings = {
        "statement_timeout": str(statement_ms),
        "lock_timeout": str(statement_ms // 2),
        "idle_in_transaction_session_timeout": str(statement_ms * 2),
        "timezone": "UTC",
        "datestyle": "ISO",
        "intervalstyle": "postgres",
        "bytea_output": "hex",
    }
    arguments: dict[str, object] = {
        "connect_timeout": max(1, round(connect_seconds)),
        "application_name": "zego-watchdog",
        "client_encoding": "UTF8",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        # Without it a half-open socket hangs for 15 minutes, whatever the statement time-out.
        "tcp_user_timeout": statement_ms + 5000,
    }
    # Options in the URL take precedence.
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if pooled:
        # The next transaction may run on another connection of the pooler, which has not prepared this statement.
        arguments["prepare_threshold"] = None
    else:
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        arguments["options"] = " ".join([options, *url.normalized_query.get("options", ())])
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_seconds,
        pool_pre_ping=True,
        connect_args=arguments,
    )
    if pooled:
        # A pooler refuses options at the start, and settings of a session would reach other clients.
        local = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(local)

    @event.listens_for(engine, "handle_error")
    def leave_replica(context: sa.engine.ExceptionContext) -> None:
        # After a failover this connection may lead to a replica for ever; a new one may lead to the primary.
        if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
            context.is_disconnect = True

    return engine


def server_encoding(connection: sa.Connection) -> str | None:
    """Return PostgreSQL's name of the database's encoding; None on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment] # its own class
    return driver.info.parameter_status("server_encoding")


def storable(connection: sa.Connection, text: str | None) -> str | None:
    r"""Return the text with every character that the database's encoding does not have as ``\uXXXX``.

    For texts of the vendor: an answer must be recorded whatever it contains.
    """
    encoding = server_encoding(connection)
    if text is None or text.isascii() or encoding in {None, "UTF8", "SQL_ASCII"}:
        return text
    codec = _codec(str(encoding))
    return text.encode(codec, "backslashreplace").decode(codec)


def _codec(encoding: str) -> str:
    """Return Python's codec for PostgreSQL's encoding; ASCII if there is none."""
    name = re.sub(r"^WIN(?=\d)", "cp", encoding)
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def longest_call_seconds(statement_timeout_seconds: float, connect_timeout_seconds: float) -> float:
    """Return a generous upper bound of the time of one transaction, successful or not.

    It may wait for a connection, notice that it is dead, make another, and run a few slow statements.
    """
    return 10 + 2 * connect_timeout_seconds + 4 * statement_timeout_seconds


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction that commits at the end of the block; database errors become ours."""
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a short transaction that takes no write lock; database errors become ours."""
    with translated(engine), engine.connect().execution_options(reading=True) as connection, connection.begin():
        yield connection


@contextmanager
def translated(engine: sa.Engine) -> Iterator[None]:
    """Turn every error of SQLAlchemy and the drivers into DatabaseError or one of its subclasses."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise DatabaseUnavailable(f"{place(engine)}: every connection is busy; try again") from error
    except sa.exc.DBAPIError as error:
        kind = DatabaseUnavailable if _may_pass(error) else DatabaseError
        if isinstance(error.orig, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
            kind = RowLocked
        if (key := _foreign_key(error.orig)) is not None:
            raise RowReferenced(f"{place(engine)}: {in_words(error.orig)}", key) from error
        todo = _right_to_give(error.orig)
        if todo is not None:
            raise StatementRefused(f"{place(engine)}: {in_words(error.orig)}; {todo}") from error
        raise kind(f"{place(engine)}: {in_words(error.orig)}{_next_step(error.orig)}") from error
    except sa.exc.SQLAlchemyError as error:
        raise DatabaseError(f"{place(engine)}: {in_words(error)}") from error


def place(engine: sa.Engine) -> str:
    """Return the database's address for people: never with a password."""
    if engine.dialect.name == "sqlite":
        return f"SQLite {engine.url.database}"
    return f"PostgreSQL {engine.logging_name or engine.url.render_as_string(hide_password=True)}"


def identify(engine: sa.Engine) -> str:
    """Return the database's identity, the same for every user: no user, no password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"sqlite:{Path(str(url.database)).resolve()}"
    hosts = [*filter(None, [url.host]), *url.normalized_query.get("host", ())]
    ports = [*filter(None, [url.port]), *url.normalized_query.get("port", ())]
    return f"postgresql://{','.join(hosts)}:{','.join(map(str, ports))}/{url.database}"


def _foreign_key(error: Any) -> str | None:
    """Return the name of the foreign key that kept a row, None if it was another error. SQLite does not say which."""
    if isinstance(error, psycopg.errors.ForeignKeyViolation | psycopg.errors.RestrictViolation):
        return error.diag.constraint_name or "a foreign key"
    if getattr(error, "sqlite_errorcode", None) in _SQLITE_KEPT and "FOREIGN KEY" in str(error):
        return "a foreign key"
    return None


def _next_step(error: Any) -> str:
    if "unsupported startup parameter" in str(error):
        return "; this is a connection pooler such as PgBouncer: set database.transaction_pooling to true"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "; set database.url to the primary server"
    if isinstance(error, psycopg.errors.DependentObjectsStillExist):
        return f": {in_words(error.diag.message_detail)}; drop that first"
    return ""


def _right_to_give(error: Any) -> str | None:
    """Return the next step if the database refused a statement for want of a right, else None."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        if "must be owner" in str(error):
            return "run it as the role that owns the tables, or as a member of it: docs/sql-roles.md"
        return "grant the missing right: docs/roles.sql"
    if getattr(error, "sqlite_errorcode", None) in _SQLITE_REFUSALS:
        return "make the file and its directory writable for this user"
    return None


def _may_pass(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_may_pass(error.orig)
    # OperationalError comes from the server or the network: shutdown, lock time-outs, lost connections ...
    # InternalError includes a read-only replica during a failover (25006).
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InternalError)


def _sqlite_may_pass(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # The primary code is the low byte. A full disk and an I/O error pass when space is freed.
    return code is not None and code & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
