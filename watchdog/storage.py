"""The store for the event loop: its calls run in worker threads, intents and answers are committed in groups.

A call that has begun is finished even if its caller is cancelled: a transaction cannot be torn apart half-way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Generic, ParamSpec, TypeVar

import structlog

from watchdog.clock import Clock
from watchdog.errors import DatabaseUnavailable
from watchdog.store import Answer, Intent, Sent, Store

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger(__name__)

_GROUP_LIMIT = 200
_RECORD_AGAIN_SECONDS = 0.5


class GroupCommit(Generic[T, R]):
    """Many callers, one transaction: whatever is submitted while a commit runs goes into the next one together."""

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._commit = commit
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
                group, self._waiting = self._waiting[:_GROUP_LIMIT], self._waiting[_GROUP_LIMIT:]
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

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self._clock = clock
        threads = 1 if store.engine.dialect.name == "sqlite" else store.engine.pool.size()  # type: ignore[attr-defined] # QueuePool's
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._intents: GroupCommit[Intent, Sent | None] = GroupCommit(lambda items: self.call(store.intend, items))
        self._answers: GroupCommit[Answer, bool] = GroupCommit(self._record)
        self._synchronised: tuple[datetime, float] | None = None
        self._closing = False

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``method`` of the store, in a thread; raises what it raises."""
        running = self._threads.submit(method, *args, **kwargs)
        return await asyncio.shield(asyncio.wrap_future(running))

    async def intend(self, intent: Intent) -> Sent | None:
        """See Store.intend; the attempt is committed when this returns."""
        return await self._intents.submit(intent)

    async def record(self, answer: Answer) -> bool:
        """See Store.record. Waits for a database that is away: an answer is not given up while the process lives."""
        return await self._answers.submit(answer)

    async def _record(self, answers: Sequence[Answer]) -> Sequence[bool]:
        while True:
            try:
                return await self.call(self.store.record, answers)
            except DatabaseUnavailable as error:
                if not self._closing:
                    # Repeating is safe even after a commit whose fate is unknown: a closed attempt is not closed again.
                    log.error("answers_not_recorded_yet", answers=len(answers), error=str(error))
                    await self._clock.sleep(_RECORD_AGAIN_SECONDS)
                if self._closing:
                    raise

    def synchronise(self, now: datetime) -> None:
        """Take ``now``, just read from the database, as its time at this moment."""
        self._synchronised = (now, self._clock.monotonic())

    def now(self) -> datetime:
        """The database's time by our monotonic clock since it was last read; late by at most that reading's delay.

        Too early a moment is the safe side: evidence looks older, a due time further off.
        """
        if self._synchronised is None:
            raise RuntimeError("the database's time has not been read yet")
        then, monotonic = self._synchronised
        return then + timedelta(seconds=self._clock.monotonic() - monotonic)

    def close(self) -> None:
        """Answers that still wait for a database that is away are given up; their rows become ``unknown`` later."""
        self._closing = True
        self._threads.shutdown(wait=True)
