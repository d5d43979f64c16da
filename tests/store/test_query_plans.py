"""The plans of the store's statements: a sweep costs the same however many tasks are active."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.time_travel import Stores
from watchdog.core.model import Api, Evidence, Outcome, Reason, Source
from watchdog.core.policy import Plan
from watchdog.core.presence import Facts, RoomFact
from watchdog.store import contract, schema
from watchdog.store.attempts import Ledger
from watchdog.store.callbacks import AutoStop, Callback, CallbackStore, Presence, Speech
from watchdog.store.engine import open_engine, reading, writing
from watchdog.store.events import EventStore
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Claim, Delivery, Instance, Intent, SetAside
from watchdog.store.reports.events import count_events, find_events
from watchdog.store.tasks import Tasks

ACTIVE = 5000
LEASE = 20.0
BIG = {"zego_tasks", "zego_stop_attempts", "zego_events"}
ALIASES = dict.fromkeys(("a", "n", "later"), "zego_stop_attempts")
"""What SQLite calls the ledger within the view."""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Return an engine on an empty database."""
    engine = open_engine(database_url, must_exist=False)
    yield engine
    engine.dispose()


class TestPlans:
    @pytest.fixture
    def store(self, engine: sa.Engine) -> Stores:
        """A store with many tasks, a few of which are newly empty, due, or under way."""
        schema.migrate(engine)
        with writing(engine) as connection:
            connection.execute(
                sa.text("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (:task, :room, :number)"),
                [
                    {"task": f"task-{number}", "room": f"room-{number}", "number": 0 if number < 60 else 1}
                    for number in range(ACTIVE)
                ],
            )
            connection.execute(
                sa.text(
                    "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
                    " VALUES (:task, 'asr', 'room', 'empty_room', 'stopped', 'host/1')"
                ),
                [{"task": f"earlier-{number}"} for number in range(ACTIVE)],
            )
        store = Stores(engine, Tasks(engine, "host/1"), Ledger(engine, "host/1"), Heartbeats(engine))
        now, found = store.tasks.newly_empty(40)
        plans = [Plan(task.task_id, task.empty_since, now, now) for task in found if task.empty_since is not None]
        assert store.tasks.save_plans(plans) == 40
        with writing(engine) as connection:
            connection.execute(sa.text("ANALYZE"))
        return store

    def test_no_statement_of_the_store_reads_a_whole_table(self, store: Stores) -> None:
        with recorded(store.engine) as statements:
            self.everything(store)
        assert len(statements) >= 15
        for statement, parameters in statements:
            assert not whole_tables(store.engine, statement, parameters), statement

    def test_nor_do_those_of_callbacks(self, store: Stores) -> None:
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        told = Presence(Facts(RoomFact(1, "room-7", "s", created_at=at), None), [])
        heard = Speech(1, "room-8", "task-9", at, is_person=True, discover=True)
        ended = AutoStop(1, "task-10", at, 1202, "idle")
        groups: list[list[Callback]] = [[told], [heard], [ended], [told, heard, ended]]
        for group in groups:
            with recorded(store.engine) as statements:
                CallbackStore(store.engine, "host/1", 1).receive(group)
            assert len(statements) >= 2
            for statement, parameters in statements:
                assert not whole_tables(store.engine, statement, parameters), statement

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE zego_tasks SET user_count = 0 WHERE room_id = 'room-7' AND status = 'active'",
            "UPDATE zego_tasks SET status = 'released' WHERE task_id = 'task-7'",
            "SELECT * FROM zego_stop_history WHERE task_id = 'earlier-7'",
        ],
    )
    def test_nor_do_the_applications(self, store: Stores, statement: str) -> None:
        assert not whole_tables(store.engine, statement, ())

    def test_the_least_recently_asked_are_found_by_their_index(self, store: Stores) -> None:
        """As polling asks, also right after the upgrade, when nobody has been asked about."""
        statement = (
            "SELECT task_id, room_id FROM zego_tasks WHERE status = 'active' AND asked_at < {}"
            " ORDER BY asked_at LIMIT 100"
        )
        sqlite = store.engine.dialect.name == "sqlite"
        limit = "'2026-03-01 12:00:00.000000'" if sqlite else "now()"
        for _ in ("all at once", "one after the other"):
            used, sorts = indexes_used(store.engine, statement.format(limit))
            assert (used, sorts) == ({"zego_tasks_asked"}, False)
            with writing(store.engine) as connection:
                connection.execute(sa.text("UPDATE zego_tasks SET asked_at = started_at"))
                connection.execute(sa.text("ANALYZE"))

    def test_the_question_is_answered_at_all(self, store: Stores) -> None:
        assert whole_tables(store.engine, "SELECT * FROM zego_tasks WHERE kind = 'asr'", ()) == {"zego_tasks"}

    @staticmethod
    def everything(store: Stores) -> None:
        store.tasks.peek()
        now, found = store.tasks.newly_empty(500)
        plans = [Plan(task.task_id, task.empty_since, now, now) for task in found if task.empty_since is not None]
        assert store.tasks.save_plans(plans) == 20
        _, claims = store.tasks.claim("a", limit=8, lease_seconds=LEASE, default_app=1, except_apis={Api(7, "asr")})
        assert len(claims) == 8
        _, claims = store.tasks.claim("b", limit=30, lease_seconds=LEASE, default_app=1, only_api=Api(1, "asr"))
        one = store.tasks.claim_one("task-4000", "c", lease_seconds=LEASE)
        assert one is not None
        assert store.tasks.renew(one, LEASE)
        evidence = Evidence(0, now, Source.API)

        def intent(claim: Claim) -> Intent:
            return Intent(claim, 1, Reason.EMPTY_ROOM, evidence, None)

        sent = store.ledger.intend([intent(claim) for claim in claims[:2]])
        for attempt, outcome in zip(sent, (Outcome.STOPPED, Outcome.RETRY), strict=True):
            assert attempt is not None
            store.ledger.record([attempt.answer(outcome, replied_at=now)])
        store.tasks.set_aside([SetAside(claims[3], 1, Outcome.SPARED, Reason.EMPTY_ROOM, "x", evidence, evidence, 0.0)])
        # Once more: a task that was tried before.
        store.tasks.claim("d", limit=1, lease_seconds=LEASE, default_app=1)
        store.ledger.reap(LEASE)
        store.heartbeats.beat(Instance("host/1", "host", 1, "0", "enforce"), 60.0, fresh=True)


