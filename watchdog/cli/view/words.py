"""Durations, times and decisions as text, and times from options."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

import typer

from watchdog.clock import Clock
from watchdog.core.model import Mode, Outcome, Reason, Source, Status, Task, Verify
from watchdog.core.policy import RULE_TEXT, Decision, Policy, Rule
from watchdog.store.records import DETAIL_ROOM_REFUSED

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LENGTH: Final = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_DAYS_AGO: Final = {"today": 0, "yesterday": 1}
_LONGEST: Final = timedelta(days=366)


def parse_length(text: str, option: str | None = None) -> timedelta:
    """Read ``10m``, ``2h``, ``1h30m`` or ``90s``. At most 366 days. Raises typer.BadParameter, naming ``option``."""
    if not _LENGTH.fullmatch(text):
        told = f"{text!r} is not a duration: write it like 90s, 10m, 2h, 1h30m or 1d"
        raise typer.BadParameter(told, param_hint=option)
    parts = re.findall(r"([\d.]+)([dhms])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST.total_seconds():
        told = f"{text!r} is out of range: more than 0s, at most {_LONGEST.days}d"
        raise typer.BadParameter(told, param_hint=option)
    return timedelta(seconds=seconds)


def parse_moment(text: str, option: str | None = None) -> datetime:
    """Read an ISO 8601 time, UTC if it has no zone. Raises typer.BadParameter, naming ``option``."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        told = f"{text!r} is not a time: write it like 2026-08-21T12:30 (UTC) or with a zone, +02:00"
        raise typer.BadParameter(told, param_hint=option) from None


def parse_past(text: str | None, option: str, clock: Clock) -> timedelta | datetime | None:
    """Read ``2h``, which means that long ago, ``today`` or ``yesterday`` (UTC), or an ISO time.

    Raises typer.BadParameter, naming ``option``.
    """
    if text is None:
        return None
    if text in _DAYS_AGO:
        today = datetime.fromtimestamp(clock.time(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=_DAYS_AGO[text])
    if _LENGTH.fullmatch(text):
        return parse_length(text, option)
    try:
        return parse_moment(text, option)
    except typer.BadParameter:
        told = (
            f"{text!r} is not understood: write a time ago like 90s, 2h or 7d; today or yesterday (UTC); or a time "
            "like 2026-08-21T12:30, UTC unless it has a zone"
        )
        raise typer.BadParameter(told, param_hint=option) from None


def length(seconds: float) -> str:
    """``0.2s``, ``45s``, ``1m 58s``, ``2h 5m``, ``3d 4h``: at most two units."""
    if abs(seconds) < 10 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}s"
    left = round(abs(seconds))
    words: list[str] = []
    for unit, size in _UNITS.items():
        number, left = divmod(left, size)
        if number or words:
            words.append(f"{number}{unit}")
    return ("-" if seconds < 0 and words else "") + (" ".join(word for word in words[:2] if word[0] != "0") or "0s")


def since(moment: datetime, now: datetime) -> str:
    """``5s ago``, or ``in 5s`` for the future."""
    seconds = (now - moment).total_seconds()
    return f"in {length(-seconds)}" if seconds < 0 else f"{length(seconds)} ago"


def until(moment: datetime, now: datetime) -> str:
    """``in 5s``, or ``5s overdue``."""
    seconds = (moment - now).total_seconds()
    return f"in {length(seconds)}" if seconds > 0 else f"{length(-seconds)} overdue"


def stamp(moment: datetime) -> str:
    """``2026-08-21 12:03:45Z``: UTC, in whole seconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def number(count: int, noun: str) -> str:
    """``1 task``, ``2,000 tasks``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def people(count: int) -> str:
    return "1 person" if count == 1 else f"{count:,} people"


def listed(words: Sequence[object]) -> str:
    return ", ".join(map(str, words))


def ruling(decision: Decision, now: datetime) -> str:
    ends = f"; until {stamp(decision.until)} ({until(decision.until, now)})" if decision.until else ""
    return f"{RULE_TEXT[decision.rule]}{ends}"


