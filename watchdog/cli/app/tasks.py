"""``status``, ``tasks``, ``room``, ``explain``, ``stop`` and ``hold``: tasks and their rooms."""

from typing import Annotated, Literal

import typer

from watchdog.cli.app.options import AsJson, ConfigFile, InRoom, Limit, TaskId


def status(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show daemons, tasks, the next due task and the last 24 hours.

    \b
    Examples:
      zego-watchdog status
      zego-watchdog status --json

    Exits with 0 even if no daemon is alive; scripts read "alive" in the JSON.
    """
    from watchdog.cli.commands.listing import show_status

    show_status(config, as_json=as_json)


def tasks(
    *,
    status: Annotated[
        Literal["active", "all", "stopped", "gone", "auto_stopped", "failed", "released"],
        typer.Option(
            "--status", metavar="STATUS", help="active, stopped, gone, auto_stopped, failed, released, or all."
        ),
    ] = "active",
    room: InRoom = None,
    due: Annotated[bool, typer.Option("--due", help="Only active tasks that are due or overdue.")] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List tasks, next event first.

    \b
    Examples:
      zego-watchdog tasks
      zego-watchdog tasks --due
      zego-watchdog tasks --room lecture-12 --status all
      zego-watchdog tasks --json --limit 1000
    """
    from watchdog.cli.commands.listing import show_tasks

    show_tasks(config, status=status, room=room, due=due, limit=limit, as_json=as_json)


def room(
    room_id: Annotated[str, typer.Argument(metavar="ROOM", help="A RoomId.")],
    *,
    app_id: Annotated[
        int | None, typer.Option("--app", metavar="APPID", help="The AppId of the room; default: the first configured.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Ask ZEGO who is in a room, and show who counts as a person.

    \b
    Examples:
      zego-watchdog room lecture-12
      zego-watchdog room lecture-12 --app 1234567890
      zego-watchdog room lecture-12 --json

    Use it to find bots: add the ids of bots to zego.bot_user_ids. Stores nothing. Exits with 75 if ZEGO cannot be
    reached.
    """
    from watchdog.cli.commands.room import show_room

    show_room(config, room_id, app_id=app_id, as_json=as_json)


def explain(task: TaskId, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Explain why a task was stopped or kept, and what happens next.

    \b
    Examples:
      zego-watchdog explain 1920370518175780864
      zego-watchdog explain 1920370518175780864 --json

    Shows the evidence, the decision, the schedule and every attempt. It decides as the daemon does, from stored data,
    and does not ask ZEGO.
    """
    from watchdog.cli.commands.explain import explain_task

    explain_task(config, task, as_json=as_json)


def stop(task: TaskId, *, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Stop one task now, after the daemon's checks.

    \b
    Examples:
      zego-watchdog stop 1920370518175780864
      zego-watchdog stop 1920370518175780864 --json

    Skips the grace period, but refuses if there are people in the room, if the room is unknown, or if the task is on
    hold. Records the attempt. In observe mode nothing is sent. Exits with 75 if it may succeed later; a running daemon
    then tries again.
    """
    from watchdog.cli.commands.stop import stop_task

    raise typer.Exit(stop_task(config, task, as_json=as_json))


def hold(
    task: TaskId,
    *,
    length: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Hold for this long: 10m, 2h, 1h30m.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Hold until this ISO time, UTC unless it has a zone.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Prevent the watchdog from stopping a task for some time.

    \b
    Examples:
      zego-watchdog hold 1920370518175780864 --for 10m
      zego-watchdog hold 1920370518175780864 --until 2026-08-21T18:00
      zego-watchdog hold 1920370518175780864 --release

    ZEGO does not know about the hold: it still ends the task when the room stays empty for its MaxIdleTime.
    """
    from watchdog.cli.commands.hold import hold_task

    if sum((length is not None, until is not None, release)) != 1:
        raise typer.BadParameter("give exactly one of --for, --until and --release")
    hold_task(config, task, length=length, until=until, as_json=as_json)
