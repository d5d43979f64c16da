"""Help, usage and wrong arguments in our words; arguments as UTF-8 whatever the locale."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import watchdog
from tests.support.operator import Operator
from tests.support.running import Application
from watchdog.cli.app.root import app

COMMANDS = [
    *("run", "demo", "sandbox", "migrate", "check", "status", "tasks", "history", "history export", "room", "explain"),
    *("stop", "hold", "guard", "guard release", "version", "systemd", "systemd install", "systemd uninstall", ""),
]


@pytest.fixture
def operator(sqlite_url: str, tmp_path: Path) -> Operator:
    return Operator(tmp_path, Application(sqlite_url).url)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_help_text_is_cut_or_has_a_type(command: str, columns: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": columns}).stdout
    assert re.findall(r"<.*>|x[<>]=|[{}]|\brange\b|\w\.\.\.$", shown, re.MULTILINE) == []


def test_ranges_and_types_are_words() -> None:
    shown = CliRunner().invoke(app, ["sandbox", "--help"]).stdout
    flowing = re.sub(r"\s+", " ", shown)
    assert re.search(r"--port NUMBER The port to listen on; [^]]* from 0 to 65535\]", flowing)
    assert re.search(r"--stop-rate NUMBER [^]]*10; 0 or more\]", flowing)
    shown = CliRunner().invoke(app, ["explain", "--help"]).stdout
    assert "explain [OPTIONS] TASK\n" in shown
    assert "  TASK  A TaskId.\n" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks", "--status", "foo"], "for '--status': 'foo' is not one of 'active', "),
        (["history", "--outcome", "foo"], "for '--outcome': 'foo' is not one of 'sent', "),
        (["tasks", "--limit", "0"], "for '--limit': write 1 or more"),
        (["tasks", "--limit", "x"], "for '--limit': write a whole number"),
        (["guard", "release", "--minutes", "x"], "for '--minutes': write a number"),
        (["sandbox", "--port", "99999"], "for '--port': write 65535 or less"),
        (["tasks", "--due", "--status", "all"], "Error: --due selects active tasks"),
        (["hold", "1"], "Error: give exactly one of --for, --until and --release"),
        (["hold", "1", "--for", "10"], "for '--for': '10' is not a duration: write it like"),
        (["hold", "1", "--until", "noon"], "for '--until': 'noon' is not a time: write it like"),
        (["history", "--since", "noon"], "for '--since': 'noon' is not understood: write a time ago like 90s"),
        (["history", "--since", "0001-01-01T00:00+23:00"], "for '--since': '0001-"),
        (["history", "export", "--until", "noon"], "for '--until': 'noon' is not understood: "),
        (["room", ""], "for 'ROOM': it is empty"),
        (["explain", ""], "for 'TASK': it is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_names_the_option_and_what_is_accepted(operator: Operator, words: list[str], said: str) -> None:
    result = operator.types(*words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not re.search(r"Value error|Input should|Invalid value:", result.stderr)


@pytest.mark.parametrize("when", ["today", "yesterday", "2h", "2026-03-01"])
def test_common_words_for_times_are_accepted(operator: Operator, when: str) -> None:
    assert operator.types("history", "--since", when).exit_code == 0
    assert operator.types("history", "export", "--since", "2000-01-01", "--until", when).exit_code == 0


@pytest.mark.parametrize(
    "words", [["tasks", "--room", "\udcff"], ["room", "\udcff"], ["explain", "\udcff"], ["history", "--task", "\udcff"]]
)
def test_bytes_that_are_no_text_are_wrong_usage(operator: Operator, words: list[str]) -> None:
    result = operator.types(*words)
    assert (result.exit_code, "it is not UTF-8 text" in result.stderr) == (2, True), result.output


def test_chinese_arguments_are_understood_without_a_locale(operator: Operator) -> None:
    application = Application(operator.sections["database"]["url"])
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', '会议室')")
    environment = os.environ | operator.environment | {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""}
    shown = subprocess.run(
        [sys.executable, "-m", "watchdog", "tasks", "--room", "会议室", "--json"],
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b'"task_id": "1"' in shown.stdout


def test_version_as_an_option() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.stdout == CliRunner().invoke(app, ["version"]).stdout
    assert watchdog.__version__ in shown.stdout
