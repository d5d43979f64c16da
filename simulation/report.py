"""What is printed of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simulation.run import Result, Scenario, simulate
from watchdog.core.model import Verify

COLUMNS: Final = (
    ("mode", 13),
    ("seed", 4),
    ("wrong", 5),
    ("raced", 5),
    ("missed", 6),
    ("excused", 7),
    ("left", 4),
    ("silent", 6),
    ("spared", 6),
    ("stopped", 7),
    ("mean late", 9),
    ("worst late", 10),
    ("callbacks", 9),
    ("lost", 5),
    ("speed-up", 8),
)


HEADING: Final = "  ".join(name.rjust(width) for name, width in COLUMNS)


@dataclass(frozen=True, slots=True)
class Report:
    """What is printed of one run; ``bad`` if it found a fault."""

    lines: tuple[str, ...]
    bad: bool


def report(scenario: Scenario, trace: str | None) -> Report:
    """Simulate; with ``trace`` show all that happened in that room, or in the first bad one."""
    result = simulate(scenario)
    lines = [_line(result), *result.verdict.disagreements[:5], *map(str, result.silences[:5])]
    if trace is not None:
        lines += _trace(result, trace)
    # Without verification the application's word counts, and that is sometimes wrong.
    faults = bool(result.judgement.wrong or result.judgement.missed) and scenario.verify is Verify.REQUIRED
    return Report(tuple(lines), faults or bool(result.silences) or not result.verdict.agrees)


def _line(result: Result) -> str:
    found = result.judgement
    values = (
        result.scenario.verify.value,
        result.scenario.seed,
        len(found.wrong),
        found.raced,
        len(found.missed),
        found.excused,
        len(found.left_running),
        len(result.silences),
        result.verdict.spared,
        found.stopped,
        f"{found.mean_lateness:.1f} s",
        f"{found.worst_lateness:.1f} s",
        found.callbacks_delivered,
        found.callbacks_lost,
        f"{result.speed:.0f} x",
    )
    return "  ".join(str(value).rjust(width) for value, (_, width) in zip(values, COLUMNS, strict=True))


def _trace(result: Result, room_id: str) -> Sequence[str]:
    if room_id != "fault":
        return list(result.trace(room_id))
    found = result.judgement
    faults = [*found.wrong, *found.missed, *found.left_running]
    return [str(faults[0]), *result.trace(faults[0].room_id)] if faults else []
