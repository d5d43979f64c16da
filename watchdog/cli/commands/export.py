"""``history export``: rows as CSV or JSON lines, to standard output or to a file that is replaced atomically."""

import csv
import io
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from watchdog.cli.commands.lookup import opened
from watchdog.cli.view import words
from watchdog.cli.view.output import as_json, note
from watchdog.errors import WatchdogError
from watchdog.store.reports.export import HISTORY_COLUMNS, LEDGER_COLUMNS, history, ledger
from watchdog.store.reports.history import Row

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet runs text that starts with one of these as a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""

_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """CSV by RFC 4180: lines end in CR LF; null is an empty cell."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(row[column]) for column in columns] for row in rows)
    return text.getvalue()


def json_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """One JSON object per line, with all values unchanged."""
    return "".join(
        json.dumps({column: row[column] for column in columns}, default=as_json, ensure_ascii=False) + "\n"
        for row in rows
    )


Form = Callable[[Sequence[str], Iterable[Row]], str]
FORMS: Final[Mapping[str, Form]] = {"csv": csv_lines, "jsonl": json_lines}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value) if isinstance(value, int | float) else as_json(value)
    # Room ids and messages come from outside. The apostrophe makes a spreadsheet show a formula as text.
    return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value


def export_history(
    path: Path | None, form: str, *, attempts: bool, since: str | None, until: str | None, output: Path | None
) -> None:
    """Write the history to ``output`` or stdout. Raises typer.BadParameter, WatchdogError."""
    begin, end = words.parse_length_or_moment(since), words.parse_length_or_moment(until)
    columns, read = (LEDGER_COLUMNS, ledger) if attempts else (HISTORY_COLUMNS, history)
    with opened(path) as (_, database), _target(output) as target:
        written = write(target, FORMS[form], columns, read(database, begin, end))
    if output is not None:
        note(f"{words.number(written, 'row')} in {output}")


def write(target: BinaryIO, form: Form, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> int:
    """Write all pages in UTF-8; return the number of rows."""
    written = 0
    if form is csv_lines:
        target.write(csv_lines(columns, [dict(zip(columns, columns, strict=True))]).encode())
    for rows in pages:
        target.write(form(columns, rows).encode(errors="replace"))
        target.flush()
        written += len(rows)
    target.flush()
    return written


@contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        return
    final = Path(os.path.realpath(output))
    if final.exists() and not final.is_file():
        raise WatchdogError(f"--output {output}: this is not a regular file; leave out --output, and redirect stdout")
    # In the same directory, so it can replace the file in one step: a reader finds the old or the new file, complete.
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(final)
    except OSError as error:
        raise WatchdogError(f"--output {output}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
