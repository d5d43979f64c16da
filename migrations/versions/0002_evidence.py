"""More evidence: who is in which room according to callbacks, when we asked last, who returned after a stop."""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_file(op.get_bind(), revision)
    for name, table, columns, condition in (
        ("zego_tasks_asked", "zego_tasks", ["asked_at"], "status = 'active'"),
        ("zego_rejoins_watched", "zego_rejoins", ["watch_until"], "rejoined_at IS NULL"),
        ("zego_rejoins_asked", "zego_rejoins", ["asked_at"], "rejoined_at IS NULL"),
        ("zego_rejoins_room", "zego_rejoins", ["room_id"], "rejoined_at IS NULL"),
        ("zego_callbacks_seen_at", "zego_callbacks_seen", ["seen_at"], None),
        ("zego_room_sessions_seen_at", "zego_room_sessions", ["seen_at"], None),
    ):
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
