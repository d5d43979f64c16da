"""The webhook's rules. The package ``standardwebhooks``, the specification's own, verifies what is signed."""

import base64
import json
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from watchdog.core.webhook import (
    BODY_LIMIT_BYTES,
    FIRST_WAIT_SECONDS,
    GIVE_UP_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_WAIT_SECONDS,
    Receiver,
    Result,
    judge,
    keys,
    message_id,
    payload,
    signatures,
    wait_seconds,
)

AT = datetime(2026, 3, 1, 12, 0, 0, 250, UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def headers_of(secrets: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures(keys(secrets), webhook_id, timestamp, body),
    }


def test_the_published_vector() -> None:
    """Of the specification's reference implementations."""
    body = b'{"test": 2432232314}'
    signed = signatures(keys(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.text(), st.dictionaries(st.text(max_size=20), st.none() | st.integers() | st.text()), st.integers(1, 2**62))
def test_the_specifications_verifier_accepts_every_event(kind: str, data: dict[str, Any], number: int) -> None:
    body = payload(kind, AT, data)
    headers = headers_of(SECRET, message_id(number, AT), int(time.time()), body)  # noqa: TID251 - the verifier's clock
    verified = Webhook(SECRET).verify(body, headers)
    assert verified == json.loads(body)
    assert set(verified) == {"type", "timestamp", "data"}


def test_while_a_secret_is_rotated_both_are_accepted() -> None:
    body = payload("task.stopped", AT, {"task_id": "t"})
    now = int(time.time())  # noqa: TID251 - the verifier's clock
    headers = headers_of(f"{OTHER}\n{SECRET}", "zego_1_2", now, body)
    assert Webhook(SECRET).verify(body, headers) == Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers_of(OTHER, "zego_1_2", now, body))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers | {"webhook-id": "zego_2_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)


def test_the_body() -> None:
    assert (
        payload("task.stopped", AT.astimezone(), {"room_id": "房间", "code": None, "attempt": 1})
        == (
            '{"type":"task.stopped","timestamp":"2026-03-01T12:00:00.000250Z",'
            '"data":{"room_id":"房间","code":null,"attempt":1}}'
        ).encode()
    )


@given(
    st.dictionaries(
        st.text(max_size=30), st.sampled_from(["x", "\x00", "房", "\U0001f600", "\ud800"]).map(lambda c: c * 6000)
    )
)
def test_a_body_is_never_too_long(data: dict[str, Any]) -> None:
    body = payload("task.stopped", AT, data)
    assert len(body) < BODY_LIMIT_BYTES
    assert json.loads(body)["type"] == "task.stopped"


def test_a_body_that_no_cut_makes_short_enough_has_no_data() -> None:
    body = payload("t" * 50_000, AT, {str(number): "x" * 100 for number in range(2000)})
    assert json.loads(body)["data"] == {}


def test_an_id_names_the_event_and_its_microsecond() -> None:
    assert message_id(7, AT) == "zego_7_1772366400000250"
    assert message_id(7, AT + timedelta(microseconds=1)) != message_id(7, AT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("secret", "does not begin with whsec_"),
        ("whsec_" + base64.b64encode(b"short").decode(), "a secret has 5 bytes, and 24 to 64 are allowed"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "a secret has 65 bytes"),
        ("whsec_", "a secret has 0 bytes"),
        ("whsec_not base64!", "what follows whsec_ is not base64"),
        (f"{SECRET}\n\n{SECRET}", "more than two lines"),
        (f"{SECRET}\n", None),
        (f"{SECRET}\r\n{OTHER}", None),
        (OTHER.rstrip("="), None),
    ],
)
def test_secrets(text: str, reason: str | None) -> None:
    if reason is None:
        assert keys(text)
        return
    with pytest.raises(ValueError, match=reason) as refused:
        keys(text)
    assert "base64!" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, Result.DELIVERED) for status in (200, 202, 204, 299)),
        *((status, Result.REFUSED) for status in (300, 301, 308, 400, 401, 404, 408, 500, 501, 599, 101, 999)),
        *((status, Result.BUSY) for status in (429, 502, 503, 504)),
        (410, Result.SUSPENDED),
    ],
)
def test_answers(status: int, result: Result) -> None:
    verdict = judge(status, "words", None, None, 0.0)
    assert verdict.result is result
    assert (verdict.error is None) == (result is Result.DELIVERED)
    assert verdict.pause_seconds is None


