"""What another grace would have done, estimated from empty spells. Pure.

A spell is a time in which a task's room was empty. Each one is planned again by ``policy.plan``, with the grace of a
candidate in the policy; a task's own ``grace_seconds`` stays. Then for each spell:

    it ended before the plan's due time      no stop: people were back, or the task had ended
    it is known to have lasted until then    one stop
    we stopped the task before then          a stop with the probability S(due) / S(stop): how long the room would have
                                             stayed empty is unknown, and the curve says how likely it is

The sum is the expected number of stops. The share of them that a return would have met is that of the rooms, still
empty at the due time, to which people return within the horizon: 1 - S(due + horizon) / S(due), by the same sum. Rooms
that people had left, and rooms that nobody had joined yet, have a curve each. Its interval comes from the delta method
on the logarithm of the ratio.

It is assumed that a due task is stopped at once, and that a task that we stopped would not have ended by itself before
the longer grace: the application's own stop after ours is not seen. So a longer grace may mean fewer stops than stated.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import floor
from typing import Final, TypeVar

from watchdog.core.kinds import DEFAULT_KIND
from watchdog.core.model import Ending, Status, Task
from watchdog.core.policy import Policy, plan
from watchdog.core.survival import Curve, Interval, Observation, curve, interval

N = TypeVar("N")

FEWEST_SPELLS: Final = 100
"""With fewer spells, intervals are wider than any difference between two graces."""

FEWEST_ROOMS: Final = 20
"""A curve is used as far as so many rooms are observed."""

LEAST_HORIZON_SECONDS: Final = 60.0
"""A candidate whose returns are observed for a shorter time after its stops gets no share."""

UNWATCHED_HORIZON_SECONDS: Final = 600.0
"""The horizon if ``policy.rejoin_watch_seconds`` is 0: the time that it has by default."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the plan of a spell depends on beside the policy.

    ``age_seconds`` is how old the task was when the spell began, if nobody had joined the room yet; None if somebody
    had: then the age does not matter. ``kind`` is one that ZEGO ends when its room stays empty.
    """

    max_idle_seconds: int | None
    grace_seconds: int | None
    age_seconds: float | None = None
    kind: str = DEFAULT_KIND

    @property
    def is_joined(self) -> bool:
        return self.age_seconds is None


@dataclass(frozen=True, slots=True)
class Spells:
    """``count`` spells that are alike, observed for ``seconds``.

    ``returned``: the observation ended with a return, in the spell or after our stop. ``has_auto_stop`` is False if
    only bots or admins were left, so that ZEGO would never have ended the task.
    """

    circumstances: Circumstances
    ending: Ending
    returned: bool
    seconds: float
    has_auto_stop: bool = True
    count: int = 1


@dataclass(frozen=True, slots=True)
class Times:
    """The plan of a spell, in seconds from its beginning."""

    due_seconds: float
    auto_stop_seconds: float


class Difference(StrEnum):
    """What another grace would have done with a task, other than what happened."""

    KEPT = "kept"
    """The task was stopped; people were back before this grace ended."""

    STOPPED = "stopped"
    """The task was not stopped; the room was still empty at the end of this grace."""

    STOPPED_BEFORE_RETURN = "stopped_before_return"
    """The same, and people came back later: the stop would have been wrong."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one grace would have done, in expected numbers.

    ``met`` is the share of ``judged`` stops that a return would have met within the horizon; None if too few rooms were
    observed for so long. ``freed_seconds`` is the time from the stops to ZEGO's auto-stop, without ``no_auto_stop``
    stops, which have none. ``missed``: ZEGO was, or would have been, first. ``cut``: spells whose due time lies before
    their grace, because their window is too short for it. ``unknown``: spells of tasks that we stopped so early that
    nobody knows whether this grace would have stopped them; they are in none of the other numbers.
    """

    grace_seconds: float
    stops: float
    met: Interval | None
    judged: float
    freed_seconds: float
    no_auto_stop: float
    missed: float
    cut: int
    unknown: int
    differences: Mapping[Difference, int]


@dataclass(frozen=True, slots=True)
class Advice:
    """The result. ``left`` is the curve of rooms that people had left, ``never_joined`` that of the others.

    ``horizon_seconds`` is how long after a stop a return counts, the same for all candidates so that they can be
    compared; None if returns after stops were not observed for long enough.
    """

    spells: int
    endings: Mapping[Ending, int]
    returns_after_stops: int
    left: Curve
    never_joined: Curve
    horizon_seconds: float | None
    candidates: tuple[Candidate, ...]


def times(circumstances: Circumstances, policy: Policy) -> Times:
    """Plan a spell with the daemon's own rule. A hold is not known of spells, and has no effect here."""
    age = timedelta(seconds=circumstances.age_seconds or 0.0)
    task = Task(
        task_id="",
        room_id="",
        app_id=None,
        kind=circumstances.kind,
        max_idle_seconds=circumstances.max_idle_seconds,
        grace_seconds=circumstances.grace_seconds,
        hold_until=None,
        started_at=_EMPTY - age,
        user_count=0,
        user_count_at=_EMPTY,
        user_count_source=None,
        last_occupied_at=_EMPTY if circumstances.is_joined else None,
        empty_since=_EMPTY,
        due_at=None,
        auto_stop_at=None,
        wake_at=None,
        claimed_by=None,
        attempts=0,
        status=Status.ACTIVE,
        ended_at=None,
        asked_at=_EMPTY,
        vendor_occupied_at=None,
    )
    planned = plan(task, policy, _EMPTY)
    if planned is None or planned.auto_stop_at is None:
        raise AssertionError("a task whose room is empty has a plan, and a kind with a window an auto-stop")
    return Times((planned.due_at - _EMPTY).total_seconds(), (planned.auto_stop_at - _EMPTY).total_seconds())


