"""Which hints to write into a task's row when a callback tells who was in its room, and when. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from watchdog.core.model import Source, Task
from watchdog.core.presence import RoomFact, UserFact

_TICK: Final = timedelta(milliseconds=1)
"""The resolution of SQLite's times."""


@dataclass(frozen=True, slots=True)
class Hint:
    user_count: int
    at: datetime | None
    source: str | None = Source.CALLBACK


def hints(task: Task, count: int | None, at: datetime, seen: datetime | None) -> Iterator[Hint]:
    """The hints to write, in this order, so that the triggers derive the right times.

    ``count`` people (None: unknown) were in the room at ``at``, and certainly a person at ``seen``. The newest
    observation wins. But if a person was seen after the room is said to have become empty, it became empty later: a
    late or lost login must not cause an early stop.
    """
    stored = task.user_count_at
    newest = stored is None or at >= stored
    if seen is not None and (_interrupts(task, count, seen) or _is_first_sight(task, count, seen, newest=newest)):
        yield Hint(1, seen - _TICK)
        if not count:
            yield Hint(0, seen)
        final = Hint(task.user_count or 0, stored, task.user_count_source)
        if count is not None and newest:
            final = Hint(count, at)
        if count or final.at != seen:
            yield final
    elif count is not None and newest and (at, count) != (stored, task.user_count):
        yield Hint(count, at)


def last_seen(user: UserFact, room: RoomFact) -> datetime | None:
    """When this user was certainly in that session of the room for the last time; None if unknown."""
    if not user.is_open:
        return user.logout_at
    # ZEGO closes a room when its last user has left.
    return room.closed_at or user.login_at


def _interrupts(task: Task, count: int | None, seen: datetime) -> bool:
    """Whether a person was there during what the row takes for one empty spell."""
    if task.user_count != 0 or task.empty_since is None or task.user_count_at is None or task.empty_since >= seen:
        return False
    # The spell ends at the last observation, unless a new observation extends it.
    return count is not None or seen <= task.user_count_at


def _is_first_sight(task: Task, count: int | None, seen: datetime, *, newest: bool) -> bool:
    """Whether the room is empty, and this is the first evidence of a person in it since the task began."""
    return count == 0 and newest and task.last_occupied_at is None and seen > task.started_at
