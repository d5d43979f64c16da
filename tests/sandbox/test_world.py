"""The fake vendor's world, and the rules no sequence of events may break."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from watchdog.sandbox.world import ADMIN_ROLE, Event, World

APP = 1


def events(world: World, *kinds: str) -> list[Event]:
    return [event for event in world.log if event["event"] in kinds]


def start(world: World, now: float, room_id: str = "room", max_idle_seconds: int | None = None) -> str:
    task_id = world.start(APP, room_id, now, max_idle_seconds=max_idle_seconds)
    assert task_id is not None
    return task_id


def running(world: World, now: float) -> set[str]:
    return {task["task_id"] for task in world.state(now)["tasks"]}


def test_a_task_in_a_room_that_nobody_ever_joined_ends_its_window_after_the_start() -> None:
    world = World(seed=1)
    task_id = start(world, 1000.0)
    assert running(world, 1119.999) == {task_id}
    assert running(world, 1120.0) == set()
    (ended,) = events(world, "auto_stopped")
    assert (ended["task_id"], ended["at"]) == (task_id, 1120.0)


def test_the_window_counts_from_the_moment_the_room_became_empty() -> None:
    world = World(seed=1)
    task_id = start(world, 1000.0, max_idle_seconds=30)
    world.join(APP, "room", "alice", 1010.0)
    world.join(APP, "room", "bob", 1020.0)
    world.leave(APP, "room", "alice", 2000.5)
    assert running(world, 9000.0) == {task_id}
    world.leave(APP, "room", "bob", 9000.25)
    assert running(world, 9030.0) == {task_id}
    assert running(world, 9030.25) == set()


def test_somebody_who_comes_back_starts_the_window_anew() -> None:
    world = World(seed=1)
    task_id = start(world, 0.0)
    world.join(APP, "room", "alice", 119.0)
    world.leave(APP, "room", "alice", 119.5)
    assert world.state(119.5)["tasks"][0]["auto_stop_at"] == 239.5
    assert running(world, 239.0) == {task_id}
    world.join(APP, "room", "alice", 239.0)
    assert running(world, 100_000.0) == {task_id}
    assert world.state(100_000.0)["tasks"][0]["auto_stop_at"] is None


def test_somebody_who_comes_back_in_the_very_second_of_the_auto_stop_is_too_late() -> None:
    world = World(seed=1)
    start(world, 0.0)
    world.join(APP, "room", "alice", 120.0)
    assert [event["event"] for event in world.log] == ["task_started", "auto_stopped", "join"]


def test_a_recorder_left_behind_keeps_a_task_alive() -> None:
    world = World(seed=1)
    task_id = start(world, 0.0)
    scene = world.join(APP, "room", "recorder", 1.0, role=ADMIN_ROLE)
    assert (scene.people, len(scene.users)) == (0, 1)
    assert running(world, 1e6) == {task_id}


def test_endings_enter_the_log_at_their_true_time_and_before_what_came_after_them() -> None:
    world = World(seed=1)
    late = start(world, 0.0, "late", max_idle_seconds=60)
    early = start(world, 1.0, "early", max_idle_seconds=30)
    world.join(APP, "other", "alice", 500.0)
    assert [(e["event"], e["at"], e.get("task_id")) for e in world.log.since(2)] == [
        ("auto_stopped", 31.0, early),
        ("auto_stopped", 60.0, late),
        ("join", 500.0, None),
    ]


def test_time_set_back_changes_nothing() -> None:
    world = World(seed=1)
    start(world, 1000.0)
    world.join(APP, "room", "alice", 500.0)
    world.leave(APP, "room", "alice", 200.0)
    assert [event["at"] for event in world.log] == [1000.0, 1000.0, 1000.0]
    assert world.state(0.0)["tasks"][0]["auto_stop_at"] == 1120.0


def test_a_stop_says_who_was_there_and_works_once_and_only_for_its_own_app() -> None:
    world = World(seed=1)
    task_id = start(world, 0.0)
    world.join(APP, "room", "alice", 1.0)
    world.join(APP, "room", "recorder", 1.0, role=ADMIN_ROLE)
    assert not world.stop(2, task_id, 2.0, request_id="7")
    assert world.stop(APP, task_id, 2.0, request_id="8", via="api")
    assert not world.stop(APP, task_id, 3.0, request_id="9")
    (stopped,) = events(world, "task_stopped")
    assert (stopped["request_id"], stopped["people"], stopped["room_id"]) == ("8", 1, "room")
    assert stopped["users"] == [{"user_id": "alice", "role": 1}, {"user_id": "recorder", "role": ADMIN_ROLE}]
    assert running(world, 1e6) == set()
    assert not events(world, "auto_stopped")


def test_the_quota_is_per_app_and_a_freed_slot_can_be_used_again() -> None:
    world = World(seed=1, concurrent_tasks=2)
    first, _ = start(world, 0.0, "a"), start(world, 0.0, "b")
    assert world.start(APP, "c", 1.0) is None
    assert world.start(2, "c", 1.0) is not None
    world.stop(APP, first, 2.0, request_id=None)
    assert world.start(APP, "c", 3.0) is not None
    assert world.start(APP, "d", 3.0) is None
    assert world.start(APP, "d", 120.0) is not None  # b ended by itself


def test_a_room_vanishes_with_its_last_user_and_comes_back_as_another_session() -> None:
    world = World(seed=1)
    world.join(APP, "room", "alice", 0.0)
    world.join(APP, "room", "alice", 1.0)
    assert world.leave(APP, "room", "bob", 2.0) is None
    assert world.leave(APP, "room", "alice", 2.0) is not None
    assert world.leave(APP, "room", "alice", 2.0) is None
    assert world.state(2.0)["rooms"] == []
    world.join(APP, "room", "alice", 3.0)
    joins = events(world, "join")
    assert [event["relogin"] for event in joins] == [False, True, False]
    assert joins[0]["room_session_id"] == joins[1]["room_session_id"] != joins[2]["room_session_id"]
    assert len({event["session_id"] for event in joins}) == 3


def test_ids_are_64_bit_decimals_and_repeat_with_the_seed() -> None:
    def ids(seed: int) -> list[str]:
        world = World(seed=seed)
        return [world.new_id() for _ in range(100)]

    assert ids(1) == ids(1) != ids(2)
    assert len(set(ids(1))) == 100
    assert all(2**53 < int(value) < 2**63 for value in ids(1))


Deed = tuple[float, str, str, str]
DEEDS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 29.0, 30.0, 31.0, 119.5, 120.0]),
        st.sampled_from(["join", "leave", "start", "stop", "wait"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["u", "v"]),
    ),
    max_size=60,
)


def act(world: World, deeds: Iterable[Deed]) -> float:
    now = 0.0
    for seconds, deed, room_id, user_id in deeds:
        now += seconds
        match deed:
            case "join":
                world.join(APP, room_id, user_id, now, role=ADMIN_ROLE if user_id == "v" else 1)
            case "leave":
                world.leave(APP, room_id, user_id, now)
            case "start":
                world.start(APP, room_id, now, max_idle_seconds=30 if user_id == "u" else 120)
            case "stop":
                for task in world.state(now)["tasks"][:1]:
                    world.stop(APP, task["task_id"], now, request_id="1")
            case _:
                world.advance(now)
    return now


@given(DEEDS)
def test_whatever_happens_a_task_ends_once_and_never_by_itself_with_somebody_there(deeds: list[Deed]) -> None:
    world = World(seed=1)
    act(world, deeds)
    world.advance(1e9)

    users: dict[str, int] = {"a": 0, "b": 0}
    empty_since: dict[str, float] = {}
    started: dict[str, Event] = {}
    ended: set[str] = set()
    for number, event in enumerate(world.log, 1):
        assert event["seq"] == number
        match event["event"]:
            case "join" | "leave":
                users[event["room_id"]] = len(event["users"])
                if not event["users"]:
                    empty_since[event["room_id"]] = event["at"]
            case "task_started":
                started[event["task_id"]] = event
            case kind:
                task = started[event["task_id"]]
                assert event["task_id"] not in ended
                ended.add(event["task_id"])
                if kind == "auto_stopped":
                    assert users[task["room_id"]] == 0
                    idle_since = max(task["at"], empty_since.get(task["room_id"], 0.0))
                    assert event["at"] == idle_since + task["max_idle_seconds"]
    times = [event["at"] for event in world.log]
    assert times == sorted(times)
    # What is left runs because somebody is still there.
    assert {task["room_id"] for task in world.state(1e9)["tasks"]} <= {room for room, count in users.items() if count}
    assert started.keys() - ended == running(world, 1e9)


@given(DEEDS)
def test_the_same_deeds_and_seed_give_the_same_log(deeds: list[Deed]) -> None:
    first, second = World(seed=7), World(seed=7)
    act(first, deeds)
    act(second, deeds)
    assert list(first.log) == list(second.log)
