"""Several daemons on one database: a shared pace, and what each of them is doing.

And one exception to the rule that the ledger is append-only: a late answer completes an ``unknown`` without an answer.
"""

import sqlalchemy as sa
from alembic import op

from watchdog.store.schema import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_file(op.get_bind(), revision)
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
