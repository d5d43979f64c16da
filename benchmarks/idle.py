"""What a daemon costs while nothing is due: share of a core, and resident memory, in its default rhythm."""

from dataclasses import dataclass
from typing import Final

from benchmarks import processes
from benchmarks.databases import Database
from watchdog.clock import SystemClock

_SETTLES_SECONDS: Final = 15.0
_WAKES: Final = """
import asyncio

async def main():
    while True:
        await asyncio.sleep(1)

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """``share`` is of one core, 1 is all of it."""

    share: float
    resident_bytes: int


async def bare_loop(seconds: float) -> float:
    """The share of a core of a program that is woken once a second, and does nothing: what being woken costs here."""
    clock = SystemClock()
    async with processes.process("-c", _WAKES) as process:
        await clock.sleep(min(1.0, seconds))
        before, began = processes.cpu_seconds([process.pid]), clock.monotonic()
        await clock.sleep(seconds)
        return (processes.cpu_seconds([process.pid]) - before) / (clock.monotonic() - began)


async def measure(database: Database, seconds: float) -> Measured:
    """One daemon on a database, for that many seconds after its start has settled."""
    clock = SystemClock()
    url = database.engine.url.render_as_string(hide_password=False)
    # Without the vendor's answers: asking about each room in turn is work, and as much as its pace allows.
    sections = {"schedule": {"poll_seconds": 5, "occupancy_poll_seconds": 0}}
    async with processes.sandbox() as sandbox, processes.daemon(url, sandbox.url, sections) as daemon:
        await clock.sleep(min(_SETTLES_SECONDS, seconds))
        before, began = daemon.cpu_seconds(), clock.monotonic()
        await clock.sleep(seconds)
        return Measured((daemon.cpu_seconds() - before) / (clock.monotonic() - began), daemon.resident_bytes())
