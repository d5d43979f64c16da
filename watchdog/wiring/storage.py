"""The store as one process uses it: which calls run in which threads is decided here."""

from dataclasses import dataclass

import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.store.aio.answer_journal import AnswerJournal
from watchdog.store.aio.answers import Answers
from watchdog.store.aio.calls import (
    AsyncCallbacks,
    AsyncFigures,
    AsyncHeartbeats,
    AsyncLedger,
    AsyncPace,
    AsyncPolling,
    AsyncRetention,
    AsyncTasks,
)
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.attempts import Ledger
from watchdog.store.callbacks import CallbackStore
from watchdog.store.figures import FigureStore
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.pace import PaceStore
from watchdog.store.polling import PollStore
from watchdog.store.retention import RetentionStore
from watchdog.store.tasks import Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """One database, and its calls by subject."""

    engine: sa.Engine
    threads: DatabaseThreads
    clock: DatabaseClock
    tasks: AsyncTasks
    ledger: AsyncLedger
    answers: Answers
    heartbeats: AsyncHeartbeats
    callbacks: AsyncCallbacks
    polling: AsyncPolling
    pace: AsyncPace
    retention: AsyncRetention
    figures: AsyncFigures

    def close(self) -> None:
        """Journal the answers that wait, then wait for the running calls; blocks."""
        self.answers.close()
        self.threads.close()


def storage(
    engine: sa.Engine,
    clock: Clock,
    *,
    instance: str,
    default_app: int | None,
    rejoin_watch_seconds: float,
    journal: AnswerJournal | None,
) -> Storage:
    """Build the calls of ``instance`` on one set of threads; see the store's classes for the parameters."""
    threads = DatabaseThreads(engine, clock)
    ledger = AsyncLedger(threads, Ledger(engine, instance, rejoin_watch_seconds=rejoin_watch_seconds))
    return Storage(
        engine=engine,
        threads=threads,
        clock=DatabaseClock(clock),
        tasks=AsyncTasks(threads, Tasks(engine, instance)),
        ledger=ledger,
        answers=Answers(ledger, clock, journal),
        heartbeats=AsyncHeartbeats(threads, Heartbeats(engine)),
        callbacks=AsyncCallbacks(threads, CallbackStore(engine, instance, default_app)),
        polling=AsyncPolling(threads, PollStore(engine)),
        pace=AsyncPace(threads, PaceStore(engine)),
        retention=AsyncRetention(threads, RetentionStore(engine)),
        figures=AsyncFigures(threads, FigureStore(engine, instance)),
    )
