"""One sweep: plan newly empty rooms, claim due tasks, hand them to the stopper. It never waits for the vendor.

In observe mode nothing is claimed: ``dry_run`` looks at the due tasks.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core import policy, timing
from watchdog.core.model import Api, Mode, Outcome
from watchdog.core.policy import CurrentPolicy
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.dry_run import DryRun
from watchdog.services.stopper import Stopper
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncTasks
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import Peek, claim_token

log = structlog.get_logger(__name__)

PLAN_AT_ONCE: Final = 500

OVERLOADED_SECONDS: Final = 5.0
"""Due tasks that wait longer for their verification are a reason to warn."""

_WARN_EVERY_SECONDS: Final = 60.0
_OTHERS_EVERY_SECONDS: Final = 5.0
_OTHERS_AT_ONCE: Final = 10
"""Few and seldom: once such a task is in hand, its API is known, and ``Workload.capacity`` counts it."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, whether rows are due, and when to sweep again (None: nothing is planned).

    ``claimed`` counts the rows claimed, or in observe mode the rows looked at.
    """

    planned: int
    claimed: int
    due: bool
    wake_seconds: float | None


@dataclass(kw_only=True, eq=False, repr=False)
class Sweeper:
    """SQL narrows down, the policy decides. ``instance`` must be unique among all processes, past and present.

    Only with ``dry_run`` may the mode be ``observe``.
    """

    tasks: AsyncTasks
    database_clock: DatabaseClock
    stopper: Stopper
    workload: Workload
    blocks: AppBlocks
    current_policy: CurrentPolicy
    lease_seconds: float
    instance: str
    clock: Clock
    dry_run: DryRun | None = None
    observer: Observer = field(default_factory=Observer)
    _claims: int = field(default=0, init=False)
    _warn_again_at: float = field(default=-math.inf, init=False)
    _others_again_at: float = field(default=-math.inf, init=False)

    async def run_once(self) -> Swept:
        """One pass. Raises DatabaseError; nothing is lost then."""
        peek = await self.tasks.peek()
        self.database_clock.synchronise(peek.now)
        dry_run = self.dry_run if self.current_policy.rules.mode is Mode.OBSERVE else None
        # Plans by the rules of an observer would delay or hasten the stops of the others.
        may_plan = dry_run is None or dry_run.is_alone
        planned = await self._plan() if peek.newly_empty and may_plan else 0
        if planned:
            peek = await self.tasks.peek()
        claimed = 0
        if peek.due:
            claimed = await self._claim() if dry_run is None else await dry_run.run_once()
        if claimed:
            peek = await self.tasks.peek()
        if dry_run is None:
            self._warn_of_overload(peek)
        return Swept(planned, claimed, peek.due, _seconds_until(peek.wake_at, peek.now))

    def _warn_of_overload(self, peek: Peek) -> None:
        """Log, at most once a minute, if due tasks have waited because too few rooms can be verified."""
        waited = 0.0 if peek.due_since is None else (peek.now - peek.due_since).total_seconds()
        now, overload = self.clock.monotonic(), self.workload.overload()
        # The tasks of a blocked AppId wait for another reason.
        if waited <= OVERLOADED_SECONDS or overload is None or self.blocks.blocked() or now < self._warn_again_at:
            return
        self._warn_again_at = now + _WARN_EVERY_SECONDS
        log.warning(
            "verification_overloaded",
            app_id=overload.app_id,
            waited_seconds=round(waited),
            rooms_per_second=round(overload.rooms_per_second, 1),
            stops_per_second=None if overload.stops_per_second == math.inf else round(overload.stops_per_second, 1),
            at_a_time=overload.at_a_time,
            next_step="raise stop.occupancy_requests_per_second as far as ZEGO allows; if few tasks are verified at a "
            "time, raise stop.lease_seconds",
        )

    async def _plan(self) -> int:
        planned = 0
        while True:
            now, found = await self.tasks.newly_empty(PLAN_AT_ONCE)
            plans = [plan for task in found if (plan := policy.plan(task, self.current_policy.rules, now)) is not None]
            saved = await self.tasks.save_plans(plans)
            planned += saved
            # None saved: another daemon has planned all of them.
            if len(found) < PLAN_AT_ONCE or not saved:
                return planned

    async def _claim(self) -> int:
        claimed = 0
        while True:
            blocked = self.blocks.blocked()
            limit, full = self.workload.capacity(blocked)
            if limit == 0:
                limit = self._take_turn_for_others()
            if limit == 0:
                break
            found = await self._take(limit, except_apis=blocked | full)
            claimed += found
            if found < limit:
                break
        probe = self.blocks.next_probe()
        if probe is not None:
            claimed += await self._take(1, only_api=probe)
        return claimed

    def _take_turn_for_others(self) -> int:
        """How many due tasks to claim of APIs that nothing is known of yet, although all known ones are busy."""
        now = self.clock.monotonic()
        if self.workload.is_closing or now < self._others_again_at:
            return 0
        self._others_again_at = now + _OTHERS_EVERY_SECONDS
        return _OTHERS_AT_ONCE

    async def _take(self, limit: int, *, except_apis: set[Api] | None = None, only_api: Api | None = None) -> int:
        self._claims += 1
        # Counted from before the claim, so never later than the end of the lease in the database.
        until = self.clock.monotonic() + self.lease_seconds
        now, claims = await self.tasks.claim(
            claim_token(self.instance, self._claims),
            limit=limit,
            lease_seconds=self.lease_seconds,
            default_app=self.workload.default_app,
            except_apis=except_apis or (),
            except_tasks=self.workload.tasks,
            only_api=only_api,
        )
        self.database_clock.synchronise(now)
        for reason in chain.from_iterable(claim.abandoned for claim in claims):
            self.observer.attempt(Outcome.UNKNOWN, reason)
        self.stopper.submit(claims, until, probe=only_api is not None)
        return len(claims)


def _seconds_until(moment: datetime | None, now: datetime) -> float | None:
    if moment is None:
        return None
    left = max(0.0, (moment - now).total_seconds())
    # Half the lead is left for tasks that come due shortly after: one sweep claims them all. A nearer task that is not
    # claimed yet is a lease or a retry, and these are never claimed early.
    return left - timing.LEAD_SECONDS / 2 if left > timing.LEAD_SECONDS else left
