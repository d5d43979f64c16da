"""``history export``: everything, once, in constant memory, and never half a file; on both databases."""

import csv
import io
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner, Result

from tests.support.running import APP_ID, Application
from tests.support.time_travel import World
from watchdog.cli.app.root import app
from watchdog.cli.commands.export import FORMS, write
from watchdog.store.engine import open_engine, reading
from watchdog.store.reports import export as exports
from watchdog.store.reports.history import Row

VIEW = (
    *("task_id", "room_id", "app_id", "kind", "reason", "outcome", "code", "message", "request_id", "attempts"),
    *("empty_since", "due_at", "stopped_at", "auto_stop_at"),
    *("reaction_seconds", "seconds_before_auto_stop", "rejoined_after_seconds"),
)


class Analyst:
    """Somebody with a configuration, in a folder of their own."""

    def __init__(self, folder: Path, application: Application) -> None:
        self.application = application
        self.file = folder / "config.yaml"
        self.file.write_text(yaml.safe_dump({"database": {"url": application.url}, "policy": {"mode": "observe"}}))

    @property
    def environment(self) -> dict[str, str]:
        return {"ZEGO_WATCHDOG_CONFIG": str(self.file)}

    def types(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["history", *words], env=self.environment)

    def exports(self, *words: str) -> str:
        result = self.types("export", *words)
        assert result.exit_code == 0, result.output
        return result.stdout_bytes.decode()

    def rows(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.exports("--format", "jsonl", *words).splitlines()]

    def tasks(self, *words: str) -> list[str]:
        return [row["task_id"] for row in self.rows(*words)]


@pytest.fixture
def analyst(database_url: str, tmp_path: Path) -> Analyst:
    return Analyst(tmp_path, Application(database_url))


def attempt(application: Application, task_id: str, recorded_at: str, **columns: object) -> None:
    values: dict[str, object] = {
        "task_id": task_id,
        "kind": "asr",
        "app_id": APP_ID,
        "room_id": "room",
        "reason": "empty_room",
        "outcome": "stopped",
        "code": "0",
        "message": "Success",
        "request_id": "77",
        "instance": "host/1",
        "attempt": 1,
        "recorded_at": recorded_at,
        "replied_at": recorded_at,
        "due_at": "2026-03-01 11:59:58",
        "auto_stop_at": "2026-03-01 12:01:40.5",
    } | columns
    if not application.is_sqlite:
        values = {name: f"{value}Z" if name.endswith("_at") else value for name, value in values.items()}
    else:
        values = {name: str(value).ljust(20, ".").ljust(26, "0") if name.endswith("_at") else value
                  for name, value in values.items()}  # fmt: skip
    names = ", ".join(values)
    application.execute(
        f"INSERT INTO zego_stop_attempts ({names}) VALUES ({', '.join('?' * len(values))})", *values.values()
    )


