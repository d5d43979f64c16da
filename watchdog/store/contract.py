"""What a database must contain for the daemon to see every task, compared with what is there.

Somebody's own migrations, a restore or a policy may have taken some of it away. Without a trigger, hints have no
effect; with a policy, rows are hidden. A daemon that is blind this way looks well otherwise.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import sqlalchemy as sa

from watchdog.errors import SchemaMismatch
from watchdog.shipped import shipped
from watchdog.store.engine import place, reading
from watchdog.store.tables import REPLACED_COLUMNS, REPLACED_TABLE, attempts, empty_spells, events, metadata

VIEWS: Final = ("zego_stop_history", "zego_savings")

# What the daemon's own statements find, whatever the search path.
_OURS: Final = "SELECT to_regclass(name)::oid FROM unnest(%(names)s::text[]) name WHERE to_regclass(name) IS NOT NULL"
_COLUMNS: Final = {
    "postgresql": (
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid = ANY (%(ours)s)"
    ),
    # The columns of a view whose tables are missing cannot be read.
    "sqlite": (
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
        " WHERE m.type = 'table' AND m.name GLOB 'zego_*'"
        " UNION ALL SELECT name, '' FROM sqlite_master WHERE type = 'view' AND name GLOB 'zego_*'"
    ),
}
_INDEXES: Final = {
    "postgresql": (
        "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " WHERE x.indisvalid AND x.indrelid = ANY (%(ours)s)"
    ),
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
}
_TRIGGERS: Final = {
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgrelid = ANY (%(ours)s)"
    ),
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
}
# A policy for all commands with USING (true) hides nothing, unless a restrictive one stands beside it.
_HIDDEN: Final = """
SELECT c.relname FROM pg_class c
WHERE c.oid = ANY (%(ours)s) AND c.relkind = 'r' AND row_security_active(c.oid) AND (
  EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive)
  OR NOT EXISTS (
    SELECT FROM pg_policy p
    WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*' AND pg_get_expr(p.polqual, p.polrelid) = 'true'
      AND EXISTS (SELECT FROM unnest(p.polroles) role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
  )
)
ORDER BY 1
"""
_DEFINES: Final = re.compile(r"^(CREATE|DROP) (?:OR REPLACE )?(TABLE|FUNCTION|TRIGGER|VIEW) (\w+)", re.MULTILINE)
# A role may write attempts without the right to read their sequence; then nothing is known of it.
_BEHIND: Final = """
SELECT true FROM pg_get_serial_sequence('{table}', 'id') sequence
WHERE CASE WHEN has_sequence_privilege(sequence, 'USAGE, SELECT') THEN
    (SELECT max(id) FROM {table}) > coalesce(pg_sequence_last_value(sequence::regclass), 0)
END
"""
_NUMBERED: Final = (attempts.name, events.name, empty_spells.name)


@dataclass(frozen=True, slots=True)
class Differences:
    """What a database lacks. ``blinding`` are tables, columns, triggers and views; ``slowing`` are indexes.

    ``hidden`` are the tables whose rows a row-level security policy may hide from this role. ``behind`` are tables of
    which the next id exists already, so nothing can be written into them.
    """

    blinding: tuple[str, ...] = ()
    slowing: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    triggers: int = 0
    """How many triggers are expected."""


def compare(engine: sa.Engine) -> Differences:
    """Read the catalogue; takes some milliseconds."""
    with reading(engine) as connection:
        return differences(connection)


def differences(connection: sa.Connection) -> Differences:
    """The same, in a transaction of the caller's."""
    dialect = connection.dialect.name
    ours: dict[str, list[int]] | None = None
    if dialect == "postgresql":
        names = {"names": [*metadata.tables, *VIEWS]}
        ours = {"ours": list(connection.exec_driver_sql(_OURS, names).scalars())}

    def read(statements: Mapping[str, str]) -> set[str]:
        return {".".join(row) for row in connection.exec_driver_sql(statements[dialect], ours)}

    expected = expected_triggers(dialect)
    blinding = _absent(read(_COLUMNS), dialect) + [f"trigger {name}" for name in sorted(expected - read(_TRIGGERS))]
    indexes = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    slowing = sorted(indexes - read(_INDEXES))
    if dialect != "postgresql":
        return Differences(tuple(blinding), tuple(slowing), triggers=len(expected))
    hidden = connection.exec_driver_sql(_HIDDEN, ours).scalars().all()
    behind = [
        name
        for name in _NUMBERED
        if f"table {name}" not in blinding and connection.exec_driver_sql(_BEHIND.format(table=name)).all()
    ]
    return Differences(tuple(blinding), tuple(slowing), tuple(hidden), tuple(behind), len(expected))


def require(engine: sa.Engine) -> None:
    """Raise SchemaMismatch if tasks or hints would not be seen, or no attempt could be recorded."""
    found = compare(engine)
    if found.blinding:
        raise SchemaMismatch(
            f"{place(engine)}: missing or disabled: {', '.join(found.blinding)}; run: zego-watchdog migrate"
        )
    if found.hidden:
        raise SchemaMismatch(f"{place(engine)}: {hidden_rows(found.hidden)}")
    if found.behind:
        raise SchemaMismatch(f"{place(engine)}: {sequences_behind(found.behind)}; {set_sequences(found.behind)}")


def sequences_behind(tables: tuple[str, ...]) -> str:
    """Say what follows from ids that exist already."""
    return (
        f"the next id of {', '.join(tables)} exists already, as after a restore, so no attempt or end of a task can be "
        "recorded"
    )


def set_sequences(tables: tuple[str, ...]) -> str:
    """Return the statements that put it right."""
    return "; ".join(f"SELECT setval(pg_get_serial_sequence('{one}', 'id'), max(id)) FROM {one}" for one in tables)  # noqa: S608 - names of ours


def hidden_rows(tables: tuple[str, ...]) -> str:
    """Say what hides rows, and what to do."""
    return (
        f"row-level security may hide rows of {', '.join(tables)} from this role; add a policy for it "
        "(FOR ALL … USING (true)), or ALTER ROLE … BYPASSRLS"
    )


@cache
def expected_triggers(dialect: str) -> frozenset[str]:
    return frozenset(name for kind, name in definitions(dialect) if kind == "TRIGGER")


@cache
def definitions(dialect: str) -> dict[tuple[str, str], str]:
    """The last statement that creates each thing, by kind and name, in the order of the migrations.

    Read from their files, so there is no second list to maintain. Columns that were added to a table are not included.
    """
    found: dict[tuple[str, str], str] = {}
    for file in sorted((shipped("migrations") / "sql").glob(f"*_{dialect}.sql")):
        for statement in file.read_text(encoding="utf-8").split("\n--;\n"):
            if (match := _DEFINES.search(statement)) is not None:
                verb, kind, name = match.groups()
                found.pop((kind, name), None)
                if verb == "CREATE":
                    found[kind, name] = statement
    return found


def _absent(columns: set[str], dialect: str) -> list[str]:
    """``columns`` are ``table.column``."""
    relations = {column.partition(".")[0] for column in columns}
    expected = {name: frozenset(table.c.keys()) for name, table in metadata.tables.items()}
    if dialect == "sqlite":
        expected[REPLACED_TABLE] = REPLACED_COLUMNS
    absent = []
    for name, names in sorted(expected.items()):
        if name not in relations:
            absent.append(f"table {name}")
        else:
            absent += sorted(f"column {name}.{column}" for column in names if f"{name}.{column}" not in columns)
    return absent + [f"view {name}" for name in VIEWS if name not in relations]
