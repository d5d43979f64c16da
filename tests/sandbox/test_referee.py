"""The referee: each way in which a ledger can differ from what happened, and each in which it only seems to."""

from datetime import UTC, datetime
from typing import Any

import pytest

from watchdog.core.model import Outcome
from watchdog.sandbox.referee import judge
from watchdog.sandbox.world import ADMIN_ROLE, Event, Log

SENT_AT = datetime(2026, 1, 1, tzinfo=UTC)


def user(user_id: str, role: int = 1) -> dict[str, Any]:
    return {"user_id": user_id, "role": role}


class Truth:
    """A log written by hand."""

    def __init__(self) -> None:
        self.log = Log()

    def request(self, task_id: str | None, request_id: str | None, code: int | None = 0, **changes: Any) -> "Truth":
        users = changes.pop("users", [])
        fields: dict[str, Any] = {
            "task_id": task_id,
            "request_id": request_id,
            "code": code,
            "http_status": 200,
            "accepted": code == 0,
            "readable": request_id is not None,
            "delivered": True,
        } | changes
        if fields["accepted"]:
            self.log.append(1.0, "task_stopped", task_id=task_id, via="api", users=users, request_id=request_id)
        self.log.append(1.0, "stop_requested", **fields, users=users)
        return self

    def auto_stop(self, task_id: str) -> "Truth":
        self.log.append(1.0, "auto_stopped", task_id=task_id)
        return self


def row(
    task_id: str, outcome: Outcome, request_id: str | None = None, code: str | None = None, http_status: int = 200
) -> dict[str, Any]:
    return {
        "id": 1,
        "task_id": task_id,
        "attempt": 1,
        "sent_at": SENT_AT,
        "replied_at": SENT_AT,
        "outcome": outcome,
        "request_id": request_id,
        "code": code,
        "http_status": http_status if request_id else None,
    }


STOPPED = row("t", Outcome.STOPPED, "r1", "0")


def test_a_faithful_ledger_of_a_good_run() -> None:
    truth = Truth().request("t", "r1").request("u", "r2", 206).request("u", "r3")
    rows = [
        STOPPED,
        row("u", Outcome.RETRY, "r2", "206"),
        row("u", Outcome.STOPPED, "r3", "0"),
        row("v", Outcome.SPARED),
        row("w", Outcome.WITHHELD),
        row("x", Outcome.WOULD_STOP),
    ]
    verdict = judge(truth.log, rows)
    assert verdict.agrees
    assert verdict.summary() == ("2 stopped in time, 1 spared, 0 missed, 0 wrong stops; 3 attempts, 3 requests")


def test_nothing_happened_and_nothing_was_recorded() -> None:
    assert judge([], []).agrees


def test_a_wrong_stop_is_one_with_people_in_the_room_and_may_be_faithfully_recorded() -> None:
    verdict = judge(Truth().request("t", "r1", users=[user("alice")]).log, [STOPPED])
    assert (verdict.wrong_stops, verdict.stopped_in_time, verdict.agrees) == (("t",), 0, True)


def test_admins_and_bots_are_not_people() -> None:
    truth = Truth().request("t", "r1", users=[user("recorder", ADMIN_ROLE), user("asr-bot-7")])
    assert judge(truth.log, [STOPPED], bot_user_ids=["asr-bot-*"]).wrong_stops == ()
    assert judge(truth.log, [STOPPED]).wrong_stops == ("t",)


def test_who_was_brought_by_a_task_is_no_person() -> None:
    truth = Truth().request("t", "r1", users=[user("robot") | {"brought_by": "agent"}])
    assert judge(truth.log, [STOPPED]).wrong_stops == ()


@pytest.mark.parametrize(
    ("because", "missed"),
    [("no_user", ("t",)), ("no_visitor", ("t",)), ("not_driven", ()), ("not_playing", ()), ("life", ())],
)
def test_an_end_that_has_nothing_to_do_with_the_room_is_no_miss(because: str, missed: tuple[str, ...]) -> None:
    log = Log()
    log.append(1.0, "auto_stopped", task_id="t", because=because)
    assert judge(log, []).missed == missed


def test_a_stop_that_was_refused_is_no_wrong_stop() -> None:
    truth = Truth().request("t", "r1", 206, users=[user("alice")])
    assert judge(truth.log, [row("t", Outcome.RETRY, "r1", "206")]).wrong_stops == ()


def test_only_watched_tasks_can_be_missed() -> None:
    log = Truth().auto_stop("t").auto_stop("u").log
    assert judge(log, []).missed == ("t", "u")
    assert judge(log, [], watched=["u"]).missed == ("u",)


def only_disagreement(log: Log | list[Event], rows: list[dict[str, Any]]) -> str:
    verdict = judge(log, rows)
    assert not verdict.agrees
    (sentence,) = verdict.disagreements
    return sentence


def test_an_answered_request_without_a_row() -> None:
    assert "answered with RequestId r1 and Code 0, and no row" in only_disagreement(Truth().request("t", "r1").log, [])


def test_an_answered_request_that_the_ledger_calls_unknown() -> None:
    log = Truth().request("t", "r1").log
    assert "no row has that RequestId" in only_disagreement(log, [row("t", Outcome.UNKNOWN)])


