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

GAP: Final = 2
_NAME_WIDTH: Final = 15
_PIPE_WIDTH: Final = 100_000


def console() -> Console:
    """Standard output: as wide as the terminal, or as $COLUMNS; unlimited in a pipe."""
    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH if piped else None)


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
    """One column of a table. If there is no room, the highest ``spare`` is dropped first; 0 is never dropped."""

    title: str
    cells: Sequence[str | Text]
    spare: int = 0
    right: bool = False

    @property
    def width(self) -> int:
        return max([cell_len(self.title), *(_width(cell) for cell in self.cells)])


def show_table(columns: Sequence[Column], *, below: Sequence[Sequence[str]] = ()) -> None:
    """Print a table, the lines of ``below`` under each row, and a note about columns that had no room."""
    out = console()
    kept = [column for column in columns if any(_width(cell) for cell in column.cells)]
    dropped: list[str] = []
    while sum(column.width + GAP for column in kept) - GAP > out.width and any(column.spare for column in kept):
        least = max(kept, key=lambda column: column.spare)
        kept.remove(least)
        dropped.append(least.title)
    out.print(_line(kept, [Text(column.title, "bold") for column in kept]))
    for number in range(len(columns[0].cells)):
        out.print(_line(kept, [column.cells[number] for column in kept]))
        for line in below[number] if below else ():
            out.print(Text(f"    {line}", "dim"), soft_wrap=False)
    if dropped:
        rest = words.listed(dropped[:-4:-1]) + (", …" if len(dropped) > 3 else "")
        note(f"No room for {words.number(len(dropped), 'column')} ({rest}): use a wider terminal, a pipe or --json.")


def _line(columns: Sequence[Column], cells: Sequence[str | Text]) -> Text:
    line = Text()
    for column, cell in zip(columns, cells, strict=True):
        padding = " " * (column.width - _width(cell))
        line.append(padding if column.right else "")
        line.append_text(cell if isinstance(cell, Text) else Text(legible(cell)))
        line.append(("" if column.right else padding) + " " * GAP)
    line.rstrip()
    return line


def _width(cell: str | Text) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(legible(cell))


def legible(text: str) -> str:
    """``text`` without control characters: ids and messages come from outside and could move the cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


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
    """Print a message to stderr, so stdout has only data."""
    typer.echo(text, err=True)


def hanging(out: Console, line: Text, indent: int) -> None:
    head, body = line[:indent], line[indent:]
    for number, part in enumerate(body.wrap(out, max(20, out.width - indent))):
        part.rstrip()
        out.print(Text.assemble(Text(" " * indent) if number else head, part))
