"""``advise``."""

from pathlib import Path
from typing import Annotated

import typer

from watchdog.cli.app.options import AsJson, ConfigFile


def advise(
    *,
    grace: Annotated[
        str | None,
        typer.Option("--grace", metavar="SECONDS", help="Compare these with the configured one: 20,45,90."),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only rooms whose empty time ended since then: 30d (ago), today, yesterday, or an ISO time.",
        ),
    ] = "14d",
    app_id: Annotated[int | None, typer.Option("--app", metavar="APPID", help="Only this AppId.")] = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write this new file, with the curves drawn; - for stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file; it keeps its mode.")] = False,
    config: ConfigFile = None,
) -> None:
    """Estimate what another grace would have done.

    \b
    Examples:
      zego-watchdog advise
      zego-watchdog advise --grace 20,45,90 --since 30d
      zego-watchdog advise --app 1234567890 --json
      zego-watchdog advise --html advice.html

    Estimates when people come back to empty rooms. For each grace: how many tasks would have been stopped, after which
    share of the stops people would have come back, how much time would have been freed before ZEGO's auto-stop, and
    which tasks would have fared differently. Changes nothing: policy.grace_seconds is yours to set. Exits with 75 if
    fewer than 100 rooms were empty. docs/advise.md says what the estimate leaves out. The plots of --html need a
    library: pip install 'zego-watchdog[report]'.
    """
    from watchdog.cli.commands.advise import show_advice, write_advice

    if as_json and html is not None:
        raise typer.BadParameter("give --json or --html, not both")
    if force and html is None:
        raise typer.BadParameter("--force overwrites a file: give it with --html")
    if html is not None:
        write_advice(config, html, graces=grace, since=since, app_id=app_id, force=force)
        return
    show_advice(config, graces=grace, since=since, app_id=app_id, as_json=as_json)
