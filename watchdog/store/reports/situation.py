"""What ``status`` shows: counts, the next task, and what the last stops and ZEGO's own stops teach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

import sqlalchemy as sa

from watchdog.core.kinds import DEFAULT_KIND
from watchdog.core.model import Outcome, Status
from watchdog.store import events
from watchdog.store.engine import reading
from watchdog.store.records import DETAIL_ROOM_REFUSED, EventCounts
from watchdog.store.reports.health import DaemonRow, daemons_at
from watchdog.store.reports.history import recorded_since
from watchdog.store.reports.savings import Savings, savings
from watchdog.store.tables import ACTIVE, NOW, UtcTime, attempts, rejoins, tasks, utcnow

BLOCKED_SECONDS: Final = 300.0
"""An AppId counts as blocked if its latest request is younger and was refused because of the AppId."""

IDLE_CODE: Final = "1202"
"""The code of ZEGO's callback after it ended the task of an empty room."""

WINDOW_DAYS: Final = 7

REFUSED_LISTED: Final = 100

SHORT_LISTED: Final = 5

OLD_LISTED: Final = 5

WINDOWS_LOOKED_AT: Final = 10_000

SHORTEST_WINDOW_SECONDS: Final = 30
"""ZEGO's least MaxIdleTime. Older schemas let shorter ones in; the constraint refuses only new ones."""

FASTER_SECONDS: Final = 5.0

_COUNT = sa.select(
    *(sa.func.count().filter(tasks.c.status == status).label(status.value) for status in Status),
    sa.func.count().filter(ACTIVE, tasks.c.user_count > 0).label("occupied"),
    sa.func.count().filter(ACTIVE, tasks.c.user_count == 0).label("empty"),
    sa.func.count().filter(ACTIVE, tasks.c.user_count.is_(None)).label("unknown"),
    sa.func.min(tasks.c.empty_since, type_=UtcTime).filter(ACTIVE).label("longest_empty_since"),
    sa.func.min(tasks.c.user_count_at, type_=UtcTime)
    .filter(ACTIVE, tasks.c.user_count.is_not(None))
    .label("oldest_evidence_at"),
)
_RETURNS = sa.select(sa.func.count().label("watched"), sa.func.count(rejoins.c.rejoined_at).label("returned")).where(
    rejoins.c.stopped_at >= utcnow(-86_400)
)
_NEXT = (
    sa.select(tasks.c.task_id, tasks.c.due_at)
    .where(ACTIVE, tasks.c.wake_at.is_not(None), tasks.c.due_at.is_not(None))
    .order_by(tasks.c.wake_at)
    .limit(1)
)
IN_FLIGHT = sa.select(sa.func.count()).where(attempts.c.outcome == sa.literal_column("'sent'"))


@dataclass(frozen=True, slots=True)
class Returns:
    """The stops of the last 24 hours whose rooms were watched, and to how many of these rooms people returned."""

    watched: int
    returned: int


@dataclass(frozen=True, slots=True)
class Windows:
    """How long rooms were empty before ZEGO ended their tasks (code 1202), as we measured it, in seconds.

    Emptiness is noticed late rather than early, so the real window is at least as long. ``early`` is the median of the
    expected minus the actual time of these stops; positive if ZEGO is faster than configured.
    """

    count: int
    minimum: float
    median: float
    early: float

    @property
    def is_faster_than_configured(self) -> bool:
        """Whether the difference is more than clocks and delays explain."""
        return self.early > FASTER_SECONDS


@dataclass(frozen=True, slots=True)
class Situation:
    """What ``status`` shows; ``latest`` counts the attempts of the last 24 hours by outcome."""

    now: datetime
    daemons: Sequence[DaemonRow]
    by_status: Mapping[Status, int]
    occupied: int
    empty: int
    unknown: int
    oldest_evidence_at: datetime | None
    longest_empty_since: datetime | None
    next_task_id: str | None
    next_due_at: datetime | None
    latest: Mapping[Outcome, int]
    in_flight: int
    blocked_apps: Sequence[int]
    savings: Savings
    returns: Returns
    windows: Windows | None
    events: EventCounts
    too_old: int | None
    """Active tasks older than the limit; None without one."""


