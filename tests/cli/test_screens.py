"""What the screens say: which columns are shown, in which words, and that nothing stored can harm a terminal."""

import re
from pathlib import Path

import pytest

from tests.support.operator import Operator
from tests.support.running import Application
from watchdog.cli.view.output import Column, show_table
from watchdog.core.model import Outcome
from watchdog.insight.legible import legible


@pytest.fixture
def application(sqlite_url: str) -> Application:
    return Application(sqlite_url)


@pytest.fixture
def operator(application: Application, tmp_path: Path) -> Operator:
    return Operator(tmp_path, application.url)


def attempt(application: Application, task_id: str = "1", **columns: object) -> None:
    values: dict[str, object] = {
        "task_id": task_id,
        "kind": "asr",
        "room_id": "lecture",
        "reason": "empty_room",
        "outcome": "stopped",
        "instance": "host-1",
    } | columns
    application.execute(
        f"INSERT INTO zego_stop_attempts ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        *values.values(),
    )


def ended(application: Application, status: str, task_id: str = "1") -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, 'lecture')", task_id)
    application.execute("UPDATE zego_tasks SET status = ? WHERE task_id = ?", status, task_id)


# Tables


@pytest.mark.parametrize("outcome", ["gone", "withheld", "stopped", "auto_stopped", "would_stop"])
def test_the_history_has_the_time_of_every_last_attempt(
    operator: Operator, application: Application, outcome: str
) -> None:
    attempt(application, outcome="retry", recorded_at="2026-03-01 11:00:00.000000")
    attempt(application, outcome=outcome, recorded_at="2026-03-01 12:00:00.000000")
    assert "2026-03-01 12:00:00Z  lecture" in operator.types("history", COLUMNS="80").stdout


@pytest.mark.parametrize("command", ["tasks", "history"])
def test_one_long_room_is_shortened_and_the_others_are_not_lost(
    operator: Operator, application: Application, command: str
) -> None:
    for task_id, room in (("1920370518175780864", "r" * 100), ("1920370518175780865", "lecture")):
        application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task_id, room)
        attempt(application, task_id, room_id=room)
    shown = operator.types(command, COLUMNS="80").stdout
    assert "ROOM" in shown
    assert "lecture" in shown
    assert "rrrrrrrrrrr…" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "r" * 100 in operator.types(command, COLUMNS="").stdout


def test_a_pipe_gets_every_column_also_the_empty_ones(operator: Operator, application: Application) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'lecture')")
    titles, row = (re.split(r"\s{2,}", line) for line in operator.types("tasks", COLUMNS="").stdout.splitlines())
    assert titles == [
        *(
            "TASK",
            "ROOM",
            "STATUS",
            "PEOPLE",
            "SOURCE",
            "EMPTY",
            "DUE",
            "AUTO-STOP",
            "HOLD",
            "TRIES",
            "APP",
            "ENDED",
            "KIND",
        ),
    ]
    assert row == ["1", "lecture", "active", "?", "none", *"-" * 7, "asr"]


def test_the_widest_column_gives_way_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    show_table([Column("A", ["a" * 40], least=5), Column("B", ["b" * 12], least=5), Column("C", ["c"])])
    assert capsys.readouterr().out.splitlines()[1] == f"{'a' * 12}…  {'b' * 12}  c"


# Words


@pytest.mark.parametrize(
    ("columns", "status", "said"),
    [
        (
            {"evidence_source": "api", "evidence_at": "2026-03-01 11:59:59.000000"},
            "stopped",
            [
                *(
                    "stopped by us; ZEGO confirmed it",
                    "everybody had left the room; empty since 2026-03-01 11:59:00Z",
                    "host-1",
                ),
                "reported by ZEGO at 2026-03-01 11:59:59Z",
            ],
        ),
        (
            {"outcome": "gone", "evidence_source": "app", "reason": "never_joined"},
            "gone",
            ["the application", "joined"],
        ),
        ({"outcome": "auto_stopped"}, "auto_stopped", ["auto-stop ended the task", "MaxIdleTime", "nobody reported"]),
        ({"outcome": "rejected", "reason": "manual"}, "failed", ["ZEGO refuses to stop this task", "an operator ran"]),
    ],
    ids=["stopped", "gone", "auto_stopped", "failed"],
)
def test_explain_says_why_and_when_a_task_ended_and_by_which_evidence(
    operator: Operator, application: Application, columns: dict[str, str], status: str, said: list[str]
) -> None:
    ended(application, status)
    empty = {"empty_since": "2026-03-01 11:59:00.000000", "recorded_at": "2026-03-01 12:00:00.000000"}
    attempt(application, **empty | columns)
    attempt(application, outcome="withheld", recorded_at="2026-03-01 13:00:00.000000")
    shown = operator.types("explain", "1").stdout
    assert [part for part in [*said, "(2026-03-01 12:00:00Z)"] if part not in shown] == []
    assert "already ended" not in shown
    application.execute("DELETE FROM zego_tasks")
    assert said[0] in operator.types("explain", "1").stdout, "also without its row"


