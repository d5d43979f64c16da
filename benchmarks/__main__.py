"""The command: ``python -m benchmarks [PART…]``. The tables go to stdout, and into docs/benchmarks.md where told so."""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import contenders, report
from benchmarks.parts import FULL, HALF, KINDS, PARTS, SMALL, Chosen
from watchdog import __version__
from watchdog.clock import SystemClock

_SIZES: Final = {"small": SMALL, "half": HALF, "full": FULL}
_LIBRARIES: Final = ("APScheduler", "procrastinate", "celery", "httpx2", "SQLAlchemy", "psycopg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What the daemon does, costs, and how it compares."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; without one, all")
    parser.add_argument(
        "--size",
        choices=_SIZES,
        default="full",
        help="half: lateness, exodus, interference in half of the time; small: only to see that it works (%(default)s)",
    )
    parser.add_argument("--databases", default=",".join(KINDS), help="which databases (%(default)s)")
    parser.add_argument("--contenders", default=",".join(contenders.ENTRIES), help="who competes (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables there, and the plots beside it")
    given = parser.parse_args(arguments)
    parts = given.parts or list(PARTS)
    chosen = Chosen(given.databases.split(","), given.contenders.split(","))
    for option, words, known in (
        ("PART", parts, list(PARTS)),
        ("--databases", chosen.databases, list(KINDS)),
        ("--contenders", chosen.contenders, list(contenders.ENTRIES)),
    ):
        if unknown := [word for word in words if word not in known]:
            parser.error(f"{option}: {', '.join(unknown)} is not one of {', '.join(known)}")
    if {"lateness", "exodus"} & set(parts) and (missing := contenders.missing(chosen.contenders)):
        parser.error(
            f"{', '.join(missing)} is not installed; on Debian: apt install {' '.join(missing)}."
            " Or leave out who needs it: --contenders"
        )
    for part in parts:
        began = perf_counter()
        section = PARTS[part](_SIZES[given.size], chosen)
        section = report.Section([_circumstances(part, given.size), "", *section.lines], section.plots)
        sys.stdout.write("\n".join(["", f"## {part}", "", *section.lines, ""]))
        sys.stdout.flush()
        if given.write is not None:
            report.write(given.write, part, section)
        sys.stderr.write(f"{part}: done in {perf_counter() - began:.0f} s\n")


def _circumstances(part: str, size: str) -> str:
    """One line on what, when, where and with what."""
    moment = datetime.fromtimestamp(SystemClock().time(), UTC)
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    redis = ""
    if path := shutil.which("redis-server"):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - found there
        redis = f", Redis {(re.findall(r'v=([0-9.]+)', said.stdout) or ['?'])[0]}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"`python -m benchmarks {part} --size {size}`, {moment:%Y-%m-%d}: zego-watchdog {__version__},"
        f" Python {platform.python_version()}, {libraries}{redis}; {_processor()}, {os.cpu_count()} CPUs,"
        f" {memory:.0f} GB, Linux {platform.release().partition('-')[0]}, load {os.getloadavg()[0]:.1f} at the end."
    )


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return platform.machine() if found is None else found[1]


if __name__ == "__main__":
    main()
