"""How long the newest migration takes with many tasks, and how long the application waits meanwhile.

The database is built by the migrations before it. While it migrates, the application writes one hint after the other.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from benchmarks import databases
from benchmarks.databases import Database
from watchdog.shipped import shipped
from watchdog.store import schema
from watchdog.store.engine import writing

_HINT: Final = "UPDATE zego_tasks SET user_count = {mark} WHERE task_id = {mark}"


@dataclass(frozen=True, slots=True)
class Measured:
    """``seconds`` of the migration; the application's statements during it, and the one that took longest."""

    seconds: float
    statements: int
    longest_seconds: float


def build_before_newest(database: Database) -> str:
    """Build an empty database of the revision before the newest; return the revision."""
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    newest = ScriptDirectory.from_config(config).get_revision("head")
    before = str(newest.down_revision)
    with writing(database.engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before)
    return before


def measure(database: Database, tasks: int) -> Measured:
    """Fill the database with so many active tasks, and migrate it."""
    build_before_newest(database)
    databases.fill_tasks(database, tasks)
    with _writing_hints(database, tasks) as waits:
        began = perf_counter()
        schema.migrate(database.engine)
        seconds = perf_counter() - began
    return Measured(seconds, len(waits), max(waits))


@contextmanager
def _writing_hints(database: Database, tasks: int) -> Iterator[list[float]]:
    """Write hints until the block ends; yields how long each statement took."""
    statement, done = _HINT.format(mark=database.mark), threading.Event()
    waits: list[float] = []

    def write() -> None:
        while not done.is_set():
            began = perf_counter()
            database.application.execute(statement, (len(waits) % 3 + 1, databases.task_id(len(waits) % tasks)))
            waits.append(perf_counter() - began)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield waits
    finally:
        done.set()
        writer.join()
