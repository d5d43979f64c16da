"""Failures that the machine has found, and hard cases step by step."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.invariants.database import Driver, Trouble
from tests.invariants.machine import CROWD, SLOW_PACES
from tests.invariants.model import AFTER_CALL, Town
from tests.invariants.vendor import IS_TOLD_OF_STOP, IS_TOLD_WHO, STOPS
from watchdog.sandbox.misbehaviour import Body, Drop, Misbehaviour
from watchdog.sandbox.vendor import Action


@pytest.fixture
def town(driver: Driver) -> Iterator[Town]:
    with closing(Town(driver)) as town:
        yield town


def abandoned(town: Town) -> str:
    """A room that people have just left, 44 s ago."""
    task_id = town.start_task("red")
    town.join("red", "ann")
    town.hint("red", 1)
    town.leave("red", "ann")
    town.hint("red", 0)
    town.advance(44)
    return task_id


def ended(town: Town, task_id: str) -> tuple[str, list[str]]:
    town.settle()
    record = town.database.record
    return str(record.tasks[task_id]["status"]), [str(row["outcome"]) for row in record.attempts.values()]


@pytest.mark.parametrize(
    "how", [Misbehaviour(body=Body.HTML), Misbehaviour(body=Body.CUT), Misbehaviour(http_status=502, processed=True)]
)
def test_found_a_stop_that_a_gateway_answered_for_was_credited_to_nobody(town: Town, how: Misbehaviour) -> None:
    """The vendor had stopped the task; its reply could not be read. The next request's "no such task" is our doing."""
    task_id = abandoned(town)
    town.vendor_misbehaves(how, Action.STOP, 1)
    town.advance(30)
    assert ended(town, task_id) == ("stopped", ["retry", "stopped_earlier"])


def test_found_a_room_that_was_refused_once_was_left_to_the_vendor(town: Town) -> None:
    """One answer "parameter invalid" about a room kept its tasks from being verified for ten minutes."""
    task_id = abandoned(town)
    town.vendor_misbehaves(Misbehaviour(code=410000003), Action.USER_NUM, 1)
    town.advance(60)
    assert ended(town, task_id) == ("stopped", ["withheld", "stopped"])


def test_found_an_answer_that_came_when_the_task_was_anothers_was_forgotten(town: Town) -> None:
    """The first request stopped the task: a later "no such task" must be credited to it."""
    task_id = abandoned(town)
    first = town.processes[0]
    first.arm(IS_TOLD_OF_STOP, 0, lambda process: town.freeze(process, 21.0))
    town.start_daemon()
    town.advance(3)
    town.vendor_misbehaves(Misbehaviour(code=410000001), Action.STOP, 2)
    town.advance(60)
    status, outcomes = ended(town, task_id)
    assert (status, outcomes[-1]) == ("stopped", "stopped_earlier")


def test_a_request_refused_as_one_too_many_is_no_reason_to_take_credit(town: Town) -> None:
    task_id = abandoned(town)
    town.vendor_misbehaves(Misbehaviour(http_status=429), Action.STOP, 1)
    town.advance(1.8)
    town.stop_quietly(task_id)
    town.advance(30)
    assert ended(town, task_id) == ("gone", ["retry", "gone"])


@pytest.mark.parametrize("poll_seconds", [0, 15])
@pytest.mark.parametrize("stop", SLOW_PACES, ids=["0.2 calls a second", "0.5 calls a second"])
def test_found_each_verification_came_too_late_for_its_lease(
    driver: Driver, stop: dict[str, float], poll_seconds: float
) -> None:
    """Two daemons share the pace, and polling took every other slot: all was given back, and claimed again."""
    with closing(Town(driver, occupancy_poll_seconds=poll_seconds, stop=stop)) as town:
        town.abandon_crowd(CROWD)
        town.start_daemon()
        town.settle()
        assert {row["status"] for row in town.database.record.tasks.values()} == {"stopped"}


