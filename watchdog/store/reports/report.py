"""What the report of a period shows, added up by the database: memory grows with neither the ledger nor the period.

The ledger is read in slices of ids, each in a transaction of its own, so no statement reaches PostgreSQL's time-out and
SQLite's log does not grow meanwhile. What was recorded after the beginning belongs to the next report.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.model import Outcome, Reason
from watchdog.store.engine import reading
from watchdog.store.reports.distributions import Distribution, distribution, milliseconds_between, start_of
from watchdog.store.reports.history import first_recorded
from watchdog.store.reports.situation import IDLE_CODE
from watchdog.store.tables import ACTIVE, NOW, UtcTime, attempts, rejoins, tasks

SLICE: Final = 100_000
"""How many attempts one transaction reads."""

CODES_SHOWN: Final = 20
_CODES_KEPT: Final = 1000
"""More different codes in one slice are not told apart: a bound for what the vendor sends."""

ROOMS_SHOWN: Final = 20

HOURS_AT_MOST: Final = timedelta(days=14)
"""A longer period is shown by day."""

_ENDED: Final = (Outcome.STOPPED, Outcome.STOPPED_EARLIER, Outcome.AUTO_STOPPED, Outcome.GONE)
_STOPPED: Final = (Outcome.STOPPED, Outcome.STOPPED_EARLIER)

_SUMS: Final = (
    *("stops", "freed_milliseconds", "no_auto_stop", "missed", "spared", "back_within_60", "back_within_600"),
)
_IS_STOP: Final = attempts.c.outcome.in_(_STOPPED)
_HAS_AUTO_STOP: Final = sa.and_(
    attempts.c.reason != Reason.BOTS_ONLY, attempts.c.auto_stop_at.is_not(None), attempts.c.replied_at.is_not(None)
)


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How often ZEGO answered a code, or sent it in a callback, and the message of the latest answer."""

    code: str
    count: int
    message: str | None


