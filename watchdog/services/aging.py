"""The age limit: counts and reports the tasks that are too old, and lets the sweep look at those to be stopped.

    the active tasks, a slice at a time ──► too old ──► count, warn once
                                               │
                                               └──► a stop is wanted ──► wake_at = now ──► sweep ──► policy.decide

A walk through all of them begins every minute. In each walk, those are woken that have become too old since the last
one, and those whose stop has failed. The others have people in their rooms or cannot be verified. They are woken every
five minutes, because urgent stops need the requests.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Mode, OnMaxAge
from watchdog.core.policy import CurrentPolicy, Policy
from watchdog.core.timing import OLD_AGAIN_SECONDS
from watchdog.services.dry_run import DryRun
from watchdog.store.aging import START, Aged, Place
from watchdog.store.aio.calls import AsyncAging

log = structlog.get_logger(__name__)

WALK_SECONDS: Final = 60.0
"""How long after its end a walk is followed by the next one."""

STEP_SECONDS: Final = 1.0
"""How long to wait between two slices of a walk."""

ROWS_AT_ONCE: Final = 2_000
WOKEN_AT_ONCE: Final = 100
TOLD_AT_ONCE: Final = 20
"""Warnings for each slice; what is left is told by the next walks."""

REMEMBERED: Final = 1_000
"""The tasks that were warned of. While there are more, the others are only counted."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one step did: rows older than the limit, tasks woken; ``is_complete`` after the last slice of a walk."""

    aged: int
    woken: int
    is_complete: bool


_OFF: Final = Looked(0, 0, is_complete=True)


@dataclass(slots=True)
class _Walk:
    """One walk. Tasks that became too old before ``since`` are woken only if ``is_full``."""

    rules: Policy
    is_full: bool
    since: datetime | None
    after: Place = START
    began_at: datetime | None = None
    aged: int = 0
    told: set[str] = field(default_factory=set)
    news: int = 0


@dataclass(kw_only=True, eq=False, repr=False)
class Aging:
    """``run_once`` takes one step. ``on_woken`` is called when a sweep would find tasks that were woken."""

    aging: AsyncAging
    current_policy: CurrentPolicy
    dry_run: DryRun
    clock: Clock
    on_woken: Callable[[], None] = lambda: None
    rows_at_once: int = ROWS_AT_ONCE
    woken_at_once: int = WOKEN_AT_ONCE
    too_old: int | None = field(default=None, init=False)
    """How many active tasks are older than the limit, by the last complete walk; None without one."""

    _walk: _Walk | None = field(default=None, init=False)
    _last: _Walk | None = field(default=None, init=False)
    _full_at: float = field(default=-math.inf, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    async def step(self) -> float:
        """Take one step; return the seconds to wait for the next one. Raises DatabaseError."""
        return WALK_SECONDS if (await self.run_once()).is_complete else STEP_SECONDS

    async def run_once(self) -> Looked:
        """Read one slice of the active tasks, and wake at most ``woken_at_once``. Raises DatabaseError."""
        rules = self.current_policy.rules
        if rules.max_age_seconds <= 0:
            self._walk = self._last = self.too_old = None
            self._told.clear()
            return _OFF
        if self._walk is None or _differ(self._walk.rules, rules):
            self._walk = self._begin(rules)
        walk = self._walk
        found = await self.aging.read(walk.after, self.rows_at_once, rules.max_age_seconds)
        walk.began_at = walk.began_at or found.now
        wanted, end = self._wanted(walk, found.aged, found.end)
        # Rows behind the last task that can be woken now are read again.
        counted = [one for one in found.aged if end is None or (one.room_id, one.task_id) <= end]
        woken = await self.aging.wake([one.task_id for one in wanted])
        walk.aged += len(counted)
        self._tell(walk, counted, found.now)
        if woken:
            self.on_woken()
        if end is None:
            self._complete(walk)
        else:
            walk.after = end
        return Looked(len(counted), woken, is_complete=end is None)

    def _begin(self, rules: Policy) -> _Walk:
        now = self.clock.monotonic()
        is_full = self._last is None or _differ(self._last.rules, rules) or now - self._full_at >= OLD_AGAIN_SECONDS
        if is_full:
            self._full_at = now
        return _Walk(rules, is_full, None if self._last is None else self._last.began_at)

    def _complete(self, walk: _Walk) -> None:
        self.too_old = walk.aged
        self._told = walk.told
        self._walk, self._last = None, walk

    def _wanted(self, walk: _Walk, aged: Sequence[Aged], end: Place | None) -> tuple[Sequence[Aged], Place | None]:
        """Return the tasks to be woken, and where the walk goes on: earlier if there are too many of them."""
        rules = walk.rules
        # A daemon that observes wakes nothing for the others.
        may_wake = rules.mode is Mode.ENFORCE or self.dry_run.is_alone
        if rules.on_max_age is OnMaxAge.ALERT or not may_wake:
            return (), end
        limit = timedelta(seconds=rules.max_age_seconds)
        wanted = [
            one
            for one in aged
            if one.is_idle
            and (walk.is_full or one.attempts > 0 or walk.since is None or one.started_at + limit > walk.since)
        ]
        if len(wanted) <= self.woken_at_once:
            return wanted, end
        wanted = wanted[: self.woken_at_once]
        return wanted, (wanted[-1].room_id, wanted[-1].task_id)

    def _tell(self, walk: _Walk, aged: Sequence[Aged], now: datetime) -> None:
        """Warn once of each task, of a limited number."""
        left = TOLD_AT_ONCE
        for one in aged:
            if one.task_id not in self._told:
                if left == 0 or len(self._told) + walk.news >= REMEMBERED:
                    continue
                left -= 1
                walk.news += 1
                log.warning(
                    "task_too_old",
                    task_id=one.task_id,
                    room_id=one.room_id,
                    age_seconds=round((now - one.started_at).total_seconds()),
                    on_max_age=walk.rules.on_max_age.value,
                    next_step=f"zego-watchdog explain {one.task_id}",
                )
            walk.told.add(one.task_id)


def _differ(one: Policy, other: Policy) -> bool:
    return (one.max_age_seconds, one.on_max_age, one.mode) != (other.max_age_seconds, other.on_max_age, other.mode)
