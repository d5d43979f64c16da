"""The limit: the requests and nothing else. Ten rooms are asked about, then their ten tasks are stopped, and so on.

Arguments: ``httpx2`` or ``client``, the vendor's URL, and how many requests at a time; TaskIds and RoomIds are one
JSON line on standard input. Prints the seconds that it took. ``httpx2`` calls the library as one does; ``client`` is
the daemon's own ZegoClient, which calls it in the cheapest way we know. Nothing is recorded, decided or repeated.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import httpx2

from benchmarks.peers import vendor
from watchdog.clock import SystemClock
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET
from watchdog.zego import ROOMS_PER_CALL, ZegoClient

Ask = Callable[[list[str]], Awaitable[object]]
Stop = Callable[[str], Awaitable[object]]


async def _all(rooms: list[tuple[str, str]], ask: Ask, stop: Stop, at_once: int) -> float:
    groups = iter([rooms[start : start + ROOMS_PER_CALL] for start in range(0, len(rooms), ROOMS_PER_CALL)])
    asked: list[str] = []

    async def work() -> None:
        while True:
            if asked:
                await stop(asked.pop())
            elif (group := next(groups, None)) is not None:
                await ask([room_id for _, room_id in group])
                asked.extend(task_id for task_id, _ in group)
            else:
                return

    clock = SystemClock()
    began = clock.monotonic()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return clock.monotonic() - began


async def _run(how: str, url: str, at_once: int) -> None:
    print("ready", flush=True)
    rooms = [(task_id, room_id) for task_id, room_id in json.loads(sys.stdin.readline())]
    if how == "httpx2":
        async with httpx2.AsyncClient(base_url=url, limits=vendor.limits(at_once), trust_env=False) as client:
            seconds = await _all(
                rooms, lambda some: vendor.ask_async(client, some), lambda one: vendor.stop_async(client, one), at_once
            )
    else:
        zego = ZegoClient(
            {EXAMPLE_APP_ID: EXAMPLE_SERVER_SECRET},
            asr_url=url,
            rtc_url=url,
            timeout_seconds=8,
            clock=SystemClock(),
            max_connections=at_once,
        )
        seconds = await _all(
            rooms,
            lambda some: zego.user_counts(EXAMPLE_APP_ID, some),
            lambda one: zego.stop_task(EXAMPLE_APP_ID, one),
            at_once,
        )
        await zego.aclose()
    print(seconds, flush=True)
    sys.stdin.read()  # what it has cost is read meanwhile


def main(how: str, url: str, at_once: str) -> None:
    asyncio.run(_run(how, url, int(at_once)))
