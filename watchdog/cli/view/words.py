"""Durations, times and decisions as text, and times from options."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

from watchdog.clock import Clock
from watchdog.core.kinds import KINDS
from watchdog.core.model import Outcome, Status, Task
from watchdog.core.policy import RULE_TEXT, Decision, Policy, limits
from watchdog.insight import words as shared

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LENGTH: Final = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_DAYS_AGO: Final = {"today": 0, "yesterday": 1}
_LONGEST: Final = timedelta(days=366)

length: Final = shared.length


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
    grace = limits(KINDS[task.kind], rules).grace_seconds if task.grace_seconds is None else task.grace_seconds
    stops = shared.STOPS_TEXT[rules.mode]
    return shared.OUTLOOK_TEXT[decision.rule].format(
        when="" if task.ended_at is None else f" {since(task.ended_at, now)}",
        status=task.status,
        grace=length(grace),
        then=shared.AT_DUE_TEXT[rules.verify].format(stops=stops),
        stops=stops,
    )


def detail(text: str) -> str:
    """The ``detail`` of an attempt in words; most are stored as such."""
    return shared.DETAIL_TEXT.get(text, text)


STYLE: Final[dict[str, str]] = {
    **dict.fromkeys((Outcome.STOPPED, Outcome.GONE, Outcome.STOPPED_EARLIER), "green"),
    **dict.fromkeys((Outcome.RETRY, Outcome.UNKNOWN), "yellow"),
    **dict.fromkeys((Outcome.REJECTED, Outcome.BLOCKED, Status.FAILED), "bold red"),
    Outcome.SPARED: "cyan",
    Outcome.AUTO_STOPPED: "bold yellow",
}
"""Terminal styles of outcomes and statuses; the others have none."""
