"""The store for the event loop: its calls run in worker threads, intents and answers are committed in groups.

A call that has begun is finished even if its caller is cancelled: a transaction cannot be torn apart half-way.
An answer that the database does not take at once goes into the journal as well, for we may end before it does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final, Generic, ParamSpec, TypeVar

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Outcome, Reason
from watchdog.errors import DatabaseError, DatabaseUnavailable, RowLocked
from watchdog.store.aio.answer_journal import AnswerJournal, Closing
from watchdog.store.attempts import Written
from watchdog.store.tasks import Answer, Intent, Sent, Store

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger(__name__)

_GROUP_LIMIT = 200
_RECORD_AGAIN_SECONDS = 0.5
_DRIFT: Final = 0.001
"""Twice what a clock is slewed by at most."""

_LONGEST_DELAY: Final = timedelta(seconds=0.1)
"""Of a reading. A database's clock that is set back by less is followed over so many seconds as it is thousandths."""

JOURNAL_AFTER_SECONDS: Final = 0.2
"""An answer that is not committed by then is written to the journal; a commit takes a few milliseconds."""


class GroupCommit(Generic[T, R]):
    """Many callers, one transaction: whatever is submitted while a commit runs goes into the next one together."""

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int = _GROUP_LIMIT) -> None:
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Return the item's result once it is committed, or raise what its commit raised."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await asyncio.shield(future)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                try:
                    results = await self._commit([item for item, _ in group])
                except Exception as error:  # noqa: BLE001 - handed to every caller of the group, whatever it is
                    for _, future in group:
                        future.set_exception(error)
                        # A caller that was cancelled does not come back for it.
                        future.exception()
                else:
                    for (_, future), result in zip(group, results, strict=True):
                        future.set_result(result)
        finally:
            self._flushing = None


