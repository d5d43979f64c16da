"""The daemon's parts without its scheduler, on a database in virtual time; the vendor is a handler at the HTTP seam."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx

from tests.support.time_travel import World
from watchdog.config.settings import Config
from watchdog.daemon.metrics import PREFIX, Metrics
from watchdog.observer import Observer
from watchdog.services.poller import Polled
from watchdog.wiring.parts import Parts

SECRET = "planted-server-secret"


class Vendor:
    """Answers from its rooms, or with a queued reply; ``before_stop`` and ``before_count`` happen meanwhile.

    A room has so many ``people`` and ``admins``, and the ``users`` that are listed by id. ``refusal`` is what every
    question about counts gets. Of each stop ``actions`` has the host, the action and the name of the id;
    ``refusals`` are what such an action gets.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.people: dict[str, int] = {}
        self.admins: dict[str, int] = {}
        self.users: dict[str, list[str]] = {}
        self.refusal: httpx.Response | None = None
        self.refusals: dict[str, httpx.Response] = {}
        self.stop_replies: list[httpx.Response | Exception] = []
        self.count_replies: list[httpx.Response | Exception] = []
        self.before_stop: Callable[[], object] = lambda: None
        self.before_count: Callable[[], object] = lambda: None
        self.stops: list[str] = []
        self.actions: list[tuple[str, str, str]] = []
        self.asked: list[list[str]] = []
        self.timestamps: list[int] = []
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        parameters = request.url.params
        self.timestamps.append(int(parameters["Timestamp"]))
        if parameters["Action"] == "DescribeUserNum":
            rooms = parameters.get_list("RoomId[]")
            self.asked.append(rooms)
            self.before_count()
            counts = reply(0, Data={"UserCountList": [self.count(room) for room in rooms]})
            return self.refusal or answer(self.count_replies, counts)
        if parameters["Action"] == "DescribeUserList":
            users = self.users.get(parameters["RoomId"], ())
            listed = [{"UserId": user, "UserName": "", "UserRole": 2} for user in users]
            return reply(0, Data={"Marker": "", "UserList": listed})
        ((id_field, task_id),) = json.loads(request.content).items()
        self.stops.append(task_id)
        self.actions.append((request.url.host, parameters["Action"], id_field))
        self.before_stop()
        self.reached.set()
        await self.gate.wait()
        if (refusal := self.refusals.get(parameters["Action"])) is not None:
            return refusal
        return answer(self.stop_replies, reply(0, RequestId=f"request-{len(self.stops)}"))

    def count(self, room: str) -> dict[str, Any]:
        admins = self.admins.get(room, 0)
        people = self.people.get(room, 0) + len(self.users.get(room, ()))
        return {"RoomId": room, "UserCount": people + admins, "AdminUserCount": admins}


def reply(code: object, status: int = 200, **fields: Any) -> httpx.Response:
    body = {"Code": code, "Message": "…", "RequestId": "r"} | fields
    return httpx.Response(status, json=body)


def answer(queue: list[httpx.Response | Exception], default: httpx.Response) -> httpx.Response:
    if not queue:
        return default
    head = queue.pop(0)
    if isinstance(head, Exception):
        raise head
    return head


class Bench:
    """The parts, their world and their vendor."""

    def __init__(self, parts: Parts, world: World, vendor: Vendor) -> None:
        self.parts = parts
        self.world = world
        self.vendor = vendor

    async def sweep(self) -> None:
        """Sweep until there is nothing to claim, and finish what was claimed."""
        while (await self.parts.sweeper.run_once()).claimed:
            await self.parts.stopper.drain()
            await self.parts.dry_run.drain()

    async def poll(self) -> Polled:
        assert self.parts.poller is not None
        self.parts.storage.clock.synchronise(self.world.now)
        return await self.parts.poller.run_once()

    async def after(self, seconds: float) -> None:
        self.world.advance(seconds)
        await self.sweep()

    def outcomes(self, task: str = "t") -> list[str]:
        return [row["outcome"] for row in self.world.attempts(task)]


def configured(**sections: dict[str, Any]) -> Config:
    apps = [{"app_id": app_id, "server_secret": SECRET} for app_id in (1, 2)]
    defaults: dict[str, dict[str, Any]] = {
        # Never opened, as the engine is the world's own; it only says that there is no folder for a spool.
        "database": {"url": "postgresql://nobody@nowhere/none"},
        "zego": {"apps": apps},
        "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0},
    }
    values = {name: defaults.get(name, {}) | sections.get(name, {}) for name in defaults | sections}
    return Config.model_validate(values)


@asynccontextmanager
async def bench(
    world: World,
    observer: Observer | None = None,
    on_progress: Callable[[], None] = lambda: None,
    on_end: Callable[[], None] = lambda: None,
    *,
    config: Config | None = None,
    **sections: dict[str, Any],
) -> AsyncIterator[Bench]:
    """Build the parts for two AppIds and these ``sections`` of the configuration, or for another ``config``."""
    vendor = Vendor(world)
    parts = Parts(
        config or configured(**sections),
        world.clock,
        world.engine,
        world.tasks.now(),
        transport=httpx.MockTransport(vendor),
        observer=observer,
        on_progress=on_progress,
        on_end=on_end,
    )
    try:
        yield Bench(parts, world, vendor)
    finally:
        await parts.zego.aclose()
        parts.storage.close()


async def empty_room(bench: Bench, task: str = "t", room: str = "room", **columns: Any) -> None:
    """Empty an occupied room and plan its task: due in 45 s, ended by ZEGO in 150 s."""
    bench.world.app.start(task, room, user_count=2, **columns)
    bench.world.app.people(room, 0)
    await bench.sweep()


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    """Return a metric's value for these labels, or None if it is absent."""
    return metrics.registry.get_sample_value(PREFIX + name, labels)
