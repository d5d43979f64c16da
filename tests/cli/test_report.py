"""``report``: the file, and what it says if it cannot be written."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.examples import HOSTILE, Page
from tests.support.operator import Operator
from tests.support.running import Application
from watchdog.core.advice import FEWEST_SPELLS


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    application = Application(database_url)
    application.execute(
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, attempt, code)"
        " VALUES ('1920370518175780864', 'asr', 'lecture-12', 'empty_room', 'stopped', 'host/1', 1, '0')"
    )
    return Operator(tmp_path, application.url)


def test_a_report_is_one_file_for_its_owner(operator: Operator, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    old = os.umask(0o022)
    try:
        result = operator.types("report", "--html", str(target))
    finally:
        os.umask(old)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"the report is in {target}\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    page = Page(target.read_text(encoding="utf-8"))
    assert page.texts["dd"][0] == "1"
    assert page.values("lang") == ["en"]
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_the_report_can_be_in_chinese_and_go_to_stdout(operator: Operator) -> None:
    result = operator.types("report", "--html", "-", "--lang", "zh", "--since", "24h")
    assert (result.exit_code, result.stderr) == (0, "")
    page = Page(result.stdout_bytes.decode())
    assert page.values("lang") == ["zh-CN"]
    assert "延迟" in page.texts["h2"]


def test_an_existing_file_is_overwritten_only_on_request_and_keeps_its_mode(operator: Operator, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("of yesterday")
    target.chmod(0o644)
    refused = operator.types("report", "--html", str(target))
    assert (refused.exit_code, target.read_text()) == (1, "of yesterday")
    assert f"--html {target}: this file exists; choose another name, or overwrite it with --force" in refused.stderr
    assert operator.types("report", "--html", str(target), "--force").exit_code == 0
    assert target.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize(("place", "said"), [("/dev/null", "not a regular file"), ("missing/x.html", "No such file")])
def test_a_place_that_cannot_be_written_is_named(operator: Operator, place: str, said: str) -> None:
    result = operator.types("report", "--html", place)
    assert result.exit_code == 1
    assert f"--html {place}: " in result.stderr
    assert said in result.stderr


def test_without_its_library_it_says_what_to_install_before_it_reads(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pygal", None)
    result = operator.types("report", "--html", str(tmp_path / "report.html"))
    assert result.exit_code == 78
    assert result.stderr == (
        "zego-watchdog: the library that draws the plots of a report is not installed; "
        "install it with: pip install 'zego-watchdog[report]'\n"
    )
    assert not (tmp_path / "report.html").exists()


def test_a_hostile_room_is_shown_harmlessly(operator: Operator) -> None:
    script, emoji = HOSTILE.replace("\x00", "").rstrip("😀"), "😀" * 32
    application = Application(operator.sections["database"]["url"])
    insert = "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 0)"
    application.execute(insert, "1", script)
    application.execute(insert, "2", emoji)
    text = operator.types("report", "--html", "-").stdout_bytes.decode()
    assert {"<script>alert(1)</script>\"'&\ufffd[31m\ufffdevil", emoji} <= set(Page(text).texts["bdi"])
    assert "<script" not in text


def test_other_commands_do_not_load_the_library() -> None:
    script = (
        "import sys\nimport watchdog.cli.commands.listing\nimport watchdog.cli.commands.report\nprint(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"pygal", "alembic", "apscheduler", "httpx2", "starlette"} & set(shown.stdout.split()) == set()


def test_enough_empty_spells_have_a_curve(operator: Operator) -> None:
    # Far ahead, so that they ended within every period.
    application = Application(operator.sections["database"]["url"])
    assert "curve" not in Page(operator.types("report", "--html", "-").stdout_bytes.decode()).values("id")
    for second in range(FEWEST_SPELLS):
        application.execute(
            "INSERT INTO zego_empty_spells"
            " (task_id, kind, room_id, ending, started_at, last_occupied_at, empty_since, ended_at)"
            " VALUES (?, 'asr', 'room', 'returned', ?, ?, ?, ?)",
            *(f"task-{second}", *["2999-01-01 00:00:00.000000"] * 3, f"2999-01-01 00:00:{5 + second // 2:02}.000000"),
        )
    page = Page(operator.types("report", "--html", "-").stdout_bytes.decode())
    assert "curve" in page.values("id")
    assert any("estimated from 100 empty spells" in text for text in page.texts["p"])
