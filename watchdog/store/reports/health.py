"""The health of the database and of the daemons on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from watchdog.store.engine import reading, server_encoding, writing
from watchdog.store.heartbeats import ALIVE_SECONDS, ENDED, IS_ALIVE
from watchdog.store.records import Instance
from watchdog.store.reports.history import as_row
from watchdog.store.tables import ACTIVE, NOW, UtcTime, daemons, tasks, utcnow

HINTS_LOOKED_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class DaemonRow(Instance):
    """One row of ``zego_daemons``, and whether that daemon is alive."""

    started_at: datetime
    watching_since: datetime
    seen_at: datetime
    in_flight: int | None
    requests: int | None
    guard_tripped_at: datetime | None
    guard_held: int | None
    guard_released_until: datetime | None
    alive: bool

    @property
    def has_tripped(self) -> bool:
        """Whether its guard holds back stops that rest on hints alone."""
        return self.alive and self.guard_tripped_at is not None


def modes_alive(rows: Sequence[DaemonRow]) -> Sequence[str]:
    """Return the modes of the daemons that are alive; more than one is worth a warning."""
    return sorted({row.mode for row in rows if row.alive})


@dataclass(frozen=True, slots=True)
class Vitals:
    """What ``check`` examines in a database; ``journal_mode`` is None on PostgreSQL, ``encoding`` on SQLite."""

    now: datetime
    server: str
    writable: bool
    journal_mode: str | None
    encoding: str | None


@dataclass(frozen=True, slots=True)
class Hints:
    """How many active tasks have a hint, of at most ``HINTS_LOOKED_AT``, and the time of the newest one."""

    now: datetime
    active: int
    with_hint: int
    newest_at: datetime | None


def all_daemons(engine: sa.Engine) -> tuple[datetime, Sequence[DaemonRow]]:
    """Return the database's time and the daemons of the last days, last seen first."""
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        return now, daemons_at(connection, now)


def daemons_at(connection: sa.Connection, now: datetime) -> list[DaemonRow]:
    alive_since = now - timedelta(seconds=ALIVE_SECONDS)
    return [
        DaemonRow(**as_row(row), alive=row.seen_at >= alive_since and row.mode != ENDED)
        for row in connection.execute(sa.select(*daemons.c).order_by(daemons.c.seen_at.desc()))
    ]


def release_guard(engine: sa.Engine, seconds: float) -> int:
    """Switch off the guard of every daemon that is alive for ``seconds``; return how many there are."""
    with writing(engine) as connection:
        release = sa.update(daemons).where(IS_ALIVE).values(guard_released_until=utcnow(seconds))
        return connection.execute(release).rowcount


def vitals(engine: sa.Engine) -> Vitals:
    """Find whether the database can be written to, and its mode."""
    postgresql = engine.dialect.name == "postgresql"
    # On SQLite this takes the write lock, which fails for a read-only file.
    with writing(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        if postgresql:
            read_only = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
            server = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return Vitals(now, f"PostgreSQL {server}", read_only == "off", None, server_encoding(connection))
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return Vitals(now, f"SQLite {version}", True, str(mode), None)


def hints(engine: sa.Engine) -> Hints:
    some = sa.select(tasks.c.user_count, tasks.c.user_count_at).where(ACTIVE).limit(HINTS_LOOKED_AT).subquery()
    with reading(engine) as connection:
        row = connection.execute(
            sa.select(
                utcnow().label("now"),
                sa.func.count().label("active"),
                sa.func.count(some.c.user_count).label("with_hint"),
                sa.func.max(some.c.user_count_at, type_=UtcTime).label("newest_at"),
            ).select_from(some)
        ).one()
    return Hints(row.now, row.active, row.with_hint, row.newest_at)
