"""The benchmark runs on both databases and with every installed peer; its document has a place for every part."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import callbacks, charts, contenders, events, interference, lateness, pace, parts, report, rooms, spells
from benchmarks.exodus import LIMITS
from benchmarks.parts import FULL, PARTS, SMALL
from benchmarks.peers import receiver
from benchmarks.rooms import What
from tests.support.tools import needs
from watchdog.clock import SystemClock
from watchdog.core.webhook import Result, payload
from watchdog.webhook.client import Target, WebhookClient

ROOT = Path(__file__).parents[2]
SCALE = [
    "sweep, nothing due",
    "its statement alone",
    "sweep, 10 newly empty planned",
    "sweep, 5 due claimed",
    "sweep, nothing due, after those",
    "hint for one room, alone",
    "hint for one room, alone, a second",
    "hint for one room, of 10 at once",
    "hint for one room, of 10 at once, a second",
    "table, bytes per task",
    "indexes, bytes per task",
    "idle daemon, of one core",
    "a bare event loop, woken once a second",
    "idle daemon, resident memory",
]
COMPETITORS = [
    pytest.param(name, marks=needs("redis-server") if name == "celery" else ()) for name in contenders.ENTRIES
]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def rows(table: str) -> list[list[str]]:
    """Of the tables, what is below a header."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    rules = [index for index, row in enumerate(cells) if row[0] == "---"]
    return [row for index, row in enumerate(cells) if index not in rules and index + 1 not in rules]


def measured(*arguments: str) -> list[list[str]]:
    done = bench(*arguments, "--size", "small")
    assert done.returncode == 0, done.stderr
    return rows(done.stdout)


@pytest.mark.parametrize("name", COMPETITORS)
def test_every_contender_stops_what_it_should_and_nothing_else(name: str) -> None:
    (row,) = measured("lateness", "--contenders", name)
    assert row[0] == contenders.ENTRIES[name].name
    *late, wrong, left, cpu, memory = row[1:]
    assert all(re.fullmatch(r"-?[\d,]+\.\d ms", one) for one in late)
    assert left == "0"
    assert wrong == "0" or contenders.ENTRIES[name].is_peer
    assert re.fullmatch(r"\d+\.\d\d s", cpu)
    assert re.fullmatch(r"\d+ MB", memory)


