"""What a reply means, the outcome of an attempt, the final status of its task, and when to retry. Pure.

Three steps, each one table or one function: return code → :class:`ReplyClass` → ``Outcome`` → ``Status``.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from watchdog.core.model import Outcome, Reply, Status


class ReplyClass(StrEnum):
    """What to do after a reply."""

    STOPPED = "stopped"  # success, also of an action other than Stop
    GONE = "gone"  # no such task: already stopped, or ended by itself
    TRANSIENT = "transient"  # retry
    THROTTLED = "throttled"  # slow down, then retry
    CLOCK = "clock"  # our timestamp is wrong: measure the offset, sign again
    CREDENTIALS = "credentials"  # concerns the whole AppId
    CONFIGURATION = "configuration"  # concerns the whole AppId
    REJECTED = "rejected"  # concerns this task only


_CODES: Final[Mapping[ReplyClass, tuple[int, ...]]] = {
    ReplyClass.STOPPED: (0,),
    ReplyClass.GONE: (410001002,),
    ReplyClass.TRANSIENT: (
        *(410000001, 410000009, 410000010, 410000011),  # system, internal call, no resources, concurrency control
        *(100000012, 100000015),  # gateway: HTTP body unreadable, internal error
        410001003,  # start failed: not an answer to Stop
    ),
    ReplyClass.THROTTLED: (206, 207),  # too many requests, per AppId and per room
    ReplyClass.CLOCK: (100000004,),  # signature expired
    ReplyClass.CREDENTIALS: (100000005, 410000005),  # signature wrong, gateway authentication failed
    ReplyClass.CONFIGURATION: (
        *(100000000, 100000001, 100000002, 100000003, 100000006, 100000007, 100000008, 100000009),
        *(100000010, 100000011, 100000013, 100000014, 100000017),
        *(410000002, 410000006),  # AppId unknown, service not enabled
    ),
    ReplyClass.REJECTED: (410000003, 410000004),  # parameter invalid, JSON invalid
}

RETURN_CODES: Final[Mapping[str, ReplyClass]] = MappingProxyType(
    {str(code): reply_class for reply_class, codes in _CODES.items() for code in codes}
)
"""The known return codes, as text (ZEGO, "Cloud Realtime ASR: return codes", and "Server APIs: global return codes").
Every other one, also "00" and "0.0", is transient."""


def classify(reply: Reply) -> ReplyClass:
    """Classify ``reply``; an unknown one is transient.

    The HTTP status overrides the code: a 5xx is from a broken gateway, and a success counts only with a 2xx.
    """
    if reply.http_status == 429:
        return ReplyClass.THROTTLED
    if reply.http_status >= 500 or reply.code is None:
        return ReplyClass.TRANSIENT
    reply_class = RETURN_CODES.get(reply.code, ReplyClass.TRANSIENT)
    if reply_class is ReplyClass.STOPPED and not 200 <= reply.http_status < 300:
        return ReplyClass.TRANSIENT
    return reply_class


def conclude(
    reply_class: ReplyClass, *, earlier_unknown: bool, at_or_after_auto_stop: bool, exhausted: bool
) -> Outcome:
    """Return the outcome of an attempt that was answered, or that was certainly not sent (``TRANSIENT``).

    ``earlier_unknown``: an earlier request for this task may have reached the vendor, and its answer is unknown.
    ``at_or_after_auto_stop``: the answer came at or after the expected time of the vendor's auto-stop.
    """
    match reply_class:
        case ReplyClass.STOPPED:
            return Outcome.STOPPED
        case ReplyClass.GONE if at_or_after_auto_stop:
            # Perhaps our earlier request stopped it; in doubt we count it as a miss.
            return Outcome.AUTO_STOPPED
        case ReplyClass.GONE:
            return Outcome.STOPPED_EARLIER if earlier_unknown else Outcome.GONE
        case ReplyClass.TRANSIENT | ReplyClass.THROTTLED | ReplyClass.CLOCK:
            return Outcome.REJECTED if exhausted else Outcome.RETRY
        case ReplyClass.CREDENTIALS | ReplyClass.CONFIGURATION:
            return Outcome.BLOCKED
        case ReplyClass.REJECTED:
            return Outcome.REJECTED
        case _:
            assert_never(reply_class)


TASK_BECOMES: Final[Mapping[Outcome, Status | None]] = MappingProxyType(
    {
        Outcome.SENT: None,
        Outcome.STOPPED: Status.STOPPED,
        Outcome.GONE: Status.GONE,
        Outcome.STOPPED_EARLIER: Status.STOPPED,
        Outcome.AUTO_STOPPED: Status.AUTO_STOPPED,
        Outcome.RETRY: None,
        Outcome.UNKNOWN: None,
        Outcome.REJECTED: Status.FAILED,
        Outcome.BLOCKED: None,
        Outcome.SPARED: None,
        Outcome.WITHHELD: None,
        Outcome.WOULD_STOP: None,
    }
)
"""The final status that an outcome gives its task; None leaves the task unchanged."""


_LONGEST_BEFORE_AUTO_STOP_SECONDS: Final = 10.0
_LONGEST_AFTER_AUTO_STOP_SECONDS: Final = 60.0
_JITTER_SHARE: Final = 0.2


def backoff_seconds(attempts: int, seconds_to_auto_stop: float | None, jitter: float) -> float:
    """The exponential backoff after the ``attempts``-th attempt (1, 2, …): 1, 2, 4, 8 … seconds, up to a maximum.

    The maximum is 10 s before the vendor's auto-stop, or if its time is unknown: with a request deadline of 8 s an
    attempt then begins and ends within the last 30 s of the window (invariant I3). After the auto-stop it is 60 s.
    ``jitter`` in [0, 1) shortens the wait by up to a fifth, so that daemons that failed together retry apart.
    """
    passed = seconds_to_auto_stop is not None and seconds_to_auto_stop <= 0
    maximum = _LONGEST_AFTER_AUTO_STOP_SECONDS if passed else _LONGEST_BEFORE_AUTO_STOP_SECONDS
    # From 2**6 on the maximum decides anyway, and a float would overflow at some point.
    doubled = 2.0 ** min(max(attempts, 1) - 1, 6)
    return min(doubled, maximum) * (1 - _JITTER_SHARE * jitter)


def is_exhausted(attempts: int, max_attempts: int, *, past_auto_stop: bool) -> bool:
    """Whether to give up a task; not before the vendor's auto-stop, because a short outage uses up twenty attempts."""
    return past_auto_stop and attempts >= max_attempts
