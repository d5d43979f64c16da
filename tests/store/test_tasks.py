"""The SQL of tasks, on both databases: what each call does, and what it leaves alone."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.store_steps import APP, LEASE, answer, aside, due, empty, intent, names, plan, send, take, take_one
from tests.support.time_travel import World
from watchdog.core.model import ALL_KINDS, Api, Evidence, Outcome, Source, Status
from watchdog.core.policy import Plan
from watchdog.core.timing import LEAD_SECONDS
from watchdog.store.records import DETAIL_LEASE_EXPIRED, Attempt
from watchdog.store.tasks import Tasks


class TestPeek:
    def test_an_empty_table_holds_nothing_to_do(self, world: World) -> None:
        peek = world.tasks.peek()
        assert (peek.now, peek.newly_empty, peek.wake_at) == (world.now, False, None)
        assert world.tasks.now() == world.now

    def test_rooms_that_are_occupied_or_unknown_are_nothing_to_do(self, world: World) -> None:
        world.app.start("unknown")
        world.app.start("occupied", user_count=1)
        peek = world.tasks.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, None)

    def test_an_empty_room_is_news_until_it_is_planned(self, world: World) -> None:
        empty(world)
        assert world.tasks.peek().newly_empty
        plan(world, due=45)
        peek = world.tasks.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, world.ahead(45))

    def test_the_next_time_is_the_soonest_of_a_plan_a_lease_or_a_retry(self, world: World) -> None:
        due(world, "leased")
        take(world.tasks)
        empty(world, "planned")
        plan(world, "planned", due=45)
        assert world.tasks.peek().wake_at == world.ahead(LEASE)

    def test_an_ended_task_is_nothing_to_do(self, world: World) -> None:
        empty(world)
        due(world, "due")
        world.app.release("task")
        world.app.release("due")
        peek = world.tasks.peek()
        assert (peek.newly_empty, peek.wake_at) == (False, None)


class TestPlans:
    def test_the_longest_empty_come_first(self, world: World) -> None:
        for task_id in ("b", "a", "c"):
            empty(world, task_id)
            world.advance(1)
        now, found = world.tasks.newly_empty(2)
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
            Plan(task.task_id, world.now, world.ahead(45), world.ahead(150)) for task in world.tasks.newly_empty(9)[1]
        ]
        world.advance(1)
        world.app.people("refilled", 1)
        world.app.people("emptied again", 1)
        world.app.people("emptied again", 0)
        world.app.release("ended")
        assert world.tasks.save_plans(plans) == 1
        assert world.task("still")["due_at"] == world.ahead(44)
        assert {world.task(task_id)["due_at"] for task_id in ("refilled", "emptied again", "ended")} == {None}

    def test_no_plans_are_no_work(self, world: World) -> None:
        assert world.tasks.save_plans([]) == 0


class TestClaim:
    def test_only_what_is_due(self, world: World) -> None:
        empty(world)
        plan(world, due=45)
        world.advance(45 - LEAD_SECONDS - 0.001)
        assert take(world.tasks) == []
        assert not world.tasks.peek().due
        world.advance(0.001)
        assert world.tasks.peek().due, "a moment early, to be ready in time"
        claim = take_one(world)
        assert claim.task.task_id == "task"
        assert claim.earlier_unknown is False
        row = world.task("task")
        assert (row["claimed_by"], row["wake_at"]) == (claim.token, world.ahead(LEASE))

    def test_leases_and_retries_are_not_taken_up_a_moment_early(self, world: World) -> None:
        due(world, "leased")
        due(world, "again")
        leased, again = sorted(take(world.tasks), key=lambda claim: claim.task.task_id != "leased")
        send(world, leased)
        aside(world, again, None, wake=LEASE)
        world.advance(LEASE - 0.001)
        assert (take(world.tasks), world.tasks.peek().due) == ([], False)
        world.advance(0.001)
        assert names(take(world.tasks)) == ["again", "leased"]

    def test_what_the_vendor_ends_first_comes_first(self, world: World) -> None:
        for task_id, auto_stop in (("c", 30.0), ("a", 10.0), ("d", 40.0), ("b", 20.0)):
            due(world, task_id, auto_stop=auto_stop)
        assert names(take(world.tasks, 3)) == ["a", "b", "c"]
        assert names(take(world.tasks, 3)) == ["d"]

    def test_a_lapsed_lease_without_a_plan_comes_last(self, world: World) -> None:
        due(world, "refilled")
        take(world.tasks)
        world.app.people("refilled", 5)
        due(world, "due", auto_stop=1000)
        world.advance(LEASE)
        assert names(take(world.tasks, 1)) == ["due"]
        assert names(take(world.tasks, 1)) == ["refilled"]

    def test_the_apps_of_a_blocked_breaker_are_left_alone(self, world: World) -> None:
        due(world, "default")
        due(world, "other", app_id=7)
        assert names(take(world.tasks, except_apis={Api(APP, ALL_KINDS), Api(8, "asr")})) == ["other"]
        assert names(take(world.tasks, except_apis={Api(APP, ALL_KINDS)})) == []
        assert names(take(world.tasks, except_apis={Api(7, "asr")})) == ["default"]

    def test_tasks_of_no_app_at_all_are_claimed_too(self, world: World) -> None:
        due(world, "nobody's")
        due(world, "other", app_id=7)
        assert names(take(world.tasks, default_app=None, except_apis={Api(7, "asr")})) == ["nobody's"]

    def test_of_one_app_only(self, world: World) -> None:
        due(world, "default", auto_stop=10)
        due(world, "other", app_id=7)
        assert names(take(world.tasks, only_api=Api(7, ALL_KINDS))) == ["other"]
        assert names(take(world.tasks, only_api=Api(7, ALL_KINDS))) == []
        assert names(take(world.tasks, only_api=Api(APP, "asr"))) == ["default"]

    def test_a_lease_keeps_others_away_until_it_ends(self, world: World) -> None:
        due(world)
        first = take_one(world)
        world.advance(LEASE - 0.001)
        assert take(world.another_store("host/2").tasks) == []
        world.advance(0.001)
        (second,) = take(world.another_store("host/2").tasks)
        assert second.token != first.token
        assert world.task("task")["claimed_by"] == second.token

    def test_a_lease_taken_over_makes_an_open_request_unknown(self, world: World) -> None:
        due(world)
        due(world, "untried")
        first, untried = take(world.tasks)
        send(world, first)
        assert (first.task.task_id, untried.task.task_id) == ("task", "untried")
        world.advance(LEASE)
        claims = take(world.tasks)
        assert [(claim.task.task_id, claim.earlier_unknown) for claim in claims] == [("task", True), ("untried", False)]
        (attempt,) = world.attempts("task")
        assert (attempt["outcome"], attempt["detail"]) == ("unknown", DETAIL_LEASE_EXPIRED)

    def test_an_unknown_request_is_remembered_through_later_ones(self, world: World) -> None:
        due(world)
        for outcome, unknown in ((Outcome.RETRY, False), (Outcome.UNKNOWN, False), (Outcome.RETRY, True)):
            claim = take_one(world)
            assert claim.earlier_unknown is unknown
            world.ledger.record([answer(world, send(world, claim), outcome, wake=1)])
            world.advance(1)
        assert take_one(world).earlier_unknown is True

    def test_one_by_name_due_or_not(self, world: World) -> None:
        world.app.start("task")
        claim = world.tasks.claim_one("task", "token", lease_seconds=LEASE)
        assert claim is not None
        assert (claim.task.task_id, claim.token) == ("task", "token")
        assert world.task("task")["wake_at"] == world.ahead(LEASE)
        assert world.tasks.claim_one("task", "another", lease_seconds=LEASE) is None
        world.advance(LEASE)
        assert world.tasks.claim_one("task", "another", lease_seconds=LEASE) is not None

    def test_a_lease_is_renewed_as_long_as_nobody_else_has_the_task(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.advance(LEASE + 1)
        assert world.tasks.renew(claim, LEASE) is True
        assert world.task("task")["wake_at"] == world.ahead(LEASE)
        assert take(world.tasks) == []
        world.advance(LEASE)
        other = take_one(world)
        assert world.tasks.renew(claim, LEASE) is False
        assert world.task("task")["claimed_by"] == other.token
        world.app.release("task")
        assert world.tasks.renew(other, LEASE) is False

    def test_one_that_is_not_there_or_over(self, world: World) -> None:
        world.app.start("ended", status="stopped")
        for task_id in ("ended", "absent"):
            assert world.tasks.claim_one(task_id, "token", lease_seconds=LEASE) is None

    def test_a_row_that_somebody_has_locked_keeps_nobody_waiting(self, postgresql_world: World) -> None:
        world = postgresql_world
        for task_id in ("a", "locked", "z"):
            due(world, task_id)
        world.app.execute("BEGIN")
        world.app.change("locked", user_count_source="app")
        assert names(take(world.tasks)) == ["a", "z"]
        world.app.execute("COMMIT")
        assert names(take(world.tasks)) == ["locked"]

    def test_daemons_that_claim_at_once_share_no_task(self, world: World) -> None:
        everything = {f"task-{number}" for number in range(200)}
        for task_id in everything:
            due(world, task_id)
        stores = [world.tasks, *(world.another_store(f"host/{number}").tasks for number in range(2, 5))]

        def work(tasks: Tasks) -> list[str]:
            found: list[str] = []
            while claims := take(tasks, 7):
                found += names(claims)
            return found

        with ThreadPoolExecutor(len(stores)) as threads:
            shares = list(threads.map(work, stores))
        assert sorted(name for share in shares for name in share) == sorted(everything)


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
            claim = world.tasks.claim_one("task", token, lease_seconds=LEASE)
            assert claim is not None
            aside(world, claim, Outcome.WITHHELD, "no_evidence")
        (attempt,) = world.attempts("task")
        assert attempt["empty_since"] is None

    def test_a_claim_that_is_no_longer_ours_is_not_spoken_for(self, world: World) -> None:
        due(world)
        late = take_one(world)
        world.advance(LEASE)
        take(world.another_store("host/2").tasks)
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
        (task,) = world.tasks.newly_empty(10)[1]
        assert (task.task_id, task.empty_since) == ("task", world.now)
        assert plan(world) == 1

    def test_a_task_whose_limits_changed_meanwhile_is_planned_anew(self, world: World) -> None:
        due(world)
        claim = take_one(world)
        world.app.change("task", max_idle_seconds=600)
        attempt = Attempt(intent(world, claim), id=0, number=1, sent_at=world.now, instance="host/1")
        world.ledger.record([answer(world, attempt, Outcome.RETRY)])
        assert [task.task_id for task in world.tasks.newly_empty(10)[1]] == ["task"]
