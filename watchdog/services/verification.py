"""Decides whether a claimed task may be stopped: by its row, by the vendor's answer, and by the guard."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from watchdog.core import policy, timing
from watchdog.core.guard import HELD_RECHECK_SECONDS
from watchdog.core.model import Evidence, Mode, Outcome, Reason, Verify
from watchdog.core.policy import CurrentPolicy, Decision, Rule, Verdict
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import Claimed
from watchdog.services.feed import HintFeed
from watchdog.services.guard import StopGuard
from watchdog.services.occupancy import Occupancy
from watchdog.services.sightings import Sightings
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import DETAIL_ROOM_REFUSED


@dataclass(frozen=True, slots=True)
class Unsent:
    """Why nothing is sent, and when to look again; without an ``outcome`` the ledger gets no row.

    ``reason`` is why the task was to be stopped; None: see ``policy.reason``.
    """

    outcome: Outcome | None
    detail: str
    wake_seconds: float
    reason: Reason | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class Verifier:
    """Asks the vendor where the policy wants it. Without ``occupancy`` the vendor is never asked."""

    database_clock: DatabaseClock
    occupancy: Occupancy | None
    feed: HintFeed
    guard: StopGuard
    blocks: AppBlocks
    sightings: Sightings
    current_policy: CurrentPolicy

    def decide(self, claimed: Claimed, vendor: Evidence | None = None) -> Decision:
        """The policy's decision, as of the moment at which the request may leave: a claim may come a little early."""
        return policy.decide(
            claimed.claim.task,
            vendor,
            self.current_policy.rules,
            self.acts_at(claimed),
            watching_since=self.feed.trusted_since,
            manual=claimed.manual,
        )

    def newest(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> Evidence | None:
        """``vendor``, unless this process has seen people in the room since the hint in the row.

        Then the empty spell was interrupted, even if the room is empty again. Without a plan there is no spell: an
        operator's order, and a stop for the task's age, take the later of the two.
        """
        moments = [claimed.claim.task.user_count_at, vendor.observed_at if vendor and claimed.is_unplanned else None]
        since = max((moment for moment in moments if moment is not None), default=None)
        return self.sightings.since(app_id, claimed.room_id, since) or vendor

    def acts_at(self, claimed: Claimed) -> datetime:
        """The task's due time if that is near, else now."""
        now = self.database_clock.now()
        return timing.acts_at(claimed.claim.task, now, timing.LEAD_SECONDS, manual=claimed.manual)

    def only_observes(self) -> bool:
        """Whether the mode is ``observe``: decide, but send nothing."""
        return self.current_policy.rules.mode is Mode.OBSERVE

    async def ask(self, claimed: Claimed, app_id: int, *, at_once: bool = False) -> Evidence | None:
        """What the vendor says of the task's room; None if it does not answer or need not be asked.

        The tasks that ZEGO would end first are asked about first; ``at_once`` comes before all of them.
        """
        if self.occupancy is None or self.current_policy.rules.verify is Verify.OFF:
            return None
        auto_stop_at = claimed.claim.task.auto_stop_at
        urgency = math.inf if auto_stop_at is None else auto_stop_at.timestamp()
        vendor = await self.occupancy.verify(
            app_id, claimed.room_id, -math.inf if at_once or claimed.manual else urgency
        )
        self._note_refusal(self.occupancy, app_id)
        return vendor

    async def ask_in_background(self, app_id: int, room_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """What the vendor says of at most ten rooms, with what the verifications of real stops leave of the pace."""
        if self.occupancy is None or self.current_policy.rules.verify is Verify.OFF:
            return {}
        answers = await self.occupancy.ask(app_id, room_ids)
        self._note_refusal(self.occupancy, app_id)
        return answers

    def _note_refusal(self, occupancy: Occupancy, app_id: int) -> None:
        refusal = occupancy.refusal(app_id)
        if refusal is None or self.current_policy.rules.verify is Verify.REQUIRED:
            self.blocks.note_verification(app_id, refusal)

    async def confirm(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> tuple[Evidence | None, Decision]:
        """As ``judge``, but ask once more if the answer is too old."""
        known, decision = self.judge(claimed, app_id, vendor)
        if known is not None and decision.rule in {Rule.UNCONFIRMED, Rule.OLD_UNANSWERED}:
            return self.judge(claimed, app_id, await self.ask(claimed, app_id, at_once=True))
        return known, decision

    def judge(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> tuple[Evidence | None, Decision]:
        """Decide by what is known and by the guard; return the evidence used and the decision."""
        known = self.newest(claimed, app_id, vendor)
        decision = self.decide(claimed, known)
        if decision.rule in policy.UNVERIFIED and not claimed.manual and not self.guard.allows(claimed.task_id):
            decision = Decision(Verdict.UNKNOWN, Rule.GUARDED, reason=decision.reason)
        return known, decision

    def unsent(self, claimed: Claimed, vendor: Evidence | None, decision: Decision) -> Unsent:
        """What to record if ``decision`` is not to stop, and when to look again."""
        now = self.database_clock.now()
        for_age = decision.reason is Reason.MAX_AGE and claimed.is_unplanned
        match decision.verdict:
            case Verdict.UNKNOWN:
                seconds = timing.OLD_AGAIN_SECONDS if for_age else timing.recheck_seconds(claimed.claim.task, now)
                if decision.rule is Rule.GUARDED:
                    seconds = min(seconds, HELD_RECHECK_SECONDS)
                is_refused = (
                    self.occupancy is not None
                    and claimed.app_id is not None
                    and self.occupancy.is_refused(claimed.app_id, claimed.room_id)
                )
                detail = DETAIL_ROOM_REFUSED if is_refused else decision.rule
                return Unsent(Outcome.WITHHELD, detail, seconds, decision.reason)
            case Verdict.KEEP if decision.rule is Rule.OLD_BUT_OCCUPIED:
                return Unsent(Outcome.SPARED, decision.rule, timing.OLD_AGAIN_SECONDS, decision.reason)
            case Verdict.KEEP if vendor is not None and vendor.user_count:
                return Unsent(Outcome.SPARED, decision.rule, 0.0)
            case _:
                wait = 0.0 if decision.until is None else (decision.until - now).total_seconds()
                return Unsent(None, decision.rule, max(0.0, wait))
