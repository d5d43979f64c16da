"""The shared pace's SQL: one row for each AppId and kind of request says when the next free slot begins."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from watchdog.database import writing
from watchdog.tables import UtcTime, paces, utcnow

FARTHEST_SECONDS: Final = 60.0
"""Nobody reserves that far ahead: a slot beyond it is from before the database's clock was set back."""

CATCH_UP_SECONDS: Final = 0.02
"""How far behind the schedule may be made up for: nobody may have asked in time, for want of a moment to do so."""

_LENGTH = sa.bindparam("b_seconds", type_=sa.Float)
_FREE = sa.case(
    (paces.c.next_at > utcnow(FARTHEST_SECONDS), utcnow()),
    else_=sa.func.greatest(paces.c.next_at, utcnow(-CATCH_UP_SECONDS)),
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
    """PostgreSQL only. Raises DatabaseUnavailable where a later call may succeed, DatabaseError otherwise."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def reserve(self, app_id: int, kind: str, slots: int, interval_seconds: float) -> float:
        """Take the next ``slots`` free slots, one every ``interval_seconds``; return in how many seconds the first is.

        That may be a moment ago: see ``CATCH_UP_SECONDS``.
        Whoever asks at the same time waits for the row for as long as this transaction takes, and gets the next ones.
        """
        length = slots * interval_seconds
        with writing(self._engine) as connection:
            row = connection.execute(_RESERVE, {"b_app_id": app_id, "b_kind": kind, "b_seconds": length}).one()
        first: timedelta = row.next_at - timedelta(seconds=length) - row.now
        return first.total_seconds()
