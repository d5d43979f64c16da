"""Retention: what is removed and what stays, on both databases, in virtual time; and that it never takes long."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.bench import bench
from tests.support.clock import SettableClock
from tests.support.time_travel import World
from watchdog.clock import SystemClock
from watchdog.config.loader import load
from watchdog.config.policy_settings import PolicyConfig
from watchdog.config.settings import Config
from watchdog.core.model import Evidence, Mode, Outcome, Reason, Reply, Source
from watchdog.errors import ConfigError
from watchdog.services import retention
from watchdog.services.retention import Keep, Retention
from watchdog.store import schema
from watchdog.store.aio.calls import AsyncRetention
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.attempts import Ledger
from watchdog.store.engine import open_engine, writing
from watchdog.store.events import EventStore
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Claim, Instance, Intent, SetAside
from watchdog.store.retention import Kept, RetentionStore
from watchdog.store.tasks import Tasks

DAY = 86_400.0
TASKS_DAYS, ATTEMPTS_DAYS, EVENTS_DAYS, SPELLS_DAYS = 90, 400, 30, 90


def made(
    world: World,
    *,
    tasks: int = TASKS_DAYS,
    attempts: int = ATTEMPTS_DAYS,
    events: int = EVENTS_DAYS,
    spells: int = SPELLS_DAYS,
    instance: str = "host/1",
    clock: SettableClock | None = None,
) -> Retention:
    threads = DatabaseThreads(world.engine, clock or world.clock)
    return Retention(
        retention=AsyncRetention(threads, RetentionStore(world.engine)),
        keep=Keep.of_days(tasks, attempts, events, spells),
        instance=instance,
        clock=clock or world.clock,
    )


def beat(world: World, instance: str = "host/1") -> None:
    Heartbeats(world.engine).beat(Instance(instance, "host", 1, "0", "enforce"), 60, fresh=False)


async def one_pass(service: Retention, world: World) -> list[float]:
    """Run batches until there is nothing to do for a long while; return the waits that were asked for."""
    waits: list[float] = []
    while not waits or waits[-1] < retention.PASS_SECONDS:
        beat(world)
        waits.append(await service.run_once())
    return waits


async def whole(world: World, **days: int) -> None:
    """A daemon starts, and goes through the tables once."""
    service = made(world, **days)  # type: ignore[arg-type] # the days only
    beat(world)
    world.advance(retention.FIRST_PASS_SECONDS)
    assert (await one_pass(service, world))[-1] == retention.PASS_SECONDS


def claimed(world: World, task_id: str) -> Claim:
    claim = world.tasks.claim_one(task_id, "token", lease_seconds=20)
    assert claim is not None
    return claim


def sent(world: World, task_id: str) -> Intent:
    """A request is on its way."""
    world.app.people(world.task(task_id)["room_id"], 0)
    claim = claimed(world, task_id)
    evidence = Evidence(0, world.now, Source.APP)
    intent = Intent(claim, 1, Reason.EMPTY_ROOM, evidence, world.ahead(100))
    world.ledger.intend([intent])
    return intent


def stopped(world: World, task_id: str, *, watch_seconds: float = 0.0) -> None:
    """A task is started and stopped, with one attempt on record."""
    ledger = Ledger(world.engine, "host/1", rejoin_watch_seconds=watch_seconds)
    world.app.start(task_id, f"room of {task_id}")
    world.app.people(f"room of {task_id}", 0)
    claim = claimed(world, task_id)
    (request,) = ledger.intend(
        [Intent(claim, 1, Reason.EMPTY_ROOM, Evidence(0, world.now, Source.APP), world.ahead(100))]
    )
    assert request is not None
    reply = Reply(200, "0", "Success", "request", None, None, 0.0)
    ledger.record([request.answer(Outcome.STOPPED, replied_at=world.now, reply=reply)])


def spared(world: World, task_id: str, detail: str) -> None:
    """A line in the ledger about a task that goes on."""
    claim = claimed(world, task_id)
    evidence = Evidence(3, world.now, Source.API)
    world.tasks.set_aside([SetAside(claim, 1, Outcome.SPARED, Reason.EMPTY_ROOM, detail, evidence, None, 60)])


def known(world: World, table: str) -> list[str]:
    return [str(row["task_id"]) for row in world.app.rows(f"SELECT task_id FROM {table} ORDER BY task_id")]


async def test_what_ended_long_ago_goes_and_its_history_stays(world: World) -> None:
    stopped(world, "old")
    world.advance(TASKS_DAYS * DAY - 3600)
    stopped(world, "young")
    world.advance(3600)
    await whole(world)
    assert known(world, "zego_tasks") == ["young"]
    assert world.history("old")["outcome"] == "stopped"
    assert len(world.attempts("old")) == 1


@pytest.mark.parametrize("action", ["", " ON DELETE RESTRICT"])
async def test_what_other_tables_refer_to_stays_and_stops_nothing_else(world: World, action: str) -> None:
    """Wherever the rows stand in the order, on tasks and on attempts."""
    names = [f"t{number:02}" for number in range(40)]
    for name in names:
        stopped(world, name)
    (last,) = world.app.rows("SELECT id FROM zego_stop_attempts WHERE task_id = 't20'")
    world.app.execute(f"CREATE TABLE calls (task_id TEXT CONSTRAINT calls_task REFERENCES zego_tasks{action})")
    world.app.execute(
        f"CREATE TABLE bills (attempt BIGINT CONSTRAINT bills_attempt REFERENCES zego_stop_attempts{action})"
    )
    try:
        world.app.execute("INSERT INTO calls VALUES ('t00'), ('t13'), ('t39')")
        world.app.execute("INSERT INTO bills VALUES (?)", last["id"])
        world.advance(ATTEMPTS_DAYS * DAY)
        with capture_logs() as logs:
            await whole(world)
        assert known(world, "zego_tasks") == ["t00", "t13", "t39"]
        assert known(world, "zego_stop_attempts") == ["t20"]
    finally:
        world.app.execute("DROP TABLE calls")
        world.app.execute("DROP TABLE bills")
    (warning,) = [event for event in logs if event["event"] == "rows_kept"]
    assert warning["tasks"] == 4
    keys = {"sqlite": ["a foreign key"], "postgresql": ["bills_attempt", "calls_task"]}
    assert warning["foreign_keys"] == keys[world.dialect]
    (event,) = [event for event in logs if event["event"] == "pruned"]
    assert (event["tasks"], event["attempts"]) == (37, 39)


async def test_the_moment_is_the_end_of_the_task_and_not_its_start(world: World) -> None:
    world.app.start("long")
    world.advance(TASKS_DAYS * DAY + 10)
    world.app.release("long")
    await whole(world)
    assert known(world, "zego_tasks") == ["long"]


@pytest.mark.parametrize("people", [None, 0, 3])
async def test_an_active_task_stays_however_old(world: World, people: int | None) -> None:
    world.app.start("task")
    if people is not None:
        world.app.people("room", people)
    world.advance(3000 * DAY)
    await whole(world)
    assert world.task("task")["status"] == "active"


async def test_what_the_application_wrote_as_its_end_does_not_end_a_task(world: World) -> None:
    world.app.start("task")
    world.app.change("task", ended_at=world.ago(1000 * DAY))
    await whole(world)
    assert world.task("task")["ended_at"] is not None


async def test_the_attempts_of_an_active_task_stay_however_old(world: World) -> None:
    world.app.start("task")
    world.app.people("room", 0)
    spared(world, "task", "one")
    world.advance(3000 * DAY)
    await whole(world)
    assert len(world.attempts("task")) == 1


async def test_attempts_go_when_the_last_of_their_task_is_old(world: World) -> None:
    stopped(world, "old")
    world.advance(DAY)
    stopped(world, "younger")
    world.advance(ATTEMPTS_DAYS * DAY - 3600)
    await whole(world)
    assert known(world, "zego_stop_history") == ["younger"]
    assert world.attempts("old") == []


async def test_the_attempts_of_one_task_go_together_or_not_at_all(world: World) -> None:
    world.app.start("task")
    world.app.people("room", 0)
    spared(world, "task", "long ago")
    world.advance(ATTEMPTS_DAYS * DAY)
    spared(world, "task", "yesterday")
    world.app.release("task")
    world.advance(DAY)
    await whole(world)
    assert [row["detail"] for row in world.attempts("task")] == ["long ago", "yesterday"]
    world.advance(ATTEMPTS_DAYS * DAY)
    await whole(world)
    assert world.attempts("task") == []


async def test_an_attempt_without_an_answer_stays_with_all_of_its_task(world: World) -> None:
    world.app.start("task")
    world.app.people("room", 0)
    spared(world, "task", "before")
    sent(world, "task") if world.task("task")["claimed_by"] is None else None
    world.app.release("task")
    assert [row["outcome"] for row in world.attempts("task")] == ["spared", "sent"]
    world.advance(3000 * DAY)
    await whole(world)
    assert [row["outcome"] for row in world.attempts("task")] == ["spared", "sent"]


async def test_the_ledger_of_a_task_whose_row_is_gone_is_kept_as_long(world: World) -> None:
    stopped(world, "task")
    world.app.execute("DELETE FROM zego_tasks")
    world.advance((ATTEMPTS_DAYS - 1) * DAY)
    await whole(world)
    assert known(world, "zego_stop_history") == ["task"]
    world.advance(DAY)
    await whole(world)
    assert known(world, "zego_stop_history") == []


async def test_a_return_is_forgotten_with_the_attempts_it_belongs_to(world: World) -> None:
    stopped(world, "task", watch_seconds=600)
    world.app.execute("UPDATE zego_rejoins SET rejoined_at = stopped_at")
    world.advance((ATTEMPTS_DAYS - 1) * DAY)
    await whole(world)
    assert world.history("task")["rejoined_after_seconds"] == 0
    world.advance(DAY)
    await whole(world)
    assert known(world, "zego_rejoins") == known(world, "zego_stop_attempts") == []


async def test_nothing_goes_while_its_room_is_watched(world: World) -> None:
    # Longer than the settings allow: what is asked is whether the watch itself is respected.
    stopped(world, "task", watch_seconds=500 * DAY)
    world.advance(450 * DAY)
    await whole(world)
    assert known(world, "zego_rejoins") == known(world, "zego_stop_attempts") == ["task"]


async def test_an_event_goes_by_its_own_age(world: World) -> None:
    EventStore(world.engine, "host/1").choose({"task.stopped": True})
    tasks = [f"old {number:03}" for number in range(retention.MOST_ROWS + 1)]
    for task in tasks:
        world.app.start(task)
    world.app.execute("UPDATE zego_tasks SET status = 'stopped'")
    world.advance(10 * DAY)
    stopped(world, "young")
    world.app.execute("UPDATE zego_events SET handled_at = occurred_at, wake_at = NULL WHERE task_id = 'old 000'")
    world.advance((EVENTS_DAYS - 11) * DAY)
    await whole(world)
    assert known(world, "zego_events") == sorted([*tasks, "young"])
    world.advance(DAY)
    await whole(world)
    assert known(world, "zego_events") == ["young"]
    assert len(known(world, "zego_tasks")) == len(tasks) + 1


async def test_an_empty_spell_goes_by_its_own_end(world: World) -> None:
    tasks = [f"old {number:03}" for number in range(retention.MOST_ROWS + 1)]
    for task in (*tasks, "young"):
        world.app.start(task, task, user_count=0)
    world.app.execute("UPDATE zego_tasks SET user_count = 1 WHERE task_id <> 'young'")
    world.advance(10 * DAY)
    world.app.people("young", 1)
    world.advance((SPELLS_DAYS - 11) * DAY)
    await whole(world)
    assert known(world, "zego_empty_spells") == sorted([*tasks, "young"])
    world.advance(DAY)
    with capture_logs() as logs:
        await whole(world)
    assert known(world, "zego_empty_spells") == ["young"]
    assert [(event["event"], event["spells"]) for event in logs] == [("pruned", len(tasks))]
    assert len(known(world, "zego_tasks")) == len(tasks) + 1


async def test_0_is_for_ever(world: World) -> None:
    EventStore(world.engine, "host/1").choose({"task.stopped": True})
    stopped(world, "task")
    world.advance(3000 * DAY)
    await whole(world, tasks=0, attempts=0, events=0, spells=0)
    for table in ("zego_tasks", "zego_stop_attempts", "zego_events", "zego_empty_spells"):
        assert known(world, table) == ["task"]


async def test_a_pass_goes_in_small_batches_with_pauses_and_says_one_word(world: World) -> None:
    for number in range(25):
        stopped(world, f"old {number:02}")
    world.app.start("active")
    world.advance(500 * DAY)
    beat(world)
    service = made(world)
    service._rows = 10
    waits: list[float] = []
    with capture_logs() as logs:
        world.advance(retention.FIRST_PASS_SECONDS)
        waits = await one_pass(service, world)
    # 26 tasks are three slices, which grow by ten; 25 attempts then fit into one, and 25 spells; one looks for events.
    assert len(waits) == 6
    assert set(waits[:-1]) == {retention.PAUSE_SECONDS}
    assert logs == [
        {"event": "pruned", "log_level": "info", "callbacks": 0, "events": 0, "rejoins": 0}
        | {"tasks": 25, "attempts": 25, "spells": 25}
    ]
    assert known(world, "zego_tasks") == ["active"]
    with capture_logs() as logs:
        world.advance(retention.TABLES_SECONDS)
        await one_pass(service, world)
    assert logs == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_batches_of_any_size_come_to_the_same(world: World, limit: int) -> None:
    for number in range(7):
        world.app.start(f"task {number}", f"room {number}")
        world.app.people(f"room {number}", 0)
    for turn in range(3):
        for number in range(7):
            spared(world, f"task {number}", f"turn {turn}")
            world.advance(21)
    for number in (0, 1, 3, 4, 6):
        world.app.release(f"task {number}")
    world.advance(500 * DAY)
    store = RetentionStore(world.engine)
    before = world.ago(ATTEMPTS_DAYS * DAY)
    after: int | None = 0
    total = rounds = 0
    while after is not None:
        batch = store.prune_attempts(after, limit, before, Kept())
        after, total, rounds = batch.after, total + batch.attempts, rounds + 1
        assert batch.attempts <= limit
        assert rounds < 50
    assert total == 15
    assert set(known(world, "zego_stop_attempts")) == {"task 2", "task 5"}
    task_id: str | None = ""
    ended = 0
    while task_id is not None:
        tasks = store.prune_tasks(task_id, limit, before, Kept())
        task_id, ended = tasks.after, ended + tasks.tasks
        assert tasks.tasks <= limit
    assert ended == 5
    assert known(world, "zego_tasks") == ["task 2", "task 5"]


async def test_nothing_is_done_in_the_first_minutes(world: World) -> None:
    stopped(world, "old")
    world.advance(500 * DAY)
    beat(world)
    service = made(world)
    assert await service.run_once() == retention.FIRST_PASS_SECONDS
    world.advance(60)
    assert await service.run_once() == retention.FIRST_PASS_SECONDS - 60
    assert known(world, "zego_tasks") == ["old"]


async def test_one_daemon_does_it_and_another_when_that_is_gone(world: World) -> None:
    stopped(world, "old")
    world.advance(500 * DAY)
    elder, younger = made(world, instance="z/1"), made(world, instance="a/2")
    beat(world, "z/1")
    world.advance(1)
    beat(world, "a/2")
    world.advance(retention.FIRST_PASS_SECONDS)
    beat(world, "z/1")
    beat(world, "a/2")
    assert await younger.run_once() == retention.ASK_AGAIN_SECONDS
    assert known(world, "zego_tasks") == ["old"]
    world.advance(retention.ASK_AGAIN_SECONDS)
    beat(world, "a/2")
    assert await younger.run_once() < 1
    assert known(world, "zego_tasks") == []
    assert await elder.run_once() == retention.ASK_AGAIN_SECONDS


async def test_two_at_once_do_no_harm(postgresql_world: World) -> None:
    world = postgresql_world
    for number in range(60):
        stopped(world, f"old {number:02}")
    stopped(world, "locked")
    world.advance(500 * DAY)
    before = world.ago(DAY)

    def through(_: int) -> tuple[int, int]:
        store = RetentionStore(world.another_store("x").engine)
        tasks = attempts = 0
        task_id: str | None = ""
        while task_id is not None:
            one = store.prune_tasks(task_id, 5, before, Kept())
            task_id, tasks = one.after, tasks + one.tasks
        attempt_id: int | None = 0
        while attempt_id is not None:
            batch = store.prune_attempts(attempt_id, 5, before, Kept())
            attempt_id, attempts = batch.after, attempts + batch.attempts
        return tasks, attempts

    # Somebody else has his hand on one of the rows: nobody waits for him.
    with world.engine.connect() as other, ThreadPoolExecutor(3) as threads:
        other.execute(sa.text("SELECT 1 FROM zego_tasks WHERE task_id = 'locked' FOR UPDATE"))
        results = list(threads.map(through, range(3)))
    assert sum(tasks for tasks, _ in results) == 60
    assert sum(attempts for _, attempts in results) == 61
    assert known(world, "zego_tasks") == ["locked"]


@pytest.mark.parametrize("days", [4000, -4000])
async def test_a_clock_that_jumps_makes_nothing_old(world: World, days: int) -> None:
    stopped(world, "task")
    process = SettableClock()
    service = made(world, clock=process)

    async def passes(seconds: float) -> float:
        """Time goes on, for the database and the process alike."""
        world.advance(seconds)
        process.advance(seconds)
        return (await one_pass(service, world))[-1]

    assert await passes(retention.FIRST_PASS_SECONDS) == retention.PASS_SECONDS
    world.advance(days * DAY)
    with capture_logs() as logs:
        assert await passes(retention.TABLES_SECONDS) == retention.ASK_AGAIN_SECONDS
    assert [entry["event"] for entry in logs] == ["not_pruned"]
    assert known(world, "zego_tasks") == known(world, "zego_stop_attempts") == ["task"]
    world.advance(-days * DAY)
    with capture_logs() as logs:
        assert await passes(retention.ASK_AGAIN_SECONDS) == retention.PASS_SECONDS
    assert logs == []


async def test_a_database_that_is_away_ends_the_pass_and_not_the_job(sqlite_world: World) -> None:
    world = sqlite_world
    stopped(world, "old")
    world.advance(500 * DAY)
    service = made(world)
    beat(world)
    world.advance(retention.FIRST_PASS_SECONDS)
    beat(world)
    world.app.execute("ALTER TABLE zego_tasks RENAME TO elsewhere")
    with capture_logs() as logs:
        assert await service.run_once() == retention.ASK_AGAIN_SECONDS
    assert [(entry["event"], entry["next_step"]) for entry in logs] == [("not_pruned", "zego-watchdog check")]
    world.app.execute("ALTER TABLE elsewhere RENAME TO zego_tasks")
    await one_pass(service, world)
    assert known(world, "zego_tasks") == []


async def test_what_callbacks_told_goes_too_without_a_server_for_them(sqlite_world: World) -> None:
    left = [500, 3, 0]

    class Callbacks(RetentionStore):
        def prune_callbacks(self) -> int:
            return left.pop(0)

    world = sqlite_world
    threads = DatabaseThreads(world.engine, world.clock)
    service = Retention(
        retention=AsyncRetention(threads, Callbacks(world.engine)),
        keep=Keep.of_days(0, 0, 0, 0),
        instance="host/1",
        clock=world.clock,
    )
    beat(world)
    world.advance(retention.FIRST_PASS_SECONDS)
    with capture_logs() as logs:
        assert len(await one_pass(service, world)) == 3
    assert [(entry["event"], entry["callbacks"]) for entry in logs] == [("pruned", 503)]


def test_a_slow_database_gets_smaller_batches(sqlite_world: World) -> None:
    clock = SettableClock()
    service, store = made(sqlite_world, clock=clock), RetentionStore(sqlite_world.engine)
    service._pass = iter([None] * 100)
    for step, batches, rows in (
        (retention.BATCH_SECONDS * 0.9, 1, retention.MOST_ROWS),
        (retention.BATCH_SECONDS * 1.1, 20, retention.LEAST_ROWS),
        (retention.BATCH_SECONDS * 0.9, 40, retention.MOST_ROWS),
    ):
        clock.step_seconds = step
        for _ in range(batches):
            service._batch(store)
        assert service._rows == rows


# As configured


def test_by_default_months_of_history_are_kept() -> None:
    assert Config(policy=PolicyConfig(mode=Mode.OBSERVE)).retention.model_dump() == {
        "tasks_days": 90,
        "attempts_days": 400,
        "events_days": 30,
        "spells_days": 90,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{tasks_days: -1}", "retention.tasks_days: '-1' is refused; write 0 or more"),
        ("{attempts_days: 6}", "retention.attempts_days: 6 is too few: status and check read the last 7 days"),
        ("{events_days: 1}", "retention.events_days: 1 is too few: an event is delivered within 24 hours"),
        ("{tasks_days: 1.5}", "retention.tasks_days: '1.5' is refused"),
        ("{task_days: 1}", "retention.task_days: unknown key; did you mean tasks_days?"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"policy: {{mode: observe}}\nretention: {text}\n")
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace("?", r"\?")):
        load(file, {})


async def test_a_daemon_has_the_job_and_the_ages_that_were_configured(sqlite_world: World, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("policy: {mode: observe}\nretention: {tasks_days: 3, attempts_days: 0}\n")
    world = sqlite_world
    stopped(world, "old")
    world.advance(4 * DAY)
    async with bench(world, config=load(file, {})) as it:
        world.heartbeats.beat(it.parts.daemon, 60, fresh=True)
        world.advance(retention.FIRST_PASS_SECONDS)
        world.heartbeats.beat(it.parts.daemon, 60, fresh=False)
        while await it.parts.retention.run_once() < retention.PASS_SECONDS:
            pass
    assert known(world, "zego_tasks") == []
    assert known(world, "zego_stop_attempts") == ["old"]


# What it costs


@pytest.fixture
def crowded(database_url: str) -> Iterator[tuple[sa.Engine, int]]:
    """Twenty thousand tasks in real time, every second of them ended and old, each with two attempts."""
    engine = open_engine(database_url, must_exist=False)
    try:
        schema.migrate(engine)
        number, step = 20_000, 2_000
        # In steps: on a busy machine a statement for all of them may take longer than a statement may.
        for first in range(1, number, step):
            with writing(engine) as connection:
                for statement in crowd(engine.dialect.name, first, first + step - 1):
                    connection.exec_driver_sql(statement)
        yield engine, number
    finally:
        engine.dispose()


def crowd(dialect: str, first: int, last: int) -> Sequence[str]:
    """Statements that fill the tables with old rows of these numbers."""
    if dialect == "sqlite":
        series = f"WITH RECURSIVE s (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last})"
        old, source = "'2020-01-01 00:00:00.000000'", "s"
    else:
        series, old, source = "", "'2020-01-01 00:00Z'::timestamptz", f"generate_series({first}, {last}) AS s (n)"
    # No percent sign: PostgreSQL's driver takes it for a parameter.
    task = "'task-' || (n * 7919 - n * 7919 / 1000003 * 1000003)"
    status = "CASE WHEN n / 2 * 2 = n THEN 'active' ELSE 'stopped' END"
    columns = f"{series} SELECT {task}, 'room-' || n, {status}, {old} FROM {source}"
    return [
        f"INSERT INTO zego_tasks (task_id, room_id, status, ended_at) {columns}",
        *(
            "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, recorded_at)"
            f" {series} SELECT {task}, 'asr', 'room-' || n, 'empty_room', '{outcome}', 'x', {old} FROM {source}"
            for outcome in ("retry", "stopped")
        ),
    ]


async def test_a_crowded_database_is_pruned_in_short_batches(crowded: tuple[sa.Engine, int]) -> None:
    engine, number = crowded
    clock = SystemClock()
    store = RetentionStore(engine)
    before = Tasks(engine, "").now() - timedelta(days=500)
    took: list[float] = []
    tasks = attempts = 0
    task_id: str | None = ""
    while task_id is not None:
        began = clock.monotonic()
        batch = store.prune_tasks(task_id, retention.MOST_ROWS, before, Kept())
        took.append(clock.monotonic() - began)
        task_id, tasks = batch.after, tasks + batch.tasks
    attempt_id: int | None = 0
    while attempt_id is not None:
        began = clock.monotonic()
        ledger = store.prune_attempts(attempt_id, retention.MOST_ROWS, before, Kept())
        took.append(clock.monotonic() - began)
        attempt_id, attempts = ledger.after, attempts + ledger.attempts
    assert (tasks, attempts) == (number // 2, number)
    # The median, and much more than the bound: these machines are shared.
    assert sorted(took)[len(took) // 2] < 5 * retention.BATCH_SECONDS