_EMPTY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""When a spell begins; only differences matter."""


def difference(spells: Spells, planned: Times, configured: Times) -> Difference | None:
    """What a plan would have done otherwise with each of ``spells``; None if nothing, or if it is not known.

    A task that was not stopped counts only if its ``configured`` plan does not stop it either: otherwise something else
    than the grace kept it, such as a hold.
    """
    was_stopped = spells.ending is Ending.STOPPED
    if was_stopped:
        return Difference.KEPT if spells.returned and spells.seconds <= planned.due_seconds else None
    if not planned.due_seconds < spells.seconds <= configured.due_seconds:
        return None
    return Difference.STOPPED_BEFORE_RETURN if spells.ending is Ending.RETURNED else Difference.STOPPED


def differing(
    named: Iterable[tuple[N, Spells]], policy: Policy, graces: Iterable[float], *, at_most: int
) -> Sequence[tuple[float, Difference, N]]:
    """Name spells with a ``difference``: for each of ``graces`` and each difference the first ``at_most``."""
    policies = {grace: replace(policy, grace_seconds=grace) for grace in sorted(set(graces))}
    plans: dict[tuple[float | None, Circumstances], Times] = {}

    def planned(grace: float | None, kind: Circumstances) -> Times:
        if (grace, kind) not in plans:
            plans[grace, kind] = times(kind, policy if grace is None else policies[grace])
        return plans[grace, kind]

    listed: dict[tuple[float, Difference], list[N]] = {(grace, kind): [] for grace in policies for kind in Difference}
    for name, spells in named:
        kind = spells.circumstances
        for grace in policies:
            found = difference(spells, planned(grace, kind), planned(None, kind))
            if found is not None and len(listed[grace, found]) < at_most:
                listed[grace, found].append(name)
    return [(grace, found, name) for (grace, found), names in listed.items() for name in names]


def advise(found: Collection[Spells], policy: Policy, graces: Iterable[float]) -> Advice:
    """Say what each of ``graces`` would have done with the spells that were ``found`` under ``policy``."""
    curves = {joined: curve(_observations(found, joined=joined)) for joined in (True, False)}
    kinds = {spells.circumstances for spells in found}
    configured = {kind: times(kind, policy) for kind in kinds}
    plans = {
        grace: {kind: times(kind, replace(policy, grace_seconds=grace)) for kind in kinds}
        for grace in sorted(set(graces))
    }
    horizon = _horizon(found, plans, curves, policy)
    candidates = []
    for grace, planned in plans.items():
        tally = _Tally(curves, horizon)
        for spells in found:
            tally.add(spells, planned[spells.circumstances], configured[spells.circumstances], grace)
        candidates.append(tally.candidate(grace))
    return Advice(
        spells=sum(spells.count for spells in found),
        endings={ending: _number(found, ending) for ending in Ending},
        returns_after_stops=sum(one.count for one in found if one.returned and one.ending is Ending.STOPPED),
        left=curves[True],
        never_joined=curves[False],
        horizon_seconds=horizon,
        candidates=tuple(candidates),
    )


def _number(found: Iterable[Spells], ending: Ending) -> int:
    return sum(spells.count for spells in found if spells.ending is ending)


def _observations(found: Iterable[Spells], *, joined: bool) -> Iterable[Observation]:
    return (
        Observation(spells.seconds, spells.returned, spells.count)
        for spells in found
        if spells.circumstances.is_joined is joined
    )


def _horizon(
    found: Collection[Spells],
    plans: Mapping[float, Mapping[Circumstances, Times]],
    curves: Mapping[bool, Curve],
    policy: Policy,
) -> float | None:
    """How long after a stop returns are observed, for as many of the candidates as possible; whole seconds."""
    wanted = max(1.0, policy.rejoin_watch_seconds or UNWATCHED_HORIZON_SECONDS)
    reach = curves[True].reaches(FEWEST_ROOMS)
    rests = []
    for planned in plans.values():
        due = [(planned[one.circumstances].due_seconds, one.count) for one in found if one.circumstances.is_joined]
        rests += [reach - _most(due)] if due else []
    enough = [rest for rest in rests if rest >= min(wanted, LEAST_HORIZON_SECONDS)]
    return float(floor(min(wanted, *enough))) if enough else None


def _most(weighted: Sequence[tuple[float, int]]) -> float:
    """The value that nine tenths do not exceed: a few tasks with a long grace of their own shorten no horizon."""
    enough, passed = 0.9 * sum(count for _, count in weighted), 0
    for value, count in sorted(weighted):
        passed += count
        if passed >= enough:
            return value
    raise AssertionError("there is at least one value")


_Terms = dict[tuple[bool, float, float], float]
"""An expected number, as a sum of weight · S(until) / S(since): the curve, ``since``, ``until`` → the weight."""


class _Tally:
    """Adds up what one grace would have done."""

    def __init__(self, curves: Mapping[bool, Curve], horizon: float | None) -> None:
        self._curves = curves
        self._reach = {joined: one.reaches(FEWEST_ROOMS) for joined, one in curves.items()}
        self._horizon = horizon
        self._stops = self._freed = self._no_auto_stop = self._missed = 0.0
        self._cut = self._unknown = 0
        # Of the stops after which returns are observed for long enough: their number, and how many stay empty.
        self._judged: _Terms = defaultdict(float)
        self._empty: _Terms = defaultdict(float)
        self._differences: Counter[Difference] = Counter()

    def add(self, spells: Spells, planned: Times, configured: Times, grace: float) -> None:
        if spells.circumstances.grace_seconds is None and planned.due_seconds < grace:
            self._cut += spells.count
        if (found := difference(spells, planned, configured)) is not None:
            self._differences[found] += spells.count
        due, joined = planned.due_seconds, spells.circumstances.is_joined
        since = due
        if spells.seconds <= due:
            if spells.ending is Ending.AUTO_STOPPED:
                self._missed += spells.count
            if spells.ending is not Ending.STOPPED or spells.returned:
                return
            since = spells.seconds
            if due > self._reach[joined] and since < due:
                self._unknown += spells.count
                return
        number = spells.count * self._ratio(since, due, joined=joined)
        if due >= planned.auto_stop_seconds:
            self._missed += number
            return
        self._stops += number
        if spells.has_auto_stop:
            self._freed += number * (planned.auto_stop_seconds - due)
        else:
            self._no_auto_stop += number
        if self._horizon is not None and due + self._horizon <= self._reach[joined]:
            self._judged[joined, since, due] += spells.count
            self._empty[joined, since, due + self._horizon] += spells.count

    def candidate(self, grace: float) -> Candidate:
        """Return the result."""
        judged = self._sum(self._judged)
        return Candidate(
            grace_seconds=grace,
            stops=self._stops,
            met=self._share(judged).complement if judged else None,
            judged=judged,
            freed_seconds=self._freed,
            no_auto_stop=self._no_auto_stop,
            missed=self._missed,
            cut=self._cut,
            unknown=self._unknown,
            differences={kind: self._differences[kind] for kind in Difference},
        )

    def _share(self, judged: float) -> Interval:
        """The share of the judged stops whose rooms stay empty."""
        empty = self._sum(self._empty)
        variance = 0.0
        for joined, one in self._curves.items():
            coefficients: defaultdict[float, float] = defaultdict(float)
            for terms, total, sign in ((self._empty, empty, 1), (self._judged, judged, -1)):
                for (of_joined, since, until), count in terms.items():
                    if of_joined is joined and total:
                        part = sign * count * self._ratio(since, until, joined=joined) / total
                        coefficients[until] += part
                        coefficients[since] -= part
            variance += one.variance(coefficients)
        return interval(empty / judged, variance, judged)

    def _sum(self, terms: _Terms) -> float:
        return sum(count * self._ratio(since, until, joined=joined) for (joined, since, until), count in terms.items())

    def _ratio(self, since: float, until: float, *, joined: bool) -> float:
        """How likely a room that is empty after ``since`` seconds still is after ``until`` seconds."""
        if since == until:
            return 1.0
        one = self._curves[joined]
        return one.empty(until) / one.empty(since)
