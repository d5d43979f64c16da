"""Sends one stop request: commit the attempt as ``sent``, send, record the outcome under the claim's token.

decision to stop ──► commit `sent` ──► lease left? ──► one request ──► outcome ──► ledger and task
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from watchdog.clock import Clock
from watchdog.core import outcomes, policy, timing
from watchdog.core.kinds import KINDS
from watchdog.core.model import Api, Evidence, Outcome, Reason, Reply
from watchdog.core.outcomes import ReplyClass
from watchdog.core.policy import CurrentPolicy
from watchdog.core.savings import freed_seconds
from watchdog.errors import NoAnswer, NotSent
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import Claimed, Finished, StopSettings, announce
from watchdog.services.sightings import Sightings
from watchdog.services.workload import Workload
from watchdog.store.aio.answers import Answers
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import Attempt, Intent
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Depart, Pace

log = structlog.get_logger(__name__)

DETAIL_LEASE_SHORT: Final = "the lease was too short for a request; nothing was sent"
DETAIL_OCCUPIED: Final = "ZEGO has just seen people in the room; nothing was sent"
DETAIL_SHUTDOWN: Final = "shut down before the answer came"
DETAIL_SHUTDOWN_UNSENT: Final = "shut down before the request left; nothing was sent"
DETAIL_EXHAUSTED: Final = "attempts exhausted"


class Withheld(Exception):
    """The attempt is committed, but its request must not leave; the message says why."""


Result = Reply | NotSent | NoAnswer | Withheld
"""The result of an attempt."""


@dataclass(kw_only=True, eq=False, repr=False)
class Sender:
    """Sends stop requests, keeps the ledger and tells the AppId's block. The caller sees to pace and concurrency.

    ``paces`` are those of each kind of tasks: they learn from the replies.
    """

    answers: Answers
    database_clock: DatabaseClock
    zego: ZegoClient
    paces: Mapping[str, Pace[int]]
    blocks: AppBlocks
    workload: Workload
    sightings: Sightings
    current_policy: CurrentPolicy
    settings: StopSettings
    clock: Clock
    observer: Observer = field(default_factory=Observer)
    commit_lead: timing.CommitLead = field(default_factory=timing.CommitLead)

    async def send(
        self,
        claimed: Claimed,
        app_id: int,
        evidence: Evidence,
        reason: Reason,
        depart: Depart,
        *,
        despite_people: bool = False,
    ) -> tuple[Attempt, Result] | None:
        """Commit the attempt and send the request; pass both values to ``conclude``.

        None if the row has changed since the claim: then nothing is sent or recorded. If it is cancelled during the
        request, it records the attempt as ``unknown`` first.
        """
        task = claimed.claim.task
        rules = self.current_policy.rules
        # A plan by a program that took the task for one of ASR has a time at which ZEGO does nothing.
        auto_stop_at = None if policy.window(task, rules) is None else task.auto_stop_at
        if auto_stop_at is None:
            plan = policy.plan(task, rules, self.database_clock.now())
            auto_stop_at = None if plan is None else plan.auto_stop_at
        intent = Intent(claimed.claim, app_id, reason, evidence, auto_stop_at, despite_people)
        began = self.clock.monotonic()
        attempt = await self.answers.intend(intent)
        self.commit_lead.note(self.clock.monotonic() - began)
        if attempt is None:
            return None
        has_left = False

        async def gate() -> None:
            nonlocal has_left
            await self._pass_gate(claimed, attempt, depart)
            has_left = True

        try:
            return attempt, await self.zego.stop_task(app_id, task.task_id, kind=task.kind, gate=gate)
        except Withheld as withheld:
            return attempt, withheld
        except (NotSent, NoAnswer) as error:
            self.blocks.postpone(Api(app_id, task.kind))
            return attempt, error
        except asyncio.CancelledError:
            if has_left:
                await self._record(claimed, attempt, Outcome.UNKNOWN, DETAIL_SHUTDOWN)
            else:
                await self._record(claimed, attempt, Outcome.WITHHELD, DETAIL_SHUTDOWN_UNSENT)
            raise

    async def _pass_gate(self, claimed: Claimed, attempt: Attempt, depart: Depart) -> None:
        """Wait until the prepared request may leave."""
        due_at = claimed.claim.task.due_at
        if attempt.sent_at == due_at:
            # Committed a little early. The wait is bounded: the clock may have jumped.
            early = (attempt.sent_at - self.database_clock.now()).total_seconds()
            await self.clock.sleep(min(max(0.0, early), timing.COMMIT_LEAD_SECONDS))
        await depart()
        if not claimed.lease_suffices(self.clock, self.settings):
            raise Withheld(DETAIL_LEASE_SHORT)
        intent = attempt.intent
        known_at = intent.evidence.observed_at if claimed.is_unplanned else claimed.claim.task.user_count_at
        if not intent.despite_people and self.sightings.since(intent.app_id, claimed.room_id, known_at) is not None:
            raise Withheld(DETAIL_OCCUPIED)
        if due_at is not None and attempt.number == 1 and not claimed.manual:
            self.observer.sent((self.database_clock.now() - due_at).total_seconds())
        self.workload.requests += 1
        self.workload.leaving.discard(claimed.task_id)

    async def conclude(self, claimed: Claimed, attempt: Attempt, result: Result) -> Finished:
        """Record the outcome."""
        match result:
            case Withheld():
                return await self._record(claimed, attempt, Outcome.WITHHELD, str(result))
            case NotSent():
                outcome = Outcome.REJECTED if self._is_exhausted(attempt) else Outcome.RETRY
                return await self._record(claimed, attempt, outcome, str(result))
            case NoAnswer():
                return await self._record(claimed, attempt, Outcome.UNKNOWN, str(result))
            case Reply():
                return await self._answered(claimed, attempt, result)
            case never:
                assert_never(never)

    async def _answered(self, claimed: Claimed, attempt: Attempt, reply: Reply) -> Finished:
        api = Api(attempt.intent.app_id, claimed.claim.task.kind)
        pace = self.paces[claimed.claim.task.kind]
        reply_class = outcomes.classify(KINDS[claimed.claim.task.kind], reply)
        outcome = outcomes.conclude(
            reply_class,
            earlier_unknown=claimed.claim.earlier_unknown,
            at_or_after_auto_stop=self._is_past_auto_stop(attempt),
            exhausted=self._is_exhausted(attempt),
        )
        if reply_class is ReplyClass.THROTTLED:
            pace.throttled(api.app_id)
        else:
            pace.answered(api.app_id)
        if outcome is Outcome.BLOCKED:
            self.blocks.block(api, reply_class, reply)
        else:
            self.blocks.unblock(api)
        detail = reply.excerpt
        if outcome is Outcome.REJECTED and reply_class is not ReplyClass.REJECTED:
            detail = DETAIL_EXHAUSTED if detail is None else f"{DETAIL_EXHAUSTED}; {detail}"
        # The reply has taught us the clock offset: the next signature is right, so retry without delay.
        at_once = reply_class is ReplyClass.CLOCK and attempt.number == 1
        return await self._record(claimed, attempt, outcome, detail, reply, wake_seconds=0.0 if at_once else None)

    def _is_past_auto_stop(self, attempt: Attempt) -> bool:
        auto_stop_at = attempt.intent.auto_stop_at
        return auto_stop_at is not None and self.database_clock.now() >= auto_stop_at

    def _is_exhausted(self, attempt: Attempt) -> bool:
        return outcomes.is_exhausted(
            attempt.number,
            self.settings.max_attempts,
            auto_stop_at=attempt.intent.auto_stop_at,
            due_at=attempt.intent.claim.task.due_at,
            now=self.database_clock.now(),
        )

    async def _record(
        self,
        claimed: Claimed,
        attempt: Attempt,
        outcome: Outcome,
        detail: str | None,
        reply: Reply | None = None,
        *,
        wake_seconds: float | None = None,
    ) -> Finished:
        now, intent = self.database_clock.now(), attempt.intent
        left = None if intent.auto_stop_at is None else (intent.auto_stop_at - now).total_seconds()
        if wake_seconds is None:
            wake_seconds = outcomes.backoff_seconds(attempt.number, left, random.random())  # noqa: S311 - jitter
        answer = attempt.answer(
            outcome,
            replied_at=None if reply is None else max(now, attempt.sent_at),
            reply=reply,
            detail=detail,
            wake_seconds=wake_seconds,
        )
        in_time = await self.answers.record(answer)
        if in_time:
            self.observer.attempt(outcome, intent.reason)
        if outcome is Outcome.STOPPED and left is not None:
            self.observer.stopped(left)
        # After the lease, another process may have sent a request and counts it: rather none than twice.
        freed = freed_seconds(outcome, intent.reason, answer.replied_at or now, intent.auto_stop_at)
        if in_time and freed is not None:
            self.observer.freed(freed)
        announce(
            claimed,
            outcome,
            attempt=answer.attempt,
            reason=intent.reason.value,
            http_status=answer.http_status,
            code=answer.code,
            message=answer.message,
            request_id=answer.request_id,
            detail=detail,
            retry_in_seconds=None if answer.status is not None else round(wake_seconds, 3),
        )
        if not in_time:
            log.warning("answer_came_after_lease", task_id=answer.task_id, attempt=answer.attempt)
        return Finished(outcome, detail, reply)