class TestPlansOfEvents:
    @pytest.fixture
    def store(self, engine: sa.Engine) -> EventStore:
        """Many events that were delivered and handled, a few that are pending, a few that were given up."""
        schema.migrate(engine)
        store = EventStore(engine, "host/1")
        store.choose({"task.stopped": True})
        with writing(engine) as connection:
            connection.execute(
                sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES (:task, 'room')"),
                [{"task": f"task-{number}"} for number in range(ACTIVE)],
            )
            connection.execute(sa.text("UPDATE zego_tasks SET status = 'stopped'"))
            for condition, values in (
                ("> 20", "handled_at = occurred_at, delivered_at = occurred_at, attempts = 1, wake_at = NULL"),
                ("<= 5", "attempts = 9, wake_at = NULL"),
            ):
                connection.execute(sa.text(f"UPDATE zego_events SET {values} WHERE id {condition}"))
        with writing(engine) as connection:
            connection.execute(sa.text("ANALYZE"))
        return store

    def test_no_statement_reads_the_whole_table(self, store: EventStore) -> None:
        with recorded(store.engine) as statements:
            found = count_events(store.engine)
            assert (found.pending, found.undelivered) == (15, 5)
            claimed, _ = store.claim(10, LEASE)
            store.conclude(
                [
                    Delivery(claimed[0].id, delivered=True, error=None, wake_seconds=None),
                    Delivery(claimed[1].id, delivered=False, error="500", wake_seconds=5.0),
                    Delivery(claimed[2].id, delivered=False, error="500", wake_seconds=None),
                    Delivery(claimed[3].id, delivered=False, error=None, wake_seconds=5.0),
                ]
            )
            assert store.redeliver([claimed[0].id])
            assert store.choose({"task.stopped": False})
            assert len(find_events(store.engine, limit=10)[1]) == 10
            assert len(find_events(store.engine, limit=10, undelivered=True)[1]) == 6
            assert len(find_events(store.engine, limit=10, task_id="task-7")[1]) == 1
        assert len(statements) >= 15
        for statement, parameters in statements:
            # The newest come from the end of the primary key.
            if "ORDER BY zego_events.id DESC" not in statement:
                assert not whole_tables(store.engine, statement, parameters), statement

    def test_each_question_has_its_index(self, store: EventStore) -> None:
        for condition, index in (
            ("handled_at IS NULL ORDER BY id LIMIT 5", "zego_events_unhandled"),
            ("wake_at IS NULL AND delivered_at IS NULL AND attempts > 0 ORDER BY id", "zego_events_undelivered"),
            ("task_id = 'task-7' AND type = 'task.stopped'", "zego_events_task"),
        ):
            used, sorts = indexes_used(store.engine, f"SELECT * FROM zego_events WHERE {condition}")
            assert (used, sorts) == ({index}, False)

    def test_an_end_reads_no_whole_table_to_write_its_event(self, sqlite_url: str) -> None:
        """Nor does a discovery or a return; SQLite explains a trigger's statements one by one."""
        engine = open_engine(sqlite_url, must_exist=False)
        schema.migrate(engine)
        told = [
            statement
            for (kind, name), statement in contract.definitions("sqlite").items()
            if kind == "TRIGGER" and "_told" in name
        ]
        assert len(told) == 4
        for trigger in told:
            _, _, body = trigger.partition("BEGIN\n")
            statement = re.sub(r"\b(NEW|OLD)\.\w+", "'x'", body.rpartition(";")[0])
            assert not whole_tables(engine, statement, ()), statement
        engine.dispose()