def test_an_answer_that_a_killed_daemon_never_read() -> None:
    log = Truth().request("t", "r1").log
    assert judge(log, [row("t", Outcome.UNKNOWN)], daemon_killed=True).agrees
    assert not judge(log, [], daemon_killed=True).agrees


def test_a_row_with_a_request_id_that_was_never_given() -> None:
    assert "r9, but no Stop request was answered with it" in only_disagreement(
        Truth().request("t", "r1").log, [STOPPED, row("t", Outcome.GONE, "r9", "410001002")]
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (row("t", Outcome.STOPPED, "r1", "410001002"), "has code 410001002, but the answer r1 had 0"),
        (row("u", Outcome.STOPPED, "r1", "0"), "has task_id u, but the answer r1 had t"),
        (row("t", Outcome.STOPPED, "r1", "0", http_status=500), "has http_status 500, but the answer r1 had 200"),
    ],
)
def test_a_row_that_quotes_the_answer_wrongly(wrong: dict[str, Any], says: str) -> None:
    assert says in only_disagreement(Truth().request("t", "r1").log, [wrong])


def test_a_row_left_in_sent() -> None:
    assert "left in outcome sent" in only_disagreement([], [row("t", Outcome.SENT)])


def test_one_request_in_two_rows() -> None:
    assert "one request, two rows" in only_disagreement(Truth().request("t", "r1").log, [STOPPED, STOPPED])


def test_a_task_stopped_twice_is_the_sandboxs_own_fault() -> None:
    log = Truth().request("t", "r1").request("t", "r2").log
    rows = [STOPPED, row("t", Outcome.STOPPED, "r2", "0")]
    assert "stopped 2 times: the sandbox itself is wrong" in only_disagreement(log, rows)


def test_a_lost_answer_is_accounted_for_by_an_unknown_row_of_its_task() -> None:
    log = Truth().request("t", "r1", delivered=False).request("t", "r2", 410001002).log
    earlier = row("t", Outcome.STOPPED_EARLIER, "r2", "410001002")
    assert judge(log, [row("t", Outcome.UNKNOWN), earlier]).agrees
    assert "were lost, but only" in only_disagreement(log, [earlier])
    assert "were lost, but only" in only_disagreement(log, [row("u", Outcome.UNKNOWN), earlier])
    assert "were lost, but only" in only_disagreement(log, [row("t", Outcome.RETRY), earlier])


def test_lost_answers_are_counted() -> None:
    truth = Truth().request("t", None, None, delivered=False).request("t", None, None, delivered=False)
    assert judge(truth.log, [row("t", Outcome.UNKNOWN), row("t", Outcome.UNKNOWN)]).agrees
    found = only_disagreement(truth.log, [row("t", Outcome.UNKNOWN)])
    assert "the answers to 2 Stop requests were lost, but only 1 rows" in found


def test_an_answer_thought_lost_that_was_read_after_all() -> None:
    assert judge(Truth().request("t", "r1", delivered=False).log, [STOPPED]).agrees


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.REJECTED, Outcome.BLOCKED])
def test_an_answer_without_a_request_id_is_accounted_for_by_a_row_without_one(outcome: Outcome) -> None:
    log = Truth().request("t", None, None, http_status=502).log
    assert judge(log, [row("t", outcome)]).agrees
    assert "without a readable RequestId" in only_disagreement(log, [])


def test_a_cut_answer_may_be_recorded_with_or_without_its_request_id() -> None:
    log = Truth().request("t", "r1", readable=False).log
    assert judge(log, [STOPPED]).agrees
    assert judge(log, [row("t", Outcome.UNKNOWN)]).agrees


def test_one_row_accounts_for_one_request() -> None:
    truth = Truth().request("t", None, None, http_status=502).request("t", "r1", 206, delivered=False)
    unknown, retry = row("t", Outcome.UNKNOWN), row("t", Outcome.RETRY)
    assert judge(truth.log, [unknown, retry]).agrees
    assert "but only 0 rows without a RequestId are left" in only_disagreement(truth.log, [unknown])
    assert "were lost, but only" in only_disagreement(truth.log, [retry, retry])


def test_a_request_that_named_no_task_cannot_be_ours() -> None:
    log = Truth().request(None, None, None, delivered=False).log
    assert "Task None" in only_disagreement(log, [row("t", Outcome.UNKNOWN)])


def test_rows_whose_requests_never_arrived_are_fine() -> None:
    assert judge([], [row("t", Outcome.RETRY), row("t", Outcome.UNKNOWN)]).agrees


def test_a_stop_by_the_application_itself_is_not_counted() -> None:
    log = Log()
    log.append(1.0, "task_stopped", task_id="t", via="control", users=[user("alice")], request_id=None)
    verdict = judge(log, [])
    assert (verdict.stopped_in_time, verdict.wrong_stops) == (0, ())


def test_what_a_callback_reported_is_no_attempt() -> None:
    told = row("t", Outcome.AUTO_STOPPED, code="1202") | {"attempt": None, "detail": "callback"}
    verdict = judge(Truth().auto_stop("t").log.since(0), [told])
    assert (verdict.attempts_recorded, verdict.agrees, verdict.missed) == (0, True, ("t",))
