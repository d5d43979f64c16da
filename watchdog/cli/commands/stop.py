"""``stop``: an operator's own stop, with the daemon's parts, verification and ledger, for one task."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Final

from watchdog import logs
from watchdog.cli.commands.lookup import active_task, find_biography, opened
from watchdog.cli.view import words
from watchdog.cli.view.output import note, show_json, show_pairs
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Reason, Source, Task
from watchdog.core.policy import Rule
from watchdog.errors import Busy, ConfigError, Refused, WatchdogError
from watchdog.insight.words import OUTCOME_TEXT, REPORTER
from watchdog.services.claims import DETAIL_UNSERVED, Claimed, Finished
from watchdog.store.engine import Engine
from watchdog.store.records import DETAIL_ROOM_REFUSED, SetAside, claim_token
from watchdog.store.reports.tasks import Biography
from watchdog.wiring.parts import Parts

_ENDED: Final = (Outcome.STOPPED, Outcome.GONE, Outcome.STOPPED_EARLIER, Outcome.AUTO_STOPPED)
_EXIT_CODES: Final = {
    **dict.fromkeys((*_ENDED, Outcome.WOULD_STOP), 0),
    **dict.fromkeys((Outcome.RETRY, Outcome.UNKNOWN), Busy.exit_code),
    Outcome.BLOCKED: ConfigError.exit_code,
}


def stop_task(path: Path | None, task_id: str, *, as_json: bool) -> int:
    """Stop the task and print the result; return the exit code. Raises Refused, Busy, ConfigError, DatabaseError."""
    with opened(path, with_secrets=True) as (config, database):
        # This command's log is for the terminal, not for the journal.
        logs.configure("auto" if config.log.format == "journal" else config.log.format, "warning")
        try:
            finished = _stop(config, database, task_id, SystemClock())
        finally:
            logs.close()
        story = find_biography(database, task_id)
    outcome, reply = Outcome(finished.outcome or Outcome.WITHHELD), finished.reply
    result = {
        "task_id": task_id,
        "outcome": outcome,
        **{name: getattr(reply, name, None) for name in ("http_status", "code", "message", "request_id")},
        "detail": finished.detail,
    }
    if as_json:
        show_json(result)
    else:
        result["detail"] = words.detail(finished.detail) if finished.detail else None
        show_pairs([(name, str(value)) for name, value in result.items() if value is not None])
    note(f"{OUTCOME_TEXT[outcome]}. {_next_step(outcome, story)}".rstrip())
    return _EXIT_CODES.get(outcome, 1)


def _next_step(outcome: Outcome, story: Biography) -> str:
    match outcome:
        case Outcome.RETRY | Outcome.UNKNOWN if story.daemon_alive:
            due = story.task.due_at if story.task else None
            when = f", {words.until(due, story.now)}" if due and due > story.now else ""
            return f"Try again; otherwise the daemon tries again when the task is due{when}."
        case Outcome.RETRY | Outcome.UNKNOWN:
            return "No daemon is alive to try again: repeat the command, or start a daemon with: zego-watchdog run"
        case Outcome.BLOCKED:
            return "Next step: zego-watchdog check"
        case _:
            return ""


def _stop(config: Config, database: Engine, task_id: str, clock: Clock) -> Finished:
    """Stop the task now; the result has what was sent and recorded.

    Raises Refused if there are people, the room is unknown, or the task is on hold or has ended; Busy if a daemon works
    on it; ConfigError if its AppId is not configured.
    """
    story = find_biography(database, task_id)
    active_task(story, task_id)
    finished = asyncio.run(_work(config, database, task_id, story, clock))
    match finished.outcome:
        case Outcome.SPARED | Outcome.WITHHELD | None:
            raise _refusal(config, find_biography(database, task_id), task_id, finished)
        case _:
            return finished


async def _work(config: Config, database: Engine, task_id: str, story: Biography, clock: Clock) -> Finished:
    parts = Parts(config, clock, database, story.now, watching_since=story.watching_since)
    storage = parts.storage
    try:
        until = clock.monotonic() + config.stop.lease_seconds
        claim = await storage.tasks.claim_one(
            task_id, claim_token(parts.daemon.instance, "manual"), lease_seconds=config.stop.lease_seconds
        )
        if claim is None:
            raise await asyncio.to_thread(_claimed_elsewhere, database, task_id)
        app_id = parts.workload.default_app if claim.task.app_id is None else claim.task.app_id
        if claim.task.user_count:
            # ZEGO reports an unknown RoomId as empty, so its answer cannot overrule people the application sees.
            back = SetAside(claim, app_id, None, Reason.MANUAL, Rule.OCCUPIED, claim.task.evidence, None, 0.0)
            await storage.tasks.set_aside([back])
            return Finished(None, Rule.OCCUPIED)
        return await parts.stopper.work(Claimed(claim, app_id, until, manual=True))
    finally:
        await parts.close()


def _claimed_elsewhere(database: Engine, task_id: str) -> Busy:
    story = find_biography(database, task_id)
    task = active_task(story, task_id)
    lease = "" if task.wake_at is None else f"; its lease ends {words.until(task.wake_at, story.now)}"
    return Busy(f"task {task_id} is claimed by {task.claimed_by or 'another process'}{lease}; try again then")


def _refusal(config: Config, story: Biography, task_id: str, finished: Finished) -> WatchdogError:
    """Why nothing was sent, in words, with the next step."""
    task, now = active_task(story, task_id), story.now
    if finished.detail == DETAIL_UNSERVED:
        known_apps = words.listed([app.app_id for app in config.zego.apps]) or "none"
        app = "has no AppId, and there is no default" if task.app_id is None else f"has AppId {task.app_id}"
        return ConfigError(f"task {task_id} {app}; zego.apps has {known_apps}: add the AppId there")
    if task.user_count:
        todo = (
            "if this is wrong, set its user_count to 0 first"
            if Source(task.user_count_source or Source.APP) is Source.APP
            else f"see who is there with: zego-watchdog room {task.room_id}"
        )
        return Refused(f"task {task_id}: {_people_report(task, now)}; nothing was sent; {todo}")
    if finished.detail == Rule.ON_HOLD and task.hold_until is not None:
        return Refused(
            f"task {task_id} is on hold until {words.stamp(task.hold_until)} ({words.until(task.hold_until, now)});"
            f" end the hold with: zego-watchdog hold {task_id} --release"
        )
    if finished.outcome is None:
        return Busy(f"task {task_id}: its row changed in the meantime, and nothing was sent; try again")
    if finished.detail == DETAIL_ROOM_REFUSED:
        return Refused(
            f"task {task_id}: ZEGO refuses the RoomId {task.room_id}, so it does not say who is there; nothing was "
            "sent; write the RoomId that the task was started with into zego_tasks.room_id"
        )
    rule = words.detail(finished.detail or "")
    return Refused(f"task {task_id}: {rule}; nothing was sent. Next step: zego-watchdog check")


def _people_report(task: Task, now: datetime) -> str:
    verb = "is" if task.user_count == 1 else "are"
    by = REPORTER[Source(task.user_count_source or Source.APP)]
    when = "" if task.user_count_at is None else f" {words.since(task.user_count_at, now)}"
    return f"there {verb} {words.people(task.user_count or 0)} in room {task.room_id}, reported by {by}{when}"
