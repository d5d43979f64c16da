"""Empty spells: how long a room was empty and how that ended. And what stops have saved, by day."""

from alembic import op

from watchdog.store.schema import run_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_file(op.get_bind(), revision)
    op.create_index("zego_empty_spells_task", "zego_empty_spells", ["task_id", "empty_since"], unique=True)
