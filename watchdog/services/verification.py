"""Decides whether a claimed task may be stopped: by its row, by the vendor's answer, and by the guard."""

from collections.abc import Mapping, Sequence
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
from watchdog.store.aio.database_clock import DatabaseClock


@dataclass(kw_only=True, eq=False, repr=False)
class Verifier:
    """Asks the vendor where the policy wants it. Without ``occupancy`` the vendor is never asked."""

    database_clock: DatabaseClock
    occupancy: Occupancy | None
    feed: HintFeed
    guard: StopGuard
    blocks: AppBlocks
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

    def acts_at(self, claimed: Claimed) -> datetime:
        """The task's due time if that is near, else now."""
        now = self.database_clock.now()
        return timing.acts_at(claimed.claim.task, now, timing.LEAD_SECONDS, manual=claimed.manual)

    def only_observes(self) -> bool:
        """Whether the mode is ``observe``: decide, but send nothing."""
        return self.current_policy.rules.mode is Mode.OBSERVE

    async def ask(self, app_id: int, rooms: Sequence[str]) -> Mapping[str, Evidence]:
        """What the vendor says of each room; empty if it does not answer or need not be asked."""
        if self.occupancy is None or self.current_policy.rules.verify is Verify.OFF or not rooms:
            return {}
        answers = await self.occupancy.ask(app_id, rooms)
        refusal = self.occupancy.refusal(app_id)
        if refusal is None or self.current_policy.rules.verify is Verify.REQUIRED:
            self.blocks.note_verification(app_id, refusal)
        return answers

    async def confirm(self, claimed: Claimed, app_id: int, vendor: Evidence | None) -> tuple[Evidence | None, Decision]:
        """Decide by ``vendor``; ask once more if that answer is too old. Returns the answer used, and the decision."""
        decision = self.decide(claimed, vendor)
        if vendor is not None and decision.rule is Rule.UNCONFIRMED:
            vendor = (await self.ask(app_id, [claimed.room_id])).get(claimed.room_id)
            decision = self.decide(claimed, vendor)
        if decision.rule is Rule.HINT_SAYS_EMPTY and not claimed.manual and not self.guard.allows(claimed.task_id):
            decision = Decision(Verdict.UNKNOWN, Rule.GUARDED)
        return vendor, decision
