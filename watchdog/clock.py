"""The only module that reads the real time or sleeps.

Stored times come from the database's clock (see ``store``). This clock is for the timestamps in signatures and for
durations: deadlines, leases, sleeps.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time; tests pass one that they set."""

    def time(self) -> float:
        """Unix time in seconds by the host's wall clock, which may jump or be wrong."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back, and continues while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds."""


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        # CLOCK_BOOTTIME, not CLOCK_MONOTONIC: a lease also expires while a laptop or a virtual machine is suspended.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def systemd_monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, for the one systemd message that needs it; not for our durations."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
