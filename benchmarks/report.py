"""What a part found: tables in Markdown and plots; and their places in docs/benchmarks.md, between two markers each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of one part, and its plots by the names of their files."""

    lines: Sequence[str]
    plots: Mapping[str, str] = field(default_factory=dict)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of figures after the first."""
    return [row(header), row(["---", *["---:"] * (len(header) - 1)]), *map(row, rows)]


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    if abs(seconds) < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if abs(seconds) < 10 else f"{seconds:.1f} s"


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """The median, the 99th percentile and the worst; three times None where nothing was measured."""
    if not seconds:
        return None, None, None
    found = sorted(seconds)
    return median(found), found[int(len(found) * 0.99)], found[-1]


def duration_or_dash(seconds: float | None) -> str:
    """As ``duration``, and a dash where nothing was measured."""
    return "–" if seconds is None else duration(seconds)


def spread(seconds: Sequence[float]) -> str:
    """The median, and the range."""
    return f"{duration(median(seconds))} ({duration(min(seconds))} … {duration(max(seconds))})"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def write(document: Path, part: str, section: Section) -> None:
    """Put a part between its markers, and its plots beside the document. Raises ValueError where there are none."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    text = document.read_text(encoding="utf-8")
    between = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"{document} has no place for {part}: {begin} … {end}")
    pictures = [f"![{part}]({name})" for name in section.plots]
    found = "\n".join([begin, *section.lines, *(["", *pictures] if pictures else []), end])
    document.write_text(between.sub(lambda _: found, text), encoding="utf-8")
    for name, plot in section.plots.items():
        (document.parent / name).write_text(plot, encoding="utf-8")
