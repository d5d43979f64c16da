"""``report``: it only reads the database, and replaces the file atomically."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from watchdog.cli.commands.lookup import opened
from watchdog.cli.commands.target import STDOUT, replaced
from watchdog.cli.view import words
from watchdog.cli.view.output import note
from watchdog.clock import SystemClock
from watchdog.report import charts
from watchdog.report.page import render
from watchdog.report.returns import return_curve
from watchdog.report.texts import Language
from watchdog.store.reports.report import findings
from watchdog.store.reports.spells import find_spells

_DEFAULT: Final = timedelta(days=7)


def write_report(path: Path | None, html: Path, *, since: str, language: Language, force: bool) -> None:
    """Write the report to a file, or to stdout for ``-``. Raises typer.BadParameter, WatchdogError."""
    begin = words.parse_past(since, "'--since'", SystemClock()) or _DEFAULT
    # Not after a minute of reading.
    charts.require()
    with opened(path) as (_, database), replaced(None if html == STDOUT else html, "--html", force=force) as target:
        found = findings(database, begin)
        curve = return_curve(find_spells(database, found.since).spells)
        target.write(render(found, language, curve).encode())
        target.flush()
    if html != STDOUT:
        note(f"the report is in {html}")
