"""What is a problem, how bad it is, and that each has its texts."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulation.virtual import START
from tests.page.conftest import QUIET
from watchdog.core.model import Mode, Outcome
from watchdog.page import english
from watchdog.page import problems as module
from watchdog.page.problems import Level, problems
from watchdog.store.records import EventCounts
from watchdog.store.reports.glance import Glance, Lately
from watchdog.store.reports.health import DaemonRow
from watchdog.store.reports.situation import Returns, Windows

ALIVE = DaemonRow("a", "host", 1, "1.0", "enforce", START, START, START, 0, 0, None, None, None, alive=True)
WELL = Glance(START, [ALIVE], [], 0, [], EventCounts(START, 0, 0, None))
CALM = Lately({Outcome.STOPPED: 7}, Returns(7, 0), None)


def names(live: dict[str, Any] | None = None, now: dict[str, Any] | None = None, **lately: Any) -> list[str]:
    found = problems(replace(QUIET, **(live or {})), replace(WELL, **(now or {})), replace(CALM, **lately))
    return [problem.name for problem in found]


def test_nothing_is_wrong() -> None:
    assert names() == []
    assert problems(QUIET, WELL, None) == []


@pytest.mark.parametrize(
    ("live", "now", "lately", "expected"),
    [
        ({"database_trouble": "no right", "sweeps": False}, {}, {}, "database"),
        ({"sweeps": False}, {}, {}, "sweeps"),
        ({"feed_is_dead": True}, {}, {}, "feed"),
        ({"webhook_problem": "fails"}, {}, {}, "webhook"),
        ({"reload_problem": "refused"}, {}, {}, "reload"),
        ({"too_old": 2}, {}, {}, "too_old"),
        ({"unanswered": (7, 8)}, {}, {}, "unanswered"),
        ({}, {"daemons": []}, {}, "no_daemon"),
        ({}, {"daemons": [replace(ALIVE, alive=False)]}, {}, "no_daemon"),
        ({}, {"daemons": [replace(ALIVE, guard_tripped_at=START, guard_held=3)]}, {}, "guard"),
        ({}, {"blocked_apps": [1, 2]}, {}, "blocked"),
        ({}, {"daemons": [ALIVE, replace(ALIVE, mode="observe")]}, {}, "modes"),
        ({}, {"events": EventCounts(START, 5, 2, START)}, {}, "undelivered"),
        ({}, {}, {"outcomes": {Outcome.AUTO_STOPPED: 1}}, "missed"),
        ({}, {}, {"outcomes": {Outcome.REJECTED: 1}}, "rejected"),
        ({}, {}, {"windows": Windows(3, 110.0, 120.0, 30.0)}, "faster"),
        ({}, {}, {"returns": Returns(10, 1)}, "returned"),
    ],
)
def test_each(live: dict[str, Any], now: dict[str, Any], lately: dict[str, Any], expected: str) -> None:
    assert names(live, now, **lately) == [expected]


def test_in_observe_mode_zego_ends_every_task() -> None:
    assert names({"mode": Mode.OBSERVE}, outcomes={Outcome.AUTO_STOPPED: 4}) == []


def test_the_worst_comes_first() -> None:
    found = problems(replace(QUIET, webhook_problem="x"), replace(WELL, daemons=[]), CALM)
    assert [problem.level for problem in found] == [Level.BAD, Level.WARN]


def test_each_has_both_texts() -> None:
    calls = [
        str(node.args[0].value)
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Problem" and isinstance(node.args[0], ast.Constant)
    ]
    assert len(calls) == len(set(calls)) > 10
    texts = {key for key in english.TEXTS if key.startswith(("problem.", "step."))}
    assert texts == {f"{kind}.{name}" for name in calls for kind in ("problem", "step")}
