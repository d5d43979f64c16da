"""Forgetting in time: rows whose age is over are removed in short batches, by one daemon, beside the real work.

A pass goes through the tables once, a batch at a time. A batch is small enough not to hold a sweep up, and is followed
by a pause nine times as long, so that retention takes a tenth of the database's time at most.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.errors import DatabaseError
from watchdog.store.aio.calls import AsyncRetention
from watchdog.store.retention import RetentionStore

log = structlog.get_logger(__name__)

FIRST_PASS_SECONDS: Final = 600.0
"""After a start there is more urgent work, and the clock of a machine that has just booted may still be wrong."""

PASS_SECONDS: Final = 6 * 3600.0
ASK_AGAIN_SECONDS: Final = 600.0
"""How often a daemon looks whether the one whose turn it is still lives."""

BATCH_SECONDS: Final = 0.05
PAUSE_SECONDS: Final = 0.1
MOST_ROWS: Final = 300
LEAST_ROWS: Final = 10

_PAUSES: Final = 9
_CLOCK_JUMP: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long rows are kept: tasks from their end, attempts from a task's last one. None is for ever."""

    tasks: timedelta | None
    attempts: timedelta | None

    @classmethod
    def of_days(cls, tasks: int, attempts: int) -> "Keep":
        """0 is for ever."""
        return cls(timedelta(days=tasks) or None, timedelta(days=attempts) or None)


@dataclass(slots=True)
class Pruned:
    """What a pass has removed so far, in rows; ``callbacks`` is what room callbacks had told."""

    tasks: int = 0
    attempts: int = 0
    rejoins: int = 0
    callbacks: int = 0

    @property
    def total(self) -> int:
        return self.tasks + self.attempts + self.rejoins + self.callbacks


class Retention:
    """``run_once`` does one batch."""

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
        self._began = clock.monotonic()
        self._reckoned: tuple[datetime, float] | None = None

    async def run_once(self) -> float:
        """Remove one batch, where it is this daemon's turn; returns after how many seconds to come back."""
        if (early := self._began + FIRST_PASS_SECONDS - self._clock.monotonic()) > 0:
            return early
        try:
            if self._pass is None and not await self._begin():
                return ASK_AGAIN_SECONDS
            is_over, took = await self._retention.together(self._batch)
        except DatabaseError as error:
            # Nothing is lost by waiting. That the database is away is said elsewhere; that a right is missing, here.
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
        self._pruned = Pruned()
        self._pass = self._through_the_tables(self._retention.store, now)
        return True

    def _clock_jumped(self, now: datetime) -> bool:
        """Whether the database's clock has gone otherwise than time since we first looked: then no age is certain."""
        monotonic = self._clock.monotonic()
        if self._reckoned is None:
            self._reckoned = (now, monotonic)
        then, began = self._reckoned
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
            raise RuntimeError("a batch belongs to a pass")
        began = self._clock.monotonic()
        is_over = next(self._pass, True) is True
        took = self._clock.monotonic() - began
        self._rows = max(LEAST_ROWS, self._rows // 2) if took > BATCH_SECONDS else min(MOST_ROWS, self._rows + 10)
        return is_over, took

    def _through_the_tables(self, store: RetentionStore, now: datetime) -> Iterator[None]:
        """Stop after each transaction that writes. Ages are reckoned from ``now``, wherever the clock goes."""
        pruned = self._pruned
        if self._keep.tasks is not None:
            task_id: str | None = ""
            while task_id is not None:
                tasks = store.prune_tasks(task_id, self._rows, now - self._keep.tasks)
                task_id = tasks.after
                pruned.tasks += tasks.tasks
                yield
        if self._keep.attempts is not None:
            attempt_id: int | None = 0
            while attempt_id is not None:
                attempts = store.prune_attempts(attempt_id, self._rows, now - self._keep.attempts)
                attempt_id = attempts.after
                pruned.attempts += attempts.attempts
                pruned.rejoins += attempts.rejoins
                yield
        while gone := store.prune_callbacks():
            pruned.callbacks += gone
            yield

    def _end(self) -> None:
        self._pass = None
        pruned = self._pruned
        if pruned.total:
            log.info(
                "pruned",
                tasks=pruned.tasks,
                attempts=pruned.attempts,
                rejoins=pruned.rejoins,
                callbacks=pruned.callbacks,
            )
