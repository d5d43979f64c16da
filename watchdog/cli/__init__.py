"""The command line: what the commands are called and what they take. What they do is in ``actions``.

Everything heavy (the databases, HTTP, validation, drawing) is imported by the command that needs it and not before:
``zego-watchdog --help`` must answer at once, on a slow machine too. A backslash and a b keep the lines of a
paragraph of help as they are.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import watchdog
from watchdog.cli.app import guard, history, systemd
from watchdog.cli.app.options import AsJson, ConfigFile, Limit, TaskId
from watchdog.errors import WatchdogError


class _Commands(TyperGroup):
    """Expected failures become a message and an exit code, wherever they come from."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WatchdogError as error:
            for line in str(error).splitlines():
                typer.echo(f"zego-watchdog: {line}", err=True)
            raise typer.Exit(error.exit_code) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of their use; Typer puts groups last."""
        names = [name for name in super().list_commands(ctx) if name not in {"history", "guard"}]
        names.insert(names.index("tasks") + 1, "history")
        names.insert(names.index("hold") + 1, "guard")
        return names


app = typer.Typer(
    name="zego-watchdog",
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command that the process was started with."""
    if not hasattr(watchdog, "__version__"):
        sys.stderr.write(
            f"zego-watchdog: another package called watchdog lies in {Path(watchdog.__file__ or '').parent}, over this "
            "program's own files; install zego-watchdog into a virtual environment of its own\n"
        )
        sys.exit(78)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark, and the command goes on.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    if "_ZEGO_WATCHDOG_COMPLETE" in os.environ:
        # A shell asks how a word goes on. Typer tells that only to the shells it was allowed to meet.
        from typer._completion_classes import completion_init

        completion_init()
    if sys.stdout is None:
        sys.stderr.write("zego-watchdog: standard output is closed; let it go to /dev/null if nobody is to read it\n")
        sys.exit(1)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        if error.errno != errno.EPIPE:
            sys.stderr.write(f"zego-watchdog: the output could not be written: {error.strerror}\n")
        # Python tries once more at the very end, and would say so at length.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


