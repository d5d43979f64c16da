"""``guard``, and ``guard release``: what the guard does, and how an operator who knows better opens it."""

from typing import Annotated

import typer

from watchdog.cli.app.options import AsJson, ConfigFile

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[release ...]")


@app.callback()
def guard(ctx: typer.Context, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show whether many stops that nobody verified are held back.

    \b
    Examples:
      zego-watchdog guard
      zego-watchdog guard --json
      zego-watchdog guard release
      zego-watchdog guard release --minutes 30

    Only so many tasks may be stopped within a minute on hints alone; more than that is rather a broken feed, and then
    none is. Stops that ZEGO has verified are not concerned. Exits with 0 whether it has tripped or not; scripts look at
    "tripped" in its JSON.
    """
    from watchdog.cli.commands import guard as guarding

    if ctx.invoked_subcommand is None:
        guarding.show(config, as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("--json is said after the word release")
    ctx.obj = config


@app.command()
def release(
    *,
    minutes: Annotated[
        float, typer.Option("--minutes", min=1, max=1440, metavar="N", help="For how long to let everything pass.")
    ] = 10,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Let unverified stops pass for a while: the rooms really are empty.

    \b
    Examples:
      zego-watchdog guard release
      zego-watchdog guard release --minutes 30

    Concerns the daemons that are alive; they heed it with their next heartbeat, within five seconds, and tasks that
    were held back are stopped within half a minute. Exits with 1 if no daemon is alive.
    """
    from watchdog.cli.commands import guard as guarding

    guarding.release(config, minutes=minutes, as_json=as_json)
