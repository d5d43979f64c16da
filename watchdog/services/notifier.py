"""The notifier: delivers the outbox's events to the webhook, each once at least.

    claim ──► POST, several at a time ──► conclude, all of a claim in one transaction ──► claim …

A claim is a lease in the database. If the daemon dies between the POST and the conclusion, the event is sent again when
the lease is over, with the same ``webhook-id``. Everything here is of its own and in the background: connections, calls
of the database, waits. A stop never waits for a receiver.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.webhook import FIRST_WAIT_SECONDS, Receiver, Result, Verdict, message_id, payload, wait_seconds
from watchdog.errors import ConfigError, RowLocked
from watchdog.observer import Observer
from watchdog.store.aio.calls import AsyncEvents
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import Delivery, Event
from watchdog.webhook.client import Target, WebhookClient

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1.0
"""How often to look for events of other writers; this daemon's own wake it at once."""

OFF_SECONDS: Final = 3600.0
"""How long to wait if there is nothing to deliver to, or delivery is suspended; a reload wakes it."""

BATCH: Final = 128
"""Events of one claim. One commit for so many takes no more time than for one."""

RUN_SECONDS: Final = 1.0
"""A run that finds more events than it can deliver in this time ends, and the next one follows at once."""

GRACE_SECONDS: Final = 1.0
"""How long requests in flight may take when the daemon stops. What got no answer is sent again after the next start."""

_LEASE_SPARE_SECONDS: Final = 30.0
"""How much longer than a request a lease is: what has not begun after this time is given back."""

_CONCLUSION_SECONDS: Final = 10.0
"""The end of a lease that is left for writing the results."""

_LEAST_SECONDS: Final = 0.05
"""How long to wait for an event that is due at this moment, or that another daemon is claiming."""

_UNUSABLE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Notifications:
    """What is told, and where: the types that are written, each with whether the webhook delivers it."""

    types: Mapping[str, bool]
    target: Target | None
    """None: events are only written, for those who read them in SQL."""


@dataclass(eq=False)
class _Batch:
    """The events of one claim on their way: to send, in flight, and with a result."""

    client: WebhookClient
    receiver: Receiver
    last_start: float
    to_send: deque[Event]
    is_probe: bool
    results: list[Delivery] = field(default_factory=list)