@dataclass(frozen=True, slots=True)
class EmptyRoom:
    """A room that was empty for long: ``outcome`` None means that its task still runs."""

    room_id: str
    task_id: str
    app_id: int | None
    outcome: Outcome | None
    empty_since: datetime
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Savings:
    """What the view ``zego_savings`` says of a day (UTC), a kind and an AppId, of the attempts of the period alone.

    ``freed_milliseconds`` is the sum over the stops, without the ``no_auto_stop`` of tasks that ZEGO would never have
    ended.
    """

    day: str
    kind: str
    app_id: int | None
    stops: int
    freed_milliseconds: int
    no_auto_stop: int
    missed: int
    spared: int
    back_within_60: int
    back_within_600: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What happened from ``since`` to ``now``.

    ``outcomes`` counts attempts by hour, or by day if ``by_day``. ``late`` is ``sent_at`` after ``due_at`` of first
    requests. ``early`` is how long before ZEGO's auto-stop a stop was answered. ``windows`` is how long rooms were
    empty before ZEGO ended their tasks, and ``windows_off`` how much earlier than expected, signed. ``returns`` is how
    long after a stop people came back.
    """

    now: datetime
    since: datetime
    by_day: bool
    outcomes: Mapping[tuple[str, Outcome], int]
    late: Distribution
    early: Distribution
    windows: Distribution
    windows_off: Distribution
    returns: Distribution
    codes: Sequence[CodeCount]
    other_codes: int
    savings: Sequence[Savings]
    longest: Sequence[EmptyRoom]

    def count(self, *outcomes: Outcome) -> int:
        """How many attempts had one of these outcomes."""
        return sum(number for (_, outcome), number in self.outcomes.items() if outcome in outcomes)


_Group = tuple[str, str, int | None]
"""A day, a kind and an AppId."""


@dataclass(slots=True)
class _Ledger:
    """What the slices have added up to."""

    length: int
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    early: Counter[int] = field(default_factory=Counter)
    windows: Counter[int] = field(default_factory=Counter)
    windows_off: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    latest: dict[str, int] = field(default_factory=dict)
    with_code: int = 0
    longest: list[EmptyRoom] = field(default_factory=list)
    savings: dict[_Group, Counter[str]] = field(default_factory=dict)

    def add(self, connection: sa.Connection, part: sa.ColumnElement[bool]) -> None:
        """Add the attempts of one slice."""
        start = start_of(attempts.c.recorded_at, self.length).label("start")
        by_hour = sa.select(start, attempts.c.outcome, sa.func.count()).where(part)
        for hour, outcome, count in connection.execute(by_hour.group_by(start, attempts.c.outcome)):
            self.outcomes[hour, Outcome(outcome)] += count
        is_first = sa.and_(part, attempts.c.attempt == 1, attempts.c.reason != Reason.MANUAL)
        idle = sa.and_(part, attempts.c.code == IDLE_CODE, attempts.c.evidence_at >= attempts.c.empty_since)
        stopped = sa.and_(part, _IS_STOP, _HAS_AUTO_STOP, attempts.c.reason != Reason.MANUAL)
        for found, earlier, later, chosen in (
            (self.late, attempts.c.due_at, attempts.c.sent_at, is_first),
            (self.early, attempts.c.replied_at, attempts.c.auto_stop_at, stopped),
            (self.windows, attempts.c.empty_since, attempts.c.evidence_at, idle),
        ):
            found.update(distribution(connection, milliseconds_between(earlier, later), attempts, chosen))
        off = milliseconds_between(attempts.c.evidence_at, attempts.c.auto_stop_at)
        self.windows_off.update(distribution(connection, off, attempts, idle, signed=True))
        self._add_codes(connection, part)
        self._add_longest(connection, part)
        for row in connection.execute(_saved(part)):
            day, kind, app_id, *numbers = row
            sums = self.savings.setdefault((day, kind, app_id), Counter())
            sums.update({name: int(number) for name, number in zip(_SUMS, numbers, strict=True)})

    def _add_codes(self, connection: sa.Connection, part: sa.ColumnElement[bool]) -> None:
        coded = sa.and_(part, attempts.c.code.is_not(None))
        self.with_code += connection.execute(sa.select(sa.func.count()).where(coded)).scalar_one()
        count = sa.func.count().label("number")
        by_code = sa.select(attempts.c.code, count, sa.func.max(attempts.c.id).label("latest")).where(coded)
        for row in connection.execute(by_code.group_by(attempts.c.code).order_by(count.desc()).limit(_CODES_KEPT)):
            self.codes[row.code] += row.number
            self.latest[row.code] = row.latest
        kept = dict(self.codes.most_common(_CODES_KEPT))
        self.codes = Counter(kept)
        self.latest = {code: self.latest[code] for code in kept}

    def _add_longest(self, connection: sa.Connection, part: sa.ColumnElement[bool]) -> None:
        ended_at = sa.func.coalesce(attempts.c.replied_at, attempts.c.evidence_at, attempts.c.recorded_at)
        empty = milliseconds_between(attempts.c.empty_since, ended_at).label("milliseconds")
        names = ("room_id", "task_id", "app_id", "outcome", "empty_since")
        rows = connection.execute(
            sa.select(*(attempts.c[name] for name in names), empty)
            .where(part, attempts.c.outcome.in_(_ENDED), attempts.c.empty_since.is_not(None))
            .order_by(empty.desc(), attempts.c.id)
            .limit(ROOMS_SHOWN)
        )
        self.longest += [_room(row, Outcome(row.outcome)) for row in rows]
        self.longest = _longest(self.longest)


def findings(engine: sa.Engine, since: datetime | timedelta) -> Findings:
    """Return what happened since a time, or since a duration before now, by the database's clock."""
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        begin = since if isinstance(since, datetime) else now - since
        first = first_recorded(connection, begin)
        last = connection.execute(sa.select(sa.func.max(attempts.c.id))).scalar_one() or 0
        returned = sa.and_(rejoins.c.stopped_at >= begin, rejoins.c.rejoined_at.is_not(None))
        after = milliseconds_between(rejoins.c.stopped_at, rejoins.c.rejoined_at)
        returns = distribution(connection, after, rejoins, returned)
        still_empty = list(_still_empty(connection))
    by_day = now - begin > HOURS_AT_MOST
    ledger = _Ledger(10 if by_day else 13)
    while first <= last:
        with reading(engine) as connection:
            following = _end_of_slice(connection, first, last)
            is_part = sa.and_(attempts.c.id >= first, attempts.c.id < following, attempts.c.recorded_at >= begin)
            ledger.add(connection, is_part)
        first = following
    with reading(engine) as connection:
        codes = [
            CodeCount(code, count, _message(connection, ledger.latest[code]))
            for code, count in sorted(ledger.codes.items(), key=lambda each: (-each[1], each[0]))[:CODES_SHOWN]
        ]
    return Findings(
        now=now,
        since=begin,
        by_day=by_day,
        outcomes=dict(ledger.outcomes),
        late=dict(ledger.late),
        early=dict(ledger.early),
        windows=dict(ledger.windows),
        windows_off=dict(ledger.windows_off),
        returns=dict(returns),
        codes=codes,
        other_codes=ledger.with_code - sum(each.count for each in codes),
        savings=[
            Savings(*group, *(sums[name] for name in _SUMS))
            for group, sums in sorted(ledger.savings.items(), key=lambda each: (*each[0][:2], each[0][2] or 0))
        ],
        longest=_longest([*ledger.longest, *still_empty]),
    )


