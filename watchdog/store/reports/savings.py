"""What the stops of the last 24 hours were worth; ``zego_savings`` has the same by day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from watchdog.core.model import Outcome, Reason
from watchdog.core.savings import STOPS
from watchdog.store.reports.history import recorded_since
from watchdog.store.tables import attempts, seconds_between

_ENDS: Final = (*STOPS, Outcome.AUTO_STOPPED)


@dataclass(frozen=True, slots=True)
class Savings:
    """Our stops but for an operator's orders; ``slot_seconds_freed`` is the time between them and ZEGO's auto-stop.

    ``no_auto_stop`` stops have nothing to compare with: ZEGO never ends a task whose room has bots only.
    """

    stops: int
    slot_seconds_freed: float
    no_auto_stop: int

    @property
    def seconds_before_auto_stop(self) -> float | None:
        """The mean; None if there was nothing to compare with."""
        compared = self.stops - self.no_auto_stop
        return self.slot_seconds_freed / compared if compared else None


def savings(connection: sa.Connection, now: datetime) -> Savings:
    """Read the attempts of the last 24 hours."""
    earlier = attempts.alias("earlier")
    is_first = ~sa.exists(
        sa.select(earlier.c.id).where(
            earlier.c.task_id == attempts.c.task_id, earlier.c.id < attempts.c.id, earlier.c.outcome.in_(_ENDS)
        )
    )
    left = seconds_between(attempts.c.replied_at, attempts.c.auto_stop_at)
    freed = sa.case((attempts.c.reason == Reason.BOTS_ONLY, sa.null()), (left < 0, 0.0), else_=left)
    row = connection.execute(
        sa.select(
            sa.func.count().label("stops"), sa.func.sum(freed).label("freed"), sa.func.count(freed).label("compared")
        ).where(
            recorded_since(connection, now - timedelta(days=1)),
            attempts.c.outcome.in_(STOPS),
            attempts.c.reason != Reason.MANUAL,
            is_first,
        )
    ).one()
    return Savings(row.stops, round(float(row.freed or 0.0), 3), row.stops - row.compared)
