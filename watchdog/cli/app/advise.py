"""``advise``."""

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
    config: ConfigFile = None,
) -> None:
    """Estimate what another grace would have done.

    \b
    Examples:
      zego-watchdog advise
      zego-watchdog advise --grace 20,45,90 --since 30d
      zego-watchdog advise --app 1234567890 --json

    Estimates when people come back to empty rooms. For each grace: how many tasks would have been stopped, after which
    share of the stops people would have come back, how much time would have been freed before ZEGO's auto-stop, and
    which tasks would have fared differently. Changes nothing: policy.grace_seconds is yours to set. Exits with 75 if
    fewer than 100 rooms were empty. docs/advise.md says what the estimate leaves out.
    """
    from watchdog.cli.commands.advise import show_advice

    show_advice(config, graces=grace, since=since, app_id=app_id, as_json=as_json)