_NO_ROOM = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What becomes of output that nobody takes, or that finds no room; every other OSError is a fault of ours."""


GlobalConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The configuration; else $ZEGO_WATCHDOG_CONFIG, ./config.yaml, /etc/zego-watchdog/config.yaml.",
    ),
]


@app.callback()
def _global(ctx: typer.Context, config: GlobalConfig = None) -> None:
    """Stop abandoned ZEGO Cloud Realtime ASR tasks, and keep the record in SQL.

    \b
    Examples:
      zego-watchdog demo                  see it at work, without any account
      zego-watchdog migrate               create the tables
      zego-watchdog check                 is everything in order?
      zego-watchdog run                   watch
      zego-watchdog explain 19203705181   why was this task stopped, or not?

    Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 75 try again later, 78 configuration.
    """
    ctx.obj = config


@app.command()
def run(
    *,
    config: ConfigFile = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database up to date first, as the systemd unit does.")
    ] = False,
) -> None:
    """Watch the database, and stop what is abandoned.

    \b
    Examples:
      zego-watchdog run
      zego-watchdog --config /etc/zego-watchdog/config.yaml run

    Ends on SIGTERM or Ctrl-C; a second one cuts short what is in flight. SIGHUP reads the configuration and the secrets
    again; what it cannot change without a restart is named in the log. Logs go to stderr.
    """
    from watchdog.cli.commands import actions

    actions.run(config, first_migrate=migrate)


@app.command()
def demo(
    *,
    db: Annotated[
        Literal["sqlite", "postgresql"], typer.Option("--db", help="Which database to show it on.")
    ] = "sqlite",
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the database and the logs in this directory.")
    ] = None,
) -> None:
    """Play a busy minute: real daemon, real database, fake ZEGO.

    \b
    Examples:
      zego-watchdog demo
      zego-watchdog demo --db postgresql
      zego-watchdog demo --keep ./demo

    Needs no account and no configuration. Exits with 1 if the fake ZEGO saw anything go wrong.
    """
    from watchdog.demo import main as play

    raise typer.Exit(play(db, keep=keep))


@app.command()
def sandbox(  # noqa: PLR0913  # a parameter is an option
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Which port to listen on; 0 takes a free one.")] = 8766,
    app_id: Annotated[int, typer.Option(min=1, max=2**32 - 1, help="The AppId it knows.")] = 12345,
    server_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the ServerSecret; else $ZEGO_SANDBOX_SERVER_SECRET, else the example of ZEGO's documentation.",
        ),
    ] = None,
    script: Annotated[Path | None, typer.Option(metavar="FILE", help="Who comes and goes when, in YAML.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes TaskIds and chance repeatable; else random.")] = None,
    max_idle: Annotated[
        int, typer.Option(min=30, max=1800, help="MaxIdleTime of tasks that state none, seconds.")
    ] = 120,
    concurrency: Annotated[int, typer.Option(min=0, help="How many tasks may run at once; 0 is any number.")] = 10,
    start_rate: Annotated[int, typer.Option(min=0, help="Start requests a second; 0 is any number.")] = 10,
    stop_rate: Annotated[int, typer.Option(min=0, help="Stop requests a second.")] = 10,
    user_num_rate: Annotated[int, typer.Option(min=0, help="DescribeUserNum requests a second.")] = 10,
    user_list_rate: Annotated[int, typer.Option(min=0, help="DescribeUserList requests a second.")] = 200,
    clock_offset: Annotated[float, typer.Option(help="How far its clock is ahead of this machine's, seconds.")] = 0.0,
    crash_timeout: Annotated[
        float, typer.Option(min=0, help="How long a client that crashed counts as present, seconds.")
    ] = 100.0,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to send callbacks; else none are sent.")
    ] = None,
    callback_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Holds the callback secret; else $ZEGO_SANDBOX_CALLBACK_SECRET, else ZEGO's example."
        ),
    ] = None,
) -> None:
    """Be a fake ZEGO, to try an integration against.

    \b
    Examples:
      zego-watchdog sandbox
      zego-watchdog sandbox --port 0 --seed 1 --script rooms.yaml
      zego-watchdog sandbox --app-id 1234567890 --server-secret-file secret --stop-rate 2

    It checks signatures, keeps rooms and limits, ends idle tasks, and misbehaves when told to. Point zego.asr_url and
    zego.rtc_url at the address it prints.
    """
    from watchdog.cli.commands import actions
    from watchdog.sandbox.command import SandboxSettings, read_callback_secret, read_server_secret
    from watchdog.sandbox.vendor import Limits

    settings = SandboxSettings(
        host=host,
        port=port,
        app_id=app_id,
        server_secret=read_server_secret(server_secret_file, actions.environment()),
        script=script,
        seed=seed,
        limits=Limits(start=start_rate, stop=stop_rate, user_num=user_num_rate, user_list=user_list_rate),
        concurrent_tasks=concurrency,
        max_idle_seconds=max_idle,
        clock_offset_seconds=clock_offset,
        crash_timeout_seconds=crash_timeout,
        callback_url=callback_url,
        callback_secret=read_callback_secret(callback_secret_file, actions.environment()),
    )
    actions.sandbox(settings)


@app.command()
def migrate(config: ConfigFile = None) -> None:
    """Create the tables, or bring them up to date.

    \b
    Examples:
      zego-watchdog migrate
      ZEGO_WATCHDOG_DATABASE__URL=postgresql://me@host/db zego-watchdog migrate

    One transaction: it succeeds, or nothing has changed. The application's own tables are left alone.
    """
    from watchdog.cli.commands import actions

    actions.migrate(config)


@app.command()
def check(
    *,
    config: ConfigFile = None,
    as_json: AsJson = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask the database, and nobody else.")] = False,
) -> None:
    """Test everything there is to set up, and say what to do.

    \b
    Examples:
      zego-watchdog check
      zego-watchdog check --offline --json

    Configuration, secrets, database, triggers, clocks, the way to ZEGO. Changes nothing and stops nothing. Exits with 0
    if nothing fails, whatever it warns of; with 78 if the configuration fails, with 75 if only something could not be
    reached, else with 1.
    """
    from watchdog.cli.commands import actions

    raise typer.Exit(actions.check(config, as_json=as_json, offline=offline))


@app.command()
def status(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show daemons, tasks, what is due next, and the last 24 hours.

    \b
    Examples:
      zego-watchdog status
      zego-watchdog status --json

    Exits with 0 even when no daemon is alive; it says so in red, and as "alive": false in JSON.
    """
    from watchdog.cli.commands import listing as reading

    reading.status(config, as_json=as_json)


