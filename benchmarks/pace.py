"""How much of the vendor's rate limit is used, and how often the vendor throttles."""

from dataclasses import dataclass
from typing import Final

from benchmarks import contenders, exodus, processes, rooms
from benchmarks.contenders import ENTRIES
from benchmarks.rooms import Event
from watchdog.clock import SystemClock

_STARTING_SECONDS: Final = 1.0
"""Left out at the beginning, before the steady state."""


@dataclass(frozen=True, slots=True)
class Measured:
    """``allowed`` is the vendor's limit in requests a second; utilisation is of the steady state, 1 is all of it."""

    name: str
    allowed: int
    stops: int
    utilisation: float
    throttled: int
    throttled_later: int


async def measure(name: str, allowed: int, seconds: float) -> Measured:
    """Make as many rooms due at once as fill that many seconds at the allowed rate."""
    number = max(10, int(allowed * seconds))
    grace = 2.0
    sections: dict[str, dict[str, float]] = {
        "policy": contenders.due_after(grace),
        "schedule": {"poll_seconds": 0.5, "occupancy_poll_seconds": 0},
        # A question to the vendor is about ten rooms; of these it allows as many here as of stops.
        "stop": {"requests_per_second": allowed, "occupancy_requests_per_second": allowed},
    }
    clock = SystemClock()
    async with (
        processes.sandbox(stop_rate=allowed, user_num_rate=allowed) as sandbox,
        rooms.control(sandbox.url) as vendor,
    ):
        tasks = await vendor.start(number, people=False)
        async with ENTRIES[name].start(sandbox.url, tasks, sections) as contender:
            database = contenders.of_watchdog(contender)
            await contender.application.empty(tasks, clock.time() + grace)
            await exodus.all_ended(database)
        await vendor.read()
    refused = [entry for entry in vendor.of("throttled") if entry["action"] == "StopRealtimeASRTask"]
    began = vendor.stops()[0]["received_at"]
    later = [entry for entry in refused if entry["at"] > began + _STARTING_SECONDS]
    stops = vendor.stops()
    return Measured(ENTRIES[name].name, allowed, len(stops), utilisation(stops, allowed), len(refused), len(later))


def utilisation(stops: list[Event], allowed: int) -> float:
    """The rate of the stops in the steady state, as a share of what is allowed."""
    at: list[float] = sorted(stop["received_at"] for stop in stops)
    steady = [moment for moment in at if moment >= at[0] + _STARTING_SECONDS]
    if len(steady) < 2:
        steady = at
    return (len(steady) - 1) / (steady[-1] - steady[0]) / allowed
