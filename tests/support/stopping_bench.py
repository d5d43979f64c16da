"""Sweeper and stopper over a database in virtual time; the vendor is a handler at the HTTP seam."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.support.time_travel import World
from watchdog.config.settings import Config
from watchdog.daemon.metrics import PREFIX, Metrics
from watchdog.observer import Observer
from watchdog.wiring.parts import Parts

SECRET = "planted-server-secret"


class Vendor:
    """What the vendor answers: people per room, a queue of replies to Stop, and things that happen meanwhile."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people: dict[str, int] = {}
        self.admins: dict[str, int] = {}
        self.stop_replies: list[httpx2.Response | Exception] = []
        self.count_replies: list[httpx2.Response | Exception] = []
        self.before_stop: Callable[[], object] = lambda: None
        self.before_count: Callable[[], object] = lambda: None
        self.stops: list[str] = []
        self.asked: list[list[str]] = []
        self.timestamps: list[int] = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        parameters = request.url.params
        self.timestamps.append(int(parameters["Timestamp"]))
        if parameters["Action"] == "DescribeUserNum":
            rooms = parameters.get_list("RoomId[]")
            self.asked.append(rooms)
            self.before_count()
            return answer(self.count_replies, reply(0, Data={"UserCountList": [self.count(room) for room in rooms]}))
        self.stops.append(json.loads(request.content)["TaskId"])
        self.before_stop()
        self.reached.set()
        await self.gate.wait()
        return answer(self.stop_replies, reply(0, RequestId=f"request-{len(self.stops)}"))

    def count(self, room: str) -> dict[str, Any]:
        admins = self.admins.get(room, 0)
        return {"RoomId": room, "UserCount": self.people.get(room, 0) + admins, "AdminUserCount": admins}


def reply(code: object, status: int = 200, **fields: Any) -> httpx2.Response:
    body = {"Code": code, "Message": "…", "RequestId": "r"} | fields
    return httpx2.Response(status, json=body)


def answer(queue: list[httpx2.Response | Exception], default: httpx2.Response) -> httpx2.Response:
    if not queue:
        return default
    head = queue.pop(0)
    if isinstance(head, Exception):
        raise head
    return head


class Bench:
    """A daemon's parts without its scheduler."""

    def __init__(self, parts: Parts, world: World, vendor: Vendor) -> None:
        self.parts = parts
        self.world = world
        self.vendor = vendor

    async def sweep(self) -> None:
        """Sweep until there is nothing to claim, and finish what was claimed."""
        while (await self.parts.sweeper.run_once()).claimed:
            await self.parts.stopper.drain()
            await self.parts.dry_run.drain()

    async def after(self, seconds: float) -> None:
        self.world.advance(seconds)
        await self.sweep()

    def outcomes(self, task: str = "t") -> list[str]:
        return [row["outcome"] for row in self.world.attempts(task)]


@asynccontextmanager
async def bench(
    world: World,
    observer: Observer | None = None,
    on_progress: Callable[[], None] = lambda: None,
    **sections: dict[str, Any],
) -> AsyncIterator[Bench]:
    config = Config.model_validate(
        {
            # The engine is the world's own. Of this address nothing is taken but that it has no folder for a journal.
            "database": {"url": "postgresql://nobody@nowhere/none"},
            "zego": {"apps": [{"app_id": 1, "server_secret": SECRET}, {"app_id": 2, "server_secret": SECRET}]},
            "policy": sections.get("policy", {}),
            "guard": sections.get("guard", {}),
            "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0} | sections.get("stop", {}),
        }
    )
    vendor = Vendor(world)
    parts = Parts(
        config,
        world.clock,
        world.engine,
        world.tasks.now(),
        transport=httpx2.MockTransport(vendor),
        observer=observer,
        on_progress=on_progress,
    )
    try:
        yield Bench(parts, world, vendor)
    finally:
        await parts.zego.aclose()
        parts.storage.close()


async def empty_room(bench: Bench, task: str = "t", room: str = "room", **columns: Any) -> None:
    """A room that was occupied, is now empty, and whose task is planned: due in 45 s, ended by ZEGO in 150 s."""
    bench.world.app.start(task, room, user_count=2, **columns)
    bench.world.app.people(room, 0)
    await bench.sweep()


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    """Return what a metric with these labels says; None where it is absent."""
    return metrics.registry.get_sample_value(PREFIX + name, labels)
