"""Callbacks: three encodings, numbers beyond 2**53, bodies that are wrong in every way, and signatures."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.core.callback_body import BODY_LIMIT_BYTES, BadCallback, Fault
from watchdog.core.callbacks import (
    IDLE_AUTO_STOP,
    LONGEST_MEMORY_SECONDS,
    Event,
    RoomClosed,
    RoomCreated,
    Seal,
    TaskException,
    Unrecognised,
    UserJoined,
    UserLeft,
    Utterance,
    read,
    remembered_until,
    replay_key,
    verify,
)
from watchdog.core.signing import callback_signature

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SECRET = "callback-secret"
SENT = 1_772_366_400
BIG = 18_446_744_073_709_551_557
"""A 64-bit id that a float would round."""

SIGNED: dict[str, Any] = {
    "appid": 1285661813,
    "timestamp": SENT,
    "nonce": "350176",
    "signature": callback_signature(SECRET, str(SENT), "350176"),
}
ASR_SIGNED: dict[str, Any] = {
    "AppId": 1285661813,
    "Timestamp": SENT * 1000 + 250,
    "Nonce": "7503829353462121337",
    "Signature": callback_signature(SECRET, str(SENT * 1000 + 250), "7503829353462121337"),
    "TaskId": "1922184164614877184",
    "RoomId": "room-1",
}
CREATED: dict[str, Any] = {
    **SIGNED,
    "event": "room_create",
    "room_id": "room-1",
    "room_session_id": BIG,
    "room_create_time": str(SENT * 1000 - 1),
    "id_name": "alice",
}
CLOSED: dict[str, Any] = {
    **SIGNED,
    "event": "room_close",
    "room_id": "room-1",
    "room_session_id": BIG,
    "close_reason": "1",
    "room_close_time": str(SENT * 1000 - 1),
}
JOINED: dict[str, Any] = {
    **{name: str(value) for name, value in SIGNED.items()},
    "event": "room_login",
    "room_id": "room-1",
    "room_name": "Room # 1",
    "room_seq": str(BIG),
    "user_account": "alice",
    "session_id": "792462300429684736",
    "login_time": str(SENT * 1000 - 4326),
    "user_role": "1",
    "auth_level": "2",
    "relogin": "0",
    "user_update_seq": "12",
    "callback_data": "",
}
LEFT: dict[str, Any] = {
    **{name: str(value) for name, value in SIGNED.items()},
    "event": "room_logout",
    "room_id": "room-1",
    "room_seq": str(BIG),
    "user_account": "alice",
    "session_id": "792462300429684736",
    "login_time": str(SENT * 1000 - 4326),
    "logout_time": str(SENT * 1000 - 2),
    "reason": "0",
    "user_role": "4",
    "user_update_seq": "13",
}
RECOGNISED: dict[str, Any] = {
    **ASR_SIGNED,
    "Event": "ASRResult",
    "Data": {"UserId": "alice", "StreamId": "s-1", "Round": 67202235, "Text": " 你好，我是即构 "},
}
TRANSLATED: dict[str, Any] = {**RECOGNISED, "Event": "TranslationResult"}
IDLE: dict[str, Any] = {
    **ASR_SIGNED,
    "Event": "Exception",
    "Data": {"Code": 1202, "Message": "RTC room idle\nfor 120 s"},
}
STREAM: dict[str, Any] = {**SIGNED, "event": "stream_create", "channel_id": "0xb-0x1"}

ROOM_EVENTS = [CREATED, CLOSED, JOINED, LEFT, STREAM]
ALL_EVENTS = [*ROOM_EVENTS, RECOGNISED, TRANSLATED, IDLE]


def at(milliseconds: int) -> datetime:
    """Return a moment in milliseconds from SENT."""
    return datetime.fromtimestamp(SENT, UTC) + timedelta(milliseconds=milliseconds)


def as_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def parse(fields: dict[str, Any]) -> Event:
    return read(JSON, as_json(fields))


def fault(body: bytes, content_type: str | None = JSON) -> Fault:
    with pytest.raises(BadCallback) as caught:
        read(content_type, body)
    assert len(str(caught.value)) < 200
    return caught.value.kind


SEAL = Seal(1285661813, float(SENT), str(SENT), "350176", SIGNED["signature"])
ASR_SEAL = Seal(1285661813, SENT + 0.25, str(SENT * 1000 + 250), "7503829353462121337", ASR_SIGNED["Signature"])


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (CREATED, RoomCreated(SEAL, "room-1", str(BIG), at(-1))),
        (CLOSED, RoomClosed(SEAL, "room-1", str(BIG), at(-1), 1)),
        (JOINED, UserJoined(SEAL, "room-1", str(BIG), "alice", "792462300429684736", at(-4326), 1)),
        (LEFT, UserLeft(SEAL, "room-1", str(BIG), "alice", "792462300429684736", at(-4326), at(-2), 4)),
        (RECOGNISED, Utterance(ASR_SEAL, "room-1", "1922184164614877184", "alice", 7)),
        (TRANSLATED, Utterance(ASR_SEAL, "room-1", "1922184164614877184", "alice", 7)),
        (IDLE, TaskException(ASR_SEAL, "room-1", "1922184164614877184", IDLE_AUTO_STOP, "RTC room idle for 120 s")),
        (STREAM, Unrecognised(SEAL, "stream_create")),
    ],
    ids=lambda value: value.get("event", value.get("Event")) if isinstance(value, dict) else "",
)
def test_every_event_is_read(fields: dict[str, Any], event: Event) -> None:
    assert parse(fields) == event
    assert (event.app_id, event.timestamp) == (event.seal.app_id, event.seal.timestamp)


def texts(fields: dict[str, Any]) -> dict[str, str]:
    """Return the fields as a form has them; an object is JSON in its field."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


