"""When something is done, relative to a task's due time. Pure; ``now`` is the database's."""

from datetime import datetime, timedelta
from typing import Final

from watchdog.core.model import Reason, Task

LEAD_SECONDS: Final = 0.5
"""How long before its due time a task may be claimed and ZEGO asked, so that the request can leave on time.

Enough for a claim, a question to a vendor 20 ms away and a commit, even if each waits for a busy database: under a
thousand callbacks a second claims are up to 0.3 s late, and verifications up to 0.1 s.
"""

COMMIT_LEAD_SECONDS: Final = 0.1
"""How long before its due time an attempt is committed at most.

A hint that arrives after the commit no longer prevents the request, so the lead is as short as commits are quick.
"""

SHORTEST_COMMIT_LEAD_SECONDS: Final = 0.03
_SLOWER_THAN_BEFORE: Final = 2.0
"""A commit may take so many times as long as the slowest of late."""

_FORGOTTEN_PER_COMMIT: Final = 0.02

OBSERVE_AGAIN_SECONDS: Final = 300.0
"""In observe mode an active task that would have been stopped is examined again after this time."""

OLD_AGAIN_SECONDS: Final = 300.0
"""A task that is older than the limit and was not stopped is looked at again after this time: others are urgent."""


class CommitLead:
    """How long before its due time an attempt is to be committed, by how long commits have taken of late."""

    def __init__(self) -> None:
        self._slowest_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Note how long a commit took."""
        self._slowest_seconds = max(seconds, self._slowest_seconds * (1 - _FORGOTTEN_PER_COMMIT))

    @property
    def seconds(self) -> float:
        return min(COMMIT_LEAD_SECONDS, max(SHORTEST_COMMIT_LEAD_SECONDS, _SLOWER_THAN_BEFORE * self._slowest_seconds))


def acts_at(task: Task, now: datetime, lead_seconds: float, *, manual: bool = False) -> datetime:
    """The time to act at: the due time if it is at most ``lead_seconds`` ahead, else ``now``."""
    if manual or task.due_at is None:
        return now
    return task.due_at if now < task.due_at <= now + timedelta(seconds=lead_seconds) else now


def leaves_at(task: Task, reason: Reason, now: datetime) -> datetime:
    """When the request leaves, if its attempt is committed ``now``."""
    return acts_at(task, now, COMMIT_LEAD_SECONDS, manual=reason is Reason.MANUAL)


def recheck_seconds(task: Task, now: datetime) -> float:
    """How long until a task with insufficient evidence is examined again: half its lateness, within 2 to 10 s.

    So a vendor that answers again is asked in the last 30 s of the window (invariant I3). After it the limit is 60 s.
    """
    if task.due_at is None:
        return 2.0
    over = task.auto_stop_at is not None and now >= task.auto_stop_at
    return min(60.0 if over else 10.0, max(2.0, (now - task.due_at).total_seconds() / 2))
