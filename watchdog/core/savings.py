"""What a stop was worth: the seconds of a slot that it freed. The view ``zego_savings`` has the same rule in SQL."""

from datetime import datetime
from typing import Final

from watchdog.core.model import Outcome, Reason

STOPS: Final = (Outcome.STOPPED, Outcome.STOPPED_EARLIER)
"""The outcomes of stops of ours."""


def freed_seconds(
    outcome: Outcome, reason: Reason, stopped_at: datetime, auto_stop_at: datetime | None
) -> float | None:
    """Return the seconds between a stop and ZEGO's auto-stop, at least 0; None if nothing can be measured.

    An operator's order is no merit of the daemon's. ZEGO would never have ended the task of a room with bots only.
    ``auto_stop_at`` is a plan: where it turns out wrong, because ZEGO let the task live on, the stop has freed nothing.
    """
    if outcome not in STOPS or reason in {Reason.MANUAL, Reason.BOTS_ONLY} or auto_stop_at is None:
        return None
    return max(0.0, (auto_stop_at - stopped_at).total_seconds())