class Storage:
    """A Store as coroutines see it, and the database's clock as of its last answer.

    SQLite has one connection, hence one thread; PostgreSQL as many threads as connections.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        journal: AnswerJournal | None = None,
        *,
        journal_after_seconds: float = JOURNAL_AFTER_SECONDS,
    ) -> None:
        """Without a ``journal`` answers are lost with the process while the database is away."""
        self.store = store
        self._journal = journal
        self._journal_after_seconds = journal_after_seconds
        self._journals_thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._clock = clock
        threads = 1 if store.engine.dialect.name == "sqlite" else store.engine.pool.size()  # type: ignore[attr-defined] # QueuePool's
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._intents: GroupCommit[Intent, Sent | None] = GroupCommit(lambda items: self.call(store.intend, items))
        self._answers: GroupCommit[Answer, bool] = GroupCommit(self._record)
        self._alone = asyncio.Semaphore(1)
        self._unwritten: dict[int, Closing] = {}
        self._noted: set[int] = set()
        self._refused: set[int] = set()
        """The answers that the database has not got; which of them are in the journal, and which it did not take."""
        self._keeping: set[asyncio.Task[bool]] = set()
        self._is_away = False
        self._synchronised: tuple[datetime, float] | None = None
        self._closing = False
        self.pending = 0
        """How many calls have been made and have not come back."""
        self.answered_at = clock.monotonic()
        """When the last one came back, well or not."""
        self.errors = 0
        """How many the database has failed or refused."""

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``method`` of the store, in a thread; raises what it raises."""
        running = asyncio.wrap_future(self._threads.submit(method, *args, **kwargs))
        self.pending += 1
        running.add_done_callback(self._came_back)
        return await asyncio.shield(running)

    def _came_back(self, running: asyncio.Future[Any]) -> None:
        self.pending -= 1
        self.answered_at = self._clock.monotonic()
        if running.cancelled():
            return
        error = running.exception()
        self._is_away = isinstance(error, DatabaseUnavailable)
        if isinstance(error, DatabaseError):
            self.errors += 1

    async def intend(self, intent: Intent) -> Sent | None:
        """See Store.intend; the attempt is committed when this returns."""
        return await self._intents.submit(intent)

    async def record(self, answer: Answer) -> bool:
        """See Store.record. Waits for a database that is away: an answer is not given up while the process lives."""
        keeping = asyncio.create_task(self._keep(answer))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._kept)
        return await asyncio.shield(keeping)

    def _kept(self, keeping: asyncio.Task[bool]) -> None:
        self._keeping.discard(keeping)
        if not keeping.cancelled():
            # A caller that was cancelled does not come back for it.
            keeping.exception()

    async def _keep(self, answer: Answer) -> bool:
        closing = self.store.closing(answer)
        attempt_id = closing.attempt_id
        self._unwritten[attempt_id] = closing
        recording = asyncio.create_task(self._recorded(answer))
        if self._journal is not None:
            if not self._is_away:
                await asyncio.wait((recording,), timeout=self._journal_after_seconds)
            if not recording.done():
                await self._note(closing)
        try:
            written = await recording
        except DatabaseError:
            # Refused, or given up because we end. The next one may have better luck: see ``replay``.
            self._refused.add(attempt_id)
            await self._note(closing)
            raise
        await self._forget([attempt_id])
        return written

    async def _note(self, closing: Closing) -> None:
        if self._journal is None or self._closing or closing.attempt_id in self._noted:
            return
        try:
            await self._in_journal(self._journal.note, [closing])
        except OSError as error:
            self._complain(error, [closing])
        else:
            self._noted.add(closing.attempt_id)

    async def _forget(self, attempt_ids: Sequence[int]) -> None:
        for attempt_id in attempt_ids:
            self._unwritten.pop(attempt_id, None)
            self._refused.discard(attempt_id)
        noted = self._noted.intersection(attempt_ids)
        self._noted -= noted
        if noted and self._journal is not None and not self._closing:
            try:
                await self._in_journal(self._journal.forget, noted)
            except OSError as error:
                # They will be written a second time, which changes nothing.
                log.warning("journal_not_cleared", directory=str(self._journal.directory), error=str(error))

    async def _in_journal(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.shield(asyncio.wrap_future(self._journals_thread.submit(method, *args, **kwargs)))

    def _complain(self, error: OSError, closings: Sequence[Closing]) -> None:
        log.error(
            "answers_not_journaled",
            answers=len(closings),
            directory=None if self._journal is None else str(self._journal.directory),
            error=error.strerror or str(error),
            next_step="they are in memory alone until the database is back: make stop.journal_directory writable",
        )

    async def replay(self) -> list[tuple[Outcome, Reason]]:
        """Write down what dead processes have left in the journal, and what the database did not take from us.

        Returns what became of the attempts that this has closed. Raises DatabaseUnavailable.
        """
        closed: list[tuple[Outcome, Reason]] = []
        refused = [self._unwritten[one] for one in self._refused]
        if refused and (written := await self._replay(refused)) is not None:
            closed += _closed(refused, written)
            await self._forget([one.attempt_id for one in refused])
        if self._journal is not None:
            closed += await self._replay_left(self._journal)
        return closed

    async def _replay_left(self, journal: AnswerJournal) -> list[tuple[Outcome, Reason]]:
        closed: list[tuple[Outcome, Reason]] = []
        found = await self._in_journal(journal.left)
        try:
            for left in found:
                if (written := await self._replay(left.closings)) is None:
                    continue
                closed += _closed(left.closings, written)
                changed = sum(one is not None for one in written)
                log.warning("answers_replayed", file=str(left.path), answers=len(written), written=changed)
                try:
                    await self._in_journal(left.done)
                except OSError as error:
                    log.warning("journal_not_cleared", file=str(left.path), error=error.strerror or str(error))
        finally:
            for left in found:
                left.release()
        return closed

    async def _replay(self, closings: Sequence[Closing]) -> list[Written | None] | None:
        """None where the database refuses them."""
        written: list[Written | None] = []
        for start in range(0, len(closings), _GROUP_LIMIT):
            try:
                written += await self.call(self.store.replay, closings[start : start + _GROUP_LIMIT])
            except DatabaseUnavailable:
                raise
            except DatabaseError as error:
                log.error("answers_refused", answers=len(closings), error=str(error))
                return None
        return written

    async def _recorded(self, answer: Answer) -> bool:
        try:
            return await self._answers.submit(answer)
        except RowLocked:
            return await self._record_alone(answer)

    async def _record(self, answers: Sequence[Answer]) -> Sequence[bool]:
        while True:
            try:
                return await self.call(self.store.record, answers)
            except RowLocked:
                raise
            except DatabaseUnavailable as error:
                await self._later(error, len(answers))

    async def _record_alone(self, answer: Answer) -> bool:
        """Somebody holds the row of one of its group: the others' answers need not wait for that."""
        while True:
            try:
                # One thread at most waits for locks.
                async with self._alone:
                    (written,) = await self.call(self.store.record, [answer])
            except DatabaseUnavailable as error:
                await self._later(error, 1)
            else:
                return written

    async def _later(self, error: DatabaseUnavailable, answers: int) -> None:
        """Wait before an answer is recorded again; raises ``error`` when there is no later."""
        if not self._closing:
            # Repeating is safe even after a commit whose fate is unknown: a closed attempt is not closed again.
            log.error("answers_not_recorded_yet", answers=answers, error=str(error))
            await self._clock.sleep(_RECORD_AGAIN_SECONDS)
        if self._closing:
            raise error

    def synchronise(self, now: datetime) -> None:
        """Take ``now``, just read from the database, as its time at this moment.

        Each reading is late by its own delay, so an earlier one that came quicker goes on to count; as clocks drift, it
        loses a thousandth of the time since. One that differs by more is from before the database's clock was set back.
        """
        monotonic = self._clock.monotonic()
        if self._synchronised is not None:
            then, at = self._synchronised
            quicker = then + timedelta(seconds=(monotonic - at) * (1 - _DRIFT))
            if now < quicker < now + _LONGEST_DELAY:
                now = quicker
        self._synchronised = (now, monotonic)

    def now(self) -> datetime:
        """The database's time by our monotonic clock since it was read; late by the shortest of the readings' delays.

        Too early a moment is the safe side: evidence looks older, a due time further off.
        """
        if self._synchronised is None:
            raise RuntimeError("the database's time has not been read yet")
        then, monotonic = self._synchronised
        return then + timedelta(seconds=self._clock.monotonic() - monotonic)

    def close(self) -> None:
        """Answers that still wait for a database that is away are left to the journal.

        Without one they are given up, and their rows become ``unknown`` later.
        """
        self._closing = True
        self._threads.shutdown(wait=True)
        self._journals_thread.shutdown(wait=True)
        if self._journal is not None:
            waiting = [closing for attempt_id, closing in self._unwritten.items() if attempt_id not in self._noted]
            try:
                if waiting:
                    self._journal.note(waiting)
                self._journal.close()
            except OSError as error:
                self._complain(error, waiting)


def _closed(closings: Sequence[Closing], written: Sequence[Written | None]) -> list[tuple[Outcome, Reason]]:
    """Those that were still open: whatever was closed before has been counted then."""
    pairs = zip(closings, written, strict=True)
    return [(closing.outcome, one.reason) for closing, one in pairs if one is not None and one.was_open]
