"""The guard against stopping many tasks at once that nobody has verified. No I/O, no clock.

A thousand rooms that read empty at once are more often a broken feed than an exodus. So of the stops that rest on hints
alone only so many a minute are let through; whoever asks for more trips the guard, and then none is.

    asks: the distinct tasks that asked for an unverified stop within the last minute, allowed or not

    closed ──► asks would exceed the limit ──► tripped ──► asks do not exceed it any more ──► closed

A task that is held back asks again by and by, so as long as the rooms of too many tasks read empty the guard stays
tripped; when they fill again, when ZEGO can be asked again (a verified stop does not come here), or when ZEGO's own
auto-stop has ended the tasks, it opens by itself a minute later.

Times are seconds of the caller's monotonic clock.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MINUTE_SECONDS: Final = 60.0

ALWAYS_ALLOWED: Final = 5
"""What ``unverified_share`` allows of a handful of tasks, of which every one is a large share."""

HELD_RECHECK_SECONDS: Final = 20.0
"""How long a task that is held back may wait before it asks again: well within the minute that is looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many unverified stops a minute there may be, and which share of the active tasks; 0 is no limit."""

    unverified_per_minute: float = 60
    unverified_share: float = 0.25

    def allowed(self, active: int | None, fraction: float) -> float:
        """For one daemon that does ``fraction`` of the work, so many a minute; infinite without a limit.

        ``active`` None, because nobody has counted yet, leaves the share out. One is allowed to each daemon, lest many
        daemons with few tasks could never stop any.
        """
        limits = [self.unverified_per_minute] if self.unverified_per_minute > 0 else []
        if self.unverified_share > 0 and active is not None:
            limits.append(max(ALWAYS_ALLOWED, self.unverified_share * active))
        return max(1, math.floor(min(limits) * fraction)) if limits else math.inf


class News(StrEnum):
    """What has just become of the guard."""

    TRIPPED = "tripped"
    OPENED = "opened"


class Guard:
    """One daemon's guard. ``news`` says what the last call has changed, if anything."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.active: int | None = None
        """How many tasks are active."""
        self.fraction = 1.0
        """Which part of all work is this daemon's."""
        self.tripped_at: float | None = None
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._held: OrderedDict[str, float] = OrderedDict()
        self._released_until = -math.inf

    @property
    def allowed(self) -> float:
        """How many distinct tasks may ask within a minute."""
        return self.limits.allowed(self.active, self.fraction)

    @property
    def asks(self) -> int:
        """How many have, as of the last call."""
        return len(self._asked)

    @property
    def held(self) -> int:
        """How many tasks were held back within the last minute, as of the last call."""
        return len(self._held)

    def ask(self, task_id: str, now: float) -> tuple[bool, News | None]:
        """Whether this task may be stopped unverified, and what that has changed."""
        news = self.look(now)
        _put(self._asked, task_id, now)
        if now < self._released_until:
            return True, news
        if self.tripped_at is None and self.asks > self.allowed:
            self.tripped_at, news = now, News.TRIPPED
        if self.tripped_at is None:
            self._held.pop(task_id, None)
            return True, news
        _put(self._held, task_id, now)
        return False, news

    def look(self, now: float) -> News | None:
        """Time has passed, or the surroundings have changed: open the guard if it need not be tripped any more."""
        for tasks in (self._asked, self._held):
            while tasks and next(iter(tasks.values())) <= now - MINUTE_SECONDS:
                tasks.popitem(last=False)
        if self.tripped_at is None or (self.asks > self.allowed and now >= self._released_until):
            return None
        self.tripped_at = None
        self._held.clear()
        return News.OPENED

    def release(self, until: float) -> None:
        """An operator knows better: everything may pass until then; a moment that is over ends the release."""
        self._released_until = until

    def is_released(self, now: float) -> bool:
        return now < self._released_until


def _put(tasks: OrderedDict[str, float], task_id: str, now: float) -> None:
    tasks[task_id] = now
    tasks.move_to_end(task_id)
