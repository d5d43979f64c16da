"""``history export``: rows as CSV or JSON lines, to standard output or to a file that is replaced atomically."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from watchdog.cli.commands.lookup import opened
from watchdog.cli.commands.target import replaced
from watchdog.cli.view import words
from watchdog.cli.view.output import as_json, note
from watchdog.clock import SystemClock
from watchdog.insight.legible import legible
from watchdog.store.reports.export import HISTORY_COLUMNS, LEDGER_COLUMNS, history, ledger
from watchdog.store.reports.history import Row

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet runs text that starts with one of these as a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""

_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")
_LINE_ENDS: Final = re.compile(r"([\t\r\n])")
_IDS: Final = {"task_id", "room_id", "request_id", "code"}
_LONGEST_TEXT: Final = 255
"""The longest text in a formula that Excel reads."""


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """CSV by RFC 4180: lines end in CR LF; null is an empty cell."""
    return _csv([_cell(row[column]) for column in columns] for row in rows)


def spreadsheet_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Like ``csv_lines``, with ids as formulas: a spreadsheet rounds a number of 19 digits, and reads 3-4 as a date."""
    return _csv([_id(row[column]) if column in _IDS else _cell(row[column]) for column in columns] for row in rows)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def json_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """One JSON object per line, with all values unchanged."""
    return "".join(_json_line({column: row[column] for column in columns}) + "\n" for row in rows)


def _json_line(row: Row) -> str:
    line = json.dumps(row, default=as_json, ensure_ascii=False)
    # A terminal would obey some characters that JSON allows; escaped they have the same value.
    return line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


Form = Callable[[Sequence[str], Iterable[Row]], str]
FORMS: Final[Mapping[str, Form]] = {"csv": csv_lines, "spreadsheet": spreadsheet_lines, "jsonl": json_lines}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value) if isinstance(value, int | float) else as_json(value)
    # Room ids and messages come from outside. The apostrophe makes a spreadsheet show a formula as text.
    text = "".join(part if part in "\t\r\n" else legible(part) for part in _LINE_ENDS.split(value))
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def _id(value: str | None) -> str:
    if value is None or len(value) > _LONGEST_TEXT or not value.isprintable():
        return _cell(value)
    quoted = value.replace('"', '""')
    return f'="{quoted}"'


def export_history(
    path: Path | None,
    form: str,
    *,
    attempts: bool,
    since: str | None,
    until: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write the history to ``output`` or stdout; ``force`` overwrites. Raises typer.BadParameter, WatchdogError."""
    clock = SystemClock()
    begin, end = words.parse_past(since, "'--since'", clock), words.parse_past(until, "'--until'", clock)
    columns, read = (LEDGER_COLUMNS, ledger) if attempts else (HISTORY_COLUMNS, history)
    with opened(path) as (_, database), replaced(output, "--output", force=force) as target:
        written = write(target, FORMS[form], columns, read(database, begin, end))
    if output is not None:
        note(f"{words.number(written, 'row')} in {output}")


def write(target: BinaryIO, form: Form, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> int:
    """Write all pages in UTF-8; return the number of rows."""
    written = 0
    if form is not json_lines:
        target.write(csv_lines(columns, [dict(zip(columns, columns, strict=True))]).encode())
    for rows in pages:
        target.write(form(columns, rows).encode(errors="replace"))
        target.flush()
        written += len(rows)
    target.flush()
    return written
