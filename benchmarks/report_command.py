"""What ``zego-watchdog report`` takes with a long ledger: time, and the most memory that its process held."""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.commands import environment
from benchmarks.databases import Database

PERIODS: Final = ("7d", "366d")
"""The default, and the whole of the ledger of ``databases.fill_ledger``."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One report: seconds, the most resident memory in bytes, and the size of its file."""

    period: str
    seconds: float
    memory_bytes: int
    file_bytes: int


def measure(database: Database) -> list[Measured]:
    """Write a report of each period, after one that is not counted."""
    found = [_measure(period, environment(database)) for period in (PERIODS[0], *PERIODS)]
    return found[1:]


def _measure(period: str, variables: Mapping[str, str]) -> Measured:
    with tempfile.TemporaryDirectory(prefix="zego-bench-") as folder:
        file = Path(folder) / "report.html"
        program = str(Path(sys.executable).parent / "zego-watchdog")
        began = perf_counter()
        pid = os.posix_spawn(program, [program, "report", "--html", str(file), "--since", period], variables)
        # Of this child alone; resource.getrusage would have the largest of all children.
        _, status, used = os.wait4(pid, 0)
        seconds = perf_counter() - began
        if code := os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"zego-watchdog report --since {period} failed with exit code {code}")
        return Measured(period, seconds, used.ru_maxrss * 1024, file.stat().st_size)
