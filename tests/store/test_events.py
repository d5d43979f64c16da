"""Events: the switch, the claims of the webhook, and what becomes of an event."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.time_travel import World
from watchdog.store.events import EventStore
from watchdog.store.records import Delivery

ALL = {"task.stopped": True, "task.failed": False}


@pytest.fixture
def store(world: World) -> EventStore:
    return EventStore(world.engine, "host/1")


def end(world: World, *task_ids: str, status: str = "stopped") -> None:
    for task_id in task_ids:
        world.app.start(task_id)
        world.app.change(task_id, status=status)


def rows(world: World) -> list[Mapping[str, Any]]:
    return world.app.rows("SELECT * FROM zego_events ORDER BY id")


def test_without_a_choice_nothing_is_written(world: World) -> None:
    end(world, "t")
    assert rows(world) == []


def test_only_chosen_types_are_written(world: World, store: EventStore) -> None:
    assert store.choose(ALL)
    assert not store.choose(ALL)
    end(world, "t", "u")
    end(world, "v", status="failed")
    end(world, "w", status="gone")
    end(world, "x", status="released")
    found = rows(world)
    assert [(row["type"], row["task_id"]) for row in found] == [
        ("task.stopped", "t"),
        ("task.stopped", "u"),
        ("task.failed", "v"),
    ]
    assert [row["wake_at"] is not None for row in found] == [True, True, False]
    assert store.choose({"task.failed": False})
    end(world, "y")
    assert len(rows(world)) == 3


def test_older_events_are_not_delivered(world: World, store: EventStore) -> None:
    store.choose({"task.stopped": False})
    end(world, "t")
    store.choose({"task.stopped": True})
    assert store.claim(10, 30.0) == ((), None)
    end(world, "u")
    assert [event.task_id for event in store.claim(10, 30.0)[0]] == ["u"]


def test_pending_events_of_a_type_that_is_not_delivered_any_more(world: World, store: EventStore) -> None:
    store.choose(ALL)
    end(world, "t")
    store.choose({"task.stopped": False})
    assert store.claim(10, 30.0) == ((), None)
    assert [(row["wake_at"], row["attempts"]) for row in rows(world)] == [(None, 0)]


def test_a_claim_is_a_lease(world: World, store: EventStore) -> None:
    other = EventStore(world.engine, "host/2")
    store.choose(ALL)
    end(world, "t", "u", "v")
    claimed, seconds = store.claim(2, 30.0)
    assert [event.task_id for event in claimed] == ["t", "u"]
    assert seconds == 0.0
    assert [event.task_id for event in other.claim(10, 20.0)[0]] == ["v"]
    assert other.claim(10, 20.0) == ((), 20.0)
    world.advance(20)
    ((event,), _) = store.claim(10, 30.0)
    assert (event.task_id, event.attempts) == ("v", 2)
    delivery = Delivery(event.id, delivered=True, error=None, wake_seconds=None)
    # Its lease was lost.
    assert other.conclude([delivery]) == 0
    assert store.conclude([delivery]) == 1


def test_the_results(world: World, store: EventStore) -> None:
    store.choose(ALL)
    end(world, "delivered", "again", "given up", "not attempted")
    claimed, _ = store.claim(10, 30.0)
    first, second, third, fourth = (event.id for event in claimed)
    world.advance(1)
    assert (
        store.conclude(
            [
                Delivery(first, delivered=True, error=None, wake_seconds=None),
                Delivery(second, delivered=False, error="500", wake_seconds=5.0),
                Delivery(third, delivered=False, error="400 " + "x" * 600, wake_seconds=None),
                Delivery(fourth, delivered=False, error=None, wake_seconds=3.0),
            ]
        )
        == 4
    )
    found = {row["task_id"]: row for row in rows(world)}
    assert [(row["attempts"], row["claimed_by"]) for row in found.values()] == [(1, None)] * 3 + [(0, None)]
    assert [name for name, row in found.items() if row["delivered_at"] is not None] == ["delivered"]
    assert [name for name, row in found.items() if row["wake_at"] is not None] == ["again", "not attempted"]
    assert found["again"]["error"] == "500"
    assert len(found["given up"]["error"]) == 500
    assert store.claim(10, 30.0) == ((), 3.0)
    world.advance(3)
    claimed, seconds = store.claim(10, 30.0)
    assert [event.id for event in claimed] == [fourth]
    assert seconds == 2.0


def test_an_event_is_delivered_again(world: World, store: EventStore) -> None:
    store.choose(ALL)
    end(world, "t")
    ((event,), _) = store.claim(10, 30.0)
    assert store.conclude([Delivery(event.id, delivered=True, error=None, wake_seconds=None)]) == 1
    assert store.claim(10, 30.0) == ((), None)
    assert store.redeliver([event.id]) == 1
    ((again,), _) = store.claim(10, 30.0)
    assert again == event
    assert store.redeliver([event.id + 1]) == 0


def test_events_that_were_given_up_are_delivered_again(world: World, store: EventStore) -> None:
    store.choose(ALL)
    for name in ("given up", "given up, too", "delivered", "pending"):
        end(world, name)
    claimed, _ = store.claim(3, 30.0)
    store.conclude(
        [
            Delivery(event.id, delivered=event.task_id == "delivered", error="HTTP 500", wake_seconds=None)
            for event in claimed
        ]
    )
    assert [store.redeliver_undelivered(1) for _ in range(3)] == [1, 1, 0]
    found = {row["task_id"]: (row["attempts"], row["error"], row["wake_at"] is None) for row in rows(world)}
    assert found.pop("delivered") == (1, None, True)
    assert set(found.values()) == {(0, None, False)}


def test_an_event_that_the_application_is_handling_delays_no_other(postgresql_world: World) -> None:
    world = postgresql_world
    store = EventStore(world.engine, "host/1")
    store.choose(ALL)
    end(world, "t", "u", "v")
    claimed, _ = store.claim(2, 30.0)
    world.app.execute("BEGIN")
    world.app.rows("SELECT id FROM zego_events WHERE task_id IN ('t', 'v') FOR UPDATE")
    results = [Delivery(event.id, delivered=True, error=None, wake_seconds=None) for event in claimed]
    assert store.conclude(results) == 1
    assert store.claim(10, 30.0)[0] == []
    world.app.execute("COMMIT")
    assert [row["task_id"] for row in rows(world) if row["delivered_at"] is not None] == ["u"]
    world.advance(30)
    assert [event.task_id for event in store.claim(10, 30.0)[0]] == ["t", "v"]
