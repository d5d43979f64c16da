"""The pictures of the README are the program's own screens. To write them after a change, run this command.

PICTURES=write .venv/bin/python -m pytest tests/docs/test_pictures.py
"""

import io
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from watchdog import SCHEMA_VERSION, __version__
from watchdog.cli.view.status import print_status
from watchdog.config.settings import Config
from watchdog.core.model import Outcome, Status
from watchdog.demo.scenario import SCENARIO
from watchdog.demo.screen import WIDTH, draw
from watchdog.demo.snapshot import Line, Snapshot, State
from watchdog.store.records import EventCounts
from watchdog.store.reports.health import DaemonRow
from watchdog.store.reports.savings import Savings
from watchdog.store.reports.situation import Returns, Situation, Windows

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/images"
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
STOPPED = Outcome.STOPPED.value

DEMO = Snapshot(
    at=23,
    seconds=SCENARIO.seconds,
    lines=[
        Line("standup", State.IN_USE, 3, 3),
        Line("lobby", State.STOPPED, 0, outcome=STOPPED, code="0", kind="agent"),
        Line("coffee", State.IN_USE, 4, 4),
        Line("clinic", State.IN_USE, 2, 2, outcome=Outcome.SPARED.value),
        Line("lecture", State.STOPPED, 0, outcome=STOPPED, code="0"),
        Line("podcast", State.STOPPED, 0, others=1, outcome=STOPPED, code="0"),
        Line("support", State.STOPPED, 0, outcome=STOPPED, code="0"),
        Line("sales", State.RELEASED, 0),
        Line("legacy", State.UNKNOWN, auto_stop=15),
        Line("webinar", State.EMPTY, 0, due=1, auto_stop=25),
        Line("oncall", State.HELD, 0, due=5, auto_stop=16),
        Line("review", State.IN_USE, 3, 3),
        Line("quiz", State.IN_USE, 5, 5),
        Line("retro", State.IN_USE, 2, 2),
    ],
    captions=[
        (19, "podcast: stopped, Code 0"),
        (21, "support: ZEGO answers Code 206, rate limit; will retry"),
        (21, "retro: people come back within the grace period"),
        (22, "support: stopped, Code 0"),
    ],
    footing="grace 6 s, ZEGO's auto-stop 30 s; daemon 32415, SQLite, sandbox 127.0.0.1:37747",
)

DAEMON = DaemonRow(
    instance="asr-1-812-5b1f0c2e",
    host="asr-1",
    pid=812,
    version=__version__,
    mode="enforce",
    started_at=NOW - timedelta(days=9),
    watching_since=NOW - timedelta(days=9),
    seen_at=NOW - timedelta(seconds=2),
    in_flight=1,
    requests=48213,
    guard_tripped_at=None,
    guard_held=0,
    guard_released_until=None,
    alive=True,
)
STATUS = Situation(
    now=NOW,
    daemons=[DAEMON],
    by_status={Status.ACTIVE: 214, Status.STOPPED: 5120, Status.RELEASED: 20311, Status.AUTO_STOPPED: 1},
    occupied=201,
    empty=12,
    unknown=1,
    oldest_evidence_at=NOW - timedelta(seconds=17),
    longest_empty_since=NOW - timedelta(seconds=41),
    next_task_id="1920370518175780864",
    next_due_at=NOW + timedelta(seconds=4),
    latest={Outcome.STOPPED: 570, Outcome.SPARED: 12, Outcome.RETRY: 3},
    in_flight=1,
    blocked_apps=[],
    savings=Savings(stops=570, slot_seconds_freed=36_120.0, no_auto_stop=2),
    returns=Returns(watched=570, returned=0),
    windows=Windows(count=14, minimum=150.2, median=151.1, early=-1.1),
    events=EventCounts(NOW, pending=0, undelivered=0, oldest_pending_at=None),
    too_old=None,
)


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"COLUMNS": "100", "FORCE_COLOR": "1", "TERM": "xterm-256color", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def picture(name: str, screen: RenderableType, width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(screen)
    svg = console.export_svg(title=f"zego-watchdog {name}", unique_id=name)
    # A page that shows it shall ask nobody for a font.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def words_of(svg: str) -> str:
    """What there is to read; colours and places may differ with the version of the library."""
    return " ".join(" ".join(unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)).split())


def compare(name: str, svg: str) -> None:
    file = FOLDER / f"{name}.svg"
    if os.environ.get("PICTURES") == "write":
        file.write_text(svg, encoding="utf-8")
    assert words_of(file.read_text(encoding="utf-8")) == words_of(svg), "draw it again, as said above"
    assert f"docs/images/{name}.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_demo() -> None:
    assert [line.room for line in DEMO.lines] == list(SCENARIO.rooms)
    compare("demo", picture("demo", draw(DEMO, height=24), WIDTH))


@pytest.mark.usefixtures("_terminal")
def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config.model_validate(
        {
            "policy": {"mode": "enforce"},
            "database": {"url": "postgresql://zego@db/app"},
            "zego": {"apps": [{"app_id": 1, "server_secret": "0" * 32}]},
        }
    )
    print_status(config, SCHEMA_VERSION, STATUS)
    compare("status", picture("status", Text.from_ansi(capsys.readouterr().out), 100))
