"""The database's clock, as this process knows it between two readings."""

from datetime import datetime, timedelta
from typing import Final

from watchdog.clock import Clock

_DRIFT: Final = 0.001
"""Twice the rate at which a clock is slewed at most."""

_LONGEST_DELAY: Final = timedelta(seconds=0.1)
"""The longest plausible delay of a reading. A clock set back by less is followed within 100 s; by more, at once."""


class DatabaseClock:
    """Extrapolates the last readings with this machine's monotonic clock, whatever its wall clock says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._synchronised: tuple[datetime, float] | None = None

    def synchronise(self, now: datetime) -> None:
        """Take ``now``, which was just read from the database, as the present time.

        Each reading is late by its own delay, so an earlier reading with a shorter delay stays in force. Because clocks
        drift, it loses a thousandth of the time since. If the two differ by more, the clock was set back.
        """
        monotonic = self._clock.monotonic()
        if self._synchronised is not None:
            then, at = self._synchronised
            quicker = then + timedelta(seconds=(monotonic - at) * (1 - _DRIFT))
            if now < quicker < now + _LONGEST_DELAY:
                now = quicker
        self._synchronised = (now, monotonic)

    def now(self) -> datetime:
        """Return the database's time, late by the shortest delay of the readings.

        Late is the safe side: evidence looks older, a due time further away. Raises RuntimeError before the first
        reading.
        """
        if self._synchronised is None:
            raise RuntimeError("the database's time has not been read yet")
        then, monotonic = self._synchronised
        return then + timedelta(seconds=self._clock.monotonic() - monotonic)
