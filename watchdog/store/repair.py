"""What other migrations, or a person, left of our tables: ``migrate`` puts it in order without losing a row.

Triggers, functions, views and indexes hold no rows: they are created again. Tables are built anew only if none of
them holds a row.
"""

import re

import sqlalchemy as sa

from watchdog.errors import SchemaMismatch
from watchdog.store import contract
from watchdog.store.tables import REPLACED_TABLE, VERSION_TABLE, metadata


def is_torn(connection: sa.Connection) -> bool:
    """Whether a table or a column is missing that may have held something."""
    blinding = contract.differences(connection).blinding
    return any(name.startswith(("table ", "column ")) for name in blinding if not _is_of_no_meaning(name))


def clear(connection: sa.Connection, place: str) -> None:
    """Drop what is left, so that the migrations begin anew. Raises SchemaMismatch if a table of ours holds a row."""
    found = sa.inspect(connection)
    definitions = contract.definitions(connection.dialect.name)
    built = [name for kind, name in definitions if kind == "TABLE"]
    left = [name for name in dict.fromkeys([*metadata.tables, *built]) if found.has_table(name)]
    if connection.dialect.name == "postgresql":
        # Nobody inserts a row after we looked, and no policy hides one from us: that is an error instead.
        connection.exec_driver_sql("SET LOCAL row_security = off")
        connection.exec_driver_sql("".join(f"LOCK TABLE {name};" for name in left))
    full = [name for name in left if name in metadata.tables and _holds_rows(connection, name)]
    if full:
        missing = [] if found.has_table(VERSION_TABLE) else [f"table {VERSION_TABLE}"]
        missing += contract.differences(connection).blinding
        raise SchemaMismatch(
            f"{place}: {', '.join(full)} hold rows, but there is no {', '.join(missing)}; restore a backup, or drop "
            f"{', '.join(full)} and run zego-watchdog migrate again"
        )
    for name in contract.VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
    for name in [*left, VERSION_TABLE]:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
    for kind, name in definitions:
        if kind == "FUNCTION":
            connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}()")


def put_back(connection: sa.Connection) -> None:
    """Create the triggers, the views and the indexes that are missing."""
    lacking = contract.differences(connection)
    definitions = contract.definitions(connection.dialect.name)
    if any(_is_of_no_meaning(name) for name in lacking.blinding):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {REPLACED_TABLE}")
        connection.exec_driver_sql(definitions["TABLE", REPLACED_TABLE])
    if any(name.startswith("trigger ") for name in lacking.blinding):
        # All of them, because on SQLite their order is that in which they were created.
        _create_triggers(connection, definitions)
    for name in contract.VIEWS:
        if f"view {name}" in lacking.blinding:
            connection.exec_driver_sql(definitions["VIEW", name])
    for table in metadata.sorted_tables:
        for index in table.indexes:
            if index.name in lacking.slowing:
                index.create(connection)


def _create_triggers(connection: sa.Connection, definitions: dict[tuple[str, str], str]) -> None:
    triggers = {name: statement for (kind, name), statement in definitions.items() if kind == "TRIGGER"}
    for (kind, _), statement in definitions.items():
        if kind == "FUNCTION":
            replacing = re.sub("^CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", statement, flags=re.MULTILINE)
            connection.exec_driver_sql(replacing)
    for name, statement in triggers.items():
        on = re.search(r" ON \w+", statement)
        table = on[0] if on is not None and connection.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{table}")
    for statement in triggers.values():
        connection.exec_driver_sql(statement)


def _is_of_no_meaning(name: str) -> bool:
    """Whether the missing thing belongs to the table that only triggers use."""
    return REPLACED_TABLE in name


def _holds_rows(connection: sa.Connection, name: str) -> bool:
    return connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1").first() is not None  # noqa: S608 - a name of ours
