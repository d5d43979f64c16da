"""The sections of the report: what each says, its plot, and its tables. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, assert_never

from watchdog.core.model import Outcome
from watchdog.core.outcomes import MEANINGS
from watchdog.insight.legible import legible
from watchdog.report import charts
from watchdog.report.distribution import at, between, even_limits, rising, total
from watchdog.report.texts import Texts, length, moment, percent
from watchdog.store.reports.distributions import BELOW_ZERO, Distribution
from watchdog.store.reports.report import Findings, Savings
from watchdog.store.reports.situation import IDLE_CODE, Windows

KINDS: Final = ("is_stopped", "is_missed", "is_gone", "is_kept", "is_observed", "is_open")
"""Kinds of outcomes, in the order of their colours in ``style.css``."""

_LATE_LIMITS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)
_RETURN_LIMITS: Final = (5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
_LONGEST_LABEL: Final = 24
_UNITS: Final = (("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000))


@dataclass(frozen=True, slots=True)
class Column:
    """``is_foreign``: the texts come from outside; their direction of writing must not reach what is beside them."""

    title: str
    is_number: bool = False
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` are texts, one for each column."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """``name`` is its id in the page; ``plot`` is SVG, None if there is nothing to draw."""

    name: str
    title: str
    text: str
    remarks: Sequence[str]
    plot: str | None
    tables: Sequence[Table]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class ReturnCurve:
    """The share of empty rooms to which people are back, in steps: after seconds, share, lower and upper limit."""

    spells: int
    steps: Sequence[tuple[float, float, float, float]]


def kind_of(outcome: Outcome) -> str:
    """Return which of ``KINDS`` an outcome belongs to."""
    match outcome:
        case Outcome.STOPPED | Outcome.STOPPED_EARLIER:
            return "is_stopped"
        case Outcome.AUTO_STOPPED:
            return "is_missed"
        case Outcome.GONE:
            return "is_gone"
        case Outcome.SPARED | Outcome.WITHHELD:
            return "is_kept"
        case Outcome.WOULD_STOP:
            return "is_observed"
        case Outcome.SENT | Outcome.RETRY | Outcome.UNKNOWN | Outcome.REJECTED | Outcome.BLOCKED:
            return "is_open"
        case _:
            assert_never(outcome)


def figures(found: Findings, texts: Texts) -> list[Figure]:
    """Return the few numbers at the top."""
    freed = sum(day.freed_milliseconds for day in found.savings)
    back = sum(count for value, count in found.returns.items() if value <= 60_000)
    values = {
        "stopped": f"{_stops(found):,}",
        "missed": f"{found.count(Outcome.AUTO_STOPPED):,}",
        "spared": f"{found.count(Outcome.SPARED):,}",
        "back_60": f"{back:,}",
        "freed": length(freed),
    }
    return [Figure(texts[name], value, texts.get(f"{name}_note", "")) for name, value in values.items()]


def sections(found: Findings, texts: Texts, curve: ReturnCurve | None) -> list[Section]:
    """Return all sections in their order. Raises ConfigError without the library that draws."""
    return [
        _outcomes(found, texts),
        _lateness(found, texts),
        _early(found, texts),
        _savings(found, texts),
        _returns(found, texts),
        *([] if curve is None else [_curve(curve, texts)]),
        _window(found, texts),
        _codes(found, texts),
        _longest(found, texts),
    ]


def _stops(found: Findings) -> int:
    return found.count(Outcome.STOPPED, Outcome.STOPPED_EARLIER)


def _section(
    name: str, texts: Texts, remarks: Sequence[str], plot: str | None, tables: Sequence[Table], **words: Any
) -> Section:
    rows = any(table.rows for table in tables)
    return Section(
        name,
        texts[name],
        texts[f"{name}_text"].format(**words),
        remarks or ([] if rows else [texts["nothing"]]),
        plot,
        tables if rows else [],
    )


def _outcomes(found: Findings, texts: Texts) -> Section:
    hours = sorted({hour for hour, _ in found.outcomes})
    present = [outcome for outcome in Outcome if found.count(outcome)]
    unit = texts["day" if found.by_day else "hour"]
    totals = [[outcome.value, texts[kind_of(outcome)], f"{found.count(outcome):,}"] for outcome in present]
    by_hour = [[_hour(hour), *(f"{found.outcomes.get((hour, outcome), 0):,}" for outcome in present)] for hour in hours]
    columns = [Column(texts["outcome"]), Column(texts["kind_of_outcome"]), Column(texts["attempts"], is_number=True)]
    numbers = [Column(outcome.value, is_number=True) for outcome in present]
    tables = [
        Table(_table(texts, texts["total"]), columns, totals),
        Table(_table(texts, unit), [Column(unit), *numbers], by_hour),
    ]
    return _section("outcomes", texts, [], _by_time(found, texts, unit) if hours else None, tables)


def _by_time(found: Findings, texts: Texts, unit: str) -> str:
    starts = _starts(found)
    series: dict[str, list[int | float]] = {texts[kind]: [0] * len(starts) for kind in KINDS}
    for (hour, outcome), count in found.outcomes.items():
        series[texts[kind_of(outcome)]][starts.index(hour)] += count
    return charts.bars(texts["outcomes"], (unit, texts["attempts"]), [*map(_hour, starts)], series)


def _starts(found: Findings) -> list[str]:
    """Return all hours or days from the first attempt on, also those without any: a gap is to be seen."""
    form, step = ("%Y-%m-%d", timedelta(days=1)) if found.by_day else ("%Y-%m-%d %H", timedelta(hours=1))
    starts: list[str] = []
    start = datetime.strptime(min(found.outcomes)[0], form).replace(tzinfo=UTC)
    last = max(max(found.outcomes)[0], f"{found.now.astimezone(UTC):{form}}")
    while not starts or starts[-1] < last:
        starts.append(f"{start:{form}}")
        start += step
    return starts


def _hour(start: str) -> str:
    """``2026-11-24 13`` as ``11-24 13:00``, and a day as it is."""
    return f"{start[5:]}:00" if " " in start else start


def _table(texts: Texts, name: str) -> str:
    return texts["table_of"].format(name=name)


def _lateness(found: Findings, texts: Texts) -> Section:
    remarks = _percentiles(found.late, texts)
    plot, table = _spread("lateness", "late_axis", found.late, _LATE_LIMITS, texts)
    return _section("lateness", texts, remarks, plot, [table])


def _percentiles(values: Distribution, texts: Texts) -> list[str]:
    if not values:
        return []
    p50, p99, worst = (length(max(0, at(values, share))) for share in (0.5, 0.99, 1))
    return [texts["percentiles"].format(count=f"{total(values):,}", p50=p50, p99=p99, worst=worst)]


def _early(found: Findings, texts: Texts) -> Section:
    remarks = []
    if found.early:
        late = found.early.get(BELOW_ZERO, 0)
        p50 = length(max(0, at(found.early, 0.5)))
        remarks = [texts["early_summary"].format(count=f"{total(found.early):,}", p50=p50, late=f"{late:,}")]
    plot, table = _spread("early", "early_axis", found.early, None, texts)
    return _section("early", texts, remarks, plot, [table])


def _spread(
    name: str, axis: str, values: Distribution, limits: Sequence[int] | None, texts: Texts
) -> tuple[str | None, Table]:
    """Draw counts between limits, and list them. Without ``limits``, even ones are chosen."""
    columns = [Column(texts[axis]), Column(texts["number"], is_number=True), Column(texts["share"], is_number=True)]
    title = _table(texts, texts[name])
    if not values:
        return None, Table(title, columns, [])
    chosen = even_limits(values) if limits is None else limits
    counts = between(values, chosen)
    labels = _intervals(chosen, texts)
    shown = [number for number, count in enumerate(counts) if count]
    used = slice(shown[0], shown[-1] + 1)
    labels, counts = labels[used], counts[used]
    plot = charts.bars(texts[name], (texts[axis], texts["number"]), labels, {"": counts}, x_label_rotation=30)
    of = total(values)
    rows = [[label, f"{count:,}", percent(count, of)] for label, count in zip(labels, counts, strict=True)]
    return plot, Table(title, columns, rows)


def _intervals(limits: Sequence[int], texts: Texts) -> list[str]:
    """Return a label for each interval of ``between``."""
    return [
        texts["below"].format(high=length(limits[0]) if limits[0] else "0"),
        *(
            texts["from_to"].format(low=length(low) if low else "0", high=length(high))
            for low, high in pairwise(limits)
        ),
        texts["from"].format(low=length(limits[-1])),
    ]


def _savings(found: Findings, texts: Texts) -> Section:
    days = sorted({row.day for row in found.savings})
    freed = [sum(row.freed_milliseconds for row in found.savings if row.day == day) for day in days]
    plot = None
    if any(freed):
        unit, size = next((pair for pair in _UNITS if max(freed) >= 2 * pair[1]), _UNITS[-1])
        plot = charts.bars(texts["savings"], (texts["day"], texts[unit]), days, {"": [one / size for one in freed]})
    names = ("stops", "freed_column", "mean_column", "no_auto_stop", "missed", "spared", "back_60", "back_600")
    columns = [
        *(Column(texts[name], is_foreign=name == "kind") for name in ("day", "kind", "app")),
        *(Column(texts[name], is_number=True) for name in names),
    ]
    table = Table(_table(texts, texts["savings"]), columns, [_saved(row, texts) for row in found.savings])
    return _section("savings", texts, [], plot, [table])


def _saved(row: Savings, texts: Texts) -> list[str]:
    compared = row.stops - row.no_auto_stop
    counts = (row.no_auto_stop, row.missed, row.spared, row.back_within_60, row.back_within_600)
    return [
        row.day,
        legible(row.kind),
        texts["default_app"] if row.app_id is None else str(row.app_id),
        f"{row.stops:,}",
        length(row.freed_milliseconds),
        length(row.freed_milliseconds / compared) if compared else "–",
        *(f"{count:,}" for count in counts),
    ]


def _returns(found: Findings, texts: Texts) -> Section:
    stops, returned = _stops(found), total(found.returns)
    words = {"stops": f"{stops:,}", "returned": f"{returned:,}", "share": percent(returned, stops)}
    remarks = [texts["returns_summary"].format(**words)] if stops else []
    columns = [Column(texts["returns_axis"]), Column(texts["number"], is_number=True)]
    plot, rows = None, []
    if returned:
        # The stop before a return may be older than the period's first attempt that is still in the ledger.
        steps = rising(found.returns, max(stops, returned))
        plot = charts.lines(texts["returns"], (texts["returns_axis"], texts["returns_share"]), {"": steps})
        counts = between(found.returns, _RETURN_LIMITS)
        rows = [[name, f"{n:,}"] for name, n in zip(_intervals(_RETURN_LIMITS, texts), counts, strict=True)]
    return _section("returns", texts, remarks, plot, [Table(_table(texts, texts["returns"]), columns, rows)])


def _curve(curve: ReturnCurve, texts: Texts) -> Section:
    series: dict[str, list[tuple[float, float]]] = {texts[name]: [] for name in ("curve_share", "lower", "upper")}
    for points, index in zip(series.values(), (1, 2, 3), strict=True):
        before = 0.0
        for step in curve.steps:
            points += [(step[0], before), (step[0], step[index])]
            before = step[index]
    plot = charts.lines(texts["curve"], (texts["curve_axis"], texts["curve_share"]), series) if curve.steps else None
    columns = [Column(texts["curve_axis"]), *(Column(name, is_number=True) for name in series)]
    rows = [[f"{step[0]:g}", *(f"{share:.2%}" for share in step[1:])] for step in _thinned(curve.steps)]
    return _section(
        "curve", texts, [], plot, [Table(_table(texts, texts["curve"]), columns, rows)], spells=f"{curve.spells:,}"
    )


def _thinned(steps: Sequence[Any], most: int = 40) -> Iterator[Any]:
    """Yield at most about ``most`` of the steps, the last one included."""
    every = -(-len(steps) // most) or 1
    yield from (step for number, step in enumerate(steps) if (len(steps) - 1 - number) % every == 0)


def _window(found: Findings, texts: Texts) -> Section:
    remarks = []
    if found.windows:
        early = at(found.windows_off, 0.5) / 1000 if found.windows_off else 0.0
        seconds = (total(found.windows), min(found.windows) / 1000, at(found.windows, 0.5) / 1000)
        measured = Windows(*seconds, early)
        remarks.append(
            texts["window_summary"].format(
                count=f"{measured.count:,}",
                minimum=length(1000 * measured.minimum),
                median=length(1000 * measured.median),
            )
        )
        if measured.is_faster_than_configured:
            remarks.append(texts["window_faster"].format(seconds=length(1000 * measured.early)))
    plot, table = _spread("window", "window_axis", found.windows, None, texts)
    return _section("window", texts, remarks, plot, [table])


def _codes(found: Findings, texts: Texts) -> Section:
    named = [(legible(code.code), code.count) for code in found.codes]
    cut = [(name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…", count) for name, count in named]
    plot = charts.lying_bars(texts["codes"], texts["number"], cut) if cut else None
    columns = [
        Column(texts["code"], is_foreign=True),
        Column(texts["meaning"]),
        Column(texts["number"], is_number=True),
        Column(texts["message"], is_foreign=True),
    ]
    rows = [
        [legible(code.code), _meaning(code.code), f"{code.count:,}", legible(code.message or "")]
        for code in found.codes
    ]
    remarks = [texts["codes_more"].format(number=f"{found.other_codes:,}")] if found.other_codes else []
    return _section("codes", texts, remarks, plot, [Table(_table(texts, texts["codes"]), columns, rows)])


def _meaning(code: str) -> str:
    return Outcome.AUTO_STOPPED.value if code == IDLE_CODE else MEANINGS[code].value if code in MEANINGS else "–"


def _longest(found: Findings, texts: Texts) -> Section:
    columns = [
        Column(texts["room"], is_foreign=True),
        Column(texts["task"], is_foreign=True),
        Column(texts["app"]),
        Column(texts["empty_since"]),
        Column(texts["empty_for"], is_number=True),
        Column(texts["ended"]),
    ]
    rows = [
        [
            legible(room.room_id),
            legible(room.task_id),
            texts["default_app"] if room.app_id is None else str(room.app_id),
            moment(room.empty_since),
            length(room.milliseconds),
            texts["still_runs"] if room.outcome is None else room.outcome.value,
        ]
        for room in found.longest
    ]
    return _section("longest", texts, [], None, [Table(_table(texts, texts["longest"]), columns, rows)])
