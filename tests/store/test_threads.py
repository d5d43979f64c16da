"""Groups of commits, and the store as coroutines see it: nothing that has begun is torn apart."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.time_travel import World
from watchdog.clock import SystemClock
from watchdog.core.model import Evidence, Outcome, Reason, Reply, Source, Status
from watchdog.core.policy import Plan
from watchdog.errors import DatabaseError, DatabaseUnavailable, RowLocked
from watchdog.store.aio.answer_journal import AnswerJournal, Closing
from watchdog.store.aio.threads import JOURNAL_AFTER_SECONDS, GroupCommit, Storage
from watchdog.store.attempts import Written
from watchdog.store.engine import identify
from watchdog.store.tasks import Answer, Claim, Intent, Sent, Store


class Committer:
    """Commits what it is told to, when it is let; the result of an item is its double."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception | None] = []
        self.commits: GroupCommit[int, int] = GroupCommit(self.commit)

    async def commit(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        await self.gate.wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return [item * 2 for item in items]


async def begun(*coroutines: Any) -> list[asyncio.Task[Any]]:
    """Start coroutines, and let them run until they wait."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not time
    return tasks


class TestGroupCommit:
    async def test_each_caller_gets_its_own_result(self) -> None:
        committer = Committer()
        assert await asyncio.gather(*(committer.commits.submit(number) for number in range(5))) == [0, 2, 4, 6, 8]
        assert committer.groups == [[0, 1, 2, 3, 4]]
        assert await committer.commits.submit(9) == 18

    async def test_what_comes_during_a_commit_goes_into_the_next_together(self) -> None:
        committer = Committer()
        committer.gate.clear()
        first = await begun(committer.commits.submit(1))
        later = await begun(*(committer.commits.submit(number) for number in (2, 3, 4)))
        assert committer.groups == [[1]]
        committer.gate.set()
        assert await asyncio.gather(*first, *later) == [2, 4, 6, 8]
        assert committer.groups == [[1], [2, 3, 4]]

    async def test_a_group_has_its_limit_and_its_order(self) -> None:
        committer = Committer()
        assert len(await asyncio.gather(*(committer.commits.submit(number) for number in range(450)))) == 450
        assert [len(group) for group in committer.groups] == [200, 200, 50]
        assert [number for group in committer.groups for number in group] == list(range(450))

    async def test_an_error_reaches_every_caller_of_its_group_and_no_other(self) -> None:
        committer = Committer()
        committer.errors = [DatabaseUnavailable("locked"), None]
        committer.gate.clear()
        failing = await begun(*(committer.commits.submit(number) for number in (1, 2)))
        others = await begun(committer.commits.submit(3))
        committer.gate.set()
        results = await asyncio.gather(*failing, *others, return_exceptions=True)
        assert [str(result) for result in results] == ["locked", "locked", "6"]
        assert await committer.commits.submit(4) == 8

    async def test_a_caller_that_is_cancelled_takes_nothing_with_it(self) -> None:
        committer = Committer()
        committer.gate.clear()
        leaving, staying = await begun(committer.commits.submit(1), committer.commits.submit(2))
        (waiting,) = await begun(committer.commits.submit(3))
        leaving.cancel()
        waiting.cancel()
        await asyncio.wait((leaving, waiting))
        assert leaving.cancelled()
        committer.gate.set()
        assert await staying == 4
        await begun()
        assert committer.groups == [[1, 2], [3]]

    async def test_an_error_for_nobody_is_no_noise(self) -> None:
        noise: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
        committer = Committer()
        committer.errors = [DatabaseUnavailable("locked")]
        committer.gate.clear()
        (leaving,) = await begun(committer.commits.submit(1))
        leaving.cancel()
        committer.gate.set()
        await begun()
        assert leaving.cancelled()
        assert await committer.commits.submit(2) == 4
        assert noise == []


@pytest.fixture
async def storage(world: World) -> AsyncIterator[Storage]:
    storage = Storage(world.store, world.clock)
    yield storage
    storage.close()


def claimed(world: World, number: int = 1) -> list[Claim]:
    """Bring about tasks that are due and ours."""
    for index in range(number):
        world.app.start(f"task-{index}", user_count=0)
    found = world.store.newly_empty(number)[1]
    world.store.save_plans([Plan(task.task_id, world.now, world.now, world.ahead(105)) for task in found])
    return world.store.claim("token", limit=number, lease_seconds=20, default_app=1)[1]


def intent(world: World, claim: Claim) -> Intent:
    return Intent(claim, 1, Reason.EMPTY_ROOM, Evidence(0, world.now, Source.API), world.now)


def stopped(world: World, claim: Claim, sent: Sent) -> Answer:
    return Answer(claim, sent, Outcome.STOPPED, world.now, None, None, Status.STOPPED, 0.0)


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


class TestStorage:
    async def test_intents_and_answers_of_many_callers(self, world: World, storage: Storage) -> None:
        claims = claimed(world, 30)
        sent = await asyncio.gather(*(storage.intend(intent(world, claim)) for claim in claims))
        answers = [stopped(world, claim, one) for claim, one in zip(claims, sent, strict=True) if one is not None]
        assert await asyncio.gather(*(storage.record(answer) for answer in answers)) == [True] * 30
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}

    async def test_an_attempt_is_committed_when_intend_returns(self, world: World, storage: Storage) -> None:
        (claim,) = claimed(world)
        assert await storage.intend(intent(world, claim)) is not None
        assert [row["outcome"] for row in world.app.rows("SELECT outcome FROM zego_stop_attempts")] == ["sent"]

    async def test_who_is_cancelled_during_a_commit_has_committed(self, world: World, storage: Storage) -> None:
        (claim,) = claimed(world)
        with locked(world) as release:
            (leaving,) = await begun(storage.intend(intent(world, claim)))
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            release.set()
        await storage.call(world.store.peek)
        while not world.attempts("task-0"):
            await storage.call(world.store.peek)
        assert world.task("task-0")["attempts"] == 1

    async def test_a_call_that_fails_raises_what_the_store_raised(self, storage: Storage) -> None:
        def fail(reason: str) -> None:
            raise DatabaseError(reason)

        with pytest.raises(DatabaseError, match="because"):
            await storage.call(fail, "because")

    async def test_an_answer_waits_for_a_database_that_is_away(self, world: World) -> None:
        (claim,) = claimed(world)
        store = AwayStore(world, times=3)
        storage = Storage(store, world.clock)
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        before = world.now
        with structlog.testing.capture_logs() as logs:
            assert await storage.record(stopped(world, claim, sent)) is True
        assert world.task("task-0")["status"] == "stopped"
        assert world.now == before + timedelta(seconds=1.5), "half a second each time"
        event = {"event": "answers_not_recorded_yet", "log_level": "error", "answers": 1, "error": "away"}
        assert logs == [event] * 3
        storage.close()

    async def test_a_locked_row_holds_up_its_own_answer_only(self, world: World) -> None:
        claims = claimed(world, 4)
        store = HeldStore(world, "task-0")
        storage = Storage(store, world.clock)
        sent = [one for one in [await storage.intend(intent(world, claim)) for claim in claims] if one is not None]
        with structlog.testing.capture_logs():
            held, *others = [
                asyncio.create_task(storage.record(stopped(world, claim, one)))
                for claim, one in zip(claims, sent, strict=True)
            ]
            async with asyncio.timeout(30):
                assert await asyncio.gather(*others) == [True] * 3
            assert not held.done()
            store.held = None
            assert await held is True
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}
        storage.close()

    async def test_when_it_closes_it_gives_up_waiting(self, world: World) -> None:
        (claim,) = claimed(world)
        storage = Storage(AwayStore(world, times=10**9), world.clock)
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        begun_at = world.now
        # Between two tries.
        world.clock.followed_by(lambda moment: storage.close() if moment > begun_at + timedelta(seconds=1) else None)
        with pytest.raises(DatabaseUnavailable, match="away"):
            await storage.record(stopped(world, claim, sent))
        assert world.attempts("task-0")[0]["outcome"] == "sent"

    async def test_another_error_is_not_waited_out(self, world: World, storage: Storage) -> None:
        (claim,) = claimed(world)
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        world.app.execute("ALTER TABLE zego_stop_attempts RENAME TO elsewhere")
        try:
            with pytest.raises(DatabaseError, match="zego_stop_attempts"):
                await storage.record(stopped(world, claim, sent))
        finally:
            world.app.execute("ALTER TABLE elsewhere RENAME TO zego_stop_attempts")


class AwayStore(Store):
    """A store whose database is away when the first answers come."""

    def __init__(self, world: World, *, times: int) -> None:
        super().__init__(world.engine, "host/1")
        self._times = times

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        self._times -= 1
        if self._times >= 0:
            raise DatabaseUnavailable("away")
        return super().record(answers)


class HeldStore(Store):
    """A store in which somebody holds the row of one task."""

    def __init__(self, world: World, held: str) -> None:
        super().__init__(world.engine, "host/1")
        self.held: str | None = held

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        if self.held in {answer.claim.task.task_id for answer in answers}:
            raise RowLocked("held")
        return super().record(answers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "journal"
    made.mkdir()
    return made


def with_journal(
    world: World,
    folder: Path,
    *,
    store: Store | None = None,
    instance: str = "host/1",
    after_seconds: float = JOURNAL_AFTER_SECONDS,
) -> Storage:
    journal = AnswerJournal(folder, identify(world.engine), instance)
    return Storage(store or world.store, world.clock, journal, journal_after_seconds=after_seconds)


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*")]


def noted(folder: Path) -> list[str]:
    return [
        json.loads(line)["task_id"] for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()
    ]


def answered(world: World, claim: Claim, sent: Sent) -> Answer:
    reply = Reply(200, "0", "Success", f"request-{claim.task.task_id}", None, None, None)
    return replace(stopped(world, claim, sent), reply=reply)


class TestJournal:
    async def test_an_answer_that_is_committed_at_once_is_in_no_journal(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        storage = with_journal(world, folder, after_seconds=60)  # on a machine that is busy, too
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        assert await storage.record(answered(world, claim, sent)) is True
        assert files(folder) == []
        storage.close()

    async def test_answers_are_on_disk_while_the_database_is_locked_and_not_afterwards(
        self, world: World, folder: Path
    ) -> None:
        claims = claimed(world, 5)
        storage = with_journal(world, folder)
        sent = [one for one in [await storage.intend(intent(world, claim)) for claim in claims] if one is not None]
        with locked(world) as release:
            recording = [
                asyncio.create_task(storage.record(answered(world, claim, one)))
                for claim, one in zip(claims, sent, strict=True)
            ]
            await until(lambda: len(noted(folder)) == 5)
            assert not any(one.done() for one in recording)
            recording[0].cancel()
            release.set()
            results = await asyncio.gather(*recording, return_exceptions=True)
        assert results[1:] == [True] * 4
        assert isinstance(results[0], asyncio.CancelledError)
        await until(lambda: noted(folder) == [])
        assert [row["outcome"] for claim in claims for row in world.attempts(claim.task.task_id)] == ["stopped"] * 5
        storage.close()
        assert files(folder) == []

    async def test_what_is_given_up_at_the_end_is_written_by_the_next_process(self, world: World, folder: Path) -> None:
        claims = claimed(world, 3)
        away = AwayStore(world, times=10**9)
        storage = with_journal(world, folder, store=away)
        sent = [one for one in [await storage.intend(intent(world, claim)) for claim in claims] if one is not None]
        with structlog.testing.capture_logs():
            recording = [
                asyncio.create_task(storage.record(answered(world, claim, one)))
                for claim, one in zip(claims, sent, strict=True)
            ]
            await until(lambda: len(noted(folder)) == 3)
            storage.close()
            results = await asyncio.gather(*recording, return_exceptions=True)
        assert {type(result) for result in results} == {DatabaseUnavailable}
        assert [world.attempts(claim.task.task_id)[0]["outcome"] for claim in claims] == ["sent"] * 3

        heir = with_journal(world, folder, store=world.another_store("host/2"), instance="host/2")
        assert await heir.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)] * 3
        assert [world.attempts(claim.task.task_id)[0]["code"] for claim in claims] == ["0"] * 3
        assert {world.task(claim.task.task_id)["status"] for claim in claims} == {"stopped"}
        assert await heir.replay() == []
        assert files(folder) == []
        heir.close()

    async def test_what_comes_at_the_very_end_is_kept_too(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        storage = with_journal(world, folder, store=AwayStore(world, times=10**9))
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        (recording,) = await begun(storage.record(answered(world, claim, sent)))
        storage.close()
        assert noted(folder) == ["task-0"]
        recording.cancel()

    async def test_an_answer_that_is_refused_is_tried_again_by_and_by(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        storage = with_journal(world, folder)
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        world.app.execute("ALTER TABLE zego_stop_attempts RENAME TO elsewhere")
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(DatabaseError):
                await storage.record(answered(world, claim, sent))
            assert await storage.replay() == []
        assert "answers_refused" in {event["event"] for event in logs}
        assert noted(folder) == ["task-0"]
        world.app.execute("ALTER TABLE elsewhere RENAME TO zego_stop_attempts")
        assert await storage.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)]
        assert await storage.replay() == []
        assert noted(folder) == []
        assert world.task("task-0")["status"] == "stopped"
        storage.close()

    async def test_a_journal_that_cannot_be_written_is_said_and_the_answer_is_not_lost(
        self, world: World, folder: Path
    ) -> None:
        (claim,) = claimed(world)
        storage = with_journal(world, folder / "nowhere")
        sent = await storage.intend(intent(world, claim))
        assert sent is not None
        with structlog.testing.capture_logs() as logs, locked(world) as release:
            recording = asyncio.create_task(storage.record(answered(world, claim, sent)))
            await until(lambda: any(event["event"] == "answers_not_journaled" for event in logs))
            release.set()
            assert await recording is True
        assert await storage.replay() == []
        storage.close()

    async def test_a_database_that_is_away_leaves_the_journal_for_later(self, world: World, folder: Path) -> None:
        (claim,) = claimed(world)
        sent = world.store.intend([intent(world, claim)])[0]
        assert sent is not None
        left = AnswerJournal(folder, identify(world.engine), "host/1")
        left.note([world.store.closing(answered(world, claim, sent))])
        left.close()

        class Away(Store):
            def replay(self, _closings: Sequence[Closing]) -> list[Written | None]:
                raise DatabaseUnavailable("away")

        storage = with_journal(world, folder, store=Away(world.engine, "host/2"), instance="host/2")
        with pytest.raises(DatabaseUnavailable):
            await storage.replay()
        assert noted(folder) == ["task-0"]
        storage.close()
        heir = with_journal(world, folder, store=world.another_store("host/3"), instance="host/3")
        assert await heir.replay() == [(Outcome.STOPPED, Reason.EMPTY_ROOM)]
        heir.close()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():
            await SystemClock().sleep(0.01)


class TestNow:
    async def test_is_unknown_until_the_database_was_asked(self, storage: Storage) -> None:
        with pytest.raises(RuntimeError, match="not been read"):
            storage.now()

    async def test_goes_on_from_what_the_database_said_whatever_the_host_believes(
        self, world: World, storage: Storage
    ) -> None:
        storage.synchronise(world.store.now())
        world.advance(12.5)
        world.clock.host_is_off_by = -3600
        assert storage.now() == world.now
        storage.synchronise(world.ahead(100))
        assert storage.now() == world.ahead(100)

    async def test_the_reading_that_was_late_by_the_least_counts(self, world: World, storage: Storage) -> None:
        storage.synchronise(world.now)
        world.advance(1)
        storage.synchronise(world.ago(0.02))
        assert timedelta(0) <= world.now - storage.now() < timedelta(seconds=0.002)
        world.advance(60)
        storage.synchronise(world.ago(0.02))
        assert storage.now() == world.ago(0.02), "a minute later nobody knows how right it still is"

    async def test_a_clock_that_was_set_back_is_believed(self, world: World, storage: Storage) -> None:
        storage.synchronise(world.now)
        storage.synchronise(world.ago(5))
        assert storage.now() == world.ago(5)
