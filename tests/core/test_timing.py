"""How long before its due time an attempt is committed, by how long commits have taken."""

import pytest

from watchdog.core.timing import COMMIT_LEAD_SECONDS, SHORTEST_COMMIT_LEAD_SECONDS, CommitLead


@pytest.mark.parametrize(
    ("took", "seconds"),
    [
        ([], SHORTEST_COMMIT_LEAD_SECONDS),
        ([0.003, 0.005], SHORTEST_COMMIT_LEAD_SECONDS),
        ([0.02], 0.04),
        ([0.02, 0.001], 0.0392),
        ([0.3], COMMIT_LEAD_SECONDS),
    ],
)
def test_the_lead_follows_the_slowest_commit_of_late(took: list[float], seconds: float) -> None:
    lead = CommitLead()
    for one in took:
        lead.note(one)
    assert lead.seconds == pytest.approx(seconds)


def test_a_slow_commit_is_forgotten() -> None:
    lead = CommitLead()
    lead.note(0.3)
    for _ in range(150):
        lead.note(0.001)
    assert lead.seconds == SHORTEST_COMMIT_LEAD_SECONDS
