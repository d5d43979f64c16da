"""``report``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from watchdog.cli.app.options import ConfigFile


def report(
    *,
    html: Annotated[
        Path, typer.Option("--html", metavar="FILE", help="Write this new file, complete or not at all; - for stdout.")
    ],
    since: Annotated[
        str,
        typer.Option("--since", metavar="WHEN", help="From when: 7d (ago), 24h, today, yesterday, or an ISO time."),
    ] = "7d",
    language: Annotated[
        Literal["en", "zh"], typer.Option("--lang", metavar="LANGUAGE", help="en or zh: English or Chinese.")
    ] = "en",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file; it keeps its mode.")] = False,
    config: ConfigFile = None,
) -> None:
    """Write a report of the last days as one HTML file.

    \b
    Examples:
      zego-watchdog report --html report.html
      zego-watchdog report --html report.html --since 24h --lang zh --force
      zego-watchdog report --html - --since yesterday

    Stops by hour, lateness, slot time freed, returns, ZEGO's measured window, return codes, the longest-empty rooms:
    each plot has its table. The file needs no script and no network. The plots need a library:
    pip install 'zego-watchdog[report]'.
    """
    from watchdog.cli.commands.report import write_report

    write_report(config, html, since=since, language=language, force=force)
