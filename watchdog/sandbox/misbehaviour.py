"""Fault injection, for requests and for callbacks. Pure; randomness has a seed."""

import random
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from watchdog.sandbox.actions import Action


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the minimum must not exceed the maximum")
    return span


_Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Span = Annotated[tuple[_Seconds, _Seconds], AfterValidator(_in_order)]
"""Minimum and maximum, in seconds."""

Probability = Annotated[float, Field(ge=0, le=1)]


class Drop(StrEnum):
    """Close the connection without an answer before or after the request takes effect."""

    BEFORE = "before"
    AFTER = "after"


class Body(StrEnum):
    JSON = "json"
    HTML = "html"
    CUT = "cut"
    """The first half of the JSON, in a well-formed HTTP reply."""
    HUGE = "huge"
    """64 MiB that never become valid JSON."""


class RequestIdStyle(StrEnum):
    STRING = "string"
    NUMBER = "number"
    LONG = "long"
    """A string of 30 digits, more than 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Misbehaviour:
    """A fault for requests of ``action`` (None: all), with ``probability``, at most ``requests`` times.

    Latencies are (minimum, maximum) in seconds: ``latency_seconds`` before the request takes effect,
    ``reply_latency_seconds`` after it. With ``http_status`` or ``code`` the request does not take effect, unless
    ``processed``. ``http_status`` without ``code`` has a gateway's HTML page as body. ``drip`` sends one byte per
    second.
    """

    action: Action | None = None
    probability: Probability = 1.0
    requests: Annotated[int, Field(ge=1)] | None = None
    latency_seconds: Span = (0.0, 0.0)
    reply_latency_seconds: Span = (0.0, 0.0)
    http_status: Annotated[int, Field(ge=200, le=599)] | None = None
    code: int | None = None
    processed: bool = False
    drop_reply: Drop | None = None
    body: Body = Body.JSON
    request_id: RequestIdStyle = RequestIdStyle.STRING
    drip: bool = False

    @property
    def takes_effect(self) -> bool:
        if self.drop_reply is not None:
            return self.drop_reply is Drop.AFTER
        return self.processed or (self.http_status is None and self.code is None)


WELL_BEHAVED: Final = Misbehaviour()


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CallbackBehaviour:
    """Faults in the delivery of callbacks.

    ``lose`` and ``duplicate`` are the shares that are never sent, or are sent twice. ``delay_seconds`` delays every
    callback; ``reorder_seconds`` delays the share ``reorder`` further, so others overtake it. A copy has its own delay.
    """

    lose: Probability = 0.0
    duplicate: Probability = 0.0
    reorder: Probability = 0.0
    delay_seconds: Span = (0.0, 0.0)
    reorder_seconds: Span = (1.0, 10.0)


FAITHFUL: Final = CallbackBehaviour()


class Misbehaviours:
    """The active misbehaviours. The first that matches a request, and passes its probability, applies."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._active: list[tuple[Misbehaviour, int | None]] = []

    def add(self, misbehaviour: Misbehaviour) -> None:
        self._active.append((misbehaviour, misbehaviour.requests))

    def clear(self) -> None:
        self._active.clear()

    def choose(self, action: Action | None) -> Misbehaviour:
        """Return the misbehaviour for the next request, ``WELL_BEHAVED`` for none; counts down its ``requests``."""
        for index, (candidate, left) in enumerate(self._active):
            if candidate.action not in (None, action):
                continue
            if candidate.probability < 1 and self._chance.random() >= candidate.probability:
                continue
            if left == 1:
                del self._active[index]
            elif left is not None:
                self._active[index] = (candidate, left - 1)
            return candidate
        return WELL_BEHAVED

    def between(self, span: tuple[float, float]) -> float:
        """Draw a duration within a span, in seconds."""
        return between(self._chance, span)


def between(chance: random.Random, span: tuple[float, float]) -> float:
    least, most = span
    return least if least == most else chance.uniform(least, most)
