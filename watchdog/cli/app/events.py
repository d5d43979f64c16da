"""``events``, ``events redeliver`` and ``events test``."""

from typing import Annotated

import typer

from watchdog.cli.app.options import AsJson, ConfigFile, Limit
from watchdog.cli.app.plain import PlainCommand, PlainGroup

app = typer.Typer(cls=PlainGroup, invoke_without_command=True, subcommand_metavar="[redeliver|test ...]")


@app.callback()
def events(
    ctx: typer.Context,
    *,
    limit: Limit = 20,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="Only events that the webhook gave up on.")
    ] = False,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only this TaskId.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show the events for the application, newest first.

    \b
    Examples:
      zego-watchdog events
      zego-watchdog events --undelivered
      zego-watchdog events --task 1920370518175780864 --json
      zego-watchdog events redeliver 17
      zego-watchdog events test

    WEBHOOK says whether the webhook delivered the event, HANDLED when the application marked it. docs/events.md
    explains both ways.
    """
    if ctx.invoked_subcommand is None:
        from watchdog.cli.commands.events import show_events

        show_events(config, limit=limit, undelivered=undelivered, task=task, as_json=as_json)
        return
    if limit != 20 or undelivered or task is not None or as_json:
        raise typer.BadParameter(f"give options after the word {ctx.invoked_subcommand}")
    ctx.obj = config


@app.command(cls=PlainCommand)
def redeliver(
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", min=1, help="Ids of events.")] = None,
    *,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="All events that the webhook gave up on, instead of ids.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Let the daemon send events to the webhook again.

    \b
    Examples:
      zego-watchdog events redeliver 17
      zego-watchdog events redeliver 17 18 19
      zego-watchdog events redeliver --undelivered

    Also events that were delivered. The webhook-id is the same as before. An event older than 24 hours is tried once.
    Exits with 1, and changes nothing, if there is no event with one of the ids.
    """
    from watchdog.cli.commands.events import redeliver_events

    if bool(ids) == undelivered:
        raise typer.BadParameter("give ids of events, or --undelivered")
    redeliver_events(config, ids or [], as_json=as_json)


@app.command("test", cls=PlainCommand)
def try_webhook(
    *,
    event_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="The sample's type; a receiver ignores the default.")
    ] = "test",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Send one signed sample to the webhook, and show what comes back.

    \b
    Examples:
      zego-watchdog events test
      zego-watchdog events test --type room.rejoined
      zego-watchdog events test --json

    Uses notify.url and the secret, and needs neither the database nor a daemon. The sample's TaskId and RoomId are
    "sample". Exits with 0 only if the answer is 2xx, with 75 if there is none or the receiver is busy.
    """
    from watchdog.cli.commands.webhook import send_sample

    raise typer.Exit(send_sample(config, event_type, as_json=as_json))
