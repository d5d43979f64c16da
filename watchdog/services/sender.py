"""Sends one stop request: commit the attempt as ``sent``, send, record the outcome under the claim's token.

decision to stop ──► commit `sent` ──► lease left? ──► one request ──► outcome ──► ledger and task
"""

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

import structlog

from watchdog.clock import Clock
from watchdog.core import outcomes, policy
from watchdog.core.model import Evidence, Outcome, Reason, Reply
from watchdog.core.outcomes import ReplyClass
from watchdog.core.policy import CurrentPolicy
from watchdog.errors import NoAnswer, NotSent
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import Claimed, Finished, StopSettings, announce
from watchdog.store.aio.threads import Storage
from watchdog.store.tasks import Answer, Intent, Sent
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

DETAIL_LEASE_SHORT: Final = "the lease was too short for a request; nothing was sent"
DETAIL_SHUTDOWN: Final = "shut down before the answer came"
DETAIL_EXHAUSTED: Final = "attempts exhausted"


@dataclass(frozen=True, slots=True)
class Attempted:
    """A committed attempt and its result; ``result`` is None if the lease was too short to send the request."""

    claimed: Claimed
    intent: Intent
    sent: Sent
    result: Reply | NotSent | NoAnswer | None


class _LeaseShort(Exception):
    """The lease would end before a request that is sent now."""


