"""Other kinds of tasks than ASR, and the users that tasks bring into their rooms."""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _widen_on_sqlite(op.get_bind())
    run_file(op.get_bind(), revision)
    # Quickly made on any table: no row is in it yet.
    where = sa.text("status = 'active' AND bot_user_id IS NOT NULL")
    op.create_index("zego_tasks_bots", "zego_tasks", ["room_id"], sqlite_where=where, postgresql_where=where)


def _widen_on_sqlite(connection: sa.Connection) -> None:
    """Change the text of a constraint, as SQLite's "ALTER TABLE", section 7, says for changes that touch no row.

    A new table in place of the old one would be written anew, and all of its triggers with it.
    """
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?)"
        " WHERE type = 'table' AND name = 'zego_tasks' AND instr(sql, ?)",
        (_OLD, _NEW, _OLD),
    ).rowcount
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    if changed != 1:
        raise RuntimeError("zego_tasks has no constraint zego_kind_known as migration 0001 wrote it: restore a backup")


_OLD = "CHECK (kind = 'asr')"
_NEW = "CHECK (kind IN ('asr', 'agent', 'digital_human', 'player', 'recording'))"
