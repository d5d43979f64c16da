"""What must not grow without bound, and does not: see docs/reliability.md."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.bench import bench
from tests.support.store_steps import begun
from tests.support.time_travel import World
from watchdog.errors import Overloaded
from watchdog.store.callbacks import Speech

EXODUS = """
import asyncio, gc, json, os, resource, sqlite3, sys, threading
import httpx2 as httpx, sqlalchemy as sa
from watchdog.store import schema
from watchdog.wiring.parts import Parts
from watchdog.clock import SystemClock
from watchdog.store.engine import open_engine
from watchdog.config.settings import Config
from watchdog.store.tasks import Tasks

ROOMS = int(sys.argv[2])
url = f"sqlite:///{sys.argv[1]}"
engine = open_engine(url, must_exist=False)
schema.migrate(engine)
engine.dispose()
application = sqlite3.connect(sys.argv[1], isolation_level=None)
application.execute("PRAGMA synchronous = OFF")
application.execute("BEGIN")
application.executemany(
    "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 3)",
    [(f"task-{number}", f"room-{number}") for number in range(ROOMS)],
)
application.execute("COMMIT")


def vendor(request):
    params = request.url.params
    data = {}
    if params["Action"] == "DescribeUserNum":
        rooms = params.get_list("RoomId[]")
        data = {"UserCountList": [{"RoomId": room, "UserCount": 0, "AdminUserCount": 0} for room in rooms]}
    return httpx.Response(200, json={"Code": 0, "Message": "Success", "RequestId": "1", "Data": data})


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def main():
    config = Config.model_validate({
        "zego": {"apps": [{"app_id": 1, "server_secret": "made-up"}]},
        "policy": {"grace_seconds": 0, "never_joined_grace_seconds": 0, "confirm_seconds": 0},
        "stop": {"requests_per_second": 0, "occupancy_requests_per_second": 0},
    })
    engine = open_engine(url)
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    parts = Parts(
        config, SystemClock(), engine, Tasks(engine, "").now(), transport=httpx.MockTransport(vendor)
    )
    await parts.sweeper.run_once()
    gc.collect()
    seen = {"before": resident(), "peak": 0.0, "in_hand": 0, "descriptors": 0, "threads": 0, "tasks": 0}
    application.execute("UPDATE zego_tasks SET user_count = 0")
    swept = await parts.sweeper.run_once()
    while swept.claimed or swept.due or swept.planned:
        seen["in_hand"] = max(seen["in_hand"], parts.workload.in_hand)
        seen["tasks"] = max(seen["tasks"], len(asyncio.all_tasks()))
        seen["descriptors"] = max(seen["descriptors"], len(os.listdir("/proc/self/fd")))
        seen["threads"] = max(seen["threads"], threading.active_count())
        seen["peak"] = max(seen["peak"], resident())
        await parts.stopper.drain()
        swept = await parts.sweeper.run_once()
    await parts.stopper.drain()
    seen["stopped"] = application.execute("SELECT count(*) FROM zego_tasks WHERE status = 'stopped'").fetchone()[0]
    await parts.close()
    print(json.dumps(seen))


import logging, structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
asyncio.run(main())
"""


def test_ten_thousand_rooms_that_empty_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However many are due, no more are in hand than can be sent while their verification is fresh."""
    command = [sys.executable, "-c", EXODUS, f"{tmp_path}/exodus.db", "10000"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout)
    with capsys.disabled():
        print(f"\n10,000 rooms at once: {told}")  # noqa: T201 - a measurement, to be read
    assert told["stopped"] == 10_000
    assert told["in_hand"] <= 4 * 32
    assert told["tasks"] <= 20 * 128
    assert told["threads"] <= 8
    assert told["descriptors"] <= 32
    assert told["peak"] - told["before"] < 64, "megabytes"


async def test_the_capacity_is_what_bounds_the_work_in_hand(world: World) -> None:
    """And with it the answers that wait, in memory and in the spool, for a database that is away."""
    async with bench(world, stop={"concurrency": 2}) as it:
        it.vendor.gate.clear()
        for number in range(40):
            world.app.start(f"t{number}", f"room-{number}", user_count=2)
            world.app.people(f"room-{number}", 0)
        await it.parts.sweeper.run_once()
        world.advance(45)
        for _ in range(5):
            await it.parts.sweeper.run_once()
        assert it.parts.workload.in_hand == 8
        await it.vendor.reached.wait()
        assert len(it.vendor.stops) <= 2
        it.vendor.gate.set()
        await it.parts.stopper.drain()


async def test_callbacks_that_wait_for_the_database_do_not_pile_up(sqlite_world: World) -> None:
    """They are sent away when the stops have left no time for a tenth of a second, and are not committed later."""
    world = sqlite_world
    async with bench(world) as it:
        hold = threading.Event()
        storage = it.parts.storage
        (stop,) = await begun(storage.threads.call(hold.wait, 30))
        speech = Speech(1, "room", "t", world.now, is_person=True, discover=True)
        sent = await asyncio.gather(*(storage.callbacks.submit(speech) for _ in range(100)), return_exceptions=True)
        assert {type(result) for result in sent} == {Overloaded}
        assert storage.threads.pending == 1
        hold.set()
        await stop
        assert (await storage.callbacks.submit(speech)).discovered
