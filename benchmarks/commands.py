"""How long a command takes, from the shell's point of view, with a long ledger behind it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.databases import Database

COMMANDS: Final = (("--help",), ("status",), ("history",), ("history", "--json"))


@dataclass(frozen=True, slots=True)
class Measured:
    """The seconds of every run of one command."""

    command: str
    seconds: Sequence[float]


def measure(database: Database, repeats: int) -> list[Measured]:
    """Run each command so many times, after one run that is not counted."""
    variables = environment(database)
    return [Measured(" ".join(command), _times(command, variables, repeats)) for command in COMMANDS]


def environment(database: Database) -> dict[str, str]:
    """The environment in which a command works on ``database``."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ZEGO_WATCHDOG_")}
    variables["ZEGO_WATCHDOG_DATABASE__URL"] = database.engine.url.render_as_string(hide_password=False)
    # Not our own configuration, should there be one where we are; and one that needs no AppId.
    return variables | {"ZEGO_WATCHDOG_CONFIG": os.devnull, "ZEGO_WATCHDOG_POLICY__MODE": "observe"}


def _times(command: Sequence[str], variables: dict[str, str], repeats: int) -> list[float]:
    program = Path(sys.executable).parent / "zego-watchdog"
    seconds = []
    for _ in range(repeats + 1):
        began = perf_counter()
        done = subprocess.run(  # noqa: S603 - our own program
            [program, *command], env=variables, capture_output=True, text=True, check=False
        )
        seconds.append(perf_counter() - began)
        # 1: status has found something to say; nobody watches this database.
        if done.returncode not in {0, 1} or "Traceback" in done.stderr:
            raise RuntimeError(f"zego-watchdog {' '.join(command)} failed: {done.stderr}")
    return seconds[1:]
