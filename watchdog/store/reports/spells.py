"""Empty spells as ``advise`` reads them: how long each was observed, and whether people returned.

After our stop a room is watched for returns (``zego_rejoins``), so the observation goes on. Retention removes a watch
without a return after a day, one with a return as late as its attempts. So of an older stop a missing watch may have
had no return, or may never have been: to count the remaining ones alone would make returns look frequent. Therefore an
older stop counts as watched, for the time that was configured then, if it lies strictly between the oldest and the
newest stop whose watch is left with that time; otherwise its observation ends with the stop, return or not.

Spells shorter than a second, and those whose beginning a callback has moved, are left out: nobody came back.

Spells are counted in the database, a page of ids after the other, so no transaction is long. Times are rounded to 0.1 s
up to 10 minutes, to 1 s above, and are cut at two hours: at most 12,600 different ones. So memory depends on these
times and on how many different limits the tasks have, not on the number of spells.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.advice import Circumstances, Spells
from watchdog.core.model import Ending, Outcome, Reason, Source
from watchdog.store.engine import reading
from watchdog.store.reports.history import first_since
from watchdog.store.retention import KEEP_WATCHES_SECONDS
from watchdog.store.tables import NOW, UtcTime, attempts, empty_spells, rejoins, seconds_between, tasks, utcnow

_PAGE: Final = 20_000
_LOOKED_AT: Final = 20_000
_OUT_OF_ORDER: Final = 10_000
"""How many rows may be out of order: ids grow with the time of writing, and ``ended_at`` may be earlier."""

_LONGEST_MS: Final = 7_200_000
_FINE_MS: Final = 600_000
_OLDEST_AGE_SECONDS: Final = 1800
"""ZEGO's longest window: a task that is older than its window has the same plan at any age."""

_WATCH_LENGTHS: Final = 50


@dataclass(frozen=True, slots=True)
class Found:
    """Spells that ended at ``since`` or later, alike ones together, and how many each source reported the end of."""

    now: datetime
    since: datetime
    spells: Sequence[Spells]
    sources: Mapping[str | None, int]

    @property
    def count(self) -> int:
        return sum(one.count for one in self.spells)


@dataclass(frozen=True, slots=True)
class NamedSpell:
    task_id: str
    room_id: str
    empty_since: datetime
    spell: Spells


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Stops in between were watched for so many seconds."""

    seconds: int
    after: datetime
    before: datetime


def find_spells(
    engine: sa.Engine, since: datetime | timedelta, *, app_id: int | None = None, default_app: int | None = None
) -> Found:
    """Count the spells that ended since a time, or in a duration before now. Raises DatabaseError.

    ``app_id`` selects an AppId; a task without one belongs to ``default_app``.
    """
    with reading(engine) as connection:
        now = connection.execute(NOW).scalar_one()
        begin = now - since if isinstance(since, timedelta) else since
        first = first_since(connection, empty_spells.c.id, empty_spells.c.ended_at, begin)
        last = connection.execute(sa.select(sa.func.max(empty_spells.c.id))).scalar_one() or 0
        columns = _columns(_stretches(connection))
    spells: Counter[Spells] = Counter()
    sources: Counter[str | None] = Counter()
    for after in range(max(0, first - 1 - _OUT_OF_ORDER), last, _PAGE):
        is_of_page = sa.and_(empty_spells.c.id > after, empty_spells.c.id <= min(after + _PAGE, last))
        page = _select(columns, begin, app_id, default_app).where(is_of_page).subquery()
        with reading(engine) as connection:
            for row in connection.execute(sa.select(*page.c, sa.func.count().label("number")).group_by(*page.c)):
                spells[_as_spells(row)] += row.number
                sources[row.evidence_source] += row.number
    return Found(now, begin, [replace(one, count=number) for one, number in spells.items()], sources)


def newest_spells(
    engine: sa.Engine, since: datetime, *, app_id: int | None = None, default_app: int | None = None
) -> Sequence[NamedSpell]:
    """Return the newest spells with their tasks, newest first, at most 20,000. Raises DatabaseError."""
    names = (empty_spells.c.task_id, empty_spells.c.room_id, empty_spells.c.empty_since)
    with reading(engine) as connection:
        rows = _select([*names, *_columns(_stretches(connection))], since, app_id, default_app)
        newest = connection.execute(rows.order_by(empty_spells.c.id.desc()).limit(_LOOKED_AT))
        return [NamedSpell(row.task_id, row.room_id, row.empty_since, _as_spells(row)) for row in newest]


def _select(
    columns: Sequence[sa.ColumnElement[Any]], since: datetime, app_id: int | None, default_app: int | None
) -> sa.Select[Any]:
    watched = sa.and_(rejoins.c.task_id == empty_spells.c.task_id, _IS_STOPPED)
    rows = (
        sa.select(*columns)
        .select_from(empty_spells.outerjoin(rejoins, watched))
        .where(empty_spells.c.ended_at >= since)
    )
    rows = rows.where(_LASTED >= _SHORTEST_SECONDS, sa.not_(_IS_MOVED))
    if app_id is None:
        return rows
    return rows.where(sa.func.coalesce(empty_spells.c.app_id, default_app) == app_id)


_IS_STOPPED = empty_spells.c.ending == Ending.STOPPED.value
# ZEGO reports that a room was created before it reports who logged in, and the application and ZEGO date one departure
# differently: then a room looks empty for a moment. No plan is due so early, and the curve begins after this time.
_SHORTEST_SECONDS: Final = 1.0
_LASTED = seconds_between(empty_spells.c.empty_since, empty_spells.c.ended_at)

_next = empty_spells.alias("next")
_MOVED_SECONDS: Final = 0.0015


def _begins_at_once(empty_since: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a time is the millisecond after the end of a spell; the first comparison can use an index."""
    ended = empty_spells.c.ended_at
    return sa.and_(empty_since > ended, seconds_between(ended, empty_since) < _MOVED_SECONDS)


