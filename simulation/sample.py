"""The sample of a report: ``python -m simulation.sample`` writes docs/report-sample.html and its picture.

The same program gives the same page. Chromium draws the picture; without it, only the page is written.
"""

import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from simulation.run import Scenario, simulate
from watchdog.report.page import render
from watchdog.store.reports.report import Findings, findings

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs/report-sample.html"
PICTURE: Final = ROOT / "docs/images/report.png"
SCENARIO: Final = Scenario(seed=1, rooms=150, hours=12)


def found() -> Findings:
    """Simulate, and return what a report of the whole run would show."""
    collected: list[Findings] = []

    def collect(engine: sa.Engine) -> None:
        collected.append(findings(engine, timedelta(days=1)))

    simulate(SCENARIO, collect)
    return collected[0]


def main() -> None:
    """Write both files."""
    PAGE.write_text(render(found(), "en"), encoding="utf-8")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write(f"{PAGE.name} is written; its picture needs Chromium: apt install chromium\n")
        return
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        subprocess.run(  # noqa: S603 - found there
            [
                *(chromium, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", "--window-size=1000,1150"),
                *(f"--screenshot={PICTURE}", PAGE.as_uri()),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main()