def test_explain_of_an_ended_task_without_its_attempts(operator: Operator, application: Application) -> None:
    ended(application, "gone")
    assert "retention has removed it" in operator.types("explain", "1").stdout


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("wake_at = NULL", "-"),
        ("wake_at = '2100-01-01 00:00:00.000000', attempts = 1, error = 'HTTP 500'", "to be delivered in"),
        ("claimed_by = 'host/1', attempts = 1", "being delivered"),
        ("wake_at = NULL, attempts = 1, delivered_at = '2026-03-01 12:00:00.000000'", "delivered 2026-03-01 12:00:00Z"),
        ("wake_at = NULL, attempts = 14, error = 'HTTP 500'", "UNDELIVERED"),
    ],
)
def test_explain_shows_events_and_their_delivery(
    operator: Operator, application: Application, written: str, said: str
) -> None:
    application.execute("INSERT INTO zego_event_types (type, webhook) VALUES ('task.stopped', true)")
    ended(application, "stopped")
    application.execute(f"UPDATE zego_events SET {written}, handled_at = '2026-03-02 12:00:00.000000'")
    shown = operator.types("explain", "1").stdout.partition("Events")[2]
    parts = ["task.stopped", said, "2026-03-02 12:00:00Z", *(["HTTP 500"] if "HTTP" in written else [])]
    assert [part for part in parts if part not in shown] == []
    (event,) = operator.sees("explain", "1")["events"]
    assert (event["type"], event["data"]["room_id"]) == ("task.stopped", "lecture")


def test_status_says_what_is_not_delivered(operator: Operator, application: Application) -> None:
    assert "events" not in operator.types("status").stdout
    application.execute("INSERT INTO zego_event_types (type, webhook) VALUES ('task.stopped', true)")
    for task in ("1", "2", "3"):
        ended(application, "stopped", task)
    application.execute("UPDATE zego_events SET wake_at = NULL, attempts = 9 WHERE task_id = '1'")
    shown = operator.types("status").stdout
    assert "2 events to be delivered" in shown
    assert "1 event UNDELIVERED: all attempts failed. Next step: zego-watchdog events --undelivered" in shown
    found = operator.sees("status")["events"]
    assert (found["pending"], found["undelivered"]) == (2, 1)
    assert found["oldest_pending_at"] is not None


def test_status_says_what_stops_have_saved(operator: Operator, application: Application) -> None:
    def shown() -> str:
        return " ".join(operator.types("status", COLUMNS="200").stdout.split())

    assert "savings the daemon stopped no task in the last 24 hours" in shown()
    stop = {"replied_at": "2026-03-01 12:00:00.000000", "auto_stop_at": "2026-03-01 12:01:01.000000"}
    attempt(application, "1", **stop | {"reason": "bots_only"})
    assert "savings 1 stop without an auto-stop to compare with" in shown()
    for number in range(2, 202):
        attempt(application, str(number), **stop)
    freed = "savings 3h 23m of slots freed before ZEGO's planned auto-stop, 1m 1s for each stop on average"
    assert f"{freed}; 1 stop without an auto-stop to compare with" in shown()
    application.execute("DELETE FROM zego_stop_attempts WHERE task_id = '1'")
    assert f"{freed} returns" in shown()
    assert operator.sees("status")["savings_24h"] == {
        "stops": 200,
        "slot_seconds_freed": 12200.0,
        "seconds_before_auto_stop": 61.0,
        "no_auto_stop": 0,
    }


@pytest.mark.parametrize("detail", ["room_refused", "app_not_configured", "hint_before_gap"])
def test_no_screen_shows_the_word_for_programs(operator: Operator, application: Application, detail: str) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'lecture')")
    attempt(application, outcome="withheld", detail=detail)
    assert detail not in operator.types("explain", "1").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks"], "No active task: the application registers each task with an INSERT"),
        (["tasks", "--due"], "No task is due: no room has been empty"),
        (["tasks", "--due", "--room", "x"], "No task in room x is due"),
        (["tasks", "--room", "x"], "No active task in room x. See all tasks: zego-watchdog tasks --status all"),
        (["tasks", "--status", "failed"], "No failed task."),
        (["tasks", "--status", "all"], "No task: the application"),
        (["history"], "No attempt is recorded yet"),
        (["history", "--outcome", "stopped"], "No task whose last attempt fits these options"),
    ],
    ids=" ".join,
)
def test_an_empty_list_says_what_that_means(operator: Operator, words: list[str], said: str) -> None:
    shown = operator.types(*words)
    assert (shown.stdout, said in shown.stderr) == ("", True), shown.stderr


def test_status_uses_plain_words(operator: Operator) -> None:
    shown = operator.types("status").stdout
    for puzzling in ("ZEGO's window", "came back", "evidence"):
        assert puzzling not in shown
    assert "nobody has reported yet how many people" in shown
    assert "ZEGO ends a task 2m 30s after its room is empty" in shown


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (
            {},
            (
                "5 unverified stops per minute for all daemons together: the smaller of 60 (guard."
                "unverified_per_minute) and 5 (guard.unverified_share: 25% of 1 active task, never fewer than 5)"
            ),
        ),
        ({"unverified_share": 0}, "together: 60 (guard.unverified_per_minute)"),
    ],
    ids=["both", "one"],
)
def test_guard_says_where_its_limit_comes_from(
    operator: Operator, application: Application, guard: dict[str, object], said: str
) -> None:
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'lecture')")
    operator.sections["guard"] = guard
    assert said in operator.types("guard").stdout.replace("\n" + " " * 15, " ")


def test_every_outcome_that_is_shown_fits_the_history(operator: Operator, application: Application) -> None:
    for number, outcome in enumerate(Outcome):
        attempt(application, str(number), outcome=outcome)
    assert len(operator.types("history", COLUMNS="80").stdout.splitlines()) == 1 + len(Outcome)


# Harmless


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\x07", "\u2066"])
def test_what_could_move_the_cursor_or_turn_the_line_is_replaced(character: str) -> None:
    assert legible(f"a{character}b") == "a\ufffdb"
