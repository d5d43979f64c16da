"""The callbacks' store on both databases: whatever the order and the repetition, one state, and no stop too early."""

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simulation.virtual import START
from tests.support.time_travel import World
from watchdog.core import callbacks
from watchdog.core.callbacks import Event, RoomClosed, RoomCreated, Seal, UserJoined, UserLeft
from watchdog.core.presence import facts_of
from watchdog.errors import RowLocked
from watchdog.store.callbacks import AutoStop, Callback, CallbackStore, Presence, Received, Speech, turn
from watchdog.store.engine import reading, writing
from watchdog.store.replays import Use, use_of
from watchdog.store.retention import RetentionStore
from watchdog.store.tables import (
    attempts,
    callbacks_seen,
    deleted_tasks,
    empty_spells,
    metadata,
    rejoins,
    room_sessions,
    room_users,
)

APP, OTHER_APP, ROOM = 1, 2, "room"
SEAL = Seal(APP, START.timestamp(), "1772366400", "123456", "signature")
BOTS = ("bot-*",)


def at(seconds: float) -> datetime:
    """Return a moment in seconds from START."""
    return START + timedelta(seconds=seconds)


def created(seconds: float, session: str = "1", room: str = ROOM) -> RoomCreated:
    return RoomCreated(SEAL, room, session, at(seconds))


def closed(seconds: float, session: str = "1", room: str = ROOM) -> RoomClosed:
    return RoomClosed(SEAL, room, session, at(seconds), 0)


def joined(seconds: float, user: str, role: int = 1, room: str = ROOM, session: str | None = None) -> UserJoined:
    return UserJoined(SEAL, room, "1", user, session or str(ord(user[0])), at(seconds), role)


def left(seconds: float, user: str, login: float, room: str = ROOM, session: str | None = None) -> UserLeft:
    return UserLeft(SEAL, room, "1", user, session or str(ord(user[0])), at(login), at(seconds), None)


def callbacks_of(world: World, instance: str = "host/1") -> CallbackStore:
    return CallbackStore(world.another_store(instance).engine, instance, APP)


@pytest.fixture
def store(world: World) -> CallbackStore:
    return callbacks_of(world)


def receive(store: CallbackStore, *events: Event, key: Use | None = None) -> Received:
    result = Received()
    for event in events:
        facts = facts_of(event)
        assert facts is not None
        (result,) = store.receive([Presence(facts, BOTS, key)])
    return result


def heard(
    store: CallbackStore,
    task: str,
    moment: datetime,
    *,
    is_person: bool = True,
    discover: bool = True,
    use: Use | None = None,
) -> Received:
    (result,) = store.receive([Speech(APP, ROOM, task, moment, is_person, discover, use)])
    return result


def auto_stopped(store: CallbackStore, task: str, moment: datetime, message: str = "", use: Use | None = None) -> bool:
    (result,) = store.receive([AutoStop(APP, task, moment, 1202, message, use)])
    return result.auto_stopped is not None


def hint(world: World, task: str = "t") -> tuple[Any, ...]:
    row = world.task(task)
    return row["user_count"], row["user_count_at"], row["user_count_source"]


def rows(world: World, table: sa.Table) -> list[tuple[Any, ...]]:
    columns = [column for column in table.c if column.name != "seen_at"]
    with reading(world.engine) as connection:
        return sorted((tuple(row) for row in connection.execute(sa.select(*columns))), key=repr)


def empty(world: World) -> None:
    with writing(world.engine) as connection:
        # Deleted tasks are noted, and so is the end of their spells.
        for table in (*metadata.sorted_tables, deleted_tasks, empty_spells):
            connection.execute(sa.delete(table))


def watch_for_rejoin(world: World, task: str, stopped: float, until: float, room: str = ROOM) -> None:
    with writing(world.engine) as connection:
        connection.execute(
            sa.insert(rejoins).values(
                task_id=task, app_id=None, room_id=room, stopped_at=at(stopped), watch_until=at(until)
            )
        )


def rejoined_at(world: World) -> dict[str, datetime | None]:
    with reading(world.engine) as connection:
        return {row.task_id: row.rejoined_at for row in connection.execute(sa.select(rejoins))}


# Facts and hints


