"""Other kinds of tasks than ASR, and the users that tasks bring into their rooms."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from watchdog.errors import SchemaMismatch
from watchdog.store.schema import run_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _change_constraints_on_sqlite(op.get_bind())
    run_file(op.get_bind(), revision)
    # Quickly made on any table: no row is in it yet.
    where = sa.text("bot_user_id IS NOT NULL")
    op.create_index(
        "zego_tasks_bots", "zego_tasks", ["room_id", "ended_at"], sqlite_where=where, postgresql_where=where
    )


def _change_constraints_on_sqlite(connection: sa.Connection) -> None:
    """Change the texts of constraints, as SQLite's "ALTER TABLE", section 7, says for changes that touch no row.

    A new table in place of an old one would be written anew, and all of its triggers with it.
    """
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = [
        connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ? AND instr(sql, ?)",
            (f"CHECK ({old})", f"CHECK ({new})", table, f"CHECK ({old})"),
        ).rowcount
        for table, old, new in _CHANGES
    ]
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    wanted = [f"CHECK ({old}) of {table}" for table, old, _ in _CHANGES]
    if others := [name for name, rows in zip(wanted, changed, strict=True) if rows != 1]:
        raise SchemaMismatch(
            f"another program has rewritten these constraints: {', '.join(others)}; write them as here into "
            "sqlite_master, or restore a backup from before that change, and migrate again"
        )


def _is_one_of(column: str, values: Sequence[str]) -> str:
    """Return the condition that hints are checked by. For a list of more than two, SQLite builds a table each time."""
    return " OR ".join(f"{column} = '{value}'" for value in values)


def _is_in(column: str, values: Sequence[str]) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({listed})"


_SOURCES = ("app", "callback", "api")
_ENDINGS = ("returned", "stopped", "auto_stopped", "released", "unknown")
_CHANGES = (
    ("zego_tasks", "kind = 'asr'", "kind IN ('asr', 'agent', 'digital_human', 'player', 'recording')"),
    ("zego_tasks", _is_in("user_count_source", _SOURCES), _is_one_of("user_count_source", _SOURCES)),
    ("zego_empty_spells", _is_in("ending", _ENDINGS), _is_one_of("ending", _ENDINGS)),
)
