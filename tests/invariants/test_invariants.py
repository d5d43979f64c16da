"""Runs the machine on SQLite and, with fewer examples, on PostgreSQL.

Under CI the examples are the same each time; otherwise they are new, and a failure names the seed. A failure shows the
calls that lead to it: keep them in ``test_regressions``.
"""

import os
from random import SystemRandom

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.invariants.database import Driver
from tests.invariants.machine import Machine, Tally

SQLITE_EXAMPLES = 30
POSTGRESQL_EXAMPLES = 5
STEPS = 30


def _same_each_time() -> bool:
    return bool(os.environ.get("CI"))


def play(driver: Driver, examples: int, *, seed: int | None = None) -> Tally:
    """Run so many examples; raise the error of the first that fails, with the calls that lead to it."""
    tally = Tally()
    machine: type[Machine] = type("Played", (Machine,), {"driver": driver, "tally": tally})
    same_each_time = seed is None and _same_each_time()
    if not same_each_time:
        seed = SystemRandom().getrandbits(32) if seed is None else seed
        print(f"the seed is {seed}")  # noqa: T201 - pytest shows it with a failure only
        machine = hypothesis.seed(seed)(machine)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=same_each_time,
        print_blob=True,
        report_multiple_bugs=False,
        # Phase.explain would run the example hundreds of times.
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=settings)
    return tally


def test_the_invariants_hold_on_sqlite(sqlite: Driver) -> None:
    tally = play(sqlite, SQLITE_EXAMPLES)
    # Otherwise the examples prove nothing.
    assert tally.stops >= SQLITE_EXAMPLES
    assert tally.faults >= SQLITE_EXAMPLES
    # New examples may miss a rare outcome: two of seven seeds had three "unknown" or fewer.
    common = {"stopped", "stopped_earlier", "unknown", "withheld"} if _same_each_time() else {"stopped"}
    assert common <= tally.outcomes.keys()


def test_the_invariants_hold_on_postgresql(postgresql: Driver) -> None:
    tally = play(postgresql, POSTGRESQL_EXAMPLES)
    assert tally.stops >= POSTGRESQL_EXAMPLES
