"""``systemd install`` and ``systemd uninstall``."""

from pathlib import Path
from typing import Annotated

import typer

from watchdog.cli.app.plain import PlainCommand, PlainGroup

app = typer.Typer(cls=PlainGroup, subcommand_metavar="install|uninstall")

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this the command only prints its steps.")]
Root = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="The root directory of another system, such as an image.")
]


@app.callback()
def systemd() -> None:
    """Install or remove the systemd service.

    \b
    Examples:
      zego-watchdog systemd install
      zego-watchdog systemd install --yes
      zego-watchdog systemd uninstall --yes

    Without --yes it only prints its steps. The Debian package installs the service by itself. More about the service is
    in docs/operations.md.
    """


@app.command(cls=PlainCommand)
def install(
    *,
    yes: Yes = False,
    shared: Annotated[
        Path | None,
        typer.Option(
            "--sqlite-dir", metavar="DIR", help="The directory of a SQLite file that your application also writes."
        ),
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option("--program", metavar="PATH", help="The command the service runs; default: this zego-watchdog."),
    ] = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Let systemd hold the HTTP port, so callbacks wait during a restart.")
    ] = False,
    root: Root = Path("/"),
) -> None:
    """Write units and a first configuration; start the service.

    \b
    Examples:
      zego-watchdog systemd install
      zego-watchdog systemd install --yes
      zego-watchdog systemd install --sqlite-dir /srv/app/data --yes

    The service runs the zego-watchdog that you call. An existing configuration is kept; a new one observes and stops
    nothing. Units that were edited are not overwritten. Repeat it after an upgrade. Where the Debian package has
    installed the service, only --sqlite-dir has something to do.
    """
    from watchdog.cli.commands import steps, systemd

    if shared is not None and not shared.is_absolute():
        raise typer.BadParameter("write an absolute path", param_hint="'--sqlite-dir'")
    if program is not None:
        systemd.check_program(program)
    wanted = systemd.Wanted(
        program=program or systemd.this_program(), shared=shared, with_socket=socket, systemd=systemd.systemd_version()
    )
    steps.carry_out(list(systemd.install_steps(root.absolute(), wanted)), yes=yes)
    if shared is not None:
        typer.echo(
            "The application's user must be in the group zego-watchdog: usermod --append --groups zego-watchdog USER; "
            "then restart the application.",
            err=True,
        )


@app.command(cls=PlainCommand)
def uninstall(
    *,
    yes: Yes = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the configuration, the secrets and the service's database.")
    ] = False,
    root: Root = Path("/"),
) -> None:
    """Stop the service, and remove the units.

    \b
    Examples:
      zego-watchdog systemd uninstall
      zego-watchdog systemd uninstall --yes
      zego-watchdog systemd uninstall --purge --yes

    Configuration and database stay unless --purge is given. A database outside /var/lib/zego-watchdog always stays.
    """
    from watchdog.cli.commands.steps import carry_out
    from watchdog.cli.commands.systemd import edited_files, uninstall_steps

    folder = root.absolute()
    for path in edited_files(folder):
        typer.echo(f"{path} was edited, so it is kept.", err=True)
    carry_out(list(uninstall_steps(folder, purge=purge)), yes=yes)
