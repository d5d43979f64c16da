"""What the page shows first: without reading whole tables, unlike ``situation``, so that many may look often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from watchdog.core.model import Outcome, Task
from watchdog.store import events
from watchdog.store.engine import reading
from watchdog.store.records import EventCounts
from watchdog.store.reports.health import DaemonRow, daemons_at
from watchdog.store.reports.history import recorded_since
from watchdog.store.reports.situation import IN_FLIGHT, Returns, Windows, blocked_apps, returns_at, windows_at
from watchdog.store.tables import ACTIVE, NOW, as_task, attempts, tasks

NEXT_LISTED: Final = 5

_NEXT = (
    sa.select(*tasks.c)
    .where(ACTIVE, tasks.c.wake_at.is_not(None), tasks.c.due_at.is_not(None))
    .order_by(tasks.c.wake_at)
    .limit(NEXT_LISTED)
)


@dataclass(frozen=True, slots=True)
class Glance:
    """The present, by a few looks into indexes; ``upcoming`` are the next tasks, next event first."""

    now: datetime
    daemons: Sequence[DaemonRow]
    upcoming: Sequence[Task]
    in_flight: int
    blocked_apps: Sequence[int]
    events: EventCounts


@dataclass(frozen=True, slots=True)
class Lately:
    """What the last day and week have brought; reads that part of the ledger. ``outcomes`` are of 24 hours."""

    outcomes: Mapping[Outcome, int]
    returns: Returns
    windows: Windows | None


def glance(engine: sa.Engine) -> Glance:
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        return Glance(
            now=now,
            daemons=daemons_at(connection, now),
            upcoming=[as_task(row) for row in connection.execute(_NEXT)],
            in_flight=connection.execute(IN_FLIGHT).scalar_one(),
            blocked_apps=blocked_apps(connection, now),
            events=events.count(connection),
        )


def lately(engine: sa.Engine) -> Lately:
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        day = recorded_since(connection, now - timedelta(days=1))
        counted = sa.select(attempts.c.outcome, sa.func.count()).where(day).group_by(attempts.c.outcome)
        found = {Outcome(outcome): number for outcome, number in connection.execute(counted)}
        return Lately(found, returns_at(connection), windows_at(connection, now))
