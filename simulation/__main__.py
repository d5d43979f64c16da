"""The command: ``python -m simulation``. One line for each mode and seed, and exit code 1 where there was a fault."""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

from simulation.report import HEADING, report
from simulation.run import Scenario
from watchdog.core.model import Verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description="Rooms for hours, in minutes.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, default=1, help="which chance (%(default)s)")
    which.add_argument("--seeds", type=_seeds, help="several, such as 1-20")
    parser.add_argument("--rooms", type=int, default=1000, help="how many rooms (%(default)s)")
    parser.add_argument("--hours", type=float, default=2.0, help="for how long, in virtual time (%(default)s)")
    parser.add_argument("--mode", choices=[*Verify, "all"], default="all", help="policy.verify (%(default)s)")
    parser.add_argument("--mixed", action="store_true", help="tasks of all kinds; otherwise of ASR alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (%(default)s)")
    parser.add_argument(
        "--trace", metavar="ROOM", help="print all that happened in a room; 'fault' for the first bad one"
    )
    given = parser.parse_args(arguments)
    _say(HEADING)
    modes = Verify if given.mode == "all" else [Verify(given.mode)]
    scenarios = [
        Scenario(seed=seed, rooms=given.rooms, hours=given.hours, verify=verify, mixed=given.mixed)
        for verify in modes
        for seed in given.seeds or [given.seed]
    ]
    bad = False
    with ProcessPoolExecutor(min(given.jobs, len(scenarios)), mp_context=get_context("spawn")) as processes:
        for done in processes.map(report, scenarios, repeat(given.trace)):
            _say(*done.lines)
            bad = bad or done.bad
    return 1 if bad else 0


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
