"""The SQL of ``zego_tasks``: find tasks that need work, plan them, claim them, give them back.

The statements select rows; ``core.policy`` decides about them. Every write names the state and the owner that it
expects: a row that has changed since is left alone, and the result tells the caller. All times are the database's
(``utcnow``), never this machine's. A parameter bound once for each row begins with ``b_``, so that SQLAlchemy does not
take it for a column to be set.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import ALL_KINDS, Api, Evidence, Outcome, Reason, Task
from watchdog.core.policy import Plan
from watchdog.core.timing import LEAD_SECONDS
from watchdog.store.engine import reading, writing
from watchdog.store.many import one_of
from watchdog.store.records import DETAIL_LEASE_EXPIRED, Claim, Peek, SetAside
from watchdog.store.tables import ACTIVE, HINT, NOW, as_task, attempts, hint, tasks, utcnow

_OWNED = sa.and_(tasks.c.task_id == sa.bindparam("b_task_id"), tasks.c.claimed_by == sa.bindparam("b_token"), ACTIVE)
_IS_NEWLY_EMPTY = sa.and_(ACTIVE, tasks.c.empty_since.is_not(None), tasks.c.wake_at.is_(None))
# A plan is claimed a moment before its time, to be ready then. Leases and retries are not.
_IS_DUE = sa.and_(
    tasks.c.wake_at <= utcnow(LEAD_SECONDS),
    sa.or_(tasks.c.wake_at <= utcnow(), sa.and_(tasks.c.wake_at == tasks.c.due_at, tasks.c.claimed_by.is_(None))),
)
_PEEK = sa.select(
    utcnow().label("now"),
    # Not EXISTS: if the statistics promise a row, PostgreSQL searches the whole table for it.
    sa.select(sa.func.min(tasks.c.empty_since))
    .where(_IS_NEWLY_EMPTY)
    .scalar_subquery()
    .is_not(None)
    .label("newly_empty"),
    *(
        sa.select(sa.func.min(tasks.c.wake_at, type_=tasks.c.wake_at.type))
        .where(ACTIVE, tasks.c.wake_at.is_not(None), condition)
        .scalar_subquery()
        .label(name)
        for name, condition in (("due_since", _IS_DUE), ("wake_at", tasks.c.wake_at > utcnow()))
    ),
)
_NEWLY_EMPTY = (
    sa.select(*tasks.c)
    .where(_IS_NEWLY_EMPTY)
    .order_by(tasks.c.empty_since)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_FREE = sa.select(tasks.c.task_id).where(one_of(tasks.c.task_id, "task_ids")).with_for_update(skip_locked=True)
_SAVE_PLAN = (
    sa.update(tasks)
    .where(
        tasks.c.task_id == sa.bindparam("b_task_id"),
        tasks.c.empty_since == sa.bindparam("b_empty_since"),
        tasks.c.wake_at.is_(None),
        ACTIVE,
    )
    .values(
        due_at=sa.bindparam("b_due_at"),
        auto_stop_at=sa.bindparam("b_auto_stop_at"),
        wake_at=sa.bindparam("b_due_at"),
    )
)
_DUE = (
    sa.select(tasks.c.task_id)
    .where(ACTIVE, tasks.c.wake_at.is_not(None), _IS_DUE)
    .order_by(tasks.c.auto_stop_at.nulls_last())
)
# Earlier requests that may have stopped a task although it is active: the answer never came, or came when another
# daemon had the task; or a gateway answered, and ZEGO may have carried out the request. A 429 is a refusal.
_MAY_HAVE_STOPPED = sa.or_(
    attempts.c.outcome.in_([Outcome.UNKNOWN, Outcome.STOPPED]),
    sa.and_(
        attempts.c.outcome == Outcome.RETRY,
        sa.or_(attempts.c.http_status >= 500, sa.and_(attempts.c.http_status != 429, attempts.c.code.is_(None))),
    ),
)
_TRIED = one_of(attempts.c.task_id, "tried")
_ABANDON = (
    sa.update(attempts)
    .where(_TRIED, attempts.c.outcome == Outcome.SENT)
    .values(outcome=Outcome.UNKNOWN, detail=DETAIL_LEASE_EXPIRED)
    .returning(attempts.c.task_id, attempts.c.reason)
)
_MAYBE_STOPPED = sa.select(attempts.c.task_id).distinct().where(_TRIED, _MAY_HAVE_STOPPED)
_HINT = HINT.where(tasks.c.claimed_by == sa.bindparam("b_token"))
_GIVE_BACK = (
    sa.update(tasks)
    .where(_OWNED)
    .values(
        claimed_by=None,
        # A row without a plan has no reason to wake: people came, or the limits changed. If the room is empty, the row
        # is newly empty.
        wake_at=sa.case((tasks.c.due_at.is_not(None), utcnow(sa.bindparam("b_wake", type_=sa.Float)))),
    )
)
_RENEW = sa.update(tasks).where(_OWNED).values(wake_at=utcnow(sa.bindparam("b_wake", type_=sa.Float)))
_NOTED = (
    *("task_id", "kind", "room_id", "evidence_source", "evidence_at", "empty_since", "due_at"),
    *("app_id", "reason", "auto_stop_at", "outcome", "detail", "instance"),
)
_EMPTY_SINCE = sa.bindparam("b_empty_since", type_=tasks.c.empty_since.type)


def _note(*expected: sa.ColumnElement[bool]) -> sa.Insert:
    """Insert a row into the ledger if the task is as ``expected`` and its empty spell has no such row yet."""
    return sa.insert(attempts).from_select(
        list(_NOTED),
        sa.select(*(sa.bindparam(f"b_{name}", type_=attempts.c[name].type) for name in _NOTED)).where(
            sa.exists(sa.select(tasks.c.task_id).where(tasks.c.task_id == sa.bindparam("b_task_id"), *expected)),
            ~sa.exists(
                sa.select(attempts.c.id)
                .where(
                    attempts.c.task_id == sa.bindparam("b_task_id"),
                    attempts.c.outcome == sa.bindparam("b_outcome"),
                    attempts.c.detail == sa.bindparam("b_detail"),
                    attempts.c.empty_since.is_not_distinct_from(_EMPTY_SINCE),
                )
                .correlate(None)
            ),
        ),
    )


_NOTE = _note(tasks.c.claimed_by == sa.bindparam("b_token"))
_IS_FREE_AND_DUE = sa.and_(ACTIVE, tasks.c.claimed_by.is_(None), tasks.c.wake_at <= utcnow())
# After a claim nothing is noted: the latest row of the ledger must be the result of the request.
_NOTE_FREE = _note(_IS_FREE_AND_DUE, tasks.c.empty_since.is_not_distinct_from(_EMPTY_SINCE))


class Tasks:
    def __init__(self, engine: sa.Engine, instance: str) -> None:
        self.engine = engine
        self.instance = instance

    def now(self) -> datetime:
        """Return the database's time."""
        with reading(self.engine) as connection:
            return connection.execute(NOW).scalar_one()

    def peek(self) -> Peek:
        with reading(self.engine) as connection:
            row = connection.execute(_PEEK).one()
        return Peek(row.now, bool(row.newly_empty), row.due_since, row.wake_at)

    def newly_empty(self, limit: int) -> tuple[datetime, list[Task]]:
        """Return at most ``limit`` active tasks with an empty room and without a plan, longest empty first."""
        with reading(self.engine) as connection:
            now = connection.execute(NOW).scalar_one()
            return now, [as_task(row) for row in connection.execute(_NEWLY_EMPTY, {"limit": limit})]

    def save_plans(self, plans: Sequence[Plan]) -> int:
        """Store the plans of rows that have not changed since; return how many were stored.

        Locked rows are skipped: waiting for them would delay all others.
        """
        if not plans:
            return 0
        with writing(self.engine) as connection:
            free = set(connection.execute(_FREE, {"task_ids": [plan.task_id for plan in plans]}).scalars())
            rows = [
                {
                    "b_task_id": plan.task_id,
                    "b_empty_since": plan.empty_since,
                    "b_due_at": plan.due_at,
                    "b_auto_stop_at": plan.auto_stop_at,
                }
                for plan in plans
                if plan.task_id in free
            ]
            return connection.execute(_SAVE_PLAN, rows).rowcount if rows else 0

    def claim(
        self,
        token: str,
        *,
        limit: int,
        lease_seconds: float,
        default_app: int | None,
        except_apis: Collection[Api] = (),
        except_tasks: Collection[str] = (),
        only_api: Api | None = None,
    ) -> tuple[datetime, list[Claim]]:
        """Lease at most ``limit`` due tasks for ``lease_seconds``, those first that ZEGO would end first.

        An expired lease is taken over, and its open attempt becomes ``unknown``. ``except_tasks`` are the tasks that
        the caller still works on: a clock that jumped must not make it claim them twice.
        """
        app = sa.func.coalesce(tasks.c.app_id, default_app)
        due = _DUE.limit(limit)
        for api in sorted(except_apis):
            due = due.where(sa.or_(app.is_(None), sa.not_(_is_at(api, app))))
        if except_tasks:
            due = due.where(tasks.c.task_id.not_in(sorted(except_tasks)))
        if only_api is not None:
            due = due.where(_is_at(only_api, app))
        return self._claim(due, token, lease_seconds)

    def claim_one(self, task_id: str, token: str, *, lease_seconds: float) -> Claim | None:
        """Lease this task, due or not; None if it is not active, or leased to another process."""
        free = sa.or_(tasks.c.claimed_by.is_(None), tasks.c.wake_at <= utcnow())
        chosen = sa.select(tasks.c.task_id).where(tasks.c.task_id == task_id, ACTIVE, free)
        _, claims = self._claim(chosen, token, lease_seconds)
        return claims[0] if claims else None

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        """Lease the task for ``lease_seconds`` from now; False if it has ended, or another process has claimed it."""
        values = {"b_task_id": claim.task.task_id, "b_token": claim.token, "b_wake": lease_seconds}
        with writing(self.engine) as connection:
            return connection.execute(_RENEW, values).rowcount == 1

    def _claim(self, chosen: sa.Select[Any], token: str, lease_seconds: float) -> tuple[datetime, list[Claim]]:
        due = chosen.with_for_update(skip_locked=True).cte("due")
        statement = (
            sa.update(tasks)
            .where(tasks.c.task_id == due.c.task_id)
            .values(claimed_by=token, wake_at=utcnow(lease_seconds))
            .returning(*tasks.c, utcnow().label("now"))
        )
        with writing(self.engine) as connection:
            rows = connection.execute(statement).all()
            # The time at which the rows were found to be due.
            now = rows[0].now if rows else connection.execute(NOW).scalar_one()
            claimed = [as_task(row[:-1]) for row in rows]
            abandoned, unknown = _close_abandoned(connection, [task.task_id for task in claimed if task.attempts > 0])
        claimed.sort(key=lambda task: (task.auto_stop_at is None, task.auto_stop_at, task.task_id))
        return now, [
            Claim(task, token, task.task_id in unknown, tuple(abandoned.get(task.task_id, ()))) for task in claimed
        ]

    def set_aside(self, items: Sequence[SetAside]) -> int:
        """Give claims back; write the reason once per empty spell, outcome and detail. Return how many were written."""
        with writing(self.engine) as connection:
            observed = [
                {"b_token": item.claim.token, **hint(item.claim.task.task_id, item.observed)}
                for item in items
                if item.observed is not None
            ]
            if observed:
                connection.execute(_HINT, observed)
            rows = [self._note(item) | {"b_token": item.claim.token} for item in items if item.outcome is not None]
            noted = 0
            if rows:
                noted = connection.execute(_NOTE, rows, execution_options={"preserve_rowcount": True}).rowcount
            give_back(connection, ((item.claim.task.task_id, item.claim.token, item.wake_seconds) for item in items))
        return noted

    def _note(self, item: SetAside) -> dict[str, Any]:
        return {
            **{f"b_{name}": value for name, value in circumstances(item.claim.task, item.evidence).items()},
            "b_app_id": item.app_id,
            "b_reason": item.reason,
            "b_auto_stop_at": item.claim.task.auto_stop_at,
            "b_outcome": item.outcome,
            "b_detail": item.detail,
            "b_instance": self.instance,
        }

    def due(
        self, limit: int, *, after: tuple[datetime, str] | None = None, task_ids: Collection[str] | None = None
    ) -> list[Task]:
        """Return at most ``limit`` due tasks that nobody has claimed, in the order of ``wake_at`` and TaskId.

        ``after`` is the ``wake_at`` and the TaskId of the last row of the page before; ``task_ids`` limits the choice.
        """
        due = sa.select(*tasks.c).where(_IS_FREE_AND_DUE).order_by(tasks.c.wake_at, tasks.c.task_id).limit(limit)
        if after is not None:
            at, task_id = after
            due = due.where(tasks.c.wake_at >= at, sa.or_(tasks.c.wake_at > at, tasks.c.task_id > task_id))
        if task_ids is not None:
            due = due.where(tasks.c.task_id.in_(sorted(task_ids)))
        with reading(self.engine) as connection:
            return [as_task(row) for row in connection.execute(due)]

    def note(self, items: Sequence[SetAside]) -> list[bool]:
        """Write the reasons of tasks that are not claimed, as ``set_aside`` does; the tasks stay as they are.

        Returns which were written. An item without an outcome is not.
        """
        if not any(item.outcome for item in items):
            return [False] * len(items)
        keep = {"preserve_rowcount": True}
        with writing(self.engine) as connection:
            return [
                item.outcome is not None
                and connection.execute(_NOTE_FREE, self._note(item), execution_options=keep).rowcount > 0
                for item in items
            ]


