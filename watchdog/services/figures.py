"""When to read which figure of the database for the metrics: a little at a time, by the daemon, never by a scrape.

    due        tasks that wait to be claimed: one look into an index
    manual     attempts of ``zego-watchdog stop``, which counts nothing itself
    active     walks through the active tasks by room
    rejoined   walks through the stops of the last day: to which rooms people came back
    ended      walks through the whole table by TaskId

One step is one short transaction. After some steps, nothing is read for at least 400 times as long as they took. So
figures cost at most a third of a percent of a core, and a tenth of a percent where the walks are short.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Reason, Status
from watchdog.errors import DatabaseError
from watchdog.observer import Observer
from watchdog.store.aio.calls import AsyncFigures
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.figures import FigureStore

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 15.0
"""How often each kind of figure is read. The job may run up to a fifth of its wait early."""

PAUSE: Final = 400
"""The pause after some steps is at least so many times as long as they took, unless the job runs early."""

LONG_PAUSE: Final = 1000
LONG_PAUSE_SECONDS: Final = 15.0
"""It is LONG_PAUSE times as long where that is at most LONG_PAUSE_SECONDS: a million tasks take about fifty steps."""

AT_ONCE_SECONDS: Final = 0.005
"""Steps are taken together up to this time: waking up for one costs more than a short step."""

LEISURE: Final = 4
"""While the active tasks are walked through, the walk through ended tasks waits so many pauses between its steps."""


@dataclass(slots=True)
class _Part:
    """One kind of figure; ``step`` returns whether it is complete. If not, others go first for ``pauses`` pauses."""

    step: Callable[[FigureStore], bool]
    pauses: int = 0
    again_at: float = 0.0


class DatabaseFigures:
    """Shows an observer what is in the database; ``run_once`` takes a few steps."""

    def __init__(self, figures: AsyncFigures, database_clock: DatabaseClock, observer: Observer, clock: Clock) -> None:
        self._figures = figures
        self._database_clock = database_clock
        self._observer = observer
        self._clock = clock
        self._by_status: dict[tuple[str, ...], float] = {}
        self._parts = [
            *(_Part(step) for step in (self._due, self._manual, self._active)),
            *(_Part(step, LEISURE) for step in (self._rejoined, self._ended)),
        ]

    async def run_once(self) -> float:
        """Take the steps that are due, as many as are short; return the seconds to wait before the next one."""
        try:
            pause = await self._figures.together(self._steps)
        except DatabaseError as error:
            # At debug level, because the sweep reports that the database is away.
            log.debug("figures_not_read", error=str(error))
            pause = EVERY_SECONDS
        return max(pause, self._next().again_at - self._clock.monotonic())

    def _next(self) -> _Part:
        return min(self._parts, key=lambda part: part.again_at)

    def _steps(self, store: FigureStore) -> float:
        """Blocking; returns for how long to read nothing. Timed in the thread: waiting for a thread costs nothing."""
        part, began = self._next(), self._clock.monotonic()
        # A job that runs a little early takes all steps of its time, not only the first.
        ahead = min(max(0.0, part.again_at - began), EVERY_SECONDS / 2)
        until = began + ahead + AT_ONCE_SECONDS
        now = began
        while part.again_at <= until and now - began < AT_ONCE_SECONDS:
            # Set before the step, which may fail.
            part.again_at = now + EVERY_SECONDS
            before, complete = now, part.step(store)
            now = self._clock.monotonic()
            steps_aside = part.pauses * _pause(now - before) if store.is_walking_active else 0.0
            part.again_at = now + (EVERY_SECONDS if complete else steps_aside)
            part = self._next()
        return _pause(now - began)

    def _due(self, store: FigureStore) -> bool:
        number, oldest, now = store.due()
        self._observer.show("due_tasks", number)
        self._observer.show("due_lag_seconds", _age(oldest, now))
        if (wal_bytes := store.wal_bytes()) is not None:
            self._observer.show("sqlite_wal_bytes", wal_bytes)
        return True

    def _manual(self, store: FigureStore) -> bool:
        for outcome in store.manual():
            self._observer.attempt(outcome, Reason.MANUAL)
        return True

    def _active(self, store: FigureStore) -> bool:
        if (found := store.walk_active()) is None:
            return False
        now = self._database_clock.now()
        self._by_status[(Status.ACTIVE.value,)] = found.number
        self._observer.show("tasks", dict(self._by_status))
        self._observer.show("unknown_rooms", found.unknown)
        self._observer.show("oldest_evidence_seconds", _age(found.oldest_evidence_at, now))
        self._observer.show("oldest_empty_room_seconds", _age(found.oldest_empty_since, now))
        self._observer.show("database_refreshed_timestamp_seconds", self._clock.time())
        return True

    def _rejoined(self, store: FigureStore) -> bool:
        if (found := store.walk_rejoined()) is None:
            return False
        self._observer.show("rejoined_stops", found)
        return True

    def _ended(self, store: FigureStore) -> bool:
        if (found := store.walk_ended()) is None:
            return False
        self._by_status |= {(status.value,): number for status, number in found.items()}
        self._observer.show("tasks", dict(self._by_status))
        return True


def _pause(took: float) -> float:
    return max(PAUSE * took, min(LONG_PAUSE * took, LONG_PAUSE_SECONDS))


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
