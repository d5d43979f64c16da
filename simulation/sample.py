"""The sample of a report: what happened in a simulation, and the page and the picture of it.

``python -m simulation.sample`` simulates, which takes minutes, and writes all three. With ``draw``, it only draws again
what was found: after a change of the page. Chromium makes the picture; without it, only the page is written.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from simulation.run import Scenario, simulate
from watchdog.core.model import Outcome
from watchdog.report.page import render
from watchdog.store.reports.report import CodeCount, EmptyRoom, Findings, Savings, findings

ROOT: Final = Path(__file__).parent.parent
FOUND: Final = ROOT / "simulation/sample.json"
PAGE: Final = ROOT / "docs/report-sample.html"
PICTURE: Final = ROOT / "docs/images/report.png"
SCENARIO: Final = Scenario(seed=1, rooms=120, hours=6)


def simulated() -> Findings:
    """Simulate, and return what a report of the whole run shows."""
    collected: list[Findings] = []

    def collect(engine: sa.Engine) -> None:
        collected.append(findings(engine, timedelta(days=1)))

    simulate(SCENARIO, collect)
    return collected[0]


def as_json(found: Findings) -> str:
    """Return findings as text; ``from_json`` reads it."""
    values = asdict(found) | {"outcomes": [[*key, number] for key, number in sorted(found.outcomes.items())]}
    return json.dumps(values, indent=1, default=str) + "\n"


def from_json(text: str) -> Findings:
    values: dict[str, Any] = json.loads(text)
    for name in ("late", "early", "windows", "windows_off", "returns"):
        values[name] = {int(value): number for value, number in values[name].items()}
    return Findings(
        **values
        | {
            "now": datetime.fromisoformat(values["now"]),
            "since": datetime.fromisoformat(values["since"]),
            "outcomes": {(start, Outcome(outcome)): number for start, outcome, number in values["outcomes"]},
            "codes": [CodeCount(**each) for each in values["codes"]],
            "savings": [Savings(**each) for each in values["savings"]],
            "longest": [_room(each) for each in values["longest"]],
        }
    )


def _room(each: Mapping[str, Any]) -> EmptyRoom:
    outcome = None if each["outcome"] is None else Outcome(each["outcome"])
    return EmptyRoom(**{**each, "outcome": outcome, "empty_since": datetime.fromisoformat(each["empty_since"])})


def draw() -> None:
    """Write the page, and its picture if Chromium is installed."""
    PAGE.write_text(render(from_json(FOUND.read_text(encoding="utf-8")), "en"), encoding="utf-8")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write(f"{PAGE.name} is written; its picture needs Chromium: apt install chromium\n")
        return
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        command = [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
        # Nothing may be loaded, and the picture is light whatever the desktop is.
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--blink-settings=preferredColorScheme=1"]
        command += ["--window-size=1000,1150", f"--screenshot={PICTURE}", PAGE.as_uri()]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - found there


if __name__ == "__main__":
    if sys.argv[1:] != ["draw"]:
        FOUND.write_text(as_json(simulated()), encoding="utf-8")
    draw()
