"""Decides whether a claimed task may be stopped: by its row, by the vendor's answer, and by the guard."""

import math
from dataclasses import dataclass
from datetime import datetime

from watchdog.core import policy, timing
from watchdog.core.model import Evidence, Mode, Verify
from watchdog.core.policy import CurrentPolicy, Decision, Rule, Verdict
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import Claimed
from watchdog.services.feed import HintFeed
from watchdog.services.guard import StopGuard
from watchdog.services.occupancy import Occupancy
from watchdog.services.sightings import Sightings
from watchdog.store.aio.database_clock import DatabaseClock


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

        Then the empty spell was interrupted, even if the room is empty again. Only an operator's order takes the later
        of the two.
        """
        moments = [claimed.claim.task.user_count_at, vendor.observed_at if vendor and claimed.manual else None]
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
        refusal = self.occupancy.refusal(app_id)
        if refusal is None or self.current_policy.rules.verify is Verify.REQUIRED:
            self.blocks.note_verification(app_id, refusal)
        return vendor

    def is_refused(self, claimed: Claimed, app_id: int) -> bool:
        """Whether the vendor refuses to say anything of this room."""
        return self.occupancy is not None and self.occupancy.is_refused(app_id, claimed.room_id)

    async def confirm(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> tuple[Evidence | None, Decision]:
        """Decide by ``vendor``; ask once more if that answer is too old. Returns evidence and decision."""
        vendor = self.newest(claimed, app_id, vendor)
        decision = self.decide(claimed, vendor)
        if vendor is not None and decision.rule is Rule.UNCONFIRMED:
            vendor = self.newest(claimed, app_id, await self.ask(claimed, app_id, at_once=True))
            decision = self.decide(claimed, vendor)
        if decision.rule is Rule.HINT_SAYS_EMPTY and not claimed.manual and not self.guard.allows(claimed.task_id):
            decision = Decision(Verdict.UNKNOWN, Rule.GUARDED)
        return vendor, decision