def test_a_lost_reply(town: Town) -> None:
    task_id = abandoned(town)
    town.vendor_misbehaves(Misbehaviour(drop_reply=Drop.AFTER), Action.STOP, 1)
    town.advance(30)
    assert ended(town, task_id) == ("stopped", ["unknown", "stopped_earlier"])


def test_a_crash_after_the_vendor_accepted(town: Town) -> None:
    task_id = abandoned(town)
    town.processes[0].arm(IS_TOLD_OF_STOP, 0, town.crash)
    town.advance(3)
    town.start_daemon()
    town.advance(40)
    assert ended(town, task_id) == ("stopped", ["unknown", "stopped_earlier"])


def test_a_crash_between_commit_and_request(town: Town) -> None:
    task_id = abandoned(town)
    town.processes[0].arm(STOPS, 0, town.crash)
    town.advance(3)
    town.start_daemon()
    town.advance(40)
    assert ended(town, task_id) == ("stopped", ["unknown", "stopped"])


def test_frozen_for_longer_than_its_lease_it_finds_another_at_work(town: Town) -> None:
    task_id = abandoned(town)
    town.processes[0].arm(IS_TOLD_WHO, 1, lambda process: town.freeze(process, 20.4))
    other = town.start_daemon()
    town.vendor_misbehaves(Misbehaviour(reply_latency_seconds=(6.0, 6.0)), Action.STOP, 1)
    town.advance(40)
    assert ended(town, task_id) == ("stopped", ["stopped"])
    assert town.vendor.stops[0].instance == other.instance


def test_people_return_between_the_answer_and_the_commit(town: Town) -> None:
    task_id = abandoned(town)

    def return_and_say_so(_process: object) -> None:
        town.join("red", "ann")
        town.hint("red", 1)

    town.processes[0].arm(IS_TOLD_WHO, 1, return_and_say_so)
    town.advance(60)
    assert ended(town, task_id) == ("active", [])
    assert not town.vendor.stops


@pytest.mark.parametrize("trouble", [Trouble.COMMIT_UNKNOWN, Trouble.COMMIT_REFUSED, Trouble.BUSY])
def test_the_answer_meets_a_failing_database(town: Town, trouble: Trouble) -> None:
    task_id = abandoned(town)
    town.processes[0].arm(IS_TOLD_OF_STOP, 0, lambda process: town.database.fail(trouble, 1, process.instance))
    town.advance(30)
    assert ended(town, task_id)[0] == "stopped"
    assert town.database.injected == 1


def test_a_commit_that_was_done_and_nobody_was_told(town: Town) -> None:
    task_id = abandoned(town)
    town.processes[0].arm(
        IS_TOLD_WHO, 0, lambda process: town.database.fail(Trouble.COMMIT_UNKNOWN, 1, process.instance)
    )
    town.advance(60)
    status, outcomes = ended(town, task_id)
    assert (status, outcomes[-1], town.database.injected) == ("stopped", "stopped", 1)


def test_a_daemon_whose_first_heartbeat_is_kept_and_not_confirmed_is_replaced(town: Town) -> None:
    """Its name is taken, though it does not know; the service manager starts another under another name."""
    (first,) = town.running
    town.crash(first)
    second = town.start_daemon()
    town.database.fail(Trouble.COMMIT_UNKNOWN, 1, second.instance)
    task_id = abandoned(town)
    town.advance(60)
    third = town.processes[-1]
    assert town.running == [third] != [second]
    assert ended(town, task_id) == ("stopped", ["stopped"])


def test_points_are_passed_in_order(town: Town) -> None:
    """What the stories above rely on: the point after an answer is a call of the store."""
    passed: list[float] = []
    abandoned(town)
    for points in range(3):
        town.processes[0].arm(IS_TOLD_WHO, points, lambda _process: passed.append(town.timeline.now))
    town.processes[0].arm(AFTER_CALL, 0, lambda _process: passed.append(0.0))
    town.advance(5)
    assert len(passed) == 4
