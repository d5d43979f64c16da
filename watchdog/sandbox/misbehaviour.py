"""How the sandbox can be told to misbehave: with which requests, and with its callbacks. Pure; chance has a seed."""

import random
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from watchdog.sandbox.vendor import Action


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the least must not be above the most")
    return span


_Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Span = Annotated[tuple[_Seconds, _Seconds], AfterValidator(_in_order)]
"""At least and at most so many seconds."""

Probability = Annotated[float, Field(ge=0, le=1)]


class Drop(StrEnum):
    """When the connection is closed without an answer: before or after the request took effect."""

    BEFORE = "before"
    AFTER = "after"


class Body(StrEnum):
    """What the reply's body is."""

    JSON = "json"
    HTML = "html"
    CUT = "cut"
    """The first half of the JSON, in a well-formed HTTP reply."""
    HUGE = "huge"
    """64 MiB, and not JSON before its end."""


class RequestIdStyle(StrEnum):
    """How the RequestId is written."""

    STRING = "string"
    NUMBER = "number"
    LONG = "long"
    """A string of 30 digits, beyond 64 bit."""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Misbehaviour:
    """What to do to requests of ``action`` (None: of every action), with ``probability``, at most ``requests`` times.

    Latencies are (least, most) in seconds: ``latency_seconds`` passes before the request takes effect,
    ``reply_latency_seconds`` after it. A reply with ``http_status`` or ``code`` set replaces what the vendor would have
    done, unless ``processed`` says that it did it and answers this nevertheless. ``http_status`` without ``code`` has
    a gateway's HTML page for a body. ``drip`` sends the body at one byte a second.
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
        """Whether the vendor does what the request asks."""
        if self.drop_reply is not None:
            return self.drop_reply is Drop.AFTER
        return self.processed or (self.http_status is None and self.code is None)


WELL_BEHAVED: Final = Misbehaviour()


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CallbackBehaviour:
    """What happens to callbacks on their way.

    ``lose`` and ``duplicate`` are the shares that never arrive, or are sent twice. Every callback takes a time within
    ``delay_seconds``; the share ``reorder`` takes another within ``reorder_seconds``, and others overtake it. A copy is
    delayed by itself.
    """

    lose: Probability = 0.0
    duplicate: Probability = 0.0
    reorder: Probability = 0.0
    delay_seconds: Span = (0.0, 0.0)
    reorder_seconds: Span = (1.0, 10.0)


FAITHFUL: Final = CallbackBehaviour()


class Misbehaviours:
    """The misbehaviours in force. For each request the first that matches and whose chance comes up is taken."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._in_force: list[tuple[Misbehaviour, int | None]] = []

    def add(self, misbehaviour: Misbehaviour) -> None:
        """Put one in force, behind those that are."""
        self._in_force.append((misbehaviour, misbehaviour.requests))

    def clear(self) -> None:
        """Behave well from now on."""
        self._in_force.clear()

    def choose(self, action: Action | None) -> Misbehaviour:
        """Say what to do to the next request, ``WELL_BEHAVED`` where nothing applies; uses up one ``requests``."""
        for index, (candidate, left) in enumerate(self._in_force):
            if candidate.action not in (None, action):
                continue
            if candidate.probability < 1 and self._chance.random() >= candidate.probability:
                continue
            if left == 1:
                del self._in_force[index]
            elif left is not None:
                self._in_force[index] = (candidate, left - 1)
            return candidate
        return WELL_BEHAVED

    def between(self, span: tuple[float, float]) -> float:
        """Draw a length of time, in seconds, within a span."""
        return between(self._chance, span)


def between(chance: random.Random, span: tuple[float, float]) -> float:
    """Draw a length of time, in seconds, within a span."""
    least, most = span
    return least if least == most else chance.uniform(least, most)
