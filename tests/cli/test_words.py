"""Durations, times and outlooks on the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from watchdog.cli.view import words
from watchdog.core.model import Evidence, Mode, Source, Status, Task, Verify
from watchdog.core.policy import Decision, Policy, Rule, Verdict, decide

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "0s"),
        (0.2, "0.2s"),
        (9.96, "10s"),
        (45, "45s"),
        (59.7, "1m"),
        (118, "1m 58s"),
        (3600, "1h"),
        (3605, "1h"),
        (7500, "2h 5m"),
        (3 * 86400 + 4 * 3600, "3d 4h"),
        (-118, "-1m 58s"),
    ],
)
def test_durations_are_printed(seconds: float, text: str) -> None:
    assert words.length(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("1.5h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert words.parse_length(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "1 m", "0s", "1y", "1e9d", "99999999999d", "10m!", "１0m x"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"not a duration|out of range"):
        words.parse_length(text)


def test_times_are_utc_unless_they_have_a_zone() -> None:
    assert words.parse_moment("2026-08-21T12:30") == datetime(2026, 8, 21, 12, 30, tzinfo=UTC)
    assert words.parse_moment("2026-08-21T12:30+02:00") == datetime(2026, 8, 21, 10, 30, tzinfo=UTC)
    with pytest.raises(typer.BadParameter, match="is not a time"):
        words.parse_moment("noon")


def example(**columns: Any) -> Task:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    values: dict[str, Any] = dict.fromkeys(Task.__slots__)
    return Task(
        **values
        | {"task_id": "1", "room_id": "r", "kind": "asr", "started_at": now, "attempts": 0, "status": Status.ACTIVE}
        | {"asked_at": now}
        | columns
    )


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("mode", Mode)
def test_every_rule_has_an_outlook(rule: Rule, verify: Verify, mode: Mode) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    said = words.outlook(example(), Decision(Verdict.KEEP, rule), Policy(mode=mode, verify=verify), now)
    assert said.endswith(".")
    if mode is Mode.OBSERVE:
        assert "and stops it" not in said


def test_the_outlook_of_a_real_decision() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    empty = example(
        user_count=0,
        user_count_at=now - DAY,
        user_count_source="app",
        empty_since=now - DAY,
        last_occupied_at=now - DAY,
    )
    decision = decide(empty, None, Policy(), now, watching_since=now)
    assert decision.rule is Rule.UNCONFIRMED
    assert "asks ZEGO" in words.outlook(empty, decision, Policy(), now)
    people = decide(empty, Evidence(2, now, Source.API), Policy(), now, watching_since=now)
    assert "after the last one leaves" in words.outlook(empty, people, Policy(), now)
