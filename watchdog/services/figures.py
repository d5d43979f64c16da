"""When to read which figure of the database for the metrics: a little at a time, by the daemon, never by a scrape.

    due        tasks that wait to be claimed: one look into an index
    events     events that the webhook has not delivered: two looks into an index
    manual     attempts of ``zego-watchdog stop``, which counts nothing itself
    spells     empty spells that ended since the last look: triggers write them, which count nothing
    active     walks through the active tasks by room
    rejoined   walks through the stops of the last day: to which rooms people came back
    ended      walks through the whole table by TaskId

One step is one short transaction. The job waits at least 400 times as long as its steps took. So figures cost at most a
third of a percent of a core, and a tenth of a percent where the walks are short. The first round does not count: its
statements are compiled in it, and who has just started the daemon looks at its page.
"""

from collections import deque
from collections.abc import Mapping
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
from watchdog.store.figures import ActiveTasks, FigureStore

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 15.0
"""How long the job rests when all figures have been read. It may run up to a fifth of its wait early."""

PAUSE: Final = 400
"""The pause after some steps is at least so many times as long as they took, unless the job runs early."""

LONG_PAUSE: Final = 1000
LONG_PAUSE_SECONDS: Final = 15.0
"""It is LONG_PAUSE times as long where that is at most LONG_PAUSE_SECONDS: a million tasks take about fifty steps."""

AT_ONCE_SECONDS: Final = 0.005
"""Steps are taken together up to this time: waking up for one costs more than a short step."""

LEISURE: Final = 4
"""While a walk through the active tasks is under way, every fourth step at most is one of another walk."""


@dataclass(frozen=True, slots=True)
class Known:
    """The last complete walk through the active tasks and when it ended, and the numbers of ended tasks."""

    active: ActiveTasks
    counted_at: datetime
    ended: Mapping[Status, int]


class DatabaseFigures:
    """Shows an observer what is in the database; ``run_once`` reads a little."""

    def __init__(self, figures: AsyncFigures, database_clock: DatabaseClock, observer: Observer, clock: Clock) -> None:
        self._figures = figures
        self._database_clock = database_clock
        self._observer = observer
        self._clock = clock
        self._by_status: dict[tuple[str, ...], float] = {}
        self._counted: tuple[ActiveTasks, datetime] | None = None
        self._ended_tasks: Mapping[Status, int] = {}
        self._steps = deque(
            (self._due, self._events, self._manual, self._spells, self._active, self._rejoined, self._ended)
        )
        self._incomplete = set(self._steps)
        """What has not been read to the end since the last rest."""
        self._skipped = dict.fromkeys((self._rejoined, self._ended), 0)
        self._untried = set(self._steps)

    @property
    def known(self) -> Known | None:
        """What is in the database, without asking it; None until the first walk is complete."""
        return None if self._counted is None else Known(*self._counted, self._ended_tasks)

    async def run_once(self) -> float:
        """Take each step once, or as many as are short; returns the seconds to wait."""
        try:
            return await self._figures.together(self._read)
        except DatabaseError as error:
            # At debug level, because the sweep reports that the database is away.
            log.debug("figures_not_read", error=str(error))
            return EVERY_SECONDS

    def _read(self, store: FigureStore) -> float:
        """Blocking. Timed in the thread: waiting for a thread costs nothing."""
        began = now = self._clock.monotonic()
        taken = set()
        while now - began < AT_ONCE_SECONDS and (step := self._steps[0]) not in taken:
            # Before the step, which may fail: then the next run goes on with the others.
            self._steps.rotate(-1)
            self._untried.discard(step)
            if store.is_walking_active and self._skipped.get(step, LEISURE) < LEISURE - 2:
                self._skipped[step] += 1
                continue
            if step in self._skipped:
                self._skipped[step] = 0
            taken.add(step)
            if step(store):
                self._incomplete.discard(step)
            now = self._clock.monotonic()
        if self._untried:
            return now - began
        pause = max(PAUSE * (now - began), min(LONG_PAUSE * (now - began), LONG_PAUSE_SECONDS))
        if self._incomplete:
            return pause
        self._incomplete = set(self._steps)
        return max(pause, EVERY_SECONDS)

    def _due(self, store: FigureStore) -> bool:
        number, oldest, now = store.due()
        self._observer.show("due_tasks", number)
        self._observer.show("due_lag_seconds", _age(oldest, now))
        if (wal_bytes := store.wal_bytes()) is not None:
            self._observer.show("sqlite_wal_bytes", wal_bytes)
        return True

    def _events(self, store: FigureStore) -> bool:
        found = store.events()
        self._observer.show("events_pending", found.pending)
        self._observer.show("events_undelivered", found.undelivered)
        self._observer.show("oldest_pending_event_seconds", _age(found.oldest_pending_at, found.now))
        return True

    def _manual(self, store: FigureStore) -> bool:
        for outcome in store.manual():
            self._observer.attempt(outcome, Reason.MANUAL)
        return True

    def _spells(self, store: FigureStore) -> bool:
        for ending, number in store.spells().items():
            self._observer.spells_ended(ending, number)
        return True

    def _active(self, store: FigureStore) -> bool:
        if (found := store.walk_active()) is None:
            return False
        now = self._database_clock.now()
        self._counted = found, now
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
        self._ended_tasks = found
        self._by_status |= {(status.value,): number for status, number in found.items()}
        self._observer.show("tasks", dict(self._by_status))
        return True


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
