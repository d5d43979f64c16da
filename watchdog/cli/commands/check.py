"""``check``."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

from watchdog.cli.checks.examine import examine
from watchdog.cli.checks.findings import exit_code
from watchdog.cli.view.findings import print_findings
from watchdog.cli.view.output import show_json
from watchdog.clock import SystemClock


def check_all(path: Path | None, *, as_json: bool, offline: bool) -> int:
    """Print all findings; return the exit code."""
    found = asyncio.run(examine(path, os.environ, SystemClock(), offline=offline))
    if as_json:
        show_json([asdict(finding) for finding in found])
    else:
        print_findings(found)
    return exit_code(found)
