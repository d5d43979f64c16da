"""The tables as SQLAlchemy sees them, and the expressions that several modules share.

``migrations/`` builds the tables; a test compares the two. ``docs/schema.md`` explains every column.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from watchdog.core.model import Evidence, Status, Task

VERSION_TABLE = "zego_schema_version"
"""Our own name, because the application may have its ``alembic_version`` in the same database."""

# On SQLite times are text: it sorts, and SQLite's date functions read it.
SQLITE_TIME_FORMAT = "%Y-%m-%d %H:%M:%f000"


def as_utc_text(moment: datetime) -> str:
    """Return a time as SQLite stores it."""
    # A quarter of strftime's time.
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` on PostgreSQL, ``YYYY-MM-DD HH:MM:SS.ffffff`` text on SQLite."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return as_utc_text(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        moment: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Json(sa.types.TypeDecorator[Mapping[str, Any]]):
    """A JSON object that only triggers write: ``jsonb`` on PostgreSQL, text on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else postgresql.JSONB())

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Mapping[str, Any] | None:  # noqa: ARG002 - SQLAlchemy's signature
        # Not strict: SQLite's triggers leave a NUL as it is.
        found: Mapping[str, Any] | None = json.loads(value, strict=False) if isinstance(value, str) else value
        return found


class utcnow(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock at the start of the statement, moved by ``plus_seconds``."""

    type = UtcTime()
    inherit_cache = True

    def __init__(self, plus_seconds: float | sa.BindParameter[float] = 0.0) -> None:
        super().__init__(
            plus_seconds if isinstance(plus_seconds, sa.BindParameter) else sa.literal(plus_seconds, sa.Float())
        )


@compiles(utcnow, "sqlite")
def _utcnow_sqlite(element: utcnow, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('{SQLITE_TIME_FORMAT}', 'now', {seconds} || ' seconds')"


@compiles(utcnow, "postgresql")
def _utcnow_postgresql(element: utcnow, compiler: Any, **kw: Any) -> str:
    # Not clock_timestamp(): it is volatile, and a comparison with it cannot use an index.
    seconds = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


class seconds_between(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The seconds from one time to another, to the millisecond; negative if the second is the earlier one."""

    type = sa.Float()
    inherit_cache = True


@compiles(seconds_between, "sqlite")
def _seconds_between_sqlite(element: seconds_between, compiler: Any, **kw: Any) -> str:
    earlier, later = (compiler.process(one, **kw) for one in element.clauses)
    return f"round((julianday({later}) - julianday({earlier})) * 86400.0, 3)"


@compiles(seconds_between, "postgresql")
def _seconds_between_postgresql(element: seconds_between, compiler: Any, **kw: Any) -> str:
    earlier, later = (compiler.process(one, **kw) for one in element.clauses)
    return f"round(extract(epoch FROM {later} - {earlier}), 3)::double precision"


metadata = sa.MetaData()

_ACTIVE = "status = 'active'"
_NOT_BACK = "rejoined_at IS NULL"


def _columns(kind: Any, *names: str, **options: Any) -> Iterator[sa.Column[Any]]:
    return (sa.Column(name, kind, **options) for name in names)


def _index(name: str, *columns: str, where: str | None = None, unique: bool = False) -> sa.Index:
    condition = None if where is None else sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


tasks = sa.Table(
    "zego_tasks",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("room_id", sa.Text, nullable=False),
    sa.Column("app_id", sa.BigInteger),
    sa.Column("kind", sa.Text, nullable=False, server_default="asr"),
    *_columns(sa.Integer, "max_idle_seconds", "grace_seconds"),
    sa.Column("hold_until", UtcTime),
    sa.Column("started_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    sa.Column("user_count", sa.Integer),
    sa.Column("user_count_at", UtcTime),
    sa.Column("user_count_source", sa.Text),
    *_columns(UtcTime, "last_occupied_at", "empty_since", "due_at", "auto_stop_at", "wake_at"),
    sa.Column("claimed_by", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("status", sa.Text, nullable=False, server_default="active"),
    sa.Column("ended_at", UtcTime),
    sa.Column("asked_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    *_columns(UtcTime, "vendor_occupied_at", "discovered_at"),
    sa.Column("bot_user_id", sa.Text),
    _index("zego_tasks_newly_empty", "empty_since", where=f"{_ACTIVE} AND empty_since IS NOT NULL AND wake_at IS NULL"),
    _index("zego_tasks_wake", "wake_at", where=f"{_ACTIVE} AND wake_at IS NOT NULL"),
    _index("zego_tasks_room", "room_id", where=_ACTIVE),
    _index("zego_tasks_asked", "asked_at", where=_ACTIVE),
    _index("zego_tasks_bots", "room_id", "ended_at", where="bot_user_id IS NOT NULL"),
)

attempts = sa.Table(
    "zego_stop_attempts",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *_columns(sa.Text, "task_id", "kind", nullable=False),
    sa.Column("app_id", sa.BigInteger),
    sa.Column("room_id", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence_source", sa.Text),
    *_columns(UtcTime, "evidence_at", "empty_since", "due_at", "auto_stop_at", "sent_at", "replied_at"),
    sa.Column("http_status", sa.Integer),
    *_columns(sa.Text, "code", "message", "request_id"),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    _index("zego_stop_attempts_task", "task_id", "id"),
    _index("zego_stop_attempts_in_flight", "sent_at", where="outcome = 'sent'"),
)

daemons = sa.Table(
    "zego_daemons",
    metadata,
    sa.Column("instance", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    *_columns(sa.Text, "version", "mode", nullable=False),
    *_columns(UtcTime, "started_at", "watching_since", "seen_at", nullable=False),
    sa.Column("in_flight", sa.Integer),
    sa.Column("requests", sa.BigInteger),
    sa.Column("guard_tripped_at", UtcTime),
    sa.Column("guard_held", sa.Integer),
    sa.Column("guard_released_until", UtcTime),
)

paces = sa.Table(
    "zego_pace",
    metadata,
    sa.Column("app_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("next_at", UtcTime, nullable=False),
)

room_sessions = sa.Table(
    "zego_room_sessions",
    metadata,
    sa.Column("app_id", sa.BigInteger, primary_key=True),
    *_columns(sa.Text, "room_id", "room_session_id", primary_key=True),
    *_columns(UtcTime, "created_at", "closed_at", "first_seen_at"),
    sa.Column("seen_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    _index("zego_room_sessions_seen_at", "seen_at"),
)

room_users = sa.Table(
    "zego_room_users",
    metadata,
    sa.Column("app_id", sa.BigInteger, primary_key=True),
    *_columns(sa.Text, "room_id", "room_session_id", "user_id", "session_id", primary_key=True),
    *_columns(UtcTime, "login_at", "logout_at"),
    sa.Column("role", sa.Integer),
)

callbacks_seen = sa.Table(
    "zego_callbacks_seen",
    metadata,
    sa.Column("replay_key", sa.Text, primary_key=True),
    sa.Column("seen_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    _index("zego_callbacks_seen_at", "seen_at"),
)

deleted_tasks = sa.Table(
    "zego_deleted_tasks",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("deleted_at", UtcTime, nullable=False),
    _index("zego_deleted_tasks_at", "deleted_at"),
)

rejoins = sa.Table(
    "zego_rejoins",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("app_id", sa.BigInteger),
    sa.Column("room_id", sa.Text, nullable=False),
    *_columns(UtcTime, "stopped_at", "watch_until", nullable=False),
    sa.Column("asked_at", UtcTime, nullable=False, server_default=sa.FetchedValue()),
    sa.Column("rejoined_at", UtcTime),
    _index("zego_rejoins_watched", "watch_until", where=_NOT_BACK),
    _index("zego_rejoins_asked", "asked_at", where=_NOT_BACK),
    _index("zego_rejoins_room", "room_id", where=_NOT_BACK),
)

event_types = sa.Table(
    "zego_event_types",
    metadata,
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("webhook", sa.Boolean, nullable=False),
)

events = sa.Table(
    "zego_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *_columns(sa.Text, "type", "task_id", "kind", nullable=False),
    sa.Column("app_id", sa.BigInteger),
    sa.Column("room_id", sa.Text, nullable=False),
    sa.Column("occurred_at", UtcTime, nullable=False),
    sa.Column("data", Json, nullable=False),
    *_columns(UtcTime, "handled_at", "delivered_at"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("wake_at", UtcTime),
    *_columns(sa.Text, "claimed_by", "error"),
    _index("zego_events_task", "task_id"),
    _index("zego_events_unhandled", "id", where="handled_at IS NULL"),
    _index("zego_events_pending", "wake_at", where="wake_at IS NOT NULL"),
    _index("zego_events_undelivered", "id", where="wake_at IS NULL AND delivered_at IS NULL AND attempts > 0"),
)

empty_spells = sa.Table(
    "zego_empty_spells",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *_columns(sa.Text, "task_id", "kind", nullable=False),
    sa.Column("app_id", sa.BigInteger),
    sa.Column("room_id", sa.Text, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("last_occupied_at", UtcTime),
    *_columns(sa.Integer, "max_idle_seconds", "grace_seconds"),
    *_columns(UtcTime, "empty_since", "ended_at", nullable=False),
    sa.Column("ending", sa.Text, nullable=False),
    sa.Column("evidence_source", sa.Text),
    _index("zego_empty_spells_task", "task_id", "empty_since", unique=True),
)

REPLACED_TABLE = "zego_replaced"
"""Only on SQLite, and only for triggers: the columns of the row that an INSERT OR REPLACE deletes."""
REPLACED_COLUMNS = frozenset(tasks.c.keys()) - {"room_id", "kind", "bot_user_id"}

# A literal, because it is the condition of the partial indexes: the planner could not match a parameter.
ACTIVE = tasks.c.status == sa.literal_column("'active'")

BOT_LEAVES_SECONDS: Final = 60.0
"""How long a user that a task brought may stay in the room after the task's end. Taken for a person, it would have
returned."""

BRINGS_USER = sa.and_(
    # As in the condition of the index zego_tasks_bots.
    tasks.c.bot_user_id.is_not(None),
    sa.or_(tasks.c.ended_at.is_(None), tasks.c.ended_at > utcnow(-BOT_LEAVES_SECONDS)),
)
"""Whether a user that the task brought may be in its room."""
NOW = sa.select(utcnow().label("now"))
HINT = (
    sa.update(tasks)
    .where(tasks.c.task_id == sa.bindparam("b_task_id"), ACTIVE)
    .values({name: sa.bindparam(f"b_{name}") for name in ("user_count", "user_count_at", "user_count_source")})
)

_STATUS_AT = list(tasks.c.keys()).index("status")


def hint(task_id: str, evidence: Evidence) -> dict[str, Any]:
    """Return the parameters of ``HINT``."""
    names = ("user_count", "user_count_at", "user_count_source")
    values = (evidence.user_count, evidence.observed_at, evidence.source)
    return {"b_task_id": task_id, **{f"b_{name}": value for name, value in zip(names, values, strict=True)}}


def as_task(row: Sequence[Any]) -> Task:
    """Return a row of all columns of ``zego_tasks``, in the table's order, as a Task."""
    values = list(row)
    values[_STATUS_AT] = Status(values[_STATUS_AT])
    return Task(*values)
