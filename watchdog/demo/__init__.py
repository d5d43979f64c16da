"""The demo: a real daemon, a fake ZEGO, and fourteen rooms with the usual problems.

scenario ──► runner ──► the application's SQL, people in the sandbox's rooms
               ▲                │ ▲ events
               │                ▼
screen ◄── snapshot       the database ◄── zego-watchdog run ──HTTP──► the sandbox
                                │                                          │
                                └─────────────► verdict ◄──────────────────┘
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
from watchdog.demo import environment, screen, verdict
from watchdog.demo.application import HISTORY, Application
from watchdog.demo.runner import Runner, Show
from watchdog.demo.scenario import SCENARIO, Scenario
from watchdog.demo.snapshot import Snapshot
from watchdog.sandbox import Sandbox

__all__ = ["main"]

_INTERRUPTED: Final = 130
_SUMMARY_SECONDS: Final = 10
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def main(db: str = "sqlite", *, keep: Path | None = None) -> int:
    """Run the demo on ``db``, ``sqlite`` or ``postgresql``; return the exit code.

    0 if the sandbox agrees, 1 if not or if the daemon ends early, 130 if interrupted. ``keep`` is a new or empty
    directory that keeps configuration, database and log. Raises ConfigError, DatabaseError.
    """
    console = Console(highlight=False, no_color=True if os.environ.get("NO_COLOR") else None)
    return perform(SCENARIO, db, console, keep=keep)


def perform(scenario: Scenario, db: str, console: Console, *, keep: Path | None = None) -> int:
    """Run any scenario; see ``main``."""
    with _terminations_interrupt():
        try:
            with environment.directory(keep) as place, environment.database(db, place) as url:
                code = asyncio.run(_perform(scenario, url, place, console, _NAMES[db]))
        except environment.DaemonEnded as error:
            console.print(f"The demo cannot continue: {error}", style="bold red", markup=False, soft_wrap=True)
            code = environment.DaemonEnded.exit_code
        except KeyboardInterrupt:
            console.print("Interrupted; all processes have ended.")
            code = _INTERRUPTED
    if keep is not None:
        console.print(f"Configuration, database and the daemon's log are in {keep}.", soft_wrap=True)
    return code


async def _perform(scenario: Scenario, url: str, place: Path, console: Console, database: str) -> int:
    timing = scenario.timing
    # No quota: fourteen rooms need more than the ten slots that ZEGO gives by default.
    sandbox = Sandbox(
        {environment.APP_ID: environment.SERVER_SECRET},
        seed=scenario.seed,
        concurrent_tasks=0,
        max_idle_seconds=timing.max_idle_seconds,
        callback_secrets={environment.APP_ID: environment.CALLBACK_SECRET},
    )
    port = environment.free_port()
    async with sandbox:
        file = environment.write_config(place, database_url=url, zego_url=sandbox.url, port=port, timing=timing)
        environment.migrate(file)
        with Application(url) as application:
            async with environment.daemon(file) as daemon:
                footing = (
                    f"grace {timing.grace_seconds:g} s, ZEGO's auto-stop {timing.max_idle_seconds} s; "
                    f"daemon {daemon.pid}, {database}, sandbox {sandbox.url.removeprefix('http://').rstrip('/')}"
                )
                with _showing(console, footing) as show:
                    runner = Runner(scenario, sandbox, application, daemon, SystemClock(), show, port, footing)
                    await runner.perform()
                # Before it exits, it records the requests in flight.
                await daemon.end()
            found = verdict.judge(scenario.rooms, runner.task_ids, sandbox.events(), application.attempts())
            _report(console, application, found)
            return 0 if found.passed else 1


def _report(console: Console, application: Application, found: verdict.Verdict) -> None:
    rows = screen.rows_as_table(application.select(HISTORY))
    console.print(
        Group("\nThe recorded results, and the SQL query for them:\n", Text(HISTORY + ";\n", style="cyan"), rows, "")
    )
    for interruption in application.interruptions():
        console.print(screen.interruption_words(interruption), soft_wrap=True)
    for room in found.left:
        console.print(screen.left_words(room), soft_wrap=True)
    for complaint in found.complaints:
        console.print(complaint, style="bold red")
    console.print(found.found.summary(), style="bold")
    if found.passed:
        console.print("The sandbox agrees: every request is recorded, and no wrong stop was made.", style="green")
    else:
        console.print("The sandbox does not agree.", style="bold red")


@contextmanager
def _showing(console: Console, footing: str) -> Iterator[Show]:
    """Yield a function that shows snapshots: a live table on a terminal, otherwise lines of text."""
    quiet = os.environ.get("NO_COLOR") or os.environ.get("CI")
    if console.is_terminal and not console.is_dumb_terminal and not quiet:
        with Live(console=console, auto_refresh=False) as live:

            def draw(snapshot: Snapshot) -> None:
                live.update(screen.draw(snapshot, width=console.width, height=console.height), refresh=True)

            yield draw
        return
    console.print(footing, soft_wrap=True)
    shown, next_summary = 0, _SUMMARY_SECONDS

    def print_news(snapshot: Snapshot) -> None:
        nonlocal shown, next_summary
        for at, text in snapshot.captions[shown:]:
            console.print(screen.plain_caption(at, text), soft_wrap=True)
        shown = len(snapshot.captions)
        if snapshot.at >= next_summary:
            console.print(f"{next_summary:3.0f} s  -- {screen.summary(snapshot.lines)}", soft_wrap=True)
            next_summary += _SUMMARY_SECONDS

    yield print_news


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that they clean up too."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    # SIGINT too: shells start background jobs with SIGINT ignored. nohup ignores SIGHUP on purpose.
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
