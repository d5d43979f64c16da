"""``adopt``."""

from typing import Annotated, Literal

import typer

from watchdog.cli.app.options import AsJson, ConfigFile


def adopt(
    *,
    kind: Annotated[
        Literal["recording", "player", "digital_human"] | None,
        typer.Option("--kind", metavar="KIND", help="Only recording, player or digital_human."),
    ] = None,
    app_id: Annotated[int | None, typer.Option("--app", metavar="APPID", help="Only this AppId.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Register the tasks that are shown.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show tasks that run at ZEGO and that nobody registered.

    \b
    Examples:
      zego-watchdog adopt
      zego-watchdog adopt --kind recording --app 1234567890
      zego-watchdog adopt --apply
      zego-watchdog adopt --json

    ZEGO lists recordings (of the last three days), players and digital humans; no other kinds. With --apply they are
    inserted into zego_tasks, and watched from then on. A task that has ended or was deleted in zego_tasks is not
    inserted again. A list that ZEGO refuses is named, the others are read: then it exits with 78 or 75.
    """
    from watchdog.cli.commands.adopt import adopt_tasks

    raise typer.Exit(adopt_tasks(config, kind=kind, app_id=app_id, apply=apply, as_json=as_json))
