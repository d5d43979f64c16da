"""The APIs of agents, digital humans, players and recordings: their codes, limits and lists."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from watchdog.core.kinds import KINDS
from watchdog.core.signing import sign
from watchdog.sandbox.actions import LISTS, OF_A_KIND, PRODUCTS, Action, Path
from watchdog.sandbox.kinds import FACTS, Kind
from watchdog.sandbox.misbehaviour import Misbehaviour, Misbehaviours
from watchdog.sandbox.tasks import Fate
from watchdog.sandbox.vendor import Answer, Code, Limits, Request, Vendor
from watchdog.sandbox.world import World, stream

APP, SECRET, NOW = 12345, "9193cc662a4c0ec135ec71fb57194b38", 1_615_186_943.25
UNLIMITED = Limits(
    start=0, stop=0, stop_agent=0, stop_digital_human=0, stop_player=0, stop_recording=0, list_tasks=0, user_num=0
)
NEW = [kind for kind in Kind if kind is not Kind.ASR]
DAY = 86_400


def vendor(limits: Limits = UNLIMITED, **world: Any) -> Vendor:
    return Vendor(World(seed=1, **world), {APP: SECRET}, limits)


def call(fake: Vendor, action: Action, body: object = None, *, now: float = NOW, more: str = "") -> Answer:
    nonce = "4fd24687296dd9f3"
    query = {"Action": action, "AppId": APP, "SignatureNonce": nonce, "Timestamp": int(now), "SignatureVersion": "2.0"}
    query["Signature"] = sign(APP, nonce, SECRET, int(now))
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return fake.answer(Request.read(action.method, urlencode(query) + more, raw), now)


def nested(path: Path, value: object) -> dict[str, Any]:
    first, *rest = path
    return {first: nested(tuple(rest), value) if rest else value}


def body_of(kind: Kind, room: object = "room", **more: Any) -> dict[str, Any]:
    return nested(PRODUCTS[kind].room, room) | more


def start(fake: Vendor, kind: Kind, room: str = "room", *, now: float = NOW, **more: Any) -> str:
    answer = call(fake, PRODUCTS[kind].start, body_of(kind, room, **more), now=now)
    assert (answer.code, answer.data is not None) == (0, True)
    (task_id,) = (answer.data or {}).values()
    return str(task_id)


def stop(fake: Vendor, kind: Kind, task_id: str, *, now: float = NOW) -> int:
    product = PRODUCTS[kind]
    return int(call(fake, product.stop, {product.id_field: task_id}, now=now).code)


@pytest.mark.parametrize("kind", Kind)
def test_the_daemons_table_and_this_one_agree(kind: Kind) -> None:
    product, known = PRODUCTS[kind], KINDS[kind]
    assert (product.stop, product.id_field) == (known.action, known.id_field)
    assert product.list == (known.listing and known.listing.action)
    for fate, code in product.answers.items():
        answered = str(int(code))
        if fate is Fate.STOPPING and kind is Kind.AGENT:
            assert answered in known.transient
        elif known.gone:
            assert answered in known.gone
    if known.throttled:
        assert str(int(product.too_many_requests)) in known.throttled
    if known.stops_per_second is not None:
        assert Limits().of(product.stop) == known.stops_per_second


@pytest.mark.parametrize(
    ("kind", "id_field", "gone"),
    [
        (Kind.AGENT, "AgentInstanceId", (410001002, 410001002)),
        (Kind.DIGITAL_HUMAN, "TaskId", (400000005, 400000007)),
        (Kind.PLAYER, "PlayerId", (350006003, 350006003)),
        (Kind.RECORDING, "TaskId", (300001000, 300001001)),
    ],
)
def test_a_stop_works_once_and_has_codes_for_what_does_not_run(
    kind: Kind, id_field: str, gone: tuple[int, int]
) -> None:
    fake, product = vendor(), PRODUCTS[kind]
    started = call(fake, product.start, body_of(kind))
    assert list(started.data or {}) == [id_field]
    task_id = (started.data or {})[id_field]
    assert call(fake, product.stop, {id_field: "1"}).code == gone[0]
    assert call(fake, product.stop, {id_field: task_id}).code == 0
    assert call(fake, product.stop, {id_field: task_id}).code == gone[1]
    assert fake.world.fate(APP, kind, task_id, NOW) is Fate.ENDED


@pytest.mark.parametrize("kind", NEW)
def test_a_stop_does_not_take_the_id_of_another_kind(kind: Kind) -> None:
    fake = vendor()
    other = start(fake, Kind.ASR)
    assert stop(fake, kind, other) == PRODUCTS[kind].answers[Fate.UNKNOWN]
    assert stop(fake, Kind.ASR, start(fake, kind)) == Code.TASK_NOT_FOUND
    assert fake.world.fate(APP, Kind.ASR, other, NOW) is Fate.RUNNING


def test_an_agent_that_is_being_stopped_has_a_code_of_its_own() -> None:
    fake = vendor()
    agent = start(fake, Kind.AGENT)
    fake.world.stop(APP, agent, NOW, request_id=None, graceful_seconds=3)
    assert [stop(fake, Kind.AGENT, agent, now=NOW + after) for after in (1, 3)] == [410001041, 410001002]


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_bodies_that_are_no_objects(kind: Kind, body: bytes) -> None:
    product = PRODUCTS[kind]
    assert {call(vendor(), action, body).code for action in (product.start, product.stop)} == {product.json_invalid}


@pytest.mark.parametrize("kind", NEW)
def test_bad_parameters(kind: Kind) -> None:
    fake, product = vendor(), PRODUCTS[kind]
    outside = FACTS[kind].max_idle_range.start - 1
    bad: list[object] = [{}, body_of(kind, ""), body_of(kind, "a b"), body_of(kind, 7)]
    bad += [body_of(kind) | nested(product.max_idle, value) for value in (outside, "60", True)]
    bad += [{product.room[0]: [], "RoomId": None}]
    if product.user:
        both = nested(product.user, "x" * 33)
        bad.append({**body_of(kind), **both} if len(product.user) == 1 else {"RTC": {"RoomId": "a", **both["RTC"]}})
    assert [call(fake, product.start, body).code for body in bad] == [product.parameter_invalid] * len(bad)
    assert call(fake, product.stop, {product.id_field: 7}).code == product.parameter_invalid
    assert len(fake.world.log) == 0


@pytest.mark.parametrize("kind", NEW)
def test_start_takes_the_idle_time_it_is_given(kind: Kind) -> None:
    fake = vendor()
    least = FACTS[kind].max_idle_range.start
    start(fake, kind, **nested(PRODUCTS[kind].max_idle, least))
    assert [task["max_idle_seconds"] for task in fake.world.state(NOW)["tasks"]] == [least]


def test_an_agent_and_a_player_join_as_the_user_of_their_request_and_are_counted_and_listed() -> None:
    fake = vendor()
    call(fake, Action.START_AGENT, {"RTC": {"RoomId": "room", "AgentUserId": "robot"}})
    call(fake, Action.START_PLAYER, {"RoomId": "room", "UserId": "film"})
    counted = call(fake, Action.USER_NUM, more="&RoomId[]=room").data
    assert counted == {"UserCountList": [{"RoomId": "room", "UserCount": 2, "AdminUserCount": 0}]}
    listed = call(fake, Action.USER_LIST, more="&RoomId=room").data
    assert [(user["UserId"], user["UserRole"]) for user in (listed or {})["UserList"]] == [("robot", 1), ("film", 1)]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(Kind.AGENT, 410000010), (Kind.DIGITAL_HUMAN, 400000008), (Kind.PLAYER, 350010000), (Kind.RECORDING, 300010000)],
)
def test_start_beyond_the_limit_of_the_account(kind: Kind, code: int) -> None:
    fake = vendor(account_limits={kind: 1})
    start(fake, kind)
    assert call(fake, PRODUCTS[kind].start, body_of(kind)).code == code


@pytest.mark.parametrize(
    ("kind", "rate", "code"),
    [
        (Kind.AGENT, 10, 206),
        (Kind.DIGITAL_HUMAN, 10, 400010009),
        (Kind.PLAYER, 20, 350006001),
        (Kind.RECORDING, 50, 300000003),
    ],
)
def test_more_stops_than_the_limit_of_a_kind(kind: Kind, rate: int, code: int) -> None:
    fake = vendor(Limits())
    unknown = PRODUCTS[kind].answers[Fate.UNKNOWN]
    assert [stop(fake, kind, "1") for _ in range(rate + 1)] == [unknown] * rate + [code]
    # Another kind has a limit of its own.
    assert stop(fake, Kind.ASR, "1") == Code.TASK_NOT_FOUND


@pytest.mark.parametrize("action", LISTS)
def test_lists_have_a_limit(action: Action) -> None:
    fake = vendor(Limits())
    codes = [call(fake, action, {}).code for _ in range(11)]
    assert codes.count(OF_A_KIND[action].too_many_requests) == 1


def test_the_list_of_digital_humans_has_those_that_run() -> None:
    fake = vendor()
    gone, runs = start(fake, Kind.DIGITAL_HUMAN), start(fake, Kind.DIGITAL_HUMAN, "other")
    stop(fake, Kind.DIGITAL_HUMAN, gone)
    expected = {"TaskId": runs, "RoomId": "other", "StreamId": f"digital-{runs}_main", "Status": 3}
    expected |= {"CreateTime": int(NOW)}
    bodies: list[object] = [None, {}]
    for body in bodies:
        assert call(fake, Action.LIST_DIGITAL_HUMANS, body).data == {"TaskList": [expected]}


def players(fake: Vendor, **body: Any) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    token = ""
    while True:
        data = call(fake, Action.LIST_PLAYERS, {"PageToken": token, **body}).data
        assert data is not None
        found += data["Players"]
        token = data["NextPageToken"]
        if not token:
            assert len(found) == data["TotalSize"]
            return found


def test_the_list_of_players_has_all_also_destroyed_ones() -> None:
    fake = vendor()
    deleted = start(fake, Kind.PLAYER, StreamId="s", PlayerName="intro", StreamUrl="https://example.com/a.mp4")
    idle = start(fake, Kind.PLAYER, MaxIdleTime=5)
    ended, plays = start(fake, Kind.PLAYER), start(fake, Kind.PLAYER, "other")
    stop(fake, Kind.PLAYER, deleted)
    for player in (idle, ended):
        fake.world.end_media(APP, player, NOW)
    fake.world.advance(NOW + 5)
    found = players(fake)
    assert {player["PlayerId"]: (player["Status"], player["DestroyReason"]) for player in found} == {
        deleted: (8, 1),
        idle: (8, 2),
        ended: (7, 0),
        plays: (4, 0),
    }
    assert found[0] == {
        "PlayerId": deleted,
        "RoomId": "room",
        "StreamId": "s",
        "CreateTime": int(NOW),
        "PlayTime": int(NOW),
        "PlayerName": "intro",
        "StreamUrl": "https://example.com/a.mp4",
        "Status": 8,
        "DestroyReason": 1,
    }
    assert [player["PlayerId"] for player in players(fake, RoomId="other")] == [plays]
    assert [player["PlayerId"] for player in players(fake, PlayerId=idle)] == [idle]


def test_the_list_of_players_has_pages() -> None:
    fake = vendor(account_limits={Kind.PLAYER: 0})
    started = [start(fake, Kind.PLAYER) for _ in range(101)]
    assert [player["PlayerId"] for player in players(fake)] == started
    assert [player["PlayerId"] for player in players(fake, PageSize=7)] == started
    first = call(fake, Action.LIST_PLAYERS, {}).data
    assert first is not None
    assert (len(first["Players"]), first["TotalSize"]) == (50, 101)
    whole = call(fake, Action.LIST_PLAYERS, {"PageSize": 1, "PageToken": "100"}).data
    assert whole is not None
    assert (len(whole["Players"]), whole["NextPageToken"]) == (1, "")


@pytest.mark.parametrize("body", [{"PageSize": 0}, {"PageSize": 51}, {"PageSize": "1"}, {"PageToken": "x"}])
def test_the_list_of_players_refuses_bad_pages(body: object) -> None:
    assert call(vendor(), Action.LIST_PLAYERS, body).code == 350006003


def recordings(fake: Vendor, now: float, **body: Any) -> Mapping[str, Any]:
    whole = {"Status": 2, "StartTime": round((now - 3 * DAY) * 1000) + 1, "EndTime": round(now * 1000), **body}
    data = call(fake, Action.LIST_RECORDINGS, whole, now=now).data
    assert data is not None
    return data


def test_the_list_of_recordings_has_those_that_run_or_those_that_ended() -> None:
    fake = vendor()
    stopped, ended = start(fake, Kind.RECORDING), start(fake, Kind.RECORDING)
    stop(fake, Kind.RECORDING, stopped)
    now = NOW + 30
    runs = start(fake, Kind.RECORDING, "other", now=now)
    entry = {"RecordBeginTimestamp": round(now * 1000), "TaskId": runs, "RoomId": "other", "Status": 2}
    expected = {"PageOffset": 1, "PageSize": 50, "TotalCount": 1, "TaskList": [entry]}
    assert recordings(fake, now + 1) == expected
    assert recordings(fake, now + 1, RoomId="room")["TaskList"] == []
    over = recordings(fake, now + 1, Status=3)["TaskList"]
    assert [(task["TaskId"], task["Status"]) for task in over] == [(stopped, 3), (ended, 3)]
    assert recordings(fake, now + 1, EndTime=round(now * 1000) - 1)["TotalCount"] == 0


def test_the_list_of_recordings_has_numbered_pages() -> None:
    fake = vendor()
    started = [start(fake, Kind.RECORDING) for _ in range(101)]
    pages = [recordings(fake, NOW + 1, PageOffset=page) for page in (1, 2, 3, 4)]
    assert [[task["TaskId"] for task in page["TaskList"]] for page in pages] == [
        started[:50],
        started[50:100],
        started[100:],
        [],
    ]
    assert {page["TotalCount"] for page in pages} == {101}


@pytest.mark.parametrize(
    "changes",
    [
        {"Status": 1},
        {"Status": None},
        {"StartTime": None},
        {"EndTime": None},
        {"EndTime": round((NOW - 3 * DAY) * 1000)},
        {"StartTime": round((NOW - 3 * DAY) * 1000) - 1, "EndTime": round((NOW - DAY) * 1000)},
        {"EndTime": round(NOW * 1000) + 1000},
        {"PageOffset": -1},
        {"PageSize": 51},
    ],
)
def test_the_list_of_recordings_needs_a_time_of_three_days_at_most(changes: Mapping[str, Any]) -> None:
    body = {"Status": 2, "StartTime": round((NOW - 3 * DAY) * 1000) + 1, "EndTime": round(NOW * 1000), **changes}
    assert call(vendor(), Action.LIST_RECORDINGS, body).code == Code.INPUT_INVALID


@pytest.mark.parametrize("action", Action)
def test_every_action_can_misbehave(action: Action) -> None:
    misbehaviours = Misbehaviours(stream(1, "misbehaviour"))
    misbehaviours.add(Misbehaviour(action=action, code=206, requests=1))
    others = {other: misbehaviours.choose(other).code for other in Action if other is not action}
    assert set(others.values()) == {None}
    assert misbehaviours.choose(action).code == 206
