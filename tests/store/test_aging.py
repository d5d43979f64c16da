"""The walk of the age limit, and how the tasks that it wakes go on."""

import pytest

from tests.support.store_steps import LEASE, REPLY, answer, aside, empty, intent, plan, take, take_one
from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.store.aging import START, AgeStore
from watchdog.store.records import Intent

HOUR = 3600.0


def old(world: World, task_id: str, room_id: str | None = None, *, seconds: float = HOUR, **columns: object) -> None:
    columns = {"user_count": 1, **columns}
    world.app.start(task_id, room_id or task_id, started_at=world.ago(seconds), **columns)


def walk(world: World, limit: int) -> list[list[str]]:
    store = AgeStore(world.engine)
    parts = [store.read(START, limit, HOUR)]
    while (after := parts[-1].end) is not None:
        parts.append(store.read(after, limit, HOUR))
    return [[one.task_id for one in part.aged] for part in parts]


def test_the_walk_sees_each_old_task_once(world: World) -> None:
    for number in range(3):
        old(world, f"a{number}", "room-a")
        old(world, f"b{number}", f"room-b{number}", seconds=HOUR - 1)
    old(world, "c", "room-c")
    old(world, "ended", "room-a")
    world.app.release("ended")
    assert walk(world, 100) == [["a0", "a1", "a2", "c"]]
    # The places between the slices are within a room, too.
    assert walk(world, 2) == [["a0", "a1"], ["a2"], [], ["c"]]
    assert walk(world, 7) == [["a0", "a1", "a2", "c"], []]


def test_what_can_be_woken(world: World) -> None:
    old(world, "occupied")
    old(world, "unknown", user_count=None)
    old(world, "held", hold_until=world.ahead(1))
    old(world, "held-no-longer", hold_until=world.ago(1))
    old(world, "empty")
    world.app.people("empty", 0)
    old(world, "woken")
    store = AgeStore(world.engine)
    assert store.wake(["woken"]) == 1
    idle = {one.task_id for one in store.read(START, 100, HOUR).aged if one.is_idle}
    assert idle == {"occupied", "unknown", "held-no-longer"}
    assert store.wake(["woken", "empty", "nowhere"]) == 0
    assert store.wake([]) == 0


def test_a_woken_task_is_claimed_without_a_plan_and_given_back_asleep(world: World) -> None:
    """With a time to wake in minutes, a room that becomes empty in between would get no plan."""
    old(world, "task")
    AgeStore(world.engine).wake(["task"])
    claim = take_one(world)
    assert (claim.task.due_at, claim.task.auto_stop_at) == (None, None)
    aside(world, claim, Outcome.WITHHELD, wake=300)
    assert world.task("task")["wake_at"] is None
    world.app.people("task", 0)
    assert plan(world) == 1


def test_a_hint_of_people_takes_a_woken_task_away(world: World) -> None:
    old(world, "task")
    AgeStore(world.engine).wake(["task"])
    world.app.people("task", 2)
    assert take(world.tasks) == []


@pytest.mark.parametrize("people", [1, None, 0])
def test_an_attempt_despite_people(world: World, people: int | None) -> None:
    old(world, "task", user_count=people)
    if people == 0:
        assert plan(world, due=0) == 1
    else:
        AgeStore(world.engine).wake(["task"])
    claim = take_one(world)
    before = world.task("task")["user_count"], world.task("task")["user_count_source"]
    seen = Evidence(2, world.now, Source.API)
    (sent,) = world.ledger.intend([Intent(claim, 1, Reason.MAX_AGE, seen, None, despite_people=True)])
    assert sent is not None
    # The hint is as it was: it is not for the stop to say that people are there.
    assert (world.task("task")["user_count"], world.task("task")["user_count_source"]) == before
    assert world.ledger.record([answer(world, sent, Outcome.STOPPED)]) == [True]
    (row,) = world.attempts("task")
    assert (row["outcome"], row["reason"], row["attempt"]) == ("stopped", "max_age", 1)
    assert world.task("task")["status"] == "stopped"


def test_people_prevent_any_other_attempt(world: World) -> None:
    old(world, "task")
    AgeStore(world.engine).wake(["task"])
    claim = take_one(world)
    for source in (Source.API, Source.APP):
        seen = Evidence(2, world.now, source)
        assert world.ledger.intend([Intent(claim, 1, Reason.MAX_AGE, seen, None)]) == [None]


@pytest.mark.parametrize("what", ["hold", "limits", "owner", "end"])
def test_what_else_has_changed_still_prevents_it(world: World, what: str) -> None:
    old(world, "task", user_count=1)
    world.app.people("task", 0)
    plan(world, due=0)
    claim = take_one(world)
    match what:
        case "hold":
            world.app.change("task", hold_until=world.ahead(60))
        case "limits":
            world.app.change("task", started_at=world.now)
        case "owner":
            world.advance(LEASE + 1)
            take_one(world)
        case "end":
            world.app.release("task")
    evidence = Evidence(1, world.now, Source.API)
    assert world.ledger.intend([Intent(claim, 1, Reason.MAX_AGE, evidence, None, despite_people=True)]) == [None]


def test_people_who_were_inside_do_not_count_as_returned(world: World) -> None:
    world.ledger.rejoin_watch_seconds = 600
    old(world, "inside")
    AgeStore(world.engine).wake(["inside"])
    inside = take_one(world)
    empty(world, "left")
    plan(world, "left", due=0)
    left = take_one(world)
    evidence = Evidence(1, world.now, Source.API)
    for made in (
        Intent(inside, 1, Reason.MAX_AGE, evidence, None, despite_people=True),
        intent(world, left),
    ):
        (sent,) = world.ledger.intend([made])
        assert sent is not None
        world.ledger.record([sent.answer(Outcome.STOPPED, replied_at=world.now, reply=REPLY)])
    assert [row["task_id"] for row in world.app.rows("SELECT task_id FROM zego_rejoins")] == ["left"]


def test_its_stop_has_no_auto_stop_to_compare_with(world: World) -> None:
    old(world, "task")
    AgeStore(world.engine).wake(["task"])
    seen = Evidence(1, world.now, Source.API)
    (sent,) = world.ledger.intend([Intent(take_one(world), 1, Reason.MAX_AGE, seen, None, despite_people=True)])
    assert sent is not None
    world.ledger.record([sent.answer(Outcome.STOPPED, replied_at=world.now, reply=REPLY)])
    (row,) = world.app.rows("SELECT stops, slot_seconds_freed, no_auto_stop FROM zego_savings")
    assert (row["stops"], row["slot_seconds_freed"] or 0, row["no_auto_stop"]) == (1, 0, 1)
