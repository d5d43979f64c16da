"""The command line, run in this process and in processes of its own."""

import asyncio
import json
import logging
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

import watchdog
from tests.support.operator import Operator
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess
from watchdog import SCHEMA_VERSION
from watchdog.cli.app.root import app
from watchdog.core.model import Outcome, Task
from watchdog.core.policy import RULE_TEXT, Rule
from watchdog.sandbox import Action, Drop, Join, Limits, Misbehaviour, Sandbox
from watchdog.store.engine import open_engine
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Instance
from watchdog.store.tasks import Tasks

ROOT = Path(watchdog.__file__).parent.parent
COMMANDS = [
    *("run", "demo", "sandbox", "migrate", "check", "status"),
    *("tasks", "history", "report", "room", "explain", "stop", "hold", "adopt", "guard", "events"),
    *("advise", "version", "systemd"),
]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.setLevel(level)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(
        {APP_ID: SECRET}, seed=7, limits=Limits(start=0, stop=0, user_num=0), concurrent_tasks=0
    ) as running:
        yield running


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


@pytest.fixture
def operator(application: Application, tmp_path: Path) -> Operator:
    return Operator(tmp_path, application.url)


@pytest.fixture
def operator_of_sandbox(application: Application, tmp_path: Path, sandbox: Sandbox) -> Operator:
    return Operator(tmp_path, application.url, sandbox.url)


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchdog", *words], capture_output=True, text=True, check=False, timeout=60, **options
    )


# Help


def test_help_lists_the_commands_in_order() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert re.findall(r"^  ([a-z]+)  ", shown.stdout.partition("Commands:")[2], re.MULTILINE) == COMMANDS
    assert "..." not in shown.stdout.partition("Commands:")[2], "a summary does not fit its line"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_purpose_then_examples_then_options(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    purpose, examples, options = (shown.stdout.index(part) for part in ("\n\n  ", "  Examples:\n", "Options:\n"))
    assert purpose < examples < options
    assert f"    zego-watchdog {command}" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 90


def test_help_imports_nothing_heavy() -> None:
    heavy = {"sqlalchemy", "alembic", "pydantic", "httpx2", "uvicorn", "starlette", "rich", "apscheduler", "structlog"}
    script = (
        "import sys\nfrom watchdog.cli.app.root import app\napp(['--help'], standalone_mode=False)\nprint(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Commands:" in shown.stdout
    assert heavy & set(shown.stdout.splitlines()[-1].split()) == set()


def test_commands_that_only_read_import_nothing_of_the_daemon() -> None:
    heavy = {"alembic", "apscheduler", "httpcore2", "httpx2", "prometheus_client", "starlette", "uvicorn"}
    for module, has in (("listing", False), ("daemon", True)):
        script = f"import sys\nimport watchdog.cli.commands.{module}\nprint(*sys.modules)"
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert bool(heavy & set(shown.stdout.split())) is has


def test_the_examples_in_every_help_text_are_valid_commands() -> None:
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [command, "--help"]).stdout
        for line in re.findall(
            r"zego-watchdog (.+)$", shown.partition("Examples:")[2].partition("Options:")[0], re.MULTILINE
        ):
            asked = CliRunner().invoke(app, [*shlex.split(line), "--help"])
            assert asked.exit_code == 0, line


# Every command in docs/commands.md


def documented() -> list[list[str]]:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "zego-watchdog"]


async def until_it_listens(operator: Operator, folder: Path, *words: str) -> int:
    """Start a command that does not end by itself, terminate it once it listens, return its exit code."""
    with (folder / "output").open("wb") as output:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "watchdog", *words),
            cwd=folder,
            env=os.environ | operator.environment,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    async with asyncio.timeout(30):
        while not re.search(r'listens on|"started"', (folder / "output").read_text()) and running.returncode is None:
            await asyncio.wait({asyncio.create_task(running.wait())}, timeout=0.05)
        if running.returncode is None:
            running.terminate()
        return await running.wait()