def situation(engine: sa.Engine, max_age_seconds: float = 0.0) -> Situation:
    """Read ``zego_tasks`` once (1 s for a million tasks) and the last day of the ledger.

    Counts the active tasks that are older than ``max_age_seconds``; 0 is no limit.
    """
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        too_old = sa.func.count().filter(ACTIVE, tasks.c.started_at <= utcnow(-max_age_seconds)).label("too_old")
        counted = connection.execute(_COUNT.add_columns(too_old)).one()
        upcoming = connection.execute(_NEXT).one_or_none()
        day = recorded_since(connection, now - timedelta(days=1))
        outcomes = connection.execute(
            sa.select(attempts.c.outcome, sa.func.count()).where(day).group_by(attempts.c.outcome)
        ).all()
        return Situation(
            now=now,
            daemons=daemons_at(connection, now),
            by_status={status: getattr(counted, status.value) for status in Status},
            occupied=counted.occupied,
            empty=counted.empty,
            unknown=counted.unknown,
            oldest_evidence_at=counted.oldest_evidence_at,
            longest_empty_since=counted.longest_empty_since,
            next_task_id=None if upcoming is None else upcoming.task_id,
            next_due_at=None if upcoming is None else upcoming.due_at,
            latest={Outcome(outcome): number for outcome, number in sorted(outcomes, key=lambda row: -row[1])},
            in_flight=connection.execute(IN_FLIGHT).scalar_one(),
            blocked_apps=blocked_apps(connection, now),
            savings=savings(connection, now),
            returns=returns_at(connection),
            windows=windows_at(connection, now),
            events=events.count(connection),
            too_old=counted.too_old if max_age_seconds > 0 else None,
        )


def learned(engine: sa.Engine) -> tuple[Returns, Windows | None]:
    """Return the results of our stops and of ZEGO's own stops; see Situation."""
    with reading(engine) as connection:
        return returns_at(connection), windows_at(connection, connection.execute(NOW).scalar_one())


def refused_rooms(engine: sa.Engine) -> Sequence[str]:
    """Return at most ``REFUSED_LISTED`` RoomIds that ZEGO has refused within the last day."""
    with reading(engine) as connection:
        day = recorded_since(connection, connection.execute(NOW).scalar_one() - timedelta(days=1))
        refused = sa.select(attempts.c.room_id).where(
            day, attempts.c.outcome == Outcome.WITHHELD, attempts.c.detail == DETAIL_ROOM_REFUSED
        )
        return connection.execute(refused.distinct().order_by(attempts.c.room_id).limit(REFUSED_LISTED)).scalars().all()


def short_windows(engine: sa.Engine) -> tuple[int, Sequence[str]]:
    """Return how many active tasks have a ``max_idle_seconds`` that ZEGO does not have, and the first TaskIds.

    Reads all active tasks.
    """
    is_short = sa.and_(ACTIVE, tasks.c.kind == DEFAULT_KIND, tasks.c.max_idle_seconds < SHORTEST_WINDOW_SECONDS)
    with reading(engine) as connection:
        first = connection.execute(
            sa.select(tasks.c.task_id, sa.func.count().over().label("number"))
            .where(is_short)
            .order_by(tasks.c.task_id)
            .limit(SHORT_LISTED)
        ).all()
    return first[0].number if first else 0, [row.task_id for row in first]


def old_tasks(engine: sa.Engine, max_age_seconds: float) -> tuple[int, list[str]]:
    """Return how many active tasks are older than ``max_age_seconds``, and the TaskIds of the oldest.

    Reads all active tasks.
    """
    with reading(engine) as connection:
        first = connection.execute(
            sa.select(tasks.c.task_id, sa.func.count().over().label("number"))
            .where(ACTIVE, tasks.c.started_at <= utcnow(-max_age_seconds))
            .order_by(tasks.c.started_at, tasks.c.task_id)
            .limit(OLD_LISTED)
        ).all()
    return first[0].number if first else 0, [row.task_id for row in first]


def returns_at(connection: sa.Connection) -> Returns:
    row = connection.execute(_RETURNS).one()
    return Returns(row.watched, row.returned)


def windows_at(connection: sa.Connection, now: datetime) -> Windows | None:
    rows = connection.execute(
        sa.select(attempts.c.evidence_at, attempts.c.empty_since, attempts.c.auto_stop_at)
        .where(
            recorded_since(connection, now - timedelta(days=WINDOW_DAYS)),
            attempts.c.code == IDLE_CODE,
            attempts.c.empty_since.is_not(None),
            attempts.c.evidence_at >= attempts.c.empty_since,
        )
        .limit(WINDOWS_LOOKED_AT)
    ).all()
    if not rows:
        return None
    lengths = [(row.evidence_at - row.empty_since).total_seconds() for row in rows]
    early = [(row.auto_stop_at - row.evidence_at).total_seconds() for row in rows if row.auto_stop_at is not None]
    return Windows(len(lengths), min(lengths), median(lengths), median(early) if early else 0.0)


def blocked_apps(connection: sa.Connection, now: datetime) -> list[int]:
    """Return the AppIds that an API refuses: its latest request was refused because of the AppId."""
    recent = recorded_since(connection, now - timedelta(seconds=BLOCKED_SECONDS))
    last_ids = sa.select(sa.func.max(attempts.c.id)).where(recent, attempts.c.attempt.is_not(None))
    last = (
        sa.select(attempts.c.app_id)
        .distinct()
        .where(
            attempts.c.id.in_(last_ids.group_by(attempts.c.app_id, attempts.c.kind)),
            attempts.c.outcome == Outcome.BLOCKED,
            attempts.c.app_id.is_not(None),
        )
    )
    return sorted(connection.execute(last).scalars())
