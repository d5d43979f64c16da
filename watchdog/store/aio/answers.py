"""Attempts and their answers, committed in groups; an answer survives a database that is away, and this process.

intend   commit an attempt before its request is sent
record   write its answer; wait for a database that is away, and keep the answer in the spool meanwhile
replay   write the answers that dead processes left in the spool
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import structlog

from watchdog.clock import Clock
from watchdog.core.model import Outcome, Reason
from watchdog.errors import DatabaseError, DatabaseUnavailable, RowLocked
from watchdog.store.aio.answer_spool import AnswerSpool
from watchdog.store.aio.calls import AsyncLedger
from watchdog.store.aio.group_commit import GROUP_LIMIT, GroupCommit
from watchdog.store.records import Answer, Attempt, Intent

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

SPOOL_AFTER_SECONDS: Final = 0.2
"""An answer that is not committed by then is written to the spool; a commit takes a few milliseconds."""

_RECORD_AGAIN_SECONDS: Final = 0.5


class Answers:
    """Without a ``spool``, answers are lost if the process ends while the database is away."""

    def __init__(
        self,
        ledger: AsyncLedger,
        clock: Clock,
        spool: AnswerSpool | None = None,
        *,
        spool_after_seconds: float = SPOOL_AFTER_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._spool = spool
        self._spool_after_seconds = spool_after_seconds
        self._spools_thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._intents: GroupCommit[Intent, Attempt | None] = GroupCommit(ledger.intend)
        self._answers: GroupCommit[Answer, bool] = GroupCommit(self._record)
        self._alone = asyncio.Semaphore(1)
        self._unwritten: dict[int, Answer] = {}
        """The answers that the database does not have, by attempt."""
        self._noted: set[int] = set()
        """Those of them that are in the spool."""
        self._refused: set[int] = set()
        """Those of them that the database refused."""
        self._keeping: set[asyncio.Task[bool]] = set()
        self._closing = False

    async def intend(self, intent: Intent) -> Attempt | None:
        """Commit the attempt; see Ledger.intend."""
        return await self._intents.submit(intent)

    async def record(self, answer: Answer) -> bool:
        """Write the answer; see Ledger.record. While the database is away this waits, until ``close``."""
        keeping = asyncio.create_task(self._keep(answer))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._kept)
        return await asyncio.shield(keeping)

    def _kept(self, keeping: asyncio.Task[bool]) -> None:
        self._keeping.discard(keeping)
        if not keeping.cancelled():
            # Retrieved here, because a cancelled caller does not retrieve it.
            keeping.exception()

    async def _keep(self, answer: Answer) -> bool:
        attempt_id = answer.attempt_id
        self._unwritten[attempt_id] = answer
        recording = asyncio.create_task(self._recorded(answer))
        if self._spool is not None:
            if not self._ledger.threads.is_away:
                await asyncio.wait((recording,), timeout=self._spool_after_seconds)
            if not recording.done():
                await self._note(answer)
        try:
            written = await recording
        except DatabaseError:
            # Refused, or given up because of ``close``. ``replay`` tries again.
            self._refused.add(attempt_id)
            await self._note(answer)
            raise
        await self._forget([attempt_id])
        return written

    async def _note(self, answer: Answer) -> None:
        if self._spool is None or self._closing or answer.attempt_id in self._noted:
            return
        try:
            await self._in_spool(self._spool.note, [answer])
        except OSError as error:
            self._complain(error, 1)
        else:
            self._noted.add(answer.attempt_id)

    async def _forget(self, attempt_ids: Sequence[int]) -> None:
        for attempt_id in attempt_ids:
            self._unwritten.pop(attempt_id, None)
            self._refused.discard(attempt_id)
        noted = self._noted.intersection(attempt_ids)
        self._noted -= noted
        if noted and self._spool is not None and not self._closing:
            try:
                await self._in_spool(self._spool.forget, noted)
            except OSError as error:
                # They will be recorded a second time, which changes nothing.
                log.warning("journal_not_cleared", directory=str(self._spool.directory), error=str(error))

    async def _in_spool(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.shield(asyncio.wrap_future(self._spools_thread.submit(method, *args, **kwargs)))

    def _complain(self, error: OSError, answers: int) -> None:
        log.error(
            "answers_not_journaled",
            answers=answers,
            directory=None if self._spool is None else str(self._spool.directory),
            error=error.strerror or str(error),
            next_step="until the database is back they are only in memory: make stop.journal_directory writable",
        )

    async def replay(self) -> list[tuple[Outcome, Reason]]:
        """Record the answers that dead processes left in the spool, and those that the database refused before.

        Returns outcome and reason of each attempt that was still open. Raises DatabaseUnavailable.
        """
        closed: list[tuple[Outcome, Reason]] = []
        refused = [self._unwritten[one] for one in self._refused]
        if refused and (replayed := await self._replay(refused)) is not None:
            closed += replayed[1]
            await self._forget([one.attempt_id for one in refused])
        if self._spool is not None:
            closed += await self._replay_left(self._spool)
        return closed

    async def _replay_left(self, spool: AnswerSpool) -> list[tuple[Outcome, Reason]]:
        closed: list[tuple[Outcome, Reason]] = []
        found = await self._in_spool(spool.left)
        try:
            for left in found:
                if (replayed := await self._replay(left.answers)) is None:
                    continue
                written, was_open = replayed
                closed += was_open
                log.warning("answers_replayed", file=str(left.path), answers=len(left.answers), written=written)
                try:
                    await self._in_spool(left.done)
                except OSError as error:
                    log.warning("journal_not_cleared", file=str(left.path), error=error.strerror or str(error))
        finally:
            for left in found:
                # Not in the event loop: SQLite may flush the file when it closes it.
                await self._in_spool(left.release)
        return closed

    async def _replay(self, answers: Sequence[Answer]) -> tuple[int, list[tuple[Outcome, Reason]]] | None:
        """As Ledger.replay, for any number of answers; None if the database refuses them."""
        written, closed = 0, list[tuple[Outcome, Reason]]()
        for start in range(0, len(answers), GROUP_LIMIT):
            try:
                changed, was_open = await self._ledger.replay(answers[start : start + GROUP_LIMIT])
            except DatabaseUnavailable:
                raise
            except DatabaseError as error:
                log.error("answers_refused", answers=len(answers), error=str(error))
                return None
            written += changed
            closed += was_open
        return written, closed

    async def _recorded(self, answer: Answer) -> bool:
        try:
            return await self._answers.submit(answer)
        except RowLocked:
            return await self._record_alone(answer)

    async def _record(self, answers: Sequence[Answer]) -> Sequence[bool]:
        while True:
            try:
                return await self._ledger.record(answers)
            except RowLocked:
                raise
            except DatabaseUnavailable as error:
                await self._later(error, len(answers))

    async def _record_alone(self, answer: Answer) -> bool:
        """Record an answer whose group failed because a row of it is locked; the other answers must not wait."""
        while True:
            try:
                # At most one thread waits for locks.
                async with self._alone:
                    (written,) = await self._ledger.record([answer])
            except DatabaseUnavailable as error:
                await self._later(error, 1)
            else:
                return written

    async def _later(self, error: DatabaseUnavailable, answers: int) -> None:
        """Wait before the next try; raises ``error`` after ``close``."""
        if not self._closing:
            # Safe even if the failed commit succeeded: a closed attempt is not closed again.
            log.error("answers_not_recorded_yet", answers=answers, error=str(error))
            await self._clock.sleep(_RECORD_AGAIN_SECONDS)
        if self._closing:
            raise error

    def close(self) -> None:
        """Write the answers that still wait for the database to the spool; blocks.

        Without a spool they are given up, and their attempts become ``unknown`` later.
        """
        self._closing = True
        self._spools_thread.shutdown(wait=True)
        if self._spool is not None:
            waiting = [answer for attempt_id, answer in self._unwritten.items() if attempt_id not in self._noted]
            try:
                if waiting:
                    self._spool.note(waiting)
                self._spool.close()
            except OSError as error:
                self._complain(error, len(waiting))
