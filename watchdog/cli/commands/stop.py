"""An operator's own stop: the daemon's parts, its verification and its ledger, for one task."""

import asyncio
from datetime import datetime
from typing import Final

from watchdog.cli.view import words
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Reason, Source, Status, Task
from watchdog.core.policy import RULE_TEXT, Rule
from watchdog.errors import Busy, ConfigError, Refused, WatchdogError
from watchdog.services.claims import Claimed, Finished
from watchdog.services.stopper import DETAIL_UNSERVED
from watchdog.store.engine import Engine
from watchdog.store.records import SetAside
from watchdog.store.reports import tasks as reports
from watchdog.store.reports.tasks import Biography
from watchdog.wiring.parts import Parts

UNKNOWN_TASK: Final = "list what there is with: zego-watchdog tasks"


def known(database: Engine, task_id: str) -> Biography:
    """The task's biography. Raises WatchdogError, with what may have been meant, for a TaskId nobody knows."""
    story = reports.biography(database, task_id)
    if story is not None:
        return story
    near, of_room = reports.similar(database, task_id)
    if of_room:
        raise WatchdogError(f"{task_id} is a room, not a task; its tasks: {words.listed(near)}")
    hint = f"did you mean {' or '.join(near)}?" if near else UNKNOWN_TASK
    raise WatchdogError(f"task {task_id}: there is no such task; {hint}")


def active(story: Biography, task_id: str) -> Task:
    """The task's row. Raises Refused when it has ended or is there no more."""
    if story.task is None:
        raise Refused(f"task {task_id}: the application has deleted its row, so it is watched no more")
    if story.task.status is not Status.ACTIVE:
        when = "" if story.task.ended_at is None else f" {words.since(story.task.ended_at, story.now)}"
        raise Refused(
            f"task {task_id} has ended already{when} ({story.task.status}); see: zego-watchdog explain {task_id}"
        )
    return story.task


def stop(config: Config, database: Engine, task_id: str, clock: Clock) -> Finished:
    """Stop the task now. Whatever was sent or recorded is in the result.

    Raises Refused when there are people, nothing is known, the task is on hold or has ended; Busy when somebody else
    works on it; ConfigError when its AppId is not ours.
    """
    story = known(database, task_id)
    active(story, task_id)
    finished = asyncio.run(_work(config, database, task_id, story, clock))
    match finished.outcome:
        case Outcome.SPARED | Outcome.WITHHELD | None:
            raise _refusal(config, known(database, task_id), task_id, finished)
        case _:
            return finished


async def _work(config: Config, database: Engine, task_id: str, story: Biography, clock: Clock) -> Finished:
    parts = Parts(config, clock, database, story.now, watching_since=story.watching_since)
    storage = parts.storage
    try:
        until = clock.monotonic() + config.stop.lease_seconds
        claim = await storage.tasks.claim_one(
            task_id,
            f"{parts.daemon.instance}/manual",
            lease_seconds=config.stop.lease_seconds,
        )
        if claim is None:
            raise await asyncio.to_thread(_taken, database, task_id)
        app_id = parts.workload.default_app if claim.task.app_id is None else claim.task.app_id
        if claim.task.user_count:
            # ZEGO may say that nobody is there: to it a wrong RoomId is an empty room as well. Contradiction is doubt.
            back = SetAside(claim, app_id, None, Reason.MANUAL, Rule.OCCUPIED, claim.task.evidence, None, 0.0)
            await storage.tasks.set_aside([back])
            return Finished(None, Rule.OCCUPIED)
        (finished,) = await parts.stopper.work([Claimed(claim, app_id, until, manual=True)])
        return finished
    finally:
        await parts.close()


def _taken(database: Engine, task_id: str) -> Busy:
    story = known(database, task_id)
    task = active(story, task_id)
    lease = "" if task.wake_at is None else f", its lease ends {words.until(task.wake_at, story.now)}"
    return Busy(f"task {task_id} is in the hands of {task.claimed_by or 'somebody else'}{lease}; try again then")


def _refusal(config: Config, story: Biography, task_id: str, finished: Finished) -> WatchdogError:
    """Why nothing was sent, in words, with the next step."""
    task, now = active(story, task_id), story.now
    if finished.detail == DETAIL_UNSERVED:
        known_apps = words.listed([app.app_id for app in config.zego.apps]) or "none"
        app = "names no AppId, and there is no default" if task.app_id is None else f"is AppId {task.app_id}'s"
        return ConfigError(f"task {task_id} {app}; zego.apps has {known_apps}: add it there")
    if task.user_count:
        doubt = "" if finished.outcome is Outcome.SPARED else "; should that be wrong, set its user_count to 0 first"
        return Refused(f"task {task_id}: {_who_says(task, now)}; nothing was sent{doubt}")
    if finished.detail == Rule.ON_HOLD and task.hold_until is not None:
        return Refused(
            f"task {task_id} is on hold until {words.stamp(task.hold_until)} ({words.until(task.hold_until, now)});"
            f" end the hold with: zego-watchdog hold {task_id} --release"
        )
    if finished.outcome is None:
        return Busy(f"task {task_id}: its row changed meanwhile, and nothing was sent; try again")
    rule = RULE_TEXT.get(Rule(finished.detail), "") if finished.detail in set(Rule) else finished.detail
    return Refused(f"task {task_id}: {rule}; nothing was sent. What is wrong? zego-watchdog check")


def _who_says(task: Task, now: datetime) -> str:
    verb = "is" if task.user_count == 1 else "are"
    who = {Source.API: "ZEGO", Source.APP: "the application", Source.CALLBACK: "ZEGO's callback"}
    said = who[Source(task.user_count_source or Source.APP)]
    when = "" if task.user_count_at is None else f" {words.since(task.user_count_at, now)}"
    return f"there {verb} {words.people(task.user_count or 0)} in room {task.room_id}, said {said}{when}"