def outlook(task: Task, decision: Decision, rules: Policy, now: datetime) -> str:
    """What happens to ``task`` next; ``decision`` was made without asking ZEGO."""
    match decision.rule:
        case Rule.ENDED:
            when = "" if task.ended_at is None else f" {since(task.ended_at, now)}"
            return f"Nothing: the task ended{when} ({task.status})."
        case Rule.NO_EVIDENCE:
            return "Nothing until user_count is written; until then only ZEGO's auto-stop ends the task."
        case Rule.OCCUPIED:
            grace = rules.grace_seconds if task.grace_seconds is None else task.grace_seconds
            return f"Nothing while people are in the room; the task is due {length(grace)} after the last one leaves."
        case Rule.ON_HOLD:
            return "Nothing before the hold ends; then the daemon decides again. ZEGO does not know about the hold."
        case Rule.NOT_DUE | Rule.UNCONFIRMED | Rule.VENDOR_SAYS_EMPTY | Rule.HINT_SAYS_EMPTY:
            return f"{'When it is due, ' if decision.rule is Rule.NOT_DUE else 'It is due: '}{_at_due(rules)}"
        case Rule.CONTRADICTED:
            return "Nothing until ZEGO sees people in the room, or the application reports it empty. Check the RoomId."
        case Rule.STALE_HINT | Rule.HINT_BEFORE_GAP:
            return "Nothing until a new hint arrives or ZEGO can be asked; otherwise ZEGO's auto-stop ends the task."
        case Rule.GUARDED:
            return (
                "Nothing until ZEGO can be asked, enough rooms have people again, or an operator releases the guard. "
                "Next step: zego-watchdog guard."
            )
        case _:
            assert_never(decision.rule)


def _at_due(rules: Policy) -> str:
    then = "records what it would stop (observe mode: nothing is sent)" if rules.mode is Mode.OBSERVE else "stops it"
    match rules.verify:
        case Verify.REQUIRED:
            return f"the daemon asks ZEGO who is in the room, and {then} if it is empty."
        case Verify.WHEN_POSSIBLE:
            return f"the daemon asks ZEGO who is in the room, and {then} if it is empty or ZEGO cannot be asked."
        case Verify.OFF:
            return f"the daemon {then}, by the hint alone."
        case _:
            assert_never(rules.verify)


OUTCOME_TEXT: Final[dict[Outcome, str]] = {
    Outcome.SENT: "the request was sent; its reply is not recorded yet",
    Outcome.STOPPED: "ZEGO stopped the task",
    Outcome.GONE: "ZEGO does not know the task: it was stopped or ended before",
    Outcome.STOPPED_EARLIER: "ZEGO does not know the task: an earlier request stopped it, and its reply was lost",
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
    Reason.MANUAL: "an operator ran zego-watchdog stop",
}

REPORTER: Final[dict[Source, str]] = {
    Source.API: "ZEGO",
    Source.APP: "the application",
    Source.CALLBACK: "ZEGO's callback",
}
"""Who reported how many people are in a room."""

_DETAIL_TEXT: Final[dict[str, str]] = {
    **{rule.value: text for rule, text in RULE_TEXT.items()},
    DETAIL_ROOM_REFUSED: "ZEGO refuses the RoomId, so it does not say who is in the room",
    "app_not_configured": "the AppId is not in zego.apps",
}


def detail(text: str) -> str:
    """The ``detail`` of an attempt in words; most are stored as such."""
    return _DETAIL_TEXT.get(text, text)


STYLE: Final[dict[str, str]] = {
    **dict.fromkeys((Outcome.STOPPED, Outcome.GONE, Outcome.STOPPED_EARLIER), "green"),
    **dict.fromkeys((Outcome.RETRY, Outcome.UNKNOWN), "yellow"),
    **dict.fromkeys((Outcome.REJECTED, Outcome.BLOCKED, Status.FAILED), "bold red"),
    Outcome.SPARED: "cyan",
    Outcome.AUTO_STOPPED: "bold yellow",
}
"""Terminal styles of outcomes and statuses; the others have none."""
