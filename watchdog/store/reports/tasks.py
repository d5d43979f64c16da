"""All SQL behind the commands that people type: tasks, attempts, daemons, and what they change, a hold and the guard.

The ledger has no index by time, and needs none: its ids grow with its times, so the beginning of a stretch of time is
found by bisecting the ids.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.model import Outcome, Status, Task
from watchdog.store import statements as sql
from watchdog.store.engine import reading, writing
from watchdog.store.tables import UtcTime, attempts, daemons, rejoins, tasks, utcnow
from watchdog.store.tasks import as_task

Row = Mapping[str, Any]
"""A row by its columns' names, in the table's order."""

BLOCKED_SECONDS: Final = 300.0
"""An AppId whose latest request was refused as a whole, and not longer ago than this, counts as blocked."""

HINTS_LOOKED_AT: Final = 10_000

IDLE_CODE: Final = "1202"
"""What ZEGO's callback says when it has ended a task of an empty room."""

WINDOW_DAYS: Final = 7
WINDOWS_LOOKED_AT: Final = 10_000

FASTER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listing:
    """Some tasks at one moment of the database's clock; ``more`` says that there are others."""

    now: datetime
    tasks: Sequence[Task]
    more: bool


@dataclass(frozen=True, slots=True)
class DaemonRow:
    """One row of ``zego_daemons``, and whether it stands for a daemon that is alive."""

    instance: str
    host: str
    pid: int
    version: str
    mode: str
    started_at: datetime
    watching_since: datetime
    seen_at: datetime
    in_flight: int | None
    requests: int | None
    guard_tripped_at: datetime | None
    guard_held: int | None
    guard_released_until: datetime | None
    alive: bool

    @property
    def has_tripped(self) -> bool:
        """Whether its guard holds back what rests on hints alone."""
        return self.alive and self.guard_tripped_at is not None


@dataclass(frozen=True, slots=True)
class Biography:
    """One task's row, None where it has been deleted, and every attempt on it, the first one first."""

    now: datetime
    task: Task | None
    attempts: Sequence[Row]
    watching_since: datetime
    daemon_alive: bool
    guard_tripped: bool


@dataclass(frozen=True, slots=True)
class Returns:
    """Stops of the last 24 hours whose rooms were watched, and to how many of these rooms people came back."""

    watched: int
    returned: int


@dataclass(frozen=True, slots=True)
class Windows:
    """How long ZEGO left empty rooms alone before it ended their tasks (code 1202), as we measured it, in seconds.

    We learn of emptiness late rather than early, so the real window is no shorter than these. ``early`` is the median
    of how long before the expected moment ZEGO did it; positive says that it is faster than configured.
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
    """Everything that ``status`` shows; ``latest`` counts the attempts of the last 24 hours by outcome."""

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
    returns: Returns
    windows: Windows | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What ``check`` wants to know of a database; ``journal_mode`` is SQLite's only."""

    now: datetime
    server: str
    writable: bool
    journal_mode: str | None
    triggers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Hints:
    """How the application keeps the hints of (at most ``HINTS_LOOKED_AT``) active tasks."""

    now: datetime
    active: int
    with_hint: int
    newest_at: datetime | None


