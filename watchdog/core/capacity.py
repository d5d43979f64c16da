"""How many claims may be in hand at once so that each is verified and stopped within its lease. Pure."""

import math
from typing import Final

ROOMS_PER_CALL: Final = 10
"""The most rooms one DescribeUserNum takes (ZEGO, "DescribeUserNum")."""


def time_to_wait(lease_seconds: float, request_timeout_seconds: float) -> float:
    """What the slowest verification and the slowest stop leave of a lease, in seconds; may be negative."""
    return lease_seconds - 2 * request_timeout_seconds


def verified_at_a_time(rooms_per_second: float, lease_seconds: float, request_timeout_seconds: float) -> float:
    """How many claims can wait for their verification, at least one full call; infinite without a limit."""
    if rooms_per_second == math.inf:
        return math.inf
    # Half of the time is for the pace of verification, the other half for the pace of stops.
    wait = max(0.0, time_to_wait(lease_seconds, request_timeout_seconds))
    return max(ROOMS_PER_CALL, int(rooms_per_second * wait / 2))
