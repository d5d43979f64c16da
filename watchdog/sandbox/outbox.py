"""The schedule of callbacks: the vendor's retries, and delivery faults. Pure: no network, no clock.

    entry in the log ──► waiting ──due()──► under way ──settle(2xx)──► done
             │              ▲                   │
             │              └─ 2 4 8 16 32 s ───┴─settle(other)─► lost, after the sixth attempt
             └─► lost, by a misbehaviour

The sender asks ``due(now)``, sends, and reports the result; a simulation does the same without a network. Retries and
copies have the same bytes as the first attempt, with nonce and timestamp; the vendor does not specify this.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from watchdog.sandbox.callbacks import EXAMPLE_CALLBACK_SECRET, Callback, CallbackEncoding, callbacks_of, encode
from watchdog.sandbox.misbehaviour import FAITHFUL, CallbackBehaviour, between
from watchdog.sandbox.world import World, stream

RETRY_SECONDS: Final = (2.0, 4.0, 8.0, 16.0, 32.0)
"""From the start of one attempt to the next, by the vendor's page; after a longer attempt the next starts at once."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One encoded callback; ``cause`` is the ``seq`` of its log entry."""

    callback: str
    app_id: int
    room_id: str
    nonce: str
    cause: int
    content_type: str
    body: bytes
    is_copy: bool = False

    def as_fields(self) -> dict[str, Any]:
        names = ("callback", "app_id", "room_id", "nonce", "cause", "is_copy")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Attempt 1 to 6 to deliver a letter; ``sent_at`` in Unix seconds."""

    letter: Letter
    attempt: int
    sent_at: float


class Outbox:
    """The callbacks to send. It reads the world's log, and adds the results of the deliveries to it.

    ``secrets`` maps AppIds to callback secrets; the default is the vendor's example. Changes of ``behaviour`` and
    ``encoding`` apply to events that have not been collected yet.
    """

    def __init__(
        self,
        world: World,
        *,
        seed: int,
        secrets: Mapping[int, str] | None = None,
        encoding: CallbackEncoding = CallbackEncoding.JSON,
        clock_offset_seconds: float = 0.0,
    ) -> None:
        self.behaviour: CallbackBehaviour = FAITHFUL
        self.encoding = encoding
        self._world = world
        self._secrets = dict(secrets or {})
        self._clock_offset_seconds = clock_offset_seconds
        self._chance = stream(seed, "callbacks")
        self._collected = 0
        # Due time, a counter that keeps equal times in order, attempt number, letter.
        self._waiting: list[tuple[float, int, int, Letter]] = []
        self._queued = 0

    def skip(self) -> None:
        """Send nothing for events that are not collected yet."""
        self._collected = len(self._world.log)

    def collect(self) -> None:
        """Queue the callbacks for new events; ``due`` and ``next_at`` call this first."""
        log = self._world.log
        if self._collected == len(log):
            return
        news = log.since(self._collected)
        self._collected = len(log)
        for event in news:
            for callback in callbacks_of(event, clock_offset_seconds=self._clock_offset_seconds):
                self._post(callback, event["at"], event["seq"])

    def due(self, now: float) -> list[Delivery]:
        """Return the deliveries to send now, in order; call ``settle`` for each. Advances the world to ``now``."""
        now = self._world.advance(now)
        self.collect()
        deliveries = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, attempt, letter = heapq.heappop(self._waiting)
            deliveries.append(Delivery(letter, attempt, now))
        return deliveries

    def next_at(self) -> float | None:
        """Return the latest time for the next call of ``due``, Unix seconds; None for never."""
        self.collect()
        times = [self._waiting[0][0]] if self._waiting else []
        deadline = self._world.next_deadline
        return min(times if deadline is None else [*times, deadline], default=None)

    def settle(self, delivery: Delivery, status: int | None, now: float) -> None:
        """Report that an attempt was answered with an HTTP status at ``now``, or (None) not answered."""
        now = self._world.advance(now)
        letter, attempt = delivery.letter, delivery.attempt
        fields = letter.as_fields() | {"attempt": attempt, "status": status}
        self._world.log.append(now, "callback_sent", **fields, sent_at=delivery.sent_at)
        if status is not None and 200 <= status < 300:
            return
        if attempt <= len(RETRY_SECONDS):
            self._queue(max(now, delivery.sent_at + RETRY_SECONDS[attempt - 1]), attempt + 1, letter)
        else:
            self._world.log.append(now, "callback_lost", **fields)

    def _post(self, callback: Callback, at: float, cause: int) -> None:
        nonce = f"{self._chance.randrange(10**6):06}"
        secret = self._secrets.get(callback.app_id, EXAMPLE_CALLBACK_SECRET)
        body = encode(callback.signed(secret, nonce), self.encoding)
        content_type = self.encoding.content_type
        letter = Letter(callback.name, callback.app_id, callback.room_id, nonce, cause, content_type, body)
        if self._happens(self.behaviour.lose):
            self._world.log.append(self._world.now, "callback_lost", **letter.as_fields(), attempt=0, status=None)
            return
        self._queue(at + self._delay(), 1, letter)
        if self._happens(self.behaviour.duplicate):
            self._queue(at + self._delay(), 1, replace(letter, is_copy=True))

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._chance.random() < probability

    def _delay(self) -> float:
        seconds = between(self._chance, self.behaviour.delay_seconds)
        if self._happens(self.behaviour.reorder):
            seconds += between(self._chance, self.behaviour.reorder_seconds)
        return seconds

    def _queue(self, at: float, attempt: int, letter: Letter) -> None:
        self._queued += 1
        heapq.heappush(self._waiting, (at, self._queued, attempt, letter))
