"""Inserts tasks that the application has not registered: found by a callback, or in ZEGO's list of running tasks.

``discovered_at`` marks such a row: the application's own INSERT takes it over. A task that was deleted is not inserted
again, because the application wants no more of it; nor is one that has a row, even if it has ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core.model import RunningTask
from watchdog.store.engine import reading, writing
from watchdog.store.many import one_of
from watchdog.store.tables import NOW, deleted_tasks, tasks, utcnow

_INSERTING: Final = 0x7A65676F
"""The first number of the advisory locks of TaskIds that are being inserted, also in zego_tasks_taken_over."""

# One statement: a task that is being deleted is seen in one of the two tables.
_KNOWN: Final = sa.union_all(
    *(sa.select(one.c.task_id).where(one_of(one.c.task_id, "task_ids")) for one in (tasks, deleted_tasks))
)


def unknown(connection: sa.Connection, task_ids: Iterable[str]) -> set[str]:
    """Return those that have no row and were not deleted lately."""
    wanted = set(task_ids)
    return wanted - set(connection.execute(_KNOWN, {"task_ids": sorted(wanted)}).scalars()) if wanted else wanted


def insert_unknown(connection: sa.Connection, rows: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Insert those ``rows`` (by TaskId, all of the same columns) that are unknown; return their TaskIds."""
    new = [rows[task_id] for task_id in _not_being_inserted(connection, sorted(unknown(connection, rows)))]
    return set(connection.execute(_discovered(connection.dialect.name), new).scalars()) if new else set()


class AdoptionStore:
    """The tasks that ZEGO lists as running."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def unknown(self, running: Sequence[RunningTask]) -> list[RunningTask]:
        """Return those that ``register`` would insert."""
        with reading(self._engine) as connection:
            found = unknown(connection, (task.task_id for task in running))
        return [task for task in _distinct(running) if task.task_id in found]

    def register(self, running: Sequence[RunningTask]) -> list[RunningTask]:
        """Insert those that are unknown, in one transaction; return them. They started now at the latest."""
        with writing(self._engine) as connection:
            now = connection.execute(NOW).scalar_one()
            rows = {
                task.task_id: {
                    "task_id": task.task_id,
                    "kind": task.kind,
                    "room_id": task.room_id,
                    "app_id": task.app_id,
                    "started_at": now if task.started_at is None else min(task.started_at, now),
                }
                for task in running
            }
            inserted = insert_unknown(connection, rows)
        return [task for task in _distinct(running) if task.task_id in inserted]


def _distinct(running: Sequence[RunningTask]) -> Iterable[RunningTask]:
    return {task.task_id: task for task in running}.values()


def _not_being_inserted(connection: sa.Connection, task_ids: Sequence[str]) -> Sequence[str]:
    """Leave out tasks that the application may just be inserting: what is heard of them next will find them.

    Until the end of the transaction, its INSERTs of the others wait for ours, and then take the row over.
    """
    if connection.dialect.name != "postgresql" or not task_ids:
        return task_ids
    one = sa.func.unnest(sa.cast(task_ids, postgresql.ARRAY(sa.Text))).column_valued("task_id")
    lock = sa.func.pg_try_advisory_xact_lock(sa.literal(_INSERTING, sa.Integer), sa.func.hashtext(one).op("&")(63))
    free = connection.execute(sa.select(one, lock)).all()
    return [task_id for task_id, is_ours in free if is_ours]


@cache
def _discovered(dialect: str) -> Any:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(tasks).values(discovered_at=utcnow())
    return insert.on_conflict_do_nothing().returning(tasks.c.task_id)
