from datetime import UTC, datetime, timedelta

import pytest

from watchdog.core.kinds import KINDS
from watchdog.core.model import Outcome, Reply, Status
from watchdog.core.outcomes import (
    RETURN_CODES,
    TASK_BECOMES,
    ReplyClass,
    backoff_seconds,
    classify,
    conclude,
    is_exhausted,
)

ASR = KINDS["asr"]

# The vendor's pages, written out once more and independently of the table under test.
EXPECTED = {
    ReplyClass.STOPPED: "0",
    ReplyClass.GONE: "410001002",
    ReplyClass.TRANSIENT: "410000001 410000009 410000010 410000011 100000012 100000015 410001003",
    ReplyClass.THROTTLED: "206 207",
    ReplyClass.CLOCK: "100000004",
    ReplyClass.CREDENTIALS: "100000005 410000005",
    ReplyClass.CONFIGURATION: "100000000 100000001 100000002 100000003 100000006 100000007 100000008 100000009 "
    "100000010 100000011 100000013 100000014 100000017 410000002 410000006",
    ReplyClass.REJECTED: "410000003 410000004",
}
CASES = [(code, reply_class) for reply_class, codes in EXPECTED.items() for code in codes.split()]
UNEXPECTED = ["00", "0.0", "-0", "+0", " 0", "0 ", "\u0660", "", "OK", "1", "410001001", "100000016", "1e9", "true"]


def reply(code: str | None, http_status: int = 200) -> Reply:
    return Reply(http_status, code, "m", "r", None, None, None)


@pytest.mark.parametrize(("code", "expected"), CASES)
def test_every_documented_code(code: str, expected: ReplyClass) -> None:
    assert classify(ASR, reply(code)) is expected


def test_the_table_has_no_other_codes() -> None:
    assert dict(CASES) == RETURN_CODES["asr"]


@pytest.mark.parametrize("code", [*UNEXPECTED, None])
def test_what_is_not_understood_is_transient(code: str | None) -> None:
    assert classify(ASR, reply(code)) is ReplyClass.TRANSIENT


@pytest.mark.parametrize("code", ["0", "410001002", None])
def test_http_429_is_throttling_whatever_the_body_says(code: str | None) -> None:
    assert classify(ASR, reply(code, 429)) is ReplyClass.THROTTLED


@pytest.mark.parametrize("code", ["0", "410001002", "410000003", "100000005"])
@pytest.mark.parametrize("http_status", [500, 502, 503, 504, 599])
def test_nothing_is_believed_from_behind_a_broken_gateway(code: str, http_status: int) -> None:
    assert classify(ASR, reply(code, http_status)) is ReplyClass.TRANSIENT


@pytest.mark.parametrize("http_status", [302, 400, 401, 403, 404])
def test_success_counts_only_in_a_2xx_and_refusals_elsewhere_too(http_status: int) -> None:
    assert classify(ASR, reply("0", http_status)) is ReplyClass.TRANSIENT
    assert classify(ASR, reply("100000005", http_status)) is ReplyClass.CREDENTIALS


ALL_CONTEXTS = [
    {"earlier_unknown": earlier, "at_or_after_auto_stop": late, "exhausted": exhausted}
    for earlier in (False, True)
    for late in (False, True)
    for exhausted in (False, True)
]


@pytest.mark.parametrize("context", ALL_CONTEXTS)
def test_verdicts_that_depend_on_the_reply_alone(context: dict[str, bool]) -> None:
    assert conclude(ReplyClass.STOPPED, **context) is Outcome.STOPPED
    assert conclude(ReplyClass.CREDENTIALS, **context) is Outcome.BLOCKED
    assert conclude(ReplyClass.CONFIGURATION, **context) is Outcome.BLOCKED
    assert conclude(ReplyClass.REJECTED, **context) is Outcome.REJECTED


