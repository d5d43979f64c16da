"""Opens the database that a configuration names; imports nothing that only a daemon needs, so commands start fast."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from watchdog.config.settings import Config, DatabaseConfig
from watchdog.store import schema
from watchdog.store.engine import open_engine


def engine(config: DatabaseConfig, *, must_exist: bool = True) -> sa.Engine:
    """The configured engine, not connected yet. Raises ConfigError."""
    return open_engine(
        config.sqlalchemy_url.get_secret_value(),
        shown=config.safe_url,
        statement_timeout_seconds=config.statement_timeout_seconds,
        connect_timeout_seconds=config.connect_timeout_seconds,
        pool_size=config.pool_size,
        pooled=config.transaction_pooling,
        must_exist=must_exist,
    )


@contextmanager
def opened(config: Config) -> Iterator[sa.Engine]:
    """The database, at this program's schema version. Raises ConfigError, DatabaseError."""
    database = engine(config.database)
    try:
        schema.require(database)
        yield database
    finally:
        database.dispose()
