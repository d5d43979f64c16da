"""The contract: tasks, the attempt ledger, the daemons, the triggers that give a hint its meaning, the history view.

The triggers and the view are plain SQL in the folder beside this file, one file per database: they are the part that
people read. A file's statements are separated by lines of ``--;``.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    statements = (Path(__file__).parent.parent / "sql" / f"0001_{dialect}.sql").read_text(encoding="utf-8")
    for statement in statements.split("\n--;\n"):
        # exec_driver_sql, not text(): a colon in the SQL is a colon.
        op.get_bind().exec_driver_sql(statement)
    for name, table, columns, condition in (
        (
            "zego_tasks_newly_empty",
            "zego_tasks",
            ["empty_since"],
            "status = 'active' AND empty_since IS NOT NULL AND wake_at IS NULL",
        ),
        ("zego_tasks_wake", "zego_tasks", ["wake_at"], "status = 'active' AND wake_at IS NOT NULL"),
        ("zego_tasks_room", "zego_tasks", ["room_id"], "status = 'active'"),
        ("zego_stop_attempts_task", "zego_stop_attempts", ["task_id", "id"], None),
        ("zego_stop_attempts_in_flight", "zego_stop_attempts", ["sent_at"], "outcome = 'sent'"),
    ):
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