def test_csv_has_every_column_of_the_view_and_times_in_utc(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00.25", app_id=None, room_id='a "quoted", room')
    assert analyst.exports().splitlines() == [
        ",".join(VIEW),
        (
            't1,"a ""quoted"", room",,asr,empty_room,stopped,0,Success,77,1,,2026-03-01T11:59:58Z,'
            "2026-03-01T12:00:00.250000Z,2026-03-01T12:01:40.500000Z,2.25,100.25,"
        ),
    ]


def test_json_has_a_row_a_line_and_everything_as_it_is(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00.25", room_id="=会议室\n", message=None)
    text = analyst.exports("--format", "jsonl")
    assert text.count("\n") == 1
    assert "会议室" in text
    assert json.loads(text) == {
        "task_id": "t1",
        "room_id": "=会议室\n",
        "app_id": APP_ID,
        "kind": "asr",
        "reason": "empty_room",
        "outcome": "stopped",
        "code": "0",
        "message": None,
        "request_id": "77",
        "attempts": 1,
        "empty_since": None,
        "due_at": "2026-03-01T11:59:58Z",
        "stopped_at": "2026-03-01T12:00:00.250000Z",
        "auto_stop_at": "2026-03-01T12:01:40.500000Z",
        "reaction_seconds": 2.25,
        "seconds_before_auto_stop": 100.25,
        "rejoined_after_seconds": None,
    }


def test_an_empty_history_has_a_header(analyst: Analyst) -> None:
    assert analyst.exports() == ",".join(VIEW) + "\r\n"
    assert analyst.exports("--attempts") == ",".join(exports.LEDGER_COLUMNS) + "\r\n"
    assert analyst.exports("--format", "jsonl") == ""


def test_the_columns_are_those_of_the_database(analyst: Analyst) -> None:
    engine = open_engine(analyst.application.url)
    with reading(engine) as connection:
        for name, columns in (
            ("zego_stop_history", exports.HISTORY_COLUMNS),
            ("zego_stop_attempts", exports.LEDGER_COLUMNS),
        ):
            assert tuple(column["name"] for column in sa.inspect(connection).get_columns(name)) == columns
    engine.dispose()


def test_attempts_are_the_ledger_itself(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00", outcome="retry", code="206")
    attempt(analyst.application, "t2", "2026-03-01 12:00:01")
    attempt(analyst.application, "t1", "2026-03-01 12:00:02", attempt=2)
    rows = analyst.rows("--attempts")
    assert [(row["id"], row["task_id"], row["attempt"], row["code"]) for row in rows] == [
        (1, "t1", 1, "206"),
        (2, "t2", 1, "0"),
        (3, "t1", 2, "0"),
    ]
    assert next(csv.reader(io.StringIO(analyst.exports("--attempts")))) == list(exports.LEDGER_COLUMNS)
    # The history has a task once, where its last attempt stands.
    assert [(row["task_id"], row["attempts"]) for row in analyst.rows()] == [("t2", 1), ("t1", 2)]


def test_neighbouring_exports_share_no_row_and_miss_none(analyst: Analyst) -> None:
    days = ["2026-01-31 23:59:59.999", "2026-02-01 00:00:00", "2026-02-28 12:00:00", "2026-03-01 00:00:00"]
    for number, day in enumerate(days):
        attempt(analyst.application, f"t{number}", day)
    attempt(analyst.application, "t1", "2026-03-02 00:00:00", attempt=2)
    assert analyst.tasks("--until", "2026-02-01") == ["t0"]
    assert analyst.tasks("--since", "2026-02-01", "--until", "2026-03-01") == ["t2"]
    assert analyst.tasks("--since", "2026-03-01") == ["t3", "t1"]
    assert analyst.tasks("--since", "2026-03-01T00:00:00+01:00") == ["t3", "t1"]
    assert analyst.tasks("--attempts", "--since", "2026-02-01", "--until", "2026-03-01") == ["t1", "t2"]
    assert analyst.tasks("--since", "2030-01-01") == []
    assert analyst.tasks("--until", "2020-01-01") == []
    assert analyst.tasks("--until", "1h") == ["t0", "t2", "t3", "t1"]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://example.invalid")', '\'=HYPERLINK("http://example.invalid")'),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("-17", "-17"),
        ("+4.5", "+4.5"),
        ("a=b", "a=b"),
        ("'quoted", "'quoted"),
        ("", ""),
    ],
)
def test_what_a_spreadsheet_would_run_is_text(text: str, cell: str) -> None:
    written = FORMS["csv"](["x"], [{"x": text}])
    assert list(csv.reader(io.StringIO(written, newline=""))) == [[cell]]


def test_numbers_stay_numbers(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:02:00")
    (row,) = csv.DictReader(io.StringIO(analyst.exports()))
    assert float(row["seconds_before_auto_stop"]) == -19.5


# Many rows


def many(number: int) -> str:
    """A statement that puts so many rows into the ledger."""
    return (
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, request_id)"
        f" WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {number})"
        " SELECT 'task-' || (n / 2), 'asr', 'a room of some length', 'empty_room', 'stopped', 'host/1', '123456' FROM s"
    )


class Nowhere(io.RawIOBase):
    """Takes everything, and remembers how much at once."""

    def __init__(self) -> None:
        self.most = self.total = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.most = max(self.most, len(data))
        self.total += len(data)
        return len(data)


def peak_of(pages: Iterator[Sequence[Row]], columns: Sequence[str]) -> tuple[int, int, Nowhere]:
    """Export into nothing: rows, the most memory that was in use, and what was written."""
    target = Nowhere()
    tracemalloc.start()
    try:
        written = write(target, FORMS["jsonl"], columns, pages)  # type: ignore[arg-type]  # raw is enough
        return written, tracemalloc.get_traced_memory()[1], target
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_history(analyst: Analyst) -> None:
    number = 30_000
    analyst.application.execute(many(number))
    engine = open_engine(analyst.application.url)
    # What is imported and compiled once is not counted.
    next(exports.ledger(engine, None, None))
    next(exports.history(engine, None, None))
    for read, columns, expected in (
        (exports.ledger, exports.LEDGER_COLUMNS, number),
        (exports.history, exports.HISTORY_COLUMNS, number // 2 + 1),
    ):
        written, peak, target = peak_of(read(engine, None, None), columns)
        assert written == expected
        assert target.total > 5_000_000
        assert target.most < 500_000
        assert peak < 5_000_000
    engine.dispose()


def test_no_transaction_is_open_while_the_reader_is_slow(analyst: Analyst) -> None:
    analyst.application.execute(many(2000))
    engine = open_engine(analyst.application.url)
    for read in (exports.ledger, exports.history):
        pages = read(engine, None, None)
        next(pages)
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # QueuePool's
    engine.dispose()


def test_a_ledger_that_goes_on_meanwhile_is_told_as_of_the_beginning(world: World) -> None:
    store = world.app
    insert = (
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
        " VALUES (?, 'asr', 'room', 'empty_room', 'retry', 'host/1')"
    )
    for number in range(exports.PAGE + 10):
        store.execute(insert, f"task-{number}")
    pages = exports.history(world.engine, None, None)
    seen = [row["task_id"] for row in next(pages)]
    # One that has been told, one that has not been, and one that is new.
    for task in ("task-0", f"task-{exports.PAGE + 5}", "new"):
        store.execute(insert, task)
    store.execute("DELETE FROM zego_stop_attempts WHERE task_id = ?", f"task-{exports.PAGE + 6}")
    seen += [row["task_id"] for page in pages for row in page]
    assert sorted(seen) == sorted(f"task-{n}" for n in range(exports.PAGE + 10) if n != exports.PAGE + 6)


# Files


def test_a_file_is_written_whole_and_its_rows_are_counted(analyst: Analyst, tmp_path: Path) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00")
    target = tmp_path / "history.csv"
    old = os.umask(0o022)
    try:
        result = analyst.types("export", "--output", str(target))
    finally:
        os.umask(old)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"1 row in {target}\n"
    assert len(target.read_text().splitlines()) == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if "history" in path.name) == ["history.csv"]


def test_an_existing_file_is_overwritten_only_on_request_and_keeps_its_mode(analyst: Analyst, tmp_path: Path) -> None:
    target = tmp_path / "history.csv"
    target.write_text("of yesterday")
    target.chmod(0o640)
    refused = analyst.types("export", "--output", str(target))
    assert (refused.exit_code, "--force" in refused.stderr, target.read_text()) == (1, True, "of yesterday")
    assert analyst.types("export", "--output", str(target), "--force").exit_code == 0
    assert target.read_text().startswith("task_id,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


HARMFUL = "a\x1b[31m\x9b\u202eb\U000e0001"


def test_what_a_terminal_obeys_is_replaced_in_csv_and_escaped_in_json(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00", room_id=HARMFUL, message="会议室\r\n\tend")
    text = analyst.exports("--format", "jsonl")
    assert text.rstrip("\n").isprintable()
    assert "会议室" in text
    assert json.loads(text)["room_id"] == HARMFUL, "exact for programs"
    for words in ([], ["--spreadsheet"]):
        _, row = csv.reader(io.StringIO(analyst.exports(*words), newline=""))
        assert row[1] == "a\ufffd[31m\ufffd\ufffdb\ufffd"
        assert row[7] == "会议室\r\n\tend"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("1920370518175780864", '="1920370518175780864"'),
        ("007", '="007"'),
        ("3-4", '="3-4"'),
        ('=HYPERLINK("x")', '="=HYPERLINK(""x"")"'),
        ("r" * 300, "r" * 300),
    ],
)
def test_ids_survive_a_spreadsheet_on_request(analyst: Analyst, value: str, cell: str) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00", room_id=value, message="7")
    titles, row = csv.reader(io.StringIO(analyst.exports("--spreadsheet")))
    assert (titles[1], row[0], row[1], row[7]) == ("room_id", '="t1"', cell, "7")
    assert analyst.types("export", "--spreadsheet", "--format", "jsonl").exit_code == 2


def test_a_link_leads_to_the_file_that_is_written(analyst: Analyst, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere" / "real.csv")
    analyst.exports("--output", str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "elsewhere" / "real.csv").read_text().startswith("task_id,")


def test_an_export_that_fails_half_way_leaves_what_was_there(analyst: Analyst, tmp_path: Path) -> None:
    analyst.application.execute(many(5000))
    target = tmp_path / "history.csv"
    target.write_text("of yesterday")
    # More than this process may write.
    limited = f"ulimit -f 64; exec {sys.executable} -m watchdog history export --attempts --force --output {target}"
    ended = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limited}"],
        env=os.environ | analyst.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"zego-watchdog: --output {target}: File too large; choose another place\n"
    assert target.read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("/dev/null", "this is not a regular file"),
        ("missing/history.csv", "No such file or directory; choose another place"),
    ],
)
def test_what_cannot_be_written_is_said(analyst: Analyst, output: str, said: str) -> None:
    result = analyst.types("export", "--output", output)
    assert result.exit_code == 1
    assert f"--output {output}: {said}" in result.stderr
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_reader_that_leaves_early_is_no_error(analyst: Analyst, form: str) -> None:
    analyst.application.execute(many(5000))
    piped = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m watchdog history export --format {form} | head -n 1"],
        env=os.environ | analyst.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len(piped.stdout.splitlines()) == 1
    assert piped.stderr == ""


