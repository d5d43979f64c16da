"""The benchmark still runs, on both databases, and its tables have in them what docs/benchmarks.md shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEASURED = [
    "sweep, nothing due",
    "its statement alone",
    "sweep, 5 planned and claimed",
    "sweep, nothing due, after those",
    "hint for one room",
    "table, bytes per task",
    "indexes, bytes per task",
]

LATENCIES = ["callback, sent to answered", "stop, due to sent, in silence", "stop, due to sent, meanwhile"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize(("database", "title"), [("sqlite", "SQLite 3."), ("postgresql", "PostgreSQL 1")])
def test_it_runs_and_compares_two_sizes(database: str, title: str) -> None:
    done = bench("--sizes", "120,240", "--databases", database, "--repeats", "2", "--due", "5", "--storm", "0")
    assert done.returncode == 0, done.stderr
    assert [line.startswith(f"## {title}") for line in done.stdout.splitlines() if line.startswith("#")] == [True]
    header, _, *measured = rows(done.stdout)
    assert header[1:] == ["120 tasks", "240 tasks", "240 : 120"]
    assert [row[0] for row in measured] == MEASURED
    for row in measured:
        spread = r"\d+" if row[0].endswith("per task") else r"[\d.]+ [µm]s \([\d.]+ [µm]s … [\d.]+ [µm]s\)"
        assert re.fullmatch(spread, row[1])
        assert re.fullmatch(spread, row[2])
        assert re.fullmatch(r"(\*\*)?\d+\.\d\d(\*\*)?", row[3])


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_measures_callbacks_beside_stops(database: str) -> None:
    tiny = ("--sizes", "20", "--databases", database, "--repeats", "1", "--due", "2")
    done = bench(*tiny, "--storm", "1")
    assert done.returncode == 0, done.stderr
    (rate, refused) = re.findall(r"Callbacks: (\d+) a second over 8 connections, (\d+) refused", done.stdout)[0]
    assert int(rate) > 0
    assert int(refused) == 0
    measured = rows(done.stdout)[-3:]
    assert [re.sub(r" \(\d+\)", "", row[0]) for row in measured] == LATENCIES
    stops = [int(re.findall(r"\((\d+)\)", row[0])[0]) for row in measured[1:]]
    assert stops == [10, 10], "a stop was lost under the load"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--databases", "sqlite,oracle"], "--databases: oracle is not one of sqlite, postgresql"),
        (["--sizes", "100,1000"], "--due: 200 is more than half of 100 tasks"),
    ],
)
def test_it_refuses_what_it_cannot_measure(arguments: list[str], complaint: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_the_document_shows_a_run_of_this_very_benchmark() -> None:
    """The document's tables name what the benchmark measures today, and hold to what it promises."""
    document = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    names = [name.replace("5 planned", "200 planned") for name in MEASURED]
    found = [row for row in rows(document) if row[0] in names]
    assert [row[0] for row in found] == 2 * names
    nothing_due = [float(row[3].strip("*")) for row in found if "nothing due" in row[0] or "statement" in row[0]]
    assert max(nothing_due) <= 1.5
    shown = [re.sub(r" \(\d+\)", "", row[0]) for row in rows(document)]
    assert [name for name in shown if name in LATENCIES] == 2 * LATENCIES