ENCODINGS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "JSON": as_json,
    "JSON with a byte order mark": lambda fields: b"\xef\xbb\xbf" + as_json(fields),
    "JSON within blanks": lambda fields: b"\r\n " + as_json(fields) + b"\n",
    "JSON, all but letters escaped": lambda fields: json.dumps(fields).encode(),
    "JSON, all strings": lambda fields: as_json(
        {name: value if isinstance(value, dict) else str(value) for name, value in fields.items()}
    ),
    "URL-encoded JSON": lambda fields: quote(as_json(fields), safe="").encode(),
    "URL-encoded JSON, blanks as +": lambda fields: quote_plus(as_json(fields)).encode(),
    "URL-encoded JSON, delimiters left": lambda fields: quote(as_json(fields), safe=";,/?:@&=$").encode(),
    "URL-encoded JSON as a form's only name": lambda fields: urlencode({as_json(fields): ""}).encode(),
    "URL-encoded JSON as a form's only value": lambda fields: urlencode({"data": as_json(fields)}).encode(),
    "form fields": lambda fields: urlencode(texts(fields)).encode(),
}


@pytest.mark.parametrize("fields", ALL_EVENTS, ids=lambda fields: fields.get("event") or fields["Event"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("content_type", [None, "", JSON, f"{FORM}; charset=UTF-8", "Text/Plain"])
def test_the_encoding_makes_no_difference_and_the_header_need_not_name_it(
    content_type: str | None, encoding: str, fields: dict[str, Any]
) -> None:
    assert read(content_type, ENCODINGS[encoding](fields)) == parse(fields)


def test_a_plus_in_an_id_survives_every_encoding() -> None:
    for encode in ENCODINGS.values():
        event = read(None, encode({**JOINED, "user_account": "a+b & c=d%20"}))
        assert isinstance(event, UserJoined)
        assert event.user_id == "a+b & c=d%20"


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_64_bit_ids_are_exact_and_equal_as_number_and_as_string(number: int) -> None:
    for value in (number, str(number)):
        created, left = parse({**CREATED, "room_session_id": value}), parse({**LEFT, "room_seq": value})
        assert isinstance(created, RoomCreated)
        assert isinstance(left, UserLeft)
        assert created.room_session_id == left.room_session_id == str(number)


def test_the_timestamp_is_in_seconds_or_in_milliseconds_as_the_kind_of_event_has_it() -> None:
    assert parse(CREATED).timestamp == SENT
    assert parse(RECOGNISED).timestamp == SENT + 0.25
    for fields in ({**CREATED, "timestamp": SENT * 1000 + 250}, {**RECOGNISED, "Timestamp": str(SENT)}):
        assert fault(as_json(fields)) is Fault.OUT_OF_RANGE


def test_no_transcript_is_kept_or_shown() -> None:
    spoken = "what nobody else should read"
    event = parse({**RECOGNISED, "Data": {"UserId": "alice", "Text": spoken}})
    assert isinstance(event, Utterance)
    assert event.characters == len(spoken)
    assert spoken not in repr(event) + repr(asdict(event))
    for body in (
        as_json({**RECOGNISED, "Data": {"Text": spoken}, "AppId": spoken}),
        as_json({**RECOGNISED, "Data": {"Text": spoken}})[:-1],
        as_json({**RECOGNISED, "Data": spoken}),
    ):
        with pytest.raises(BadCallback) as caught:
            read(JSON, body)
        assert spoken not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("data", [{"UserId": "alice"}, {"UserId": "alice", "Text": ""}, {"Text": " \n"}])
def test_an_utterance_without_words_has_no_characters(data: dict[str, Any]) -> None:
    event = parse({**RECOGNISED, "Data": data})
    assert isinstance(event, Utterance)
    assert event.characters == 0
    assert event.user_id == data.get("UserId")


def test_what_only_describes_may_be_missing_or_odd() -> None:
    for role in ("", None, "-1", "host", True, "9" * 10):
        joined = parse({**JOINED, "user_role": role})
        assert isinstance(joined, UserJoined)
        assert joined.role is None
    closed = parse({name: value for name, value in CLOSED.items() if name != "close_reason"})
    assert isinstance(closed, RoomClosed)
    assert closed.close_reason is None
    left = parse({name: value for name, value in LEFT.items() if name not in {"login_time", "user_role"}})
    assert isinstance(left, UserLeft)
    assert (left.login_at, left.role) == (None, None)


def test_a_message_is_bounded_and_printable() -> None:
    event = parse({**IDLE, "Data": {"Code": "1001", "Message": "\x1b[31m\u0000" + "x" * 10_000}})
    assert isinstance(event, TaskException)
    assert event.code == 1001
    assert event.message.isprintable()
    assert len(event.message) == 200


REQUIRED = {
    "room_create": {*SIGNED, "room_id", "room_session_id", "room_create_time"},
    "room_close": {*SIGNED, "room_id", "room_session_id", "room_close_time"},
    "room_login": {*SIGNED, "room_id", "room_seq", "user_account", "session_id", "login_time"},
    "room_logout": {*SIGNED, "room_id", "room_seq", "user_account", "session_id", "logout_time"},
    "stream_create": set(SIGNED),
    "ASRResult": {*ASR_SIGNED, "Data"},
    "TranslationResult": {*ASR_SIGNED, "Data"},
    "Exception": {*ASR_SIGNED, "Data"},
}


@pytest.mark.parametrize("fields", ALL_EVENTS, ids=lambda fields: fields.get("event") or fields["Event"])
def test_a_missing_field_is_named(fields: dict[str, Any]) -> None:
    name = fields.get("event") or fields["Event"]
    for field in sorted(REQUIRED[name] | {"event" if "event" in fields else "Event"}):
        for body in (
            as_json({key: value for key, value in fields.items() if key != field}),
            as_json({**fields, field: None}),
            as_json({**fields, field: ""}),
        ):
            with pytest.raises(BadCallback, match=rf"^{field}|^Event") as caught:
                read(JSON, body)
            assert caught.value.kind is Fault.MISSING_FIELD
    for body in (b"{}", b"%7B%7D", b"a=b"):
        assert fault(body) is Fault.MISSING_FIELD


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        (JOINED, "room_id", "r" * 129),
        (JOINED, "room_id", "房" * 43),
        (JOINED, "user_account", "u" * 65),
        (JOINED, "user_account", "nul\u0000"),
        (JOINED, "user_account", "two\nlines"),
        (JOINED, "user_account", "\x1b[2J"),
        (JOINED, "user_account", "\ud800"),
        (JOINED, "session_id", "s-1"),
        (JOINED, "session_id", "9" * 21),
        (JOINED, "session_id", "-1"),
        (JOINED, "room_seq", "1e3"),
        (JOINED, "room_seq", 1.5),
        (JOINED, "room_seq", "٣"),
        (JOINED, "room_seq", " 1"),
        (JOINED, "login_time", "0"),
        (JOINED, "login_time", "1"),
        (JOINED, "login_time", "9" * 20),
        (JOINED, "login_time", str(SENT * 1000 + 600_001)),
        (JOINED, "appid", "0"),
        (JOINED, "appid", str(2**32)),
        (JOINED, "timestamp", "yesterday"),
        (JOINED, "timestamp", "9" * 15),
        (JOINED, "nonce", "n" * 65),
        (JOINED, "signature", "s" * 65),
        (JOINED, "event", "e" * 65),
        (IDLE, "TaskId", "t" * 65),
        (IDLE, "TaskId", "t\u0000"),
        (IDLE, "Data", {"Code": "x"}),
        (IDLE, "Data", {"Code": "1" * 10}),
        (RECOGNISED, "Data", {"UserId": "u" * 65, "Text": ""}),
    ],
)
def test_a_value_out_of_range_is_refused(fields: dict[str, Any], field: str, value: object) -> None:
    assert fault(json.dumps({**fields, field: value}).encode()) is Fault.OUT_OF_RANGE


