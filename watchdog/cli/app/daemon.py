"""``run``, ``migrate`` and ``check``: the daemon and what it needs."""

from typing import Annotated

import typer

from watchdog.cli.app.options import AsJson, ConfigFile


def run(
    *,
    config: ConfigFile = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Migrate the database first, as the systemd unit does.")
    ] = False,
) -> None:
    """Run the daemon: watch the database, stop abandoned tasks.

    \b
    Examples:
      zego-watchdog run
      zego-watchdog --config /etc/zego-watchdog/config.yaml run

    SIGTERM or Ctrl-C ends it after the current requests; a second signal ends it at once. SIGHUP reloads the
    configuration and the secrets; the log names keys that need a restart. Logs go to stderr.
    """
    from watchdog.cli.commands.daemon import run_daemon

    run_daemon(config, first_migrate=migrate)


def migrate(config: ConfigFile = None) -> None:
    """Create the database tables, or migrate them.

    \b
    Examples:
      zego-watchdog migrate
      ZEGO_WATCHDOG_DATABASE__URL=postgresql://me@host/db zego-watchdog migrate

    One transaction: on failure nothing has changed. The application's own tables are not touched.
    """
    from watchdog.cli.commands.daemon import migrate_database

    migrate_database(config)


def check(
    *,
    config: ConfigFile = None,
    as_json: AsJson = False,
    offline: Annotated[bool, typer.Option("--offline", help="Check the database, but do not contact ZEGO.")] = False,
) -> None:
    """Check configuration, database and ZEGO; suggest fixes.

    \b
    Examples:
      zego-watchdog check
      zego-watchdog check --offline --json

    Checks configuration, secrets, database, triggers, clocks and the connection to ZEGO. Changes nothing and stops
    nothing. Exits with 0 if there are only warnings, 78 if the configuration fails, 75 if something could not be
    reached and nothing else fails, otherwise 1.
    """
    from watchdog.cli.commands.check import check_all

    raise typer.Exit(check_all(config, as_json=as_json, offline=offline))