Statement = tuple[str, Any]


@contextmanager
def recorded(engine: sa.Engine) -> Iterator[list[Statement]]:
    """Collect the statements that are run, each with the parameters of its first row."""
    found: list[Statement] = []

    def executed(
        _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: object
    ) -> None:
        if re.match("SELECT|UPDATE|INSERT|DELETE|WITH", statement):
            found.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    sa.event.listen(engine, "before_cursor_execute", executed)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", executed)


def whole_tables(engine: sa.Engine, statement: str, parameters: Any) -> set[str]:
    """Return which of the big tables a statement reads from one end to the other."""
    sqlite = engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN (FORMAT JSON)"
    with reading(engine) as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    found = _scanned_by_sqlite(rows) if sqlite else _scanned_by_postgresql(rows[0][0][0]["Plan"])
    return found & BIG


def indexes_used(engine: sa.Engine, statement: str) -> tuple[set[str], bool]:
    """Return the indexes that a statement is answered from, and whether its rows had to be sorted."""
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            plan = "\n".join(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}"))
            return set(re.findall(r"USING (?:COVERING )?INDEX (\w+)", plan)), "TEMP B-TREE" in plan
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
        return set(re.findall(r"(?:Scan using|Index Scan on) (\w+)", plan)), "Sort" in plan


def _scanned_by_sqlite(rows: Sequence[sa.Row[Any]]) -> set[str]:
    # To read a small partial index is as good as a search.
    small = (
        "zego_tasks_newly_empty|zego_tasks_wake|zego_tasks_bots|zego_stop_attempts_in_flight"
        "|zego_events_pending|zego_events_undelivered|zego_events_unhandled"
    )
    scans = (re.match(rf"SCAN (\w+)(?! USING (COVERING )?INDEX ({small}))\b", row.detail) for row in rows)
    return {ALIASES.get(scan[1], scan[1]) for scan in scans if scan}


def _scanned_by_postgresql(plan: dict[str, Any]) -> set[str]:
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return found.union(*(_scanned_by_postgresql(part) for part in plan.get("Plans", [])))