def _is_at(api: Api, app: sa.ColumnElement[int | None]) -> sa.ColumnElement[bool]:
    is_app = app == api.app_id
    return is_app if api.kind == ALL_KINDS else sa.and_(is_app, tasks.c.kind == api.kind)


def _close_abandoned(
    connection: sa.Connection, tried: Sequence[str]
) -> tuple[Mapping[str, Sequence[Reason]], Collection[str]]:
    """Close the open attempts of these tasks as ``unknown``.

    Returns the reasons of these attempts by task, and the tasks that an earlier request may have stopped.
    """
    abandoned: defaultdict[str, list[Reason]] = defaultdict(list)
    if not tried:
        return abandoned, ()
    for row in connection.execute(_ABANDON, {"tried": tried}):
        abandoned[row.task_id].append(Reason(row.reason))
    return abandoned, set(connection.execute(_MAYBE_STOPPED, {"tried": tried}).scalars())


def give_back(connection: sa.Connection, claims: Iterable[tuple[str, str, float]]) -> None:
    """Release claims, each given as TaskId, token, and the seconds until the row is looked at again."""
    connection.execute(
        _GIVE_BACK,
        [{"b_task_id": task_id, "b_token": token, "b_wake": seconds} for task_id, token, seconds in claims],
    )


def circumstances(task: Task, evidence: Evidence) -> Mapping[str, Any]:
    """Return the ledger's columns that say what was known of the task when it was decided on."""
    return {
        "task_id": task.task_id,
        "kind": task.kind,
        "room_id": task.room_id,
        "evidence_source": evidence.source,
        "evidence_at": evidence.observed_at,
        "empty_since": task.empty_since,
        "due_at": task.due_at,
    }
