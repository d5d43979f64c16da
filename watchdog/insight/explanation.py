"""Why a task is stopped, is not stopped yet, or has ended: the facts and the decision behind ``explain``."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from watchdog.core.kinds import KINDS
from watchdog.core.model import Evidence, Outcome, Reason, Source, Status
from watchdog.core.policy import Decision, Plan, Policy, Rule, Verdict, contradicts, decide, limits, plan, window
from watchdog.store.reports.history import Row
from watchdog.store.reports.tasks import Biography

FINAL: Final = {
    *(Outcome.STOPPED, Outcome.STOPPED_EARLIER, Outcome.GONE, Outcome.AUTO_STOPPED, Outcome.REJECTED),
}
"""The outcomes that end a task."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something happens to an active task. ``due_at`` and ``auto_stop_at`` are None without an empty room.

    ``is_planned``: a daemon has stored the plan. ``hold_until`` and ``lease_until`` are None unless they lie ahead.
    """

    due_at: datetime | None
    is_planned: bool
    auto_stop_at: datetime | None
    window_seconds: float | None
    hold_until: datetime | None
    claimed_by: str | None
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One task; ``decision`` is None if its row was deleted, ``plan`` unless it is active.

    ``dead_feed_seconds`` is how long no hint has arrived for any room, None while the feed is alive.
    """

    task_id: str
    story: Biography
    policy: Policy
    decision: Decision | None
    plan: Plan | None
    newest_hint_at: datetime | None
    dead_feed_seconds: float | None

    @property
    def ending(self) -> Row | None:
        """The attempt that ended the task; None without one."""
        return next((row for row in reversed(self.story.attempts) if row["outcome"] in FINAL), None)

    @property
    def end_reason(self) -> Reason | None:
        """Why it was stopped; None if ZEGO's auto-stop was first, or nothing is recorded."""
        last = self.ending
        return None if last is None or last["outcome"] == Outcome.AUTO_STOPPED else Reason(last["reason"])

    @property
    def contradicted_at(self) -> datetime | None:
        """When ZEGO was last asked about a room in which only the application has ever seen people; else None.

        The row does not say whether ZEGO answered. If it had seen anybody, the row would say so.
        """
        task = self.story.task
        if task is None or task.status is not Status.ACTIVE or task.user_count_at is None:
            return None
        nobody = Evidence(0, task.asked_at, Source.API)
        return task.asked_at if task.asked_at > task.user_count_at and contradicts(task, nobody) else None

    @property
    def grace_seconds(self) -> float:
        """How long the room of the task must stay empty; of a row that is gone, the policy's."""
        task = self.story.task
        if task is None:
            return self.policy.grace_seconds
        own = limits(KINDS[task.kind], self.policy).grace_seconds
        return own if task.grace_seconds is None else task.grace_seconds

    @property
    def schedule(self) -> Schedule | None:
        """What is planned for an active task; None if it has ended."""
        task, now = self.story.task, self.story.now
        if task is None or task.status is not Status.ACTIVE:
            return None
        is_ahead = task.claimed_by is not None and task.wake_at is not None and task.wake_at > now
        length = window(task, self.policy)
        return Schedule(
            due_at=task.due_at or (None if self.plan is None else self.plan.due_at),
            is_planned=task.due_at is not None,
            auto_stop_at=task.auto_stop_at or (None if self.plan is None else self.plan.auto_stop_at),
            window_seconds=None if length is None else length.total_seconds(),
            hold_until=task.hold_until if task.hold_until is not None and task.hold_until > now else None,
            claimed_by=task.claimed_by if is_ahead else None,
            lease_until=task.wake_at if is_ahead else None,
        )


def explain(story: Biography, task_id: str, policy: Policy, hinted_at: datetime | None, silence: float) -> Explanation:
    """Decide about a task as the daemon would now, without asking ZEGO.

    ``hinted_at`` is when the newest hint of any room was observed; after ``silence`` seconds without one the feed of
    hints counts as dead.
    """
    task, now = story.task, story.now
    decision = None if task is None else decide(task, None, policy, now, watching_since=story.watching_since)
    if decision is not None and decision.rule is Rule.HINT_SAYS_EMPTY and story.guard_tripped:
        decision = Decision(Verdict.UNKNOWN, Rule.GUARDED)
    silent = None if hinted_at is None else (now - hinted_at).total_seconds()
    return Explanation(
        task_id=task_id,
        story=story,
        policy=policy,
        decision=decision,
        plan=None if task is None or task.status is not Status.ACTIVE else plan(task, policy, now),
        newest_hint_at=hinted_at,
        dead_feed_seconds=None if silent is None or silent <= silence else silent,
    )
