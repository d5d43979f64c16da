"""``history`` and ``history export``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from watchdog.cli.app.options import AsJson, ConfigFile, InRoom, Limit, Since
from watchdog.cli.app.plain import PlainCommand, PlainGroup
from watchdog.core.model import Outcome

app = typer.Typer(cls=PlainGroup, invoke_without_command=True, subcommand_metavar="[export ...]")


@app.callback()
def history(
    ctx: typer.Context,
    *,
    limit: Limit = 20,
    outcome: Annotated[
        Outcome | None,
        typer.Option("--outcome", metavar="OUTCOME", help="Only this outcome, such as stopped or auto_stopped."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only this TaskId.")] = None,
    room: InRoom = None,
    since: Since = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show what became of each task, newest first.

    \b
    Examples:
      zego-watchdog history
      zego-watchdog history --outcome auto_stopped --since 24h
      zego-watchdog history --since 2026-08-21T12:00 --json
      zego-watchdog history export --output history.csv

    One row per task that had an attempt. The columns are those of the view zego_stop_history; docs/sql.md has queries.
    """
    if ctx.invoked_subcommand is None:
        from watchdog.cli.commands.listing import show_history

        show_history(config, limit=limit, outcome=outcome, task=task, room=room, since=since, as_json=as_json)
        return
    if limit != 20 or as_json or not outcome is task is room is since is None:
        raise typer.BadParameter("give the options of an export after the word export: history export --since 24h")
    ctx.obj = config


@app.command(cls=PlainCommand)
def export(
    *,
    form: Annotated[
        Literal["csv", "jsonl"],
        typer.Option("--format", metavar="FORMAT", help="csv for spreadsheets, or jsonl: one JSON object per line."),
    ] = "csv",
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Every attempt (zego_stop_attempts) instead of one row per task.")
    ] = False,
    since: Since = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="Only before then: 2h (ago), today, yesterday, or an ISO time."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write this new file, complete or not at all; default stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file; it keeps its mode.")] = False,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help='Write ids as ="ID" in CSV, so a spreadsheet keeps every digit.')
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Write the whole history as CSV or JSON lines.

    \b
    Examples:
      zego-watchdog history export --output history.csv
      zego-watchdog history export --since 2026-08-01 --until 2026-09-01 --output august.csv
      zego-watchdog history export --attempts --format jsonl --since 7d

    All columns of zego_stop_history, oldest first, times as ISO 8601 in UTC. A task belongs to the time of its last
    attempt, so exports of consecutive months share no row. In CSV, text that a spreadsheet would run as a formula
    starts with an apostrophe, and control characters are replaced; jsonl keeps all values unchanged.
    """
    from watchdog.cli.commands.export import export_history

    if spreadsheet and form != "csv":
        raise typer.BadParameter("--spreadsheet is for CSV: leave out --format")
    export_history(
        config,
        "spreadsheet" if spreadsheet else form,
        attempts=attempts,
        since=since,
        until=until,
        output=output,
        force=force,
    )
