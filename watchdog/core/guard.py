"""The guard against many unverified stops at once. No I/O, no clock.

If a thousand rooms are reported empty at once, the feed is more likely broken than the rooms empty. So only a limited
number of stops a minute may rest on hints alone. One more trips the guard, and then no such stop is allowed.

    asks: the distinct tasks that asked for an unverified stop within the last minute, allowed or not

    open ──► asks exceed the limit ──► tripped ──► asks are within the limit again ──► open

A task that is held back asks again, so the guard stays tripped while too many rooms are reported empty. It opens a
minute after these tasks stop asking: their rooms have people again, ZEGO can be asked again (verified stops do not ask
the guard), or ZEGO's auto-stop ended them. Times are seconds of the caller's monotonic clock.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MINUTE_SECONDS: Final = 60.0

ALWAYS_ALLOWED: Final = 5
"""The least that ``unverified_share`` allows: of a handful of tasks each one is a large share."""

HELD_RECHECK_SECONDS: Final = 20.0
"""How long a held-back task waits before it asks again; several times within the minute that counts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many unverified stops are allowed in a minute, and which share of the active tasks; 0 is no limit."""

    unverified_per_minute: float = 60
    unverified_share: float = 0.25

    def allowed(self, active: int | None, fraction: float) -> float:
        """Stops a minute for one daemon that does ``fraction`` of the work; infinite without a limit.

        ``active`` is None until the active tasks are counted; then the share is ignored. Each daemon may always stop
        one, or many daemons with few tasks could never stop any.
        """
        limits = [self.unverified_per_minute] if self.unverified_per_minute > 0 else []
        if self.unverified_share > 0 and active is not None:
            limits.append(max(ALWAYS_ALLOWED, self.unverified_share * active))
        return max(1, math.floor(min(limits) * fraction)) if limits else math.inf


class News(StrEnum):
    TRIPPED = "tripped"
    OPENED = "opened"


@dataclass(eq=False)
class Guard:
    """One daemon's guard.

    ``active`` is the number of active tasks, None until they are counted; ``fraction`` is this daemon's share of the
    work of all daemons.
    """

    limits: Limits
    active: int | None = None
    fraction: float = 1.0
    tripped_at: float | None = None
    _asked: OrderedDict[str, float] = field(init=False, default_factory=OrderedDict)
    _held: OrderedDict[str, float] = field(init=False, default_factory=OrderedDict)
    _released_until: float = field(init=False, default=-math.inf)

    @property
    def allowed(self) -> float:
        """How many distinct tasks may ask in a minute."""
        return self.limits.allowed(self.active, self.fraction)

    @property
    def asks(self) -> int:
        """How many distinct tasks asked in the last minute, as of the last call."""
        return len(self._asked)

    @property
    def held(self) -> int:
        """How many tasks were held back in the last minute, as of the last call."""
        return len(self._held)

    def ask(self, task_id: str, now: float) -> tuple[bool, News | None]:
        """Return whether this task may be stopped unverified, and the change of the guard, if any."""
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
        """Forget what is older than a minute, and open the guard if the asks are within the limit again."""
        for tasks in (self._asked, self._held):
            while tasks and next(iter(tasks.values())) <= now - MINUTE_SECONDS:
                tasks.popitem(last=False)
        if self.tripped_at is None or (self.asks > self.allowed and now >= self._released_until):
            return None
        self.tripped_at = None
        self._held.clear()
        return News.OPENED

    def release(self, until: float) -> None:
        """Allow every stop until then, by an operator's order; a past time ends the release."""
        self._released_until = until


def _put(tasks: OrderedDict[str, float], task_id: str, now: float) -> None:
    tasks[task_id] = now
    tasks.move_to_end(task_id)
