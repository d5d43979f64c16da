"""``make soak SECONDS=600``: everything that looks for faults by chance, with new chances, for as long as wished.

Each driver of ``DRIVERS`` has its part of the time, and says how much it did and what it did it with. The first that
finds something ends the soak with what is needed to play it again. The process must not grow: its memory, descriptors
and threads are printed at the beginning and at the end of each.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Final

from tests.faults.soak import Usage, daemons
from tests.invariants.database import sqlite_driver
from tests.invariants.machine import Tally
from tests.invariants.test_invariants import play
from watchdog.clock import SystemClock

_EXAMPLES_AT_ONCE: Final = 10


def invariants(seconds: float) -> Iterator[str]:
    """The machine of tests/invariants on SQLite; says from time to time how far it is. A failure shows its blob."""
    clock = SystemClock()
    began, total = clock.monotonic(), Tally()
    with tempfile.TemporaryDirectory() as folder, sqlite_driver(Path(folder)) as driver:
        while clock.monotonic() - began < seconds:
            seed = SystemRandom().getrandbits(32)
            total.merge(play(driver, _EXAMPLES_AT_ONCE, seed=seed))
            rate = total.examples / (clock.monotonic() - began)
            yield (
                f"{total.examples} examples, {rate:.1f} a second, {total.steps} steps,"
                f" {total.faults} faults, {total.requests} requests, {total.stops} stops,"
                f" {total.virtual_seconds / 3600:.1f} h of virtual time; {Usage.of(os.getpid())}"
            )
    yield f"outcomes: {dict(sorted(total.outcomes.items()))}"


DRIVERS: Final[Sequence[tuple[str, Callable[[float], Iterator[str]]]]] = (
    ("invariants", invariants),
    ("daemons", daemons),
)
"""Each takes its share of the seconds and yields lines of progress; it raises what it finds."""


@contextmanager
def measured(name: str) -> Iterator[None]:
    print(f"{name}: begins with {Usage.of(os.getpid())}", flush=True)  # noqa: T201 - this is what it is for
    try:
        yield
    finally:
        print(f"{name}: ends with {Usage.of(os.getpid())}", flush=True)  # noqa: T201 - the same


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Play by chance, for a long time.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, for all drivers together")
    seconds = parser.parse_args(arguments).seconds
    # Fresh chances: nothing is the same each time here.
    os.environ.pop("CI", None)
    for name, driver in DRIVERS:
        with measured(name):
            for line in driver(seconds / len(DRIVERS)):
                print(f"{name}: {line}", flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    main(sys.argv[1:])
