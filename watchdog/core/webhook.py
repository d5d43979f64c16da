"""The webhook's rules: what is sent, how it is signed, what an answer means, and when an event is sent again. Pure.

The wire format is that of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com). A failure concerns either one
event, which then waits longer each time, or the receiver as a whole, and then all events wait (``Receiver``).
"""

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import mktime_tz, parsedate_tz
from enum import StrEnum
from typing import Any, Final

from watchdog.core.events import as_text

BODY_LIMIT_BYTES: Final = 20_000
"""A body is shorter: the specification advises less than 20 kB."""

FIRST_WAIT_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 3600.0
"""The wait of one event doubles from the first to the longest, each a quarter more or less."""

GIVE_UP_SECONDS: Final = 24 * 3600.0
"""How old an event is when an attempt that fails is its last."""

LONGEST_PAUSE_SECONDS: Final = 300.0
"""The pause of all events doubles from FIRST_WAIT_SECONDS to this, unless the receiver asks for more."""

BUSY: Final = frozenset({429, 502, 503, 504})
"""The statuses that mean: later."""

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = (24, 64)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT_LIMITS: Final = (1000, 200, 50)


class Result(StrEnum):
    """What an attempt to deliver an event led to."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """Another answer than 2xx: the event is sent again later."""
    BUSY = "busy"
    """429, 502, 503, 504 or a Retry-After: all events wait."""
    NO_ANSWER = "no_answer"
    """No connection, no time, no HTTP: all events wait."""
    SUSPENDED = "suspended"
    """410: the receiver wants no more events."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an attempt, what the receiver said, and for how many seconds it asked to be left alone."""

    result: Result
    error: str | None = None
    pause_seconds: float | None = None


def message_id(event_id: int | str, occurred_at: datetime) -> str:
    """Return the ``webhook-id``: the same over all attempts, and another one for an id that a restore has reused.

    The id of a sample is a word, so no event has its ``webhook-id``.
    """
    return f"zego_{event_id}_{(occurred_at - _EPOCH) // timedelta(microseconds=1)}"


def payload(event_type: str, occurred_at: datetime, data: Mapping[str, Any]) -> bytes:
    """Return the body of a request, which is shorter than BODY_LIMIT_BYTES: texts are cut until it is."""
    timestamp = as_text(occurred_at)
    for limit in _TEXT_LIMITS:
        cut = {key: value[:limit] if isinstance(value, str) else value for key, value in data.items()}
        body = _json({"type": event_type[:limit], "timestamp": timestamp, "data": cut})
        if len(body) < BODY_LIMIT_BYTES:
            return body
    return _json({"type": event_type[: _TEXT_LIMITS[-1]], "timestamp": timestamp, "data": {}})


def _json(value: object) -> bytes:
    # Half of a character, which JSON can spell and UTF-8 cannot, becomes a question mark.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def keys(text: str) -> tuple[bytes, ...]:
    """Read the content of a secret file: one line ``whsec_…``, or two while the secret is rotated.

    Raises ValueError, which does not quote the secret.
    """
    lines = text.splitlines()
    if len(lines) > 2:
        raise ValueError("it has more than two lines; write the new secret into the first and the old into the second")
    return tuple(_key(line) for line in lines)


def _key(line: str) -> bytes:
    advice = "; make one with: echo whsec_$(openssl rand -base64 32)"
    if not line.startswith(_PREFIX):
        raise ValueError(f"a secret does not begin with {_PREFIX}{advice}")
    encoded = line.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        # Not chained: it may quote.
        raise ValueError(f"what follows {_PREFIX} is not base64{advice}") from None
    least, most = _KEY_BYTES
    if not least <= len(key) <= most:
        raise ValueError(f"a secret has {len(key)} bytes, and {least} to {most} are allowed{advice}")
    return key


def signatures(secret_keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature``: one for each key. ``timestamp`` is Unix time in seconds, of the attempt."""
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    return " ".join(
        f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}" for key in secret_keys
    )


def judge(status: int, text: str, retry_after: str | None, date: str | None, now: float) -> Verdict:
    """Return what an answer means. ``text`` is the beginning of its body.

    ``retry_after`` and ``date`` are its headers of these names; ``now`` is Unix time in seconds.
    """
    if 200 <= status < 300:
        return Verdict(Result.DELIVERED)
    said = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    if status == 410:
        return Verdict(Result.SUSPENDED, said)
    pause = _pause(retry_after, date, now)
    if pause is not None or status in BUSY:
        return Verdict(Result.BUSY, said, pause)
    return Verdict(Result.REFUSED, f"{said} (redirects are not followed)" if 300 <= status < 400 else said)


def _pause(retry_after: str | None, date: str | None, now: float) -> float | None:
    """Read a Retry-After, in seconds or as a date; at most LONGEST_WAIT_SECONDS."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), LONGEST_WAIT_SECONDS)
    if (until := _unix(text)) is None:
        return None
    # Both by the receiver's clock, if possible: ours may be another.
    since = _unix(date or "")
    return min(max(0.0, until - (now if since is None else since)), LONGEST_WAIT_SECONDS)


def _unix(text: str) -> float | None:
    try:
        parsed = parsedate_tz(text)
        return None if parsed is None else float(mktime_tz(parsed))
    except (ValueError, OverflowError, IndexError):
        return None


def wait_seconds(attempts: int, age_seconds: float, chance: float) -> float | None:
    """Return when an event is sent again after so many attempts; None if it is given up.

    ``age_seconds`` is since it occurred. ``chance`` is a random number from 0 to 1. The last attempt is at the age of
    GIVE_UP_SECONDS.
    """
    if age_seconds >= GIVE_UP_SECONDS:
        return None
    # The exponent is bounded, because the number would be too large for a float one day.
    wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 20), LONGEST_WAIT_SECONDS)
    return min(wait * (0.75 + chance / 2), GIVE_UP_SECONDS - age_seconds)


class Receiver:
    """Whether requests may leave; times are seconds of the caller's monotonic clock.

    After a failure all requests wait. Then one probe leaves, and further ones only after its answer.
    """

    def __init__(self) -> None:
        self._until = -math.inf
        self._pauses = 0
        self.suspended_by: str | None = None
        """What it said with the 410; None if it is not suspended."""

    @property
    def is_probing(self) -> bool:
        """Whether only one request may leave."""
        return self._pauses > 0

    def wait(self, now: float) -> float:
        """Seconds until a request may leave; infinite if delivery is suspended."""
        return math.inf if self.suspended_by is not None else max(0.0, self._until - now)

    def failed(self, now: float, asked_seconds: float | None, chance: float) -> bool:
        """Pause after a failure; ``asked_seconds`` is what the receiver asked for. Returns whether it is a new pause.

        Requests that fail together count as one failure.
        """
        is_new = not self.is_probing
        if now >= self._until:
            pause = min(FIRST_WAIT_SECONDS * 2.0 ** min(self._pauses, 20), LONGEST_PAUSE_SECONDS)
            self._until = now + pause * (0.75 + chance / 2)
            self._pauses += 1
        if asked_seconds is not None:
            self._until = max(self._until, now + asked_seconds)
        return is_new

    def answered(self, now: float) -> bool:
        """End the pause, because the receiver answers again. Returns whether there was one.

        An answer to a request that left before the pause does not end it.
        """
        if not self.is_probing or now < self._until:
            return False
        self._pauses = 0
        return True

    def suspend(self, said: str) -> bool:
        """Send nothing more. Returns whether it was not suspended before."""
        is_new = self.suspended_by is None
        self.suspended_by = said
        return is_new