class Sender:
    """Sends stop requests, keeps the ledger and tells the AppId's block. The caller sees to pace and concurrency."""

    def __init__(
        self,
        *,
        storage: Storage,
        zego: ZegoClient,
        pace: Pace,
        blocks: AppBlocks,
        current_policy: CurrentPolicy,
        settings: StopSettings,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._storage = storage
        self._zego = zego
        self._pace = pace
        self._blocks = blocks
        self._current_policy = current_policy
        self._settings = settings
        self._clock = clock
        self._observer = observer or Observer()
        self.requests = 0
        """How many requests have been sent since the start."""

    async def send(self, claimed: Claimed, app_id: int, evidence: Evidence, reason: Reason) -> Attempted | None:
        """Commit the attempt and send the request; pass the result to ``conclude``.

        None if the row has changed since the claim: then nothing is sent or recorded. If it is cancelled during the
        request, it records the attempt as ``unknown`` first.
        """
        task = claimed.claim.task
        auto_stop_at = task.auto_stop_at
        if auto_stop_at is None:
            plan = policy.plan(task, self._current_policy.rules, self._storage.now())
            auto_stop_at = None if plan is None else plan.auto_stop_at
        intent = Intent(claimed.claim, app_id, reason, evidence, auto_stop_at)
        sent = await self._storage.intend(intent)
        if sent is None:
            return None
        gate = partial(self._pass_gate, claimed, app_id, sent)
        try:
            return Attempted(claimed, intent, sent, await self._zego.stop_task(app_id, task.task_id, gate=gate))
        except _LeaseShort:
            return Attempted(claimed, intent, sent, None)
        except (NotSent, NoAnswer) as error:
            self._blocks.postpone(app_id)
            return Attempted(claimed, intent, sent, error)
        except asyncio.CancelledError:
            await self._record(claimed, intent, sent, Outcome.UNKNOWN, DETAIL_SHUTDOWN)
            raise

    async def _pass_gate(self, claimed: Claimed, app_id: int, sent: Sent) -> None:
        """Wait until the prepared request may leave."""
        due_at = claimed.claim.task.due_at
        if sent.sent_at == due_at:
            # Committed a little early. The wait is bounded: the clock may have jumped.
            early = (sent.sent_at - self._storage.now()).total_seconds()
            await self._clock.sleep(min(max(0.0, early), policy.COMMIT_LEAD_SECONDS))
        await self._pace.leave(app_id)
        if not claimed.lease_suffices(self._clock, self._settings):
            raise _LeaseShort
        if due_at is not None and sent.attempt == 1 and not claimed.manual:
            self._observer.sent((self._storage.now() - due_at).total_seconds())
        self.requests += 1

    async def conclude(self, attempted: Attempted) -> Finished:
        """Record the outcome."""
        claimed, intent, sent = attempted.claimed, attempted.intent, attempted.sent
        match attempted.result:
            case None:
                return await self._record(claimed, intent, sent, Outcome.WITHHELD, DETAIL_LEASE_SHORT)
            case NotSent() as error:
                outcome = Outcome.REJECTED if self._exhausted(intent, sent) else Outcome.RETRY
                return await self._record(claimed, intent, sent, outcome, str(error))
            case NoAnswer() as error:
                return await self._record(claimed, intent, sent, Outcome.UNKNOWN, str(error))
            case Reply() as reply:
                return await self._answered(claimed, intent, sent, reply)
            case never:
                assert_never(never)

    async def _answered(self, claimed: Claimed, intent: Intent, sent: Sent, reply: Reply) -> Finished:
        reply_class = outcomes.classify(reply)
        outcome = outcomes.conclude(
            reply_class,
            earlier_unknown=claimed.claim.earlier_unknown,
            at_or_after_auto_stop=self._past_auto_stop(intent),
            exhausted=self._exhausted(intent, sent),
        )
        if reply_class is ReplyClass.THROTTLED:
            self._pace.throttled(intent.app_id)
        else:
            self._pace.answered(intent.app_id)
        if outcome is Outcome.BLOCKED:
            self._blocks.block(intent.app_id, reply_class, reply)
        else:
            self._blocks.unblock(intent.app_id)
        detail = reply.excerpt
        if outcome is Outcome.REJECTED and reply_class is not ReplyClass.REJECTED:
            detail = DETAIL_EXHAUSTED if detail is None else f"{DETAIL_EXHAUSTED}; {detail}"
        # The reply has taught us the clock offset: the next signature is right, so retry without delay.
        at_once = reply_class is ReplyClass.CLOCK and sent.attempt == 1
        return await self._record(claimed, intent, sent, outcome, detail, reply, wake_seconds=0.0 if at_once else None)

    def _past_auto_stop(self, intent: Intent) -> bool:
        return intent.auto_stop_at is not None and self._storage.now() >= intent.auto_stop_at

    def _exhausted(self, intent: Intent, sent: Sent) -> bool:
        return outcomes.is_exhausted(
            sent.attempt, self._settings.max_attempts, past_auto_stop=self._past_auto_stop(intent)
        )

    async def _record(
        self,
        claimed: Claimed,
        intent: Intent,
        sent: Sent,
        outcome: Outcome,
        detail: str | None,
        reply: Reply | None = None,
        *,
        wake_seconds: float | None = None,
    ) -> Finished:
        now = self._storage.now()
        if wake_seconds is None:
            left = None if intent.auto_stop_at is None else (intent.auto_stop_at - now).total_seconds()
            wake_seconds = outcomes.backoff_seconds(sent.attempt, left, random.random())  # noqa: S311 - jitter
        answer = Answer(
            claim=claimed.claim,
            sent=sent,
            outcome=outcome,
            replied_at=None if reply is None else max(now, sent.sent_at),
            reply=reply,
            detail=detail,
            status=outcomes.TASK_BECOMES[outcome],
            wake_seconds=wake_seconds,
        )
        in_time = await self._storage.record(answer)
        if in_time:
            self._observer.attempt(outcome, intent.reason)
        if outcome is Outcome.STOPPED and intent.auto_stop_at is not None:
            self._observer.stopped((intent.auto_stop_at - now).total_seconds())
        announce(
            claimed,
            outcome,
            attempt=sent.attempt,
            reason=intent.reason.value,
            http_status=None if reply is None else reply.http_status,
            code=None if reply is None else reply.code,
            message=None if reply is None else reply.message,
            request_id=None if reply is None else reply.request_id,
            detail=detail,
            retry_in_seconds=None if answer.status is not None else round(wake_seconds, 3),
        )
        if not in_time:
            log.warning("answer_came_after_lease", task_id=claimed.task_id, attempt=sent.attempt)
        return Finished(outcome, detail, reply)