async def test_every_documented_command_works(
    sqlite_url: str, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = Operator(tmp_path, sqlite_url, sandbox.url)
    monkeypatch.chdir(tmp_path)
    assert {line[0] for line in documented()} == set(COMMANDS)
    task_id = ""
    for line in documented():
        words = [task_id if word == "1920370518175780864" else word for word in line]
        own = (["guard", "release"], ["events", "redeliver"], ["events", "test"])
        if words[0] in {"demo", "systemd", "advise", "adopt"} or words[:2] in own:
            # They have their own tests; here only the spelling is tested.
            assert (await operator.does(*words, "--help")).exit_code == 0
        elif words[0] == "run":
            assert await until_it_listens(operator, tmp_path, *words) == 0, (tmp_path / "output").read_text()
        elif words[0] == "sandbox":
            assert await until_it_listens(operator, tmp_path, *words, "--port", "0") == 0
        else:
            result = await operator.does(*words)
            assert result.exit_code == 0, (words, result.output)
        if words[0] == "migrate":
            task_id = await Application(sqlite_url).start(sandbox, "lecture-12")
    assert Application(sqlite_url).statuses() == {task_id: "stopped"}


# Errors

DATABASE_COMMANDS = [
    ["status"],
    ["tasks"],
    ["history"],
    ["report", "--html", "-"],
    ["explain", "1"],
    ["stop", "1"],
    ["hold", "1", "--for", "1m"],
    ["guard"],
    ["guard", "release"],
    ["events"],
    ["advise"],
    ["adopt"],
    ["run"],
]


@pytest.mark.parametrize("words", [*DATABASE_COMMANDS, ["migrate"]], ids=lambda words: words[0])
def test_every_error_has_a_message_and_its_exit_code(words: list[str], sqlite_url: str, tmp_path: Path) -> None:
    operator = Operator(tmp_path, sqlite_url)

    def fails(code: int, *parts: str) -> None:
        result = operator.types(*words)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert all(part in result.stderr for part in parts), result.stderr
        assert "Traceback" not in result.stderr
        assert isinstance(result.exception, SystemExit)

    missing = CliRunner().invoke(app, ["--config", str(tmp_path / "none.yaml"), *words])
    assert missing.exit_code == 78
    assert "none.yaml" in missing.stderr

    operator.sections["policy"] = {"grace_second": 3}
    fails(78, "grace_second", "did you mean grace_seconds?")
    operator.sections["policy"] = {}
    if words != ["migrate"]:
        fails(78, "zego-watchdog migrate")
        engine = open_engine(sqlite_url, must_exist=False)
        engine.connect().close()
        engine.dispose()
        fails(78, "zego-watchdog migrate")
    Application(sqlite_url).execute("UPDATE zego_schema_version SET version_num = '9999'")
    fails(78, "9999", "newer")
    operator.sections["database"] = {"url": "postgresql://me@127.0.0.1:1/db"}
    fails(75, "127.0.0.1")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    result = Operator(tmp_path, f"sqlite:///{tmp_path}/nowhere/x.db").types("migrate")
    assert (result.exit_code, "nowhere" in result.stderr) == (78, True)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["tasks", "--status", "nonsense"],
        ["tasks", "--due", "--status", "all"],
        ["tasks", "--limit", "0"],
        ["history", "--since", "noon"],
        ["history", "--since", "2026-13-01"],
        ["report"],
        ["report", "--html", "report.html", "--since", "noon"],
        ["report", "--html", "report.html", "--lang", "fr"],
        ["hold", "1"],
        ["hold", "1", "--for", "1m", "--release"],
        ["hold", "1", "--for", "10"],
        ["hold", "1", "--until", "2001-01-01"],
        ["explain"],
        ["events", "redeliver"],
        ["events", "redeliver", "1", "--undelivered"],
        ["events", "redeliver", "first"],
        ["events", "--limit", "1", "redeliver", "1"],
        ["events", "test", "--type", "task.stoped"],
        ["advise", "--grace", "20s"],
        ["advise", "--since", "noon"],
        ["adopt", "--kind", "asr"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(words: list[str], sqlite_url: str, tmp_path: Path) -> None:
    Application(sqlite_url).execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    result = Operator(tmp_path, sqlite_url).types(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""


def test_config_is_accepted_before_and_after_the_command(sqlite_url: str, tmp_path: Path) -> None:
    operator = Operator(tmp_path, sqlite_url)
    nowhere = {"ZEGO_WATCHDOG_CONFIG": str(tmp_path / "none.yaml")}
    file = (operator.environment, str(operator.file))[1]
    assert operator.types("migrate", **nowhere).exit_code == 78
    assert operator.types("--config", file, "migrate", **nowhere).exit_code == 0
    assert operator.types("migrate", "--config", file, **nowhere).exit_code == 0
    assert operator.types("--config", "/nowhere.yaml", "migrate", "--config", file, **nowhere).exit_code == 0


# migrate, version


def test_migrate_reports_what_it_did_and_where(database_url: str, tmp_path: Path) -> None:
    operator = Operator(tmp_path, database_url)
    first, second = operator.types("migrate"), operator.types("migrate")
    assert f"schema none -> {SCHEMA_VERSION}" in first.stdout
    assert f"schema {SCHEMA_VERSION} already" in second.stdout
    assert (str(tmp_path) in first.stdout) or "postgresql" in first.stdout


def test_migrate_creates_again_what_holds_no_rows(database_url: str, tmp_path: Path) -> None:
    application, operator = Application(database_url), Operator(tmp_path, database_url)
    application.execute("DROP VIEW zego_stop_history")
    application.execute("DROP INDEX zego_tasks_wake")
    assert "already; created again: view zego_stop_history, zego_tasks_wake" in operator.types("migrate").stdout
    assert "nothing to do" in operator.types("migrate").stdout
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")
    application.execute("DROP VIEW zego_stop_history")
    application.execute("DROP VIEW zego_savings")
    application.execute("DROP TABLE zego_rejoins")
    refused = operator.types("migrate")
    assert refused.exit_code == 78
    assert "zego_tasks hold rows, but there is no" in refused.stderr


def test_migrate_names_windows_that_are_too_short(database_url: str, tmp_path: Path) -> None:
    operator = Operator(tmp_path, database_url)
    assert operator.types("migrate").stderr == ""
    application = Application(database_url)
    application.old_rows(7)
    done = operator.types("migrate")
    assert done.exit_code == 0
    assert "7 active tasks have a max_idle_seconds below 30" in done.stderr
    assert "too short: old-0, old-1, old-2, old-3, old-4, …" in done.stderr


def test_version() -> None:
    assert CliRunner().invoke(app, ["version"]).stdout.startswith(f"zego-watchdog {watchdog.__version__} ")
    assert json.loads(CliRunner().invoke(app, ["version", "--json"]).stdout)["version"] == watchdog.__version__


# status, tasks, history, explain


def test_tasks_as_a_table_and_as_json(operator: Operator, application: Application) -> None:
    application.execute(
        "INSERT INTO zego_tasks (task_id, room_id, app_id) VALUES ('18446744073709551617', 'lecture', 7)"
    )
    application.people("lecture", 3)
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('2', 'quiet')")
    application.people("quiet", 0)
    table = operator.types("tasks").stdout.splitlines()
    assert table[0].split()[:3] == ["TASK", "ROOM", "PEOPLE"]
    assert [line.split()[:3] for line in table[1:]] == [["2", "quiet", "0"], ["18446744073709551617", "lecture", "3"]]
    assert [line for line in table if line != line.rstrip()] == []
    quiet, lecture = operator.sees("tasks")
    assert set(lecture) == set(Task.__slots__)
    assert (lecture["user_count"], lecture["app_id"], lecture["due_at"]) == (3, 7, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", quiet["empty_since"])
    assert operator.sees("tasks", "--room", "lecture") == [lecture]
    assert operator.sees("tasks", "--limit", "1") == [quiet]
    assert "Shown: 1 task; there are more" in operator.types("tasks", "--limit", "1").stderr


def test_no_task_is_a_message_on_stderr_and_an_empty_json_list(operator: Operator) -> None:
    assert (operator.types("tasks").stdout, operator.sees("tasks")) == ("", [])
    assert (operator.types("history").stdout, operator.sees("history")) == ("", [])


@pytest.mark.parametrize("columns", ["80", "120", ""])
def test_a_table_fits_the_terminal_and_a_pipe_gets_all_columns(
    operator: Operator, application: Application, columns: str
) -> None:
    for number in range(3):
        application.execute(
            "INSERT INTO zego_stop_attempts"
            " (task_id, kind, room_id, attempt, reason, outcome, instance, code, request_id)"
            " VALUES (?, 'asr', 'a-room-of-some-length', 1, 'empty_room', 'stopped', 'host-1', '0', ?)",
            f"192037051817578086{number}",
            f"315152779255969973{number}",
        )
    shown = operator.types("history", COLUMNS=columns)
    lines = shown.stdout.splitlines()
    assert len(lines) == 4
    titles = re.split(r"\s{2,}", lines[0])
    assert titles[:5] == ["WHEN", "ROOM", "REASON", "OUTCOME", "TASK"]
    assert all(part in lines[1] for part in ("a-room", "empty_room", "stopped", "1920370518175780862"))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  ", lines[1]), "also of a row without stopped_at"
    if columns:
        assert max(map(len, lines)) <= int(columns)
        assert "No room for" in shown.stderr
    else:
        assert len(titles) == 1 + len(operator.sees("history")[0])
        assert shown.stderr == ""


def test_history_narrows_down(operator: Operator, application: Application) -> None:
    for task_id, outcome in (("1", "stopped"), ("2", "auto_stopped")):
        application.execute(
            "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
            " VALUES (?, 'asr', 'r', 'empty_room', ?, 'host-1')",
            task_id,
            outcome,
        )
    assert [row["task_id"] for row in operator.sees("history")] == ["2", "1"]
    assert [row["task_id"] for row in operator.sees("history", "--outcome", "stopped")] == ["1"]
    assert [row["task_id"] for row in operator.sees("history", "--task", "2", "--since", "1h")] == ["2"]
    assert operator.sees("history", "--since", "2099-01-01") == []
    assert operator.sees("history", "--room", "other") == []


def test_stored_text_cannot_move_the_cursor(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', ?)", "\x1b[2Jgone\x07")
    assert "\x1b" not in operator.types("tasks").stdout
    assert "gone" in operator.types("tasks").stdout
    assert "\x1b" not in operator.types("explain", "1").stdout


def test_explain_tells_evidence_decision_times_and_attempts(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'lecture')")
    application.people("lecture", 2)
    shown = operator.types("explain", "1").stdout
    assert RULE_TEXT[Rule.OCCUPIED] in shown
    assert "2, from app" in shown
    assert "No daemon is alive" in shown
    application.people("lecture", 0)
    application.execute(
        "INSERT INTO zego_stop_attempts"
        " (task_id, kind, room_id, attempt, reason, outcome, instance, code, request_id, http_status, message, detail)"
        " VALUES ('1', 'asr', 'lecture', 1, 'empty_room', 'retry', 'host-1', '410000001', '18446744073709551617', 200,"
        " 'system error', 'in its own words')"
    )
    shown = operator.types("explain", "1").stdout
    assert RULE_TEXT[Rule.NOT_DUE] in shown
    assert all(part in shown for part in ("410000001", "18446744073709551617", "system error", "in its own words"))
    told = operator.sees("explain", "1")
    assert (told["task"]["task_id"], told["decision"]["rule"], told["daemon_alive"]) == ("1", "not_due", False)
    assert told["plan"]["due_at"] < told["plan"]["auto_stop_at"]
    assert [attempt["request_id"] for attempt in told["attempts"]] == ["18446744073709551617"]
    application.execute("UPDATE zego_tasks SET status = 'released'")
    assert "The application released the task" in operator.types("explain", "1").stdout
    application.execute("DELETE FROM zego_tasks")
    assert "its row was deleted" in operator.types("explain", "1").stdout
    assert operator.sees("explain", "1")["task"] is None


def test_explain_reports_a_dead_feed(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    assert operator.sees("explain", "1")["feed_dead"] is False
    application.people("r", 2)
    assert operator.sees("explain", "1")["feed_dead"] is False
    assert "feed of hints" not in operator.types("explain", "1").stdout
    application.execute("UPDATE zego_tasks SET user_count_at = '2026-01-01 00:00:00' WHERE task_id = '1'")
    shown = operator.sees("explain", "1")
    assert (shown["feed_dead"], shown["newest_hint_at"]) == (True, "2026-01-01T00:00:00Z")
    assert "The feed of hints seems dead: no hint for any room for " in operator.types("explain", "1").stdout
    # A hint for another room: the feed is alive.
    application.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('2', 'other', 1)")
    assert operator.sees("explain", "1")["feed_dead"] is False


def test_explain_says_that_zego_refuses_the_room(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('1', 'odd', 0)")
    assert operator.sees("explain", "1")["room_refused"] is False
    application.execute(
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, detail)"
        " VALUES ('1', 'asr', 'odd', 'empty_room', 'withheld', 'host-1', 'room_refused')"
    )
    assert operator.sees("explain", "1")["room_refused"] is True
    assert "ZEGO refuses the RoomId odd" in operator.types("explain", "1").stdout


def test_an_unknown_task_gets_suggestions(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1920370518175780864', 'lecture')")
    for command in ("explain", "stop"):
        near, room, nothing = (operator.types(command, text) for text in ("19203705181757808", "lecture", "zzz"))
        assert (near.exit_code, room.exit_code, nothing.exit_code) == (1, 1, 1)
        assert "did you mean 1920370518175780864?" in near.stderr
        assert "lecture is a room" in room.stderr
        assert "zego-watchdog tasks --status all" in nothing.stderr


async def test_status_knows_whether_a_daemon_is_alive(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox, tmp_path: Path
) -> None:
    operator = operator_of_sandbox
    before = await operator.does("status")
    assert (before.exit_code, "NONE IS ALIVE" in before.stdout) == (0, True)
    daemon = DaemonProcess(tmp_path, application.url, sandbox)
    await daemon.start()
    try:
        during = json.loads((await operator.does("status", "--json")).stdout)
        assert during["alive"] is True
        assert [one["mode"] for one in during["daemons"]] == ["enforce"]
        assert "NONE IS ALIVE" not in (await operator.does("status")).stdout
    finally:
        assert await daemon.end() == 0
    after = json.loads((await operator.does("status", "--json")).stdout)
    assert (after["alive"], len(after["daemons"])) == (False, 1)
    assert set(after["outcomes_24h"]) == set(Outcome)


# hold


def test_hold_and_release(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    held = operator.sees("hold", "1", "--for", "10m")
    (row,) = operator.sees("tasks")
    assert held["hold_until"] == row["hold_until"]
    ahead = datetime.fromisoformat(held["hold_until"]) - datetime.fromisoformat(held["started_at"])
    assert timedelta(minutes=10) <= ahead < timedelta(minutes=11)
    assert operator.sees("hold", "1", "--until", "2099-01-01T01:00+01:00")["hold_until"] == "2099-01-01T00:00:00Z"
    assert "no hold" in operator.types("hold", "1", "--release").stdout
    assert operator.sees("tasks")[0]["hold_until"] is None


def test_a_hold_longer_than_zegos_window_gets_a_warning(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    assert operator.types("hold", "1", "--for", "10m").stderr == ""
    application.people("r", 1)
    application.people("r", 0)
    assert operator.types("hold", "1", "--for", "1m").stderr == ""
    assert "ZEGO does not know about the hold" in operator.types("hold", "1", "--for", "10m").stderr


def test_an_ended_task_cannot_be_held(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    application.execute("UPDATE zego_tasks SET status = 'released'")
    result = operator.types("hold", "1", "--for", "1m")
    assert (result.exit_code, "task 1 ended" in result.stderr) == (1, True)


# stop


def requests(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [dict(event) for event in sandbox.events() if event["event"] == "stop_requested"]


async def test_stop_stops_and_the_vendor_and_the_ledger_agree(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    result = await operator_of_sandbox.does("stop", task_id, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (request,) = requests(sandbox)
    (attempt,) = application.attempts()
    assert said["outcome"] == attempt["outcome"] == "stopped"
    assert said["code"] == attempt["code"] == "0"
    assert said["request_id"] == attempt["request_id"] == request["request_id"]
    assert (attempt["reason"], attempt["evidence_source"]) == ("manual", "api")
    assert application.statuses() == {task_id: "stopped"}
    again = await operator_of_sandbox.does("stop", task_id)
    assert (again.exit_code, f"task {task_id} ended" in again.stderr) == (1, True)
    assert len(requests(sandbox)) == 1


async def test_stop_refuses_a_room_with_people_in_it_as_zego_sees_it(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.people("lecture", 0)
    for user in ("ann", "bob"):
        sandbox.perform(Join(room="lecture", user=user))
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert "there are 2 people in room lecture, reported by ZEGO" in result.stderr
    assert "see who is there with: zego-watchdog room lecture" in result.stderr
    assert result.stdout == ""
    assert requests(sandbox) == []
    assert [row["outcome"] for row in application.attempts()] == ["spared"]
    assert application.rows("SELECT user_count, claimed_by FROM zego_tasks") == [{"user_count": 2, "claimed_by": None}]


@pytest.mark.parametrize("source", ["api", "callback"])
async def test_what_zego_reported_is_not_to_be_overwritten(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox, source: str
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.execute(f"UPDATE zego_tasks SET user_count = 1, user_count_source = '{source}'")
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert "see who is there with: zego-watchdog room lecture" in result.stderr
    assert "user_count" not in result.stderr
    assert requests(sandbox) == []


async def test_stop_refuses_a_room_with_people_in_it_as_the_application_sees_it(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.people("lecture", 1)
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert "there is 1 person in room lecture, reported by the application" in result.stderr
    assert "if this is wrong, set its user_count to 0 first" in result.stderr
    assert requests(sandbox) == []
    assert application.rows("SELECT user_count, claimed_by, wake_at FROM zego_tasks") == [
        {"user_count": 1, "claimed_by": None, "wake_at": None}
    ]
    application.people("lecture", 0)
    assert (await operator_of_sandbox.does("stop", task_id)).exit_code == 0


async def test_stop_refuses_while_zego_cannot_be_asked(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.people("lecture", 0)
    sandbox.perform(Misbehaviour(action=Action.USER_NUM, http_status=503))
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert RULE_TEXT[Rule.UNCONFIRMED] in result.stderr
    assert requests(sandbox) == []
    assert [row["outcome"] for row in application.attempts()] == ["withheld"]


async def test_stop_says_in_words_that_zego_refuses_the_room(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.execute("UPDATE zego_tasks SET room_id = ?", "lec\u202eture\x9b")
    application.people("lec\u202eture\x9b", 0)
    sandbox.perform(Misbehaviour(action=Action.USER_NUM, code=2))
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert "ZEGO refuses the RoomId lec\ufffdture\ufffd" in result.stderr, "harmless for a terminal"
    assert "zego_tasks.room_id" in result.stderr
    assert "room_refused" not in result.output.replace('"room_refused"', "")
    assert requests(sandbox) == []


async def test_stop_refuses_a_room_without_evidence(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    operator_of_sandbox.sections["zego"]["rtc_url"] = ""
    operator_of_sandbox.sections["policy"] = {"verify": "off"}
    result = await operator_of_sandbox.does("stop", task_id)
    assert (result.exit_code, RULE_TEXT[Rule.NO_EVIDENCE] in result.stderr) == (1, True)
    assert requests(sandbox) == []


async def test_stop_trusts_a_hint_only_if_a_daemon_has_watched_since(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    operator_of_sandbox.sections["zego"]["rtc_url"] = ""
    operator_of_sandbox.sections["policy"] = {"verify": "off"}
    application.people("lecture", 0)
    result = await operator_of_sandbox.does("stop", task_id)
    assert (result.exit_code, RULE_TEXT[Rule.HINT_BEFORE_GAP] in result.stderr) == (1, True)
    assert requests(sandbox) == []
    engine = open_engine(application.url)
    Heartbeats(engine).beat(Instance("host-1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    engine.dispose()
    application.people("lecture", 0)
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 0, result.output
    assert [row["evidence_source"] for row in application.attempts() if row["outcome"] == "stopped"] == ["app"]


async def test_stop_respects_a_hold(operator_of_sandbox: Operator, application: Application, sandbox: Sandbox) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.people("lecture", 0)
    assert (await operator_of_sandbox.does("hold", task_id, "--for", "1h")).exit_code == 0
    result = await operator_of_sandbox.does("stop", task_id)
    assert result.exit_code == 1
    assert f"zego-watchdog hold {task_id} --release" in result.stderr
    assert requests(sandbox) == []
    assert (await operator_of_sandbox.does("hold", task_id, "--release")).exit_code == 0
    assert (await operator_of_sandbox.does("stop", task_id)).exit_code == 0


async def test_stop_leaves_a_task_that_another_process_has_claimed(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    engine = open_engine(application.url)
    assert Tasks(engine, "other").claim_one(task_id, "other/1", lease_seconds=60) is not None
    engine.dispose()
    result = await operator_of_sandbox.does("stop", task_id)
    assert (result.exit_code, "other/1" in result.stderr) == (75, True)
    assert requests(sandbox) == []


async def test_stop_only_records_in_observe_mode(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    operator_of_sandbox.sections["policy"] = {"mode": "observe"}
    result = await operator_of_sandbox.does("stop", task_id)
    assert (result.exit_code, "nothing was sent" in result.stderr) == (0, True)
    assert "would_stop" in result.stdout
    assert requests(sandbox) == []
    assert [row["outcome"] for row in application.attempts()] == ["would_stop"]


@pytest.mark.parametrize(
    ("misbehaviour", "outcome", "code"),
    [
        (Misbehaviour(action=Action.STOP, code=410000001), "retry", 75),
        (Misbehaviour(action=Action.STOP, http_status=502), "retry", 75),
        (Misbehaviour(action=Action.STOP, drop_reply=Drop.AFTER), "unknown", 75),
        (Misbehaviour(action=Action.STOP, code=100000005), "blocked", 78),
        (Misbehaviour(action=Action.STOP, code=410000003), "rejected", 1),
        (Misbehaviour(action=Action.STOP, code=410001002), "gone", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_stop_tells_each_outcome_by_its_exit_code(
    sqlite_url: str, tmp_path: Path, sandbox: Sandbox, misbehaviour: Misbehaviour, outcome: str, code: int
) -> None:
    application, operator = Application(sqlite_url), Operator(tmp_path, sqlite_url, sandbox.url)
    task_id = await application.start(sandbox, "lecture")
    sandbox.perform(misbehaviour)
    result = await operator.does("stop", task_id, "--json")
    assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (code, outcome)
    assert [row["outcome"] for row in application.attempts()] == [outcome]
    if code == 75:
        assert "No daemon is alive" in result.stderr


async def test_stop_of_an_app_that_is_not_ours(
    operator_of_sandbox: Operator, application: Application, sandbox: Sandbox
) -> None:
    task_id = await application.start(sandbox, "lecture")
    application.execute("UPDATE zego_tasks SET app_id = 99")
    result = await operator_of_sandbox.does("stop", task_id)
    assert (result.exit_code, "99" in result.stderr, "zego.apps" in result.stderr) == (78, True, True)
    assert requests(sandbox) == []


# Processes


def test_a_closed_pipe_is_no_error(sqlite_url: str, tmp_path: Path) -> None:
    application = Application(sqlite_url)
    application.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        " INSERT INTO zego_tasks (task_id, room_id) SELECT i, 'room' FROM n"
    )
    environment = os.environ | Operator(tmp_path, sqlite_url).environment
    for option in ("", "--json"):
        piped = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m watchdog tasks --limit 3000 {option} | head -n 1"],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            timeout=60,
        )
        assert len(piped.stdout.splitlines()) == 1
        assert "Traceback" not in piped.stderr
        assert "BrokenPipe" not in piped.stderr


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_need_a_terminal_without_no_color(sqlite_url: str, tmp_path: Path, *, no_color: bool) -> None:
    Application(sqlite_url)
    environment = os.environ | Operator(tmp_path, sqlite_url).environment | {"TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    terminal, output = pty.openpty()
    subprocess.run([sys.executable, "-m", "watchdog", "status"], stdout=output, env=environment, check=True, timeout=60)
    os.close(output)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "NONE IS ALIVE" in shown
    assert ("\x1b[1;31m" in shown) is not no_color


def test_an_overwritten_package_gets_a_message(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "watchdog", tmp_path / "watchdog", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "watchdog" / "__init__.py").write_text("")
    ended = process("version", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 78
    assert "virtual environment" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_ends_the_sandbox_cleanly() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "watchdog", "sandbox", "--port", "0", "--seed", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert "seed 5" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 0
        assert "Traceback" not in running.stderr.read()