NOW = 1_772_366_400.0


@pytest.mark.parametrize(
    ("retry_after", "date", "pause"),
    [
        ("120", None, 120),
        (" 0 ", None, 0),
        ("9" * 400, None, LONGEST_WAIT_SECONDS),
        ("Sun, 01 Mar 2026 12:01:00 GMT", None, 60),
        ("Sun, 01 Mar 2026 12:01:00 GMT", "Sun, 01 Mar 2026 12:00:50 GMT", 10),
        ("Sun, 01 Mar 2026 11:01:00 GMT", None, 0),
        ("Fri, 01 Jan 9999 11:01:00 GMT", None, LONGEST_WAIT_SECONDS),
        ("soon", None, None),
        ("-5", None, None),
        ("٣", None, None),
        ("", None, None),
    ],
)
def test_retry_after(retry_after: str, date: str | None, pause: float | None) -> None:
    assert judge(503, "", retry_after, date, NOW).pause_seconds == pause
    # It makes any failure one of the receiver as a whole, and says nothing of a success.
    assert judge(500, "", retry_after, date, NOW).result is (Result.REFUSED if pause is None else Result.BUSY)
    assert judge(200, "", retry_after, date, NOW).result is Result.DELIVERED


@given(st.integers(100, 999), st.text(), st.text(), st.text())
def test_no_header_is_too_strange(status: int, text: str, retry_after: str, date: str) -> None:
    pause = judge(status, text, retry_after, date, NOW).pause_seconds
    assert pause is None or 0 <= pause <= LONGEST_WAIT_SECONDS


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_wait_of_an_event_doubles_up_to_an_hour(attempts: int, chance: float) -> None:
    wait = wait_seconds(attempts, 0.0, chance)
    assert wait is not None
    plain = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 50), LONGEST_WAIT_SECONDS)
    assert plain * 0.75 <= wait <= plain * 1.25


def test_an_event_is_given_up_after_a_day_and_tried_until_then() -> None:
    attempts, age = 1, 0.0
    while (wait := wait_seconds(attempts, age, 0.5)) is not None:
        attempts, age = attempts + 1, age + wait
    assert age == GIVE_UP_SECONDS
    assert 30 < attempts < 40


def test_a_receiver_that_fails_gets_one_probe_after_each_pause() -> None:
    receiver = Receiver()
    assert (receiver.wait(0.0), receiver.is_probing) == (0.0, False)
    assert receiver.failed(0.0, None, 0.5)
    # Those that were sent at the same time fail, too.
    assert not receiver.failed(0.5, None, 0.5)
    assert (receiver.wait(0.5), receiver.is_probing) == (4.5, True)
    assert not receiver.failed(5.0, None, 0.5)
    assert receiver.wait(5.0) == 10.0
    now = 0.0
    for _ in range(30):
        now += receiver.wait(now)
        receiver.failed(now, None, 1.0)
    assert receiver.wait(now) == LONGEST_PAUSE_SECONDS * 1.25
    assert not receiver.answered(now), "this answer is to an older request"
    assert receiver.answered(now + receiver.wait(now))
    assert not receiver.is_probing
    assert not receiver.answered(now + 1000)


def test_a_receiver_may_ask_for_a_longer_pause() -> None:
    receiver = Receiver()
    receiver.failed(0.0, 1000.0, 0.5)
    assert receiver.wait(0.0) == 1000.0
    receiver.failed(1.0, 5.0, 0.5)
    assert receiver.wait(1.0) == 999.0


def test_a_receiver_that_wants_no_more_gets_nothing() -> None:
    receiver = Receiver()
    assert receiver.suspend("HTTP 410")
    assert not receiver.suspend("HTTP 410")
    assert receiver.wait(1e9) == math.inf
