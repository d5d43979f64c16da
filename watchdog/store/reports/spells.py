"""Empty spells as ``advise`` reads them: how long each was observed, and whether people returned.

After our stop a room is watched for returns (``zego_rejoins``), so the observation goes on. Retention removes a watch
without a return after a day, one with a return as late as its attempts. So of an older stop a missing watch may have
had no return, or may never have been: to count the remaining ones alone would make returns look frequent. Therefore an
older stop counts as watched, for the time that was configured then, if it lies strictly between the oldest and the
newest stop whose watch is left with that time; otherwise its observation ends with the stop, return or not.

Spells shorter than a second, and those whose beginning a callback has moved, are left out: nobody came back.

Spells are counted in the database, a page of ids after the other, so no transaction is long. Times are rounded to 0.1 s
up to 2 minutes, to 1 s above, and are cut at two hours: at most 8,300 different ones. So memory depends on these
times and on how many different limits the tasks have, not on the number of spells.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from watchdog.core.advice import Circumstances, Spells
from watchdog.core.kinds import KINDS
from watchdog.core.model import Ending, Outcome, Reason, Source
from watchdog.store.engine import reading
from watchdog.store.reports.history import first_since
from watchdog.store.retention import KEEP_WATCHES_SECONDS
from watchdog.store.tables import NOW, UtcTime, attempts, empty_spells, rejoins, seconds_between, tasks, utcnow

_PAGE: Final = 50_000
_LOOKED_AT: Final = 20_000
_OUT_OF_ORDER: Final = 10_000
"""How many rows may be out of order: ids grow with the time of writing, and ``ended_at`` may be earlier."""

_LONGEST_MS: Final = 7_200_000
_FINE_MS: Final = 120_000
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
        wanted = _wanted(_stretches(connection), begin, app_id, default_app)
    spells: Counter[tuple[Any, ...]] = Counter()
    sources: Counter[str | None] = Counter()
    for after in range(max(0, first - 1 - _OUT_OF_ORDER), last, _PAGE):
        is_of_page = sa.and_(empty_spells.c.id > after, empty_spells.c.id <= min(after + _PAGE, last))
        page = _observed(wanted.where(is_of_page)).subquery()
        with reading(engine) as connection:
            for source, *alike, number in connection.execute(sa.select(*page.c, sa.func.count()).group_by(*page.c)):
                spells[tuple(alike)] += number
                sources[source] += number
    return Found(now, begin, [replace(_as_spells(*alike), count=number) for alike, number in spells.items()], sources)


def newest_spells(
    engine: sa.Engine, since: datetime, *, app_id: int | None = None, default_app: int | None = None
) -> Sequence[NamedSpell]:
    """Return the newest spells with their tasks, newest first, at most 20,000. Raises DatabaseError."""
    with reading(engine) as connection:
        wanted = _wanted(_stretches(connection), since, app_id, default_app)
        newest = wanted.add_columns(*_NAMES).order_by(empty_spells.c.id.desc()).limit(_LOOKED_AT)
        rows = connection.execute(_observed(newest, *(column.key for column in _NAMES)))
        found = sorted(rows, key=lambda row: -row.id)
    return [NamedSpell(row.task_id, row.room_id, row.empty_since, _as_spells(*row[len(_NAMES) + 1 :])) for row in found]


_NAMES: Final = (empty_spells.c.id, empty_spells.c.task_id, empty_spells.c.room_id, empty_spells.c.empty_since)
_IS_STOPPED = empty_spells.c.ending == Ending.STOPPED.value
# ZEGO reports that a room was created before it reports who logged in, and the application and ZEGO date one departure
# differently: then a room looks empty for a moment. No plan is due so early, and the curve begins after this time.
_SHORTEST_MS: Final = 1000

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


_WITH_WINDOW: Final = [name for name, kind in KINDS.items() if kind.window_seconds is not None]
"""The others would not end by themselves, so there is nothing to compare a grace with."""


def _milliseconds(earlier: sa.ColumnElement[Any], later: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Whole numbers: both databases round them alike."""
    return sa.cast(sa.func.round(seconds_between(earlier, later) * 1000), sa.BigInteger)


def _wanted(
    stretches: Sequence[_Stretch], since: datetime, app_id: int | None, default_app: int | None
) -> sa.Select[Any]:
    """Select the spells; times in milliseconds from the beginning, null where they do not apply."""
    empty = empty_spells.c.empty_since
    rows = (
        sa.select(
            empty_spells.c.kind,
            empty_spells.c.max_idle_seconds,
            empty_spells.c.grace_seconds,
            _AGE.label("age_seconds"),
            empty_spells.c.ending,
            empty_spells.c.evidence_source,
            sa.case((_IS_STOPPED, ~_IS_BOTS_ONLY), else_=sa.true()).label("has_auto_stop"),
            _milliseconds(empty, empty_spells.c.ended_at).label("ended"),
            _milliseconds(empty, rejoins.c.rejoined_at).label("rejoined"),
            sa.case((_IS_STOPPED, _watched(stretches))).label("watched"),
            sa.case((_IS_STOPPED, _milliseconds(empty, utcnow()))).label("now"),
        )
        .select_from(empty_spells.outerjoin(rejoins, sa.and_(rejoins.c.task_id == empty_spells.c.task_id, _IS_STOPPED)))
        .where(empty_spells.c.ended_at >= since, empty_spells.c.kind.in_(_WITH_WINDOW), sa.not_(_IS_MOVED))
    )
    if app_id is None:
        return rows
    return rows.where(sa.func.coalesce(empty_spells.c.app_id, default_app) == app_id)


def _observed(wanted: sa.Select[Any], *names: str) -> sa.Select[Any]:
    """Select ``names``, the source, and the columns of ``_as_spells`` in their order.

    Each step is materialized: a database that puts the expressions into one another computes each of them many times.
    """
    times = wanted.cte("times").prefix_with("MATERIALIZED")
    others = ("evidence_source", "kind", "max_idle_seconds", "grace_seconds", "age_seconds", "ending", "has_auto_stop")
    alike = [times.c[name] for name in (*names, *others)]
    is_stopped = times.c.ending == Ending.STOPPED.value
    has_returned = sa.or_(
        times.c.ending == Ending.RETURNED.value,
        sa.and_(is_stopped, sa.func.coalesce(times.c.rejoined <= times.c.watched, sa.false())),
    )
    observed = sa.case(
        (sa.not_(is_stopped), times.c.ended),
        (has_returned, times.c.rejoined),
        (times.c.watched < times.c.now, times.c.watched),
        (times.c.watched >= times.c.now, times.c.now),
        else_=times.c.ended,
    )
    ended = (
        sa.select(*alike, has_returned.label("has_returned"), observed.label("observed"))
        .where(times.c.ended >= _SHORTEST_MS)
        .cte("ended")
        .prefix_with("MATERIALIZED")
    )
    return sa.select(
        *(ended.c[column.key] for column in alike),
        sa.and_(ended.c.has_returned, ended.c.observed <= _LONGEST_MS).label("has_returned"),
        _rounded(ended.c.observed).label("observed_ms"),
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


def _as_spells(
    kind: str,
    max_idle_seconds: int | None,
    grace_seconds: int | None,
    age_seconds: int | None,
    ending: str,
    has_auto_stop: object,
    has_returned: object,
    observed_ms: int,
) -> Spells:
    age = None if age_seconds is None else float(age_seconds)
    return Spells(
        Circumstances(max_idle_seconds, grace_seconds, age, kind),
        Ending(ending),
        bool(has_returned),
        observed_ms / 1000,
        bool(has_auto_stop),
    )
