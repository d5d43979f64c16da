"""The demo: a real daemon, a fake ZEGO, and rooms in which everything happens that happens to real ones.

story ──► play ──► the application's SQL, people in the sandbox's rooms
             ▲                │
             │                ▼
screen ◄── snapshot       the database ◄── zego-watchdog run ──HTTP──► the sandbox
                              │                                            │
                              └──────────────► verdict ◄───────────────────┘
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from watchdog.clock import SystemClock
from watchdog.demo import screen, stage, verdict
from watchdog.demo.application import HISTORY, Application
from watchdog.demo.play import Play, Show
from watchdog.demo.snapshot import Snapshot
from watchdog.demo.story import STORY, Story
from watchdog.sandbox import Sandbox

__all__ = ["main"]

_INTERRUPTED: Final = 130
_TALLY_SECONDS: Final = 10
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def main(db: str = "sqlite", *, keep: Path | None = None) -> int:
    """Play it on ``db``, ``sqlite`` or ``postgresql``; return the exit code, 1 unless the sandbox agrees to all of it.

    Also 1, with the last lines of its log, when the daemon ends before its time, and 130 when interrupted. ``keep`` is
    a directory, new or empty, in which configuration, database and log stay. Raises ConfigError, DatabaseError.
    """
    # NO_COLOR, a pipe, a build server: no colours, and nothing that moves.
    console = Console(highlight=False, no_color=True if os.environ.get("NO_COLOR") else None)
    return perform(STORY, db, console, keep=keep)


def perform(story: Story, db: str, console: Console, *, keep: Path | None = None) -> int:
    """Play any story; see ``main``."""
    with _terminations_interrupt():
        try:
            with stage.directory(keep) as place, stage.database(db, place) as url:
                code = asyncio.run(_perform(story, url, place, console, _NAMES[db]))
        except stage.DaemonEnded as error:
            console.print(f"The demo cannot go on: {error}", style="bold red", markup=False, soft_wrap=True)
            code = stage.DaemonEnded.exit_code
        except KeyboardInterrupt:
            console.print("Interrupted; everything that was started has been ended.")
            code = _INTERRUPTED
    if keep is not None:
        console.print(f"Configuration, database and the daemon's log are in {keep}.", soft_wrap=True)
    return code


async def _perform(story: Story, url: str, place: Path, console: Console, database: str) -> int:
    timing = story.timing
    # No quota: a backend with fourteen rooms at once has more than the ten slots that ZEGO gives by default.
    sandbox = Sandbox(
        {stage.APP_ID: stage.SERVER_SECRET},
        seed=story.seed,
        concurrent_tasks=0,
        max_idle_seconds=timing.max_idle_seconds,
    )
    async with sandbox:
        file = stage.write_config(place, database_url=url, zego_url=sandbox.url, timing=timing)
        stage.migrate(file)
        with Application(url) as application:
            async with stage.daemon(file) as daemon:
                footing = (
                    f"grace {timing.grace_seconds:g} s, ZEGO's auto-stop {timing.max_idle_seconds} s; "
                    f"daemon {daemon.pid}, {database}, sandbox {sandbox.url.removeprefix('http://').rstrip('/')}"
                )
                with _showing(console, footing) as show:
                    play = Play(story, sandbox, application, daemon, SystemClock(), show, footing)
                    await play.perform()
                # It records what is still in flight before it goes.
                await daemon.end()
            found = verdict.judge(story.rooms, play.task_ids, sandbox.events(), application.attempts())
            _report(console, application, found)
            return 0 if found.passed else 1


def _report(console: Console, application: Application, found: verdict.Verdict) -> None:
    rows = screen.rows_as_table(application.select(HISTORY))
    console.print(
        Group("\nWhat is on record, and the SQL that asks for it:\n", Text(HISTORY + ";\n", style="cyan"), rows, "")
    )
    for complaint in found.complaints:
        console.print(complaint, style="bold red")
    console.print(found.summary(), style="bold")
    if found.passed:
        console.print("The sandbox agrees: every request is on record, and no stop met people.", style="green")
    else:
        console.print("The sandbox does not agree.", style="bold red")


@contextmanager
def _showing(console: Console, footing: str) -> Iterator[Show]:
    """A live table on a terminal, elsewhere a line for everything that happens and now and then a tally."""
    quiet = os.environ.get("NO_COLOR") or os.environ.get("CI")
    if console.is_terminal and not console.is_dumb_terminal and not quiet:
        with Live(console=console, auto_refresh=False) as live:

            def draw(snapshot: Snapshot) -> None:
                live.update(screen.draw(snapshot, width=console.width, height=console.height), refresh=True)

            yield draw
        return
    console.print(footing, soft_wrap=True)
    said, next_tally = 0, _TALLY_SECONDS

    def tell(snapshot: Snapshot) -> None:
        nonlocal said, next_tally
        for at, text in snapshot.captions[said:]:
            console.print(screen.plain_caption(at, text), soft_wrap=True)
        said = len(snapshot.captions)
        if snapshot.at >= next_tally:
            console.print(f"{next_tally:3.0f} s  -- {screen.tally(snapshot.lines)}", soft_wrap=True)
            next_tally += _TALLY_SECONDS

    yield tell


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does, so that they leave nothing behind either."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    # SIGINT too: a background job of a shell script begins with it ignored. An ignored SIGHUP is nohup's wish.
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]]
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: interrupt}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = interrupt
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
