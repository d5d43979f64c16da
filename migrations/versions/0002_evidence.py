"""More evidence: who is in which room by callbacks, when we asked last, and who came back after a stop."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    statements = (Path(__file__).parent.parent / "sql" / f"0002_{dialect}.sql").read_text(encoding="utf-8")
    for statement in statements.split("\n--;\n"):
        op.get_bind().exec_driver_sql(statement)
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
