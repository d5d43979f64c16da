"""The screen of ``advise``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from watchdog.cli.view import words
from watchdog.cli.view.output import Column, heading, note, say, show_pairs, show_table
from watchdog.core.advice import FEWEST_ROOMS, Advice, Candidate, Difference
from watchdog.core.model import Ending
from watchdog.core.policy import Policy
from watchdog.core.survival import Curve, Interval
from watchdog.store.reports.spells import Found, NamedSpell

_SHOWN_SECONDS: Final = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1800, 3600)

LEFT: Final = "People are back in a room that they had left"
NEVER_JOINED: Final = "People are in a room that nobody had joined"
LISTED: Final = "At most three tasks for each grace and difference, of the newest 20,000 spells."

_ENDING_TEXT: Final[dict[Ending, str]] = {
    Ending.RETURNED: "returned",
    Ending.STOPPED: "stopped by us",
    Ending.AUTO_STOPPED: "auto-stopped by ZEGO",
    Ending.RELEASED: "released",
    Ending.UNKNOWN: "unknown",
}
DIFFERENCE_TEXT: Final[dict[Difference, str]] = {
    Difference.KEPT: "was stopped; people would have been back in time",
    Difference.STOPPED: "would have been stopped",
    Difference.STOPPED_BEFORE_RETURN: "would have been stopped before people came back",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is shown. ``polling_seconds`` 0: ZEGO is not asked regularly who is in the rooms."""

    found: Found
    policy: Policy
    polling_seconds: float
    app_id: int | None
    advice: Advice
    listed: Sequence[tuple[float, Difference, NamedSpell]]


def print_advice(answer: Answer) -> None:
    advice = answer.advice
    show_pairs(list(summary(answer).items()))
    for title, curve in ((LEFT, advice.left), (NEVER_JOINED, advice.never_joined)):
        if rows := curve_rows(curve, advice):
            heading(title)
            _print_curve(rows)
    heading("What each grace would have done")
    _print_candidates(answer)
    if answer.listed:
        heading("Tasks that would have fared differently, the newest first")
        _print_listed(answer)
    note("These are estimates: docs/advise.md says what they leave out. Nothing was changed.")


def summary(answer: Answer) -> dict[str, str]:
    """What the estimate is made of, by name."""
    return {
        "spells": f"{_spells(answer.advice)}, ended since {words.stamp(answer.found.since)}",
        "stops": _returns(answer.advice),
        "evidence": _evidence(answer),
        "configured": f"policy.grace_seconds {answer.policy.grace_seconds:g}, window {_window(answer.policy)}",
    }


def curve_rows(curve: Curve, advice: Advice) -> Sequence[Mapping[str, Any]]:
    """Return points of a curve, as far as enough rooms were observed, and at each grace."""
    reach = curve.reaches(FEWEST_ROOMS)
    points = sorted({*map(float, _SHOWN_SECONDS), *(one.grace_seconds for one in advice.candidates)})
    rows = []
    for seconds in points:
        if seconds <= reach:
            share = curve.returned(seconds)
            observed = {"seconds": seconds, "observed": curve.at_risk(seconds)}
            rows.append(observed | {"returned": share.value, "low": share.low, "high": share.high})
    return rows


def _spells(advice: Advice) -> str:
    parts = [f"{number:,} {_ENDING_TEXT[ending]}" for ending, number in advice.endings.items() if number]
    return f"{words.number(advice.spells, 'empty room')}: {words.listed(parts)}"


def _returns(advice: Advice) -> str:
    stops = words.number(advice.endings[Ending.STOPPED], "stop")
    seen = f"people were seen back after {advice.returns_after_stops:,} of {stops}"
    if advice.horizon_seconds is None:
        return f"{seen}; rooms were not watched for long enough after a stop to estimate a share"
    return f"{seen}; below, a return counts within {words.length(advice.horizon_seconds)} of the stop"


def _evidence(answer: Answer) -> str:
    total = sum(answer.found.sources.values())
    shares = [
        f"{source or 'no source'} {number / total:.0%}"
        for source, number in sorted(answer.found.sources.items(), key=lambda one: -one[1])
    ]
    reported = f"reported by {words.listed(shares)}"
    if not answer.polling_seconds:
        return f"{reported}; ZEGO is not polled, so a return that nothing reports is not noticed"
    length = words.length(answer.polling_seconds)
    return f"{reported}; ZEGO is asked every {length}, so times from api are late by up to {length}"


