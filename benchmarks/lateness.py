"""How late stops are: rooms that empty at random times, some of which fill again before their grace ends.

Lateness is the moment at which the Stop request arrives, by the sandbox's log, minus the moment at which the room
emptied, by the same log, minus the grace: one clock and one measure for all contenders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import processes, rooms
from benchmarks.contenders import Entry, Sections, due_after
from benchmarks.rooms import Event, What

_SEED: Final = 20261123


@dataclass(frozen=True, slots=True)
class Setting:
    """``spread_seconds`` is the time over which the rooms empty."""

    rooms: int
    spread_seconds: float
    grace_seconds: float
    refill: float = 0.1

    def sections(self) -> Sections:
        """The daemon as it is shipped, but for the grace, and for limits that the sandbox does not have here."""
        return {
            "policy": due_after(self.grace_seconds),
            "schedule": {"poll_seconds": min(5.0, self.grace_seconds / 2), "occupancy_poll_seconds": 15},
            "stop": {"requests_per_second": 1000, "occupancy_requests_per_second": 1000},
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one contender; ``late`` in seconds, sorted. ``left`` are tasks that should have been stopped and were not."""

    name: str
    late: Sequence[float]
    wrong_stops: int
    left: int
    cpu_seconds: float
    memory_bytes: int

    def at(self, share: float) -> float:
        """The lateness that this share of the stops does not exceed."""
        return self.late[min(len(self.late) - 1, int(len(self.late) * share))]

    @property
    def cpu_seconds_per_1000(self) -> float:
        return 1000 * self.cpu_seconds / len(self.late)


async def measure(entry: Entry, setting: Setting) -> Measured:
    """Play the script once. Raises RuntimeError where nothing was stopped at all."""
    moves = rooms.script(
        rooms=setting.rooms,
        seconds=setting.spread_seconds,
        grace_seconds=setting.grace_seconds,
        refill=setting.refill,
        seed=_SEED,
    )
    stay = {move.room for move in moves if move.what is What.REFILLS}
    async with processes.sandbox() as sandbox, rooms.control(sandbox.url) as vendor:
        tasks = await vendor.start(setting.rooms, people=True)
        async with entry.start(sandbox.url, tasks, setting.sections()) as contender:
            before = contender.cpu_seconds()
            await vendor.play(moves, tasks, contender.application, setting.grace_seconds)
            await vendor.wait_for_stops(setting.rooms - len(stay), setting.grace_seconds + 10)
            spent = contender.cpu_seconds() - before
            memory = contender.memory_bytes()
    late = lateness(vendor.log, setting.grace_seconds)
    if not late:
        raise RuntimeError(f"{entry.name} stopped nothing")
    due = {task_id for index, (task_id, _) in enumerate(tasks) if index not in stay}
    stopped = {stop["task_id"] for stop in vendor.stops()}
    return Measured(entry.name, late, vendor.wrong_stops(), len(due - stopped), spent, memory)


def lateness(log: Sequence[Event], grace_seconds: float) -> list[float]:
    """Of the stops that ended a task whose room had emptied: seconds after they were due, sorted."""
    emptied: dict[str, float] = {}
    late = []
    for entry in log:
        if entry["event"] == "leave" and entry["people"] == 0:
            emptied[entry["room_id"]] = entry["at"]
        elif entry["event"] == "join":
            emptied.pop(entry["room_id"], None)
        elif entry["event"] == "stop_requested" and entry["accepted"] and entry["room_id"] in emptied:
            late.append(entry["received_at"] - emptied[entry["room_id"]] - grace_seconds)
    return sorted(late)
