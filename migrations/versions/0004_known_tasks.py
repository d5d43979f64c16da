"""Tasks that callbacks discover: not those that the application deleted, and its own INSERT takes them over.

``zego_deleted_tasks`` comes before the statements that use it.
"""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    moment = sa.Text() if op.get_bind().dialect.name == "sqlite" else sa.TIMESTAMP(timezone=True)
    op.create_table(
        "zego_deleted_tasks",
        sa.Column("task_id", sa.Text, primary_key=True),
        sa.Column("deleted_at", moment, nullable=False),
    )
    op.create_index("zego_deleted_tasks_at", "zego_deleted_tasks", ["deleted_at"])
    run_file(op.get_bind(), revision)