@pytest.mark.parametrize("words", [["history", "export"], ["history"], ["tasks", "--json"], ["version"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_finds_no_room_is_a_failure_in_one_line(
    analyst: Analyst, words: list[str], unbuffered: str
) -> None:
    attempt(analyst.application, "t1", "2026-03-01 12:00:00")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "watchdog", *words],
            env=os.environ | analyst.environment | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == "zego-watchdog: cannot write the output: No space left on device\n"


def test_a_standard_output_that_is_closed_is_a_failure_in_one_line(analyst: Analyst) -> None:
    ended = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m watchdog version >&-"],
        env=os.environ | analyst.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("zego-watchdog: standard output is closed")
    assert ended.stderr.count("\n") == 1


# The command


def test_history_itself_is_as_it_was(analyst: Analyst) -> None:
    attempt(analyst.application, "t1", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"))  # noqa: TID251 - a row of just now
    assert [row["task_id"] for row in json.loads(analyst.types("--json", "--limit", "1").stdout)] == ["t1"]
    assert analyst.types("--since", "1h", "--outcome", "stopped", "--task", "t1", "--room", "room").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "1d", "export"],
        ["--json", "export"],
        ["--limit", "5", "export"],
        ["--task", "t", "export"],
        ["export", "--format", "xml"],
        ["export", "--since", "noon"],
        ["export", "--until", "2026-13-01"],
        ["exprot"],
    ],
)
def test_wrong_usage_is_2(analyst: Analyst, words: list[str]) -> None:
    assert analyst.types(*words).exit_code == 2


def test_the_configuration_may_be_named_in_any_place(analyst: Analyst) -> None:
    named = ["--config", str(analyst.file)]
    for words in (
        [*named, "history", "export"],
        ["history", *named, "export"],
        ["history", "export", *named],
    ):
        result = CliRunner().invoke(app, words, env={"ZEGO_WATCHDOG_CONFIG": "missing.yaml"})
        assert result.exit_code == 0, result.output


def test_help_says_what_for_then_how_then_everything_else() -> None:
    shown = CliRunner().invoke(app, ["history", "export", "--help"], env={"COLUMNS": "80"})
    purpose, examples, options = (shown.stdout.index(part) for part in ("\n\n  ", "  Examples:\n", "Options:\n"))
    assert purpose < examples < options
    assert max(map(len, shown.stdout.splitlines())) <= 90
