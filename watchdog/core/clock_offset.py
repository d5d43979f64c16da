"""How old a callback is when it arrives, although the vendor's clock is not ours. Pure.

A callback says when it was sent, by the vendor's clock, and we see when it arrives, by ours. The difference is the
offset of the clocks plus the time on the way. The time on the way is never negative and sometimes short, so the
smallest difference of late is the offset, too large by the time that the quickest callback took. Whatever a callback's
own difference exceeds it by is its age:

    age = (arrived - sent) - min(arrived - sent of late)

The age is never negative and never too large: a callback appears as sent at its arrival or before, and at or after the
moment when it was really sent. This is the safe side: a person who spoke keeps a task running. A copy of an old
callback only has a large difference, so it teaches nothing false.

The ``Date`` of the vendor's replies is not used. Other hosts send the replies, and a clock of theirs that is ahead
would make speech look older than it is.
"""

import math
from typing import Final

WINDOW_SECONDS: Final = 300.0
"""A clock that is set back is followed within this time, one that is set forward at once."""


class ClockOffset:
    """The offset of one vendor's clock, learned from the callbacks of the last ``WINDOW_SECONDS`` or half of it."""

    def __init__(self) -> None:
        # The minimum of the present half of the window and of the one before: a window in constant space.
        self._least = self._least_before = math.inf
        self._half_began = -math.inf

    def age(self, sent: float, arrived: float) -> float:
        """Learn from a verified callback, and return how many seconds before ``arrived`` it was sent, at least 0.

        ``sent`` is Unix time by the vendor's clock, ``arrived`` by a clock of ours that does not jump.
        """
        if (elapsed := arrived - self._half_began) >= WINDOW_SECONDS / 2:
            self._least_before = self._least if elapsed < WINDOW_SECONDS else math.inf
            self._least, self._half_began = math.inf, arrived
        difference = arrived - sent
        self._least = min(self._least, difference)
        return difference - min(self._least, self._least_before)
