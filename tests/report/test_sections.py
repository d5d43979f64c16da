"""What the sections say, in words and tables."""

import re
from dataclasses import replace

import pytest

from tests.report.examples import NOTHING, SOME, Page
from watchdog.core.model import Outcome
from watchdog.report.sections import KINDS, ReturnCurve, Section, kind_of, sections
from watchdog.report.texts import TEXTS
from watchdog.store.reports.report import Findings

ENGLISH = TEXTS["en"]


def section(name: str, found: Findings = SOME, curve: ReturnCurve | None = None) -> Section:
    (one,) = [one for one in sections(found, ENGLISH, curve) if one.name == name]
    return one


def test_every_outcome_is_of_one_kind() -> None:
    assert {kind_of(outcome) for outcome in Outcome} == set(KINDS)
    assert all(kind in ENGLISH for kind in KINDS)


def test_outcomes_are_counted_in_total_and_by_hour() -> None:
    total, by_hour = section("outcomes").tables
    assert total.rows == [
        ["stopped", "stopped", "29"],
        ["stopped_earlier", "stopped", "1"],
        ["auto_stopped", "missed", "2"],
        ["spared", "kept", "3"],
    ]
    assert [column.title for column in by_hour.columns] == [
        "hour",
        "stopped",
        "stopped_earlier",
        "auto_stopped",
        "spared",
    ]
    assert by_hour.rows == [
        ["03-01 23:00", "20", "0", "0", "0"],
        ["03-02 00:00", "9", "1", "2", "0"],
        ["03-02 01:00", "0", "0", "0", "3"],
    ]


def test_a_long_period_is_by_day() -> None:
    found = replace(NOTHING, by_day=True, outcomes={("2026-03-01", Outcome.STOPPED): 1})
    assert section("outcomes", found).tables[1].rows == [["2026-03-01", "1"]]


def test_lateness_has_percentiles_and_intervals() -> None:
    late = section("lateness")
    assert late.remarks == ["30 requests: half of them within 3 ms, 99 % within 250 ms, all within 250 ms."]
    assert late.tables[0].rows[0] == ["below 1 ms", "10", "33.3%"]
    assert late.tables[0].rows[-1] == ["200 ms to 500 ms", "1", "3.3%"]


def test_stops_after_the_auto_stop_are_said() -> None:
    early = section("early")
    assert early.remarks == ["30 stops: half of them at least 1 min before the auto-stop; 1 came after it."]
    assert sum(int(row[1]) for row in early.tables[0].rows) == 30


def test_savings_have_a_mean_only_where_there_is_something_to_compare() -> None:
    (table,) = section("savings").tables
    assert table.rows[0] == ["2026-03-01", "asr", "12345", "20", "25 min", "1 min 15 s", "0", "0", "0", "1", "1"]
    assert table.rows[1][2:6] == ["default", "10", "9 min 45 s", "1 min 13 s"]
    bots = replace(SOME.savings[0], no_auto_stop=20, freed_milliseconds=0)
    assert section("savings", replace(SOME, savings=[bots])).tables[0].rows[0][5] == "–"


@pytest.mark.parametrize(
    ("freed_seconds", "unit"), [(90_000, "hours"), (7200, "hours"), (7199, "minutes"), (119, "seconds"), (2, "seconds")]
)
def test_freed_time_is_drawn_in_a_unit_that_shows_it(freed_seconds: int, unit: str) -> None:
    saved = replace(SOME.savings[0], freed_milliseconds=1000 * freed_seconds)
    words = Page(section("savings", replace(SOME, savings=[saved])).plot or "").texts["text"]
    assert [word for word in words if word in {"hours", "minutes", "seconds"}] == [unit]
    numbers = [word for word in words if re.fullmatch(r"[\d,.]+", word)]
    assert len(set(numbers)) == len(numbers) > 3, numbers


def test_returns_are_a_share_of_all_stops() -> None:
    returns = section("returns")
    assert returns.remarks == ["After 30 stops, people came back to 3 rooms within the watch (10.0%)."]
    assert [row for row in returns.tables[0].rows if row[1] != "0"] == [
        ["10 s to 20 s", "1"],
        ["1 min to 2 min", "1"],
        ["5 min to 10 min", "1"],
    ]


def test_stops_without_a_return_are_good_news() -> None:
    returns = section("returns", replace(SOME, returns={}))
    assert returns.remarks == ["After 30 stops, people came back to 0 rooms within the watch (0.0%)."]
    assert (returns.plot, returns.tables) == (None, [])


@pytest.mark.parametrize(("off", "said"), [({29_000: 2, -1000: 1}, True), ({4900: 1}, False), ({}, False)])
def test_a_window_that_is_shorter_than_configured_is_said(off: dict[int, int], *, said: bool) -> None:
    window = section("window", replace(SOME, windows_off=off))
    assert window.remarks[0] == "2 tasks: minimum 2 min 1 s, median 2 min 1 s."
    assert window.remarks[1:] == (
        ["ZEGO is 29 s faster than configured at the median: lower policy.max_idle_seconds."] if said else []
    )


def test_codes_have_a_meaning() -> None:
    codes = section("codes")
    assert codes.tables[0].rows[0] == ["0", "stopped", "29", "Success"]
    assert codes.tables[0].rows[1][1:3] == ["–", "2"]
    assert codes.remarks == ["4 more answers had other codes."]


def test_the_longest_empty_rooms_say_what_became_of_them() -> None:
    (table,) = section("longest").tables
    assert table.rows[0][2:] == ["12345", "2026-03-02 12:30", "5 min", "stopped"]
    assert table.rows[1] == ["lobby", "17", "default", "2026-03-02 14:29", "41 s", "still runs"]


def test_a_long_curve_is_a_short_table() -> None:
    steps = [(float(second), second / 1000, 0.0, 1.0) for second in range(1, 601)]
    (table,) = section("curve", curve=ReturnCurve(9000, steps)).tables
    assert len(table.rows) == 40
    assert table.rows[-1] == ["600", "60.00%", "0.00%", "100.00%"]
