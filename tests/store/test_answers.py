"""Answers that survive: a database that is away, a locked row, a cancelled caller, a process that ends."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from tests.support.spool import noted
from tests.support.store_steps import answer, begun, intent
from tests.support.time_travel import World
from watchdog.clock import SystemClock
from watchdog.core.model import Outcome, Reason
from watchdog.core.policy import Plan
from watchdog.errors import DatabaseError, DatabaseUnavailable, RowLocked
from watchdog.store.aio.answer_spool import AnswerSpool
from watchdog.store.aio.answers import SPOOL_AFTER_SECONDS, Answers
from watchdog.store.aio.calls import AsyncLedger
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.attempts import Ledger
from watchdog.store.engine import identify
from watchdog.store.records import Answer, Claim


class OwnAnswers(Answers):
    """Answers with threads of their own, which close with them."""

    def __init__(
        self,
        world: World,
        ledger: Ledger | None = None,
        spool: AnswerSpool | None = None,
        *,
        after_seconds: float = SPOOL_AFTER_SECONDS,
    ) -> None:
        self.threads = DatabaseThreads(world.engine, world.clock)
        calls = AsyncLedger(self.threads, ledger or world.ledger)
        super().__init__(calls, world.clock, spool, spool_after_seconds=after_seconds)

    def close(self) -> None:
        super().close()
        self.threads.close()


@pytest.fixture
async def answers(world: World) -> AsyncIterator[OwnAnswers]:
    answers = OwnAnswers(world)
    yield answers
    answers.close()


def claimed(world: World, number: int = 1) -> list[Claim]:
    """Bring about tasks that are due and ours."""
    for index in range(number):
        world.app.start(f"task-{index}", user_count=0)
    found = world.tasks.newly_empty(number)[1]
    world.tasks.save_plans([Plan(task.task_id, world.now, world.now, world.ahead(105)) for task in found])
    return world.tasks.claim("token", limit=number, lease_seconds=20, default_app=1)[1]


@contextmanager
def locked(world: World) -> Iterator[threading.Event]:
    """Keep everybody from writing tasks until the event is set, or the block ends."""
    release, holding = threading.Event(), threading.Event()

    def hold() -> None:
        application = world.connect()
        application.execute("BEGIN IMMEDIATE" if world.dialect == "sqlite" else "BEGIN")
        if world.dialect == "postgresql":
            application.execute("LOCK TABLE zego_tasks, zego_stop_attempts IN EXCLUSIVE MODE")
        holding.set()
        release.wait(10)
        application.execute("COMMIT")
        application.close()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(10)
    try:
        yield release
    finally:
        release.set()
        thread.join()


class TestRecord:
    async def test_intents_and_answers_of_many_callers(self, world: World, answers: OwnAnswers) -> None:
        claims = claimed(world, 30)
        sent = await asyncio.gather(*(answers.intend(intent(world, claim)) for claim in claims))
        stopped = [answer(world, one, Outcome.STOPPED) for one in sent if one is not None]
        assert await asyncio.gather(*(answers.record(one) for one in stopped)) == [True] * 30
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}

    async def test_an_attempt_is_committed_when_intend_returns(self, world: World, answers: OwnAnswers) -> None:
        (claim,) = claimed(world)
        assert await answers.intend(intent(world, claim)) is not None
        assert [row["outcome"] for row in world.app.rows("SELECT outcome FROM zego_stop_attempts")] == ["sent"]

    async def test_who_is_cancelled_during_a_commit_has_committed(self, world: World, answers: OwnAnswers) -> None:
        (claim,) = claimed(world)
        with locked(world) as release:
            (leaving,) = await begun(answers.intend(intent(world, claim)))
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            release.set()
        await answers.threads.call(world.tasks.peek)
        while not world.attempts("task-0"):
            await answers.threads.call(world.tasks.peek)
        assert world.task("task-0")["attempts"] == 1

    async def test_an_answer_waits_for_a_database_that_is_away(self, world: World) -> None:
        (claim,) = claimed(world)
        ledger = AwayLedger(world, times=3)
        answers = OwnAnswers(world, ledger)
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        before = world.now
        with structlog.testing.capture_logs() as logs:
            assert await answers.record(answer(world, sent, Outcome.STOPPED)) is True
        assert world.task("task-0")["status"] == "stopped"
        assert world.now == before + timedelta(seconds=1.5), "half a second each time"
        event = {"event": "answers_not_recorded_yet", "log_level": "error", "answers": 1, "error": "away"}
        assert logs == [event] * 3
        answers.close()

    async def test_a_locked_row_holds_up_its_own_answer_only(self, world: World) -> None:
        claims = claimed(world, 4)
        ledger = HeldLedger(world, "task-0")
        answers = OwnAnswers(world, ledger)
        sent = [one for one in [await answers.intend(intent(world, claim)) for claim in claims] if one is not None]
        with structlog.testing.capture_logs():
            held, *others = [asyncio.create_task(answers.record(answer(world, one, Outcome.STOPPED))) for one in sent]
            async with asyncio.timeout(30):
                assert await asyncio.gather(*others) == [True] * 3
            assert not held.done()
            ledger.held = None
            assert await held is True
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}
        answers.close()

    async def test_when_it_closes_it_gives_up_waiting(self, world: World) -> None:
        (claim,) = claimed(world)
        answers = OwnAnswers(world, AwayLedger(world, times=10**9))
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        begun_at = world.now
        # Between two tries.
        world.clock.followed_by(lambda moment: answers.close() if moment > begun_at + timedelta(seconds=1) else None)
        with pytest.raises(DatabaseUnavailable, match="away"):
            await answers.record(answer(world, sent, Outcome.STOPPED))
        assert world.attempts("task-0")[0]["outcome"] == "sent"

    async def test_another_error_is_not_waited_out(self, world: World, answers: OwnAnswers) -> None:
        (claim,) = claimed(world)
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        world.app.execute("ALTER TABLE zego_stop_attempts RENAME TO elsewhere")
        try:
            with pytest.raises(DatabaseError, match="zego_stop_attempts"):
                await answers.record(answer(world, sent, Outcome.STOPPED))
        finally:
            world.app.execute("ALTER TABLE elsewhere RENAME TO zego_stop_attempts")


class AwayLedger(Ledger):
    """A ledger whose database is away when the first answers come."""

    def __init__(self, world: World, *, times: int) -> None:
        super().__init__(world.engine, "host/1")
        self._times = times

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        self._times -= 1
        if self._times >= 0:
            raise DatabaseUnavailable("away")
        return super().record(answers)


class HeldLedger(Ledger):
    """A ledger in which the row of one task is locked."""

    def __init__(self, world: World, held: str) -> None:
        super().__init__(world.engine, "host/1")
        self.held: str | None = held

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        if self.held in {answer.task_id for answer in answers}:
            raise RowLocked("held")
        return super().record(answers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir()
    return made


def with_spool(
    world: World,
    folder: Path,
    *,
    ledger: Ledger | None = None,
    instance: str = "host/1",
    after_seconds: float = SPOOL_AFTER_SECONDS,
) -> OwnAnswers:
    return OwnAnswers(world, ledger, AnswerSpool(folder, identify(world.engine), instance), after_seconds=after_seconds)


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*")]


class TestSpool:
    async def test_an_answer_that_is_committed_at_once_is_in_no_spool(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        answers = with_spool(world, folder, after_seconds=60)  # on a machine that is busy, too
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        assert await answers.record(answer(world, sent, Outcome.STOPPED)) is True
        assert files(folder) == []
        answers.close()

    async def test_answers_are_on_disk_while_the_database_is_locked_and_not_afterwards(
        self, world: World, folder: Path
    ) -> None:
        claims = claimed(world, 5)
        answers = with_spool(world, folder)
        sent = [one for one in [await answers.intend(intent(world, claim)) for claim in claims] if one is not None]
        with locked(world) as release:
            recording = [asyncio.create_task(answers.record(answer(world, one, Outcome.STOPPED))) for one in sent]
            await until(lambda: len(noted(folder)) == 5)
            assert not any(one.done() for one in recording)
            recording[0].cancel()
            release.set()
            results = await asyncio.gather(*recording, return_exceptions=True)
        assert results[1:] == [True] * 4
        assert isinstance(results[0], asyncio.CancelledError)
        await until(lambda: noted(folder) == [])
        assert [row["outcome"] for claim in claims for row in world.attempts(claim.task.task_id)] == ["stopped"] * 5
        answers.close()
        assert files(folder) == []

    async def test_what_is_given_up_at_the_end_is_written_by_the_next_process(self, world: World, folder: Path) -> None:
        claims = claimed(world, 3)
        away = AwayLedger(world, times=10**9)
        answers = with_spool(world, folder, ledger=away)
        sent = [one for one in [await answers.intend(intent(world, claim)) for claim in claims] if one is not None]
        with structlog.testing.capture_logs():
            recording = [asyncio.create_task(answers.record(answer(world, one, Outcome.STOPPED))) for one in sent]
            await until(lambda: len(noted(folder)) == 3)
            answers.close()
            results = await asyncio.gather(*recording, return_exceptions=True)
        assert {type(result) for result in results} == {DatabaseUnavailable}
        assert [world.attempts(claim.task.task_id)[0]["outcome"] for claim in claims] == ["sent"] * 3

        heir = with_spool(world, folder, ledger=world.another_store("host/2").ledger, instance="host/2")
        assert await heir.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)] * 3
        assert [world.attempts(claim.task.task_id)[0]["code"] for claim in claims] == ["0"] * 3
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}
        assert await heir.replay() == []
        assert files(folder) == []
        heir.close()

    async def test_what_comes_at_the_very_end_is_kept_too(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        answers = with_spool(world, folder, ledger=AwayLedger(world, times=10**9))
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        (recording,) = await begun(answers.record(answer(world, sent, Outcome.STOPPED)))
        answers.close()
        assert noted(folder) == ["task-0"]
        recording.cancel()

    async def test_an_answer_that_is_refused_is_tried_again_by_and_by(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        answers = with_spool(world, folder)
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        world.app.execute("ALTER TABLE zego_stop_attempts RENAME TO elsewhere")
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(DatabaseError):
                await answers.record(answer(world, sent, Outcome.STOPPED))
            assert await answers.replay() == []
        assert "answers_refused" in {event["event"] for event in logs}
        assert noted(folder) == ["task-0"]
        world.app.execute("ALTER TABLE elsewhere RENAME TO zego_stop_attempts")
        assert await answers.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)]
        assert await answers.replay() == []
        assert noted(folder) == []
        assert world.task("task-0")["status"] == "stopped"
        answers.close()

    async def test_a_spool_that_cannot_be_written_is_said_and_the_answer_is_not_lost(
        self, world: World, folder: Path
    ) -> None:
        (claim,) = claimed(world)
        answers = with_spool(world, folder / "nowhere")
        sent = await answers.intend(intent(world, claim))
        assert sent is not None
        with structlog.testing.capture_logs() as logs, locked(world) as release:
            recording = asyncio.create_task(answers.record(answer(world, sent, Outcome.STOPPED)))
            await until(lambda: any(event["event"] == "answers_not_journaled" for event in logs))
            release.set()
            assert await recording is True
        assert await answers.replay() == []
        answers.close()

    async def test_a_database_that_is_away_leaves_the_spool_for_later(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        sent = world.ledger.intend([intent(world, claim)])[0]
        assert sent is not None
        left = AnswerSpool(folder, identify(world.engine), "host/1")
        left.note([answer(world, sent, Outcome.STOPPED)])
        left.close()

        class Away(Ledger):
            def replay(self, _answers: Sequence[Answer]) -> tuple[int, list[tuple[Outcome, Reason]]]:
                raise DatabaseUnavailable("away")

        answers = with_spool(world, folder, ledger=Away(world.engine, "host/2"), instance="host/2")
        with pytest.raises(DatabaseUnavailable):
            await answers.replay()
        assert noted(folder) == ["task-0"]
        answers.close()
        heir = with_spool(world, folder, ledger=world.another_store("host/3").ledger, instance="host/3")
        assert await heir.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)]
        heir.close()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():
            await SystemClock().sleep(0.01)
