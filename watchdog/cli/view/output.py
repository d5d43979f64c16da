"""Prints aligned text, coloured on a terminal, and JSON for programs."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from watchdog.cli.view import words
from watchdog.insight.legible import legible

GAP: Final = 2
_NAME_WIDTH: Final = 15
_PIPE_WIDTH: Final = 100_000


def console() -> Console:
    """Standard output: as wide as the terminal, or as $COLUMNS; unlimited in a pipe."""
    width = _PIPE_WIDTH if is_piped() else None
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def is_piped() -> bool:
    """Whether standard output is no terminal, and nobody states its width."""
    return not sys.stdout.isatty() and not os.environ.get("COLUMNS")


def show_json(value: object) -> None:
    """Print JSON, with times as ISO 8601 in UTC."""
    typer.echo(json.dumps(value, indent=2, default=as_json))


def as_json(value: object) -> str:
    """A time as ISO 8601 in UTC. Raises TypeError for any other type that JSON lacks."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. If there is no room, the highest ``spare`` is dropped first; 0 is never dropped.

    A column with ``least`` is first made narrower, down to so many cells, and its texts end in an ellipsis.
    """

    title: str
    cells: Sequence[str | Text]
    spare: int = 0
    right: bool = False
    least: int | None = None

    @property
    def width(self) -> int:
        return max([cell_len(self.title), *(_width(cell) for cell in self.cells)])

    @property
    def narrowest(self) -> int:
        return self.width if self.least is None else min(self.width, self.least)


def show_table(columns: Sequence[Column], *, below: Sequence[Sequence[str]] = ()) -> None:
    """Print a table, the lines of ``below`` under each row, and a note about columns that had no room.

    A pipe gets every column; a terminal those that have a text in some row.
    """
    out = console()
    kept = [column for column in columns if is_piped() or any(_width(cell) for cell in column.cells)]
    dropped: list[str] = []
    while sum(column.narrowest + GAP for column in kept) - GAP > out.width and any(column.spare for column in kept):
        last = max(kept, key=lambda column: column.spare)
        kept.remove(last)
        dropped.append(last.title)
    widths = _widths(kept, out.width)
    out.print(_line(kept, widths, [Text(column.title, "bold") for column in kept]))
    for number in range(len(columns[0].cells)):
        out.print(_line(kept, widths, [column.cells[number] for column in kept]))
        for line in below[number] if below else ():
            out.print(Text(f"    {line}", "dim"), soft_wrap=False)
    if dropped:
        rest = words.listed(dropped[:-4:-1]) + (", …" if len(dropped) > 3 else "")
        note(f"No room for {words.number(len(dropped), 'column')} ({rest}): use a wider terminal, a pipe or --json.")


def _widths(columns: Sequence[Column], available: int) -> Sequence[int]:
    """The width of each column; the widest give way first."""
    widths = [column.width for column in columns]
    excess = sum(widths) + GAP * (len(widths) - 1) - available
    for number in sorted(range(len(widths)), key=lambda number: -widths[number]):
        given = max(0, min(excess, widths[number] - columns[number].narrowest))
        widths[number] -= given
        excess -= given
    return widths


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str | Text]) -> Text:
    line = Text()
    for column, width, cell in zip(columns, widths, cells, strict=True):
        text = cell.copy() if isinstance(cell, Text) else Text(legible(cell))
        text = text if text or not is_piped() else Text("-")
        text.truncate(max(width, 1), overflow="ellipsis")
        padding = " " * (width - text.cell_len)
        line.append(padding if column.right else "")
        line.append_text(text)
        line.append(("" if column.right else padding) + " " * GAP)
    line.rstrip()
    return line


def _width(cell: str | Text) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(legible(cell))


def show_pairs(pairs: Iterable[tuple[str, str | Text]]) -> None:
    """Print one name and value per line; an empty name continues the value above it."""
    out = console()
    for name, value in pairs:
        line = Text.assemble((f"{name:<{_NAME_WIDTH}}", "bold"), value if isinstance(value, Text) else legible(value))
        hanging(out, line, _NAME_WIDTH)


def heading(text: str) -> None:
    console().print(Text(f"\n{text}", "bold"))


def say(text: str, style: str = "") -> None:
    console().print(Text(legible(text), style), soft_wrap=False)


def note(text: str) -> None:
    """Print a message of one line to stderr, so stdout has only data."""
    typer.echo(legible(text), err=True)


def hanging(out: Console, line: Text, indent: int) -> None:
    head, body = line[:indent], line[indent:]
    for number, part in enumerate(body.wrap(out, max(20, out.width - indent))):
        part.rstrip()
        out.print(Text.assemble(Text(" " * indent) if number else head, part))
