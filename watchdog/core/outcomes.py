"""What a reply means, the outcome of an attempt, the final status of its task, and when to retry. Pure.

Three steps, each one table or one function: return code → :class:`ReplyClass` → ``Outcome`` → ``Status``. The codes of
each kind of tasks are in ``core.kinds``.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from watchdog.core.kinds import DEFAULT_KIND, KINDS, Kind
from watchdog.core.model import Outcome, Reply, Status


class ReplyClass(StrEnum):
    """What to do after a reply."""

    STOPPED = "stopped"  # success, also of an action other than Stop
    GONE = "gone"  # no such task: already stopped, or ended by itself
    TRANSIENT = "transient"  # retry
    THROTTLED = "throttled"  # slow down, then retry
    UNEXPECTED = "unexpected"  # any code of an API that names none for a task that is gone: it might mean that
    CLOCK = "clock"  # our timestamp is wrong: measure the offset, sign again
    CREDENTIALS = "credentials"  # concerns the whole AppId
    CONFIGURATION = "configuration"  # concerns the whole AppId
    REJECTED = "rejected"  # concerns this task only


_GATEWAY: Final[Mapping[ReplyClass, tuple[int, ...]]] = {
    ReplyClass.STOPPED: (0,),
    ReplyClass.TRANSIENT: (100000012, 100000015),  # HTTP body unreadable, internal error
    ReplyClass.CLOCK: (100000004,),  # signature expired
    ReplyClass.CREDENTIALS: (100000005,),  # signature wrong
    ReplyClass.CONFIGURATION: (
        *(100000000, 100000001, 100000002, 100000003, 100000006, 100000007, 100000008, 100000009),
        *(100000010, 100000011, 100000013, 100000014, 100000017),
    ),
}

GATEWAY_CODES: Final[Mapping[str, ReplyClass]] = MappingProxyType(
    {str(code): reply_class for reply_class, codes in _GATEWAY.items() for code in codes}
)
"""The return codes that all of ZEGO's server APIs share, as text (ZEGO, "Server APIs: global return codes")."""


def _of_kind(kind: Kind) -> Mapping[str, ReplyClass]:
    own = {
        ReplyClass.GONE: kind.gone,
        ReplyClass.TRANSIENT: kind.transient,
        ReplyClass.THROTTLED: kind.throttled,
        ReplyClass.CREDENTIALS: kind.credentials,
        ReplyClass.CONFIGURATION: kind.configuration,
        ReplyClass.REJECTED: kind.rejected,
    }
    return MappingProxyType(
        {**GATEWAY_CODES, **{code: reply_class for reply_class, codes in own.items() for code in sorted(codes)}}
    )


RETURN_CODES: Final[Mapping[str, Mapping[str, ReplyClass]]] = MappingProxyType(
    {name: _of_kind(kind) for name, kind in KINDS.items()}
)
"""The known return codes of each kind's API, those of the gateway included. "00" and "0.0" are no codes."""

MEANINGS: Final[Mapping[str, ReplyClass]] = MappingProxyType(
    {code: reply_class for codes in RETURN_CODES.values() for code, reply_class in codes.items()}
)
"""What each known code means, of whichever kind; a test sees to it that no two kinds differ."""

_ROOM_CODES: Final = RETURN_CODES[DEFAULT_KIND]
"""Those of the RTC API. Its pages name 206 and 207 beside the gateway's; the others of ASR could mean nothing else."""


def classify(kind: Kind | None, reply: Reply) -> ReplyClass:
    """Classify a ``reply`` of the API of ``kind``; None is the RTC API.

    The HTTP status overrides the code: a 5xx is from a broken gateway, and a success counts only with a 2xx. An
    unknown code is transient, or unexpected where none is known for a task that is gone.
    """
    if reply.http_status == 429:
        return ReplyClass.THROTTLED
    if reply.http_status >= 500 or reply.code is None:
        return ReplyClass.TRANSIENT
    known = _ROOM_CODES if kind is None else RETURN_CODES[kind.name]
    unknown = ReplyClass.TRANSIENT if kind is None or kind.gone else ReplyClass.UNEXPECTED
    reply_class = known.get(reply.code, unknown)
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
        case ReplyClass.UNEXPECTED if earlier_unknown and not exhausted:
            # Perhaps the earlier request did it, and this is how the API says so: nobody knows.
            return Outcome.UNKNOWN
        case ReplyClass.TRANSIENT | ReplyClass.THROTTLED | ReplyClass.CLOCK | ReplyClass.UNEXPECTED:
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
_LONGEST_WITHOUT_SECONDS: Final = 600.0
_JITTER_SHARE: Final = 0.2
_IN_HASTE_AT_MOST: Final = 20
"""Attempts before the longer wait, where ZEGO names no auto-stop."""


def backoff_seconds(attempts: int, seconds_to_auto_stop: float | None, jitter: float) -> float:
    """The exponential backoff after the ``attempts``-th attempt (1, 2, …): 1, 2, 4, 8 … seconds, up to a maximum.

    The maximum is 10 s before the vendor's auto-stop: with a request deadline of 8 s an attempt then begins and ends
    within the last 30 s of the window (invariant I3). After the auto-stop it is 60 s. If there is none
    (``seconds_to_auto_stop`` None), it is 10 minutes after twenty attempts.
    ``jitter`` in [0, 1) shortens the wait by up to a fifth, so that daemons that failed together retry apart.
    """
    if seconds_to_auto_stop is None:
        maximum = _LONGEST_WITHOUT_SECONDS if attempts > _IN_HASTE_AT_MOST else _LONGEST_BEFORE_AUTO_STOP_SECONDS
    else:
        maximum = _LONGEST_AFTER_AUTO_STOP_SECONDS if seconds_to_auto_stop <= 0 else _LONGEST_BEFORE_AUTO_STOP_SECONDS
    # From 2**10 on the maximum decides anyway, and a float would overflow at some point.
    doubled = 2.0 ** min(max(attempts, 1) - 1, 10)
    return min(doubled, maximum) * (1 - _JITTER_SHARE * jitter)


LONGEST_LIFE_SECONDS: Final = 86_400.0
"""The longest life that ZEGO gives a task without a window (ZEGO, "CreateDigitalHumanStreamTask": TTL)."""


def is_exhausted(
    attempts: int, max_attempts: int, *, auto_stop_at: datetime | None, due_at: datetime | None, now: datetime
) -> bool:
    """Whether to give up a task; not before the vendor's auto-stop, because a short outage uses up twenty attempts.

    A task without an auto-stop is tried for a day after it was due, and one that was never due for as long as it runs.
    """
    if attempts < max_attempts:
        return False
    if auto_stop_at is not None:
        return now >= auto_stop_at
    return due_at is not None and (now - due_at).total_seconds() >= LONGEST_LIFE_SECONDS
