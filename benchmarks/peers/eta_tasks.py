"""Celery: one task with an ETA for each of ours, on Redis, revoked when people are back.

``main`` is the application; ``celery --app benchmarks.peers.eta_tasks worker`` is the worker, with threads, for the
work is waiting. Redis rather than RabbitMQ: Celery calls both stable, and it is the smaller thing to install. With
either, tasks with an ETA are kept in the worker's memory until they are due.
"""

import os
from functools import cache

import httpx2 as httpx
from celery import Celery
from celery.signals import worker_ready

from benchmarks.peers import vendor
from benchmarks.peers.orders import Rooms, moment, serve

BROKER = "BENCHMARK_BROKER"
VENDOR = "BENCHMARK_VENDOR"

app = Celery("benchmark", broker=os.environ[BROKER])
app.conf.update(
    task_ignore_result=True,  # nobody reads them
    worker_redirect_stdouts=False,  # it says when it is ready
)


@cache
def _client() -> httpx.Client:
    return httpx.Client(base_url=os.environ[VENDOR], limits=vendor.limits(), trust_env=False)


@app.task(name="stop")  # type: ignore[untyped-decorator] # Celery has no types
def stop(task_id: str) -> None:
    vendor.stop(_client(), task_id)


@worker_ready.connect  # type: ignore[untyped-decorator] # the same
def _announce(**_: object) -> None:
    print("ready", flush=True)


def main() -> None:
    def empty(rooms: Rooms, due_at: float) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for task_id, _ in rooms:
                stop.apply_async((task_id,), eta=moment(due_at), task_id=task_id, producer=producer)

    serve(empty, lambda rooms: app.control.revoke([task_id for task_id, _ in rooms]))
