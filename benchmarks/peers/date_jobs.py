"""APScheduler 3: one date job for each task in a SQLAlchemy job store, removed when people are back.

Arguments: ``DATABASE_URL VENDOR``. The application and the scheduler are one process, for a
job store must not be shared (APScheduler's FAQ, "How do I share a single job store among one or more worker
processes?"). ``misfire_grace_time=None``: by default a job that is more than a second late is dropped.
"""

import os
from contextlib import suppress
from functools import cache

import httpx2 as httpx
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from benchmarks.peers import vendor
from benchmarks.peers.orders import Rooms, moment, serve

_VENDOR = "BENCHMARK_VENDOR"


@cache
def _client() -> httpx.Client:
    return httpx.Client(base_url=os.environ[_VENDOR], limits=vendor.limits(), trust_env=False)


def stop(task_id: str) -> None:
    """The job."""
    vendor.stop(_client(), task_id)


def main(database_url: str, url: str) -> None:
    os.environ[_VENDOR] = url
    scheduler = BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(url=database_url)},
        executors={"default": ThreadPoolExecutor(vendor.CONCURRENCY)},
        job_defaults={"misfire_grace_time": None},
        timezone="UTC",
    )

    def empty(rooms: Rooms, due_at: float) -> None:
        for task_id, _ in rooms:
            # By name: the store keeps it as text.
            job = "benchmarks.peers.date_jobs:stop"
            scheduler.add_job(job, "date", run_date=moment(due_at), args=[task_id], id=task_id, replace_existing=True)

    def occupied(rooms: Rooms) -> None:
        for task_id, _ in rooms:
            # It may have run by now, on a machine that is busy.
            with suppress(JobLookupError):
                scheduler.remove_job(task_id)

    scheduler.start()
    serve(empty, occupied)
