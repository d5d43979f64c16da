"""``history export``: rows as CSV or JSON lines, to standard output or to a file that appears whole or not at all."""

import csv
import io
import json
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from watchdog import config as configuration
from watchdog.cli.commands import listing as reading
from watchdog.cli.view import screens, words
from watchdog.errors import WatchdogError
from watchdog.store.reports import export as exports
from watchdog.store.reports.history import Row
from watchdog.wiring import database as opening

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What begins a formula to a spreadsheet (https://owasp.org/www-community/attacks/CSV_Injection)."""

_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


class Form(Protocol):
    """How rows are written, as text."""

    def head(self, columns: Sequence[str]) -> str: ...

    def page(self, columns: Sequence[str], rows: Iterable[Row]) -> str: ...


class Csv:
    """RFC 4180, so that lines end in CR LF; null is an empty cell."""

    def head(self, columns: Sequence[str]) -> str:
        return self._lines([columns])

    def page(self, columns: Sequence[str], rows: Iterable[Row]) -> str:
        return self._lines([_cell(row[column]) for column in columns] for row in rows)

    @staticmethod
    def _lines(rows: Iterable[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue()


class JsonLines:
    """One object a line, everything as it is."""

    def head(self, columns: Sequence[str]) -> str:  # noqa: ARG002 - each line names its columns
        return ""

    def page(self, columns: Sequence[str], rows: Iterable[Row]) -> str:
        return "".join(
            json.dumps({column: row[column] for column in columns}, default=screens.as_json, ensure_ascii=False) + "\n"
            for row in rows
        )


FORMS: Final[Mapping[str, Form]] = {"csv": Csv(), "jsonl": JsonLines()}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value) if isinstance(value, int | float) else screens.as_json(value)
    # Room ids and messages are other people's. An apostrophe makes text of what would be run as a formula.
    return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value


def export(
    path: Path | None, form: str, *, attempts: bool, since: str | None, until: str | None, output: Path | None
) -> None:
    """Raises typer.BadParameter, WatchdogError."""
    begin, end = (None if text is None else reading.length_or_moment(text) for text in (since, until))
    columns, read = (exports.LEDGER_COLUMNS, exports.ledger) if attempts else (exports.HISTORY_COLUMNS, exports.history)
    with opening.opened(configuration.load(path)) as database, _target(output) as target:
        written = write(target, FORMS[form], columns, read(database, begin, end))
    if output is not None:
        screens.note(f"{words.number(written, 'row')} in {output}")


def write(target: BinaryIO, form: Form, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> int:
    """Write one page after the other, in UTF-8; returns the number of rows."""
    written = 0
    target.write(form.head(columns).encode())
    for rows in pages:
        target.write(form.page(columns, rows).encode(errors="replace"))
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
        raise WatchdogError(f"--output {output}: this is no regular file; leave --output out, and redirect")
    # Beside the file, so that it can take its name in one step: whoever reads that finds all of it, or the one before.
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
