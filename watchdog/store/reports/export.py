"""The whole history, page by page: constant memory, and no transaction stays open while a reader is slow.

During a long read SQLite's WAL would grow and PostgreSQL could not vacuum, so each page is a transaction of its own.
Pages follow the ledger's ids; rows that are recorded after the beginning belong to the next export.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from watchdog.store.engine import reading
from watchdog.store.reports.history import HISTORY, Row, as_row, first_recorded
from watchdog.store.tables import NOW, attempts

PAGE: Final = 500

LEDGER_COLUMNS: Final = tuple(attempts.c.keys())
HISTORY_COLUMNS: Final = tuple(HISTORY.c.keys())

_OUT_OF_ORDER: Final = 10_000
"""How many rows may be out of order: a row gets its id before it is committed."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Ids above ``after`` up to ``last``, times from ``since`` to ``until``; ``newest`` is the ledger's last id."""

    after: int
    last: int
    newest: int
    since: datetime | None
    until: datetime | None

    @property
    def wanted(self) -> sa.ColumnElement[bool]:
        conditions = [attempts.c.id <= self.last]
        if self.since is not None:
            conditions.append(attempts.c.recorded_at >= self.since)
        if self.until is not None:
            conditions.append(attempts.c.recorded_at < self.until)
        return sa.and_(*conditions)


Moment = datetime | timedelta | None
"""A time, or a duration before now."""


def ledger(engine: sa.Engine, since: Moment, until: Moment) -> Iterator[Sequence[Row]]:
    """Yield pages of all attempts recorded from ``since`` on and before ``until``, by id. Raises DatabaseError."""
    stretch = _stretch(engine, since, until)
    after = stretch.after
    while True:
        page = sa.select(attempts).where(attempts.c.id > after, stretch.wanted).order_by(attempts.c.id).limit(PAGE)
        with reading(engine) as connection:
            rows = [as_row(row) for row in connection.execute(page)]
        if not rows:
            return
        yield rows
        after = rows[-1]["id"]


def history(engine: sa.Engine, since: Moment, until: Moment) -> Iterator[Sequence[Row]]:
    """Yield pages of the rows of ``zego_stop_history`` whose last attempt was in that time. Raises DatabaseError."""
    stretch = _stretch(engine, since, until)
    later = attempts.alias("later")
    # Compared with the attempts at the beginning: a task that gets another attempt meanwhile appears exactly once.
    is_last = ~sa.exists(
        sa.select(later.c.id).where(
            later.c.task_id == attempts.c.task_id, later.c.id > attempts.c.id, later.c.id <= stretch.newest
        )
    )
    after = stretch.after
    while True:
        page = (
            sa.select(attempts.c.id, attempts.c.task_id)
            .where(attempts.c.id > after, stretch.wanted, is_last)
            .order_by(attempts.c.id)
            .limit(PAGE)
        )
        with reading(engine) as connection:
            last = connection.execute(page).all()
            if not last:
                return
            task_ids = [row.task_id for row in last]
            found = connection.execute(sa.select(*HISTORY.c).where(HISTORY.c.task_id.in_(task_ids)))
            rows = {row.task_id: as_row(row) for row in found}
        # A task that was just pruned is no longer in the view.
        yield [rows[task_id] for task_id in task_ids if task_id in rows]
        after = last[-1].id


def _stretch(engine: sa.Engine, since: Moment, until: Moment) -> _Stretch:
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        begin, end = (now - moment if isinstance(moment, timedelta) else moment for moment in (since, until))
        newest = connection.execute(sa.select(sa.func.max(attempts.c.id))).scalar_one() or 0
        first = 0 if begin is None else first_recorded(connection, begin)
        last = newest if end is None else min(newest, first_recorded(connection, end) + _OUT_OF_ORDER)
    return _Stretch(first - 1, last, newest, begin, end)
