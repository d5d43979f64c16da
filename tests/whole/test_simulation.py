"""A small simulation finds no fault, and would find one."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import pytest

from simulation.__main__ import main
from simulation.judge import Grace, Judge, Judgement, Watched
from simulation.run import Result, Scenario, simulate
from watchdog.core.model import Verify
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.world import Event, World

SMALL = Scenario(seed=3, rooms=150, hours=0.5)


@lru_cache
def small() -> Result:
    return simulate(SMALL)


def test_with_verification_nothing_is_stopped_wrongly_and_nothing_is_missed() -> None:
    result = small()
    found = result.judgement
    assert (found.wrong, found.missed) == ((), ())
    assert result.verdict.disagreements == ()
    assert result.silences == ()
    # And there was enough to do.
    assert found.stopped > 50
    assert found.callbacks_lost > 50
    assert found.callbacks_delivered > 1000
    assert result.verdict.spared > 0
    assert result.outcomes.get("retry", 0) + result.outcomes.get("unknown", 0) > 0
    assert result.speed > 10


def test_with_tasks_of_all_kinds_nothing_is_stopped_wrongly_and_nothing_is_missed() -> None:
    result = simulate(Scenario(seed=3, rooms=150, hours=0.5, mixed=True))
    found = result.judgement
    assert (found.wrong, found.missed, found.left_running) == ((), (), ())
    assert result.verdict.disagreements == ()
    assert result.silences == ()
    # And there was enough to do for each kind.
    stopped = Counter(
        event["kind"] for event in result.log if event["event"] == "task_stopped" and event["via"] == "api"
    )
    assert stopped.keys() == set(Kind)
    assert min(stopped.values()) > 5


def test_of_more_than_can_be_verified_in_time_some_are_stopped_all_the_time() -> None:
    """Two rooms a second are verified, and 200 come due at once: I9."""
    stop = {"requests_per_second": 100, "occupancy_requests_per_second": 0.2}
    result = simulate(Scenario(seed=1, rooms=0, hours=0.2, exodus=200, stop=stop))
    assert [str(one) for one in result.silences] == []
    assert result.judgement.stopped == 200


def test_the_same_seed_gives_the_same_run() -> None:
    one, other = (simulate(Scenario(seed=4, rooms=60, hours=0.3)) for _ in range(2))
    assert one == other
    assert [(event["at"], event["event"]) for event in one.log] == [
        (event["at"], event["event"]) for event in other.log
    ]


@pytest.mark.parametrize("on_max_age", ["stop", "stop_with_people_inside"])
def test_a_stop_for_its_age_is_wrong_only_where_people_do_not_matter(on_max_age: str) -> None:
    """I1. Half of the stops leave tasks with people in their rooms, which are spared."""
    policy: dict[str, float | str] = {"max_age_seconds": 300, "on_max_age": on_max_age}
    result = simulate(replace(SMALL, policy=policy))
    for_age = [row for row in result.attempts if row["reason"] == "max_age"]
    outcomes = {row["outcome"] for row in for_age}
    assert "stopped" in outcomes
    assert result.verdict.disagreements == ()
    assert (result.judgement.missed, result.silences) == ((), ())
    if on_max_age == "stop":
        assert result.judgement.wrong == ()
        assert "spared" in outcomes
    else:
        wrong = {finding.task_id for finding in result.judgement.wrong}
        assert wrong
        assert wrong <= {
            row["task_id"] for row in for_age if row["outcome"] in {"stopped", "unknown", "stopped_earlier"}
        }


def test_without_verification_the_ledger_is_still_true() -> None:
    result = simulate(Scenario(seed=2, rooms=150, hours=0.5, verify=Verify.OFF))
    assert result.verdict.disagreements == ()
    assert result.judgement.stopped > 50


def test_an_application_that_lies_has_unverified_tasks_stopped_wrongly() -> None:
    """The measure can fail."""
    scenario = Scenario(seed=3, rooms=60, hours=0.5, verify=Verify.OFF, wrong_hints=1.0)
    assert simulate(scenario).judgement.wrong


def test_the_command_prints_a_line_for_each_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1-2", "--rooms", "5", "--hours", "0.1", "--mode", "required"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["mode", "seed", "wrong"]
    assert [line.split()[:5] for line in lines] == [["required", str(seed), "0", "0", "0"] for seed in (1, 2)]


def judged(log: list[Event], *, watched: bool = True, verified: bool = True, outage: float | None = None) -> Judgement:
    started = next(event for event in log if event["event"] == "task_started")
    rows = [Watched(started["task_id"], started["at"], None)] if watched else []
    outages = [] if outage is None else [(outage, outage + 10)]
    judge = Judge(rows, bots=["bot-*"], grace=lambda _: Grace(45, 90), outages=outages, verified=verified)
    return judge.judge(log, log[-1]["at"])


def a_task(*, occupied: bool = True) -> tuple[World, str]:
    world = World(seed=1, max_idle_seconds=120)
    if occupied:
        world.join(1, "room", "person", 0)
    task_id = world.start(1, "room", 0)
    assert task_id is not None
    return world, task_id


def stopped_by_us(world: World, task_id: str, at: float) -> list[Event]:
    assert world.stop(1, task_id, at, request_id="r", via="api")
    world.log.append(at, "stop_requested", of_stop="r", received_at=at - 0.1)
    return list(world.log)


def answered(world: World, people: int, asked_at: float) -> None:
    world.log.append(asked_at + 0.1, "answered_who_is_there", asked_at=asked_at, people={"room": people})


@pytest.mark.parametrize(("asked_at", "raced", "wrong"), [(99.0, 1, 0), (70.0, 0, 1)])
def test_who_comes_after_the_vendor_was_asked_is_a_race(asked_at: float, raced: int, wrong: int) -> None:
    world, task_id = a_task()
    world.leave(1, "room", "person", 50)
    answered(world, 0, asked_at)
    world.join(1, "room", "person", 99.5)
    found = judged(stopped_by_us(world, task_id, 100))
    assert (found.raced, len(found.wrong)) == (raced, wrong)
    unverified = judged(list(world.log), verified=False)
    assert (unverified.raced, len(unverified.wrong)) == (0, 1)


def test_a_stop_against_the_vendors_word_is_wrong() -> None:
    world, task_id = a_task()
    answered(world, 1, 99)
    (finding,) = judged(stopped_by_us(world, task_id, 100)).wrong
    assert (finding.task_id, finding.room_id, finding.at) == (task_id, "room", 100)


@pytest.mark.parametrize("who", ["crashed", "admin", "bot"])
def test_who_is_no_person_is_not_stopped_wrongly(who: str) -> None:
    world, task_id = a_task(occupied=who == "crashed")
    if who == "crashed":
        world.crash(1, "room", "person", 20)
    else:
        world.join(1, "room", f"{who}-1", 20, 4 if who == "admin" else 1)
    found = judged(stopped_by_us(world, task_id, 100))
    assert (found.wrong, found.stopped) == ((), 1)


def test_a_user_that_a_task_brought_is_no_person() -> None:
    world = World(seed=1)
    agent = world.start(1, "room", 0, kind=Kind.AGENT)
    assert agent is not None
    found = judged(stopped_by_us(world, agent, 100))
    assert (found.wrong, found.stopped) == ((), 1)


@pytest.mark.parametrize(("kind", "missed"), [(Kind.AGENT, 1), (Kind.DIGITAL_HUMAN, 0)])
def test_only_an_end_because_of_the_room_can_be_a_miss(kind: Kind, missed: int) -> None:
    world = World(seed=1)
    world.start(1, "room", 0, kind=kind)
    world.advance(1000)
    found = judged(list(world.log))
    assert (len(found.missed), found.unwatched, found.excused) == (missed, 0, 0)


def test_lateness_is_counted_from_the_end_of_the_grace() -> None:
    world, task_id = a_task()
    world.leave(1, "room", "person", 10)
    assert judged(stopped_by_us(world, task_id, 58)).lateness == (3,)


@pytest.mark.parametrize(
    ("watched", "outage", "missed", "excused", "unwatched"),
    [(True, None, 1, 0, 0), (True, 20.0, 1, 0, 0), (True, 100.0, 0, 1, 0), (False, None, 0, 0, 1)],
)
def test_an_auto_stop_is_a_miss_unless_nothing_could_be_done(
    *, watched: bool, outage: float | None, missed: int, excused: int, unwatched: int
) -> None:
    world, _ = a_task()
    world.leave(1, "room", "person", 10)
    world.advance(200)
    found = judged(list(world.log), watched=watched, outage=outage)
    assert (len(found.missed), found.excused, found.unwatched) == (missed, excused, unwatched)


def test_what_goes_on_in_an_abandoned_room_is_left_running() -> None:
    world, task_id = a_task()
    world.join(1, "room", "bot-1", 5)
    world.leave(1, "room", "person", 10)
    world.leave(1, "elsewhere", "nobody", 1000)
    world.log.append(1000, "end")
    (finding,) = judged(list(world.log)).left_running
    assert finding.task_id == task_id


@pytest.mark.parametrize(("registered", "left"), [(True, 2), (False, 0)])
def test_nothing_is_left_running_beside_what_nobody_registered(*, registered: bool, left: int) -> None:
    """What the other task brought into the room is a person to the watchdog."""
    world, task_id = a_task()
    player = world.start(1, "room", 0, kind=Kind.PLAYER, user_id="brought")
    assert player is not None
    world.leave(1, "room", "person", 10)
    world.leave(1, "elsewhere", "nobody", 1000)
    world.log.append(1000, "end")
    rows = [Watched(one, 0, None) for one in ((task_id, player) if registered else (task_id,))]
    judge = Judge(rows, bots=[], grace=lambda _: Grace(45, 90), outages=[], verified=True)
    assert len(judge.judge(list(world.log), 1000).left_running) == left
