"""Rooms in which ZEGO has seen people, as this process knows it, before the database does."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from watchdog.clock import Clock
from watchdog.core.model import Evidence

KEPT_SECONDS: Final = 60.0
"""Long enough to be stored. A row that has newer evidence is not affected by an older sighting."""


class Sightings:
    """The latest observation of people in each room; in memory, for a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[Evidence, float]] = {}

    def note(self, app_id: int, answers: Mapping[str, Evidence]) -> None:
        """Remember the rooms in which ZEGO saw people."""
        now = self._clock.monotonic()
        # The oldest entry comes first.
        while self._seen and self._seen[oldest := next(iter(self._seen))][1] < now - KEPT_SECONDS:
            del self._seen[oldest]
        for room_id, evidence in answers.items():
            if evidence.user_count:
                self._seen.pop((app_id, room_id), None)
                self._seen[app_id, room_id] = evidence, now

    def since(self, app_id: int, room_id: str, moment: datetime | None) -> Evidence | None:
        """Return an observation of people that is newer than ``moment``, if there is one; None matches any."""
        evidence, _ = self._seen.get((app_id, room_id), (None, 0.0))
        seen_at = None if evidence is None else evidence.observed_at
        if seen_at is None or (moment is not None and seen_at <= moment):
            return None
        return evidence
