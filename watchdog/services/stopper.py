"""From a claim to its end: ask the vendor who is in the room, decide, then send the stop or give the claim back.

    claim ──► ask the vendor (ten rooms a call) ──► decide ──► spared, withheld, waiting: given back, with the reason
                                                       │
                                                       └──► pace ──► is the answer still fresh? ──► attempt

No transaction is open while the vendor is asked. Whatever breaks on the way, the claim lapses by itself.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import compress
from typing import Final, Protocol

import structlog

from watchdog.clock import Clock
from watchdog.core import policy, timing
from watchdog.core.guard import HELD_RECHECK_SECONDS
from watchdog.core.model import Evidence, Mode, Outcome, Reason, Reply, Verify
from watchdog.core.outcomes import ReplyClass
from watchdog.core.policy import CurrentPolicy, Decision, Rule, Verdict
from watchdog.services.guard import Guarding
from watchdog.services.occupancy import Occupancy
from watchdog.services.sender import Finished, Held, Sender, StopSettings, announce
from watchdog.store.aio.threads import Storage
from watchdog.store.tasks import Claim, SetAside
from watchdog.zego.client import ROOMS_PER_CALL
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

DETAIL_UNSERVED: Final = "app_not_configured"
DETAIL_BLOCKED: Final = "returned unsent: ZEGO refuses the AppId"

_LAST_WORDS_SECONDS: Final = 2.0
_UNSETTLED: Final = {Verdict.STOP, Verdict.UNKNOWN}


class Surroundings(Protocol):
    """What the stopper must know of the daemon around it."""

    @property
    def watching_since(self) -> datetime:
        """When the present unbroken stretch of sweeps began, by the database's clock."""

    @property
    def guarding(self) -> Guarding:
        """Who says how many tasks may be stopped on hints alone."""


