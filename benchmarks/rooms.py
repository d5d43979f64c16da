"""The sandbox's side of a comparison: running tasks, scripted people, and the log as the referee."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import httpx2 as httpx

from benchmarks.contenders import MAX_IDLE_SECONDS, Application
from benchmarks.peers.orders import Rooms
from watchdog.clock import SystemClock
from watchdog.sandbox.referee import judge

_AT_ONCE: Final = 32
_LOOK_EVERY_SECONDS: Final = 0.25
_USER: Final = "user"

Event = dict[str, Any]
"""An entry of the sandbox's log: docs/sandbox.md."""


class What(StrEnum):
    """What happens to a room."""

    EMPTIES = "leave"
    REFILLS = "join"


@dataclass(frozen=True, slots=True)
class Move:
    """``at`` is in seconds from the beginning, ``room`` the number of one."""

    at: float
    room: int
    what: What


def script(*, rooms: int, seconds: float, grace_seconds: float, refill: float, seed: int) -> list[Move]:
    """Each room empties once, at a random time; the share ``refill`` of them fills again before its grace ends."""
    chance = random.Random(seed)  # noqa: S311 - a play, the same every time
    moves = [Move(chance.uniform(0, seconds), room, What.EMPTIES) for room in range(rooms)]
    back = chance.sample(moves, round(rooms * refill))
    moves += [Move(left.at + chance.uniform(0, grace_seconds), left.room, What.REFILLS) for left in back]
    return sorted(moves, key=lambda move: move.at)


class Vendor:
    """The control API of a sandbox, and its log so far."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._clock = SystemClock()
        self.log: list[Event] = []

    async def start(self, number: int, *, people: bool) -> list[tuple[str, str]]:
        """Start that many tasks, each in a room of its own, with somebody in it or with nobody."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(room: str) -> tuple[str, str]:
            async with turn:
                if people:
                    await self._do("join", room=room, user=_USER)
                started = await self._do("start", room=room, max_idle_seconds=MAX_IDLE_SECONDS)
                return started["task_id"], room

        return list(await asyncio.gather(*(one(f"room-{index:06}") for index in range(number))))

    async def move_away(self, seconds: float) -> None:
        """Answer every request so much later from now on, as a vendor at the other end of a network does."""
        if seconds:
            await self._do("misbehave", latency_seconds=[seconds, seconds])

    async def play(self, moves: Sequence[Move], tasks: Rooms, application: Application, grace_seconds: float) -> None:
        """Move people by the script, and tell the application at once. Each room's moves stay in order."""
        began = self._clock.monotonic()
        last: dict[int, asyncio.Task[None]] = {}

        async def make(move: Move, before: asyncio.Task[None] | None) -> None:
            if before is not None:
                await before
            task = tasks[move.room]
            await self._do(move.what, room=task[1], user=_USER)
            if move.what is What.EMPTIES:
                await application.empty([task], self._clock.time() + grace_seconds)
            else:
                await application.occupied([task])

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._keep_up())
            for move in moves:
                await self._clock.sleep(max(0.0, began + move.at - self._clock.monotonic()))
                last[move.room] = group.create_task(make(move, last.get(move.room)))
            await asyncio.gather(*last.values())
            reading.cancel()

    async def _keep_up(self) -> None:
        """Read the log continuously: all of it at once would block the sandbox for a tenth of a second."""
        while True:
            await self._clock.sleep(_LOOK_EVERY_SECONDS)
            await self.read()

    async def wait_for_stops(self, number: int, seconds: float) -> None:
        """Return when so many tasks have been stopped, or nothing more has been for so many seconds."""
        stopped = -1
        until = 0.0
        while stopped < number and (len(self.stops()) > stopped or self._clock.monotonic() < until):
            if len(self.stops()) > stopped:
                stopped = len(self.stops())
                until = self._clock.monotonic() + seconds
            await self._clock.sleep(_LOOK_EVERY_SECONDS)
            await self.read()

    async def read(self) -> None:
        """Read what is new in the log."""
        since = self.log[-1]["seq"] if self.log else 0
        answer = await self._client.get("_sandbox/log", params={"since": since})
        self.log += answer.raise_for_status().json()["events"]

    def forget(self) -> None:
        """Begin with an empty log; what was there is not read again."""
        del self.log[:-1]

    def of(self, *events: str) -> list[Event]:
        """The entries of these events."""
        return [entry for entry in self.log if entry["event"] in events]

    def stops(self) -> list[Event]:
        """The Stop requests that ended a task, in the order in which they were answered."""
        return [entry for entry in self.of("stop_requested") if entry["accepted"]]

    def wrong_stops(self) -> int:
        """Tasks that were stopped while there were people in the room, by the sandbox's referee."""
        return len(judge(self.log, []).wrong_stops)

    async def _do(self, what: str, **fields: object) -> dict[str, Any]:
        answer = await self._client.post(f"_sandbox/{what}", json=fields)
        result: dict[str, Any] = answer.raise_for_status().json()
        return result


@asynccontextmanager
async def control(url: str) -> AsyncIterator[Vendor]:
    """The control API of the sandbox at ``url``."""
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as client:
        yield Vendor(client)
