"""What most commands need first: the configuration, the database, a task."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog import config
from watchdog.cli.checks.advice import advised
from watchdog.cli.view import words
from watchdog.config.settings import Config
from watchdog.core.model import Status, Task
from watchdog.errors import Refused, WatchdogError
from watchdog.store.engine import Engine
from watchdog.store.reports.tasks import Biography, biography, similar
from watchdog.wiring.database import opened as open_database


@contextmanager
def opened(path: Path | None, *, with_secrets: bool = False) -> Iterator[tuple[Config, Engine]]:
    """Load the configuration and open its database. Raises ConfigError, DatabaseError.

    Without ``with_secrets`` only the database's password is read: then ZEGO cannot be asked.
    """
    settings = config.load(path, database_only=not with_secrets)
    with advised(settings.database), open_database(settings) as database:
        yield settings, database


def find_biography(database: Engine, task_id: str) -> Biography:
    """Return the task's row and history. Raises WatchdogError for an unknown TaskId, with similar ones."""
    story = biography(database, task_id)
    if story is not None:
        return story
    near, of_room = similar(database, task_id)
    if of_room:
        raise WatchdogError(f"{task_id} is a room, not a task; its tasks: {words.listed(near)}")
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "list the known tasks with: zego-watchdog tasks --status all"
    )
    raise WatchdogError(f"task {task_id}: there is no such task; {hint}")


def active_task(story: Biography, task_id: str) -> Task:
    """Return the task's row. Raises Refused if the task has ended or its row was deleted."""
    if story.task is None:
        raise Refused(f"task {task_id}: the application deleted its row, so it is no longer watched")
    if story.task.status is not Status.ACTIVE:
        when = "" if story.task.ended_at is None else f" {words.since(story.task.ended_at, story.now)}"
        raise Refused(f"task {task_id} ended{when} ({story.task.status}); see: zego-watchdog explain {task_id}")
    return story.task
