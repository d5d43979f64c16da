"""Works on claims: verify the room, decide, then send the stop or give the claim back.

    claim ──► ask the vendor (ten rooms a call) ──► decide ──► keep, wait, unknown: give back, with the reason
                                                       │
                                                       └──► pace ──► is the answer still fresh? ──► send

No transaction is open while the vendor is asked. If anything fails, the lease runs out and the task is claimed again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core import policy
from watchdog.core.model import Api, Evidence, Outcome, Reason
from watchdog.core.policy import Decision, Rule, Verdict
from watchdog.errors import DatabaseError
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import DETAIL_UNSERVED, UNSERVED_SECONDS, Claimed, Finished, StopSettings, announce
from watchdog.services.sender import Sender
from watchdog.services.verification import Verifier
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncTasks
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import Claim, SetAside

log = structlog.get_logger(__name__)

DETAIL_BLOCKED: Final = "returned unsent: ZEGO refuses the AppId"
DETAIL_UNSENT: Final = "returned unsent"
DETAIL_ROW_CHANGED: Final = "the row changed before the request was sent"

_LAST_WORDS_SECONDS: Final = 2.0
_UNSETTLED: Final = {Verdict.STOP, Verdict.UNKNOWN}


@dataclass(kw_only=True, eq=False, repr=False)
class Stopper:
    """Works on claims concurrently, ten rooms of one AppId at a time; ``drain`` waits for all of them.

    ``on_progress`` is called when another sweep would find something to do, ``on_end`` when a task has ended.
    """

    tasks: AsyncTasks
    database_clock: DatabaseClock
    verifier: Verifier
    sender: Sender
    blocks: AppBlocks
    workload: Workload
    settings: StopSettings
    clock: Clock
    on_progress: Callable[[], None] = lambda: None
    on_end: Callable[[], None] = lambda: None
    observer: Observer = field(default_factory=Observer)
    _running: set[asyncio.Task[Finished]] = field(default_factory=set, init=False)
    _dropped: list[tuple[str, BaseException]] = field(default_factory=list, init=False)

    def submit(self, claims: Sequence[Claim], lease_until: float, *, probe: bool = False) -> None:
        """Begin to work on these claims; ``lease_until`` is on the monotonic clock.

        A ``probe`` tests whether ZEGO still refuses the AppId.
        """
        for claim in claims:
            app_id = self.workload.default_app if claim.task.app_id is None else claim.task.app_id
            self._spawn(Claimed(claim, app_id, lease_until, probe=probe))

    def _spawn(self, claimed: Claimed) -> None:
        task = asyncio.create_task(self.work(claimed))
        self._running.add(task)
        self.workload.begin(claimed)

        def finished(task: asyncio.Task[Finished]) -> None:
            self._running.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._note_dropped(claimed, error)
            result = None if task.cancelled() or error is not None else task.result()
            if self.workload.end(claimed, result):
                self.on_progress()
            if result is not None and result.has_ended_the_task:
                self.on_end()

        task.add_done_callback(finished)

    def _note_dropped(self, claimed: Claimed, error: BaseException) -> None:
        """Log claims that broke off; their leases run out, and the tasks are claimed again.

        A failed transaction ends all claims of its group: these are one line.
        """
        if not self._dropped:
            asyncio.get_running_loop().call_soon(self._report_dropped)
        self._dropped.append((claimed.task_id, error))

    def _report_dropped(self) -> None:
        dropped, self._dropped = self._dropped, []
        error = dropped[0][1]
        # An error of the database says all that there is to say; any other one is a defect.
        trace = None if isinstance(error, DatabaseError) else error
        log.error("claims_dropped", error=str(error), tasks=[task_id for task_id, _ in dropped], exc_info=trace)

    async def drain(self, seconds: float | None = None) -> None:
        """Wait for everything in hand; after ``seconds`` the rest is cancelled and recorded as ``unknown``."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in self._running:
            task.cancel()
        if self._running:
            # Bounded: if the database is away, the rows stay `sent` until the lease is over.
            await asyncio.wait(self._running, timeout=_LAST_WORDS_SECONDS)

    def close(self) -> None:
        """Send nothing more: give back what has not been sent yet."""
        self.workload.is_closing = True

    async def work(self, claimed: Claimed) -> Finished:
        """Work on one claim to its end."""
        app_id = claimed.app_id
        if app_id is None or app_id not in self.workload.apps:
            return await self._withhold(claimed, DETAIL_UNSERVED, wake_seconds=UNSERVED_SECONDS)
        if self.blocks.is_blocked(claimed):
            # Since the claim: ZEGO would refuse any request.
            return await self._give_back(claimed, None, DETAIL_BLOCKED)
        seen = self.verifier.newest(claimed, app_id, None)
        decision = self.verifier.decide(claimed, seen)
        # Whether a room of an old task is occupied is worth a question: the hint may be forgotten as well.
        asks_anyway = decision.rule is Rule.OLD_BUT_OCCUPIED and seen is None
        is_settled = decision.verdict not in _UNSETTLED and not asks_anyway
        if not claimed.manual and is_settled:
            # What is known says keep or wait: another answer of the vendor could not change that.
            return await self._decline(claimed, seen, decision)
        return await self._finish(claimed, app_id, await self.verifier.ask(claimed, app_id))

    async def _finish(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> Finished:
        vendor, decision = await self.verifier.confirm(claimed, app_id, vendor)
        if decision.verdict is not Verdict.STOP:
            return await self._decline(claimed, vendor, decision)
        await self._until_nearly_due(claimed)
        if self.verifier.only_observes():
            # At once: another daemon may enforce.
            return await self._give_back(claimed, Outcome.WOULD_STOP, decision.rule, vendor, reason=decision.reason)
        async with self.workload.slot(Api(app_id, claimed.claim.task.kind)) as depart:
            # Again: the answer may have become too old during the wait.
            vendor, decision = await self.verifier.confirm(claimed, app_id, vendor)
            if decision.verdict is not Verdict.STOP:
                return await self._decline(claimed, vendor, decision)
            claimed = await self._renewed(claimed)
            # The mode may have been reloaded during the wait.
            is_late = self.workload.is_closing or not claimed.lease_suffices(self.clock, self.settings)
            if self.verifier.only_observes() or is_late:
                return await self._give_back(claimed, None, DETAIL_UNSENT, vendor)
            if self.blocks.is_blocked(claimed):
                return await self._give_back(claimed, None, DETAIL_BLOCKED, vendor)
            evidence = vendor or claimed.claim.task.evidence
            reason = decision.reason or _reason(claimed, evidence)
            despite_people = decision.rule in policy.PEOPLE_INSIDE
            self.workload.leaving.add(claimed.task_id)
            try:
                sent = await self.sender.send(claimed, app_id, evidence, reason, depart, despite_people=despite_people)
            finally:
                self.workload.leaving.discard(claimed.task_id)
        if sent is None:
            # Since the claim the application ended the task, held it, or saw people come.
            return await self._give_back(claimed, None, DETAIL_ROW_CHANGED, vendor)
        # Outside the slot: the next request need not wait for this commit.
        return await self.sender.conclude(claimed, *sent)

    async def _renewed(self, claimed: Claimed) -> Claimed:
        """Return the claim with a new lease if its own ran short during the wait; as it was if another process has it.

        Where a verification waits for longer than a lease lasts, giving the claim back would stop nothing, ever.
        """
        if self.workload.is_closing or claimed.lease_suffices(self.clock, self.settings):
            return claimed
        until = self.clock.monotonic() + self.settings.lease_seconds
        is_ours = await self.tasks.renew(claimed.claim, self.settings.lease_seconds)
        return replace(claimed, until=until) if is_ours else claimed

    async def _until_nearly_due(self, claimed: Claimed) -> None:
        """Return when the attempt may be committed; at once if the task is due, or not due for long."""
        while True:
            early = (self.verifier.acts_at(claimed) - self.database_clock.now()).total_seconds()
            lead = self.sender.commit_lead.seconds
            if early <= lead:
                return
            await self.clock.sleep(early - lead)

    async def _decline(self, claimed: Claimed, vendor: Evidence | None, decision: Decision) -> Finished:
        """Send nothing, for the reason that was decided."""
        why = self.verifier.unsent(claimed, vendor, decision)
        observed = vendor if why.outcome is Outcome.SPARED else None
        return await self._give_back(
            claimed,
            why.outcome,
            why.detail,
            vendor,
            reason=why.reason,
            observed=observed,
            wake_seconds=why.wake_seconds,
        )

    async def _withhold(self, claimed: Claimed, detail: str, *, wake_seconds: float) -> Finished:
        return await self._give_back(claimed, Outcome.WITHHELD, detail, wake_seconds=wake_seconds)

    async def _give_back(
        self,
        claimed: Claimed,
        outcome: Outcome | None,
        detail: str,
        vendor: Evidence | None = None,
        *,
        reason: Reason | None = None,
        observed: Evidence | None = None,
        wake_seconds: float = 0.0,
    ) -> Finished:
        """Give the claim back without a request, and put the reason into ledger and log.

        The evidence is ``vendor``, or else the hint in the row.
        """
        evidence = vendor or claimed.claim.task.evidence
        why = reason or _reason(claimed, evidence)
        item = SetAside(claimed.claim, claimed.app_id, outcome, why, detail, evidence, observed, wake_seconds)
        noted = await self.tasks.set_aside([item])
        if outcome is not None:
            if noted:
                self.observer.attempt(outcome, why)
            if noted or detail != Rule.GUARDED:
                # The guard reports the tasks that it holds back itself, all together.
                announce(claimed, outcome, reason=why.value, detail=str(detail), people=evidence.user_count)
        return Finished(outcome, str(detail))


def _reason(claimed: Claimed, evidence: Evidence) -> Reason:
    return Reason.MANUAL if claimed.manual else policy.reason(claimed.claim.task, evidence)
