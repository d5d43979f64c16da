"""The schema's version: apply migrations, and refuse a database of another version."""

import sqlalchemy as sa

from watchdog import SCHEMA_VERSION
from watchdog.errors import ConfigError, SchemaMismatch, StatementRefused
from watchdog.shipped import shipped
from watchdog.store import repair
from watchdog.store.engine import place, reading, writing
from watchdog.store.tables import VERSION_TABLE

POSTGRESQL_MINIMUM = 14
"""The views use ``extract`` as numeric, which came with 14."""

_MIGRATION_LOCK = 0x7A65676F  # "zego"; several daemons may start, and migrate, at the same time

# A schema that the role may not use is not a current one.
_CREATING = """
SELECT quote_ident(current_user), current_setting('search_path'), quote_ident(name),
    name = current_schema() AND has_schema_privilege(name, 'CREATE')
FROM (SELECT coalesce(current_schema(), (
    SELECT nspname FROM unnest(string_to_array(replace(current_setting('search_path'), '"', ''), ',')) WITH ORDINALITY
    JOIN pg_namespace ON nspname = replace(trim(unnest), '$user', current_user) ORDER BY ordinality LIMIT 1
))) AS wanted (name)
"""


def version(engine: sa.Engine) -> str | None:
    """Return the database's revision; None if our tables do not exist."""
    with reading(engine) as connection:
        return _version(connection)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))).scalar()
    return None if found is None else str(found)


def require(engine: sa.Engine) -> None:
    """Raise SchemaMismatch unless the database is at this program's version."""
    found = version(engine)
    if found == SCHEMA_VERSION:
        return
    if found is None:
        advice = "the tables of zego-watchdog do not exist; create them with: zego-watchdog migrate"
    elif found < SCHEMA_VERSION:
        advice = f"schema version {found} is older than this program's {SCHEMA_VERSION}; run: zego-watchdog migrate"
    else:
        advice = f"schema version {found} is newer than this program's {SCHEMA_VERSION}; install a newer zego-watchdog"
    raise SchemaMismatch(f"{place(engine)}: {advice}")


def migrate(engine: sa.Engine) -> tuple[str | None, str]:
    """Upgrade the database to this program's version, in one transaction; return (before, after).

    What is missing of that version is created again. Raises SchemaMismatch where rows would be lost: if the database is
    newer, or if tables are missing beside others with rows. Raises ConfigError for a server that is too old,
    StatementRefused if this role may not create tables.
    """
    from alembic import command  # noqa: PLC0415 - takes 0.2 s, and only this function needs it
    from alembic.config import Config  # noqa: PLC0415 - the same

    before = version(engine)
    if before is not None and before > SCHEMA_VERSION:
        require(engine)
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # An index on a large table takes longer than a statement of the daemon may, and other migrations wait as
            # long for the advisory lock. The time-out for table locks stays: every user of a table waits behind us.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            connection.exec_driver_sql("RESET lock_timeout")
            if before != SCHEMA_VERSION:
                _require_place_for_tables(connection)
        config.attributes["connection"] = connection
        found = _version(connection)
        if found is None or (found == SCHEMA_VERSION and repair.is_torn(connection)):
            repair.clear(connection, place(engine))
        command.upgrade(config, "head")
        repair.put_back(connection)
    return before, SCHEMA_VERSION


def _require_place_for_tables(connection: sa.Connection) -> None:
    where = place(connection.engine)
    server = connection.exec_driver_sql("SHOW server_version").scalar_one()
    if int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) < POSTGRESQL_MINIMUM * 10000:
        raise ConfigError(f"{where}: PostgreSQL {server} is too old: {POSTGRESQL_MINIMUM} or later is needed")
    role, path, name, may = connection.exec_driver_sql(_CREATING).one()
    if name is None:
        raise ConfigError(
            f"{where}: search_path is {path}, and there is no such schema; create it, or correct the path"
        )
    if not may:
        raise StatementRefused(
            f"{where}: the role {role} may not create tables in schema {name}; as the owner of that schema or as a "
            f"superuser, run: GRANT USAGE, CREATE ON SCHEMA {name} TO {role}"
        )


def run_file(connection: sa.Connection, revision: str) -> None:
    """Run ``migrations/sql/REVISION_DIALECT.sql``, whose statements are separated by lines of ``--;``."""
    file = shipped("migrations") / "sql" / f"{revision}_{connection.dialect.name}.sql"
    for statement in file.read_text(encoding="utf-8").split("\n--;\n"):
        # Not text(), in which a colon begins a parameter.
        connection.exec_driver_sql(statement)
