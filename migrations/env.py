"""Alembic's environment: uses the connection that ``zego-watchdog migrate`` passes.

Only ``watchdog.store.schema`` runs it. There is no alembic.ini: the product's configuration names the database.
"""

from alembic import context

from watchdog.store.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
