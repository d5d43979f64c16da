"""The store as one process uses it: which calls run in which threads is decided here."""

from typing import Final

import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.store.aging import AgeStore
from watchdog.store.aio import calls
from watchdog.store.aio.answer_spool import AnswerSpool
from watchdog.store.aio.answers import Answers
from watchdog.store.aio.callbacks import CallbackGroups
from watchdog.store.aio.database_clock import DatabaseClock
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.attempts import Ledger
from watchdog.store.bots import BotStore
from watchdog.store.callbacks import CallbackStore
from watchdog.store.discovery import AdoptionStore
from watchdog.store.events import EventStore
from watchdog.store.figures import FigureStore
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.pace import PaceStore
from watchdog.store.polling import PollStore
from watchdog.store.retention import RetentionStore
from watchdog.store.tasks import Tasks

CALLBACK_GROUPS: Final = 2
"""Groups of callbacks under way on PostgreSQL at most: the second goes on while the first waits for a row."""


class Storage:
    """One database, and its calls by subject."""

    def __init__(
        self,
        engine: sa.Engine,
        clock: Clock,
        *,
        instance: str,
        default_app: int | None,
        rejoin_watch_seconds: float,
        spool: AnswerSpool | None,
    ) -> None:
        self.engine = engine
        self.threads = threads = DatabaseThreads(engine, clock)
        self.clock = DatabaseClock(clock)
        self.ledger = calls.AsyncLedger(threads, Ledger(engine, instance, rejoin_watch_seconds=rejoin_watch_seconds))
        self.answers = Answers(self.ledger, clock, spool)
        self.tasks = calls.AsyncTasks(threads, Tasks(engine, instance))
        self.heartbeats = calls.AsyncHeartbeats(threads, Heartbeats(engine))
        self.pace = calls.AsyncPace(threads, PaceStore(engine))
        self.feed = calls.AsyncPolling(threads, PollStore(engine))
        self.bots = calls.AsyncBots(threads, BotStore(engine, default_app))
        # What follows gets what the stops leave.
        background = threads.background
        self.callbacks = CallbackGroups(
            calls.AsyncCallbacks(background, CallbackStore(engine, instance, default_app)),
            clock,
            at_once=1 if engine.dialect.name == "sqlite" else CALLBACK_GROUPS,
        )
        self.polling = calls.AsyncPolling(background, PollStore(engine))
        self.adoption = calls.AsyncAdoption(background, AdoptionStore(engine))
        self.aging = calls.AsyncAging(background, AgeStore(engine))
        self.retention = calls.AsyncRetention(background, RetentionStore(engine))
        self.events = calls.AsyncEvents(background, EventStore(engine, instance))
        self.figures = calls.AsyncFigures(background, FigureStore(engine, instance))

    def close(self) -> None:
        """Spool the answers that wait, then wait for the running calls; blocks."""
        self.answers.close()
        self.threads.close()
