"""Durations, and what outcomes, reasons and rules mean, in English. The page has its Chinese in ``page.chinese``."""

from collections.abc import Sequence
from typing import Final

from watchdog.core.model import Mode, Outcome, Reason, Source, Verify
from watchdog.core.policy import RULE_TEXT, Rule
from watchdog.store.records import DETAIL_ROOM_REFUSED

_SIZES: Final = (86400, 3600, 60, 1)


def length(seconds: float, units: Sequence[str] = ("d", "h", "m", "s")) -> str:
    """``0.2s``, ``45s``, ``1m 58s``, ``2h 5m``, ``3d 4h``: at most two units. ``units``: day, hour, minute, second."""
    if abs(seconds) < 10 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}{units[-1]}"
    left = round(abs(seconds))
    words: list[str] = []
    for unit, size in zip(units, _SIZES, strict=True):
        number, left = divmod(left, size)
        if number or words:
            words.append(f"{number}{unit}")
    some = " ".join(word for word in words[:2] if word[0] != "0")
    return ("-" if seconds < 0 and words else "") + (some or f"0{units[-1]}")


OUTLOOK_TEXT: Final[dict[Rule, str]] = {
    Rule.ENDED: "Nothing: the task ended{when} ({status}).",
    Rule.NO_EVIDENCE: "Nothing until user_count is written; until then the task is left to ZEGO.",
    Rule.OCCUPIED: "Nothing while people are in the room; the task is due {grace} after the last one leaves.",
    Rule.ON_HOLD: "Nothing before the hold ends; then the daemon decides again. ZEGO does not know about the hold.",
    Rule.NOT_DUE: "When it is due, {then}",
    **dict.fromkeys((Rule.UNCONFIRMED, Rule.VENDOR_SAYS_EMPTY, Rule.HINT_SAYS_EMPTY), "It is due: {then}"),
    Rule.CONTRADICTED: (
        "Nothing until ZEGO sees people in the room, or the application reports it empty. Check the RoomId."
    ),
    **dict.fromkeys(
        (Rule.STALE_HINT, Rule.HINT_BEFORE_GAP),
        "Nothing until a new hint arrives or ZEGO can be asked; otherwise the task is left to ZEGO.",
    ),
    Rule.GUARDED: (
        "Nothing until ZEGO can be asked, enough rooms have people again, or an operator releases the guard. "
        "Next step: zego-watchdog guard."
    ),
    Rule.OLD_BUT_OCCUPIED: (
        "Nothing while people are in the room. Every five minutes the daemon looks again, and {stops} if it is empty. "
        "Is the number of people wrong? See who is there with: zego-watchdog room."
    ),
    **dict.fromkeys((Rule.OLD_AND_EMPTY, Rule.OLD_AND_EMPTY_BY_HINT), "It is too old, so no grace is left: {then}"),
    Rule.OLD_UNANSWERED: "When ZEGO has said who is in the room, the daemon {stops}, even if there are people in it.",
    **dict.fromkeys(
        (Rule.OLD_WITH_PEOPLE, Rule.OLD_UNVERIFIED),
        "The daemon {stops}, even if there are people in the room: policy.on_max_age is stop_with_people_inside.",
    ),
}
"""What happens to a task next, by the rule of a decision that was made without asking ZEGO.

``{when}`` and ``{status}`` are of the end, ``{grace}`` is a duration, ``{then}`` one of ``AT_DUE_TEXT``, ``{stops}``
one of ``STOPS_TEXT``.
"""

AT_DUE_TEXT: Final[dict[Verify, str]] = {
    Verify.REQUIRED: "the daemon asks ZEGO who is in the room, and {stops} if it is empty.",
    Verify.WHEN_POSSIBLE: (
        "the daemon asks ZEGO who is in the room, and {stops} if it is empty or ZEGO cannot be asked."
    ),
    Verify.OFF: "the daemon {stops}, by the hint alone.",
}

STOPS_TEXT: Final[dict[Mode, str]] = {
    Mode.OBSERVE: "records what it would stop (observe mode: nothing is sent)",
    Mode.ENFORCE: "stops it",
}

OUTCOME_TEXT: Final[dict[Outcome, str]] = {
    Outcome.SENT: "the request was sent; its reply is not recorded yet",
    Outcome.STOPPED: "stopped by us; ZEGO confirmed it",
    Outcome.GONE: "ZEGO does not know the task: it was stopped or ended before",
    Outcome.STOPPED_EARLIER: "ZEGO does not know the task: our earlier request stopped it, and its reply was lost",
    Outcome.AUTO_STOPPED: "ZEGO's auto-stop ended the task",
    Outcome.RETRY: "ZEGO did not stop the task this time",
    Outcome.UNKNOWN: "no usable reply; ZEGO may have stopped the task",
    Outcome.REJECTED: "ZEGO refuses to stop this task",
    Outcome.BLOCKED: "ZEGO refuses the whole AppId",
    Outcome.SPARED: "there are people in the room; nothing was sent",
    Outcome.WITHHELD: "nothing was sent",
    Outcome.WOULD_STOP: "observe mode: nothing was sent; enforce mode would stop the task",
}

REASON_TEXT: Final[dict[Reason, str]] = {
    Reason.EMPTY_ROOM: "everybody had left the room",
    Reason.NEVER_JOINED: "nobody had joined the room",
    Reason.BOTS_ONLY: "only bots or admins were left in the room",
    Reason.MAX_AGE: "the task was older than policy.max_age_seconds",
    Reason.MANUAL: "an operator ran zego-watchdog stop",
}

REPORTER: Final[dict[Source, str]] = {
    Source.API: "ZEGO",
    Source.APP: "the application",
    Source.CALLBACK: "ZEGO's callback",
}
"""Who reported how many people are in a room."""

APP_NOT_CONFIGURED: Final = "app_not_configured"

DETAIL_TEXT: Final[dict[str, str]] = {
    **{rule.value: text for rule, text in RULE_TEXT.items()},
    DETAIL_ROOM_REFUSED: "ZEGO refuses the RoomId, so it does not say who is in the room",
    APP_NOT_CONFIGURED: "the AppId is not in zego.apps",
}
"""The ``detail`` of an attempt in words; those that are not here are stored in words."""
