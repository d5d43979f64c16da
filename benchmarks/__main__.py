"""The command: ``python -m benchmarks``. The tables go to stdout, as they stand in docs/benchmarks.md."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks import callbacks, databases, sweep
from benchmarks.databases import Database
from watchdog import __version__

_CONNECTIONS: Final = 8

KINDS: Final[dict[str, Callable[[list[int]], AbstractContextManager[tuple[str, list[Database]]]]]] = {
    "sqlite": databases.sqlite,
    "postgresql": databases.postgresql,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What a sweep costs.")
    parser.add_argument(
        "--sizes", default="1000,1000000", help="active tasks, the first is compared with (%(default)s)"
    )
    parser.add_argument("--databases", default="sqlite,postgresql", help="which databases (%(default)s)")
    parser.add_argument("--repeats", type=int, default=50, help="how often 200 tasks come due (%(default)s)")
    parser.add_argument("--due", type=int, default=200, help="how many tasks come due at once (%(default)s)")
    parser.add_argument("--storm", type=float, default=15, help="seconds of callbacks, 0 for none (%(default)s)")
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    kinds = given.databases.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--databases: {', '.join(unknown)} is not one of {', '.join(KINDS)}")
    if given.due > min(sizes) // 2:
        parser.error(f"--due: {given.due} is more than half of {min(sizes)} tasks")
    _say(f"zego-watchdog {__version__}, {_machine()}")
    for kind in kinds:
        began = perf_counter()
        _tell(f"{kind}: loading {' and '.join(f'{size:,}' for size in sizes)} tasks")
        with KINDS[kind](sizes) as (described, found):
            _tell(f"{kind}: measuring ({perf_counter() - began:.0f} s)")
            results = sweep.run(found, given.due, given.repeats)
            _say("", f"## {described}", "", *_table(found, results))
            if given.storm > 0:
                _tell(f"{kind}: callbacks ({perf_counter() - began:.0f} s)")
                _say("", *_callbacks(callbacks.measure(found[0], seconds=given.storm, connections=_CONNECTIONS)))
        _tell(f"{kind}: done ({perf_counter() - began:.0f} s)")


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"


def _table(found: Sequence[Database], results: dict[str, list[list[float]]]) -> Iterator[str]:
    first = found[0].size
    ratios = [f"{database.size:,} : {first:,}" for database in found[1:]]
    yield _row(["median (min … max)", *(f"{database.size:,} tasks" for database in found), *ratios])
    yield _row(["---", *["---:"] * (len(found) + len(ratios))])
    for name, samples in results.items():
        medians = [median(seconds) for seconds in samples]
        yield _row([name, *map(_spread, samples), *(f"**{one / medians[0]:.2f}**" for one in medians[1:])])
    for part in ("table", "indexes"):
        each = [getattr(database.on_disk, part) / database.size for database in found]
        yield _row(
            [f"{part}, bytes per task", *(f"{one:.0f}" for one in each), *(f"{one / each[0]:.2f}" for one in each[1:])]
        )


def _callbacks(measured: callbacks.Measured) -> Iterator[str]:
    rate = len(measured.answered) / measured.load_seconds
    yield f"Callbacks: {rate:.0f} a second over {_CONNECTIONS} connections, {measured.refused} refused."
    yield ""
    yield _row(["", "median", "p99", "worst"])
    yield _row(["---", *["---:"] * 3])
    for name, seconds in (
        ("callback, sent to answered", measured.answered),
        ("stop, due to sent, in silence", measured.lateness_quiet),
        ("stop, due to sent, meanwhile", measured.lateness_loaded),
    ):
        yield _row([f"{name} ({len(seconds)})", _time(median(seconds)), _time(_p99(seconds)), _time(max(seconds))])


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def _spread(seconds: Sequence[float]) -> str:
    return f"{_time(median(seconds))} ({_time(min(seconds))} … {_time(max(seconds))})"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.1f} ms"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
