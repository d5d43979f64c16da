"""The limit: the requests and nothing else. Ten rooms are asked about, then their ten tasks are stopped, and so on.

Arguments: ``httpx2``, ``client`` or ``recorded``, the vendor's URL, how many requests at a time, and for ``recorded`` a
SQLite database with the tasks; TaskIds and RoomIds are one JSON line on standard input. Prints the seconds it took.
``httpx2`` calls the library as one does; ``client`` is the daemon's own ZegoClient, which calls it in the cheapest way
we know. Nothing is recorded, decided or repeated.

``recorded`` commits each attempt before its request and each outcome after it, many at a time as the daemon does, with
the driver alone and the fewest statements: what a daemon could come to that decides nothing and serves one database.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import httpx2 as httpx

from benchmarks.peers import vendor
from watchdog.clock import SystemClock
from watchdog.core.capacity import ROOMS_PER_CALL
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET
from watchdog.store.aio.group_commit import GroupCommit
from watchdog.zego.client import ZegoClient

T = TypeVar("T")
R = TypeVar("R")

Ask = Callable[[list[str]], Awaitable[object]]
Stop = Callable[[str], Awaitable[object]]

_INTENDS: Final = "UPDATE zego_tasks SET attempts = attempts + 1, claimed_by = 'bare' WHERE task_id = :task_id"
_ATTEMPT: Final = (
    "INSERT INTO zego_stop_attempts (task_id, kind, room_id, attempt, reason, sent_at, outcome, instance)"
    " VALUES (:task_id, 'realtime_asr', :task_id, 1, 'empty_room',"
    " strftime('%Y-%m-%d %H:%M:%f', 'now'), 'sent', 'bare')"
)
_OUTCOME: Final = (
    "UPDATE zego_stop_attempts SET outcome = 'stopped', http_status = :http_status, code = :code, message = :message,"
    " request_id = :request_id, replied_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE id = :id"
)
_ENDS: Final = "UPDATE zego_tasks SET status = 'stopped' WHERE task_id = :task_id AND claimed_by = 'bare'"


class _Ledger:
    """Attempts and outcomes, in one thread of their own."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._thread = ThreadPoolExecutor(1)
        self._intents = GroupCommit[str, int](lambda some: self._call(self._intend, some))
        self._answers = GroupCommit[Mapping[str, object], None](lambda some: self._call(self._record, some))

    async def stop(self, zego: ZegoClient, task_id: str) -> None:
        """Commit, request, commit."""
        number = await self._intents.submit(task_id)
        reply = await zego.stop_task(EXAMPLE_APP_ID, task_id)
        names = ("http_status", "code", "message", "request_id")
        facts = {name: getattr(reply, name) for name in names}
        await self._answers.submit({"id": number, "task_id": task_id, **facts})

    async def _call(self, method: Callable[[Sequence[T]], R], items: Sequence[T]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, method, items)

    def _intend(self, task_ids: Sequence[str]) -> Sequence[int]:
        named = [{"task_id": task_id} for task_id in task_ids]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INTENDS, named)
        numbers = [int(self._connection.execute(_ATTEMPT, one).lastrowid or 0) for one in named]
        self._connection.execute("COMMIT")
        return numbers

    def _record(self, answers: Sequence[Mapping[str, object]]) -> Sequence[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_OUTCOME, answers)
        self._connection.executemany(_ENDS, answers)
        self._connection.execute("COMMIT")
        return [None] * len(answers)


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


async def _run(how: str, url: str, at_once: int, *database: str) -> None:
    print("ready", flush=True)
    rooms = [(task_id, room_id) for task_id, room_id in json.loads(sys.stdin.readline())]
    if how == "httpx2":
        async with httpx.AsyncClient(base_url=url, limits=vendor.limits(at_once), trust_env=False) as client:
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
        ledger = _Ledger(*database) if how == "recorded" else None
        seconds = await _all(
            rooms,
            lambda some: zego.user_counts(EXAMPLE_APP_ID, some),
            lambda one: zego.stop_task(EXAMPLE_APP_ID, one) if ledger is None else ledger.stop(zego, one),
            at_once,
        )
        await zego.aclose()
    print(seconds, flush=True)
    sys.stdin.read()  # what it has cost is read meanwhile


def main(how: str, url: str, at_once: str, *database: str) -> None:
    asyncio.run(_run(how, url, int(at_once), *database))