def find_tasks(
    engine: sa.Engine,
    *,
    limit: int,
    status: Status | None = Status.ACTIVE,
    room_id: str | None = None,
    due: bool = False,
) -> Listing:
    """At most ``limit`` tasks, those first that the daemon looks at next.

    Active ones in the order of ``wake_at``, then those that are empty without a plan, then the others; ended ones after
    them, the latest first. ``status`` None is all of them, ``due`` only those that are due now or overdue.
    """
    wanted = limit + 1
    found: list[Task] = []
    with reading(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        for statement in _in_order(status, due=due):
            chosen = statement if room_id is None else statement.where(tasks.c.room_id == room_id)
            # One index each, so that no statement sorts a million rows to show fifty.
            found += map(as_task, connection.execute(chosen.limit(wanted - len(found))))
            if len(found) >= wanted:
                break
    return Listing(now, found[:limit], more=len(found) > limit)


def _in_order(status: Status | None, *, due: bool) -> list[sa.Select[Any]]:
    everything = sa.select(*tasks.c)
    awake = everything.where(sql.ACTIVE, tasks.c.wake_at.is_not(None)).order_by(tasks.c.wake_at)
    asleep = everything.where(sql.ACTIVE, tasks.c.wake_at.is_(None))
    if due:
        return [awake.where(tasks.c.due_at <= utcnow())]
    active = [
        awake,
        asleep.where(tasks.c.empty_since.is_not(None)).order_by(tasks.c.empty_since),
        asleep.where(tasks.c.empty_since.is_(None)).order_by(tasks.c.room_id),
    ]
    ended = everything.order_by(tasks.c.ended_at.desc())
    match status:
        case None:
            return [*active, ended.where(sa.not_(sql.ACTIVE))]
        case Status.ACTIVE:
            return active
        case _:
            return [ended.where(tasks.c.status == status)]


def biography(engine: sa.Engine, task_id: str) -> Biography | None:
    """One task with all its attempts; None for a TaskId that neither table knows."""
    with reading(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        row = connection.execute(sa.select(*tasks.c).where(tasks.c.task_id == task_id)).one_or_none()
        tried = connection.execute(sa.select(attempts).where(attempts.c.task_id == task_id).order_by(attempts.c.id))
        ledger = [as_row(attempt) for attempt in tried]
        alive = [daemon for daemon in _daemons(connection, now) if daemon.alive]
    if row is None and not ledger:
        return None
    since = alive[0].watching_since if alive else now
    tripped = any(daemon.has_tripped for daemon in alive)
    return Biography(now, None if row is None else as_task(row), ledger, since, bool(alive), tripped)


def similar(engine: sa.Engine, text: str, limit: int = 3) -> tuple[list[str], bool]:
    """TaskIds that may have been meant by ``text``, and whether they are the ones of the room of that name."""
    with reading(engine) as connection:
        of_room = sa.select(tasks.c.task_id).where(tasks.c.room_id == text, sql.ACTIVE).limit(limit)
        if rooms := connection.execute(of_room).scalars().all():
            return list(rooms), True
        for length in (len(text), len(text) - 2, len(text) // 2):
            begins = tasks.c.task_id.startswith(text[:length], autoescape=True)
            alike = sa.select(tasks.c.task_id).where(begins).limit(limit)
            if length >= 4 and (near := connection.execute(alike).scalars().all()):
                return list(near), False
    return [], False


def history(
    engine: sa.Engine,
    *,
    limit: int,
    outcome: Outcome | None = None,
    task_id: str | None = None,
    room_id: str | None = None,
    since: datetime | timedelta | None = None,
) -> tuple[datetime, list[Row]]:
    """Rows of ``zego_stop_history``, the newest first; ``since`` a moment, or so long before now.

    The view knows no order. The newest are found in the ledger, and the view asked about these alone.
    """
    later = attempts.alias("later")
    latest = sa.select(attempts.c.id, attempts.c.task_id).where(
        ~sa.exists(sa.select(later.c.id).where(later.c.task_id == attempts.c.task_id, later.c.id > attempts.c.id))
    )
    for column, value in ((attempts.c.outcome, outcome), (attempts.c.task_id, task_id), (attempts.c.room_id, room_id)):
        if value is not None:
            latest = latest.where(column == value)
    with reading(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        if since is not None:
            latest = latest.where(_from(connection, since if isinstance(since, datetime) else now - since))
        newest = latest.order_by(attempts.c.id.desc()).limit(limit).subquery()
        statement = (
            sa.select(*HISTORY.c)
            .join_from(newest, HISTORY, HISTORY.c.task_id == newest.c.task_id)
            .order_by(newest.c.id.desc())
        )
        return now, [as_row(row) for row in connection.execute(statement)]


def situation(engine: sa.Engine) -> Situation:
    """Read through ``zego_tasks`` once (a second for a million tasks) and through the ledger's last day."""
    with reading(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        counted = connection.execute(_COUNT).one()
        upcoming = connection.execute(_NEXT).one_or_none()
        day = _from(connection, now - timedelta(days=1))
        outcomes = connection.execute(
            sa.select(attempts.c.outcome, sa.func.count()).where(day).group_by(attempts.c.outcome)
        ).all()
        return Situation(
            now=now,
            daemons=_daemons(connection, now),
            by_status={status: getattr(counted, status.value) for status in Status},
            occupied=counted.occupied,
            empty=counted.empty,
            unknown=counted.unknown,
            oldest_evidence_at=counted.oldest_evidence_at,
            longest_empty_since=counted.longest_empty_since,
            next_task_id=None if upcoming is None else upcoming.task_id,
            next_due_at=None if upcoming is None else upcoming.due_at,
            latest={Outcome(outcome): number for outcome, number in sorted(outcomes, key=lambda row: -row[1])},
            in_flight=connection.execute(_IN_FLIGHT).scalar_one(),
            blocked_apps=_blocked(connection, now),
            returns=_returns(connection),
            windows=_windows(connection, now),
        )


def learned(engine: sa.Engine) -> tuple[Returns, Windows | None]:
    """What became of our stops, and what ZEGO's own ones teach; see Situation."""
    with reading(engine) as connection:
        return _returns(connection), _windows(connection, connection.execute(_NOW).scalar_one())


def hold(
    engine: sa.Engine, task_id: str, *, seconds: float | None = None, until: datetime | None = None
) -> tuple[datetime, Task] | None:
    """Hold an active task for so many seconds of the database's clock, or until then, or, without either, no longer.

    The row has no plan afterwards: the daemon makes a new one. None when the task is not there or has ended.
    """
    end: Any = until if seconds is None else utcnow(seconds)
    with writing(engine) as connection:
        changed = connection.execute(
            sa.update(tasks).where(tasks.c.task_id == task_id, sql.ACTIVE).values(hold_until=end)
        ).rowcount
        row = connection.execute(sa.select(*tasks.c, utcnow().label("now")).where(tasks.c.task_id == task_id)).first()
    return None if row is None or not changed else (row.now, as_task(row[:-1]))


def all_daemons(engine: sa.Engine) -> tuple[datetime, Sequence[DaemonRow]]:
    """The daemons of the last days, the one seen last first."""
    with reading(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        return now, _daemons(connection, now)


def release_guard(engine: sa.Engine, seconds: float) -> int:
    """Tell every daemon that is alive to let everything pass for so long; returns how many there are."""
    with writing(engine) as connection:
        release = sa.update(daemons).where(sql.IS_ALIVE).values(guard_released_until=utcnow(seconds))
        return connection.execute(release).rowcount


def vitals(engine: sa.Engine) -> Vitals:
    """Whether the database can be written to, in what mode it is, and which triggers it has."""
    postgresql = engine.dialect.name == "postgresql"
    # On SQLite this takes the write lock, which a file that is read-only refuses.
    with writing(engine) as connection:
        now = connection.execute(_NOW).scalar_one()
        if postgresql:
            names = connection.exec_driver_sql(
                "SELECT t.tgname FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgrelid IN"
                " (to_regclass('zego_tasks'), to_regclass('zego_stop_attempts'))"
            )
            read_only = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
            server = connection.exec_driver_sql("SHOW server_version").scalar_one()
            return Vitals(now, f"PostgreSQL {server}", read_only == "off", None, frozenset(names.scalars()))
        names = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('zego_tasks', 'zego_stop_attempts')"
        )
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return Vitals(now, f"SQLite {version}", True, str(mode), frozenset(names.scalars()))


def hints(engine: sa.Engine) -> Hints:
    """How many of the active tasks have a hint, and how old the newest one is."""
    some = sa.select(tasks.c.user_count, tasks.c.user_count_at).where(sql.ACTIVE).limit(HINTS_LOOKED_AT).subquery()
    with reading(engine) as connection:
        row = connection.execute(
            sa.select(
                utcnow().label("now"),
                sa.func.count().label("active"),
                sa.func.count(some.c.user_count).label("with_hint"),
                sa.func.max(some.c.user_count_at, type_=UtcTime).label("newest_at"),
            ).select_from(some)
        ).one()
    return Hints(row.now, row.active, row.with_hint, row.newest_at)


def _returns(connection: sa.Connection) -> Returns:
    row = connection.execute(_RETURNS).one()
    return Returns(row.watched, row.returned)


def _windows(connection: sa.Connection, now: datetime) -> Windows | None:
    rows = connection.execute(
        sa.select(attempts.c.evidence_at, attempts.c.empty_since, attempts.c.auto_stop_at)
        .where(
            _from(connection, now - timedelta(days=WINDOW_DAYS)),
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


def as_row(row: sa.Row[Any]) -> Row:
    """A row by its columns' names."""
    return dict(row._mapping)  # noqa: SLF001  # the public name of it, says SQLAlchemy: _ keeps columns' names free


def _daemons(connection: sa.Connection, now: datetime) -> list[DaemonRow]:
    alive_since = now - timedelta(seconds=sql.ALIVE_SECONDS)
    return [
        DaemonRow(**as_row(row), alive=row.seen_at >= alive_since and row.mode != sql.ENDED)
        for row in connection.execute(sa.select(*daemons.c).order_by(daemons.c.seen_at.desc()))
    ]


def _from(connection: sa.Connection, moment: datetime) -> sa.ColumnElement[bool]:
    """The attempts recorded at ``moment`` or later."""
    return sa.and_(attempts.c.id >= first_recorded(connection, moment), attempts.c.recorded_at >= moment)


def first_recorded(connection: sa.Connection, moment: datetime) -> int:
    """The id of the first attempt recorded at ``moment`` or later; the last one's if all are older, 0 if none is."""
    # Two subqueries: asked for both ends at once, SQLite reads the whole table.
    ends = (sa.select(end(attempts.c.id)).scalar_subquery() for end in (sa.func.min, sa.func.max))
    least, most = connection.execute(sa.select(*ends)).one()
    if least is None:
        return 0
    return _bisect(least, most, lambda middle: _is_before(connection, middle, moment))


def _is_before(connection: sa.Connection, attempt_id: int, moment: datetime) -> bool:
    row = sa.select(attempts.c.recorded_at).where(attempts.c.id >= attempt_id).order_by(attempts.c.id).limit(1)
    recorded_at: datetime = connection.execute(row).scalar_one()
    return recorded_at < moment


def _bisect(low: int, high: int, is_before: Callable[[int], bool]) -> int:
    while low < high:
        middle = (low + high) // 2
        if is_before(middle):
            low = middle + 1
        else:
            high = middle
    return low


def _blocked(connection: sa.Connection, now: datetime) -> list[int]:
    recent = _from(connection, now - timedelta(seconds=BLOCKED_SECONDS))
    last_ids = sa.select(sa.func.max(attempts.c.id)).where(recent, attempts.c.attempt.is_not(None))
    last = sa.select(attempts.c.app_id).where(
        attempts.c.id.in_(last_ids.group_by(attempts.c.app_id)),
        attempts.c.outcome == Outcome.BLOCKED,
        attempts.c.app_id.is_not(None),
    )
    return sorted(connection.execute(last).scalars())


# The literals are part of the partial indexes' conditions: as parameters the planner could not match them.
_NOW = sa.select(utcnow().label("now"))
_COUNT = sa.select(
    *(sa.func.count().filter(tasks.c.status == status).label(status.value) for status in Status),
    sa.func.count().filter(sql.ACTIVE, tasks.c.user_count > 0).label("occupied"),
    sa.func.count().filter(sql.ACTIVE, tasks.c.user_count == 0).label("empty"),
    sa.func.count().filter(sql.ACTIVE, tasks.c.user_count.is_(None)).label("unknown"),
    sa.func.min(tasks.c.empty_since, type_=UtcTime).filter(sql.ACTIVE).label("longest_empty_since"),
    sa.func.min(tasks.c.user_count_at, type_=UtcTime)
    .filter(sql.ACTIVE, tasks.c.user_count.is_not(None))
    .label("oldest_evidence_at"),
)
_RETURNS = sa.select(sa.func.count().label("watched"), sa.func.count(rejoins.c.rejoined_at).label("returned")).where(
    rejoins.c.stopped_at >= utcnow(-86_400)
)
_NEXT = (
    sa.select(tasks.c.task_id, tasks.c.due_at)
    .where(sql.ACTIVE, tasks.c.wake_at.is_not(None), tasks.c.due_at.is_not(None))
    .order_by(tasks.c.wake_at)
    .limit(1)
)
_IN_FLIGHT = sa.select(sa.func.count()).where(attempts.c.outcome == sa.literal_column("'sent'"))
HISTORY = sa.table(
    "zego_stop_history",
    *(sa.column(name, attempts.c[name].type) for name in ("task_id", "room_id", "app_id", "kind", "reason", "outcome")),
    *(sa.column(name, sa.Text()) for name in ("code", "message", "request_id")),
    sa.column("attempts", sa.Integer()),
    *(sa.column(name, UtcTime()) for name in ("empty_since", "due_at", "stopped_at", "auto_stop_at")),
    *(
        sa.column(name, sa.Float())
        for name in ("reaction_seconds", "seconds_before_auto_stop", "rejoined_after_seconds")
    ),
)
