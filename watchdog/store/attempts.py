"""How an attempt is closed, in SQL: the ledger always, the task only for those who may.

An outcome is final, with one exception. ``unknown`` without a word of ZEGO's says that nobody knows the answer, which
is over when that very answer turns up late: from a process that was slower than its lease, or from a journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import Outcome, Reason, Status
from watchdog.store import statements as sql
from watchdog.store.aio.answer_journal import Closing
from watchdog.store.tables import attempts


@dataclass(frozen=True, slots=True)
class Written:
    """An attempt that was changed. ``was_open`` is False where it had been closed as ``unknown``, and so counted."""

    reason: Reason
    was_open: bool


def close(
    connection: sa.Connection, closings: Sequence[Closing], *, rejoin_watch_seconds: float, posthumous: bool
) -> list[Written | None]:
    """Write what came of the requests; None for each attempt that had its answer before.

    The task is written to under the claim that sent the request. ``posthumous`` is for answers that a dead process has
    left: its task may have been given back meanwhile, and is ended if nobody holds it.
    """
    written = _ledger(connection, closings, posthumous=posthumous)
    # Nothing of a journal's is believed of a task, unless the ledger knows of it.
    known = [closing for closing in closings if not posthumous or closing.attempt_id in written]
    if ended := [closing for closing in known if closing.status is not None]:
        _end(connection, ended, posthumous=posthumous)
    stopped = [one for one in ended if one.status is Status.STOPPED and one.attempt_id in written]
    if stopped and rejoin_watch_seconds > 0:
        ids = [closing.attempt_id for closing in stopped]
        watch = sql.WATCH_ROOMS[connection.dialect.name]
        connection.execute(watch, {"attempt_ids": ids, "seconds": rejoin_watch_seconds})
    if goes_on := [closing for closing in known if closing.status is None]:
        # What a dead process meant to wait for is over by now.
        wakes = [{**_owned(one), "b_wake": 0.0 if posthumous else one.wake_seconds} for one in goes_on]
        connection.execute(sql.GIVE_BACK, wakes)
    return [written.get(closing.attempt_id) for closing in closings]


def _ledger(connection: sa.Connection, closings: Sequence[Closing], *, posthumous: bool) -> dict[int, Written]:
    chosen = sa.select(attempts.c.id, attempts.c.task_id, attempts.c.instance, attempts.c.outcome, attempts.c.reason)
    ids = [closing.attempt_id for closing in closings]
    locked = connection.execute(chosen.where(attempts.c.id.in_(ids), sql.UNANSWERED).with_for_update())
    rows = {row.id: row for row in locked}
    news = {}
    for closing in closings:
        row = rows.get(closing.attempt_id)
        if row is None or row.task_id != closing.task_id or (posthumous and row.instance != closing.instance):
            # The last two: an id of a database that has been restored since.
            continue
        if row.outcome == Outcome.SENT or closing.outcome is not Outcome.UNKNOWN:
            news[closing.attempt_id] = closing
    if news:
        connection.execute(sql.CLOSE_ATTEMPT, [_facts(closing) for closing in news.values()])
    return {one: Written(Reason(rows[one].reason), rows[one].outcome == Outcome.SENT) for one in news}


def _end(connection: sa.Connection, ended: Sequence[Closing], *, posthumous: bool) -> None:
    if posthumous:
        connection.execute(sql.END_FREE_TASK, [{**_owned(one), "b_status": one.status} for one in ended])
        return
    for status in {one.status for one in ended}:
        owned = [(one.task_id, one.token) for one in ended if one.status is status]
        parameters = {"b_status": status, "owned": owned, "task_ids": [task_id for task_id, _ in owned]}
        connection.execute(sql.END_TASKS, parameters)


def _owned(closing: Closing) -> dict[str, Any]:
    return {"b_task_id": closing.task_id, "b_token": closing.token}


def _facts(closing: Closing) -> dict[str, Any]:
    names = ("outcome", "replied_at", "http_status", "code", "message", "request_id", "detail")
    return {"b_id": closing.attempt_id, **{name: getattr(closing, name) for name in names}}
