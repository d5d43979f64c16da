"""Which hints to write into a task's row when a callback tells who was in its room, and when. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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


def applied(task: Task, hint: Hint, now: datetime) -> Task:
    """The row after the triggers have applied ``hint``, as far as later hints and the ledger depend on it."""
    at = now if hint.at is None else min(hint.at, now)
    after = replace(task, user_count=hint.user_count, user_count_at=at, user_count_source=hint.source)
    if hint.user_count:
        return replace(after, last_occupied_at=at, empty_since=None, due_at=None, auto_stop_at=None)
    return after if task.user_count == 0 and task.empty_since is not None else replace(after, empty_since=at)


def needed(steps: Sequence[Hint]) -> list[Hint]:
    """Those of several hints for one row, in their order, without which the row would become another.

    They are the last that shows people, the first that shows none after it, and the last of all.
    """
    occupied = max((number for number, step in enumerate(steps) if step.user_count), default=-1)
    numbers = dict.fromkeys((occupied, occupied + 1, len(steps) - 1))
    return [steps[number] for number in numbers if 0 <= number < len(steps)]


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
