"""Checks the invariants after every fault: the sandbox's log against the ledger and its history.

``install`` adds a history of our own to the test's database, kept by triggers: every change of a status, an outcome or
a claim. ``inspect`` compares all of it with the invariants of design §11 and returns what does not hold, as sentences.

    I1  no stop arrived for a room in which people had been for longer than from the last look to the request
    I2  every request has its committed row, every row its final outcome, with the Code and RequestId that were answered
    I3  every task that was to be stopped has been, and by us before the vendor
    I4  no two requests of a task under way at once
    I5  no final status, and no outcome that was answered, has changed; no row of the ledger has gone
    I6  no lease was taken over before its end, and no task was ended by anybody but its holder
    I7  the database passes its integrity check, and the tables agree with each other
    I9  while something was due, a request left, or the ledger said why not, again and again: simulation/liveness.py

I8 (visible) is each test's own: it knows what must have been said.
"""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from simulation import liveness
from tests.support.running import Application
from watchdog.clock import SystemClock
from watchdog.core.model import Outcome
from watchdog.core.outcomes import TASK_BECOMES
from watchdog.sandbox.referee import judge
from watchdog.sandbox.world import Event

Row = Mapping[str, Any]

_SQLITE = """
CREATE TABLE faults_history (
    id INTEGER PRIMARY KEY, what TEXT NOT NULL, name TEXT NOT NULL, old TEXT, new TEXT, holder TEXT, lapsed INTEGER
);
CREATE TRIGGER faults_status AFTER UPDATE OF status ON zego_tasks WHEN old.status <> new.status BEGIN
    INSERT INTO faults_history (what, name, old, new, holder)
    VALUES ('status', old.task_id, old.status, new.status, old.claimed_by);
END;
CREATE TRIGGER faults_claim AFTER UPDATE OF claimed_by ON zego_tasks WHEN old.claimed_by <> new.claimed_by BEGIN
    INSERT INTO faults_history (what, name, old, new, lapsed)
    VALUES ('claim', old.task_id, old.claimed_by, new.claimed_by,
            julianday('now') - julianday(old.wake_at) >= -0.01 / 86400);
END;
CREATE TRIGGER faults_outcome AFTER UPDATE OF outcome ON zego_stop_attempts WHEN old.outcome <> new.outcome BEGIN
    INSERT INTO faults_history (what, name, old, new) VALUES ('outcome', old.id, old.outcome, new.outcome);
END;
CREATE TRIGGER faults_ledger AFTER DELETE ON zego_stop_attempts BEGIN
    INSERT INTO faults_history (what, name, old) VALUES ('deleted', old.id, old.outcome);
END;
"""

_POSTGRESQL = """
CREATE TABLE faults_history (
    id bigserial PRIMARY KEY, what text NOT NULL, name text NOT NULL, old text, new text, holder text, lapsed int
);
CREATE FUNCTION faults_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF old.status <> new.status THEN
        INSERT INTO faults_history (what, name, old, new, holder)
        VALUES ('status', old.task_id, old.status, new.status, old.claimed_by);
    END IF;
    IF old.claimed_by <> new.claimed_by THEN
        INSERT INTO faults_history (what, name, old, new, lapsed)
        VALUES ('claim', old.task_id, old.claimed_by, new.claimed_by, (old.wake_at <= clock_timestamp())::int);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER faults_task AFTER UPDATE ON zego_tasks FOR EACH ROW EXECUTE FUNCTION faults_task();
CREATE FUNCTION faults_attempt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF tg_op = 'DELETE' THEN
        INSERT INTO faults_history (what, name, old) VALUES ('deleted', old.id, old.outcome);
    ELSIF old.outcome <> new.outcome THEN
        INSERT INTO faults_history (what, name, old, new) VALUES ('outcome', old.id, old.outcome, new.outcome);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER faults_attempt AFTER UPDATE OR DELETE ON zego_stop_attempts
    FOR EACH ROW EXECUTE FUNCTION faults_attempt();
"""

