"""Alembic's environment: runs on the connection that ``zego-watchdog migrate`` hands over.

Only ``watchdog.schema`` starts it. There is no alembic.ini: the database is named in the product's own configuration.
"""

from alembic import context

from watchdog.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
