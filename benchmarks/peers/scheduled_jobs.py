"""procrastinate: one scheduled job for each task on PostgreSQL, cancelled when people are back.

Arguments: ``application CONNINFO`` and ``worker CONNINFO VENDOR``. A worker finds out
by polling that a scheduled job has become due, every 5 s by default; here every 0.1 s, which costs it some processor
time.
"""

import asyncio

import httpx2 as httpx
import procrastinate

from benchmarks.peers import vendor
from benchmarks.peers.orders import Rooms, moment, serve

POLLING_SECONDS = 0.1


def _application(conninfo: str) -> None:
    jobs: dict[str, int] = {}
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=conninfo))
    with app.open():
        app.schema_manager.apply_schema()

        def empty(rooms: Rooms, due_at: float) -> None:
            deferrer = app.configure_task("stop", schedule_at=moment(due_at))
            arguments: list[dict[str, procrastinate.types.JSONValue]] = [{"task_id": task_id} for task_id, _ in rooms]
            ids = deferrer.batch_defer(*arguments)
            jobs.update(zip((task_id for task_id, _ in rooms), ids, strict=True))

        def occupied(rooms: Rooms) -> None:
            for task_id, _ in rooms:
                app.job_manager.cancel_job_by_id(jobs[task_id])

        serve(empty, occupied)


async def _worker(conninfo: str, url: str) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))
    async with httpx.AsyncClient(base_url=url, limits=vendor.limits(), trust_env=False) as client, app.open_async():

        @app.task(name="stop")
        async def stop(task_id: str) -> None:
            await vendor.stop_async(client, task_id)

        print("ready", flush=True)
        await app.run_worker_async(concurrency=vendor.CONCURRENCY, fetch_job_polling_interval=POLLING_SECONDS)


def main(part: str, conninfo: str, url: str = "") -> None:
    if part == "application":
        _application(conninfo)
    else:
        asyncio.run(_worker(conninfo, url))
