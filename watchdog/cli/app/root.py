"""The root command, its global options, and the list of all commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from watchdog.cli.app import adopt, advise, daemon, events, guard, history, report, sandbox, systemd, tasks
from watchdog.cli.app.options import AsJson
from watchdog.cli.app.plain import PlainCommand, PlainGroup, in_our_words
from watchdog.errors import WatchdogError

_ORDER: Final = (
    *("run", "demo", "sandbox", "migrate", "check", "status"),
    *("tasks", "history", "report", "room", "explain", "stop", "hold", "adopt", "guard", "events"),
    *("advise", "version", "systemd"),
)
"""The order in ``--help``; Typer would list the groups last."""


class _Commands(PlainGroup):
    """Turns every expected error into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WatchdogError as error:
            from watchdog.insight.legible import legible

            for line in str(error).split("\n"):
                typer.echo(f"zego-watchdog: {legible(line)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except typer.BadParameter as error:
            raise in_our_words(error) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="zego-watchdog",
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(*, wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _global(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="The configuration file; default $ZEGO_WATCHDOG_CONFIG, ./config.yaml, "
            "/etc/zego-watchdog/config.yaml.",
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda value: _show_version(wanted=value), help="Show the version."
        ),
    ] = False,
) -> None:
    """Stop abandoned ZEGO tasks (speech recognition, agents, recordings), and record every attempt in SQL.

    \b
    Examples:
      zego-watchdog demo                  see it work; needs no account
      zego-watchdog migrate               create the tables
      zego-watchdog check                 test the configuration, the database and ZEGO
      zego-watchdog run                   run the daemon
      zego-watchdog explain 19203705181   why was this task stopped or kept?

    Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 75 try again later, 78 configuration.
    """
    del show_version  # its callback has shown it
    ctx.obj = config


def demo(
    *,
    db: Annotated[
        Literal["sqlite", "postgresql"], typer.Option("--db", metavar="DATABASE", help="sqlite or postgresql.")
    ] = "sqlite",
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the database and the logs in this directory.")
    ] = None,
) -> None:
    """Run a 40-second demo: real daemon, real database, fake ZEGO.

    \b
    Examples:
      zego-watchdog demo
      zego-watchdog demo --db postgresql
      zego-watchdog demo --keep ./demo

    Needs no account and no configuration. Exits with 1 if the fake ZEGO found an error.
    """
    from watchdog.demo import main

    raise typer.Exit(main(db, keep=keep))


def version(*, as_json: AsJson = False) -> None:
    """Show the version.

    \b
    Examples:
      zego-watchdog version
      zego-watchdog version --json
    """
    import json
    import platform

    from watchdog import SCHEMA_VERSION, __version__

    python = platform.python_version()
    if as_json:
        typer.echo(json.dumps({"version": __version__, "schema_version": SCHEMA_VERSION, "python": python}, indent=2))
    else:
        typer.echo(f"zego-watchdog {__version__} (schema {SCHEMA_VERSION}, Python {python})")


_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    *(daemon.run, daemon.migrate, daemon.check, demo, sandbox.sandbox, version),
    *(tasks.status, tasks.tasks, tasks.room, tasks.explain, tasks.stop, tasks.hold),
    *(adopt.adopt, report.report, advise.advise),
)
for _command in _COMMANDS:
    app.command(cls=PlainCommand)(_command)
app.add_typer(history.app, name="history")
app.add_typer(guard.app, name="guard")
app.add_typer(events.app, name="events")
app.add_typer(systemd.app, name="systemd")