def test_what_is_just_within_range_is_accepted() -> None:
    joined = parse(
        {
            **JOINED,
            "room_id": "r" * 128,
            "user_account": "é" * 32,
            "session_id": "9" * 20,
            "appid": str(2**32 - 1),
            "nonce": "n" * 64,
            "login_time": str(SENT * 1000 + 600_000),
        }
    )
    assert isinstance(joined, UserJoined)
    assert len(replay_key(joined)) <= 96


@pytest.mark.parametrize(
    ("kind", "content_type", "body"),
    [
        (Fault.MALFORMED, JSON, b"{"),
        (Fault.MALFORMED, JSON, b"[1]"),
        (Fault.MALFORMED, JSON, b"null"),
        (Fault.MALFORMED, JSON, b"hello"),
        (Fault.MALFORMED, JSON, as_json(JOINED) + b"x"),
        (Fault.MALFORMED, JSON, as_json(JOINED)[:-1] + b', "user_account": "bob"}'),
        (Fault.MALFORMED, JSON, as_json(JOINED)[:-1] + b', "extra": NaN}'),
        (Fault.MALFORMED, JSON, as_json({**JOINED, "room_id": ["room-1"]})),
        (Fault.MALFORMED, JSON, as_json({**JOINED, "room_id": True})),
        (Fault.MALFORMED, JSON, as_json({**IDLE, "Data": [1202]})),
        (Fault.MALFORMED, JSON, as_json({**IDLE, "Data": "{"})),
        (Fault.MALFORMED, JSON, as_json({**IDLE, "Data": "text"})),
        (Fault.MALFORMED, JSON, b'{"a":' * 17 + b"1" + b"}" * 17),
        (Fault.MALFORMED, JSON, b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        (Fault.MALFORMED, JSON, b"%7B%22"),
        (Fault.MALFORMED, FORM, ENCODINGS["form fields"](JOINED) + b"&user_account=bob"),
        (Fault.MALFORMED, FORM, b"&".join(b"f%d=1" % number for number in range(65))),
        (Fault.WRONG_ENCODING, JSON, as_json(JOINED).replace(b"alice", b"\xff\xfe")),
        (Fault.WRONG_ENCODING, FORM, b"event=%ff&appid=1"),
        (Fault.WRONG_ENCODING, JSON, json.dumps(JOINED).encode("utf-16")),
        (Fault.WRONG_ENCODING, "multipart/form-data; boundary=x", as_json(JOINED)),
        (Fault.WRONG_ENCODING, "application/xml", as_json(JOINED)),
        (Fault.TOO_LARGE, JSON, b" " * (BODY_LIMIT_BYTES + 1)),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(kind: Fault, content_type: str, body: bytes) -> None:
    assert fault(body, content_type) is kind


def test_sixteen_levels_and_a_full_body_are_still_read() -> None:
    nested = json.loads('{"a":' * 14 + "1" + "}" * 14)
    body = as_json({**JOINED, "extra": {"deep": nested}})
    assert read(JSON, body + b" " * (BODY_LIMIT_BYTES - len(body))) == parse(JOINED)


@given(
    st.sampled_from([None, JSON, FORM, "text/html"]), st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
)
def test_no_bytes_make_it_fail_otherwise(content_type: str | None, body: bytes) -> None:
    with pytest.raises(BadCallback):
        read(content_type, body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data(), st.sampled_from(ALL_EVENTS), ANYTHING)
def test_any_value_in_any_field_is_read_or_refused_and_never_fits_badly(
    data: st.DataObject, fields: dict[str, Any], value: object
) -> None:
    field = data.draw(st.sampled_from(sorted(fields)))
    try:
        event = read(None, json.dumps({**fields, field: value}).encode())
    except BadCallback:
        return
    for part in (*asdict(event).values(), *asdict(event.seal).values()):
        assert not isinstance(part, str) or (part.isprintable() and len(part.encode()) <= 800)
        assert not isinstance(part, int) or part < 2**32


# -- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", ALL_EVENTS, ids=lambda fields: fields.get("event") or fields["Event"])
def test_a_signed_callback_is_verified_in_every_encoding(fields: dict[str, Any]) -> None:
    for encode in ENCODINGS.values():
        verify(read(None, encode(fields)), [SECRET], SENT, 300)


def test_any_of_several_secrets_will_do() -> None:
    event = parse(JOINED)
    for secrets in ([SECRET, "new"], ["new", SECRET], ["a", "ä", SECRET]):
        verify(event, secrets, SENT, 300)


@pytest.mark.parametrize(
    ("fields", "secrets"),
    [
        (JOINED, []),
        (JOINED, ["another"]),
        (JOINED, [SECRET + " "]),
        ({**JOINED, "nonce": "350177"}, [SECRET]),
        ({**JOINED, "timestamp": str(SENT + 1)}, [SECRET]),
        ({**JOINED, "signature": "0" * 40}, [SECRET]),
        ({**JOINED, "signature": SIGNED["signature"][:-1]}, [SECRET]),
        ({**JOINED, "signature": "ä" * 20}, [SECRET]),
    ],
)
def test_a_forged_callback_is_refused_and_says_nothing_of_the_secret(
    fields: dict[str, Any], secrets: list[str]
) -> None:
    with pytest.raises(BadCallback) as caught:
        verify(parse(fields), secrets, SENT, 300)
    assert caught.value.kind is Fault.BAD_SIGNATURE
    assert SECRET not in str(caught.value)
    assert SIGNED["signature"] not in str(caught.value)


def test_the_window_is_closed_on_both_sides_and_only_the_signed_learn_of_it() -> None:
    event = parse(JOINED)
    for within in (SENT - 300, SENT, SENT + 300):
        verify(event, [SECRET], within, 300)
    for now in (SENT - 301, SENT + 301, float("nan")):
        with pytest.raises(BadCallback) as caught:
            verify(event, [SECRET], now, 300)
        assert caught.value.kind is Fault.EXPIRED
        with pytest.raises(BadCallback) as caught:
            verify(event, ["another"], now, 300)
        assert caught.value.kind is Fault.BAD_SIGNATURE


def test_the_signature_is_not_in_the_representation() -> None:
    assert SIGNED["signature"] not in repr(parse(JOINED))


def test_a_replay_has_the_key_of_what_it_repeats_whatever_its_body_says() -> None:
    key = replay_key(parse(JOINED))
    assert replay_key(parse({**LEFT, "user_account": "mallory"})) == key
    # Not the AppId, which is not signed: two AppIds may have one secret.
    assert replay_key(parse({**JOINED, "appid": "7"})) == key
    assert replay_key(parse({**JOINED, "signature": "0" * 40})) != key


# -- one signature, several readings ---------------------------------------------------------------------------------

DIGITS = st.from_regex(r"[0-9]{1,20}", fullmatch=True)


def signed(timestamp: str, nonce: str, secret: str, *, asr: bool) -> Event | None:
    """Return the event, or None if it is refused."""
    signature = callback_signature(secret, timestamp, nonce)
    seal = {"timestamp": timestamp, "nonce": nonce, "signature": signature}
    fields = {**IDLE, **{name.title(): value for name, value in seal.items()}} if asr else {**STREAM, **seal}
    try:
        return parse(fields)
    except BadCallback:
        return None


def splits(timestamp: str, nonce: str) -> set[tuple[str, str]]:
    """Return every way to read the signed characters as a timestamp and a nonce."""
    joined = "".join(sorted((timestamp, nonce)))
    halves = [(joined[:end], joined[end:]) for end in range(len(joined) + 1)]
    return {*halves, *((b, a) for a, b in halves), (timestamp, nonce), (nonce, timestamp)}


def test_the_same_signature_under_another_split_is_the_same_callback() -> None:
    """Milliseconds and six digits are seconds and nine digits; only the room's format is read as a room's."""
    genuine = signed("1795936113654", "321098", SECRET, asr=True)
    forged = signed("1795936113", "654321098", SECRET, asr=False)
    assert genuine is not None
    assert forged is not None
    assert genuine.seal.signature == forged.seal.signature
    assert replay_key(genuine) == replay_key(forged)
    assert signed("1795936113654", "321098", SECRET, asr=False) is None
    assert signed("1795936113", "654321098", SECRET, asr=True) is None


@pytest.mark.parametrize("timestamp", [f"0{SENT}", f"00{SENT}", f"0{SENT}250", str(SENT)[:-1], f"{SENT}0", f"+{SENT}"])
def test_a_timestamp_has_one_form(timestamp: str) -> None:
    assert signed(timestamp, "350176", SECRET, asr=False) is None
    assert signed(timestamp, "350176", SECRET, asr=True) is None


@given(
    st.integers(1_700_000_000_000, 1_900_000_000_000),
    DIGITS | st.from_regex(r"1[789][0-9]{4,17}", fullmatch=True) | st.text("0123456789abcdef", min_size=1, max_size=40),
    st.text("0123456789abcdef", min_size=1, max_size=32),
    st.booleans(),
)
def test_no_split_of_a_captured_signature_is_another_callback(
    milliseconds: int,
    nonce: str,
    secret: str,
    asr: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    """Wherever it is accepted, at any later time, its signature is still remembered."""
    genuine = signed(str(milliseconds) if asr else str(milliseconds // 1000), nonce, secret, asr=asr)
    assert genuine is not None
    for timestamp, rest in splits(genuine.seal.timestamp_text, nonce):
        if callback_signature(secret, timestamp, rest) != genuine.seal.signature:
            continue
        for other in (signed(timestamp, rest, secret, asr=True), signed(timestamp, rest, secret, asr=False)):
            if other is not None:
                assert replay_key(other) == replay_key(genuine)
                if other.timestamp <= genuine.timestamp + LONGEST_MEMORY_SECONDS:
                    assert other.timestamp <= remembered_until(genuine)
