"""The only reader, and the only spender, of real time.

Stored times come from the database's clock (see ``store``). What is left for the process's own clock is the timestamp
in a request's signature, and lengths of time: deadlines, leases, sleeps.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests pass one that they turn by hand."""

    def time(self) -> float:
        """Unix time in seconds, as the host's wall clock has it: may jump, may be wrong."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never set back, and it runs on while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        # CLOCK_BOOTTIME, not CLOCK_MONOTONIC: a lease runs out while a laptop or a virtual machine sleeps.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def systemd_monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, for the one message of systemd's that wants it; no length of ours."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
