"""The table of kinds: every documented code of every kind, from the reply to the status of the task."""

import re
from pathlib import Path

import pytest

from watchdog.core.kinds import DEFAULT_KIND, KINDS, Kind
from watchdog.core.model import Outcome, Reply, Status
from watchdog.core.outcomes import (
    GATEWAY_CODES,
    MEANINGS,
    RETURN_CODES,
    TASK_BECOMES,
    ReplyClass,
    backoff_seconds,
    classify,
    conclude,
)

PAGE = (Path(__file__).parents[2] / "docs/kinds.md").read_text(encoding="utf-8")
UNKNOWN_CODE = "999999999"

# The vendor's pages once more, independently of the table: what the first request gives, and what the status becomes.
GONE = {
    "asr": "410001002",
    "agent": "410001002",
    "digital_human": "400000005 400000007",
    "recording": "300001000 300001001",
}
OTHERS = {
    "asr": {
        "retry": "410000001 410000009 410000010 410000011 410001003 206 207",
        "blocked": "410000002 410000005 410000006",
        "rejected": "410000003 410000004",
    },
    "agent": {"retry": "410000001 410000009 410000010 410001005 410001041"},
    "digital_human": {"retry": "400010000 400010002 400010009"},
    "player": {"retry": "350006009 350010000 350006001", "blocked": "350006002 350006006"},
    "recording": {"retry": "300010000 300000003"},
}
SHARED = {
    "stopped": "0",
    "retry": "100000004 100000012 100000015",
    "blocked": "100000000 100000001 100000002 100000003 100000005 100000006 100000007 100000008 100000009 100000010 "
    "100000011 100000013 100000014 100000017",
}
FIRST_OUTCOMES = [
    (kind, code, outcome)
    for kind in KINDS
    for table in (OTHERS[kind], SHARED)
    for outcome, codes in table.items()
    for code in codes.split()
]
WITH_GONE = [(kind, code) for kind, codes in GONE.items() for code in codes.split()]
STATUS = {"stopped": "stopped", "retry": None, "blocked": None, "rejected": "failed", "gone": "gone", "unknown": None}


def reply(code: str | None, http_status: int = 200) -> Reply:
    return Reply(http_status, code, "m", "r", None, None, None)


def result(kind: str, code: str, *, earlier: bool = False, late: bool = False) -> tuple[str, str | None]:
    outcome = conclude(
        classify(KINDS[kind], reply(code)), earlier_unknown=earlier, at_or_after_auto_stop=late, exhausted=False
    )
    status = TASK_BECOMES[outcome]
    return outcome.value, None if status is None else status.value


def windowless(kind: str) -> bool:
    return KINDS[kind].window_seconds is None


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("kind", "code", "outcome"), FIRST_OUTCOMES)
def test_codes_that_say_the_same_whenever_they_come(
    kind: str, code: str, outcome: str, *, earlier: bool, late: bool
) -> None:
    assert result(kind, code, earlier=earlier, late=late) == (outcome, STATUS[outcome])


@pytest.mark.parametrize(("kind", "code"), WITH_GONE)
def test_who_ended_a_task_that_is_gone(kind: str, code: str) -> None:
    assert result(kind, code) == ("gone", "gone")
    assert result(kind, code, earlier=True) == ("stopped_earlier", "stopped")
    # A task of a kind without a window has no auto-stop, so it is never late.
    assert result(kind, code, late=True) == ("auto_stopped", "auto_stopped")
    assert result(kind, code, earlier=True, late=True) == ("auto_stopped", "auto_stopped")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unexpected_code_is_never_guessed_at(kind: str) -> None:
    assert result(kind, UNKNOWN_CODE) == ("retry", None)
    after_unknown = "retry" if kind in GONE else "unknown"
    assert result(kind, UNKNOWN_CODE, earlier=True) == (after_unknown, None)


def test_the_player_alone_has_no_code_for_gone() -> None:
    assert {name for name, kind in KINDS.items() if not kind.gone} == {"player"} == KINDS.keys() - GONE.keys()
    unexpected = classify(KINDS["player"], reply(UNKNOWN_CODE))
    assert unexpected is ReplyClass.UNEXPECTED
    gave_up = conclude(unexpected, earlier_unknown=True, at_or_after_auto_stop=False, exhausted=True)
    assert gave_up is Outcome.REJECTED
    assert TASK_BECOMES[gave_up] is Status.FAILED
    assert classify(KINDS["player"], reply(UNKNOWN_CODE, 502)) is ReplyClass.TRANSIENT
    assert classify(KINDS["player"], reply(None)) is ReplyClass.TRANSIENT


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_no_other_codes(kind: str) -> None:
    expected = {code for name, code, _ in FIRST_OUTCOMES if name == kind} | {
        code for name, code in WITH_GONE if name == kind
    }
    assert set(RETURN_CODES[kind]) == expected


def test_a_code_means_the_same_to_all_kinds_that_know_it() -> None:
    for name, codes in RETURN_CODES.items():
        for code, reply_class in codes.items():
            assert MEANINGS[code] is reply_class, (name, code)


def test_codes_of_one_kind_mean_nothing_to_another() -> None:
    assert classify(KINDS["recording"], reply("410001002")) is ReplyClass.TRANSIENT
    assert classify(None, reply("207")) is ReplyClass.THROTTLED


def test_the_default_kind() -> None:
    assert [name for name, kind in KINDS.items() if kind.is_default] == [DEFAULT_KIND]
    assert [kind.pace for kind in KINDS.values()] == [
        *("stop", "stop_agent", "stop_digital_human", "stop_player", "stop_recording"),
    ]


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.window_seconds is not None])
def test_what_the_vendor_gives_fits_its_window(kind: Kind) -> None:
    grace = 45 if kind.grace_seconds is None else kind.grace_seconds
    margin = 20 if kind.safety_margin_seconds is None else kind.safety_margin_seconds
    assert kind.window_seconds is not None
    assert grace + margin <= kind.window_seconds


def test_the_page_has_every_code_of_the_other_kinds() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| [^|]+ \| (\w+) \|$", PAGE, re.MULTILINE)
    listed = {(kind, code): treated for kind, codes, treated in rows for code in codes.split(", ")}
    assert listed == {
        (name, code): reply_class.value
        for name, codes in RETURN_CODES.items()
        if name != DEFAULT_KIND
        for code, reply_class in codes.items()
        if code not in GATEWAY_CODES
    }


def test_the_page_has_every_kind() -> None:
    for name, kind in KINDS.items():
        window = (
            "never because of its room" if windowless(name) else f"{kind.window_seconds:g} s after the room is empty"
        )
        limit = "–" if kind.stops_per_second is None else f"{kind.stops_per_second:g}"
        host = kind.url.removeprefix("https://").rstrip("/")
        row = rf"^\| `{name}` \| [^|]+ \| {kind.action}, {kind.id_field} \| {host} \| {window} \| {limit} \|$"
        assert re.search(row, PAGE, re.MULTILINE), row


def test_without_an_auto_stop_the_haste_ends_after_twenty_attempts() -> None:
    assert [backoff_seconds(n, None, 0) for n in (20, 21)] == [10, 600]
    assert backoff_seconds(21, 100, 0) == 10
