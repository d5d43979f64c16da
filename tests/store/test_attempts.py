"""The SQL of the ledger, on both databases: attempts are committed, closed once, and completed at most once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.support.store_steps import (
    APP,
    LEASE,
    answer,
    aside,
    due,
    empty,
    intent,
    names,
    plan,
    send,
    take,
    take_one,
)
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.core.outcomes import TASK_BECOMES
from watchdog.store.records import DETAIL_LEASE_EXPIRED, Answer


class TestIntend:
    def test_an_attempt_is_on_record_before_anything_is_sent(self, world: World) -> None:
        due(world, app_id=7)
        claim = take_one(world)
        world.advance(1)
        evidence = Evidence(0, world.ago(0.5), Source.API)
        sent = send(world, claim, evidence)
        row = world.task("task")
        assert (row["attempts"], sent.number, sent.sent_at) == (1, 1, world.now)
        (attempt,) = world.attempts("task")
        assert attempt == {
            "id": sent.id,
            "task_id": "task",
            "kind": "asr",
            "app_id": APP,
            "room_id": "task",
            "attempt": 1,
            "reason": "empty_room",
            "evidence_source": "api",
            "evidence_at": world.ago(0.5),
            "empty_since": world.ago(1),
            "due_at": world.ago(1),
            "auto_stop_at": world.ahead(104),
            "sent_at": world.now,
            "replied_at": None,
            "http_status": None,
            "code": None,
            "message": None,
            "request_id": None,
            "outcome": "sent",
            "detail": None,
            "instance": "host/1",
            "recorded_at": world.now,
        }

    def test_the_vendors_word_refreshes_the_hint(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.advance(5)
        send(world, claim, Evidence(0, world.ago(1), Source.API))
        row = world.task("task")
        assert (row["user_count"], row["user_count_at"], row["user_count_source"]) == (0, world.ago(1), "api")
        assert row["empty_since"] == world.ago(5)

    def test_a_hint_as_evidence_refreshes_nothing(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        before = world.task("task")
        world.advance(5)
        send(world, claim, claim.task.evidence)
        assert world.task("task")["user_count_at"] == before["user_count_at"]

    def test_an_older_word_of_the_vendor_leaves_a_newer_hint(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.advance(5)
        world.app.people("task", 0)
        send(world, claim, Evidence(0, world.ago(1), Source.API))
        assert world.task("task")["user_count_at"] == world.now

    @pytest.mark.parametrize(
        "event",
        ["people", "nobody knows", "hold", "release", "delete", "other claim", "people who left again", "new grace"],
    )
    def test_nothing_is_sent_for_a_row_that_has_changed(self, world: World, event: str) -> None:
        due(world)
        claim = take_one(world)
        world.advance(1)
        evidence = Evidence(0, world.now, Source.API)
        world.advance(1)
        match event:
            case "people":
                world.app.people("task", 1)
            case "nobody knows":
                world.app.people("task", None)
            case "hold":
                world.app.change("task", hold_until=world.ahead(60))
            case "release":
                world.app.release("task")
            case "delete":
                world.app.execute("DELETE FROM zego_tasks")
            case "people who left again":
                world.app.people("task", 1)
                world.app.people("task", 0)
            case "new grace":
                world.app.change("task", grace_seconds=100)
            case _:
                world.advance(LEASE)
                take(world.another_store("host/2").tasks)
        assert world.ledger.intend([intent(world, claim, evidence)]) == [None]
        assert world.attempts("task") == []
        if event != "delete":
            assert world.task("task")["attempts"] == 0

    @pytest.mark.parametrize("event", ["people", "hold", "release"])
    def test_nor_for_one_that_never_had_a_plan(self, world: World, event: str) -> None:
        world.app.start("task")
        claim = world.tasks.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        match event:
            case "people":
                world.app.people("room", 1)
            case "hold":
                world.app.change("task", hold_until=world.ahead(60))
            case _:
                world.app.release("task")
        assert world.ledger.intend([intent(world, claim)]) == [None]

    def test_a_hold_that_is_over_holds_nothing(self, world: World) -> None:
        empty(world, hold_until=world.ahead(10))
        plan(world, due=10)
        world.advance(10)
        assert send(world, take_one(world)).number == 1

    @pytest.mark.parametrize("hinted", [None, 3])
    def test_an_operators_order_may_rest_on_the_vendors_word_alone(self, world: World, hinted: int | None) -> None:
        world.app.start("task", user_count=hinted)
        world.advance(1)
        claim = world.tasks.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        send(world, claim)
        row = world.task("task")
        assert (row["user_count"], row["empty_since"], row["user_count_source"]) == (0, world.now, "api")

    def test_without_any_word_of_emptiness_nothing_is_sent(self, world: World) -> None:
        world.app.start("task", user_count=3)
        claim = world.tasks.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        assert world.ledger.intend([intent(world, claim, Evidence(0, world.now, Source.APP))]) == [None]

    def test_many_in_one_transaction_each_with_its_own_answer(self, world: World) -> None:
        for number in range(20):
            due(world, f"task-{number:02}")
        claims = sorted(take(world.tasks), key=lambda claim: claim.task.task_id)
        world.app.people("task-07", 1)
        sent = world.ledger.intend([intent(world, claim) for claim in claims])
        assert [number for number, one in enumerate(sent) if one is None] == [7]
        for claim, one in zip(claims, sent, strict=True):
            found = [row["id"] for row in world.attempts(claim.task.task_id)]
            assert found == ([] if one is None else [one.id])

    def test_none_at_all(self, world: World) -> None:
        assert world.ledger.intend([]) == []

    def test_requests_are_counted(self, world: World) -> None:
        due(world)
        for number in (1, 2, 3):
            claim = take_one(world)
            sent = send(world, claim)
            assert sent.number == number
            world.ledger.record([answer(world, sent, Outcome.RETRY, wake=0)])
        assert [row["attempt"] for row in world.attempts("task")] == [1, 2, 3]


class TestRecord:
    @pytest.mark.parametrize("outcome", [outcome for outcome, status in TASK_BECOMES.items() if status is not None])
    def test_an_outcome_that_ends_the_task(self, world: World, outcome: Outcome) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.advance(1)
        assert world.ledger.record([answer(world, sent, outcome)]) == [True]
        row = world.task("task")
        assert (row["status"], row["ended_at"], row["claimed_by"], row["wake_at"]) == (
            *(TASK_BECOMES[outcome], world.now),
            *(None, None),
        )
        (attempt,) = world.attempts("task")
        assert {name: attempt[name] for name in ("outcome", "http_status", "code", "message", "request_id")} == {
            "outcome": outcome,
            "http_status": 200,
            "code": "0",
            "message": "Success",
            "request_id": "003151527792559699732",
        }
        assert attempt["replied_at"] == world.now

    @pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.BLOCKED, Outcome.WITHHELD])
    def test_an_outcome_that_leaves_it_to_another_time(self, world: World, outcome: Outcome) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        assert world.ledger.record([answer(world, sent, outcome, wake=4)]) == [True]
        row = world.task("task")
        assert (row["status"], row["claimed_by"], row["wake_at"]) == ("active", None, world.ahead(4))
        assert world.attempts("task")[0]["outcome"] == outcome
        world.advance(3.999)
        assert take(world.tasks) == []
        world.advance(0.001)
        assert names(take(world.tasks)) == ["task"]

    @pytest.mark.parametrize("late_outcome", [Outcome.STOPPED, Outcome.RETRY])
    def test_an_unknown_is_completed_by_its_own_answer_and_the_task_is_anothers(
        self, world: World, late_outcome: Outcome
    ) -> None:
        due(world)
        late = take_one(world)
        sent = send(world, late)
        world.advance(LEASE)
        claim = take_one(world)
        (unknown,) = world.attempts("task")
        row = world.task("task")
        assert world.ledger.record([answer(world, sent, Outcome.UNKNOWN)]) == [False], "that is no answer"
        assert world.attempts("task") == [unknown]
        assert world.ledger.record([answer(world, sent, late_outcome)]) == [False], "it had been closed"
        (closed,) = world.attempts("task")
        facts = {name: closed[name] for name in ("outcome", "http_status", "code", "message", "request_id")}
        assert facts == {
            "outcome": late_outcome,
            "http_status": 200,
            "code": "0",
            "message": "Success",
            "request_id": "003151527792559699732",
        }
        assert closed["replied_at"] == world.now
        assert world.task("task") == row, "a write without the current claim changes nothing (I6)"
        assert row["claimed_by"] == claim.token
        for outcome in (Outcome.STOPPED, Outcome.RETRY, Outcome.UNKNOWN):
            assert world.ledger.record([answer(world, sent, outcome)]) == [False]
        assert world.attempts("task") == [closed], "once, and then it is final"

    def test_an_unknown_with_an_answer_of_its_own_is_final(self, world: World) -> None:
        """As where ZEGO answered something that nobody could use."""
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        unusable = replace(answer(world, sent, Outcome.UNKNOWN), replied_at=world.now, http_status=200)
        assert world.ledger.record([unusable]) == [True]
        assert world.ledger.record([answer(world, sent, Outcome.STOPPED)]) == [False]
        assert world.attempts("task")[0]["outcome"] == "unknown"

    def test_an_attempt_of_another_task_is_left_alone(self, world: World) -> None:
        """As after the database has been restored from a backup, and counts on from there."""
        due(world)
        due(world, "other")
        other = min(take(world.tasks), key=lambda claim: claim.task.task_id)
        stopped = answer(world, send(world, other), Outcome.STOPPED)
        assert world.ledger.record([replace(stopped, task_id="task")]) == [False]
        assert world.attempts("other")[0]["outcome"] == "sent"

    def test_what_becomes_unknown_just_now_is_completed(self, postgresql_world: World) -> None:
        world = postgresql_world
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.execute("BEGIN")
        world.app.execute("UPDATE zego_stop_attempts SET outcome = 'unknown'")
        with ThreadPoolExecutor(1) as threads:
            recording = threads.submit(world.ledger.record, [answer(world, sent, Outcome.RETRY)])
            watching = world.connect()
            while not watching.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                assert not recording.done()
            world.app.execute("COMMIT")
            assert recording.result() == [False]
        assert world.attempts("task")[0]["outcome"] == "retry"

    def test_an_answer_within_a_lapsed_lease_that_nobody_took_counts(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.advance(LEASE * 3)
        assert world.ledger.record([answer(world, sent, Outcome.STOPPED)]) == [True]
        assert world.task("task")["status"] == "stopped"

    def test_the_ledger_is_written_even_if_the_application_ended_the_task(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.release("task")
        before = world.task("task")
        world.advance(1)
        assert world.ledger.record([answer(world, sent, Outcome.STOPPED)]) == [True]
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == before, "a final status never changes (I5)"

    def test_repeating_is_harmless(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        stopped = answer(world, send(world, claim), Outcome.STOPPED)
        assert world.ledger.record([stopped]) == [True]
        before = (world.task("task"), world.attempts("task"))
        world.advance(5)
        assert world.ledger.record([stopped]) == [False]
        assert (world.task("task"), world.attempts("task")) == before

    def test_people_who_came_meanwhile_leave_no_reason_to_wake(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.people("task", 2)
        world.ledger.record([answer(world, sent, Outcome.RETRY)])
        row = world.task("task")
        assert (row["claimed_by"], row["wake_at"]) == (None, None)

    def test_many_in_one_transaction(self, world: World) -> None:
        for number in range(10):
            due(world, f"task-{number}")
        claims = take(world.tasks)
        sent = world.ledger.intend([intent(world, claim) for claim in claims])
        outcomes = [Outcome.STOPPED, Outcome.RETRY] * 5
        answers = [answer(world, one, outcome) for one, outcome in zip(sent, outcomes, strict=True) if one is not None]
        assert world.ledger.record(answers) == [True] * 10
        assert [world.attempts(claim.task.task_id)[0]["outcome"] for claim in claims] == outcomes
        assert [world.task(claim.task.task_id)["status"] for claim in claims] == ["stopped", "active"] * 5


class TestReplay:
    """Answers that a process which is no more has left."""

    def left(self, world: World, outcome: Outcome) -> Answer:
        due(world)
        return answer(world, send(world, take_one(world)), outcome, wake=4)

    @pytest.mark.parametrize("reaped", [False, True])
    def test_under_its_own_claim(self, world: World, *, reaped: bool) -> None:
        left = self.left(world, Outcome.STOPPED)
        answered_at = world.now
        world.advance(LEASE + 1)
        assert len(world.ledger.reap(LEASE)) == 1 if reaped else True
        assert world.another_store("host/2").ledger.replay([left]) == (
            1,
            [] if reaped else [(Outcome.STOPPED, Reason.EMPTY_ROOM)],
        )
        (attempt,) = world.attempts("task")
        assert (attempt["outcome"], attempt["code"], attempt["replied_at"]) == ("stopped", "0", answered_at)
        assert (world.task("task")["status"], world.task("task")["claimed_by"]) == ("stopped", None)
        before = (world.task("task"), world.attempts("task"))
        world.advance(1)
        assert world.ledger.replay([left]) == (0, [])
        assert (world.task("task"), world.attempts("task")) == before

    def test_of_a_task_that_nobody_holds(self, world: World) -> None:
        left = self.left(world, Outcome.GONE)
        world.advance(LEASE)
        aside(world, take_one(world), None)
        assert world.ledger.replay([left])[0] == 1
        assert world.task("task")["status"] == "gone"

    def test_of_a_task_that_somebody_else_holds(self, world: World) -> None:
        left = self.left(world, Outcome.STOPPED)
        world.advance(LEASE)
        take_one(world)
        row = world.task("task")
        assert world.ledger.replay([left])[0] == 1
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == row, "their own attempt will find out"

    def test_of_a_task_that_has_ended(self, world: World) -> None:
        left = self.left(world, Outcome.STOPPED)
        world.app.release("task")
        row = world.task("task")
        assert world.ledger.replay([left])[0] == 1
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == row

    @pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN])
    def test_a_task_that_goes_on_is_given_back_at_once(self, world: World, outcome: Outcome) -> None:
        left = self.left(world, outcome)
        world.advance(1)
        assert world.ledger.replay([left])[0] == 1
        assert world.attempts("task")[0]["outcome"] == outcome
        assert names(take(world.tasks)) == ["task"]

    @pytest.mark.parametrize("strange", [{"task_id": "other"}, {"instance": "host/9"}, {"attempt_id": 999_999}])
    def test_what_this_database_knows_nothing_of_changes_nothing(self, world: World, strange: dict[str, Any]) -> None:
        left = self.left(world, Outcome.STOPPED)
        due(world, "other")
        before = (world.task("task"), world.task("other"), world.attempts("task"))
        assert world.ledger.replay([replace(left, **strange)]) == (0, [])
        assert (world.task("task"), world.task("other"), world.attempts("task")) == before

    def test_people_who_come_back_are_watched_for(self, world: World) -> None:
        left = self.left(world, Outcome.STOPPED)
        ledger = world.another_store("host/2").ledger
        ledger.rejoin_watch_seconds = 600
        ledger.replay([left])
        assert world.app.rows("SELECT task_id FROM zego_rejoins") == [{"task_id": "task"}]


class TestReap:
    def test_a_request_of_a_task_that_nobody_holds_becomes_unknown(self, world: World) -> None:
        for task_id in ("released", "deleted", "lapsed", "held"):
            due(world, task_id)
        claims = {claim.task.task_id: claim for claim in take(world.tasks)}
        for claim in claims.values():
            send(world, claim)
        world.app.release("released")
        world.app.execute("DELETE FROM zego_tasks WHERE task_id = ?", "deleted")
        assert world.ledger.reap(LEASE) == [], "their answers may still come"
        world.advance(LEASE + 1)
        # "held" is in other hands by now; who takes a task over closes its request.
        world.app.change("held", wake_at=world.ahead(LEASE))
        assert world.ledger.reap(LEASE) == [Reason.EMPTY_ROOM] * 3
        outcomes = {task_id: world.attempts(task_id)[0]["outcome"] for task_id in claims}
        assert outcomes == {"released": "unknown", "deleted": "unknown", "lapsed": "unknown", "held": "sent"}
        assert world.attempts("deleted")[0]["detail"] == DETAIL_LEASE_EXPIRED
        assert world.ledger.reap(LEASE) == []
