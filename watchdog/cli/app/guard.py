"""``guard`` and ``guard release``."""

from typing import Annotated

import typer

from watchdog.cli.app.options import AsJson, ConfigFile
from watchdog.cli.app.plain import PlainCommand, PlainGroup

app = typer.Typer(cls=PlainGroup, invoke_without_command=True, subcommand_metavar="[release ...]")


@app.callback()
def guard(ctx: typer.Context, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show whether the guard holds back unverified stops.

    \b
    Examples:
      zego-watchdog guard
      zego-watchdog guard --json
      zego-watchdog guard release
      zego-watchdog guard release --minutes 30

    The guard limits how many tasks may be stopped per minute without ZEGO's confirmation. Above the limit it assumes
    that the hints are wrong, and holds back all unverified stops. Verified stops are not affected. Exits with 0 in
    either case; scripts read "tripped" in the JSON.
    """
    from watchdog.cli.commands.guard import show_guard

    if ctx.invoked_subcommand is None:
        show_guard(config, as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("give --json after the word release")
    ctx.obj = config


@app.command(cls=PlainCommand)
def release(
    *,
    minutes: Annotated[
        float, typer.Option("--minutes", min=1, max=1440, metavar="N", help="How long to allow all stops.")
    ] = 10,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Allow all unverified stops for some time.

    \b
    Examples:
      zego-watchdog guard release
      zego-watchdog guard release --minutes 30

    Use it if the rooms really are empty. Applies to all running daemons within five seconds; they stop the tasks that
    were held back within half a minute. Exits with 1 if no daemon is alive.
    """
    from watchdog.cli.commands.guard import allow_stops

    allow_stops(config, minutes=minutes, as_json=as_json)