@pytest.mark.parametrize(
    ("earlier_unknown", "at_or_after_auto_stop", "expected"),
    [
        (False, False, Outcome.GONE),
        (True, False, Outcome.STOPPED_EARLIER),
        (False, True, Outcome.AUTO_STOPPED),
        (True, True, Outcome.AUTO_STOPPED),  # in doubt a miss
    ],
)
@pytest.mark.parametrize("exhausted", [False, True])
def test_who_ended_a_task_that_is_gone(
    *, earlier_unknown: bool, at_or_after_auto_stop: bool, exhausted: bool, expected: Outcome
) -> None:
    outcome = conclude(
        ReplyClass.GONE,
        earlier_unknown=earlier_unknown,
        at_or_after_auto_stop=at_or_after_auto_stop,
        exhausted=exhausted,
    )
    assert outcome is expected


@pytest.mark.parametrize("reply_class", [ReplyClass.TRANSIENT, ReplyClass.THROTTLED, ReplyClass.CLOCK])
@pytest.mark.parametrize("context", ALL_CONTEXTS)
def test_what_may_pass_is_retried_until_exhausted(reply_class: ReplyClass, context: dict[str, bool]) -> None:
    assert conclude(reply_class, **context) is (Outcome.REJECTED if context["exhausted"] else Outcome.RETRY)


def test_every_outcome_has_a_final_status_or_none() -> None:
    assert set(TASK_BECOMES) == set(Outcome)
    assert {outcome: status for outcome, status in TASK_BECOMES.items() if status} == {
        Outcome.STOPPED: Status.STOPPED,
        Outcome.STOPPED_EARLIER: Status.STOPPED,
        Outcome.GONE: Status.GONE,
        Outcome.AUTO_STOPPED: Status.AUTO_STOPPED,
        Outcome.REJECTED: Status.FAILED,
    }


def test_backoff_doubles_up_to_its_ceiling() -> None:
    assert [backoff_seconds(n, 100, 0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [backoff_seconds(n, None, 0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [backoff_seconds(n, -0.1, 0) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_seconds(8, 0.0, 0) == 60
    assert backoff_seconds(10**6, -1, 0) == 60
    assert backoff_seconds(0, 100, 0) == 1


def test_jitter_only_shortens_and_by_a_fifth_at_most() -> None:
    assert backoff_seconds(5, 100, 0.5) == pytest.approx(9)
    assert 8 < backoff_seconds(5, 100, 0.999) < 8.01


def test_a_try_falls_within_the_last_thirty_seconds_of_the_window() -> None:
    request_deadline = 8.0
    for window in (120.0, 150.0, 1800.0):
        now, attempts, last_start = 0.0, 0, 0.0
        while now < window:
            attempts, last_start = attempts + 1, now
            now += request_deadline
            now += backoff_seconds(attempts, window - now, 0)
        assert window - 30 < last_start
        assert last_start + request_deadline <= window + request_deadline


def test_attempts_are_exhausted_only_after_the_vendors_own_auto_stop() -> None:
    auto_stop_at = datetime(2026, 3, 1, tzinfo=UTC)
    before, due_long_ago = auto_stop_at - timedelta(seconds=1), auto_stop_at - timedelta(days=9)
    for due_at in (None, due_long_ago):
        assert not is_exhausted(500, 20, auto_stop_at=auto_stop_at, due_at=due_at, now=before)
        assert not is_exhausted(19, 20, auto_stop_at=auto_stop_at, due_at=due_at, now=auto_stop_at)
        assert is_exhausted(20, 20, auto_stop_at=auto_stop_at, due_at=due_at, now=auto_stop_at)


def test_without_an_auto_stop_a_task_is_given_up_a_day_after_it_was_due() -> None:
    due_at = datetime(2026, 3, 1, tzinfo=UTC)
    a_day_later = due_at + timedelta(days=1)
    before = a_day_later - timedelta(seconds=1)
    assert not is_exhausted(20, 20, auto_stop_at=None, due_at=due_at, now=before)
    assert not is_exhausted(19, 20, auto_stop_at=None, due_at=due_at, now=a_day_later)
    assert is_exhausted(20, 20, auto_stop_at=None, due_at=due_at, now=a_day_later)
    assert not is_exhausted(500, 20, auto_stop_at=None, due_at=None, now=a_day_later), "it was never due"
