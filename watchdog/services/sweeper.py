"""One sweep: plan newly empty rooms, claim due tasks, hand them to the stopper. It never waits for the vendor."""

from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final

from watchdog.clock import Clock
from watchdog.core import policy, timing
from watchdog.core.model import Outcome
from watchdog.core.policy import CurrentPolicy
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.stopper import Stopper
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncTasks
from watchdog.store.aio.database_clock import DatabaseClock

PLAN_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, whether rows are due, and when to sweep again (None: nothing is planned)."""

    planned: int
    claimed: int
    due: bool
    wake_seconds: float | None


class Sweeper:
    """SQL narrows down, the policy decides. ``instance`` must be unique among all processes, past and present."""

    def __init__(
        self,
        *,
        tasks: AsyncTasks,
        database_clock: DatabaseClock,
        stopper: Stopper,
        workload: Workload,
        blocks: AppBlocks,
        current_policy: CurrentPolicy,
        lease_seconds: float,
        instance: str,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._tasks = tasks
        self._database_clock = database_clock
        self._stopper = stopper
        self._workload = workload
        self._blocks = blocks
        self._current_policy = current_policy
        self._lease_seconds = lease_seconds
        self._instance = instance
        self._clock = clock
        self._observer = observer or Observer()
        self._claims = 0

    async def run_once(self) -> Swept:
        """One pass. Raises DatabaseError; nothing is lost then."""
        peek = await self._tasks.peek()
        self._database_clock.synchronise(peek.now)
        planned = await self._plan() if peek.newly_empty else 0
        if planned:
            peek = await self._tasks.peek()
        claimed = await self._claim() if peek.due else 0
        if claimed:
            peek = await self._tasks.peek()
        return Swept(planned, claimed, peek.due, _seconds_until(peek.wake_at, peek.now))

    async def _plan(self) -> int:
        planned = 0
        while True:
            now, found = await self._tasks.newly_empty(PLAN_AT_ONCE)
            plans = [plan for task in found if (plan := policy.plan(task, self._current_policy.rules, now)) is not None]
            saved = await self._tasks.save_plans(plans)
            planned += saved
            # None saved: another daemon has planned all of them.
            if len(found) < PLAN_AT_ONCE or not saved:
                return planned

    async def _claim(self) -> int:
        claimed = 0
        while True:
            blocked = self._blocks.blocked()
            limit, full = self._workload.capacity(blocked)
            if limit == 0:
                break
            found = await self._take(limit, except_apps=blocked | full)
            claimed += found
            if found < limit:
                break
        probe = self._blocks.next_probe()
        if probe is not None:
            claimed += await self._take(1, only_app=probe)
        return claimed

    async def _take(self, limit: int, *, except_apps: set[int] | None = None, only_app: int | None = None) -> int:
        self._claims += 1
        # Counted from before the claim, so never later than the end of the lease in the database.
        until = self._clock.monotonic() + self._lease_seconds
        now, claims = await self._tasks.claim(
            f"{self._instance}/{self._claims}",
            limit=limit,
            lease_seconds=self._lease_seconds,
            default_app=self._workload.default_app,
            except_apps=except_apps or (),
            except_tasks=self._workload.tasks,
            only_app=only_app,
        )
        self._database_clock.synchronise(now)
        for reason in chain.from_iterable(claim.abandoned for claim in claims):
            self._observer.attempt(Outcome.UNKNOWN, reason)
        self._stopper.submit(claims, until, probe=only_app is not None)
        return len(claims)


def _seconds_until(moment: datetime | None, now: datetime) -> float | None:
    if moment is None:
        return None
    left = max(0.0, (moment - now).total_seconds())
    # Half the lead is left for tasks that come due shortly after: one sweep claims them all. A nearer task that is not
    # claimed yet is a lease or a retry, and these are never claimed early.
    return left - timing.LEAD_SECONDS / 2 if left > timing.LEAD_SECONDS else left
