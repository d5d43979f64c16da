"""What the commands do: open what is needed, ask for it, show it. Each function is one command."""

import asyncio
import gc
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
import typer

from watchdog import SCHEMA_VERSION, __version__, daemon, logs
from watchdog import config as configuration
from watchdog.cli.checks import examine as checkup
from watchdog.cli.commands import listing as reading
from watchdog.cli.commands import room as rooms
from watchdog.cli.commands import stop as stopping
from watchdog.cli.view import findings, screens, words
from watchdog.clock import SystemClock
from watchdog.config.settings import Config
from watchdog.core import policy
from watchdog.core.model import Outcome, Status, Task
from watchdog.core.policy import Decision, Policy, Rule, Verdict
from watchdog.daemon import event_loop
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import Busy, ConfigError
from watchdog.sandbox.command import SandboxSettings, run_sandbox
from watchdog.store import schema
from watchdog.store.engine import place
from watchdog.store.polling import PollStore
from watchdog.store.reports import tasks as reports
from watchdog.wiring import database as opening
from watchdog.wiring import from_config

_SELDOM: Final = 1000
"""Full rounds of the garbage collector, one for so many smaller ones instead of for ten."""

MIGRATION_USEC: Final = 600_000_000
"""How long the service manager is asked to wait for a migration, microseconds."""


def environment() -> Mapping[str, str]:
    return os.environ


def run(path: Path | None, *, first_migrate: bool) -> None:
    file = configuration.find(path)
    config = configuration.load(file)
    logs.configure(config.log.format, config.log.level)
    manager = ServiceManager()
    # The database's threads give the interpreter up for every row, and have to wait this long to get it back.
    sys.setswitchinterval(0.0005)
    # What is imported stays: each full round of the garbage collector through it would hold everything up for 45 ms.
    gc.freeze()
    try:
        if first_migrate:
            _bring_up_to_date(config, manager)
        # The same file each time: one that appears elsewhere meanwhile is another configuration.
        event_loop.run(daemon.run(config, reload=lambda: configuration.load(file), manager=manager))
    finally:
        logs.close()


def _bring_up_to_date(config: Config, manager: ServiceManager) -> None:
    """Migrate where there is something to migrate. A SQLite file is created nowhere but in the unit's StateDirectory=.

    Elsewhere a mistyped path must not silently become an empty database.
    """
    file = config.database.sqlite_file
    engine = opening.engine(config.database, must_exist=file is not None and not _is_state(file))
    try:
        if schema.version(engine) != SCHEMA_VERSION:
            manager.notify(STATUS="bringing the database up to date", EXTEND_TIMEOUT_USEC=MIGRATION_USEC)
            before, after = schema.migrate(engine)
            if before != after:
                # Else another daemon was quicker.
                structlog.get_logger(__name__).info("migrated", before=before, after=after, database=place(engine))
    finally:
        engine.dispose()


def _is_state(file: Path) -> bool:
    """Whether it lies in a directory that the service manager keeps for us."""
    folders = filter(None, os.environ.get("STATE_DIRECTORY", "").split(":"))
    return any(file.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def sandbox(settings: SandboxSettings) -> None:
    # Its log stays, too, and grows; stops that it kept waiting meanwhile would seem to come all at once.
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _SELDOM)
    asyncio.run(run_sandbox(settings, typer.echo))


def migrate(path: Path | None) -> None:
    config = configuration.load(path)
    if (file := config.database.sqlite_file) is not None and not (folder := file.absolute().parent).is_dir():
        raise ConfigError(f"database.url: there is no directory {folder}; create it, or correct the path")
    engine = opening.engine(config.database, must_exist=False)
    try:
        before, after = schema.migrate(engine)
        where = place(engine)
    finally:
        engine.dispose()
    done = f"schema {after} already, nothing to do" if before == after else f"schema {before or 'none'} -> {after}"
    typer.echo(f"{where}: {done}")


def check(path: Path | None, *, as_json: bool, offline: bool) -> int:
    found = asyncio.run(checkup.examine(path, environment(), SystemClock(), offline=offline))
    if as_json:
        screens.show_json([asdict(finding) for finding in found])
    else:
        findings.show(found)
    return checkup.exit_code(found)


def room(path: Path | None, room_id: str, *, app_id: int | None, as_json: bool) -> None:
    with reading.opened(path) as (config, database):
        seen = rooms.look(config, database, room_id, app_id, SystemClock())
    if as_json:
        screens.show_json(rooms.as_json(seen))
    else:
        rooms.show(seen)


