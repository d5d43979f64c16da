"""The table of what was injected and how long recovery took: for the terminal, and for docs/reliability.md."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
BEGIN = "<!-- written by make faults WRITE=1; do not edit -->"
END = "<!-- end of what make faults writes -->"
_HEAD = ("Row", "Fault", "Database", "Times", "Recovery, median / worst", "Held")


def lines(records: Iterable[Mapping[str, Any]]) -> list[Sequence[str]]:
    """Return the table's lines: one for each fault and database, tests of the same taken together."""
    groups: dict[tuple[int, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["row"], record["fault"], record["backend"]), []).append(record)
    return [
        (
            str(row),
            fault,
            backend,
            str(sum(record["times"] for record in group)),
            _seconds([seconds for record in group for seconds in record["recovered_seconds"]]),
            " ".join(sorted({name for record in group for name in record["invariants"]})),
        )
        for (row, fault, backend), group in sorted(groups.items())
    ]


def as_text(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the table for a terminal."""
    table = [_HEAD, *lines(records)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def as_markdown(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the table for a page."""
    table = [_HEAD, tuple("---" for _ in _HEAD), *lines(records)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def write(records: Iterable[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Put the table into the page, between its two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} has no place for the table: a line {BEGIN}, and a line {END}")
    page.write_text(f"{before}{BEGIN}\n{as_markdown(records)}\n{END}{after}", encoding="utf-8")


def _seconds(measured: Sequence[float]) -> str:
    return f"{median(measured):.1f} s / {max(measured):.1f} s" if measured else "–"