def _end_of_slice(connection: sa.Connection, first: int, last: int) -> int:
    """Return the id after a slice that begins at ``first``; ids may have large gaps, so rows are counted."""
    beyond = (
        sa.select(attempts.c.id)
        .where(attempts.c.id >= first, attempts.c.id <= last)
        .order_by(attempts.c.id)
        .offset(SLICE)
        .limit(1)
    )
    found: int | None = connection.execute(beyond).scalar_one_or_none()
    return last + 1 if found is None else found


def _still_empty(connection: sa.Connection) -> Iterator[EmptyRoom]:
    """Yield the running tasks whose rooms are empty for the longest time; two statements, one for each index."""
    now = NOW.scalar_subquery()
    empty = milliseconds_between(tasks.c.empty_since, now).label("milliseconds")
    for has_plan in (tasks.c.wake_at.is_(None), tasks.c.wake_at.is_not(None)):
        statement = (
            sa.select(tasks.c.room_id, tasks.c.task_id, tasks.c.app_id, tasks.c.empty_since, empty)
            .where(ACTIVE, has_plan, tasks.c.empty_since.is_not(None))
            .order_by(tasks.c.empty_since, tasks.c.task_id)
            .limit(ROOMS_SHOWN)
        )
        yield from (_room(row, None) for row in connection.execute(statement))


def _room(row: Any, outcome: Outcome | None) -> EmptyRoom:
    return EmptyRoom(row.room_id, row.task_id, row.app_id, outcome, row.empty_since, row.milliseconds)


def _longest(rooms: Sequence[EmptyRoom]) -> list[EmptyRoom]:
    # Of equal ones the first recorded stay first, however the ledger was sliced.
    return sorted(rooms, key=lambda room: -room.milliseconds)[:ROOMS_SHOWN]


def _message(connection: sa.Connection, attempt_id: int) -> str | None:
    message: str | None = connection.execute(
        sa.select(attempts.c.message).where(attempts.c.id == attempt_id)
    ).scalar_one_or_none()
    return message


def _saved(part: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The rule of the view ``zego_savings`` for some attempts; the view itself would read the whole ledger."""
    earlier = attempts.alias("earlier")
    is_known = sa.exists(
        sa.select(earlier.c.id).where(
            earlier.c.task_id == attempts.c.task_id,
            earlier.c.id < attempts.c.id,
            earlier.c.outcome.in_((*_STOPPED, Outcome.AUTO_STOPPED)),
        )
    )
    before = milliseconds_between(attempts.c.replied_at, attempts.c.auto_stop_at)
    back = milliseconds_between(rejoins.c.stopped_at, rejoins.c.rejoined_at)
    has_ended = attempts.c.outcome.in_((*_STOPPED, Outcome.AUTO_STOPPED))
    each = (
        sa.select(
            start_of(sa.func.coalesce(attempts.c.replied_at, attempts.c.recorded_at, type_=UtcTime), 10).label("day"),
            attempts.c.kind,
            attempts.c.app_id,
            attempts.c.outcome,
            _IS_STOP.label("is_stop"),
            sa.case((sa.and_(_IS_STOP, _HAS_AUTO_STOP), before)).label("before"),
            sa.case((_IS_STOP, back)).label("back"),
        )
        .join_from(attempts, rejoins, rejoins.c.task_id == attempts.c.task_id, isouter=True)
        .where(
            part,
            attempts.c.reason != Reason.MANUAL,
            sa.or_(attempts.c.outcome == Outcome.SPARED, sa.and_(has_ended, ~is_known)),
        )
        .subquery()
    )
    group = (each.c.day, each.c.kind, each.c.app_id)
    count = sa.func.count
    return sa.select(
        *group,
        count().filter(each.c.is_stop),
        sa.func.coalesce(sa.func.sum(each.c.before).filter(each.c.before > 0), 0),
        count().filter(each.c.is_stop, each.c.before.is_(None)),
        count().filter(each.c.outcome == Outcome.AUTO_STOPPED),
        count().filter(each.c.outcome == Outcome.SPARED),
        *(count().filter(each.c.back <= 1000 * seconds) for seconds in (60, 600)),
    ).group_by(*group)