def explain(path: Path | None, task_id: str, *, as_json: bool) -> None:
    with reading.opened(path) as (config, database):
        story = stopping.known(database, task_id)
        newest_hint_at = PollStore(database).newest_hint()
    rules, now, task = from_config.rules(config), story.now, story.task
    decision = None if task is None else policy.decide(task, None, rules, now, watching_since=story.watching_since)
    if decision is not None and decision.rule is Rule.HINT_SAYS_EMPTY and story.guard_tripped:
        decision = Decision(Verdict.UNKNOWN, Rule.GUARDED)
    plan = None if task is None or task.status is not Status.ACTIVE else policy.plan(task, rules, now)
    silent = None if newest_hint_at is None else now - newest_hint_at
    is_dead = silent is not None and silent.total_seconds() > from_config.silence_seconds(config)
    if as_json:
        screens.show_json(
            {
                "now": now,
                "task": None if task is None else screens.task_row(task),
                "decision": None if decision is None else screens.decision_row(decision),
                "plan": None if plan is None else {"due_at": plan.due_at, "auto_stop_at": plan.auto_stop_at},
                "daemon_alive": story.daemon_alive,
                "newest_hint_at": newest_hint_at,
                "feed_dead": is_dead,
                "attempts": story.attempts,
            }
        )
        return
    if task is None or decision is None:
        gone = "the application, or retention, has deleted its row; the ledger still has its attempts."
        screens.say(f"Task {task_id}: {gone}", "bold")
    else:
        app = f"AppId {task.app_id}" if task.app_id else "the default AppId"
        screens.say(f"Task {task.task_id} in room {task.room_id}, {app}: {task.status}", "bold")
        screens.heading("Evidence")
        screens.evidence(task, now)
        screens.heading("Decision")
        screens.say(f"{decision.verdict}: {words.ruling(decision, now)}")
        screens.say(words.outlook(task, decision, rules, now))
        if task.status is Status.ACTIVE:
            if not story.daemon_alive:
                screens.say("No daemon is alive, so nothing happens by itself: zego-watchdog run", "bold red")
            if is_dead and silent is not None:
                screens.say(
                    f"The feed of hints seems dead: for {words.length(silent.total_seconds())} nobody has said "
                    "anything of any room, so nothing is stopped that ZEGO has not confirmed: zego-watchdog check",
                    "bold red",
                )
            screens.heading("Schedule")
            screens.schedule(task, plan, rules, now)
    screens.heading("Attempts" if story.attempts else "No attempt yet")
    if story.attempts:
        screens.attempts(story.attempts)


_EXIT = {
    Outcome.STOPPED: 0,
    Outcome.GONE: 0,
    Outcome.STOPPED_EARLIER: 0,
    Outcome.AUTO_STOPPED: 0,
    Outcome.WOULD_STOP: 0,
    Outcome.RETRY: 75,
    Outcome.UNKNOWN: 75,
    Outcome.BLOCKED: ConfigError.exit_code,
}


def stop(path: Path | None, task_id: str, *, as_json: bool) -> int:
    with reading.opened(path) as (config, database):
        # What concerns this one order is for the terminal it was given on.
        logs.configure("auto" if config.log.format == "journal" else config.log.format, "warning")
        try:
            finished = stopping.stop(config, database, task_id, SystemClock())
        finally:
            logs.close()
        story = stopping.known(database, task_id)
    outcome, reply = Outcome(finished.outcome or Outcome.WITHHELD), finished.reply
    result = {
        "task_id": task_id,
        "outcome": outcome,
        "http_status": None if reply is None else reply.http_status,
        "code": None if reply is None else reply.code,
        "message": None if reply is None else reply.message,
        "request_id": None if reply is None else reply.request_id,
        "detail": finished.detail,
    }
    if as_json:
        screens.show_json(result)
    else:
        screens.show_pairs([(name, str(value)) for name, value in result.items() if value is not None])
    screens.note(f"{words.OUTCOME_TEXT[outcome]}. {_afterwards(outcome, story)}".rstrip())
    return _EXIT.get(outcome, 1)


def _afterwards(outcome: Outcome, story: reports.Biography) -> str:
    match outcome:
        case Outcome.RETRY | Outcome.UNKNOWN if story.daemon_alive:
            due = story.task.due_at if story.task else None
            when = f", {words.until(due, story.now)}" if due and due > story.now else ""
            return f"Try again; else the daemon goes on with it when it is due{when}."
        case Outcome.RETRY | Outcome.UNKNOWN:
            return "No daemon is alive to go on with it: try again, or start one with: zego-watchdog run"
        case Outcome.BLOCKED:
            return "What to do: zego-watchdog check"
        case _:
            return ""


def hold(path: Path | None, task_id: str, *, length: str | None, until: str | None, as_json: bool) -> None:
    seconds = None if length is None else reading.length(length).total_seconds()
    end = None if until is None else reading.moment(until)
    with reading.opened(path) as (config, database):
        story = stopping.known(database, task_id)
        stopping.active(story, task_id)
        if end is not None and end <= story.now:
            raise typer.BadParameter(f"--until {words.stamp(end)} is over: it is {words.stamp(story.now)}")
        changed = reports.hold(database, task_id, seconds=seconds, until=end)
        if changed is None:
            raise Busy(f"task {task_id}: its row changed meanwhile; try again")
    now, task = changed
    if as_json:
        screens.show_json(screens.task_row(task))
    elif task.hold_until is None:
        screens.say(f"Task {task_id}: no hold")
    else:
        screens.say(
            f"Task {task_id}: on hold until {words.stamp(task.hold_until)} ({words.until(task.hold_until, now)})"
        )
    for warning in _hold_warnings(task, from_config.rules(config), now):
        screens.note(f"Warning: {warning}")


def _hold_warnings(task: Task, rules: Policy, now: datetime) -> Iterator[str]:
    if task.claimed_by is not None and task.wake_at is not None and task.wake_at > now:
        yield f"{task.claimed_by} is working on this task; a request that has left cannot be called back."
    plan = policy.plan(task, rules, now)
    if plan is not None and task.hold_until is not None and task.hold_until > plan.auto_stop_at:
        yield (
            f"ZEGO knows nothing of the hold, and ends this task itself {words.until(plan.auto_stop_at, now)}"
            f" ({words.stamp(plan.auto_stop_at)}) if its room stays empty."
        )


def version(*, as_json: bool) -> None:
    if as_json:
        screens.show_json(
            {"version": __version__, "schema_version": SCHEMA_VERSION, "python": platform.python_version()}
        )
    else:
        typer.echo(f"zego-watchdog {__version__} (schema {SCHEMA_VERSION}, Python {platform.python_version()})")