@app.command()
def tasks(
    *,
    status: Annotated[
        Literal["active", "all", "stopped", "gone", "auto_stopped", "failed", "released"],
        typer.Option(
            "--status",
            metavar="STATUS",
            help="active, stopped, gone, auto_stopped, failed, released, or all of them.",
        ),
    ] = "active",
    room: Annotated[str | None, typer.Option("--room", metavar="ROOM", help="Only this RoomId's.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only active ones that are due now or overdue.")] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List tasks, those first that something happens to next.

    \b
    Examples:
      zego-watchdog tasks
      zego-watchdog tasks --due
      zego-watchdog tasks --room lecture-12 --status all
      zego-watchdog tasks --json --limit 1000
    """
    from watchdog.cli.commands import listing as reading

    reading.tasks(config, status=status, room=room, due=due, limit=limit, as_json=as_json)


app.add_typer(history.app, name="history")
app.add_typer(systemd.app, name="systemd")
app.add_typer(guard.app, name="guard")


@app.command()
def room(
    room_id: Annotated[str, typer.Argument(metavar="ROOM", help="A RoomId.")],
    *,
    app_id: Annotated[
        int | None, typer.Option("--app", metavar="APPID", help="Its AppId; else the first configured.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Ask ZEGO who is in a room now, and show how each user is counted.

    \b
    Examples:
      zego-watchdog room lecture-12
      zego-watchdog room lecture-12 --app 1234567890
      zego-watchdog room lecture-12 --json

    This is how to find the ids of bots: whoever is no person belongs into zego.bot_user_ids. Writes nothing down. Exits
    with 75 if ZEGO cannot be reached.
    """
    from watchdog.cli.commands import actions

    actions.room(config, room_id, app_id=app_id, as_json=as_json)


@app.command()
def explain(task: TaskId, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Tell why a task was stopped, or was not, and what happens next.

    \b
    Examples:
      zego-watchdog explain 1920370518175780864
      zego-watchdog explain 1920370518175780864 --json

    Shows the evidence, the decision, the times and every attempt. Decides as the daemon does, from what is stored; it
    does not ask ZEGO.
    """
    from watchdog.cli.commands import actions

    actions.explain(config, task, as_json=as_json)


@app.command()
def stop(task: TaskId, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Stop one task now, with the daemon's caution, and on record.

    \b
    Examples:
      zego-watchdog stop 1920370518175780864
      zego-watchdog stop 1920370518175780864 --json

    Waits for no grace, but refuses a room with people in it, one that nobody knows anything of, and a task on hold.
    In observe mode nothing is sent. Exits with 75 if it may succeed later; a daemon goes on with it.
    """
    from watchdog.cli.commands import actions

    raise typer.Exit(actions.stop(config, task, as_json=as_json))


@app.command()
def hold(
    task: TaskId,
    *,
    length: Annotated[str | None, typer.Option("--for", metavar="TIME", help="From now on: 10m, 2h, 1h30m.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="An ISO time, in UTC or with zone.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Keep the watchdog from stopping a task for a while.

    \b
    Examples:
      zego-watchdog hold 1920370518175780864 --for 10m
      zego-watchdog hold 1920370518175780864 --until 2026-08-21T18:00
      zego-watchdog hold 1920370518175780864 --release

    ZEGO knows nothing of the hold: it ends the task in an empty room after its own window all the same.
    """
    from watchdog.cli.commands import actions

    if sum((length is not None, until is not None, release)) != 1:
        raise typer.BadParameter("give one of --for, --until and --release")
    actions.hold(config, task, length=length, until=until, as_json=as_json)


@app.command()
def version(*, as_json: AsJson = False) -> None:
    """Say which version this is.

    \b
    Examples:
      zego-watchdog version
      zego-watchdog version --json
    """
    from watchdog.cli.commands import actions

    actions.version(as_json=as_json)
