"""The rights that the daemon's role needs on PostgreSQL, and those that it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from watchdog.store.contract import VIEWS
from watchdog.store.engine import reading
from watchdog.store.tables import VERSION_TABLE, metadata

_ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

NEEDED: Final[Mapping[str, Sequence[str]]] = {
    VERSION_TABLE: ("SELECT",),
    **dict.fromkeys(VIEWS, ("SELECT",)),
    **{table.name: _ROWS for table in metadata.sorted_tables},
}
"""The rights that the daemon needs; docs/roles.sql grants them."""


@dataclass(frozen=True, slots=True)
class Privileges:
    """The role of this connection; ``missing`` rights are written as in ``GRANT``: 'DELETE ON zego_tasks'."""

    role: str
    is_superuser: bool
    missing: tuple[str, ...]


def privileges(engine: sa.Engine) -> Privileges | None:
    """Return None on SQLite, which has no roles. Raises DatabaseError."""
    if engine.dialect.name != "postgresql":
        return None
    with reading(engine) as connection:
        who = connection.execute(_WHO).one()
        missing = [
            f"{', '.join(lacking)} ON {table}"
            for table, needed in NEEDED.items()
            if (
                lacking := [
                    right for right in needed if not connection.execute(_MAY, {"table": table, "right": right}).scalar()
                ]
            )
        ]
    return Privileges(who.role, who.is_superuser, tuple(missing))


_WHO = sa.text("SELECT current_user AS role, rolsuper AS is_superuser FROM pg_roles WHERE rolname = current_user")
_MAY = sa.text("SELECT has_table_privilege(to_regclass(:table), :right)")
