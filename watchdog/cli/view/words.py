"""Lengths of time and decisions in words that people read and write. Pure."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from watchdog.core.model import Mode, Outcome, Status, Task, Verify
from watchdog.core.policy import RULE_TEXT, Decision, Policy, Rule

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LENGTH: Final = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_LONGEST: Final = timedelta(days=366)


def parse_length(text: str) -> timedelta:
    """Read ``10m``, ``2h``, ``1h30m`` or ``90s``; raise ValueError for anything else, and for more than a year."""
    if not _LENGTH.fullmatch(text):
        raise ValueError(f"{text!r} is no length of time: write it like 90s, 10m, 2h, 1h30m or 1d")
    parts = re.findall(r"([\d.]+)([dhms])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is out of bounds: more than nothing, and at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 time, in UTC where it names no zone; raise ValueError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it like 2026-08-21T12:30 (UTC) or with a zone, +02:00") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def length(seconds: float) -> str:
    """``0.2s``, ``45s``, ``1m 58s``, ``2h 5m``, ``3d 4h``: two units at most."""
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
    """How long ago, or in how long."""
    seconds = (now - moment).total_seconds()
    return f"in {length(-seconds)}" if seconds < 0 else f"{length(seconds)} ago"


def until(moment: datetime, now: datetime) -> str:
    """In how long, or how long overdue."""
    seconds = (moment - now).total_seconds()
    return f"in {length(seconds)}" if seconds > 0 else f"{length(-seconds)} overdue"


def stamp(moment: datetime) -> str:
    """``2026-08-21 12:03:45Z``: UTC to the second, as SQL shows it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def number(count: int, noun: str) -> str:
    """``1 task``, ``2,000 tasks``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def people(count: int) -> str:
    return "1 person" if count == 1 else f"{count:,} people"


def listed(words: Sequence[object]) -> str:
    return ", ".join(map(str, words))


def ruling(decision: Decision, now: datetime) -> str:
    """A decision in one line."""
    ends = f"; until {stamp(decision.until)} ({until(decision.until, now)})" if decision.until else ""
    return f"{RULE_TEXT[decision.rule]}{ends}"


def outlook(task: Task, decision: Decision, rules: Policy, now: datetime) -> str:
    """What will become of ``task`` if nobody does anything; ``decision`` is without ZEGO's own word."""
    match decision.rule:
        case Rule.ENDED:
            when = "" if task.ended_at is None else f" {since(task.ended_at, now)}"
            return f"Nothing more: the task ended{when} ({task.status})."
        case Rule.NO_EVIDENCE:
            return "Nothing until somebody writes user_count; until then ZEGO alone ends the task."
        case Rule.OCCUPIED:
            grace = rules.grace_seconds if task.grace_seconds is None else task.grace_seconds
            return f"Nothing as long as there are people; the task is due {length(grace)} after the last one has left."
        case Rule.ON_HOLD:
            return "Nothing before the hold ends; then the daemon decides anew. ZEGO knows nothing of the hold."
        case Rule.NOT_DUE | Rule.UNCONFIRMED | Rule.VENDOR_SAYS_EMPTY | Rule.HINT_SAYS_EMPTY:
            return f"{'When it is due, ' if decision.rule is Rule.NOT_DUE else 'It is due: '}{_at_due(rules)}"
        case Rule.CONTRADICTED:
            return "Nothing until ZEGO sees people there, or the application calls the room empty. Check the RoomId."
        case Rule.STALE_HINT | Rule.HINT_BEFORE_GAP:
            return "Nothing until a fresh hint comes in or ZEGO can be asked; otherwise ZEGO ends the task."
        case Rule.GUARDED:
            return (
                "Nothing until ZEGO can be asked, enough rooms refill, or an operator knows better. What to do: "
                "zego-watchdog guard."
            )
        case _:
            assert_never(decision.rule)


def _at_due(rules: Policy) -> str:
    then = "records what it would stop (observe mode: nothing is sent)" if rules.mode is Mode.OBSERVE else "stops it"
    match rules.verify:
        case Verify.REQUIRED:
            return f"the daemon asks ZEGO who is in the room, and {then} if nobody is."
        case Verify.WHEN_POSSIBLE:
            return f"the daemon asks ZEGO who is in the room, and {then} if nobody is or ZEGO cannot be asked."
        case Verify.OFF:
            return f"the daemon {then}, trusting the hint."
        case _:
            assert_never(rules.verify)


OUTCOME_TEXT: Final[dict[Outcome, str]] = {
    Outcome.SENT: "a request is on its way",
    Outcome.STOPPED: "ZEGO stopped the task",
    Outcome.GONE: "ZEGO knows no such task: it had been stopped or had ended before",
    Outcome.STOPPED_EARLIER: "ZEGO knows no such task: an earlier request whose answer was lost had stopped it",
    Outcome.AUTO_STOPPED: "ZEGO had ended the task by itself",
    Outcome.RETRY: "ZEGO did not do it this time",
    Outcome.UNKNOWN: "no usable answer came; ZEGO may have stopped the task",
    Outcome.REJECTED: "ZEGO refuses to stop this task",
    Outcome.BLOCKED: "ZEGO refuses the whole AppId",
    Outcome.SPARED: "there are people in the room; nothing was sent",
    Outcome.WITHHELD: "nothing was sent",
    Outcome.WOULD_STOP: "observe mode: nothing was sent; in enforce mode the task would have been stopped",
}

STYLE: Final[dict[str, str]] = {
    Outcome.STOPPED: "green",
    Outcome.GONE: "green",
    Outcome.STOPPED_EARLIER: "green",
    Outcome.SPARED: "cyan",
    Outcome.AUTO_STOPPED: "bold yellow",
    Outcome.RETRY: "yellow",
    Outcome.UNKNOWN: "yellow",
    Outcome.REJECTED: "bold red",
    Outcome.BLOCKED: "bold red",
    Status.FAILED: "bold red",
}
"""How outcomes and statuses look on a terminal; what is missing looks like other text."""
