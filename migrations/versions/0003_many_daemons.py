"""Many daemons on one database: a pace that they share strictly, and what each of them is doing.

And one exception to the ledger's rule: an ``unknown`` without an answer is completed when its answer turns up.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    statements = (Path(__file__).parent.parent / "sql" / f"0003_{dialect}.sql").read_text(encoding="utf-8")
    for statement in statements.split("\n--;\n"):
        op.get_bind().exec_driver_sql(statement)
    moment = sa.Text() if op.get_bind().dialect.name == "sqlite" else sa.TIMESTAMP(timezone=True)
    op.create_table(
        "zego_pace",
        sa.Column("app_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("next_at", moment, nullable=False),
    )
    for column in (
        sa.Column("in_flight", sa.Integer),
        sa.Column("requests", sa.BigInteger),
        sa.Column("guard_tripped_at", moment),
        sa.Column("guard_held", sa.Integer),
        sa.Column("guard_released_until", moment),
    ):
        op.add_column("zego_daemons", column)
