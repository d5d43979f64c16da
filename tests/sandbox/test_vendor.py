"""The vendor's API without HTTP: its codes, its limits, its replies."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import pytest

from watchdog.core.signing import sign
from watchdog.sandbox.misbehaviour import WELL_BEHAVED, Drop, Misbehaviour, Misbehaviours
from watchdog.sandbox.vendor import Action, Answer, Code, Limits, Request, SlidingSecond, Vendor
from watchdog.sandbox.world import ADMIN_ROLE, World, stream

APP, SECRET, NOW = 12345, "9193cc662a4c0ec135ec71fb57194b38", 1_615_186_943.0
UNLIMITED = Limits(start=0, stop=0, user_num=0, user_list=0, user_list_per_room=0)


def vendor(limits: Limits = UNLIMITED, **world: Any) -> Vendor:
    return Vendor(World(seed=1, **world), {APP: SECRET}, limits)


Changes = Mapping[str, str | None]


def signed(action: str, changes: Changes = MappingProxyType({}), *, now: float = NOW) -> dict[str, str]:
    query = {
        "Action": action,
        "AppId": str(APP),
        "SignatureNonce": "4fd24687296dd9f3",
        "Timestamp": str(int(now)),
        "SignatureVersion": "2.0",
        "Signature": sign(APP, "4fd24687296dd9f3", SECRET, int(now)),
    }
    return {key: value for key, value in {**query, **changes}.items() if value is not None}


def call(fake: Vendor, action: str, body: object = None, *, now: float = NOW, more: str = "", **changes: str) -> Answer:
    method = "POST" if action in (Action.START, Action.STOP) else "GET"
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    request = Request.read(method, urlencode(signed(action, changes, now=now)) + more, raw)
    return fake.answer(request, now)


def start(fake: Vendor, room_id: str = "room", *, now: float = NOW, **advanced: Any) -> str:
    answer = call(fake, Action.START, {"RoomId": room_id, "AdvancedConfig": advanced}, now=now)
    assert answer.data is not None
    return str(answer.data["TaskId"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"AppId": None}, Code.APP_ID_FORMAT),
        ({"AppId": "x"}, Code.APP_ID_FORMAT),
        ({"AppId": "4294967296"}, Code.APP_ID_FORMAT),
        ({"AppId": "9" * 5000}, Code.APP_ID_FORMAT),
        ({"Timestamp": None}, Code.TIMESTAMP_EMPTY),
        ({"Timestamp": "now"}, Code.TIMESTAMP_FORMAT),
        ({"Timestamp": "9" * 5000}, Code.TIMESTAMP_FORMAT),
        ({"Timestamp": str(int(NOW) - 601)}, Code.SIGNATURE_EXPIRED),
        ({"Timestamp": str(int(NOW) + 601)}, Code.SIGNATURE_EXPIRED),
        ({"Timestamp": str(int(NOW) - 600)}, Code.SIGNATURE_WRONG),
        ({"Action": None}, Code.ACTION_EMPTY),
        ({"Action": "DescribeWeather"}, Code.ACTION_UNSUPPORTED),
        ({"Action": "DescribeUserNum"}, Code.ACTION_UNSUPPORTED),  # it is a GET
        ({"SignatureNonce": ""}, Code.NONCE_EMPTY),
        ({"SignatureNonce": "0000000000000000"}, Code.SIGNATURE_WRONG),
        ({"Signature": None}, Code.SIGNATURE_EMPTY),
        ({"Signature": "43E5CFCCA828314675F91B001390566A"}, Code.SIGNATURE_WRONG),
        ({"Signature": "ä"}, Code.SIGNATURE_WRONG),
        ({"SignatureVersion": None}, Code.SIGNATURE_VERSION_EMPTY),
        ({"SignatureVersion": "1.0"}, Code.SIGNATURE_VERSION_UNSUPPORTED),
        ({"AppId": "54321"}, Code.NO_SERVER_SECRET),
    ],
)
def test_each_fault_of_the_query_has_its_code_and_changes_nothing(changes: Changes, code: Code) -> None:
    fake = vendor()
    task_id = start(fake)
    query = urlencode(signed(Action.STOP, changes))
    answer = fake.answer(Request.read("POST", query, json.dumps({"TaskId": task_id}).encode()), NOW)
    assert (answer.code, answer.data) == (code, None)
    (rejected,) = [event for event in fake.world.log if event["event"] == "rejected_signature"]
    assert (rejected["code"], rejected["request_id"]) == (code, answer.request_id)
    assert fake.world.state(NOW)["tasks"][0]["task_id"] == task_id


def test_the_vendors_own_signature_vector_is_accepted() -> None:
    query = {**signed(Action.USER_NUM), "Signature": "43e5cfcca828314675f91b001390566a"}
    answer = vendor().answer(Request.read("GET", urlencode(query) + "&RoomId[]=a", b""), NOW)
    assert answer.code == Code.SUCCESS


def test_a_vendor_whose_clock_is_ahead_finds_our_timestamps_expired() -> None:
    request = Request.read("GET", urlencode(signed(Action.USER_NUM)) + "&RoomId[]=a", b"")
    assert vendor().answer(request, NOW, clock_offset_seconds=900).code == Code.SIGNATURE_EXPIRED
    assert vendor().answer(request, NOW, clock_offset_seconds=-599).code == Code.SUCCESS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.JSON_INVALID),
        (b"{", Code.JSON_INVALID),
        (b"[]", Code.JSON_INVALID),
        (b"[" * 100_000, Code.JSON_INVALID),
        (b"\xff\xfe\xfd", Code.JSON_INVALID),
        ({}, Code.PARAMETER_INVALID),
        ({"TaskId": ""}, Code.PARAMETER_INVALID),
        ({"TaskId": 1920370518175780864}, Code.PARAMETER_INVALID),
        ({"TaskId": "1920370518175780864"}, Code.TASK_NOT_FOUND),
    ],
)
def test_what_stop_says_to_bad_bodies(body: object, code: Code) -> None:
    assert call(vendor(), Action.STOP, body).code == code


def test_stop_works_once() -> None:
    fake = vendor()
    task_id = start(fake)
    first, second = (call(fake, Action.STOP, {"TaskId": task_id}) for _ in range(2))
    assert (first.code, first.message, first.data) == (0, "Success", None)
    assert second.code == Code.TASK_NOT_FOUND
    assert first.request_id != second.request_id


def test_stop_of_a_task_that_the_vendor_ended_finds_nothing() -> None:
    fake = vendor()
    task_id = start(fake, MaxIdleTime=30)
    assert call(fake, Action.STOP, {"TaskId": task_id}, now=NOW + 30).code == Code.TASK_NOT_FOUND


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"RoomId": ""},
        {"RoomId": "a b"},
        {"RoomId": "a\n"},
        {"RoomId": "r" * 129},
        {"RoomId": 7},
        {"RoomId": "a", "AdvancedConfig": []},
        {"RoomId": "a", "AdvancedConfig": {"MaxIdleTime": 29}},
        {"RoomId": "a", "AdvancedConfig": {"MaxIdleTime": 1801}},
        {"RoomId": "a", "AdvancedConfig": {"MaxIdleTime": "120"}},
        {"RoomId": "a", "AdvancedConfig": {"MaxIdleTime": True}},
    ],
)
def test_start_refuses_bad_parameters(body: object) -> None:
    fake = vendor()
    assert call(fake, Action.START, body).code == Code.PARAMETER_INVALID
    assert len(fake.world.log) == 0


def test_start_takes_the_idle_time_it_is_given_and_the_default_otherwise() -> None:
    fake = vendor(max_idle_seconds=150)
    start(fake, "a")
    start(fake, "b", MaxIdleTime=1800)
    assert [task["auto_stop_at"] - NOW for task in fake.world.state(NOW)["tasks"]] == [150, 1800]


def test_start_beyond_the_quota() -> None:
    fake = vendor(concurrent_tasks=1)
    start(fake)
    assert call(fake, Action.START, {"RoomId": "b"}).code == Code.CONCURRENCY
    assert call(fake, Action.START, b"x").code == Code.JSON_INVALID


def test_user_num_counts_admins_among_the_users_and_gives_zero_for_no_room() -> None:
    fake = vendor()
    fake.world.join(APP, "a", "alice", NOW)
    fake.world.join(APP, "a", "recorder", NOW, role=ADMIN_ROLE)
    fake.world.join(999, "b", "stranger", NOW)
    answer = call(fake, Action.USER_NUM, more="&RoomId[]=a&RoomId%5B%5D=b")
    assert answer.data == {
        "UserCountList": [
            {"RoomId": "a", "UserCount": 2, "AdminUserCount": 1},
            {"RoomId": "b", "UserCount": 0, "AdminUserCount": 0},
        ]
    }


@pytest.mark.parametrize("more", ["", "&RoomId=a", "&RoomId[]=", "&RoomId[]=a" * 11, "&RoomId[]=a&RoomId[]=b+c"])
def test_user_num_takes_one_to_ten_good_room_ids(more: str) -> None:
    assert call(vendor(), Action.USER_NUM, more=more).code == Code.INPUT_INVALID
    assert call(vendor(), Action.USER_NUM, more="&RoomId[]=a" * 10).code == Code.SUCCESS


def pages(fake: Vendor, mode: str, limit: int) -> list[list[str]]:
    found: list[list[str]] = []
    marker = ""
    while True:
        answer = call(fake, Action.USER_LIST, RoomId="a", Mode=mode, Limit=str(limit), Marker=marker)
        assert answer.data is not None
        found.append([user["UserId"] for user in answer.data["UserList"]])
        marker = answer.data["Marker"]
        if not marker:
            return found


def test_user_list_pages_through_a_room_in_both_directions() -> None:
    fake = vendor()
    for user_id in "vwxyz":
        fake.world.join(APP, "a", user_id, NOW, name=user_id.upper())
    assert pages(fake, "0", 2) == [["v", "w"], ["x", "y"], ["z"]]
    assert pages(fake, "1", 2) == [["z", "y"], ["x", "w"], ["v"]]
    assert pages(fake, "0", 5) == [["v", "w", "x", "y", "z"]]
    answer = call(fake, Action.USER_LIST, RoomId="a", Limit="1")
    assert answer.data == {"Marker": "1", "UserList": [{"UserId": "v", "UserName": "V", "UserRole": 1}]}


def test_a_page_skips_nobody_when_the_one_it_ended_at_has_left() -> None:
    fake = vendor()
    for user_id in "xyz":
        fake.world.join(APP, "a", user_id, NOW)
    fake.world.leave(APP, "a", "x", NOW)
    answer = call(fake, Action.USER_LIST, RoomId="a", Marker="1")
    assert answer.data is not None
    assert [user["UserId"] for user in answer.data["UserList"]] == ["y", "z"]


def test_user_list_of_no_room_is_empty() -> None:
    assert call(vendor(), Action.USER_LIST, RoomId="a").data == {"Marker": "", "UserList": []}


@pytest.mark.parametrize(
    "changes", [{"RoomId": ""}, {"Mode": "2"}, {"Limit": "0"}, {"Limit": "201"}, {"Limit": "x"}, {"Marker": "x"}]
)
def test_user_list_refuses_bad_parameters(changes: Mapping[str, str]) -> None:
    query = urlencode(signed(Action.USER_LIST, {"RoomId": "a", **changes}))
    assert vendor().answer(Request.read("GET", query, b""), NOW).code == Code.INPUT_INVALID


def test_more_than_the_limit_in_any_second_is_throttled_and_says_so_in_the_log() -> None:
    fake = vendor(Limits())
    body = {"TaskId": "1"}
    codes = [call(fake, Action.STOP, body, now=NOW + index / 100).code for index in range(11)]
    assert codes == [Code.TASK_NOT_FOUND] * 10 + [Code.APP_RATE]
    assert [event["event"] for event in fake.world.log] == ["throttled"]
    # The window slides: the first request is out of it after exactly a second, the second is not.
    assert call(fake, Action.STOP, body, now=NOW + 1.0).code == Code.TASK_NOT_FOUND
    assert call(fake, Action.STOP, body, now=NOW + 1.005).code == Code.APP_RATE
    assert call(fake, Action.START, {"RoomId": "a"}, now=NOW + 1.005).code == Code.SUCCESS


def test_a_throttled_stop_stops_nothing() -> None:
    fake = vendor(Limits(stop=1))
    task_id = start(fake)
    call(fake, Action.STOP, {"TaskId": "1"})
    assert call(fake, Action.STOP, {"TaskId": task_id}).code == Code.APP_RATE
    assert len(fake.world.state(NOW)["tasks"]) == 1


def test_user_list_is_limited_per_room_too() -> None:
    fake = vendor(Limits(user_list=3))
    codes = [call(fake, Action.USER_LIST, RoomId=room).code for room in ("a", "a", "b", "c", "d")]
    assert codes == [0, Code.ROOM_RATE, 0, 0, Code.APP_RATE]
    assert call(fake, Action.USER_LIST, RoomId="a", now=NOW + 1).code == 0


def test_an_unsigned_request_uses_up_no_rate() -> None:
    fake = vendor(Limits(stop=1))
    for _ in range(3):
        assert call(fake, Action.STOP, {"TaskId": "1"}, Signature="0" * 32).code == Code.SIGNATURE_WRONG
    assert call(fake, Action.STOP, {"TaskId": "1"}).code == Code.TASK_NOT_FOUND


def test_the_sliding_second_forgets_keys() -> None:
    window = SlidingSecond()
    for index in range(10_000):
        assert window.has_room(index, 1, index / 1000)
        window.admit(index, index / 1000)
    assert len(window._counts) <= 1000


def chosen(seed: int) -> list[tuple[bool, float]]:
    misbehaviours = Misbehaviours(stream(seed, "misbehaviour"))
    misbehaviours.add(Misbehaviour(probability=0.3, latency_seconds=(0, 1)))
    picks = (misbehaviours.choose(Action.STOP) for _ in range(200))
    return [(how is not WELL_BEHAVED, misbehaviours.between(how.latency_seconds)) for how in picks]


def test_chance_repeats_with_the_seed() -> None:
    assert chosen(1) == chosen(1) != chosen(2)
    assert 30 < sum(hit for hit, _ in chosen(1)) < 90


def test_a_misbehaviour_of_the_next_requests_is_used_up_by_those_it_concerns() -> None:
    misbehaviours = Misbehaviours(stream(1, "misbehaviour"))
    misbehaviours.add(Misbehaviour(action=Action.STOP, requests=2, code=206))
    misbehaviours.add(Misbehaviour(http_status=500))
    assert misbehaviours.choose(Action.START).http_status == 500
    assert [misbehaviours.choose(Action.STOP).code for _ in range(3)] == [206, 206, None]
    misbehaviours.clear()
    assert misbehaviours.choose(Action.STOP) is WELL_BEHAVED


@pytest.mark.parametrize(
    ("misbehaviour", "takes_effect"),
    [
        (WELL_BEHAVED, True),
        (Misbehaviour(code=206), False),
        (Misbehaviour(http_status=500), False),
        (Misbehaviour(http_status=500, processed=True), True),
        (Misbehaviour(drop_reply=Drop.BEFORE), False),
        (Misbehaviour(drop_reply=Drop.AFTER), True),
        (Misbehaviour(latency_seconds=(1, 2), drip=True), True),
    ],
)
def test_which_misbehaviours_let_a_request_take_effect(misbehaviour: Misbehaviour, *, takes_effect: bool) -> None:
    assert misbehaviour.takes_effect is takes_effect
