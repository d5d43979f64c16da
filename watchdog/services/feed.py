"""The feed of hints: whether hints still arrive, and since when they are trusted."""

import math
from datetime import datetime
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.store.aio.calls import AsyncPolling

log = structlog.get_logger(__name__)

COUNT_SECONDS: Final = 15.0
"""How often the active tasks are counted while there are any."""

LOOKS: Final = 12
"""How many times to look for newer hints within the silence that means that the feed is dead."""


class HintFeed:
    """Watches for newer hints from any source."""

    def __init__(self, polling: AsyncPolling, clock: Clock, *, silence_seconds: float, trusted_since: datetime) -> None:
        """After ``silence_seconds`` without a hint about any active task the feed is dead."""
        self._polling = polling
        self._clock = clock
        self.silence_seconds = silence_seconds
        self._alive_at = clock.monotonic()
        self._looked_at = self._counted_at = -math.inf
        self._newest: datetime | None = None
        self.is_dead = False
        self.trusted_since = trusted_since
        """Hints from before this moment are not trusted, by the database's clock."""
        self.active: int | None = None
        """How many tasks were active at the last count."""

    async def check(self, answered_at: float = -math.inf) -> bool:
        """Look for a newer hint than last time. ``answered_at`` is when ZEGO last answered (monotonic).

        Returns whether the feed is dead: tasks are active, but for ``silence_seconds`` neither a hint nor an answer of
        ZEGO came. Raises DatabaseError.
        """
        now = self._clock.monotonic()

        def silence() -> float:
            return now - max(self._alive_at, answered_at)

        # Each of the two queries may read ten thousand rows. Before the feed is declared dead, both are made.
        is_silent = silence() > self.silence_seconds
        if is_silent or not self.active or now - self._counted_at >= COUNT_SECONDS:
            self.active, self._counted_at = await self._polling.active(), now
        if not self.active:
            self._alive_at = now
        elif is_silent or now - max(self._looked_at, answered_at) >= self.silence_seconds / LOOKS:
            newest = await self._polling.newest_hint()
            if newest != self._newest:
                self._alive_at = now
            self._newest, self._looked_at = newest, now
        dead = silence() > self.silence_seconds
        if dead and not self.is_dead:
            log.error(
                "hints_have_died",
                active_tasks=self.active,
                silent_seconds=round(silence()),
                newest_hint=None if self._newest is None else self._newest.isoformat(),
                next_step="nothing is stopped that ZEGO has not confirmed: zego-watchdog check",
            )
        elif self.is_dead and not dead:
            log.info("hints_are_back")
        self.is_dead = dead
        return dead
