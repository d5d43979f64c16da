"""What each kind of tasks brings into its room, and when the vendor ends it."""

import pytest

from watchdog.core.kinds import KINDS
from watchdog.sandbox.kinds import FACTS, OF_THE_ROOM, Kind
from watchdog.sandbox.tasks import Fate
from watchdog.sandbox.world import ADMIN_ROLE, Event, World

APP = 1
DAY = 86400.0


def start(world: World, kind: Kind, now: float = 0.0, *, user: str | None = None, max_idle: int | None = None) -> str:
    task_id = world.start(APP, "room", now, kind=kind, user_id=user, max_idle_seconds=max_idle)
    assert task_id is not None
    return task_id


def ended(world: World, now: float) -> dict[str, tuple[float, str]]:
    """When and why the vendor has ended each task by ``now``."""
    world.advance(now)
    return {e["task_id"]: (e["at"], e["because"]) for e in world.log if e["event"] == "auto_stopped"}


def users(world: World, now: float) -> list[str]:
    return [user.user_id for user in world.users(APP, "room", now)]


def test_a_player_that_publishes_keeps_a_recording_alive() -> None:
    world = World(seed=1)
    player, recording = start(world, Kind.PLAYER), start(world, Kind.RECORDING)
    assert ended(world, DAY / 2) == {}
    world.stop(APP, player, DAY / 2, request_id=None)
    assert ended(world, DAY / 2 + 100) == {recording: (DAY / 2 + 30, "no_user")}


def test_the_daemons_table_and_this_one_agree_on_the_kinds_and_their_rooms() -> None:
    assert set(Kind) == KINDS.keys()
    assert {kind for kind in Kind if KINDS[kind].window_seconds is not None} == {
        kind for kind, facts in FACTS.items() if facts.idle in OF_THE_ROOM
    }


@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.RECORDING])
def test_the_window_of_an_empty_room_counts_from_the_last_visitor(kind: Kind) -> None:
    world = World(seed=1)
    world.join(APP, "room", "alice", 0.0)
    task_id = start(world, kind, 10.0)
    assert ended(world, 1000.0) == {}
    world.leave(APP, "room", "alice", 1000.0)
    window = FACTS[kind].max_idle_seconds
    assert ended(world, 1000.0 + window - 0.5) == {}
    assert ended(world, 1000.0 + window) == {task_id: (1000.0 + window, FACTS[kind].idle)}


@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.RECORDING])
def test_a_window_is_the_tasks_own_and_starts_again_when_somebody_comes(kind: Kind) -> None:
    world = World(seed=1)
    task_id = start(world, kind, max_idle=60)
    world.join(APP, "room", "recorder", 59.0, role=ADMIN_ROLE)
    world.leave(APP, "room", "recorder", 70.0)
    assert ended(world, 500.0) == {task_id: (130.0, FACTS[kind].idle)}


@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.DIGITAL_HUMAN, Kind.PLAYER])
def test_a_task_is_a_user_of_its_room_while_it_runs(kind: Kind) -> None:
    world = World(seed=1)
    task_id = start(world, kind, user="robot")
    assert users(world, 1.0) == ["robot"]
    assert world.state(1.0)["tasks"][0]["user_id"] == "robot"
    (room,) = world.state(1.0)["rooms"]
    assert (room["people"], room["users"]) == (0, [{"user_id": "robot", "role": 1, "brought_by": kind}])
    assert world.stop(APP, task_id, 2.0, request_id=None)
    assert users(world, 2.0) == []
    assert [event["event"] for event in world.log] == ["task_started", "join", "task_stopped", "leave"]


def test_recordings_and_asr_tasks_are_no_users() -> None:
    world = World(seed=1)
    for kind in (Kind.ASR, Kind.RECORDING):
        start(world, kind)
    assert users(world, 1.0) == []


def test_a_user_has_a_name_of_its_own_unless_it_is_told() -> None:
    world = World(seed=1)
    task_ids = [start(world, kind) for kind in (Kind.AGENT, Kind.DIGITAL_HUMAN, Kind.PLAYER)]
    prefixes = ("agent", "digital", "player")
    assert users(world, 1.0) == [f"{prefix}-{task_id}" for prefix, task_id in zip(prefixes, task_ids, strict=True)]
    assert all(len(user) <= 32 for user in users(world, 1.0))


def test_an_asr_task_runs_on_as_long_as_an_agent_is_there_and_the_agent_ends_by_itself() -> None:
    world = World(seed=1)
    asr, agent = start(world, Kind.ASR), start(world, Kind.AGENT)
    assert ended(world, 1000.0) == {agent: (120.0, "no_visitor"), asr: (240.0, "no_user")}


