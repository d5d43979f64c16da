"""Events as commands read them."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from watchdog.store import events as outbox
from watchdog.store.engine import reading
from watchdog.store.records import EventCounts
from watchdog.store.reports.history import Row, as_row
from watchdog.store.tables import NOW, event_types, events


def find_events(
    engine: sa.Engine, *, limit: int, undelivered: bool = False, task_id: str | None = None
) -> tuple[datetime, Sequence[Row]]:
    """Return the database's time and at most ``limit`` events, newest first."""
    chosen = sa.select(*events.c).order_by(events.c.id.desc()).limit(limit)
    if undelivered:
        chosen = chosen.where(outbox.IS_UNDELIVERED)
    if task_id is not None:
        chosen = chosen.where(events.c.task_id == task_id)
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        return now, [as_row(row) for row in connection.execute(chosen)]


def count_events(engine: sa.Engine) -> EventCounts:
    """Count the events that the webhook has not delivered."""
    with reading(engine) as connection:
        return outbox.count(connection)


def chosen_types(engine: sa.Engine) -> Mapping[str, bool]:
    """Return the types that are written, and whether the webhook delivers them."""
    with reading(engine) as connection:
        rows = connection.execute(sa.select(event_types.c.type, event_types.c.webhook)).all()
    return {row.type: row.webhook for row in rows}