_NOT_SENT = {Outcome.SPARED, Outcome.WITHHELD, Outcome.WOULD_STOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What there is to judge.

    ``stopped`` are the tasks that we must have stopped, ``kept`` those that must go on. ``killed``: a daemon was, and
    any answer may be lost. ``look_seconds`` is how old the last look into the room may be when a request arrives,
    ``request_seconds`` how long a request can be under way. From ``lively_since`` on, a Unix time, no silence may be
    longer than ``silence_seconds`` (infinite: the fault itself halts everything).
    """

    application: Application
    events: Sequence[Event]
    stopped: Sequence[str]
    kept: Sequence[str]
    killed: bool
    look_seconds: float
    request_seconds: float
    lively_since: float
    silence_seconds: float


def install(application: Application) -> None:
    """Make the database keep a history, unknown to the product."""
    if application.is_sqlite:
        with closing(sqlite3.connect(_file(application))) as connection:
            connection.executescript(_SQLITE)
    else:
        with psycopg.connect(application.url, autocommit=True) as connection:
            connection.execute(_POSTGRESQL)


def inspect(case: Case) -> list[str]:
    """Return every breach of I1 to I7 and I9 as a sentence that begins with the invariant's name."""
    attempts = case.application.attempts()
    tasks = case.application.rows("SELECT * FROM zego_tasks")
    history = case.application.rows("SELECT * FROM faults_history ORDER BY id")
    sent = [row for row in attempts if row["outcome"] not in _NOT_SENT]
    return [
        *_no_wrong_stop(case),
        *_every_request_on_record(case, attempts, sent),
        *_all_ended_as_they_should(case, tasks),
        *_one_request_at_a_time(case),
        *_final_is_final(history),
        *_only_the_holder_writes(history, sent),
        *_integrity(case.application),
        *_tables_agree(tasks, attempts),
        *_no_silence(case, tasks, attempts),
    ]


def _no_wrong_stop(case: Case) -> Iterator[str]:
    for request in _requests(case):
        if not request["people"]:
            continue
        since = _occupied_since(case.events, request["room_id"], request["processed_at"])
        for_seconds = request["received_at"] - since
        if request["accepted"] and for_seconds > case.look_seconds:
            yield f"I1 task {request['task_id']} was stopped with people in its room for {for_seconds:.3f} s."
        elif for_seconds > case.look_seconds:
            yield f"I1 a stop of {request['task_id']} arrived with people in its room for {for_seconds:.3f} s."


def _occupied_since(events: Sequence[Event], room_id: str, until: float) -> float:
    """When the stretch began in which there were people in the room all the time up to ``until``."""
    since = float("-inf")
    occupied = False
    for event in events:
        if event["event"] in {"join", "leave", "crash"} and event["room_id"] == room_id and event["at"] <= until:
            if event["people"] and not occupied:
                since = event["at"]
            occupied = bool(event["people"])
    return since


def _every_request_on_record(case: Case, attempts: Sequence[Row], sent: Sequence[Row]) -> Iterator[str]:
    # A client gives up an unreadable reply half-way: to the sandbox it looks lost.
    events = [
        {**event, "delivered": True}
        if event["event"] == "stop_requested" and not event["readable"] and event["http_status"] is not None
        else event
        for event in case.events
    ]
    for disagreement in judge(events, attempts, daemon_killed=case.killed).disagreements:
        yield f"I2 {disagreement}"
    rows: defaultdict[str, list[float]] = defaultdict(list)
    for row in sorted(sent, key=lambda row: int(row["id"])):
        rows[row["task_id"]].append(liveness.unix(row["sent_at"]))
    numbers: defaultdict[str, int] = defaultdict(int)
    for request in sorted(_requests(case), key=lambda request: float(request["received_at"])):
        task_id = request["task_id"]
        numbers[task_id] += 1
        before = sum(at <= request["received_at"] for at in rows[task_id])
        if before < numbers[task_id]:
            yield f"I2 request {numbers[task_id]} of task {task_id} arrived when the ledger had {before} rows of it."


def _all_ended_as_they_should(case: Case, tasks: Sequence[Row]) -> Iterator[str]:
    status = {row["task_id"]: row["status"] for row in tasks}
    missed = {event["task_id"] for event in case.events if event["event"] == "auto_stopped"}
    by_us = {event["task_id"] for event in case.events if event["event"] == "task_stopped" and event["via"] == "api"}
    for task_id in case.stopped:
        if task_id in missed:
            yield f"I3 task {task_id} was ended by the vendor."
        elif task_id not in by_us:
            yield f"I3 task {task_id} still runs at the vendor; its status is {status.get(task_id)}."
        elif status.get(task_id) != "stopped":
            yield f"I3 task {task_id} was stopped, and its status is {status.get(task_id)}."
    for task_id in case.kept:
        if task_id in by_us or status.get(task_id) != "active":
            yield f"I1 task {task_id} was to go on, and its status is {status.get(task_id)}."


def _one_request_at_a_time(case: Case) -> Iterator[str]:
    over: dict[str, float] = {}
    for request in sorted(_requests(case), key=lambda request: float(request["received_at"])):
        task_id, began = request["task_id"], float(request["received_at"])
        if began < over.get(task_id, 0.0):
            yield f"I4 a request of task {task_id} arrived {over[task_id] - began:.3f} s before the last one was over."
        # Once the client has given up, a request is no longer under way.
        over[task_id] = max(over.get(task_id, 0.0), min(float(request["at"]), began + case.request_seconds))


def _final_is_final(history: Sequence[Row]) -> Iterator[str]:
    for change in history:
        if change["what"] == "status" and change["old"] != "active":
            yield f"I5 task {change['name']} went from {change['old']} to {change['new']}."
        # A late answer from a daemon that was taken for dead completes the row once.
        elif change["what"] == "outcome" and change["old"] not in {Outcome.SENT, Outcome.UNKNOWN}:
            yield f"I5 attempt {change['name']} went from {change['old']} to {change['new']}."
        elif change["what"] == "deleted":
            yield f"I5 attempt {change['name']} has gone; it was {change['old']}."


def _only_the_holder_writes(history: Sequence[Row], sent: Sequence[Row]) -> Iterator[str]:
    last = {row["task_id"]: row for row in sorted(sent, key=lambda row: int(row["id"]))}
    for change in history:
        task_id = change["name"]
        if change["what"] == "claim" and not change["lapsed"]:
            yield f"I6 task {task_id} was taken from {change['old']} by {change['new']} within the lease."
        elif change["what"] == "status" and change["new"] != "released":
            row = last.get(task_id)
            holder = str(change["holder"]).partition("/")[0]
            if row is None or TASK_BECOMES[Outcome(row["outcome"])] != change["new"]:
                yield f"I6 task {task_id} became {change['new']}, which no attempt says."
            elif row["instance"] != holder:
                yield f"I6 task {task_id} was held by {holder}, and {row['instance']} ended it."


def _integrity(application: Application) -> Iterator[str]:
    if application.is_sqlite:
        with closing(sqlite3.connect(_file(application), timeout=10)) as connection:
            for (said,) in connection.execute("PRAGMA integrity_check"):
                if said != "ok":
                    yield f"I7 integrity_check: {said}"
            for violation in connection.execute("PRAGMA foreign_key_check"):
                yield f"I7 foreign_key_check: {violation}"
        return
    # amcheck is not part of the tests' server: the tables by themselves, and by each of their indexes, must agree.
    with psycopg.connect(application.url, autocommit=True) as connection:
        for table, key in (("zego_tasks", "task_id"), ("zego_stop_attempts", "id")):
            counts = []
            for scan in ("enable_indexscan = off; SET enable_indexonlyscan = off", "enable_seqscan = off"):
                connection.execute("RESET ALL")
                connection.execute(f"SET {scan}")
                counts.append(connection.execute(f"SELECT count(*), min({key}), max({key}) FROM {table}").fetchone())
            if counts[0] != counts[1]:
                yield f"I7 {table} has {counts[0]} by itself and {counts[1]} by its index."


def _tables_agree(tasks: Sequence[Row], attempts: Sequence[Row]) -> Iterator[str]:
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in attempts:
        if row["attempt"] is not None:
            numbers[row["task_id"]].append(row["attempt"])
    for task in tasks:
        counted = sorted(numbers[task["task_id"]])
        if counted != list(range(1, task["attempts"] + 1)):
            yield f"I7 task {task['task_id']} counts {task['attempts']} attempts, and the ledger has {counted}."
        if task["status"] != "active" and task["claimed_by"] is not None:
            yield f"I7 task {task['task_id']} has ended, and {task['claimed_by']} still holds it."


def _no_silence(case: Case, tasks: Sequence[Row], attempts: Sequence[Row]) -> Iterator[str]:
    if case.silence_seconds == math.inf:
        return
    yield from map(
        str,
        liveness.judge(
            tasks,
            attempts,
            [float(request["received_at"]) for request in _requests(case)],
            allowed_seconds=case.silence_seconds,
            since=case.lively_since,
            until=SystemClock().time(),
        ),
    )


def _requests(case: Case) -> list[Event]:
    return [event for event in case.events if event["event"] == "stop_requested" and event["task_id"] is not None]


def _file(application: Application) -> str:
    return application.url.removeprefix("sqlite:///")