def test_people_come_and_go(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(100)
    receive(store, created(1), joined(1, "alice"), joined(2, "bob"))
    assert hint(world) == (2, at(2), "callback")
    assert world.task("t")["vendor_occupied_at"] == at(2)
    receive(store, left(50, "alice", 1))
    assert hint(world) == (1, at(50), "callback")
    receive(store, left(60, "bob", 2))
    assert hint(world) == (0, at(60), "callback")
    row = world.task("t")
    assert (row["empty_since"], row["last_occupied_at"]) == (at(60), at(50))
    receive(store, closed(60))
    assert hint(world) == (0, at(60), "callback")


def test_admins_and_bots_are_nobody(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(10)
    receive(store, created(1), joined(1, "recorder", role=4), joined(2, "bot-asr"))
    assert hint(world) == (0, at(2), "callback")
    row = world.task("t")
    assert (row["last_occupied_at"], row["vendor_occupied_at"]) == (None, None)


def test_the_user_that_a_task_brings_along_is_nobody(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.start("agent", ROOM, kind="agent", bot_user_id="helper[1]")
    world.advance(10)
    receive(store, created(1), joined(1, "helper[1]"), joined(2, "alice"))
    assert hint(world) == hint(world, "agent") == (1, at(2), "callback")
    receive(store, left(5, "alice", 2))
    assert hint(world) == hint(world, "agent") == (0, at(5), "callback")
    row = world.task("t")
    assert (row["empty_since"], row["last_occupied_at"]) == (at(5), at(2))


@pytest.mark.parametrize(
    "columns", [{"room_id": "elsewhere"}, {"app_id": OTHER_APP}, {"status": "released"}, {"bot_user_id": "helper1"}]
)
def test_a_task_elsewhere_or_ended_brings_nobody_along(
    world: World, store: CallbackStore, columns: dict[str, Any]
) -> None:
    world.app.start("t", ROOM)
    room, values = columns.get("room_id", ROOM), {"bot_user_id": "helper"} | columns
    values.pop("room_id", None)
    world.app.start("agent", room, kind="agent", **values)
    world.advance(70)
    receive(store, created(61), joined(61, "helper"))
    assert hint(world) == (1, at(61), "callback")


def test_who_leaves_just_after_the_task_that_brought_it_is_nobody(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.start("agent", ROOM, kind="agent", bot_user_id="helper")
    world.advance(10)
    receive(store, created(1), joined(1, "helper"))
    world.app.release("agent")
    world.advance(10)
    receive(store, left(19, "helper", 1))
    row = world.task("t")
    assert (hint(world)[0], row["empty_since"], row["last_occupied_at"]) == (0, at(1), None)


def test_the_speech_of_a_user_that_a_task_brings_along_is_no_evidence(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.start("agent", ROOM, kind="agent", bot_user_id="helper")
    for user, number in (("helper", None), ("alice", 1), (None, 1)):
        world.app.people(ROOM, None)
        world.advance(10)
        store.receive([Speech(APP, ROOM, "t", world.now, is_person=True, discover=False, user_id=user)])
        assert hint(world)[0] == hint(world, "agent")[0] == number


def test_only_the_rooms_active_tasks_of_that_app_are_told(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.start("same-app", ROOM, app_id=APP)
    world.app.start("other-app", ROOM, app_id=OTHER_APP)
    world.app.start("other-room", "elsewhere")
    world.app.start("ended", ROOM)
    world.app.release("ended")
    world.advance(10)
    receive(store, created(1), joined(1, "alice"))
    assert [hint(world, task)[0] for task in ("t", "same-app", "other-app", "other-room", "ended")] == [
        *(1, 1),
        *(None, None, None),
    ]


def test_nobody_in_a_room_that_was_not_seen_to_begin_is_no_evidence(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM, user_count=3)
    world.advance(10)
    before = world.task("t")
    receive(store, left(5, "alice", 1))
    assert world.task("t") == before
    # Somebody is, however incomplete the rest.
    receive(store, joined(6, "bob"))
    assert hint(world) == (1, at(6), "callback")


def test_the_newest_observation_stands_whoever_made_it(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(20)
    world.app.people(ROOM, 5)
    receive(store, created(1), joined(1, "alice"), left(10, "alice", 1))
    assert hint(world) == (5, at(20), "app")
    world.advance(20)
    receive(store, joined(30, "bob"))
    assert hint(world) == (1, at(30), "callback")


def test_a_vendor_whose_clock_is_ahead_tells_of_now(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(10)
    receive(store, created(12), joined(12, "alice"))
    assert hint(world) == (1, at(10), "callback")
    receive(store, left(13, "alice", 12))
    assert hint(world) == (0, at(10), "callback")
    assert world.task("t")["empty_since"] == at(10)


STORY: tuple[Event, ...] = (created(1), joined(1, "alice"), joined(2, "bob"), left(30, "alice", 1), left(40, "bob", 2))


def state(world: World) -> tuple[Any, ...]:
    return hint(world), rows(world, room_sessions), rows(world, room_users)


def tell(world: World, store: CallbackStore, story: Iterable[Event]) -> tuple[Any, ...]:
    empty(world)
    world.app.start("t", ROOM, started_at=START)
    receive(store, *story)
    row = world.task("t")
    if row["user_count"] == 0:
        # It cannot be told in every order when the last one left, but never an earlier time is taken for it.
        assert at(40) <= row["empty_since"] <= at(90)
        assert row["last_occupied_at"] is not None
        assert row["vendor_occupied_at"] is not None
    return state(world)


def test_any_order_of_a_rooms_callbacks_comes_to_the_same(world: World, store: CallbackStore) -> None:
    world.advance(100)
    expected = tell(world, store, STORY)
    assert expected[0] == (0, at(40), "callback")
    for story in permutations(STORY):
        assert tell(world, store, story) == expected


@pytest.mark.parametrize("seed", range(15))
def test_any_order_and_any_repetition_come_to_the_same(world: World, store: CallbackStore, seed: int) -> None:
    world.advance(100)
    story: list[Event] = [
        *STORY,
        joined(50, "alice", session="7"),
        joined(60, "recorder", role=4),
        left(80, "alice", 50, session="7"),
        left(90, "recorder", 60),
    ]
    expected = tell(world, store, story)
    chance = random.Random(seed)  # noqa: S311 - shuffles a test
    many = [*story, *chance.choices(story, k=6)]
    chance.shuffle(many)
    assert tell(world, store, many) == expected


def test_a_late_login_makes_no_stop_early(world: World, store: CallbackStore) -> None:
    """The room's beginning is known at once, its only visitor when he leaves: it is empty since then, not all along."""
    world.app.start("t", ROOM)
    world.advance(1)
    receive(store, created(1))
    assert world.task("t")["empty_since"] == at(1)
    world.app.change("t", due_at=at(46), wake_at=at(46))
    world.advance(99)
    receive(store, left(99, "alice", 2))
    row = world.task("t")
    assert (row["user_count"], row["empty_since"]) == (0, at(99))
    assert (row["due_at"], row["wake_at"]) == (None, None)
    assert row["vendor_occupied_at"] is not None


def test_a_later_observation_does_not_hide_that_the_room_was_occupied(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(10)
    world.app.people(ROOM, 0)
    world.advance(90)
    world.app.people(ROOM, 0)
    assert world.task("t")["empty_since"] == at(10)
    receive(store, created(20), left(60, "alice", 20))
    assert hint(world) == (0, at(100), "app")
    assert world.task("t")["empty_since"] == at(60)


def test_callbacks_of_one_room_take_turns(world: World) -> None:
    """Two daemons with half of the facts each: whoever is second sees all of them."""
    users = 12
    world.app.start("t", ROOM)
    world.advance(100)
    stores = [callbacks_of(world, f"host/{number}") for number in range(4)]
    receive(stores[0], created(1))
    events: list[Event] = [joined(2 + number, chr(97 + number)) for number in range(users)]
    events += [left(40 + number, chr(97 + number), 2 + number) for number in range(users - 1)]
    random.Random(1).shuffle(events)  # noqa: S311 - shuffles a test
    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(lambda pair: receive(stores[pair[0] % 4], pair[1]), enumerate(events)))
    assert hint(world) == (1, at(40 + users - 2), "callback")


# Replays


def test_a_copy_of_a_callback_changes_nothing(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.advance(10)
    event = joined(1, "alice")
    key = use_of(event, b"body")
    assert receive(store, event, key=key) == Received()
    assert hint(world) == (1, at(1), "callback")
    world.advance(10)
    world.app.people(ROOM, 0)
    before = world.task("t")
    assert receive(store, event, key=key) == Received(replayed=True)
    assert world.task("t") == before


def test_another_body_under_the_same_signature_may_only_say_that_somebody_is_there(
    world: World, store: CallbackStore
) -> None:
    world.app.start("t", ROOM)
    world.advance(50)
    receive(store, created(1), key=use_of(SEALED, b"captured"))
    receive(store, joined(1, "alice"))
    before = state(world)
    for forged in (closed(40), left(40, "alice", 1), created(45, session="2")):
        assert receive(store, forged, key=use_of(SEALED, repr(forged).encode())) == Received(suspicious=True)
        assert state(world) == before
    assert receive(store, joined(41, "bob"), key=use_of(SEALED, b"forged, or chance")).suspicious
    assert hint(world) == (2, at(41), "callback")


def test_a_login_under_a_used_signature_does_not_empty_a_room(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM, user_count=1)
    world.advance(50)
    receive(store, created(1), left(2, "alice", 1))
    world.app.people(ROOM, 1)
    before = world.task("t")
    receive(store, joined(45, "carol", role=4), key=use_of(SEALED, b"captured"))
    assert world.task("t") == before
    world.advance(50)
    assert receive(store, joined(90, "recorder", role=4), key=use_of(SEALED, b"forged")).suspicious
    assert world.task("t") == before


SEALED = created(1)


def test_a_signature_is_remembered_until_its_digits_can_be_no_later_time(world: World, store: CallbackStore) -> None:
    """Its nonce and the digits after it are also the time of two hours later."""
    later = int(START.timestamp()) + 7200
    seal = Seal(APP, START.timestamp(), f"{int(START.timestamp())}", f"{later}"[:6], "signature")
    captured = replace(SEALED, seal=seal)
    assert receive(store, captured, key=use_of(captured, b"captured")) == Received()
    readable = callbacks.remembered_until(captured)
    assert later - 10_000 < readable < later + 10_000
    world.advance(readable - START.timestamp())
    RetentionStore(world.engine).prune_callbacks()
    assert receive(store, closed(1), key=use_of(captured, b"forged")).suspicious
    world.advance(901)
    RetentionStore(world.engine).prune_callbacks()
    assert rows(world, callbacks_seen) == []


def test_old_keys_and_rooms_are_forgotten(world: World, store: CallbackStore) -> None:
    receive(store, created(1), key=use_of(SEALED, b"body"))
    receive(store, joined(1, "alice"))
    world.advance(899)
    assert RetentionStore(world.engine).prune_callbacks() == 0
    world.advance(2)
    assert RetentionStore(world.engine).prune_callbacks() == 2
    assert rows(world, callbacks_seen) == []
    world.advance(80_000)
    receive(store, created(1, room="kept"), joined(1, "bob", room="kept"))
    world.advance(6_400)
    # Not what the vendor last did there, but when we last heard of it, counts.
    assert RetentionStore(world.engine).prune_callbacks() == 2
    assert [row[1] for row in rows(world, room_sessions)] == ["kept"]
    assert [row[1] for row in rows(world, room_users)] == ["kept"]


# Speech


def test_somebody_who_speaks_is_there(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.start("neighbour", ROOM, user_count=3)
    world.advance(10)
    assert not heard(store, "t", at(5)).discovered
    assert hint(world) == (1, at(5), "callback")
    assert hint(world, "neighbour") == (3, at(5), "callback")
    before = world.task("t")
    heard(store, "t", at(5))
    assert world.task("t") == before
    heard(store, "t", at(7), is_person=False)
    assert world.task("t") == before


def test_late_words_interrupt_a_spell_but_do_not_outrank_what_is_newer(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.people(ROOM, 0)
    world.advance(60)
    world.app.people(ROOM, 0)
    heard(store, "t", at(30))
    assert hint(world) == (0, at(60), "app")
    row = world.task("t")
    assert row["empty_since"] == at(60)
    assert row["last_occupied_at"] is not None


def test_an_unknown_task_that_recognises_somebody_is_watched(world: World, store: CallbackStore) -> None:
    world.advance(10)
    assert not heard(store, "t", at(9), discover=False).discovered
    assert heard(store, "t", at(9)).discovered
    row = world.task("t")
    assert (row["status"], row["room_id"], row["app_id"]) == ("active", ROOM, APP)
    assert hint(world) == (1, at(9), "callback")
    assert not heard(store, "t", at(10)).discovered
    # A bot's words discover a task, too, and say nothing of people.
    assert heard(store, "u", at(10), is_person=False).discovered
    assert hint(world, "u") == (None, None, None)


def test_an_ended_task_is_not_resurrected(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    world.app.release("t")
    world.advance(10)
    before = world.task("t")
    assert not heard(store, "t", at(9)).discovered
    assert world.task("t") == before


def test_a_task_that_the_application_deleted_stays_deleted(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM)
    assert heard(store, "found", at(0)).discovered
    world.app.start("ended", ROOM)
    world.app.release("ended")
    world.advance(10)
    for task in ("t", "found", "ended"):
        world.app.execute("DELETE FROM zego_tasks WHERE task_id = ?", task)
        assert heard(store, task, at(9)) == Received()
    # The application may change its mind, and again.
    world.app.start("t", ROOM)
    assert heard(store, "t", at(9)) == Received()
    assert hint(world)[0] == 1
    world.app.execute("DELETE FROM zego_tasks")
    assert not heard(store, "t", at(9)).discovered
    world.advance(7 * 86_400)
    RetentionStore(world.engine).prune_callbacks()
    assert not heard(store, "t", at(9)).discovered
    world.advance(1)
    RetentionStore(world.engine).prune_callbacks()
    assert rows(world, deleted_tasks) == []
    assert heard(store, "t", at(9)).discovered


def test_a_task_that_is_removed_because_of_its_age_is_not_remembered(world: World) -> None:
    for task in ("old", "young"):
        world.app.start(task, ROOM)
        world.app.release(task)
        world.advance(4 * 86_400)
    world.app.execute("DELETE FROM zego_tasks")
    assert [row[0] for row in rows(world, deleted_tasks)] == ["young"]


def test_a_used_signature_discovers_nothing(world: World, store: CallbackStore) -> None:
    world.advance(10)
    first, second = (use_of(SEALED, body) for body in (b"captured", b"forged"))
    assert heard(store, "t", at(5), use=first).discovered
    assert heard(store, "t", at(9), use=first).replayed
    assert hint(world) == (1, at(5), "callback")
    result = heard(store, "fake", at(9), use=second)
    assert (result.suspicious, result.discovered) == (True, False)
    assert not auto_stopped(store, "t", at(9), "forged", use=use_of(SEALED, b"again"))
    assert world.task("t")["status"] == "active"


# What the vendor ended


def test_1202_ends_the_task_with_the_idle_time_that_we_measured(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM, user_count=1)
    world.advance(10)
    world.app.people(ROOM, 0)
    world.advance(125)
    assert auto_stopped(store, "t", at(130), "RTC room has been idle")
    row = world.task("t")
    assert (row["status"], row["ended_at"]) == ("auto_stopped", at(130))
    (noted,) = world.attempts("t")
    assert (noted["outcome"], noted["code"], noted["attempt"]) == ("auto_stopped", "1202", None)
    assert (noted["reason"], noted["evidence_source"], noted["detail"]) == ("empty_room", "callback", "callback")
    assert noted["evidence_at"] - noted["empty_since"] == timedelta(seconds=120)
    assert (noted["room_id"], noted["app_id"], noted["instance"]) == (ROOM, APP, "host/1")
    assert not auto_stopped(store, "t", at(130), "RTC room has been idle")
    assert len(world.attempts("t")) == 1


def test_1202_for_what_is_not_ours_ends_nothing(world: World, store: CallbackStore) -> None:
    world.app.start("t", ROOM, app_id=OTHER_APP)
    world.advance(10)
    assert not auto_stopped(store, "t", at(9), "")
    assert not auto_stopped(store, "unknown", at(9), "")
    assert world.task("t")["status"] == "active"


# Who came back


def test_people_who_come_back_are_noted_once(world: World, store: CallbackStore) -> None:
    world.advance(1000)
    watch_for_rejoin(world, "t", 100, 700)
    watch_for_rejoin(world, "elsewhere", 100, 700, room="elsewhere")
    receive(store, created(1), joined(1, "alice"), joined(150, "recorder", role=4), joined(160, "bot-asr"))
    assert rejoined_at(world) == {"t": None, "elsewhere": None}
    receive(store, joined(200, "bob"))
    assert rejoined_at(world) == {"t": at(200), "elsewhere": None}
    receive(store, joined(300, "carol"))
    assert rejoined_at(world)["t"] == at(200)


def test_a_return_is_seen_when_it_is_already_over_and_words_are_one_too(world: World, store: CallbackStore) -> None:
    world.advance(1000)
    watch_for_rejoin(world, "t", 100, 700)
    watch_for_rejoin(world, "late", 100, 150)
    receive(store, created(200), left(210, "alice", 201))
    assert rejoined_at(world) == {"t": at(201), "late": None}
    watch_for_rejoin(world, "u", 300, 900)
    heard(store, "u", at(300), discover=False)
    assert rejoined_at(world)["u"] is None
    heard(store, "u", at(350), discover=False)
    assert rejoined_at(world)["u"] == at(350)


def test_of_a_room_without_a_task_nothing_is_read_and_a_later_task_knows_all(
    world: World, store: CallbackStore
) -> None:
    world.advance(1000)
    statements: list[str] = []

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    told: list[Event] = [created(1), joined(5, "alice"), joined(6, "bob"), left(9, "bob", 6)]
    sa.event.listen(store.engine, "before_cursor_execute", executed)
    store.receive([Presence(facts, BOTS) for event in told if (facts := facts_of(event)) is not None])
    receive(store, left(8, "alice", 5))
    sa.event.remove(store.engine, "before_cursor_execute", executed)
    reads = [statement for statement in statements if statement.startswith("SELECT")]
    assert reads
    assert not [statement for statement in reads if "zego_room_" in statement]
    world.app.start("t", ROOM)
    world.advance(10)
    receive(store, joined(1001, "carol"))
    receive(store, left(1002, "carol", 1001))
    assert hint(world) == (0, at(1002), "callback")
    receive(store, joined(1003, "alice", session="second"))
    assert hint(world) == (1, at(1003), "callback")


def test_on_postgresql_two_sessions_of_one_room_take_turns_too(postgresql_world: World) -> None:
    """They have no row in common that would make the second wait, and each would decide which one is current."""
    world = postgresql_world
    store = callbacks_of(world)
    world.app.start("t", ROOM)
    world.advance(10)
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor(1) as threads:
        with writing(world.engine) as first:
            first.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": turn(APP, ROOM)})
            second = threads.submit(receive, store, joined(5, "alice"))
            while not first.execute(waiting).scalar_one():
                assert not second.done()
            assert receive(callbacks_of(world), joined(5, "alice", room="another")) == Received()
        assert second.result() == Received()
    assert hint(world)[0] == 1


# Groups

ROOMS = (ROOM, "another")
TASKS = ("t", "u", "v")
UNKNOWN = ("x", "y")

moments = st.integers(1, 60).map(float)
uses = st.one_of(
    st.none(),
    st.builds(
        lambda signature, body: Use(f"{signature}/{body}", signature, at(0)),
        st.sampled_from(["one", "two", "three"]),
        st.sampled_from("ab"),
    ),
)
of_rooms = st.one_of(
    st.builds(created, moments, st.sampled_from("12"), st.sampled_from(ROOMS)),
    st.builds(closed, moments, st.sampled_from("12"), st.sampled_from(ROOMS)),
    st.builds(joined, moments, st.sampled_from(["alice", "bob"]), st.sampled_from([1, 4]), st.sampled_from(ROOMS)),
    st.builds(left, moments, st.sampled_from(["alice", "bob"]), moments, st.sampled_from(ROOMS), st.sampled_from("78")),
)
told = st.builds(Presence, of_rooms.map(facts_of), st.just(BOTS), uses)
spoken = st.builds(
    Speech,
    app_id=st.sampled_from([APP, OTHER_APP]),
    room_id=st.sampled_from(ROOMS),
    task_id=st.sampled_from([*TASKS, *UNKNOWN]),
    at=moments.map(at),
    is_person=st.booleans(),
    discover=st.booleans(),
    use=uses,
)
stopped = st.builds(
    AutoStop, st.just(APP), st.sampled_from([*TASKS, *UNKNOWN]), moments.map(at), st.just(1202), st.just("idle"), uses
)
groups = st.lists(
    st.lists(st.one_of(told, told, told, spoken, stopped), min_size=1, max_size=8), min_size=1, max_size=3
)


def everything(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """All that is known, without spells: one that begins and ends within a group has no row."""
    others = (attempts, empty_spells)
    return {table.name: rows(world, table) for table in metadata.sorted_tables if table not in others} | {
        "ledger": [tuple(row.values())[1:] for task in (*TASKS, *UNKNOWN) for row in world.attempts(task)],
    }


def prepared(world: World, hints: Sequence[tuple[int | None, float]]) -> None:
    empty(world)
    for task, room, (number, seconds) in zip(TASKS, (ROOM, ROOM, "another"), hints, strict=True):
        world.app.start(task, room, started_at=START, user_count=number, user_count_at=at(seconds))
        world.app.change(task, due_at=at(70), auto_stop_at=at(100), wake_at=at(70))
    watch_for_rejoin(world, "before", 0, 30)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hints=st.tuples(*[st.tuples(st.sampled_from([None, 0, 1]), moments)] * 3), told_in_groups=groups)
# When somebody joins an older session, the room's last task has just ended in the same group.
@example(
    hints=((None, 1.0), (None, 1.0), (None, 1.0)),
    told_in_groups=[
        [Presence(facts_of(created(1, "2")), BOTS), AutoStop(APP, "u", at(1), 1202, "idle")],  # type: ignore[arg-type] # of a room
        [AutoStop(APP, "t", at(1), 1202, "idle"), Presence(facts_of(joined(1, "alice")), BOTS)],  # type: ignore[arg-type] # the same
    ],
)
def test_a_group_comes_to_the_same_as_its_callbacks_one_by_one(
    world: World,
    store: CallbackStore,
    hints: Sequence[tuple[int | None, float]],
    told_in_groups: list[list[Callback]],
) -> None:
    if world.now < at(30):
        # Half of the times are in the future.
        world.advance(30)
    prepared(world, hints)
    results = [store.receive([callback])[0] for group in told_in_groups for callback in group]
    expected = everything(world)
    prepared(world, hints)
    assert [result for group in told_in_groups for result in store.receive(group)] == results
    assert everything(world) == expected


@pytest.mark.parametrize("seed", range(3))
def test_two_daemons_with_groups_of_their_own_come_to_the_same(world: World, seed: int) -> None:
    """They have the same rooms in opposite orders, at the same time: neither waits for the other for ever."""
    world.advance(200)
    chance = random.Random(seed)  # noqa: S311 - shuffles a test
    rooms = [f"room-{number}" for number in range(10)]
    for room in rooms:
        world.app.start(room, room)
    events: list[Event] = [created(1, room=room) for room in rooms]
    for room in rooms:
        for number in range(6):
            user = chr(97 + number)
            events += [joined(2 + number, user, room=room), left(40 + number, user, 2 + number, room=room)]
    events += [joined(100, "zoe", room=room) for room in rooms[:5]]
    groups = []
    for share, turned in ((events[::2], False), (events[1::2], True)):
        chance.shuffle(share)
        parts = [share[start : start + 15] for start in range(0, len(share), 15)]
        groups.append([sorted(part, key=lambda event: event.room_id, reverse=turned) for part in parts])  # type: ignore[union-attr] # all are of rooms

    def receive_all(number: int) -> None:
        store = callbacks_of(world, f"host/{number}")
        for part in groups[number]:
            store.receive([Presence(facts, BOTS) for event in part if (facts := facts_of(event)) is not None])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(receive_all, range(2)))
    for number, room in enumerate(rooms):
        assert hint(world, room) == ((1, at(100), "callback") if number < 5 else (0, at(45), "callback"))


def test_on_postgresql_a_group_does_not_wait_long_for_a_row(postgresql_world: World) -> None:
    world = postgresql_world
    store = callbacks_of(world)
    world.app.start("t", ROOM)
    world.advance(10)
    with writing(world.engine) as holding:
        holding.execute(sa.text("SELECT * FROM zego_tasks FOR UPDATE"))
        with pytest.raises(RowLocked):
            receive(store, joined(5, "alice"))
    receive(store, joined(5, "alice"))
    assert hint(world)[0] == 1
