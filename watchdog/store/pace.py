"""The SQL of the shared pace: one row for each AppId and kind of request has the time of the next free slot."""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from watchdog.store.engine import writing
from watchdog.store.tables import UtcTime, paces, utcnow

FARTHEST_SECONDS: Final = 60.0
"""No daemon reserves further ahead: a later slot is from before the database's clock was set back."""

_LENGTH = sa.bindparam("b_seconds", type_=sa.Float)
_EARLIEST = sa.bindparam("b_earliest", type_=sa.Float)
_FREE = sa.case(
    (paces.c.next_at > utcnow(FARTHEST_SECONDS), utcnow()),
    else_=sa.func.greatest(paces.c.next_at, utcnow(_EARLIEST)),
)
_RESERVE = (
    postgresql.insert(paces)
    .values(app_id=sa.bindparam("b_app_id"), kind=sa.bindparam("b_kind"), next_at=utcnow(_LENGTH))
    .on_conflict_do_update(
        index_elements=[paces.c.app_id, paces.c.kind],
        set_={"next_at": sa.cast(_FREE, UtcTime) + sa.func.make_interval(0, 0, 0, 0, 0, 0, _LENGTH)},
    )
    .returning(paces.c.next_at, utcnow().label("now"))
)


class PaceStore:
    """PostgreSQL only."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def reserve(self, app_id: int, kind: str, seconds: float, catch_up_seconds: float) -> tuple[datetime, datetime]:
        """Reserve the next free ``seconds`` of the schedule; return their beginning, and the database's time.

        If the schedule is not ahead of the present, they begin up to ``catch_up_seconds`` ago. Concurrent calls are
        serialised by the row's lock and get the following seconds.
        """
        values = {"b_app_id": app_id, "b_kind": kind, "b_seconds": seconds, "b_earliest": -catch_up_seconds}
        with writing(self._engine) as connection:
            row = connection.execute(_RESERVE, values).one()
        return row.next_at - timedelta(seconds=seconds), row.now
