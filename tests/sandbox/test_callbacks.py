"""What the fake vendor tells by callback, and when: bodies, retries, and everything that goes wrong on the way."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.signing import callback_signature, sign
from watchdog.sandbox import (
    Action,
    CallbackBehaviour,
    CallbackEncoding,
)
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.outbox import RETRY_SECONDS, Delivery, Outbox
from watchdog.sandbox.vendor import Limits, Request, Vendor
from watchdog.sandbox.world import ADMIN_ROLE, Event, World

APP, NOW = 12345, 1_700_000_000.25
MS = "1700000000250"

ROOM_KEYS = ["event", "appid", "timestamp", "nonce", "signature", "room_id", "room_session_id"]
USER_KEYS = ["event", "appid", "timestamp", "nonce", "signature", "room_id", "room_seq", "user_account", "session_id"]
TASK_KEYS = ["AppId", "Event", "Nonce", "Timestamp", "Signature", "TaskId", "RoomId", "Data"]


class Vendoring:
    """A world and its outbox in virtual time, and a receiver that answers what ``answer`` says."""

    def __init__(self, behaviour: CallbackBehaviour | None = None, *, seed: int = 1, **settings: Any) -> None:
        self.world = World(seed=seed, concurrent_tasks=0)
        self.outbox = Outbox(self.world, seed=seed, **settings)
        if behaviour is not None:
            self.outbox.behaviour = behaviour
        self.sent: list[Delivery] = []

    def run(self, until: float, answer: Callable[[Delivery], int | None] = lambda _: 204) -> None:
        """Deliver everything that is due by then, each at its time."""
        while (at := self.outbox.next_at()) is not None and at <= until:
            at = max(at, self.world.now)
            for delivery in self.outbox.due(at):
                self.sent.append(delivery)
                self.outbox.settle(delivery, answer(delivery), at)
        assert self.outbox.due(until) == []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(delivery.letter.body) for delivery in self.sent]

    @property
    def names(self) -> list[str]:
        return [delivery.letter.callback for delivery in self.sent]

    def logged(self, *kinds: str) -> list[Event]:
        return [event for event in self.world.log if event["event"] in kinds]


def start(world: World, now: float = NOW, room: str = "room", max_idle_seconds: int = 120) -> str:
    task_id = world.start(APP, room, now, max_idle_seconds=max_idle_seconds)
    assert task_id is not None
    return task_id


def types(body: dict[str, Any]) -> dict[str, str]:
    return {key: type(value).__name__ for key, value in body.items()}


# --- bodies


def test_the_first_login_creates_the_room_and_the_last_logout_closes_it() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.world.join(APP, "room", "recorder", NOW + 1, role=ADMIN_ROLE)
    vendor.world.leave(APP, "room", "alice", NOW + 2)
    vendor.world.leave(APP, "room", "recorder", NOW + 3.5)
    vendor.run(NOW + 10)
    assert vendor.names == ["room_create", "room_login", "room_login", "room_logout", "room_logout", "room_close"]
    create, first, second, third, fourth, close = vendor.bodies

    assert list(create) == [*ROOM_KEYS, "room_create_time", "id_name"]
    assert (create["room_create_time"], create["id_name"], create["timestamp"]) == (MS, "alice", 1_700_000_000)
    assert list(close) == [*ROOM_KEYS, "close_reason", "room_close_time"]
    assert (close["close_reason"], close["room_close_time"]) == (0, "1700000003750")
    for body in (create, close):
        numbers = {key for key, kind in types(body).items() if kind == "int"}
        assert numbers - {"close_reason"} == {"appid", "timestamp", "room_session_id"}
        assert body["room_session_id"] > 2**53

    assert list(first) == [*USER_KEYS, "login_time", "user_role", "relogin", "user_update_seq"]
    assert list(fourth) == [*USER_KEYS, "login_time", "logout_time", "reason", "user_update_seq"]
    for body in (first, second, third, fourth):
        assert set(types(body).values()) == {"str"}
        assert body["room_seq"] == str(create["room_session_id"]) == str(close["room_session_id"])
    assert [body["user_update_seq"] for body in (first, second, third, fourth)] == ["1", "2", "3", "4"]
    assert [body["user_role"] for body in (first, second)] == ["1", "4"]
    assert (fourth["login_time"], fourth["logout_time"], fourth["reason"]) == ("1700000001250", "1700000003750", "0")
    assert first["session_id"] == third["session_id"] != second["session_id"] == fourth["session_id"]


def test_a_relogin_is_another_session_in_the_same_room() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.world.join(APP, "room", "alice", NOW + 1)
    vendor.world.leave(APP, "room", "alice", NOW + 2)
    vendor.world.join(APP, "room", "alice", NOW + 3)
    vendor.run(NOW + 10)
    logins = [body for body in vendor.bodies if body["event"] == "room_login"]
    assert [body["relogin"] for body in logins] == ["0", "1", "0"]
    assert len({body["session_id"] for body in logins}) == 3
    assert [body["room_seq"] for body in logins][:2] == [logins[0]["room_seq"]] * 2
    assert logins[2]["room_seq"] != logins[0]["room_seq"]
    (logout,) = [body for body in vendor.bodies if body["event"] == "room_logout"]
    assert (logout["session_id"], logout["login_time"]) == (logins[1]["session_id"], logins[1]["login_time"])
    assert vendor.names.count("room_create") == 2


def test_every_task_in_the_room_hears_what_is_said_and_counts_its_rounds() -> None:
    vendor = Vendoring()
    first, second, _ = start(vendor.world), start(vendor.world), start(vendor.world, room="other")
    vendor.world.join(APP, "room", "alice", NOW)
    assert vendor.world.speak(APP, "room", "alice", "你好, a=b&c", NOW) == (first, second)
    assert vendor.world.speak(APP, "room", "bob", "I am not here", NOW) is None
    vendor.world.stop(APP, first, NOW, request_id="1")
    assert vendor.world.speak(APP, "room", "alice", "again", NOW + 1) == (second,)
    vendor.run(NOW + 2)
    results = [body for body in vendor.bodies if body.get("Event") == "ASRResult"]
    assert [list(body) for body in results] == [TASK_KEYS] * 3
    assert results[0] | {"Nonce": "", "Signature": ""} == {
        "AppId": APP,
        "Event": "ASRResult",
        "Nonce": "",
        "Timestamp": 1_700_000_000_250,
        "Signature": "",
        "TaskId": first,
        "RoomId": "room",
        "Data": {"UserId": "alice", "StreamId": "alice_main", "Round": 1, "Text": "你好, a=b&c"},
    }
    assert [(body["TaskId"], body["Data"]["Round"]) for body in results] == [(first, 1), (second, 1), (second, 2)]


def test_an_auto_stop_is_told_as_1202_and_a_deliberate_stop_is_not() -> None:
    vendor = Vendoring()
    task_id, stopped = start(vendor.world, max_idle_seconds=60), start(vendor.world)
    vendor.world.stop(APP, stopped, NOW + 1, request_id="1", via="api")
    vendor.run(NOW + 1000)
    (body,) = vendor.bodies
    assert list(body) == TASK_KEYS
    assert (body["Event"], body["TaskId"], body["RoomId"]) == ("Exception", task_id, "room")
    assert body["Data"] == {"Code": 1202, "Message": "RTC room has been idle for over 60 seconds."}
    assert body["Timestamp"] == 1_700_000_060_250
    assert vendor.sent[0].sent_at == NOW + 60


def test_an_agent_is_a_user_in_the_rooms_callbacks_and_its_end_is_not_told_as_1202() -> None:
    vendor = Vendoring()
    vendor.world.start(APP, "room", NOW, kind=Kind.AGENT, user_id="robot", max_idle_seconds=10)
    vendor.run(NOW + 1000)
    assert vendor.names == ["room_create", "room_login", "room_logout", "room_close"]
    assert [body["user_account"] for body in vendor.bodies[1:3]] == ["robot", "robot"]
    assert vendor.logged("auto_stopped")


def test_signatures_are_the_vendors() -> None:
    # The example on the vendor's page.
    assert callback_signature("secret", "1470820198", "123412") == "5bd59fd62953a8059fb7eaba95720f66d19e4517"
    vendor = Vendoring(secrets={APP: "of this app"})
    start(vendor.world)
    for app_id in (APP, 2):
        vendor.world.join(app_id, "room", "alice", NOW)
        vendor.world.speak(app_id, "room", "alice", "hello", NOW)
        vendor.world.leave(app_id, "room", "alice", NOW)
    vendor.run(NOW + 1)
    assert len(vendor.bodies) == 9
    for body in vendor.bodies:
        fields = {key.lower(): str(value) for key, value in body.items()}
        secret = "of this app" if fields["appid"] == str(APP) else "secret"
        text = "".join(sorted([secret, fields["timestamp"], fields["nonce"]]))
        assert fields["signature"] == hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  # the vendor's choice


def test_the_vendors_clock_is_the_one_in_the_body() -> None:
    vendor = Vendoring(clock_offset_seconds=-900.0)
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW)
    vendor.world.leave(APP, "room", "alice", NOW + 1)
    vendor.run(NOW + 1)
    assert [delivery.sent_at for delivery in vendor.sent] == [NOW, NOW, NOW + 1, NOW + 1]
    assert [body["timestamp"] for body in vendor.bodies] == [1699999100, "1699999100", "1699999101", 1699999101]
    assert (vendor.bodies[2]["login_time"], vendor.bodies[2]["logout_time"]) == ("1699999100250", "1699999101250")


@pytest.mark.parametrize("encoding", CallbackEncoding)
def test_three_encodings_say_the_same(encoding: CallbackEncoding) -> None:
    vendor = Vendoring(encoding=encoding)
    plain = Vendoring()
    for world in (vendor.world, plain.world):
        start(world)
        world.join(APP, "room", "al ice+&", NOW)
        world.speak(APP, "room", "al ice+&", "100 % 你好", NOW)
    vendor.run(NOW)
    plain.run(NOW)
    for delivery, expected in zip(vendor.sent, plain.bodies, strict=True):
        letter = delivery.letter
        match encoding:
            case CallbackEncoding.JSON:
                assert (letter.content_type, json.loads(letter.body)) == ("application/json", expected)
            case CallbackEncoding.URLENCODED_JSON:
                assert letter.body.startswith(b"%7B%22")
                assert (letter.content_type, json.loads(unquote_plus(letter.body.decode()))) == (
                    "application/json",
                    expected,
                )
            case CallbackEncoding.FORM:
                assert letter.content_type == "application/x-www-form-urlencoded"
                fields = {key: value for key, (value,) in parse_qs(letter.body.decode(), strict_parsing=True).items()}
                data = json.loads(fields.pop("Data", "null"))
                assert data == expected.pop("Data", None)
                assert fields == {key: str(value) for key, value in expected.items()}


# --- delivery


def test_the_vendors_retries_take_about_a_minute() -> None:
    assert (len(RETRY_SECONDS), sum(RETRY_SECONDS)) == (5, 62)


def test_a_receiver_that_never_answers_is_tried_six_times_and_then_the_event_is_lost() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW + 1000, lambda delivery: 200 if delivery.letter.callback == "room_create" else None)
    logins = [delivery for delivery in vendor.sent if delivery.letter.callback == "room_login"]
    assert [(delivery.attempt, delivery.sent_at - NOW) for delivery in logins] == [
        (1, 0),
        (2, 2),
        (3, 6),
        (4, 14),
        (5, 30),
        (6, 62),
    ]
    assert {delivery.letter.body for delivery in logins} == {logins[0].letter.body}
    *sent, lost = vendor.logged("callback_sent", "callback_lost")
    assert [(e["callback"], e["attempt"], e["status"]) for e in sent] == [
        ("room_create", 1, 200),
        *(("room_login", attempt, None) for attempt in range(1, 7)),
    ]
    assert (lost["event"], lost["callback"], lost["attempt"], lost["at"]) == (
        "callback_lost",
        "room_login",
        6,
        NOW + 62,
    )
    assert vendor.outbox.next_at() is None


@pytest.mark.parametrize(("status", "succeeds"), [(200, True), (204, True), (299, True), (301, False), (404, False)])
def test_success_is_any_2xx(status: int, *, succeeds: bool) -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW + 3, lambda _: status)
    assert len(vendor.sent) == (2 if succeeds else 4)


def test_a_retry_that_works_ends_it() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW + 1000, lambda delivery: 200 if delivery.attempt == 3 else 500)
    assert [delivery.attempt for delivery in vendor.sent] == [1, 1, 2, 2, 3, 3]
    assert not vendor.logged("callback_lost")


def test_retries_count_from_request_to_request_and_an_answer_that_took_longer_is_followed_at_once() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    _, first = vendor.outbox.due(NOW)
    assert vendor.outbox.next_at() is None
    vendor.outbox.settle(first, None, NOW + 5)
    (second,) = vendor.outbox.due(NOW + 5)
    vendor.outbox.settle(second, 503, NOW + 6)
    assert vendor.outbox.due(NOW + 8.999) == []
    assert [(d.attempt, d.sent_at) for d in vendor.outbox.due(NOW + 9)] == [(3, NOW + 9)]


def test_what_happened_before_nobody_wanted_to_know() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.outbox.skip()
    vendor.world.join(APP, "room", "bob", NOW + 1)
    vendor.run(NOW + 2)
    assert [body["user_account"] for body in vendor.bodies] == ["bob"]


def test_the_log_says_what_each_callback_tells_of() -> None:
    vendor = Vendoring()
    start(vendor.world)
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW)
    sent = vendor.logged("callback_sent")
    assert [(event["callback"], event["cause"], event["room_id"]) for event in sent] == [
        ("room_create", 2, "room"),
        ("room_login", 2, "room"),
    ]
    assert [event["nonce"] for event in sent] == [body["nonce"] for body in vendor.bodies]
    assert sent[0]["is_copy"] is False


# --- misbehaviour


def busy(vendor: Vendoring, logins: int = 4000) -> None:
    """Somebody logs in again and again, a tenth of a second apart: one room_create, and as many room_login events."""
    for number in range(logins):
        vendor.run(NOW + number / 10)
        vendor.world.join(APP, "room", "alice", NOW + number / 10)
    vendor.run(NOW + 10_000)


def ages(vendor: Vendoring) -> list[float]:
    return [
        delivery.sent_at - int(body["login_time"]) / 1000
        for delivery, body in zip(vendor.sent, vendor.bodies, strict=True)
        if body["event"] == "room_login"
    ]


def seqs(vendor: Vendoring) -> list[int]:
    return [int(body["user_update_seq"]) for body in vendor.bodies if body["event"] == "room_login"]


def test_nothing_is_lost_doubled_or_moved_unless_told_to() -> None:
    vendor = Vendoring()
    busy(vendor)
    assert seqs(vendor) == list(range(1, 4001))


def test_the_share_that_is_lost_is_lost_for_good_and_is_in_the_log() -> None:
    vendor = Vendoring(CallbackBehaviour(lose=0.05))
    busy(vendor)
    lost = vendor.logged("callback_lost")
    assert 0.04 < len(lost) / 4001 < 0.06
    assert {(event["attempt"], event["status"]) for event in lost} == {(0, None)}
    assert seqs(vendor) == sorted(seqs(vendor))
    assert len(vendor.sent) + len(lost) == 4001


def test_the_share_that_is_doubled_has_the_same_bytes_twice() -> None:
    vendor = Vendoring(CallbackBehaviour(duplicate=0.1))
    busy(vendor)
    times = Counter(delivery.letter.body for delivery in vendor.sent)
    assert set(times.values()) == {1, 2}
    assert 0.085 < sum(count == 2 for count in times.values()) / 4001 < 0.115
    assert sum(delivery.letter.is_copy for delivery in vendor.sent) == len(vendor.sent) - 4001


def test_a_copy_takes_its_own_time() -> None:
    vendor = Vendoring(CallbackBehaviour(duplicate=1, delay_seconds=(0, 5)))
    busy(vendor, 500)
    copies = [delivery.sent_at for delivery in vendor.sent if delivery.letter.is_copy]
    first = {delivery.letter.body: delivery.letter.is_copy for delivery in reversed(vendor.sent)}
    assert len(copies) == 501
    assert 200 < sum(first.values()) < 300


def test_a_copy_is_retried_by_itself() -> None:
    vendor = Vendoring(CallbackBehaviour(duplicate=1))
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.run(NOW + 1000, lambda delivery: 500 if delivery.letter.is_copy else 200)
    assert Counter((d.letter.callback, d.letter.is_copy) for d in vendor.sent) == {
        ("room_create", False): 1,
        ("room_create", True): 6,
        ("room_login", False): 1,
        ("room_login", True): 6,
    }


def test_the_share_that_is_reordered_is_overtaken_by_others() -> None:
    vendor = Vendoring(CallbackBehaviour(reorder=0.2))
    busy(vendor)
    order = seqs(vendor)
    assert sorted(order) == list(range(1, 4001))
    latest = 0
    overtaken = 0
    for seq in order:
        overtaken += seq < latest
        latest = max(seq, latest)
    assert 0.17 < overtaken / 4000 < 0.23
    late = [age for age in ages(vendor) if age > 0.11]
    assert 0.18 < len(late) / 4000 < 0.22
    assert 0.99 < min(late) < 1.1
    assert 9.9 < max(late) < 10.1


def test_every_callback_takes_a_time_within_the_delay() -> None:
    vendor = Vendoring(CallbackBehaviour(delay_seconds=(2, 5)))
    busy(vendor, 500)
    assert 1.99 < min(ages(vendor)) < 2.1
    assert 4.9 < max(ages(vendor)) < 5.11


@given(st.integers(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_chance_repeats_with_the_seed(seed: int, lose: float, duplicate: float, reorder: float) -> None:
    def run() -> list[Delivery]:
        how = CallbackBehaviour(lose=lose, duplicate=duplicate, reorder=reorder, delay_seconds=(0, 5))
        vendor = Vendoring(how, seed=seed)
        busy(vendor, 20)
        return vendor.sent

    assert run() == run()


# --- crashes


def test_the_vendor_misses_a_crashed_client_a_hundred_seconds_later() -> None:
    vendor = Vendoring()
    task_id = start(vendor.world, max_idle_seconds=30)
    vendor.world.join(APP, "room", "alice", NOW)
    scene = vendor.world.crash(APP, "room", "alice", NOW + 10)
    assert scene is not None
    assert (scene.people, scene.really_present) == (1, 0)
    assert vendor.world.crash(APP, "room", "alice", NOW + 11) is None
    assert vendor.world.leave(APP, "room", "alice", NOW + 11) is None
    assert vendor.world.speak(APP, "room", "alice", "hello", NOW + 11) is None
    assert [user.user_id for user in vendor.world.users(APP, "room", NOW + 109.999)] == ["alice"]
    vendor.run(NOW + 1000)
    assert vendor.world.users(APP, "room", NOW + 1000) == ()
    *_, logout, close, exception = vendor.bodies
    assert (logout["event"], logout["reason"], logout["logout_time"]) == ("room_logout", "1", "1700000110250")
    assert (close["event"], close["close_reason"]) == ("room_close", 1)
    assert (exception["Data"]["Code"], exception["TaskId"]) == (1202, task_id)
    # The room is idle for the vendor from then on, and not from the crash.
    assert [(e["event"], e["at"] - NOW) for e in vendor.logged("crash", "leave", "auto_stopped")] == [
        ("crash", 10),
        ("leave", 110),
        ("auto_stopped", 140),
    ]


def test_a_client_that_comes_back_in_time_was_never_away_and_its_old_session_ends_late() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.world.crash(APP, "room", "alice", NOW + 10)
    vendor.world.join(APP, "room", "alice", NOW + 20)
    vendor.run(NOW + 1000)
    (present,) = vendor.world.users(APP, "room", NOW + 1000)
    assert not present.crashed
    first, second, logout = [body for body in vendor.bodies if body["event"] != "room_create"]
    assert (second["relogin"], second["room_seq"]) == ("1", first["room_seq"])
    assert (logout["event"], logout["session_id"], logout["reason"]) == ("room_logout", first["session_id"], "1")
    assert (logout["login_time"], logout["logout_time"]) == (MS, "1700000110250")
    assert present.session_id == second["session_id"] != first["session_id"]
    assert not vendor.logged("leave")


def test_a_crash_of_a_room_that_is_gone_ends_nothing_in_the_next_one() -> None:
    vendor = Vendoring()
    vendor.world.join(APP, "room", "alice", NOW)
    vendor.world.crash(APP, "room", "alice", NOW + 1)
    vendor.world.join(APP, "room", "alice", NOW + 2)
    vendor.world.leave(APP, "room", "alice", NOW + 3)
    vendor.world.join(APP, "room", "alice", NOW + 4)
    vendor.run(NOW + 1000)
    assert vendor.names[-3:] == ["room_close", "room_create", "room_login"]


def test_a_stop_is_logged_with_who_is_really_there_where_the_vendor_cannot_know() -> None:
    world = World(seed=1)
    task_id = start(world)
    world.join(APP, "room", "alice", NOW)
    world.join(APP, "room", "recorder", NOW, role=ADMIN_ROLE)
    world.join(APP, "room", "bob", NOW)
    world.crash(APP, "room", "recorder", NOW)
    assert "really_present" not in world.scene(task_id, NOW).as_fields()
    world.crash(APP, "room", "alice", NOW + 1)
    world.stop(APP, task_id, NOW + 2, request_id="1")
    *_, stopped = world.log
    assert (stopped["event"], stopped["people"], stopped["really_present"]) == ("task_stopped", 2, 1)
    assert stopped["users"] == [
        {"user_id": "alice", "role": 1, "crashed": True},
        {"user_id": "recorder", "role": ADMIN_ROLE, "crashed": True},
        {"user_id": "bob", "role": 1},
    ]
    assert world.state(NOW + 2)["rooms"][0]["really_present"] == 1


def test_the_api_counts_a_crashed_client_until_it_is_missed() -> None:
    world = World(seed=1)
    vendor = Vendor(world, {APP: "s"}, Limits())
    world.join(APP, "room", "alice", NOW)
    world.crash(APP, "room", "alice", NOW)

    def count(now: float) -> int:
        signature = sign(APP, "n", "s", int(now))
        query = f"Action={Action.USER_NUM}&AppId={APP}&SignatureNonce=n&Timestamp={int(now)}&SignatureVersion=2.0"
        answer = vendor.answer(Request.read("GET", f"{query}&Signature={signature}&RoomId[]=room", b""), now)
        assert answer.data is not None
        return int(answer.data["UserCountList"][0]["UserCount"])

    assert (count(NOW + 99), count(NOW + 100)) == (1, 0)


Deed = tuple[float, str, str]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 50.0, 99.0, 100.0, 101.0]),
            st.sampled_from(["join", "leave", "crash"]),
            st.sampled_from(["u", "v", "w"]),
        ),
        max_size=40,
    )
)
def test_whoever_follows_the_vendors_recipe_knows_who_is_there_when_nothing_is_lost(deeds: list[Deed]) -> None:
    vendor = Vendoring()
    now = NOW
    for seconds, deed, user_id in deeds:
        now += seconds
        {"join": vendor.world.join, "leave": vendor.world.leave, "crash": vendor.world.crash}[deed](
            APP, "room", user_id, now
        )
    vendor.run(now)
    assert follow(vendor.bodies) == {
        user.user_id: user.session_id for user in vendor.world.users(APP, "room", vendor.world.now)
    }
    times = [event["at"] for event in vendor.world.log]
    assert times == sorted(times)


def follow(bodies: Iterable[dict[str, Any]]) -> dict[str, str]:
    sessions: dict[str, str] = {}
    for body in bodies:
        match body["event"]:
            case "room_login":
                sessions[body["user_account"]] = body["session_id"]
            case "room_logout":
                if sessions.get(body["user_account"]) == body["session_id"]:
                    del sessions[body["user_account"]]
            case "room_create" | "room_close":
                assert not sessions
    return sessions