def test_two_tasks_that_bring_users_keep_neither_alive() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT)
    player = start(world, Kind.PLAYER, 60.0)
    assert ended(world, DAY / 2) == {agent: (120.0, "no_visitor")}
    assert world.fate(APP, Kind.PLAYER, player, DAY / 2) is Fate.RUNNING


def test_a_digital_human_ends_by_its_own_idle_time_whoever_is_there() -> None:
    world = World(seed=1)
    world.join(APP, "room", "alice", 0.0)
    usual, long = start(world, Kind.DIGITAL_HUMAN, 5.0), start(world, Kind.DIGITAL_HUMAN, max_idle=86400)
    assert ended(world, 2 * DAY) == {usual: (905.0, "not_driven"), long: (DAY + 5, "not_driven")}


def test_a_player_plays_until_its_media_ends_and_its_idle_time_is_over() -> None:
    world = World(seed=1)
    player = start(world, Kind.PLAYER, max_idle=5)
    assert ended(world, 30 * DAY) == {}
    assert not world.end_media(2, player, 30 * DAY)
    assert world.end_media(APP, player, 30 * DAY)
    assert ended(world, 30 * DAY + 5) == {player: (30 * DAY + 5, "not_playing")}
    assert not world.end_media(APP, player, 31 * DAY)


def test_a_recording_lives_a_day_even_with_people() -> None:
    world = World(seed=1)
    world.join(APP, "room", "alice", 0.0)
    recording = start(world, Kind.RECORDING, 10.0)
    assert ended(world, 2 * DAY) == {recording: (10.0 + DAY, "life")}


def test_each_kind_has_its_own_limit_and_none_counts_for_another() -> None:
    world = World(seed=1, concurrent_tasks=1, account_limits={Kind.AGENT: 2, Kind.PLAYER: 0})
    for kind, allowed in ((Kind.ASR, 1), (Kind.AGENT, 2)):
        for _ in range(allowed):
            start(world, kind)
        assert world.start(APP, "room", 0.0, kind=kind) is None
    for _ in range(51):
        start(world, Kind.PLAYER)
    assert world.account_limits[Kind.RECORDING] == 200


def test_a_graceful_stop_takes_its_time() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT)
    assert world.stop(APP, agent, 1.0, request_id=None, graceful_seconds=5)
    assert world.fate(APP, Kind.AGENT, agent, 5.9) is Fate.STOPPING
    assert not world.stop(APP, agent, 5.9, request_id=None)
    assert world.fate(APP, Kind.AGENT, agent, 6.0) is Fate.ENDED
    (stopped,) = [event for event in world.log if event["event"] == "task_stopped"]
    assert stopped["at"] == 6.0


def test_the_vendor_may_be_faster_than_a_graceful_stop() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT, max_idle=10)
    assert world.stop(APP, agent, 8.0, request_id=None, graceful_seconds=5)
    assert ended(world, 100.0) == {agent: (10.0, "no_visitor")}
    assert not [event for event in world.log if event["event"] == "task_stopped"]


def test_a_task_is_only_known_by_its_own_kind_and_app() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT)
    assert world.fate(APP, Kind.AGENT, agent, 1.0) is Fate.RUNNING
    assert world.fate(APP, Kind.ASR, agent, 1.0) is world.fate(2, Kind.AGENT, agent, 1.0) is Fate.UNKNOWN


def test_who_logs_in_with_the_id_of_an_agent_stays_when_it_ends() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT, user="robot")
    world.join(APP, "room", "robot", 1.0)
    assert world.scene(agent, 1.0).people == 1
    world.stop(APP, agent, 2.0, request_id=None)
    assert users(world, 3.0) == ["robot"]


def test_a_crashed_agent_is_seen_until_its_timeout() -> None:
    world = World(seed=1, crash_timeout_seconds=100)
    agent = start(world, Kind.AGENT, user="robot")
    world.crash(APP, "room", "robot", 1.0)
    world.stop(APP, agent, 2.0, request_id=None)
    assert users(world, 100.9) == ["robot"]
    assert users(world, 101.0) == []


def test_speech_is_heard_by_asr_tasks_alone() -> None:
    world = World(seed=1)
    asr, _ = start(world, Kind.ASR), start(world, Kind.AGENT)
    world.join(APP, "room", "alice", 0.0)
    assert world.speak(APP, "room", "alice", "hello", 1.0) == (asr,)


def kinds_in(log: list[Event], event: str) -> list[str]:
    return [entry["kind"] for entry in log if entry["event"] == event]


def test_the_log_names_the_kind() -> None:
    world = World(seed=1)
    agent = start(world, Kind.AGENT)
    start(world, Kind.RECORDING)
    world.stop(APP, agent, 1.0, request_id=None)
    world.advance(100.0)
    log = list(world.log)
    assert kinds_in(log, "task_started") == ["agent", "recording"]
    assert (kinds_in(log, "task_stopped"), kinds_in(log, "auto_stopped")) == (["agent"], ["recording"])