class Notifier:
    """``run_once`` delivers what is due; ``prepare`` tells the database which events to write."""

    def __init__(
        self,
        *,
        notifications: Notifications,
        events: AsyncEvents,
        database_clock: DatabaseClock,
        clock: Clock,
        connect: Callable[[Target], WebhookClient],
        observer: Observer | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``connect`` makes the client of a target. ``chance`` returns random numbers from 0 to 1."""
        self._notifications = notifications
        self._events = events
        self._database_clock = database_clock
        self._clock = clock
        self._connect = connect
        self._observer = observer or Observer()
        self._chance = chance
        self._receiver = Receiver()
        self._client: WebhookClient | None = None
        self._is_prepared = False
        self._is_closing = False
        self._in_flight: set[asyncio.Task[Verdict]] = set()
        self._turn = asyncio.Lock()
        self._unwritten: Sequence[Delivery] = ()
        """Results that the database has not taken yet."""

    @property
    def has_target(self) -> bool:
        """Whether there is a webhook."""
        return self._notifications.target is not None

    @property
    def is_suspended(self) -> bool:
        """Whether the receiver answered 410, and nothing is sent until a reload or a restart."""
        return self._receiver.suspended_by is not None

    @property
    def problem(self) -> str | None:
        """Why events wait, for the status line; None if they do not."""
        if self.is_suspended:
            return "the webhook is suspended: its receiver answered 410"
        return "the webhook's receiver fails" if self._receiver.is_probing else None

    def adopt(self, notifications: Notifications) -> None:
        """Use these from the next run on, and forget what failed before."""
        self._notifications = notifications
        self._receiver = Receiver()
        self._is_prepared = False

    async def prepare(self) -> None:
        """Tell the database which events to write, and get ready to send. Raises ConfigError, DatabaseError."""
        if self._is_prepared:
            return
        wanted = self._notifications
        await self._events.choose(wanted.types)
        before, self._client = self._client, None
        if before is not None:
            await before.aclose()
        if wanted.target is not None:
            self._client = self._connect(wanted.target)
        # A reload may have come meanwhile.
        self._is_prepared = wanted is self._notifications

    async def run_once(self) -> float:
        """Deliver the events that are due; returns the seconds to wait. Raises DatabaseError."""
        try:
            await self.prepare()
        except ConfigError as error:
            log.error("webhook_unusable", error=str(error))
            return _UNUSABLE_SECONDS
        await self._write()
        began = self._clock.monotonic()
        while (client := self._client) is not None and self._is_prepared and not self._is_closing:
            now = self._clock.monotonic()
            if (wait := self._receiver.wait(now)) > 0:
                return min(wait, OFF_SECONDS)
            if now - began > RUN_SECONDS:
                return 0.0
            lease_seconds = client.target.timeout_seconds + _LEASE_SPARE_SECONDS
            is_probe = self._receiver.is_probing
            claimed, next_seconds = await self._events.claim(1 if is_probe else BATCH, lease_seconds)
            if not claimed:
                return POLL_SECONDS if next_seconds is None else max(_LEAST_SECONDS, min(POLL_SECONDS, next_seconds))
            last_start = now + _LEASE_SPARE_SECONDS - _CONCLUSION_SECONDS
            self._unwritten = await self._deliver(
                _Batch(client, self._receiver, last_start, deque(claimed), is_probe=is_probe)
            )
            await self._write()
        return 0.0 if not self._is_prepared else OFF_SECONDS

    async def close(self) -> None:
        """Send nothing more; let requests in flight finish for a moment. A run that is under way then ends soon."""
        self._is_closing = True
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=GRACE_SECONDS)
        for request in self._in_flight:
            request.cancel()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _write(self) -> None:
        """Write the results; those that the database does not take now are kept for the next run.

        A row that a consumer holds must not hold up the others: its event is sent again when the lease is over.
        """
        if not self._unwritten:
            return
        try:
            await self._events.conclude(self._unwritten)
        except RowLocked:
            for result in self._unwritten:
                with suppress(RowLocked):
                    await self._events.conclude([result])
        self._unwritten = ()

    async def _deliver(self, batch: _Batch) -> Sequence[Delivery]:
        most = min(batch.client.target.concurrency, len(batch.to_send))
        await asyncio.gather(*(self._send(batch) for _ in range(most)))
        # Given back: no attempt is counted.
        unsent = [Delivery(event.id, delivered=False, error=None, wake_seconds=0.0) for event in batch.to_send]
        return [*batch.results, *unsent]

    async def _send(self, batch: _Batch) -> None:
        """Send one event of a batch after another, as long as more may be sent."""
        while True:
            # One request begins in each turn of the event loop: a stop waits for one, not for all that were answered.
            async with self._turn:
                await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop
            if not batch.to_send or not self._may_send(batch):
                return
            event = batch.to_send.popleft()
            body = payload(event.type, event.occurred_at, event.data)
            request = asyncio.create_task(batch.client.post(message_id(event.id, event.occurred_at), body))
            self._in_flight.add(request)
            try:
                verdict = await request
            except asyncio.CancelledError:
                if not self._is_closing:
                    raise
                verdict = Verdict(Result.NO_ANSWER, "the daemon stopped before the answer came")
            finally:
                self._in_flight.discard(request)
            self._observer.delivery(verdict.result)
            batch.results.append(self._conclude(event, verdict, batch))

    def _may_send(self, batch: _Batch) -> bool:
        now = self._clock.monotonic()
        may_wait = batch.receiver.wait(now) == 0 and (batch.is_probe or not batch.receiver.is_probing)
        return may_wait and now < batch.last_start and not self._is_closing

    def _conclude(self, event: Event, verdict: Verdict, batch: _Batch) -> Delivery:
        host, receiver, now = batch.client.host, batch.receiver, self._clock.monotonic()
        match verdict.result:
            case Result.DELIVERED:
                self._answered(batch, now)
                log.debug("event_delivered", event_id=event.id, type=event.type, task_id=event.task_id)
                return Delivery(event.id, delivered=True, error=None, wake_seconds=None)
            case Result.REFUSED:
                self._answered(batch, now)
            case Result.BUSY | Result.NO_ANSWER:
                if receiver.failed(now, verdict.pause_seconds, self._chance()) and not self._is_closing:
                    log.warning("webhook_paused", host=host, error=verdict.error, seconds=round(receiver.wait(now), 1))
            case Result.SUSPENDED:
                if receiver.suspend(verdict.error or ""):
                    log.error(
                        "webhook_suspended",
                        host=host,
                        error=verdict.error,
                        next_step="correct the receiver or notify.url, then reload or restart the daemon",
                    )
                return Delivery(event.id, delivered=False, error=verdict.error, wake_seconds=FIRST_WAIT_SECONDS)
        return self._again(event, verdict)

    def _answered(self, batch: _Batch, now: float) -> None:
        if batch.receiver.answered(now):
            log.info("webhook_answers_again", host=batch.client.host)

    def _again(self, event: Event, verdict: Verdict) -> Delivery:
        """Send an event again later, or give it up."""
        age_seconds = (self._database_clock.now() - event.occurred_at).total_seconds()
        wait = 0.0 if self._is_closing else wait_seconds(event.attempts, age_seconds, self._chance())
        about = {"event_id": event.id, "type": event.type, "task_id": event.task_id, "attempts": event.attempts}
        if wait is None:
            log.error(
                "event_undelivered",
                **about,
                error=verdict.error,
                next_step=f"correct the receiver, then: zego-watchdog events redeliver {event.id}",
            )
        elif verdict.result is Result.REFUSED:
            log.warning("event_refused", **about, error=verdict.error, seconds=round(wait, 1))
        return Delivery(event.id, delivered=False, error=verdict.error, wake_seconds=wait)