def test_contenders_stop_all_at_once() -> None:
    names = ["sqlite", "apscheduler", "procrastinate"]
    found = measured("exodus", "--contenders", ",".join(names))
    assert len(found) == len(SMALL.exodus) * (len(LIMITS) + len(names))
    for row in found:
        assert float(row[1].replace(",", "")) > 0
        assert row[4:6] == ["0", "0"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_scale_compares_two_sizes(database: str) -> None:
    found = measured("scale", "--databases", database)
    assert [row[0] for row in found] == SCALE
    for row in found:
        assert len(row) == 2 + len(SMALL.tasks)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_callbacks_stand_beside_stops(database: str) -> None:
    done = bench("callbacks", "--databases", database, "--size", "small")
    assert done.returncode == 0, done.stderr
    (rate, times, share) = re.findall(
        r"60 connections: ([\d,]+) a second\. .*\*\*([\d.]+) times\*\* as many.* reaches \*\*(\d+)%", done.stdout
    )[0]
    assert min(float(number.replace(",", "")) for number in (rate, times, share)) > 0
    stops = [int(re.findall(r"\((\d+)\)", row[0])[0]) for row in rows(done.stdout)[1:]]
    assert stops == [10, 10], "a stop was lost under the load"


def test_without_a_single_stop_the_callbacks_have_a_table() -> None:
    lines = list(parts.callbacks_table(callbacks.Measured(1.0, 1.0, 1.0, 1.0, [0.1], 0, [0.002, 0.004], [])))
    assert lines[-2:] == [
        "| stop, due to arrived, in silence (2) | 3.0 ms | 4.0 ms | 4.0 ms |",
        "| stop, due to arrived, meanwhile (0) | – | – | – |",
    ]


@pytest.mark.parametrize(
    ("late", "missing", "verdict"),
    [([0.001] * 99 + [0.02], 0, "reached"), ([0.001] * 99 + [0.021], 0, "**missed**"), ([0.001], 1, "**missed**")],
)
def test_a_disturbance_reaches_its_target_or_misses_it(late: list[float], missing: int, verdict: str) -> None:
    row = parts.disturbed_row(interference.Measured("scrapes", late, missing, "100 pages"))
    assert row[0] == "scrapes"
    assert row[4:] == [str(len(late)), str(missing), verdict, "100 pages"]


def test_a_disturbance_that_lets_nothing_through_misses_its_target() -> None:
    row = parts.disturbed_row(interference.Measured("flood", [], 20, "–"))
    assert row == ["flood", "–", "–", "–", "0", "20", "**missed**", "–"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_events_are_delivered_and_an_exodus_is_measured_with_and_without(database: str) -> None:
    found = measured("events", "--databases", database)
    figures, exodus = found[: -len(events.MODES)], found[-len(events.MODES) :]
    by_name = dict(figures)
    for name in ("backlog delivered, a second", "written, a second", "delivered, a second"):
        assert float(by_name[name].replace(",", "")) > 0
    assert by_name["not delivered, delivered twice"] == "0, 0"
    assert [name for name in by_name if name.startswith("claim with nothing pending")] == [
        row[0] for row in figures[-3:]
    ]
    assert [(row[0], row[4:]) for row in exodus] == [(name, ["0", "0"]) for name in events.MODES.values()]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_hints_are_compared_with_and_without_the_triggers_of_spells(database: str) -> None:
    found = measured("spells", "--databases", database)
    assert [row[0] for row in found] == list(spells.MEASURES)
    for _, without, having, lost in found:
        assert min(float(number.replace(",", "")) for number in (without, having)) > 0
        assert re.fullmatch(r"-?\d+\.\d%", lost)


ANSWERS = {
    "takes": Result.DELIVERED,
    "hangs": Result.NO_ANSWER,
    "answers 500": Result.REFUSED,
    "answers 410": Result.SUSPENDED,
    "redirects": Result.REFUSED,
    "sends 1 GB": Result.DELIVERED,
    "drips": Result.NO_ANSWER,
}


@pytest.mark.parametrize("how", receiver.BEHAVIOURS)
async def test_a_receiver_behaves_as_its_row_says_and_keeps_what_it_got(how: str) -> None:
    at = datetime(2026, 11, 30, 6, tzinfo=UTC)
    async with events.receiver(how) as running:
        client = WebhookClient(Target(running.url, (b"k" * 24,), timeout_seconds=0.3), SystemClock())
        for webhook_id in ("first", "second"):
            verdict = await client.post(webhook_id, payload("task.stopped", at, {}))
            assert verdict.result is ANSWERS[how]
        await client.aclose()
        found = await events.received(running.url)
    assert [one[:2] for one in found] == [("first", at.timestamp()), ("second", at.timestamp())]


def test_pace_counts_what_the_vendor_refuses() -> None:
    ((name, used, stops, *throttled),) = measured("pace", "--databases", "sqlite")
    assert name == "zego-watchdog, SQLite: 20 a second"
    assert 0 < float(used.rstrip("%")) < 110
    assert stops == "60"
    assert all(one.isdecimal() for one in throttled)


def test_several_daemons_stop_nothing_twice() -> None:
    found = measured("daemons")
    assert [(row[0], row[3], row[4]) for row in found] == [("1 daemon", "0", "0"), ("2 daemons", "0", "0")]


def test_commands_are_timed() -> None:
    found = measured("commands", "--databases", "sqlite")
    assert [row[0] for row in found] == ["`--help`", "`status`", "`history`", "`history --json`"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_report_is_timed_and_its_memory_measured(database: str) -> None:
    read: list[list[str]] = []
    found: list[list[str]] = []
    for row in measured("report", "--databases", database):
        (found if "`--since" in row[0] else read).append(row)
    assert [row[0].partition(", ")[2] for row in found] == ["`--since 7d`", "`--since 366d`"]
    assert {"overview: now", "tasks: empty", "history", "history of a room", "a task that has ended"} <= {
        row[0] for row in read
    }
    assert all(re.fullmatch(r"[\d.]+ (µs|ms|s)", cell) for row in read for cell in row[1:]), read
    for _, seconds, memory, file in found:
        assert re.fullmatch(r"\d+\.\d s", seconds)
        assert 30 < int(memory.removesuffix(" MB")) < 150
        assert int(file.removesuffix(" kB")) > 10


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["scale", "--databases", "sqlite,oracle"], "--databases: oracle is not one of sqlite, postgresql"),
        (["lateness", "--contenders", "cron"], "--contenders: cron is not one of sqlite, postgresql, script"),
        (["speed"], "PART: speed is not one of lateness, exodus"),
    ],
)
def test_it_refuses_what_it_cannot_measure(arguments: list[str], complaint: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_the_script_of_the_rooms_is_the_same_every_time() -> None:
    def script(seed: int) -> list[rooms.Move]:
        return rooms.script(rooms=200, seconds=10, grace_seconds=3, refill=0.1, seed=seed)

    moves = script(1)
    assert moves == script(1) != script(2)
    emptied = {move.room: move.at for move in moves if move.what is What.EMPTIES}
    back = {move.room: move.at for move in moves if move.what is What.REFILLS}
    assert len(emptied) == 200
    assert len(back) == 20
    assert all(emptied[room] <= at <= emptied[room] + 3 for room, at in back.items())


def test_lateness_is_by_the_sandboxs_log_alone() -> None:
    def entry(event: str, room: str, at: float, **more: object) -> rooms.Event:
        return {"event": event, "room_id": room, "at": at, **more}

    def stop(room: str, at: float, *, accepted: bool = True) -> rooms.Event:
        return entry("stop_requested", room, at + 1, received_at=at, accepted=accepted)

    log = [
        entry("leave", "a", 100.0, people=0),
        entry("leave", "b", 101.0, people=0),
        entry("join", "b", 105.0, people=1),
        entry("leave", "c", 102.0, people=0),
        stop("a", 109.0, accepted=False),
        stop("a", 110.5),
        stop("b", 111.0),
        stop("c", 112.25),
    ]
    assert lateness.lateness(log, 10) == [0.25, 0.5]


def test_utilisation_is_of_the_steady_state() -> None:
    # Ten at once, then one every 0.2 s: the first second does not count.
    stops = [{"received_at": 0.0}] * 10 + [{"received_at": number / 5} for number in range(1, 51)]
    assert pace.utilisation(stops, 10) == pytest.approx(0.5)


def test_plots_are_the_same_for_the_same_figures() -> None:
    late = [("a <b>", [0.001 * number for number in range(1, 100)]), ("c", [5.0])]
    plot = charts.distributions("title", "ms", late)
    assert plot == charts.distributions("title", "ms", late)
    assert "a &lt;b&gt;" in plot
    assert charts.bars("title", "/s", [("a", 10.0), ("b", 0.0)]).count("<rect") == 3


def test_a_part_is_written_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n<!-- pace: begin -->\nold\n<!-- pace: end -->\nafter\n")
    report.write(document, "pace", report.Section(["new"], {"plot.svg": "<svg/>"}))
    assert document.read_text() == (
        "before\n<!-- pace: begin -->\nnew\n\n![pace](plot.svg)\n<!-- pace: end -->\nafter\n"
    )
    assert (tmp_path / "plot.svg").read_text() == "<svg/>"
    with pytest.raises(ValueError, match="no place for scale"):
        report.write(document, "scale", report.Section([]))


def test_the_document_has_a_place_for_every_part() -> None:
    document = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- (\w+): begin -->", document) == list(PARTS)
    assert re.findall(r"<!-- (\w+): end -->", document) == list(PARTS)
    assert max(FULL.tasks) == FULL.attempts == 1_000_000


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_migration_beside_an_application_that_writes(database: str) -> None:
    ((name, seconds, longest, statements),) = measured("migration", "--databases", database)
    assert name
    assert float(seconds.removesuffix(" s")) > 0
    assert longest.split()[1] in {"s", "ms", "µs"}
    assert int(statements.replace(",", "")) >= 1
