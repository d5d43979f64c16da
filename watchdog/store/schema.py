"""The schema's version: applying migrations, and refusing to work on another version than one's own."""

import sqlalchemy as sa

from watchdog import SCHEMA_VERSION
from watchdog.errors import SchemaMismatch
from watchdog.shipped import shipped
from watchdog.store.engine import place, reading, writing
from watchdog.store.tables import VERSION_TABLE

_MIGRATION_LOCK = 0x7A65676F  # "zego": several daemons may be started, and migrate, at once


def version(engine: sa.Engine) -> str | None:
    """The revision the database is at, None where our tables are not there."""
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        found = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))).scalar()
        return None if found is None else str(found)


def require(engine: sa.Engine) -> None:
    """Raise SchemaMismatch unless the database is at this program's version."""
    found = version(engine)
    if found is None:
        raise SchemaMismatch(
            f"{place(engine)}: the tables of zego-watchdog are not there; create them with: zego-watchdog migrate"
        )
    if found < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{place(engine)}: schema version {found} is older than this program's {SCHEMA_VERSION};"
            " bring it up to date with: zego-watchdog migrate"
        )
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{place(engine)}: schema version {found} is newer than this program's {SCHEMA_VERSION};"
            " install a newer zego-watchdog"
        )


def migrate(engine: sa.Engine) -> tuple[str | None, str]:
    """Bring the database to this program's version, in one transaction; returns (before, after).

    Raises SchemaMismatch when the database is already newer: going back would lose data, and is refused.
    """
    from alembic import command  # noqa: PLC0415 - takes a fifth of a second, and only this needs it
    from alembic.config import Config  # noqa: PLC0415 - the same

    before = version(engine)
    if before is not None and before > SCHEMA_VERSION:
        require(engine)
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # An index on a large table takes longer than any statement of the daemon's may, and others wait for us as
            # long; but a table that is in use is not waited for longer, for then whoever uses it has to wait behind us.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            connection.exec_driver_sql("RESET lock_timeout")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, SCHEMA_VERSION
