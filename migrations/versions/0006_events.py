"""Events: what happened to a task, for the application. Triggers write them, in the transaction in which it happens."""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_file(op.get_bind(), revision)
    for name, column, condition in (
        ("zego_events_task", "task_id", None),
        ("zego_events_unhandled", "id", "handled_at IS NULL"),
        ("zego_events_pending", "wake_at", "wake_at IS NOT NULL"),
        ("zego_events_undelivered", "id", "wake_at IS NULL AND delivered_at IS NULL AND attempts > 0"),
    ):
        where = None if condition is None else sa.text(condition)
        op.create_index(name, "zego_events", [column], sqlite_where=where, postgresql_where=where)
