"""How long the readings of the page take with a long ledger: the first of each, and the following. Not the drawing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Final

from benchmarks.databases import Database, task_id
from benchmarks.report import duration, table
from watchdog.core.policy import Policy
from watchdog.page.views import History, OneTask, Tasks, write_mark
from watchdog.store.engine import Engine
from watchdog.store.reports.glance import glance, lately
from watchdog.store.reports.history import history
from watchdog.store.reports.paging import Choice, task_page

_ROOM: Final = "ended-7"
_DEEP: Final = 500_000
_REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """One page: the seconds of its first reading, and the median and the most of the following ones."""

    name: str
    first: float
    again: float
    most: float


def measure(database: Database) -> list[Measured]:
    """Read each page, as the site does."""
    found = []
    for name, read in _readings(database.engine).items():
        first, *again = [_seconds(read, database.engine) for _ in range(1 + _REPEATS)]
        found.append(Measured(name, first, median(again), max(again)))
    return found


def rows(found: Sequence[Measured]) -> list[str]:
    """Return a table: one row for each page."""
    header = ["reading of", "the first", "then: median", "then: at most"]
    return table(header, [[one.name, *map(duration, (one.first, one.again, one.most))] for one in found])


def _readings(engine: Engine) -> Mapping[str, Callable[[Engine], Any]]:
    _, (newest,) = history(engine, limit=1)
    asked: dict[str, Mapping[str, str]] = {
        "history": {},
        "history, far back": {"before": str(max(2, newest["attempt_id"] - _DEEP))},
        "history of an outcome that is frequent": {"outcome": "stopped", "since": "month"},
        "history of an outcome that never was": {"outcome": "rejected"},
        "history of an outcome that never was, 30 days": {"outcome": "rejected", "since": "month"},
        "history of a task": {"task": newest["task_id"]},
        "history of a room": {"room": _ROOM},
        "history of a room, 24 hours": {"room": _ROOM, "since": "day"},
    }
    return {
        "overview: now": glance,
        "overview: the last 24 hours": lately,
        **{f"tasks: {choice}": Tasks.asked({"choice": choice.value}).read for choice in Choice},
        **dict(_second_pages(engine)),
        "tasks of a room": Tasks.asked({"room": _ROOM, "choice": Choice.ENDED}).read,
        "a task that is active": OneTask(task_id(0), Policy(), 60).read,
        "a task that has ended": OneTask(newest["task_id"], Policy(), 60).read,
        "no such task": OneTask("1" * 19, Policy(), 60).read,
        **{name: History.asked(query).read for name, query in asked.items()},
    }


def _second_pages(engine: Engine) -> Iterator[tuple[str, Callable[[Engine], Any]]]:
    for choice in Choice:
        page = task_page(engine, choice, limit=5, room_id=None, after=None)
        if page.next is not None:
            query = {"choice": choice.value, "after": write_mark(page.next)}
            yield f"tasks: {choice}, second page", Tasks.asked(query).read


def _seconds(read: Callable[[Engine], Any], engine: Engine) -> float:
    began = perf_counter()
    read(engine)
    return perf_counter() - began
