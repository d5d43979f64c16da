"""The heartbeat: tells the database that this daemon lives, and learns how many others do and what may be trusted."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import structlog

from watchdog.core.policy import CurrentPolicy
from watchdog.observer import Observer
from watchdog.services.dry_run import DryRun
from watchdog.services.feed import HintFeed
from watchdog.services.guard import StopGuard
from watchdog.services.poller import Poller
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncHeartbeats
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.records import Activity, Instance
from watchdog.zego.pacing import Pace

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS: Final = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class HeartbeatSender:
    """Sends this daemon's heartbeats; each spreads its news to the hint feed, the guard and the paces."""

    heartbeats: AsyncHeartbeats
    database_clock: DatabaseClock
    instance: Instance
    feed: HintFeed
    guard: StopGuard
    paces: Collection[Pace[int]]
    current_policy: CurrentPolicy
    workload: Workload
    poller: Poller | None
    dry_run: DryRun
    observer: Observer = field(default_factory=Observer)
    _was_silent_at: datetime | None = field(default=None, init=False)
    _is_first: bool = field(default=True, init=False)

    async def run_once(self) -> None:
        """Send one heartbeat. The first one registers the daemon. Raises DatabaseError."""
        rules, feed = self.current_policy.rules, self.feed
        beat = await self.heartbeats.beat(
            replace(self.instance, mode=rules.mode.value),
            rules.gap_seconds,
            fresh=self._is_first,
            activity=Activity(
                in_flight=self.workload.in_hand,
                requests=self.workload.requests,
                guard_tripped_at=self.guard.tripped_at,
                guard_held=self.guard.held,
            ),
        )
        self.database_clock.synchronise(beat.now)
        if beat.watching_since > feed.trusted_since and not self._is_first:
            log.warning("watch_interrupted", watching_since=beat.watching_since.isoformat())
        self._is_first = False
        if await feed.check(-math.inf if self.poller is None else self.poller.answered_at):
            # As after a gap: what a hint said before the silence may have changed.
            self._was_silent_at = beat.now
        feed.trusted_since = max(beat.watching_since, self._was_silent_at or beat.watching_since)
        self.observer.show("daemons_alive", beat.alive)
        self.observer.show("feed_dead", feed.is_dead)
        for pace in self.paces:
            pace.set_share(1 / max(1, beat.alive))
        self.dry_run.is_alone = not beat.enforcing
        self.guard.look(active=feed.active, daemons=beat.alive, released_until=beat.guard_released_until)
