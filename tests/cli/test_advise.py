"""``advise``: what it prints of known spells, when it refuses, and that it changes nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.examples import Page
from tests.support.operator import Operator
from tests.support.running import Application
from watchdog.cli.commands.advise import parse_graces
from watchdog.config.policy_settings import PolicyConfig
from watchdog.core.advice import FEWEST_ROOMS, FEWEST_SPELLS, Advice, Candidate, Difference
from watchdog.errors import TooFewSpells

PAGE = (Path(__file__).parents[2] / "docs" / "advise.md").read_text(encoding="utf-8")


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


@pytest.fixture
def operator(application: Application, tmp_path: Path) -> Operator:
    return Operator(tmp_path, application.url)


def ago(application: Application, seconds: float) -> str:
    if application.is_sqlite:
        return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '-{seconds} seconds')"
    return f"(now() - interval '{seconds} seconds')"


def spells(
    application: Application, number: int, seconds: float, ending: str, *, name: str = "", **columns: object
) -> None:
    """Put so many spells on record that ended an hour ago."""
    values = {"room_id": "lecture", "evidence_source": "app"} | columns
    marks = ", ".join("?" * len(values))
    application.execute(
        "INSERT INTO zego_empty_spells"
        f" (task_id, kind, started_at, last_occupied_at, empty_since, ended_at, ending, {', '.join(values)})"
        " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        f" SELECT '{name or ending}-' || i, 'asr', {ago(application, 9000)}, {ago(application, 3600 + seconds)},"
        f" {ago(application, 3600 + seconds)}, {ago(application, 3600)}, '{ending}', {marks} FROM n",
        *(number, *values.values()),
    )


def watches(application: Application, task_ids: str, back_after: float | None) -> None:
    """Put the watches of 10 minutes after these stops on record."""

    def after(seconds: float) -> str:
        if application.is_sqlite:
            return f"strftime('%Y-%m-%d %H:%M:%f000', ended_at, '{seconds} seconds')"
        return f"ended_at + interval '{seconds} seconds'"

    back = "NULL" if back_after is None else after(back_after)
    application.execute(
        "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at)"
        f" SELECT task_id, room_id, ended_at, {after(600)}, {back} FROM zego_empty_spells"
        " WHERE ending = 'stopped' AND task_id LIKE ?",
        task_ids,
    )


@pytest.fixture
def known(application: Application) -> None:
    """100 returns after 30 s, 200 stops after 45 s, of which people came back to 20 after 15 s more; 50 releases."""
    spells(application, 100, 30, "returned", evidence_source="callback")
    spells(application, 20, 45, "stopped", name="back")
    spells(application, 180, 45, "stopped", name="empty")
    spells(application, 50, 10, "released")
    watches(application, "back-%", 15)
    watches(application, "empty-%", None)


@pytest.mark.usefixtures("known")
def test_json_has_every_number(operator: Operator) -> None:
    seen = operator.sees("advise", "--grace", "20,70")
    assert (seen["spells"], seen["returns_after_stops"], seen["sources"]) == (350, 20, {"app": 250, "callback": 100})
    assert seen["endings"] == {"returned": 100, "stopped": 200, "auto_stopped": 0, "released": 50, "unknown": 0}
    assert (seen["configured_grace_seconds"], seen["occupancy_poll_seconds"]) == (45, 15)
    # Observed for 645 s, and the longest grace is 70 s.
    assert seen["horizon_seconds"] == 575
    at_20, at_45, at_70 = seen["graces"]
    assert [one["grace_seconds"] for one in seen["graces"]] == [20, 45, 70]
    assert set(at_20) == set(Candidate.__slots__)
    # Of 300 rooms that are empty after 20 s, 100 + 20 have people again; of 200 after 45 s, 20.
    assert (at_20["stops"], at_20["met"]["value"]) == (300, pytest.approx(120 / 300))
    assert (at_45["stops"], at_45["met"]["value"]) == (200, pytest.approx(20 / 200))
    assert (at_70["stops"], at_70["met"]["value"]) == (180, 0)
    assert at_45["met"]["low"] < 0.1 < at_45["met"]["high"]
    assert at_20["freed_seconds"] == 300 * 130
    assert at_20["differences"] == {"kept": 0, "stopped": 0, "stopped_before_return": 100}
    assert at_70["differences"] == {"kept": 20, "stopped": 0, "stopped_before_return": 0}
    left = {row["seconds"]: row for row in seen["returned"]["left"]}
    assert left[30]["observed"] == 300
    assert left[30]["returned"] == pytest.approx(1 / 3)
    assert left[600]["returned"] == pytest.approx(1 - 2 / 3 * 0.9)
    assert seen["returned"]["never_joined"] == []
    assert {(task["grace_seconds"], task["difference"]) for task in seen["tasks"]} == {
        (20, "stopped_before_return"),
        (70, "kept"),
    }
    assert len(seen["tasks"]) == 6
    kept = next(task for task in seen["tasks"] if task["difference"] == "kept")
    assert kept["task_id"].startswith("back-")
    assert (kept["room_id"], kept["ending"], kept["observed_seconds"]) == ("lecture", "stopped", 60)


@pytest.mark.usefixtures("known")
def test_the_screen_has_the_same_numbers(operator: Operator) -> None:
    result = operator.types("advise", "--grace", "20,70,140")
    assert result.exit_code == 0, result.output
    flowing = " ".join(result.stdout.split())
    assert "350 empty rooms: 100 returned, 200 stopped by us, 50 released, ended since" in flowing
    # Observed for 645 s, and the longest grace is cut to 130 s by the window.
    assert "people were seen back after 20 of 200 stops; below, a return counts within 8m 35s of the stop" in flowing
    assert "reported by app 71%, callback 29%; ZEGO is asked every 15s" in flowing
    assert "policy.grace_seconds 45, window 2m 30s unless the task states its own" in flowing
    assert re.search(r"^ *20s +300 +40\.0% +\d+\.\d% to \d+\.\d% +", result.stdout, re.MULTILINE)
    assert "the configured grace" in flowing
    assert "the window is too short for this grace in 350 of 350 spells: the task is due earlier" in flowing
    assert "was stopped; people would have been back in time" in flowing
    assert "would have been stopped before people came back" in flowing
    assert "docs/advise.md" in result.stderr


@pytest.mark.usefixtures("known")
def test_the_file_has_the_same_numbers_and_the_curves(
    operator: Operator, application: Application, tmp_path: Path
) -> None:
    spells(application, 1, 30, "returned", name="evil<script>\x1b[2J", room_id="\u202e<script>")
    target = tmp_path / "advice.html"
    result = operator.types("advise", "--grace", "20,70,140", "--html", str(target))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"the estimate is in {target}\n")
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert page.texts["h2"] == [
        "People are back in a room that they had left",
        "What each grace would have done",
        "Tasks that would have fared differently",
    ]
    assert text.count("<svg") == 1
    assert "<script" not in text
    assert not set("\x1b\u202e") & set(text)
    cells = page.texts["td"]
    (met,) = [cells[at + 2] for at, cell in enumerate(cells) if cell == "20s" and cells[at + 1] == "301"]
    assert re.fullmatch(r"\d\d\.\d%", met)
    assert met in page.texts["dd"][0]
    assert operator.types("advise", "--html", str(target)).exit_code == 1
    assert operator.types("advise", "--html", str(target), "--force").exit_code == 0
    shown = operator.types("advise", "--html", "-")
    assert shown.stdout.startswith("<!doctype html>")


@pytest.mark.parametrize("wrong", [("--json", "--html", "x.html"), ("--force",)])
def test_a_file_is_for_people_and_force_for_a_file(operator: Operator, wrong: tuple[str, ...]) -> None:
    assert operator.types("advise", *wrong).exit_code == 2


@pytest.mark.usefixtures("known")
def test_it_changes_nothing(operator: Operator, application: Application) -> None:
    tables = ("zego_tasks", "zego_empty_spells", "zego_rejoins", "zego_stop_attempts")
    before = [application.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    configured = operator.write().read_text()
    assert operator.types("advise").exit_code == 0
    assert operator.file.read_text() == configured
    assert [application.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables] == before


@pytest.mark.usefixtures("known")
def test_the_configured_grace_is_always_among_them(operator: Operator) -> None:
    operator.sections["policy"] = {"grace_seconds": 25, "max_idle_seconds": 100, "safety_margin_seconds": 10}
    assert [one["grace_seconds"] for one in operator.sees("advise")["graces"]] == [15, 25, 30, 45, 60, 90]
    assert [one["grace_seconds"] for one in operator.sees("advise", "--grace", "50")["graces"]] == [25, 50]


def test_too_few_spells_are_refused(operator: Operator, application: Application) -> None:
    spells(application, 99, 30, "returned")
    result = operator.types("advise")
    assert (result.exit_code, result.stdout) == (75, "")
    assert "99 empty spells ended since" in result.stderr
    assert "at least 100" in result.stderr
    assert "--since" in result.stderr
    spells(application, 1, 30, "released")
    assert operator.types("advise").exit_code == 0
    # Those of another time or AppId do not count.
    assert operator.types("advise", "--since", "30m").exit_code == 75
    other = operator.types("advise", "--app", "7")
    assert (other.exit_code, "0 empty spells of AppId 7" in other.stderr) == (75, True)


def test_tasks_without_an_app_belong_to_the_first(operator: Operator, application: Application) -> None:
    spells(application, 60, 30, "returned")
    spells(application, 60, 30, "released", app_id=operator.sections["zego"]["apps"][0]["app_id"])
    spells(application, 100, 30, "unknown", app_id=7)
    assert operator.sees("advise", "--app", str(operator.sections["zego"]["apps"][0]["app_id"]))["spells"] == 120
    assert operator.sees("advise", "--app", "7")["spells"] == 100


@pytest.mark.usefixtures("known")
def test_hostile_rooms_are_harmless(operator: Operator, application: Application) -> None:
    spells(application, 3, 30, "returned", name="evil\x1b[2J", room_id="\x1b]0;x\x07\u202e<script>")
    shown = operator.types("advise").stdout
    assert "evil" in shown
    assert not any(sign in shown for sign in "\x1b\x07\u202e")


def test_returns_that_nobody_watched_are_not_estimated(operator: Operator, application: Application) -> None:
    spells(application, 200, 45, "stopped")
    operator.sections["zego"]["rtc_url"] = ""
    operator.sections["policy"] = {"verify": "off"}
    result = operator.types("advise")
    flowing = " ".join(result.stdout.split())
    assert "rooms were not watched for long enough after a stop to estimate a share" in flowing
    assert "ZEGO is not polled" in flowing
    assert "stopped too early to know" in flowing
    seen = operator.sees("advise")
    assert {one["met"] for one in seen["graces"]} == {None}
    assert seen["horizon_seconds"] is None


@pytest.mark.parametrize(("text", "graces"), [("20,45,90", [20, 45, 90]), ("22.5", [22.5]), ("0, 1800", [0, 1800])])
def test_graces_are_read(text: str, graces: list[float]) -> None:
    assert parse_graces(text) == graces


@pytest.mark.parametrize("text", ["", "20s", "20,,45", "-1", "1801", "nan", "inf", ",".join(map(str, range(13)))])
def test_other_graces_are_wrong_usage(operator: Operator, text: str) -> None:
    result = operator.types("advise", "--grace", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--grace" in result.stderr


@pytest.mark.usefixtures("known")
def test_json_is_for_programs(operator: Operator) -> None:
    found: dict[str, Any] = json.loads(operator.types("advise", "--json").stdout)
    assert set(Advice.__slots__) - {"left", "never_joined", "candidates"} <= set(found)
    assert {kind.value for kind in Difference} >= {task["difference"] for task in found["tasks"]}


@pytest.mark.usefixtures("known")
def test_the_page_explains_the_columns(operator: Operator) -> None:
    columns = re.findall(r"^\| `([A-Z ]+)` \|", PAGE, re.MULTILINE)
    shown = operator.types("advise").stdout.partition("What each grace would have done\n")[2].splitlines()[0]
    assert ["GRACE", *columns] == re.split(r"  +", shown.replace("95 % INTERVAL  ", "").strip())


def test_the_page_has_the_limits_of_the_program() -> None:
    assert f"With fewer than {FEWEST_SPELLS} of\nthem it refuses, with exit code {TooFewSpells.exit_code}" in PAGE
    assert f"ends where fewer than {FEWEST_ROOMS} are left" in PAGE
    assert f"`policy.rejoin_watch_seconds`\n({PolicyConfig().rejoin_watch_seconds:g})" in PAGE
