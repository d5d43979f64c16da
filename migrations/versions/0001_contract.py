"""The contract: tasks, the attempt ledger, the daemons, the triggers that interpret hints, the history view.

The triggers and the view are plain SQL in ``migrations/sql``, one file for each database, because people read them.
"""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_file(op.get_bind(), revision)
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
