"""Row 37, in short; ``make soak SECONDS=1200`` goes on for longer."""

from tests.faults.harness import Stage, fault
from tests.faults.soak import HALTS_SECONDS, WARM_UP_ROUNDS, Soak


@fault(37, "a random mix of faults", halts=HALTS_SECONDS)
async def test_a_random_mix_of_faults(stage: Stage) -> None:
    soak = Soak(stage, seed=7)
    await soak.begin()
    for _ in range(WARM_UP_ROUNDS + 2):
        await soak.round()
    soak.verdict()