class Stopper:
    """Works on claims concurrently, ten rooms of one AppId at a time; ``drain`` waits for all of them."""

    def __init__(
        self,
        *,
        storage: Storage,
        occupancy: Occupancy | None,
        sender: Sender,
        pace: Pace,
        apps: Sequence[int],
        policy_in_force: CurrentPolicy,
        settings: StopSettings,
        surroundings: Surroundings,
        clock: Clock,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._occupancy = occupancy
        self._sender = sender
        self._pace = pace
        self._apps = apps
        self._in_force = policy_in_force
        self._settings = settings
        self._surroundings = surroundings
        self._clock = clock
        self._on_progress = on_progress
        self._requests = asyncio.Semaphore(settings.concurrency)
        # Who waits for a turn, or has had it and no slot yet. When a vendor that hung comes back, the latter go all at
        # once: there must be a bound to their number.
        self._turns = defaultdict[int, asyncio.Semaphore](lambda: asyncio.Semaphore(2 * settings.concurrency))
        self._running: set[asyncio.Task[list[Finished]]] = set()
        self._in_hand = 0
        self._in_hand_of: Counter[int | None] = Counter()
        self._tasks_in_hand: Counter[str] = Counter()
        self._closing = False
        self._is_short = False
        """Whether due tasks may have been left, for want of capacity or of ZEGO's service, when last asked for more."""
        self._unverifiable: set[int] = set()
        """The AppIds that are blocked because the RTC API refuses their credentials."""
        self.stopped = 0
        """How many tasks have been stopped since the start."""

    @property
    def default_app(self) -> int | None:
        """The AppId of tasks that name none: the first configured."""
        return self._apps[0] if self._apps else None

    @property
    def requests(self) -> int:
        """How many stop requests have been sent since the start."""
        return self._sender.requests

    @property
    def in_hand(self) -> int:
        """How many claims are being worked on."""
        return self._in_hand

    @property
    def tasks_in_hand(self) -> Collection[str]:
        """Which tasks those are."""
        return self._tasks_in_hand.keys()

    def capacity(self, unserved: Collection[int] = ()) -> tuple[int, set[int]]:
        """How many more claims to take at a time, and the AppIds that have enough of them; ``unserved`` get none."""
        limit, full = self._capacity(unserved)
        self._is_short = limit == 0 or bool(full) or bool(unserved)
        return limit, full

    def _capacity(self, unserved: Collection[int]) -> tuple[int, set[int]]:
        # Enough wait for their turn until more are verified, and many are claimed at once.
        enough = self._closing or self._in_hand > 3 * self._settings.concurrency
        most = 0 if enough else 4 * self._settings.concurrency - self._in_hand
        room = {app_id: self._room(app_id) for app_id in self._apps if app_id not in unserved}
        full = {app_id for app_id, left in room.items() if left <= 0}
        if room and len(full) == len(room):
            return 0, full
        # All of them may be one AppId's.
        return max(0, int(min([most, *(left for left in room.values() if left > 0)]))), full

    def _room(self, app_id: int) -> float:
        """How many more claims of one AppId to take: no more than can be sent while their verification is fresh.

        And never so many that the last one's lease runs short while it waits for its turn: it would be given back
        unsent, taken again, wait again as the last one, and nothing would be sent any more.
        """
        rate = self._pace.rate(app_id)
        if not 0 < rate < math.inf:
            return math.inf
        fresh = max(ROOMS_PER_CALL, int(rate * self._in_force.rules.verification_max_age_seconds / 2))
        patience = self._settings.lease_seconds - self._settings.request_timeout_seconds
        return min(fresh, max(1, int(rate * patience / 2))) - self._in_hand_of[app_id]

    def submit(self, claims: Sequence[Claim], lease_until: float, *, probe: bool = False) -> None:
        """Begin to work on these claims; ``lease_until`` is on the monotonic clock.

        ``probe``: they are to find out whether ZEGO still refuses their AppId.
        """
        by_app: dict[int | None, list[Held]] = {}
        for claim in claims:
            app_id = self.default_app if claim.task.app_id is None else claim.task.app_id
            by_app.setdefault(app_id, []).append(Held(claim, app_id, lease_until, probe=probe))
        for held in by_app.values():
            for start in range(0, len(held), ROOMS_PER_CALL):
                self._spawn(held[start : start + ROOMS_PER_CALL])

    def _spawn(self, held: Sequence[Held]) -> None:
        task = asyncio.create_task(self.work(held))
        self._running.add(task)
        self._in_hand += len(held)
        self._in_hand_of[held[0].app_id] += len(held)
        task_ids = Counter(one.claim.task.task_id for one in held)
        self._tasks_in_hand += task_ids

        def finished(task: asyncio.Task[list[Finished]]) -> None:
            results: list[Finished] = []
            self._running.discard(task)
            self._in_hand -= len(held)
            self._in_hand_of[held[0].app_id] -= len(held)
            self._tasks_in_hand -= task_ids
            if not task.cancelled() and (error := task.exception()) is not None:
                # The claims lapse and are taken up again; but nobody may say that nothing happened.
                log.error(
                    "claims_dropped", error=str(error), tasks=[one.claim.task.task_id for one in held], exc_info=error
                )
            elif not task.cancelled():
                results = task.result()
            self.stopped += sum(finished.outcome is Outcome.STOPPED for finished in results)
            if self._is_short or not all(finished.has_ended_the_task for finished in results):
                self._on_progress()

        task.add_done_callback(finished)

    async def drain(self, seconds: float | None = None) -> None:
        """Wait for everything in hand; after ``seconds`` the rest is cut short and recorded as ``unknown``."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in self._running:
            task.cancel()
        if self._running:
            # Not for ever: the database may be away, and then the rows stay `sent` until a lease later.
            await asyncio.wait(self._running, timeout=_LAST_WORDS_SECONDS)

    def close(self) -> None:
        """Send nothing more: what has not been sent yet is given back."""
        self._closing = True

    async def work(self, held: Sequence[Held]) -> list[Finished]:
        """Take at most ten claims of one AppId to their end, in the order given."""
        app_id = held[0].app_id
        if app_id is None or app_id not in self._apps:
            return [await self._withhold(one, DETAIL_UNSERVED, wake_seconds=60.0) for one in held]
        if any(self._sender.is_blocked(one) for one in held):
            # Since we claimed them; whoever is asked now would refuse, too.
            return [await self._aside(one, None, DETAIL_BLOCKED, one.claim.task.evidence) for one in held]
        decisions = [self._decide(one, None) for one in held]
        # A task that is kept or waits by its own row is settled; the vendor's answer could not change that.
        unsettled = [one.manual or first.verdict in _UNSETTLED for one, first in zip(held, decisions, strict=True)]
        vendor = await self._ask(app_id, [one.claim.task.room_id for one in compress(held, unsettled)])
        # Not a TaskGroup: when one fails, the others' requests are under way and must come to their own ends.
        results = await asyncio.gather(
            *(
                self._finish(one, app_id, vendor.get(one.claim.task.room_id)) if ask else self._leave(one, None, first)
                for one, first, ask in zip(held, decisions, unsettled, strict=True)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Finished)]

    def _decide(self, held: Held, vendor: Evidence | None) -> Decision:
        return policy.decide(
            held.claim.task,
            vendor,
            self._in_force.rules,
            # Claimed a moment early, it is decided on as of the moment at which its request may leave.
            self._acts_at(held),
            watching_since=self._surroundings.watching_since,
            manual=held.manual,
        )

    def _acts_at(self, held: Held) -> datetime:
        return timing.acts_at(held.claim.task, self._storage.now(), timing.LEAD_SECONDS, manual=held.manual)

    async def _until_nearly_due(self, held: Held) -> None:
        """Return when its attempt may be committed; at once where it is due, or further off than it should be."""
        while (early := (self._acts_at(held) - self._storage.now()).total_seconds()) > timing.COMMIT_LEAD_SECONDS:
            await self._clock.sleep(early - timing.COMMIT_LEAD_SECONDS)

    def _only_observes(self) -> bool:
        return self._in_force.rules.mode is Mode.OBSERVE

    async def _ask(self, app_id: int, rooms: Sequence[str]) -> Mapping[str, Evidence]:
        if self._occupancy is None or self._in_force.rules.verify is Verify.OFF or not rooms:
            return {}
        answers = await self._occupancy.ask(app_id, rooms)
        self._heed(app_id, self._occupancy.refusal(app_id))
        return answers

    def _heed(self, app_id: int, refusal: Reply | None) -> None:
        """Credentials that the RTC API refuses stop no task either, where it has to be asked before each."""
        if refusal is not None and self._in_force.rules.verify is Verify.REQUIRED:
            self._unverifiable.add(app_id)
            self._sender.block(app_id, ReplyClass.CREDENTIALS, refusal)
        elif refusal is None and app_id in self._unverifiable:
            self._unverifiable.discard(app_id)
            self._sender.unblock(app_id)

    async def _finish(self, held: Held, app_id: int, vendor: Evidence | None) -> Finished:
        vendor, decision = await self._fresh(held, app_id, vendor)
        decision = self._guarded(held, decision)
        if decision.verdict is not Verdict.STOP:
            return await self._leave(held, vendor, decision)
        evidence = vendor or held.claim.task.evidence
        await self._until_nearly_due(held)
        if self._only_observes():
            return await self._aside(
                held, Outcome.WOULD_STOP, decision.rule, evidence, wake_seconds=timing.OBSERVE_AGAIN_SECONDS
            )
        async with self._slot(app_id):
            # Again, for the answer may have aged while we waited for our turn.
            vendor, decision = await self._fresh(held, app_id, vendor)
            decision = self._guarded(held, decision)
            if decision.verdict is not Verdict.STOP:
                return await self._leave(held, vendor, decision)
            # A reload may have said so while we waited.
            if self._only_observes() or self._closing or not held.lease_suffices(self._clock, self._settings):
                return await self._aside(held, None, "returned unsent", evidence)
            if self._sender.is_blocked(held):
                return await self._aside(held, None, DETAIL_BLOCKED, evidence)
            evidence = vendor or held.claim.task.evidence
            attempted = await self._sender.send(held, app_id, evidence, decision.reason or self._reason(held, evidence))
        if attempted is None:
            # Since we claimed it the application ended the task, held it, or saw people come.
            return await self._aside(held, None, "the row changed before the request was sent", evidence)
        # Without a slot: the next request need not wait until this one's answer is committed.
        return await self._sender.conclude(attempted)

    @asynccontextmanager
    async def _slot(self, app_id: int) -> AsyncIterator[None]:
        """A turn of the AppId's pace, then one of the slots: an AppId that is slow keeps no slot from the others."""
        async with self._turns[app_id]:
            await self._pace.acquire(app_id)
            await self._requests.acquire()
        try:
            yield
        finally:
            self._requests.release()

    async def _fresh(self, held: Held, app_id: int, vendor: Evidence | None) -> tuple[Evidence | None, Decision]:
        """Decide on an answer of the vendor that is not too old to act upon, asking once more where it is."""
        decision = self._decide(held, vendor)
        if vendor is None or decision.rule is not Rule.UNCONFIRMED:
            return vendor, decision
        room_id = held.claim.task.room_id
        vendor = (await self._ask(app_id, [room_id])).get(room_id)
        return vendor, self._decide(held, vendor)

    def _guarded(self, held: Held, decision: Decision) -> Decision:
        """The same decision, unless it rests on a hint alone and too many do."""
        if (
            decision.rule is not Rule.HINT_SAYS_EMPTY
            or held.manual
            or self._surroundings.guarding.allows(held.claim.task.task_id)
        ):
            return decision
        return Decision(Verdict.UNKNOWN, Rule.GUARDED)

    async def _leave(self, held: Held, vendor: Evidence | None, decision: Decision) -> Finished:
        """Send nothing, for the reason that was decided."""
        evidence = held.claim.task.evidence
        match decision.verdict:
            case Verdict.UNKNOWN:
                seconds = timing.recheck_seconds(held.claim.task, self._storage.now())
                if decision.rule is Rule.GUARDED:
                    seconds = min(seconds, HELD_RECHECK_SECONDS)
                return await self._withhold(held, decision.rule, wake_seconds=seconds)
            case Verdict.KEEP if vendor is not None and vendor.user_count:
                return await self._aside(held, Outcome.SPARED, decision.rule, vendor, observed=vendor)
            case _:
                wait = 0.0 if decision.until is None else (decision.until - self._storage.now()).total_seconds()
                return await self._aside(held, None, decision.rule, evidence, wake_seconds=max(0.0, wait))

    async def _withhold(self, held: Held, detail: str, *, wake_seconds: float) -> Finished:
        return await self._aside(held, Outcome.WITHHELD, detail, held.claim.task.evidence, wake_seconds=wake_seconds)

    async def _aside(
        self,
        held: Held,
        outcome: Outcome | None,
        detail: str,
        evidence: Evidence,
        *,
        observed: Evidence | None = None,
        wake_seconds: float = 0.0,
    ) -> Finished:
        """Give the claim back without a request, and say why in ledger and log."""
        why = self._reason(held, evidence)
        item = SetAside(held.claim, held.app_id, outcome, why, detail, evidence, observed, wake_seconds)
        noted = await self._storage.call(self._storage.store.set_aside, [item])
        if outcome is not None:
            if noted:
                self._sender.observer.attempt(outcome, why)
            if noted or detail != Rule.GUARDED:
                # Of those that the guard holds back it tells itself, all together.
                announce(held, outcome, reason=why.value, detail=str(detail), people=evidence.user_count)
        return Finished(outcome, str(detail))

    def _reason(self, held: Held, evidence: Evidence) -> Reason:
        return Reason.MANUAL if held.manual else policy.reason(held.claim.task, evidence)
