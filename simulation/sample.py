"""The sample of a report: what happened in a simulation, and the page and the picture of it.

``python -m simulation.sample`` simulates, for a minute, and writes all three. With ``draw``, it only draws again
what was found: after a change of the page. Chromium makes the picture; without it, only the page is written.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from simulation.run import Scenario, simulate
from watchdog.core.model import Outcome
from watchdog.report.page import render
from watchdog.report.returns import return_curve
from watchdog.report.sections import ReturnCurve
from watchdog.store.reports.report import CodeCount, EmptyRoom, Findings, Savings, findings

ROOT: Final = Path(__file__).parent.parent
FOUND: Final = ROOT / "simulation/sample.json"
PAGE: Final = ROOT / "docs/report-sample.html"
PICTURE: Final = ROOT / "docs/images/report.png"
# Outages so long that ZEGO's own auto-stop comes first, and rooms that are left often: no section is empty.
SCENARIO: Final = Scenario(seed=1, rooms=60, hours=2, returning=5, outage_seconds=(150, 350))


@dataclass(frozen=True, slots=True)
class Sample:
    """What a report is made of."""

    findings: Findings
    curve: ReturnCurve

    def page(self) -> str:
        return render(self.findings, "en", self.curve)


def simulated() -> Sample:
    """Simulate, and return what a report of the whole run shows. Raises ValueError if a section would be empty."""
    collected: list[Findings] = []

    def collect(engine: sa.Engine) -> None:
        collected.append(findings(engine, timedelta(days=1)))

    curve = return_curve(simulate(SCENARIO, collect).spells)
    if curve is None or not collected[0].windows:
        raise ValueError("the simulation has too few spells, or no task that ZEGO ended")
    return Sample(collected[0], curve)


def as_json(sample: Sample) -> str:
    """Return a sample as text; ``from_json`` reads it."""
    found = sample.findings
    values = asdict(found) | {"outcomes": [[*key, number] for key, number in sorted(found.outcomes.items())]}
    return json.dumps(values | {"curve": asdict(sample.curve)}, indent=1, default=str) + "\n"


def from_json(text: str) -> Sample:
    values: dict[str, Any] = json.loads(text)
    curve = values.pop("curve")
    return Sample(_findings(values), ReturnCurve(curve["spells"], [tuple(step) for step in curve["steps"]]))


def _findings(values: dict[str, Any]) -> Findings:
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
    PAGE.write_text(from_json(FOUND.read_text(encoding="utf-8")).page(), encoding="utf-8")
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
