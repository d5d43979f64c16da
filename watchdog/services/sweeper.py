"""One sweep: plan the newly empty, claim the due, hand them to the stopper. Short; it never waits for the vendor."""

from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final

from watchdog.clock import Clock
from watchdog.core import policy, timing
from watchdog.core.circuit_breaker import Breaker
from watchdog.core.model import Outcome
from watchdog.core.policy import CurrentPolicy
from watchdog.observer import Observer
from watchdog.services.stopper import Stopper
from watchdog.store.aio.threads import Storage

PLAN_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, whether due rows remain, and in how many seconds to sweep again (None: nothing is planned)."""

    planned: int
    claimed: int
    due: bool
    wake_seconds: float | None


class Sweeper:
    """Narrow down by SQL, decide by policy. ``instance`` is unlike any other process's, past or present."""

    def __init__(
        self,
        *,
        storage: Storage,
        stopper: Stopper,
        breaker: Breaker,
        policy_in_force: CurrentPolicy,
        lease_seconds: float,
        instance: str,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._storage = storage
        self._stopper = stopper
        self._breaker = breaker
        self._in_force = policy_in_force
        self._lease_seconds = lease_seconds
        self._instance = instance
        self._clock = clock
        self._observer = observer or Observer()
        self._claims = 0

    async def run_once(self) -> Swept:
        """One pass. Raises DatabaseError; a sweep that failed half-way has lost nothing."""
        peek = await self._storage.call(self._storage.store.peek)
        self._storage.synchronise(peek.now)
        planned = await self._plan() if peek.newly_empty else 0
        if planned:
            peek = await self._storage.call(self._storage.store.peek)
        claimed = await self._claim() if peek.due else 0
        if claimed:
            peek = await self._storage.call(self._storage.store.peek)
        return Swept(planned, claimed, peek.due, _seconds_until(peek.wake_at, peek.now))

    async def _plan(self) -> int:
        planned = 0
        while True:
            now, found = await self._storage.call(self._storage.store.newly_empty, PLAN_AT_ONCE)
            plans = [plan for task in found if (plan := policy.plan(task, self._in_force.rules, now)) is not None]
            saved = await self._storage.call(self._storage.store.save_plans, plans)
            planned += saved
            # None saved: another daemon was quicker with all of them.
            if len(found) < PLAN_AT_ONCE or not saved:
                return planned

    async def _claim(self) -> int:
        claimed = 0
        while True:
            unserved = self._breaker.unserved()
            limit, full = self._stopper.capacity(unserved)
            if limit == 0:
                break
            found = await self._take(limit, except_apps=unserved | full)
            claimed += found
            if found < limit:
                break
        probe = self._breaker.probe(self._clock.monotonic())
        if probe is not None:
            claimed += await self._take(1, only_app=probe)
        return claimed

    async def _take(self, limit: int, *, except_apps: set[int] | None = None, only_app: int | None = None) -> int:
        self._claims += 1
        # From before the claim: the lease we reckon with is never longer than the one in the database.
        until = self._clock.monotonic() + self._lease_seconds
        now, claims = await self._storage.call(
            self._storage.store.claim,
            f"{self._instance}/{self._claims}",
            limit=limit,
            lease_seconds=self._lease_seconds,
            default_app=self._stopper.default_app,
            except_apps=except_apps or (),
            except_tasks=self._stopper.tasks_in_hand,
            only_app=only_app,
        )
        self._storage.synchronise(now)
        for reason in chain.from_iterable(claim.abandoned for claim in claims):
            self._observer.attempt(Outcome.UNKNOWN, reason)
        self._stopper.submit(claims, until, probe=only_app is not None)
        return len(claims)


def _seconds_until(moment: datetime | None, now: datetime) -> float | None:
    if moment is None:
        return None
    left = max(0.0, (moment - now).total_seconds())
    # Half the lead is for those that come due shortly after; one sweep claims them all. What is nearer and has not been
    # claimed is a lease or a retry, which nobody takes up early.
    return left - timing.LEAD_SECONDS / 2 if left > timing.LEAD_SECONDS else left
