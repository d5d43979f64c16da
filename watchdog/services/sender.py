"""One attempt: commit it as ``sent``, send one request, record what came of it under the claim's token.

decision to stop ──► commit `sent` ──► lease left? ──► one request ──► outcome ──► ledger and task
"""

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

import structlog

from watchdog.clock import Clock
from watchdog.core import outcomes, policy, timing
from watchdog.core.circuit_breaker import Breaker
from watchdog.core.model import Evidence, Outcome, Reason, Reply
from watchdog.core.outcomes import ReplyClass
from watchdog.core.policy import CurrentPolicy
from watchdog.errors import NoAnswer, NotSent
from watchdog.observer import Observer
from watchdog.store.aio.threads import Storage
from watchdog.store.tasks import Answer, Claim, Intent, Sent
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

DETAIL_LEASE_SHORT: Final = "the lease was too short for a request; nothing was sent"
DETAIL_SHUTDOWN: Final = "shut down before the answer came"
DETAIL_EXHAUSTED: Final = "attempts exhausted"

_LOUDNESS: Final = {
    **dict.fromkeys((Outcome.BLOCKED, Outcome.REJECTED), "error"),
    **dict.fromkeys((Outcome.AUTO_STOPPED, Outcome.UNKNOWN, Outcome.RETRY, Outcome.WITHHELD), "warning"),
}


@dataclass(frozen=True, slots=True)
class StopSettings:
    """How stopping is done; durations in seconds. ``config.yaml`` explains each."""

    concurrency: int = 32
    request_timeout_seconds: float = 8
    lease_seconds: float = 20
    max_attempts: int = 20


@dataclass(frozen=True, slots=True)
class Held:
    """A claim in our hands; ``until`` is when its lease ends by our monotonic clock, reckoned from before we asked.

    ``manual`` is an operator's own order; a ``probe`` finds out whether ZEGO still refuses the AppId.
    """

    claim: Claim
    app_id: int | None
    until: float
    manual: bool = False
    probe: bool = False

    def lease_suffices(self, clock: Clock, settings: StopSettings) -> bool:
        """Whether a request sent now is over before somebody else may take the task."""
        return self.until - clock.monotonic() > settings.request_timeout_seconds


@dataclass(frozen=True, slots=True)
class Finished:
    """What a claim came to; ``outcome`` None where the row was given back without a word in the ledger."""

    outcome: Outcome | None
    detail: str | None
    reply: Reply | None = None

    @property
    def has_ended_the_task(self) -> bool:
        """False where its row is to be looked at again."""
        return self.outcome is not None and outcomes.TASK_BECOMES[self.outcome] is not None


@dataclass(frozen=True, slots=True)
class Attempted:
    """A committed attempt and what came of its request; ``result`` None where the lease was too short to send it."""

    held: Held
    intent: Intent
    sent: Sent
    result: Reply | NotSent | NoAnswer | None


def announce(held: Held, outcome: Outcome, **fields: object) -> None:
    """Log one event per outcome, ids as fields; the same everywhere an outcome arises."""
    task = held.claim.task
    getattr(log, _LOUDNESS.get(outcome, "info"))(
        outcome.value,
        task_id=task.task_id,
        room_id=task.room_id,
        app_id=held.app_id,
        outcome=outcome.value,
        **{name: value for name, value in fields.items() if value is not None},
    )


class _LeaseShort(Exception):
    """A request sent now might be under way when somebody else may take the task."""


