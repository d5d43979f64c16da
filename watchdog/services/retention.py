"""Retention: removes old rows in short batches; the daemon that has run longest does it for all.

Each minute it removes what lives for a short time: callbacks, watches of stopped tasks' rooms, daemons that ended.
Every six hours it also goes through tasks, attempts, events and empty spells. A batch is too short to delay a sweep,
and the pause after it is nine times as long, so that retention takes at most a tenth of the database's time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.errors import DatabaseError
from watchdog.store.aio.calls import AsyncRetention
from watchdog.store.retention import AgedBatch, Kept, RetentionStore

log = structlog.get_logger(__name__)

FIRST_PASS_SECONDS: Final = 600.0
"""After a start there is more urgent work, and the clock of a machine that has just booted may be wrong."""

PASS_SECONDS: Final = 60.0
"""The wait between two passes."""

TABLES_SECONDS: Final = 6 * 3600.0
"""How often a pass goes through tasks, attempts, events and empty spells."""

ASK_AGAIN_SECONDS: Final = 600.0
"""How often a daemon checks whether it has become the one that does this."""

BATCH_SECONDS: Final = 0.05
PAUSE_SECONDS: Final = 0.1
MOST_ROWS: Final = 300
LEAST_ROWS: Final = 10

_PAUSES: Final = 12
"""The pause after a batch, as a multiple of its time: nine and more if the job runs a fifth early."""

_CLOCK_JUMP: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long rows are kept: tasks and spells from their end, attempts from a task's last one, events.

    None: for ever.
    """

    tasks: timedelta | None
    attempts: timedelta | None
    events: timedelta | None
    spells: timedelta | None

    @classmethod
    def of_days(cls, tasks: int, attempts: int, events: int, spells: int) -> "Keep":
        """0 days: for ever."""
        return cls(*(timedelta(days=days) or None for days in (tasks, attempts, events, spells)))


@dataclass(slots=True)
class Pruned:
    """Rows removed since the last log line; ``callbacks`` are what room callbacks left behind."""

    tasks: int = 0
    attempts: int = 0
    rejoins: int = 0
    events: int = 0
    spells: int = 0
    callbacks: int = 0

    @property
    def total(self) -> int:
        return self.tasks + self.attempts + self.rejoins + self.events + self.spells + self.callbacks


class Retention:
    """``run_once`` removes one batch."""

    def __init__(
        self,
        *,
        retention: AsyncRetention,
        keep: Keep,
        instance: str,
        clock: Clock,
    ) -> None:
        self._retention = retention
        self._keep = keep
        self._instance = instance
        self._clock = clock
        self._rows = MOST_ROWS
        self._pass: Iterator[None] | None = None
        self._pruned = Pruned()
        self._kept = Kept(), Kept()
        self._tables_at = clock.monotonic() + FIRST_PASS_SECONDS
        """When to go through these tables next (monotonic)."""
        self._is_through_tables = False
        self._began = clock.monotonic()
        self._first_time: tuple[datetime, float] | None = None

    async def run_once(self) -> float:
        """Remove one batch, if this daemon is the one that does so; returns the seconds to wait."""
        if (early := self._began + FIRST_PASS_SECONDS - self._clock.monotonic()) > 0:
            return early
        try:
            if self._pass is None and not await self._begin():
                return ASK_AGAIN_SECONDS
            is_over, took = await self._retention.together(self._batch)
        except DatabaseError as error:
            # Nothing is lost by waiting. This is the only log line if a privilege is missing.
            log.warning("not_pruned", error=str(error), next_step="zego-watchdog check")
            self._pass = None
            return ASK_AGAIN_SECONDS
        if is_over:
            self._end()
            return PASS_SECONDS
        return max(PAUSE_SECONDS, _PAUSES * took)

    async def _begin(self) -> bool:
        now, is_ours = await self._retention.turn(self._instance)
        if not is_ours or self._clock_jumped(now):
            return False
        self._is_through_tables = self._clock.monotonic() >= self._tables_at
        self._pass = self._batches(self._retention.store, now)
        return True

    def _clock_jumped(self, now: datetime) -> bool:
        """Whether the database's clock has jumped since it was first read: then no age is certain."""
        monotonic = self._clock.monotonic()
        if self._first_time is None:
            self._first_time = (now, monotonic)
        then, began = self._first_time
        expected = then + timedelta(seconds=monotonic - began)
        if abs(now - expected) <= _CLOCK_JUMP:
            return False
        log.warning(
            "not_pruned",
            error=f"the database's clock says {now.isoformat()}, and should say {expected.isoformat()}",
            next_step="set the clock; where it is right now, restart the daemon",
        )
        return True

    def _batch(self, _: RetentionStore) -> tuple[bool, float]:
        if self._pass is None:
            raise RuntimeError("there is no pass: call run_once")
        began = self._clock.monotonic()
        is_over = next(self._pass, True) is True
        took = self._clock.monotonic() - began
        self._rows = max(LEAST_ROWS, self._rows // 2) if took > BATCH_SECONDS else min(MOST_ROWS, self._rows + 10)
        return is_over, took

    def _batches(self, store: RetentionStore, now: datetime) -> Iterator[None]:
        """Yield after each batch. Ages are counted from ``now``, even if the clock jumps."""
        pruned = self._pruned
        while gone := store.prune_callbacks():
            pruned.callbacks += gone
            yield
        store.prune_gone()
        if not self._is_through_tables:
            return
        self._kept = tasks_kept, attempts_kept = Kept(), Kept()
        if self._keep.tasks is not None:
            task_id: str | None = ""
            while task_id is not None:
                tasks = store.prune_tasks(task_id, self._rows, now - self._keep.tasks, tasks_kept)
                task_id = tasks.after
                pruned.tasks += tasks.tasks
                yield
        if self._keep.attempts is not None:
            attempt_id: int | None = 0
            while attempt_id is not None:
                attempts = store.prune_attempts(attempt_id, self._rows, now - self._keep.attempts, attempts_kept)
                attempt_id = attempts.after
                pruned.attempts += attempts.attempts
                pruned.rejoins += attempts.rejoins
                yield
        for rows in self._aged_batches(store.prune_events, self._keep.events, now):
            pruned.events += rows
            yield
        for rows in self._aged_batches(store.prune_spells, self._keep.spells, now):
            pruned.spells += rows
            yield

    def _aged_batches(
        self, prune: Callable[[int, int, datetime], AgedBatch], keep: timedelta | None, now: datetime
    ) -> Iterator[int]:
        """Yield how many rows each batch has removed."""
        after: int | None = 0
        while keep is not None and after is not None:
            batch = prune(after, self._rows, now - keep)
            after = batch.after
            yield batch.rows

    def _end(self) -> None:
        self._pass = None
        if not self._is_through_tables:
            return
        self._tables_at = self._clock.monotonic() + TABLES_SECONDS
        pruned, self._pruned = self._pruned, Pruned()
        if kept := self._kept[0] | self._kept[1]:
            log.warning(
                "rows_kept",
                tasks=len(kept),
                example=next(iter(kept)),
                foreign_keys=sorted(set(kept.values())),
                next_step="delete the referring rows first, or give the foreign key ON DELETE CASCADE or SET NULL",
            )
        if pruned.total:
            log.info(
                "pruned",
                tasks=pruned.tasks,
                attempts=pruned.attempts,
                rejoins=pruned.rejoins,
                events=pruned.events,
                spells=pruned.spells,
                callbacks=pruned.callbacks,
            )
