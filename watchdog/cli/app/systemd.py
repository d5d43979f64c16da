"""``systemd install`` and ``systemd uninstall``: what the two are called and what they take."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(subcommand_metavar="install|uninstall")

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said.")]
Root = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="Another system's root directory, such as an image's.")
]


@app.callback()
def systemd() -> None:
    """Become a systemd service, or cease to be one.

    \b
    Examples:
      zego-watchdog systemd install
      zego-watchdog systemd install --yes
      zego-watchdog systemd uninstall --yes

    Without --yes it only says what it would do. The Debian package has done it already. More of running it as a service
    is in docs/operations.md.
    """


@app.command()
def install(
    *,
    yes: Yes = False,
    shared: Annotated[
        Path | None,
        typer.Option(
            "--sqlite-dir", metavar="DIR", help="The directory of a SQLite file that your application writes too."
        ),
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option("--program", metavar="PATH", help="The command to start; else the one that you are calling."),
    ] = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Let systemd hold the HTTP port, so that callbacks wait during a restart.")
    ] = False,
    root: Root = Path("/"),
) -> None:
    """Write the units and a first configuration, and start the service.

    \b
    Examples:
      zego-watchdog systemd install
      zego-watchdog systemd install --yes
      zego-watchdog systemd install --sqlite-dir /srv/app/data --yes

    It runs the zego-watchdog that you call. A configuration that is there is left as it is; a new one observes, and
    stops nothing. Units that somebody has changed are not overwritten. May be repeated, as after an upgrade.
    """
    from watchdog.cli.commands import systemd as units

    if shared is not None and not shared.is_absolute():
        raise typer.BadParameter("--sqlite-dir is a whole path, from / on")
    if program is not None:
        units.check_program(program)
    wanted = units.Wanted(program or units.this_program(), shared, socket, units.systemd_version())
    units.carry_out(list(units.install(root.absolute(), wanted)), yes=yes)


@app.command()
def uninstall(
    *,
    yes: Yes = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove configuration, secrets and the service's own database as well.")
    ] = False,
    root: Root = Path("/"),
) -> None:
    """Stop the service, and remove the units.

    \b
    Examples:
      zego-watchdog systemd uninstall
      zego-watchdog systemd uninstall --yes
      zego-watchdog systemd uninstall --purge --yes

    The configuration and the database stay unless --purge is given; a database elsewhere than in
    /var/lib/zego-watchdog stays in any case.
    """
    from watchdog.cli.commands import systemd as units

    folder = root.absolute()
    for path in units.left_alone(folder):
        typer.echo(f"{path} has been changed by somebody, and stays.", err=True)
    units.carry_out(list(units.uninstall(folder, purge=purge)), yes=yes)