class Sender:
    """Sends stop requests. Pace and concurrency are the caller's; the ledger and the AppId's breaker are ours."""

    def __init__(
        self,
        *,
        storage: Storage,
        zego: ZegoClient,
        pace: Pace,
        breaker: Breaker,
        policy_in_force: CurrentPolicy,
        settings: StopSettings,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._storage = storage
        self._zego = zego
        self._pace = pace
        self._breaker = breaker
        self._in_force = policy_in_force
        self._settings = settings
        self._clock = clock
        self.observer = observer or Observer()
        self.requests = 0
        """How many have been sent since the start."""

    async def send(self, held: Held, app_id: int, evidence: Evidence, reason: Reason) -> Attempted | None:
        """Commit the attempt and send it; whoever asked for it then passes what is returned to ``conclude``.

        None, with nothing sent or recorded, when the row has changed since it was claimed. Cancelled while the request
        is under way, it records the attempt as ``unknown`` first.
        """
        task = held.claim.task
        auto_stop_at = task.auto_stop_at
        if auto_stop_at is None and (plan := policy.plan(task, self._in_force.rules, self._storage.now())) is not None:
            auto_stop_at = plan.auto_stop_at
        intent = Intent(held.claim, app_id, reason, evidence, auto_stop_at)
        sent = await self._storage.intend(intent)
        if sent is None:
            return None
        gate = partial(self._pass_gate, held, app_id, sent)
        try:
            return Attempted(held, intent, sent, await self._zego.stop_task(app_id, task.task_id, gate=gate))
        except _LeaseShort:
            return Attempted(held, intent, sent, None)
        except (NotSent, NoAnswer) as error:
            self._breaker.postpone(app_id, self._clock.monotonic())
            return Attempted(held, intent, sent, error)
        except asyncio.CancelledError:
            await self._record(held, intent, sent, Outcome.UNKNOWN, DETAIL_SHUTDOWN)
            raise

    async def _pass_gate(self, held: Held, app_id: int, sent: Sent) -> None:
        """Return when the request may leave, which has been made ready meanwhile."""
        due_at = held.claim.task.due_at
        if sent.sent_at == due_at:
            # Committed a moment before it; whatever the clock says meanwhile, no longer than that.
            early = (sent.sent_at - self._storage.now()).total_seconds()
            await self._clock.sleep(min(max(0.0, early), timing.COMMIT_LEAD_SECONDS))
        await self._pace.leave(app_id)
        if not held.lease_suffices(self._clock, self._settings):
            raise _LeaseShort
        if due_at is not None and sent.attempt == 1 and not held.manual:
            self.observer.sent((self._storage.now() - due_at).total_seconds())
        self.requests += 1

    async def conclude(self, attempted: Attempted) -> Finished:
        """Record what came of it."""
        held, intent, sent = attempted.held, attempted.intent, attempted.sent
        match attempted.result:
            case None:
                return await self._record(held, intent, sent, Outcome.WITHHELD, DETAIL_LEASE_SHORT)
            case NotSent() as error:
                outcome = Outcome.REJECTED if self._exhausted(intent, sent) else Outcome.RETRY
                return await self._record(held, intent, sent, outcome, str(error))
            case NoAnswer() as error:
                return await self._record(held, intent, sent, Outcome.UNKNOWN, str(error))
            case Reply() as reply:
                return await self._answered(held, intent, sent, reply)
            case never:
                assert_never(never)

    async def _answered(self, held: Held, intent: Intent, sent: Sent, reply: Reply) -> Finished:
        reply_class = outcomes.classify(reply)
        outcome = outcomes.conclude(
            reply_class,
            earlier_unknown=held.claim.earlier_unknown,
            at_or_after_auto_stop=self._past_auto_stop(intent),
            exhausted=self._exhausted(intent, sent),
        )
        if reply_class is ReplyClass.THROTTLED:
            self._pace.throttled(intent.app_id)
        else:
            self._pace.answered(intent.app_id)
        if outcome is Outcome.BLOCKED:
            self.block(intent.app_id, reply_class, reply)
        else:
            self.unblock(intent.app_id)
        detail = reply.excerpt
        if outcome is Outcome.REJECTED and reply_class is not ReplyClass.REJECTED:
            detail = DETAIL_EXHAUSTED if detail is None else f"{DETAIL_EXHAUSTED}; {detail}"
        # The offset has been learned from the reply: the next signature is right, and there is nothing to wait for.
        at_once = reply_class is ReplyClass.CLOCK and sent.attempt == 1
        return await self._record(held, intent, sent, outcome, detail, reply, wake_seconds=0.0 if at_once else None)

    def is_blocked(self, held: Held) -> bool:
        """Whether ZEGO refuses the AppId, and it is not this task's turn to find out whether it still does."""
        return held.app_id in self._breaker.unserved() and not held.probe and not held.manual

    def unblock(self, app_id: int) -> None:
        """ZEGO accepts the AppId."""
        if self._breaker.close(app_id):
            log.info("app_unblocked", app_id=app_id)

    def block(self, app_id: int, reply_class: ReplyClass, reply: Reply) -> None:
        """ZEGO refuses the AppId as a whole."""
        if self._breaker.trip(app_id, self._clock.monotonic()):
            log.error(
                "app_blocked",
                app_id=app_id,
                reply_class=reply_class.value,
                code=reply.code,
                message=reply.message,
                request_id=reply.request_id,
                next_step="no task of this AppId can be stopped until this is mended: zego-watchdog check",
            )

    def _past_auto_stop(self, intent: Intent) -> bool:
        return intent.auto_stop_at is not None and self._storage.now() >= intent.auto_stop_at

    def _exhausted(self, intent: Intent, sent: Sent) -> bool:
        return outcomes.is_exhausted(
            sent.attempt, self._settings.max_attempts, past_auto_stop=self._past_auto_stop(intent)
        )

    async def _record(
        self,
        held: Held,
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
            claim=held.claim,
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
            self.observer.attempt(outcome, intent.reason)
        if outcome is Outcome.STOPPED and intent.auto_stop_at is not None:
            self.observer.stopped((intent.auto_stop_at - now).total_seconds())
        announce(
            held,
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
            log.warning("answer_came_after_lease", task_id=held.claim.task.task_id, attempt=sent.attempt)
        return Finished(outcome, detail, reply)
