"""The one suite of the store, run on both databases: what each call does, and what it leaves alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Reply, Source, Status
from watchdog.core.outcomes import TASK_BECOMES
from watchdog.core.policy import Plan
from watchdog.core.timing import LEAD_SECONDS
from watchdog.store.aio.answer_journal import Closing
from watchdog.store.attempts import Written
from watchdog.store.statements import ALIVE_SECONDS, DETAIL_LEASE_EXPIRED, FORGET_DAEMON_SECONDS
from watchdog.store.tasks import (
    Answer,
    Claim,
    Daemon,
    Intent,
    Sent,
    SetAside,
    Store,
)

APP = 12345
LEASE = 20.0
REPLY = Reply(
    http_status=200,
    code="0",
    message="Success",
    request_id="003151527792559699732",
    data=None,
    excerpt=None,
    clock_offset_seconds=None,
)
_tokens = (f"host/1/{number}" for number in count())


def empty(world: World, task_id: str = "task", room_id: str | None = None, **columns: Any) -> None:
    """Bring about a task that people have just left."""
    world.app.start(task_id, room_id or task_id, user_count=1, **columns)
    world.app.people(room_id or task_id, 0)


def plan(world: World, task_id: str = "task", *, due: float = 45, auto_stop: float = 150) -> int:
    """Plan a task, in seconds from now; return how many plans were taken."""
    since = world.task(task_id)["empty_since"]
    return world.store.save_plans([Plan(task_id, since, world.ahead(due), world.ahead(auto_stop))])


def due(world: World, task_id: str = "task", *, auto_stop: float = 105, **columns: Any) -> None:
    """Bring about a task that is due now."""
    empty(world, task_id, **columns)
    assert plan(world, task_id, due=0, auto_stop=auto_stop) == 1


def take(store: Store, limit: int = 100, **columns: Any) -> list[Claim]:
    options = {"lease_seconds": LEASE, "default_app": APP, **columns}
    return store.claim(next(_tokens), limit=limit, **options)[1]


def take_one(world: World) -> Claim:
    (claim,) = take(world.store)
    return claim


def names(claims: list[Claim]) -> list[str]:
    return [claim.task.task_id for claim in claims]


def intent(world: World, claim: Claim, evidence: Evidence | None = None) -> Intent:
    return Intent(
        claim, APP, Reason.EMPTY_ROOM, evidence or Evidence(0, world.now, Source.API), claim.task.auto_stop_at
    )


def send(world: World, claim: Claim, evidence: Evidence | None = None) -> Sent:
    (sent,) = world.store.intend([intent(world, claim, evidence)])
    assert sent is not None
    return sent


def answer(world: World, claim: Claim, sent: Sent, outcome: Outcome, *, wake: float = 2.0) -> Answer:
    replied = outcome is not Outcome.UNKNOWN
    return Answer(
        claim=claim,
        sent=sent,
        outcome=outcome,
        replied_at=world.now if replied else None,
        reply=REPLY if replied else None,
        detail=None if replied else "no answer",
        status=TASK_BECOMES[outcome],
        wake_seconds=wake,
    )


def aside(
    world: World,
    claim: Claim,
    outcome: Outcome | None,
    detail: str = "unconfirmed",
    *,
    observed: Evidence | None = None,
    wake: float = 10.0,
) -> None:
    evidence = observed or claim.task.evidence
    world.store.set_aside([SetAside(claim, APP, outcome, Reason.EMPTY_ROOM, detail, evidence, observed, wake)])


class TestPeek:
    def test_an_empty_table_holds_nothing_to_do(self, world: World) -> None:
        peek = world.store.peek()
        assert (peek.now, peek.newly_empty, peek.wake_at) == (world.now, False, None)
        assert world.store.now() == world.now

    def test_rooms_that_are_occupied_or_unknown_are_nothing_to_do(self, world: World) -> None:
        world.app.start("unknown")
        world.app.start("occupied", user_count=1)
        peek = world.store.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, None)

    def test_an_empty_room_is_news_until_it_is_planned(self, world: World) -> None:
        empty(world)
        assert world.store.peek().newly_empty
        plan(world, due=45)
        peek = world.store.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, world.ahead(45))

    def test_the_next_time_is_the_soonest_of_a_plan_a_lease_or_a_retry(self, world: World) -> None:
        due(world, "leased")
        take(world.store)
        empty(world, "planned")
        plan(world, "planned", due=45)
        assert world.store.peek().wake_at == world.ahead(LEASE)

    def test_an_ended_task_is_nothing_to_do(self, world: World) -> None:
        empty(world)
        due(world, "due")
        world.app.release("task")
        world.app.release("due")
        peek = world.store.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, None)


class TestPlans:
    def test_the_longest_empty_come_first(self, world: World) -> None:
        for task_id in ("b", "a", "c"):
            empty(world, task_id)
            world.advance(1)
        now, found = world.store.newly_empty(2)
        assert now == world.now
        assert [task.task_id for task in found] == ["b", "a"]
        assert found[0].empty_since == world.ago(3)
        assert found[0].status is Status.ACTIVE

    def test_a_plan_is_stored_once(self, world: World) -> None:
        empty(world)
        assert plan(world, due=45, auto_stop=150) == 1
        row = world.task("task")
        assert (row["due_at"], row["wake_at"], row["auto_stop_at"]) == (
            *(world.ahead(45), world.ahead(45)),
            world.ahead(150),
        )
        assert plan(world, due=50) == 0, "another daemon was quicker"
        assert world.task("task") == row

    def test_a_plan_for_an_emptiness_that_is_over_is_not_stored(self, world: World) -> None:
        for task_id in ("refilled", "emptied again", "ended", "still"):
            empty(world, task_id)
        plans = [
            Plan(task.task_id, world.now, world.ahead(45), world.ahead(150)) for task in world.store.newly_empty(9)[1]
        ]
        world.advance(1)
        world.app.people("refilled", 1)
        world.app.people("emptied again", 1)
        world.app.people("emptied again", 0)
        world.app.release("ended")
        assert world.store.save_plans(plans) == 1
        assert world.task("still")["due_at"] == world.ahead(44)
        assert {world.task(task_id)["due_at"] for task_id in ("refilled", "emptied again", "ended")} == {None}

    def test_no_plans_are_no_work(self, world: World) -> None:
        assert world.store.save_plans([]) == 0


class TestClaim:
    def test_only_what_is_due(self, world: World) -> None:
        empty(world)
        plan(world, due=45)
        world.advance(45 - LEAD_SECONDS - 0.001)
        assert take(world.store) == []
        assert not world.store.peek().due
        world.advance(0.001)
        assert world.store.peek().due, "a moment early, to be ready in time"
        claim = take_one(world)
        assert claim.task.task_id == "task"
        assert claim.earlier_unknown is False
        row = world.task("task")
        assert (row["claimed_by"], row["wake_at"]) == (claim.token, world.ahead(LEASE))

    def test_leases_and_retries_are_not_taken_up_a_moment_early(self, world: World) -> None:
        due(world, "leased")
        due(world, "again")
        leased, again = sorted(take(world.store), key=lambda claim: claim.task.task_id != "leased")
        send(world, leased)
        aside(world, again, None, wake=LEASE)
        world.advance(LEASE - 0.001)
        assert (take(world.store), world.store.peek().due) == ([], False)
        world.advance(0.001)
        assert names(take(world.store)) == ["again", "leased"]

    def test_what_the_vendor_ends_first_comes_first(self, world: World) -> None:
        for task_id, auto_stop in (("c", 30.0), ("a", 10.0), ("d", 40.0), ("b", 20.0)):
            due(world, task_id, auto_stop=auto_stop)
        assert names(take(world.store, 3)) == ["a", "b", "c"]
        assert names(take(world.store, 3)) == ["d"]

    def test_a_lapsed_lease_without_a_plan_comes_last(self, world: World) -> None:
        due(world, "refilled")
        take(world.store)
        world.app.people("refilled", 5)
        due(world, "due", auto_stop=1000)
        world.advance(LEASE)
        assert names(take(world.store, 1)) == ["due"]
        assert names(take(world.store, 1)) == ["refilled"]

    def test_the_apps_of_a_blocked_breaker_are_left_alone(self, world: World) -> None:
        due(world, "default")
        due(world, "other", app_id=7)
        assert names(take(world.store, except_apps={APP, 8})) == ["other"]
        assert names(take(world.store, except_apps={APP})) == []
        assert names(take(world.store, except_apps={7})) == ["default"]

    def test_tasks_of_no_app_at_all_are_claimed_too(self, world: World) -> None:
        due(world, "nobody's")
        due(world, "other", app_id=7)
        assert names(take(world.store, default_app=None, except_apps={7})) == ["nobody's"]

    def test_of_one_app_only(self, world: World) -> None:
        due(world, "default", auto_stop=10)
        due(world, "other", app_id=7)
        assert names(take(world.store, only_app=7)) == ["other"]
        assert names(take(world.store, only_app=7)) == []
        assert names(take(world.store, only_app=APP)) == ["default"]

    def test_a_lease_keeps_others_away_until_it_ends(self, world: World) -> None:
        due(world)
        first = take_one(world)
        world.advance(LEASE - 0.001)
        assert take(world.another_store("host/2")) == []
        world.advance(0.001)
        (second,) = take(world.another_store("host/2"))
        assert second.token != first.token
        assert world.task("task")["claimed_by"] == second.token

    def test_a_lease_taken_over_makes_an_open_request_unknown(self, world: World) -> None:
        due(world)
        due(world, "untried")
        first, untried = take(world.store)
        send(world, first)
        assert (first.task.task_id, untried.task.task_id) == ("task", "untried")
        world.advance(LEASE)
        claims = take(world.store)
        assert [(claim.task.task_id, claim.earlier_unknown) for claim in claims] == [("task", True), ("untried", False)]
        (attempt,) = world.attempts("task")
        assert (attempt["outcome"], attempt["detail"]) == ("unknown", DETAIL_LEASE_EXPIRED)

    def test_an_unknown_request_is_remembered_through_later_ones(self, world: World) -> None:
        due(world)
        for outcome, unknown in ((Outcome.RETRY, False), (Outcome.UNKNOWN, False), (Outcome.RETRY, True)):
            claim = take_one(world)
            assert claim.earlier_unknown is unknown
            world.store.record([answer(world, claim, send(world, claim), outcome, wake=1)])
            world.advance(1)
        assert take_one(world).earlier_unknown is True

    def test_one_by_name_due_or_not(self, world: World) -> None:
        world.app.start("task")
        claim = world.store.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        assert (claim.task.task_id, claim.token) == ("task", "token")
        assert world.task("task")["wake_at"] == world.ahead(LEASE)
        assert world.store.claim_one("task", "another", lease_seconds=LEASE) is None
        world.advance(LEASE)
        assert world.store.claim_one("task", "another", lease_seconds=LEASE) is not None

    def test_one_that_is_not_there_or_over(self, world: World) -> None:
        world.app.start("ended", status="stopped")
        for task_id in ("ended", "absent"):
            assert world.store.claim_one(task_id, "token", lease_seconds=LEASE) is None

    def test_a_row_that_somebody_has_locked_keeps_nobody_waiting(self, postgresql_world: World) -> None:
        world = postgresql_world
        for task_id in ("a", "locked", "z"):
            due(world, task_id)
        world.app.execute("BEGIN")
        world.app.change("locked", user_count_source="app")
        assert names(take(world.store)) == ["a", "z"]
        world.app.execute("COMMIT")
        assert names(take(world.store)) == ["locked"]

    def test_daemons_that_claim_at_once_share_no_task(self, world: World) -> None:
        everything = {f"task-{number}" for number in range(200)}
        for task_id in everything:
            due(world, task_id)
        stores = [world.store, *(world.another_store(f"host/{number}") for number in range(2, 5))]

        def work(store: Store) -> list[str]:
            found: list[str] = []
            while claims := take(store, 7):
                found += names(claims)
            return found

        with ThreadPoolExecutor(len(stores)) as threads:
            shares = list(threads.map(work, stores))
        assert sorted(name for share in shares for name in share) == sorted(everything)


class TestIntend:
    def test_an_attempt_is_on_record_before_anything_is_sent(self, world: World) -> None:
        due(world, app_id=7)
        claim = take_one(world)
        world.advance(1)
        evidence = Evidence(0, world.ago(0.5), Source.API)
        sent = send(world, claim, evidence)
        row = world.task("task")
        assert (row["attempts"], sent.attempt, sent.sent_at) == (1, 1, world.now)
        (attempt,) = world.attempts("task")
        assert attempt == {
            "id": sent.attempt_id,
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
                take(world.another_store("host/2"))
        assert world.store.intend([intent(world, claim, evidence)]) == [None]
        assert world.attempts("task") == []
        if event != "delete":
            assert world.task("task")["attempts"] == 0

    @pytest.mark.parametrize("event", ["people", "hold", "release"])
    def test_nor_for_one_that_never_had_a_plan(self, world: World, event: str) -> None:
        world.app.start("task")
        claim = world.store.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        match event:
            case "people":
                world.app.people("room", 1)
            case "hold":
                world.app.change("task", hold_until=world.ahead(60))
            case _:
                world.app.release("task")
        assert world.store.intend([intent(world, claim)]) == [None]

    def test_a_hold_that_is_over_holds_nothing(self, world: World) -> None:
        empty(world, hold_until=world.ahead(10))
        plan(world, due=10)
        world.advance(10)
        assert send(world, take_one(world)).attempt == 1

    @pytest.mark.parametrize("hinted", [None, 3])
    def test_an_operators_order_may_rest_on_the_vendors_word_alone(self, world: World, hinted: int | None) -> None:
        world.app.start("task", user_count=hinted)
        world.advance(1)
        claim = world.store.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        send(world, claim)
        row = world.task("task")
        assert (row["user_count"], row["empty_since"], row["user_count_source"]) == (0, world.now, "api")

    def test_without_any_word_of_emptiness_nothing_is_sent(self, world: World) -> None:
        world.app.start("task", user_count=3)
        claim = world.store.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        assert world.store.intend([intent(world, claim, Evidence(0, world.now, Source.APP))]) == [None]

    def test_many_in_one_transaction_each_with_its_own_answer(self, world: World) -> None:
        for number in range(20):
            due(world, f"task-{number:02}")
        claims = sorted(take(world.store), key=lambda claim: claim.task.task_id)
        world.app.people("task-07", 1)
        sent = world.store.intend([intent(world, claim) for claim in claims])
        assert [number for number, one in enumerate(sent) if one is None] == [7]
        for claim, one in zip(claims, sent, strict=True):
            found = [row["id"] for row in world.attempts(claim.task.task_id)]
            assert found == ([] if one is None else [one.attempt_id])

    def test_none_at_all(self, world: World) -> None:
        assert world.store.intend([]) == []

    def test_requests_are_counted(self, world: World) -> None:
        due(world)
        for number in (1, 2, 3):
            claim = take_one(world)
            sent = send(world, claim)
            assert sent.attempt == number
            world.store.record([answer(world, claim, sent, Outcome.RETRY, wake=0)])
        assert [row["attempt"] for row in world.attempts("task")] == [1, 2, 3]


class TestRecord:
    @pytest.mark.parametrize("outcome", [outcome for outcome, status in TASK_BECOMES.items() if status is not None])
    def test_an_outcome_that_ends_the_task(self, world: World, outcome: Outcome) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.advance(1)
        assert world.store.record([answer(world, claim, sent, outcome)]) == [True]
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
        assert world.store.record([answer(world, claim, sent, outcome, wake=4)]) == [True]
        row = world.task("task")
        assert (row["status"], row["claimed_by"], row["wake_at"]) == ("active", None, world.ahead(4))
        assert world.attempts("task")[0]["outcome"] == outcome
        world.advance(3.999)
        assert take(world.store) == []
        world.advance(0.001)
        assert names(take(world.store)) == ["task"]

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
        assert world.store.record([answer(world, late, sent, Outcome.UNKNOWN)]) == [False], "that is no answer"
        assert world.attempts("task") == [unknown]
        assert world.store.record([answer(world, late, sent, late_outcome)]) == [False], "it had been closed"
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
            assert world.store.record([answer(world, late, sent, outcome)]) == [False]
        assert world.attempts("task") == [closed], "once, and then it is final"

    def test_an_unknown_with_an_answer_of_its_own_is_final(self, world: World) -> None:
        """As where ZEGO answered something that nobody could use."""
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        garbled = replace(REPLY, code=None, request_id=None)
        unusable = replace(answer(world, claim, sent, Outcome.UNKNOWN), reply=garbled, replied_at=world.now)
        assert world.store.record([unusable]) == [True]
        assert world.store.record([answer(world, claim, sent, Outcome.STOPPED)]) == [False]
        assert world.attempts("task")[0]["outcome"] == "unknown"

    def test_an_attempt_of_another_task_is_left_alone(self, world: World) -> None:
        """As after the database has been restored from a backup, and counts on from there."""
        due(world)
        due(world, "other")
        claim, other = sorted(take(world.store), key=lambda claim: claim.task.task_id, reverse=True)
        sent = send(world, other)
        assert world.store.record([answer(world, claim, sent, Outcome.STOPPED)]) == [False]
        assert world.attempts("other")[0]["outcome"] == "sent"

    def test_what_becomes_unknown_just_now_is_completed(self, postgresql_world: World) -> None:
        world = postgresql_world
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.execute("BEGIN")
        world.app.execute("UPDATE zego_stop_attempts SET outcome = 'unknown'")
        with ThreadPoolExecutor(1) as threads:
            recording = threads.submit(world.store.record, [answer(world, claim, sent, Outcome.RETRY)])
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
        assert world.store.record([answer(world, claim, sent, Outcome.STOPPED)]) == [True]
        assert world.task("task")["status"] == "stopped"

    def test_the_ledger_is_written_even_if_the_application_ended_the_task(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.release("task")
        before = world.task("task")
        world.advance(1)
        assert world.store.record([answer(world, claim, sent, Outcome.STOPPED)]) == [True]
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == before, "a final status never changes (I5)"

    def test_repeating_is_harmless(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        stopped = answer(world, claim, send(world, claim), Outcome.STOPPED)
        assert world.store.record([stopped]) == [True]
        before = (world.task("task"), world.attempts("task"))
        world.advance(5)
        assert world.store.record([stopped]) == [False]
        assert (world.task("task"), world.attempts("task")) == before

    def test_people_who_came_meanwhile_leave_no_reason_to_wake(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        sent = send(world, claim)
        world.app.people("task", 2)
        world.store.record([answer(world, claim, sent, Outcome.RETRY)])
        row = world.task("task")
        assert (row["claimed_by"], row["wake_at"]) == (None, None)

    def test_many_in_one_transaction(self, world: World) -> None:
        for number in range(10):
            due(world, f"task-{number}")
        claims = take(world.store)
        sent = world.store.intend([intent(world, claim) for claim in claims])
        outcomes = [Outcome.STOPPED, Outcome.RETRY] * 5
        answers = [
            answer(world, claim, one, outcome)
            for claim, one, outcome in zip(claims, sent, outcomes, strict=True)
            if one is not None
        ]
        assert world.store.record(answers) == [True] * 10
        assert [world.attempts(claim.task.task_id)[0]["outcome"] for claim in claims] == outcomes
        assert [world.task(claim.task.task_id)["status"] for claim in claims] == ["stopped", "active"] * 5


class TestReplay:
    """Answers that a process which is no more has left."""

    def left(self, world: World, outcome: Outcome) -> tuple[Claim, Closing]:
        due(world)
        claim = take_one(world)
        closing = world.store.closing(answer(world, claim, send(world, claim), outcome, wake=4))
        return claim, Closing.of_json(json.loads(json.dumps(closing.as_json())))

    @pytest.mark.parametrize("reaped", [False, True])
    def test_under_its_own_claim(self, world: World, *, reaped: bool) -> None:
        _, closing = self.left(world, Outcome.STOPPED)
        answered_at = world.now
        world.advance(LEASE + 1)
        assert len(world.store.reap(LEASE)) == 1 if reaped else True
        assert world.another_store("host/2").replay([closing]) == [Written(Reason.EMPTY_ROOM, was_open=not reaped)]
        (attempt,) = world.attempts("task")
        assert (attempt["outcome"], attempt["code"], attempt["replied_at"]) == ("stopped", "0", answered_at)
        assert (world.task("task")["status"], world.task("task")["claimed_by"]) == ("stopped", None)
        before = (world.task("task"), world.attempts("task"))
        world.advance(1)
        assert world.store.replay([closing]) == [None]
        assert (world.task("task"), world.attempts("task")) == before

    def test_of_a_task_that_nobody_holds(self, world: World) -> None:
        _, closing = self.left(world, Outcome.GONE)
        world.advance(LEASE)
        aside(world, take_one(world), None)
        assert [one is not None for one in world.store.replay([closing])] == [True]
        assert world.task("task")["status"] == "gone"

    def test_of_a_task_that_somebody_else_holds(self, world: World) -> None:
        _, closing = self.left(world, Outcome.STOPPED)
        world.advance(LEASE)
        take_one(world)
        row = world.task("task")
        assert [one is not None for one in world.store.replay([closing])] == [True]
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == row, "their own attempt will find out"

    def test_of_a_task_that_has_ended(self, world: World) -> None:
        _, closing = self.left(world, Outcome.STOPPED)
        world.app.release("task")
        row = world.task("task")
        assert [one is not None for one in world.store.replay([closing])] == [True]
        assert world.attempts("task")[0]["outcome"] == "stopped"
        assert world.task("task") == row

    @pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN])
    def test_a_task_that_goes_on_is_given_back_at_once(self, world: World, outcome: Outcome) -> None:
        _, closing = self.left(world, outcome)
        world.advance(1)
        assert [one is not None for one in world.store.replay([closing])] == [True]
        assert world.attempts("task")[0]["outcome"] == outcome
        assert names(take(world.store)) == ["task"]

    @pytest.mark.parametrize("strange", [{"task_id": "other"}, {"instance": "host/9"}, {"attempt_id": 999_999}])
    def test_what_this_database_knows_nothing_of_changes_nothing(self, world: World, strange: dict[str, Any]) -> None:
        _, closing = self.left(world, Outcome.STOPPED)
        due(world, "other")
        before = (world.task("task"), world.task("other"), world.attempts("task"))
        assert world.store.replay([replace(closing, **strange)]) == [None]
        assert (world.task("task"), world.task("other"), world.attempts("task")) == before

    def test_people_who_come_back_are_watched_for(self, world: World) -> None:
        _, closing = self.left(world, Outcome.STOPPED)
        store = world.another_store("host/2")
        store.rejoin_watch_seconds = 600
        store.replay([closing])
        assert world.app.rows("SELECT task_id FROM zego_rejoins") == [{"task_id": "task"}]


class TestSetAside:
    def test_without_an_outcome_nothing_is_said(self, world: World) -> None:
        due(world)
        aside(world, take_one(world), None, wake=7)
        row = world.task("task")
        assert (row["claimed_by"], row["wake_at"], row["attempts"]) == (None, world.ahead(7), 0)
        assert world.attempts("task") == []

    def test_people_whom_the_vendor_sees_end_the_spell(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.advance(1)
        aside(world, claim, Outcome.SPARED, "occupied", observed=Evidence(3, world.now, Source.API))
        row = world.task("task")
        assert (row["user_count"], row["user_count_source"], row["last_occupied_at"]) == (3, "api", world.now)
        assert {row[name] for name in ("empty_since", "due_at", "wake_at", "claimed_by")} == {None}
        (attempt,) = world.attempts("task")
        assert {name: attempt[name] for name in ("outcome", "detail", "evidence_source", "evidence_at", "attempt")} == {
            "outcome": "spared",
            "detail": "occupied",
            "evidence_source": "api",
            "evidence_at": world.now,
            "attempt": None,
        }
        assert (attempt["empty_since"], attempt["sent_at"], attempt["app_id"]) == (world.ago(1), None, APP)

    def test_once_per_empty_spell_and_reason(self, world: World) -> None:
        def again(outcome: Outcome, detail: str) -> None:
            world.advance(1)
            aside(world, take_one(world), outcome, detail, wake=1)

        due(world)
        for _ in range(3):
            again(Outcome.WITHHELD, "unconfirmed")
        assert len(world.attempts("task")) == 1
        again(Outcome.WITHHELD, "stale_hint")
        again(Outcome.WOULD_STOP, "stale_hint")
        again(Outcome.WITHHELD, "unconfirmed")
        assert len(world.attempts("task")) == 3
        world.app.people("task", 1)
        world.advance(1)
        world.app.people("task", 0)
        plan(world, due=0)
        again(Outcome.WITHHELD, "unconfirmed")
        again(Outcome.WITHHELD, "unconfirmed")
        found = [(row["outcome"], row["detail"]) for row in world.attempts("task")]
        assert found == [
            ("withheld", "unconfirmed"),
            ("withheld", "stale_hint"),
            ("would_stop", "stale_hint"),
            ("withheld", "unconfirmed"),
        ]

    def test_once_for_a_room_of_which_nothing_is_known(self, world: World) -> None:
        world.app.start("task")
        for token in ("a", "b"):
            claim = world.store.claim_one("task", token, lease_seconds=LEASE)
            assert claim is not None
            aside(world, claim, Outcome.WITHHELD, "no_evidence")
        (attempt,) = world.attempts("task")
        assert attempt["empty_since"] is None

    def test_a_claim_that_is_no_longer_ours_is_not_spoken_for(self, world: World) -> None:
        due(world)
        late = take_one(world)
        world.advance(LEASE)
        take(world.another_store("host/2"))
        before = world.task("task")
        aside(world, late, Outcome.SPARED, "occupied", observed=Evidence(3, world.now, Source.API))
        assert world.task("task") == before
        assert world.attempts("task") == []

    def test_a_room_that_refilled_and_emptied_meanwhile_is_planned_anew(self, world: World) -> None:
        """Its old plan is gone: left without one it would have no due time to show, and wait behind all others."""
        due(world)
        claim = take_one(world)
        world.app.people("task", 1)
        world.advance(1)
        world.app.people("task", 0)
        aside(world, claim, None)
        assert world.task("task")["wake_at"] is None
        (task,) = world.store.newly_empty(10)[1]
        assert (task.task_id, task.empty_since) == ("task", world.now)
        assert plan(world) == 1

    def test_a_task_whose_limits_changed_meanwhile_is_planned_anew(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.app.change("task", max_idle_seconds=600)
        world.store.record([answer(world, claim, Sent(0, 1, world.now), Outcome.RETRY)])
        assert [task.task_id for task in world.store.newly_empty(10)[1]] == ["task"]


class TestReap:
    def test_a_request_of_a_task_that_nobody_holds_becomes_unknown(self, world: World) -> None:
        for task_id in ("released", "deleted", "lapsed", "held"):
            due(world, task_id)
        claims = {claim.task.task_id: claim for claim in take(world.store)}
        for claim in claims.values():
            send(world, claim)
        world.app.release("released")
        world.app.execute("DELETE FROM zego_tasks WHERE task_id = ?", "deleted")
        assert world.store.reap(LEASE) == [], "their answers may still come"
        world.advance(LEASE + 1)
        # "held" is in other hands by now; who takes a task over closes its request.
        world.app.change("held", wake_at=world.ahead(LEASE))
        assert world.store.reap(LEASE) == [Reason.EMPTY_ROOM] * 3
        outcomes = {task_id: world.attempts(task_id)[0]["outcome"] for task_id in claims}
        assert outcomes == {"released": "unknown", "deleted": "unknown", "lapsed": "unknown", "held": "sent"}
        assert world.attempts("deleted")[0]["detail"] == DETAIL_LEASE_EXPIRED
        assert world.store.reap(LEASE) == []


DAEMON = Daemon(instance="host/1", host="host", pid=1, version="0.1", mode="enforce")
GAP = 60.0


class TestPulse:
    def test_the_first_daemon_begins_to_watch(self, world: World) -> None:
        pulse = world.store.pulse(DAEMON, GAP, fresh=True)
        assert (pulse.now, pulse.watching_since, pulse.alive) == (world.now, world.now, 1)

    def test_watching_goes_on_across_beats_and_restarts(self, world: World) -> None:
        begun = world.store.pulse(DAEMON, GAP, fresh=True).watching_since
        world.advance(GAP)
        assert world.store.pulse(DAEMON, GAP, fresh=False).watching_since == begun
        world.store.depart()
        world.advance(GAP)
        assert world.store.pulse(replace(DAEMON, instance="host/2"), GAP, fresh=True).watching_since == begun

    def test_after_a_gap_it_begins_anew(self, world: World) -> None:
        world.store.pulse(DAEMON, GAP, fresh=True)
        world.advance(GAP + 0.001)
        assert world.store.pulse(DAEMON, GAP, fresh=False).watching_since == world.now
        world.advance(GAP + 0.001)
        assert world.store.pulse(replace(DAEMON, instance="host/2"), GAP, fresh=True).watching_since == world.now

    def test_the_living_are_counted_and_the_dead_are_not(self, world: World) -> None:
        second = replace(DAEMON, instance="host/2")
        world.store.pulse(DAEMON, GAP, fresh=True)
        assert world.store.pulse(second, GAP, fresh=True).alive == 2
        world.advance(ALIVE_SECONDS)
        assert world.store.pulse(second, GAP, fresh=False).alive == 2
        world.advance(0.001)
        assert world.store.pulse(second, GAP, fresh=False).alive == 1

    def test_who_departs_is_not_counted_but_remembered(self, world: World) -> None:
        world.store.pulse(DAEMON, GAP, fresh=True)
        world.store.depart()
        assert world.store.pulse(replace(DAEMON, instance="host/2"), GAP, fresh=True).alive == 1
        rows = world.app.rows("SELECT instance, mode FROM zego_daemons ORDER BY instance")
        assert [tuple(row.values()) for row in rows] == [("host/1", "ended"), ("host/2", "enforce")]

    def test_a_row_that_was_deleted_comes_back_with_the_next_beat(self, world: World) -> None:
        world.store.pulse(DAEMON, GAP, fresh=True)
        world.app.execute("DELETE FROM zego_daemons")
        assert world.store.pulse(DAEMON, GAP, fresh=False).alive == 1

    def test_the_long_dead_are_forgotten(self, world: World) -> None:
        world.store.pulse(DAEMON, GAP, fresh=True)
        world.advance(FORGET_DAEMON_SECONDS - 1)
        world.store.pulse(replace(DAEMON, instance="host/2"), GAP, fresh=True)
        world.store.reap(60)
        assert len(world.app.rows("SELECT instance FROM zego_daemons")) == 2
        world.advance(2)
        world.store.reap(60)
        assert [row["instance"] for row in world.app.rows("SELECT instance FROM zego_daemons")] == ["host/2"]

    def test_a_clock_set_back_trusts_no_older_hints(self, world: World) -> None:
        begun = world.store.pulse(DAEMON, GAP, fresh=True).watching_since
        world.advance(-3600)
        assert world.store.pulse(DAEMON, GAP, fresh=False).watching_since == begun == world.now + timedelta(hours=1)
