"""What applications do to rows: stale and whole-row writes, REPLACE, ids that were numbers, limits that cannot work."""

from alembic import op

from watchdog.store.schema import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_file(op.get_bind(), revision)
