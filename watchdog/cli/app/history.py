"""``history``, and ``history export``: what the two are called and what they take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from watchdog.cli.app.options import AsJson, ConfigFile, Limit, Since
from watchdog.core.model import Outcome

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[export ...]")


@app.callback()
def history(
    ctx: typer.Context,
    *,
    limit: Limit = 20,
    outcome: Annotated[
        Outcome | None,
        typer.Option(
            "--outcome", metavar="OUTCOME", help="Only tasks that came to this, such as stopped, auto_stopped."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only this TaskId.")] = None,
    room: Annotated[str | None, typer.Option("--room", metavar="ROOM", help="Only this RoomId's.")] = None,
    since: Since = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show what was stopped and what was not, the newest first.

    \b
    Examples:
      zego-watchdog history
      zego-watchdog history --outcome auto_stopped --since 24h
      zego-watchdog history --since 2026-08-21T12:00 --json
      zego-watchdog history export --output history.csv

    One row per task that had an attempt. These are the columns of the view zego_stop_history; docs/sql.md has questions
    to ask it.
    """
    if ctx.invoked_subcommand is None:
        from watchdog.cli.commands import listing as reading

        reading.history(config, limit=limit, outcome=outcome, task=task, room=room, since=since, as_json=as_json)
        return
    if limit != 20 or as_json or not outcome is task is room is since is None:
        raise typer.BadParameter("what to export is said after the word export: history export --since 24h")
    ctx.obj = config


@app.command()
def export(
    *,
    form: Annotated[
        Literal["csv", "jsonl"],
        typer.Option("--format", metavar="FORMAT", help="csv, for spreadsheets, or jsonl: one JSON object a line."),
    ] = "csv",
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Every attempt (zego_stop_attempts) instead of one row per task.")
    ] = False,
    since: Since = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Only what is older than that: 2h, or an ISO time.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write this file, whole or not at all; else standard output."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write all of the history, of whatever length, for other programs.

    \b
    Examples:
      zego-watchdog history export --output history.csv
      zego-watchdog history export --since 2026-08-01 --until 2026-09-01 --output august.csv
      zego-watchdog history export --attempts --format jsonl --since 7d

    All columns of zego_stop_history, the oldest first, times as ISO 8601 in UTC. A task belongs to the time of its last
    attempt, so that exports of neighbouring months share no row. In CSV, text that a spreadsheet would take for a
    formula begins with an apostrophe; jsonl has everything as it is.
    """
    from watchdog.cli.commands import export as exporting

    exporting.export(config, form, attempts=attempts, since=since, until=until, output=output)
