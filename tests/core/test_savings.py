"""What a stop was worth."""

from datetime import UTC, datetime, timedelta

import pytest

from watchdog.core.model import Outcome, Reason
from watchdog.core.savings import STOPS, freed_seconds

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_our_stops_free_a_slot(outcome: Outcome) -> None:
    freed = freed_seconds(outcome, Reason.EMPTY_ROOM, NOW, NOW + timedelta(seconds=61.5))
    assert freed == (61.5 if outcome in STOPS else None)


@pytest.mark.parametrize("reason", Reason)
def test_only_where_there_is_something_to_compare_with(reason: Reason) -> None:
    freed = freed_seconds(Outcome.STOPPED, reason, NOW, NOW + timedelta(seconds=1))
    assert (freed is None) == (reason in {Reason.BOTS_ONLY, Reason.MANUAL})
    assert freed_seconds(Outcome.STOPPED, reason, NOW, None) is None


def test_never_fewer_than_none() -> None:
    assert freed_seconds(Outcome.STOPPED, Reason.NEVER_JOINED, NOW, NOW - timedelta(hours=1)) == 0.0
