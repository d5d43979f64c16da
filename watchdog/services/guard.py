"""The guard in a daemon: gives it the time, and logs when it trips and opens."""

from datetime import datetime
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.guard import MINUTE_SECONDS, Guard, Limits, News
from watchdog.store.aio.database_clock import DatabaseClock

log = structlog.get_logger(__name__)

_NEXT_STEP: Final = (
    "is the feed of hints broken? The guard opens when the rooms fill or ZEGO confirms them; if they are empty: "
    "zego-watchdog guard release"
)


class StopGuard:
    """One daemon's guard against too many unverified stops."""

    def __init__(self, limits: Limits, database_clock: DatabaseClock, clock: Clock) -> None:
        self._guard = Guard(limits)
        self._database_clock = database_clock
        self._clock = clock
        self._said_at = 0.0
        self._released_until: datetime | None = None
        self.tripped_at: datetime | None = None
        """Since when unverified stops are held back, by the database's clock; None: they are not."""

    @property
    def held(self) -> int:
        """How many tasks have been held back within the last minute."""
        return self._guard.held

    def set_limits(self, limits: Limits) -> None:
        self._guard.limits = limits
        self._take_news(self._guard.look(self._clock.monotonic()))

    def allows(self, task_id: str) -> bool:
        """Whether this task may be stopped although its empty room is not verified."""
        allowed, news = self._guard.ask(task_id, self._clock.monotonic())
        self._take_news(news)
        return allowed

    def look(self, *, active: int | None, daemons: int, released_until: datetime | None) -> None:
        """Take the heartbeat's news: how many tasks and daemons there are, and an operator's release."""
        guard, now = self._guard, self._clock.monotonic()
        guard.active, guard.fraction = active, 1 / max(1, daemons)
        left = 0.0 if released_until is None else (released_until - self._database_clock.now()).total_seconds()
        guard.release(now + left)
        if released_until != self._released_until:
            self._released_until = released_until
            if left > 0:
                log.warning("guard_released", until=released_until, seconds=round(left), held_tasks=guard.held)
        self._take_news(guard.look(now))
        if guard.tripped_at is not None and now - self._said_at >= MINUTE_SECONDS:
            self._said_at = now
            log.error("guard_holds", **self._numbers(), tripped_seconds=round(now - guard.tripped_at))

    def _take_news(self, news: News | None) -> None:
        match news:
            case News.TRIPPED:
                self._said_at = self._clock.monotonic()
                self.tripped_at = self._database_clock.now()
                log.error("guard_tripped", **self._numbers(), next_step=_NEXT_STEP)
            case News.OPENED:
                self.tripped_at = None
                log.warning("guard_opened", **self._numbers())
            case None:
                pass

    def _numbers(self) -> dict[str, float | None]:
        """The log fields: what happened in the last minute, and the limits."""
        guard = self._guard
        share = None if not guard.active else round(guard.asks / guard.active, 3)
        return {
            "asked": guard.asks,
            "held_tasks": guard.held,
            "allowed": guard.allowed,
            "active_tasks": guard.active,
            "share_asked": share,
            "daemons_share": round(guard.fraction, 3),
        }
