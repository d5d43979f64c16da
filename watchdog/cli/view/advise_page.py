"""What ``advise`` says, as one HTML file: the same texts and numbers as its screen, with the curves drawn."""

from collections.abc import Iterator, Sequence

from watchdog import __version__
from watchdog.cli.view import advise, words
from watchdog.cli.view.advise import Answer
from watchdog.core.advice import Candidate, Difference
from watchdog.core.survival import Curve
from watchdog.insight.legible import legible
from watchdog.report import charts
from watchdog.report.page import document
from watchdog.report.returns import points
from watchdog.report.sections import Column, Figure, Section, Table

_AXES = ("seconds since the room became empty", "people are back")


def advice_page(answer: Answer) -> str:
    """Return the whole page. Raises ConfigError without the library that draws the plots."""
    told = advise.summary(answer)
    return document(
        "en",
        "zego-watchdog: what another grace would have done",
        told["spells"],
        list(_figures(answer)),
        [
            *_curves(answer),
            _graces(answer, [told[name] for name in ("stops", "evidence", "configured")]),
            *_tasks(answer),
        ],
        f"Estimates by zego-watchdog {__version__}: docs/advise.md says what they leave out.",
    )


def _figures(answer: Answer) -> Iterator[Figure]:
    own = answer.policy.grace_seconds
    for one in answer.advice.candidates:
        note = "the configured grace" if one.grace_seconds == own else ""
        met = "?" if one.met is None else advise.share(one.met)
        yield Figure(f"met by a return at {words.length(one.grace_seconds)}", met, note)


def _curves(answer: Answer) -> Iterator[Section]:
    for name, title, curve in (
        ("left", advise.LEFT, answer.advice.left),
        ("never-joined", advise.NEVER_JOINED, answer.advice.never_joined),
    ):
        rows = [
            [
                words.length(row["seconds"]),
                f"{row['returned']:.1%}",
                f"{row['low']:.1%}",
                f"{row['high']:.1%}",
                f"{row['observed']:,}",
            ]
            for row in advise.curve_rows(curve, answer.advice)
        ]
        if rows:
            titles = ("back", "lower limit", "upper limit", "observed")
            columns = [Column("after"), *(Column(one, is_number=True) for one in titles)]
            text = "The lines beside it are the limits of its 95 % interval."
            yield Section(name, title, text, [], _plot(title, curve), [Table("The numbers", columns, rows)])


def _plot(title: str, curve: Curve) -> str | None:
    found = points(curve)
    if not found:
        return None
    series = {
        name: [(point[0], point[index]) for point in found]
        for index, name in enumerate(("people are back", "lower limit", "upper limit"), 1)
    }
    return charts.lines(title, _AXES, series)


def _graces(answer: Answer, remarks: Sequence[str]) -> Section:
    own, spells = answer.policy.grace_seconds, answer.advice.spells
    titles = (
        "stops",
        "met by a return",
        "95 % interval",
        "freed",
        "missed",
        "kept instead",
        "stopped instead",
        "before a return",
    )
    columns = [Column("grace"), *(Column(one, is_number=True) for one in titles), Column("remarks")]
    rows = [
        [
            words.length(one.grace_seconds),
            f"{one.stops:,.0f}",
            "?" if one.met is None else advise.share(one.met),
            "" if one.met is None else advise.interval(one.met),
            words.length(one.freed_seconds),
            f"{one.missed:,.0f}",
            *_differences(one),
            "; ".join(advise.remarks(one, own, spells)),
        ]
        for one in answer.advice.candidates
    ]
    text = "Expected numbers, for the spells of this period. Nothing was changed."
    return Section(
        "graces", "What each grace would have done", text, remarks, None, [Table("The graces", columns, rows)]
    )


def _differences(one: Candidate) -> Iterator[str]:
    yield advise.different(one, Difference.KEPT)
    yield advise.different(one, Difference.STOPPED, Difference.STOPPED_BEFORE_RETURN)
    yield advise.different(one, Difference.STOPPED_BEFORE_RETURN)


def _tasks(answer: Answer) -> Iterator[Section]:
    if not answer.listed:
        return
    columns = [
        Column("grace"),
        Column("task", is_foreign=True),
        Column("room", is_foreign=True),
        Column("empty since"),
        Column("for", is_number=True),
        Column("difference"),
    ]
    rows = [
        [
            words.length(grace),
            legible(named.task_id),
            legible(named.room_id),
            words.stamp(named.empty_since),
            words.length(named.spell.seconds),
            advise.DIFFERENCE_TEXT[found],
        ]
        for grace, found, named in answer.listed
    ]
    yield Section(
        "tasks", "Tasks that would have fared differently", advise.LISTED, [], None, [Table("The tasks", columns, rows)]
    )