def _window(policy: Policy) -> str:
    return f"{words.length(policy.max_idle_seconds)} unless the task states its own"


def _print_curve(rows: Sequence[Mapping[str, Any]]) -> None:
    shares = [Interval(row["returned"], row["low"], row["high"]) for row in rows]
    show_table(
        [
            Column("AFTER", [words.length(row["seconds"]) for row in rows], right=True),
            Column("BACK", [share(one) for one in shares], right=True),
            Column("95 % INTERVAL", [interval(one) for one in shares], right=True),
            Column("OBSERVED", [f"{row['observed']:,}" for row in rows], right=True, spare=1),
        ]
    )


def _print_candidates(answer: Answer) -> None:
    graces = answer.advice.candidates
    own = answer.policy.grace_seconds
    show_table(
        [
            Column("GRACE", [_grace(one.grace_seconds, own) for one in graces], right=True),
            Column("STOPS", [f"{one.stops:,.0f}" for one in graces], right=True),
            Column("MET BY A RETURN", ["?" if one.met is None else share(one.met) for one in graces], right=True),
            Column("95 % INTERVAL", ["" if one.met is None else interval(one.met) for one in graces], right=True),
            Column("FREED", [words.length(one.freed_seconds) for one in graces], right=True),
            Column("MISSED", [f"{one.missed:,.0f}" for one in graces], right=True),
            Column("KEPT INSTEAD", [different(one, Difference.KEPT) for one in graces], right=True, spare=2),
            Column(
                "STOPPED INSTEAD",
                [different(one, Difference.STOPPED, Difference.STOPPED_BEFORE_RETURN) for one in graces],
                right=True,
                spare=3,
            ),
            Column(
                "BEFORE A RETURN",
                [different(one, Difference.STOPPED_BEFORE_RETURN) for one in graces],
                right=True,
                spare=1,
            ),
        ],
        below=[list(remarks(one, own, answer.advice.spells)) for one in graces],
    )


def remarks(one: Candidate, configured: float, spells: int) -> Iterator[str]:
    if one.grace_seconds == configured:
        yield "the configured grace"
    if one.cut:
        yield f"the window is too short for this grace in {one.cut:,} of {spells:,} spells: the task is due earlier"
    if one.no_auto_stop >= 0.5:
        yield f"{words.number(round(one.no_auto_stop), 'stop')} without an auto-stop (only bots left) are not in FREED"
    if one.unknown:
        yield f"{words.number(one.unknown, 'task')} left out: stopped too early to know, few others observed so long"
    if one.met is not None and one.judged < one.stops - 0.5:
        yield f"MET BY A RETURN is of {one.judged:,.0f} stops: the other rooms were not watched for long enough"


def _print_listed(answer: Answer) -> None:
    listed = answer.listed
    own = answer.policy.grace_seconds
    show_table(
        [
            Column("GRACE", [_grace(grace, own) for grace, _, _ in listed], right=True),
            Column("TASK", [named.task_id for _, _, named in listed]),
            Column("ROOM", [named.room_id for _, _, named in listed], least=12),
            Column("EMPTY SINCE", [words.stamp(named.empty_since) for _, _, named in listed], spare=2),
            Column("FOR", [words.length(named.spell.seconds) for _, _, named in listed], right=True, spare=1),
            Column("DIFFERENCE", [DIFFERENCE_TEXT[found] for _, found, _ in listed]),
        ]
    )
    say(LISTED)


def different(one: Candidate, *kinds: Difference) -> str:
    number = sum(one.differences[kind] for kind in kinds)
    return f"{number:,}" if number else "-"


def _grace(seconds: float, configured: float) -> str | Text:
    shown = words.length(seconds)
    return Text(shown, "bold") if seconds == configured else shown


def share(one: Interval) -> str:
    return f"{one.value:.1%}"


def interval(one: Interval) -> str:
    return f"{one.low:.1%} to {one.high:.1%}"