# A callback that saw somebody later than the application writes 1 and then 0, a millisecond apart (``core.hints``):
# nobody came back, only the beginning of the spell has moved.
_IS_MOVED = sa.and_(
    empty_spells.c.ending == Ending.RETURNED.value,
    empty_spells.c.evidence_source == Source.CALLBACK.value,
    sa.or_(
        sa.exists(
            sa.select(_next.c.id).where(_next.c.task_id == empty_spells.c.task_id, _begins_at_once(_next.c.empty_since))
        ),
        sa.exists(
            sa.select(tasks.c.task_id).where(
                tasks.c.task_id == empty_spells.c.task_id, _begins_at_once(tasks.c.empty_since)
            )
        ),
    ),
)
_IS_BOTS_ONLY = sa.exists(
    sa.select(attempts.c.id).where(
        attempts.c.task_id == empty_spells.c.task_id,
        attempts.c.reason == Reason.BOTS_ONLY,
        attempts.c.outcome.in_((Outcome.STOPPED, Outcome.STOPPED_EARLIER)),
    )
)


def _milliseconds(earlier: sa.ColumnElement[Any], later: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Whole numbers: both databases round them alike."""
    return sa.cast(sa.func.round(seconds_between(earlier, later) * 1000), sa.BigInteger)


def _columns(stretches: Sequence[_Stretch]) -> Sequence[sa.ColumnElement[Any]]:
    """The columns of ``_as_spells``."""
    empty = empty_spells.c.empty_since
    ended = _milliseconds(empty, empty_spells.c.ended_at)
    returned, now = (_milliseconds(empty, moment) for moment in (rejoins.c.rejoined_at, utcnow()))
    watched = _watched(stretches)
    has_returned = sa.or_(
        empty_spells.c.ending == Ending.RETURNED.value,
        sa.and_(_IS_STOPPED, sa.func.coalesce(returned <= watched, sa.false())),
    )
    observed = sa.case(
        (sa.not_(_IS_STOPPED), ended),
        (has_returned, returned),
        (watched < now, watched),
        (watched >= now, now),
        else_=ended,
    )
    return (
        empty_spells.c.max_idle_seconds,
        empty_spells.c.grace_seconds,
        _AGE.label("age_seconds"),
        empty_spells.c.ending,
        sa.case((_IS_STOPPED, ~_IS_BOTS_ONLY), else_=sa.true()).label("has_auto_stop"),
        sa.and_(has_returned, observed <= _LONGEST_MS).label("has_returned"),
        _rounded(observed).label("observed_ms"),
        empty_spells.c.evidence_source,
    )


_AGE_SECONDS = _milliseconds(empty_spells.c.started_at, empty_spells.c.empty_since) // 1000
_AGE = sa.case(
    (empty_spells.c.last_occupied_at.is_not(None), sa.null()),
    (_AGE_SECONDS < 0, 0),
    (_AGE_SECONDS > _OLDEST_AGE_SECONDS, _OLDEST_AGE_SECONDS),
    else_=_AGE_SECONDS,
)


def _rounded(observed: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.case(
        (observed < 0, 0),
        (observed < _FINE_MS, (observed + 50) // 100 * 100),
        (observed < _LONGEST_MS, (observed + 500) // 1000 * 1000),
        else_=_LONGEST_MS,
    )


def _watched(stretches: Sequence[_Stretch]) -> sa.ColumnElement[int]:
    """How long a return would have been noted; null if not after the stop, or if that is not known."""
    stopped, empty = empty_spells.c.ended_at, empty_spells.c.empty_since
    is_young = stopped >= utcnow(-KEEP_WATCHES_SECONDS)
    has_watch = sa.and_(rejoins.c.task_id.is_not(None), sa.or_(is_young, rejoins.c.rejoined_at.is_(None)))
    # The shortest first: where daemons were configured differently, nothing is taken as observed that was not.
    by_stretch = (
        (
            sa.and_(~is_young, stopped > one.after, stopped < one.before),
            _milliseconds(empty, stopped) + one.seconds * 1000,
        )
        for one in stretches
    )
    return sa.case((has_watch, _milliseconds(empty, rejoins.c.watch_until)), *by_stretch, else_=sa.null())


def _stretches(connection: sa.Connection) -> Sequence[_Stretch]:
    seconds = (_milliseconds(rejoins.c.stopped_at, rejoins.c.watch_until) + 500) // 1000
    times = (sa.func.min(rejoins.c.stopped_at, type_=UtcTime), sa.func.max(rejoins.c.stopped_at, type_=UtcTime))
    found = connection.execute(
        sa.select(seconds.label("seconds"), times[0].label("after"), times[1].label("before"))
        .group_by(seconds)
        .order_by(sa.func.count().desc())
        .limit(_WATCH_LENGTHS)
    )
    return sorted((_Stretch(row.seconds, row.after, row.before) for row in found), key=lambda one: one.seconds)


def _as_spells(row: Any) -> Spells:
    age = row.age_seconds
    return Spells(
        Circumstances(row.max_idle_seconds, row.grace_seconds, None if age is None else float(age)),
        Ending(row.ending),
        bool(row.has_returned),
        row.observed_ms / 1000,
        bool(row.has_auto_stop),
    )
