"""The statements of ``store``, and those that others share, built once: SQLAlchemy caches what they compile to.

A parameter that is bound once for each row begins with ``b_``, so that it cannot be taken for a column to be set.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core.model import Outcome, Source
from watchdog.core.timing import LEAD_SECONDS
from watchdog.store.tables import attempts, daemons, rejoins, tasks, utcnow

DETAIL_LEASE_EXPIRED = "the daemon that sent this did not live to record the answer"

ALIVE_SECONDS = 15.0
"""A daemon not seen for longer no longer counts; three heartbeats."""

ENDED = "ended"
"""What stands as ``mode`` of a daemon that has ended in good order."""

FORGET_DAEMON_SECONDS = 7 * 24 * 3600.0
"""How long the row of a daemon that is gone is kept, for ``status`` to show."""

# The literals are part of the partial indexes' conditions: as parameters the planner could not match them.
ACTIVE = tasks.c.status == sa.literal_column("'active'")
OWNED = sa.and_(tasks.c.task_id == sa.bindparam("b_task_id"), tasks.c.claimed_by == sa.bindparam("b_token"), ACTIVE)
IS_NEWLY_EMPTY = sa.and_(ACTIVE, tasks.c.empty_since.is_not(None), tasks.c.wake_at.is_(None))
# A plan whose time is near is taken up before it, to be ready in time. Never a lease, nor a retry: those are kept to.
IS_DUE = sa.and_(
    tasks.c.wake_at <= utcnow(LEAD_SECONDS),
    sa.or_(tasks.c.wake_at <= utcnow(), sa.and_(tasks.c.wake_at == tasks.c.due_at, tasks.c.claimed_by.is_(None))),
)

NOW = sa.select(utcnow().label("now"))
PEEK = sa.select(
    utcnow().label("now"),
    # Not EXISTS: where statistics promise a row, PostgreSQL looks for it through the whole table.
    sa.select(sa.func.min(tasks.c.empty_since))
    .where(IS_NEWLY_EMPTY)
    .scalar_subquery()
    .is_not(None)
    .label("newly_empty"),
    *(
        sa.select(sa.func.min(tasks.c.wake_at, type_=tasks.c.wake_at.type))
        .where(ACTIVE, tasks.c.wake_at.is_not(None), condition)
        .scalar_subquery()
        .label(name)
        for name, condition in (("due_since", IS_DUE), ("wake_at", tasks.c.wake_at > utcnow()))
    ),
)
NEWLY_EMPTY = (
    sa.select(*tasks.c)
    .where(IS_NEWLY_EMPTY)
    .order_by(tasks.c.empty_since)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
FREE = (
    sa.select(tasks.c.task_id)
    .where(tasks.c.task_id.in_(sa.bindparam("task_ids", expanding=True)))
    .with_for_update(skip_locked=True)
)
SAVE_PLAN = (
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
DUE = (
    sa.select(tasks.c.task_id)
    .where(ACTIVE, tasks.c.wake_at.is_not(None), IS_DUE)
    .order_by(tasks.c.auto_stop_at.nulls_last())
)
HINT = (
    sa.update(tasks)
    .where(OWNED)
    .values(
        user_count=sa.bindparam("b_count"),
        user_count_at=sa.bindparam("b_at"),
        user_count_source=sa.bindparam("b_source"),
    )
)
# By itself the pair would have SQLite read the whole table.
OWNED_ONES = sa.and_(
    tasks.c.task_id.in_(sa.bindparam("task_ids", expanding=True)),
    sa.tuple_(tasks.c.task_id, tasks.c.claimed_by).in_(sa.bindparam("owned", expanding=True)),
    ACTIVE,
)
# For many rows at once: one by one costs more of the interpreter's lock than of the database.
CONFIRM_EMPTY = (
    sa.update(tasks)
    .where(
        OWNED_ONES,
        # Whatever else the application has said since the claim stands.
        sa.or_(
            tasks.c.user_count == 0,
            tasks.c.user_count.is_not_distinct_from(sa.bindparam("count_claimed", type_=sa.Integer)),
        ),
    )
    .values(user_count=sa.bindparam("b_count"), user_count_at=sa.bindparam("b_at"), user_count_source=Source.API)
)
COUNT_ATTEMPT = (
    sa.update(tasks)
    .where(
        OWNED_ONES,
        tasks.c.user_count == 0,
        # A plan that has gone since the claim says that people came, and left again, or that the limits changed.
        sa.or_(tasks.c.due_at.is_not(None), tasks.c.task_id.in_(sa.bindparam("unplanned", expanding=True))),
        sa.or_(tasks.c.hold_until.is_(None), tasks.c.hold_until <= utcnow()),
    )
    .values(attempts=tasks.c.attempts + 1)
    .returning(tasks.c.task_id, tasks.c.attempts, utcnow().label("now"))
)
INSERT_ATTEMPT = sa.insert(attempts).returning(
    attempts.c.id, attempts.c.task_id, attempts.c.attempt, attempts.c.sent_at
)
# Earlier requests that may have stopped a task that is active all the same: one whose answer never came, or came when
# the task was another's already; one that a gateway answered for, which the vendor may have carried out. A 429 refuses.
MAY_HAVE_STOPPED = sa.or_(
    attempts.c.outcome.in_([Outcome.UNKNOWN, Outcome.STOPPED]),
    sa.and_(
        attempts.c.outcome == Outcome.RETRY,
        sa.or_(attempts.c.http_status >= 500, sa.and_(attempts.c.http_status != 429, attempts.c.code.is_(None))),
    ),
)
UNANSWERED = sa.or_(
    attempts.c.outcome == sa.literal_column("'sent'"),
    sa.and_(
        attempts.c.outcome == sa.literal_column("'unknown'"),
        *(column.is_(None) for column in (attempts.c.replied_at, attempts.c.http_status, attempts.c.code)),
    ),
)
CLOSE_ATTEMPT = sa.update(attempts).where(attempts.c.id == sa.bindparam("b_id"), UNANSWERED)
END_TASKS = sa.update(tasks).where(OWNED_ONES).values(status=sa.bindparam("b_status"))
END_FREE_TASK = (
    sa.update(tasks)
    .where(
        tasks.c.task_id == sa.bindparam("b_task_id"),
        sa.or_(tasks.c.claimed_by.is_(None), tasks.c.claimed_by == sa.bindparam("b_token")),
        ACTIVE,
    )
    .values(status=sa.bindparam("b_status"))
)
_WATCHED = sa.select(
    attempts.c.task_id,
    attempts.c.app_id,
    attempts.c.room_id,
    sa.func.coalesce(attempts.c.replied_at, utcnow()),
    utcnow(sa.bindparam("seconds", type_=sa.Float)),
).where(attempts.c.id.in_(sa.bindparam("attempt_ids", expanding=True)))
_WATCH_COLUMNS = ["task_id", "app_id", "room_id", "stopped_at", "watch_until"]
WATCH_ROOMS = {
    "postgresql": postgresql.insert(rejoins).from_select(_WATCH_COLUMNS, _WATCHED).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(rejoins).from_select(_WATCH_COLUMNS, _WATCHED).on_conflict_do_nothing(),
}
GIVE_BACK = (
    sa.update(tasks)
    .where(OWNED)
    .values(
        claimed_by=None,
        # Without a plan, because people came meanwhile or the limits changed, there is no reason to wake; if the room
        # is empty it is newly so.
        wake_at=sa.case((tasks.c.due_at.is_not(None), utcnow(sa.bindparam("b_wake", type_=sa.Float)))),
    )
)
NOTE = sa.insert(attempts).from_select(
    [
        *("task_id", "kind", "room_id", "evidence_source", "evidence_at", "empty_since", "due_at"),
        *("app_id", "reason", "auto_stop_at", "outcome", "detail", "instance"),
    ],
    sa.select(
        *(
            sa.bindparam(f"b_{name}", type_=attempts.c[name].type)
            for name in (
                *("task_id", "kind", "room_id", "evidence_source", "evidence_at", "empty_since", "due_at"),
                *("app_id", "reason", "auto_stop_at", "outcome", "detail", "instance"),
            )
        )
    ).where(
        sa.exists(
            sa.select(tasks.c.task_id).where(
                tasks.c.task_id == sa.bindparam("b_task_id"), tasks.c.claimed_by == sa.bindparam("b_token")
            )
        ),
        ~sa.exists(
            sa.select(attempts.c.id)
            .where(
                attempts.c.task_id == sa.bindparam("b_task_id"),
                attempts.c.outcome == sa.bindparam("b_outcome"),
                attempts.c.detail == sa.bindparam("b_detail"),
                attempts.c.empty_since.is_not_distinct_from(
                    sa.bindparam("b_empty_since", type_=attempts.c.empty_since.type)
                ),
            )
            .correlate(None)
        ),
    ),
)
REAP = (
    sa.update(attempts)
    .where(
        attempts.c.outcome == sa.literal_column("'sent'"),
        attempts.c.sent_at < utcnow(sa.bindparam("not_within", type_=sa.Float)),
        ~sa.select(tasks.c.task_id)
        .where(
            tasks.c.task_id == attempts.c.task_id,
            ACTIVE,
            tasks.c.claimed_by.is_not(None),
            tasks.c.wake_at > utcnow(),
        )
        .exists(),
    )
    .values(outcome=Outcome.UNKNOWN, detail=DETAIL_LEASE_EXPIRED)
    .returning(attempts.c.reason)
)

_MINE = daemons.c.instance == sa.bindparam("b_instance")
IS_ALIVE = sa.and_(daemons.c.seen_at >= utcnow(-ALIVE_SECONDS), daemons.c.mode != ENDED)
ELDEST_DAEMON = (
    sa.select(daemons.c.instance).where(IS_ALIVE).order_by(daemons.c.started_at, daemons.c.instance).limit(1)
)
BEAT = sa.update(daemons).where(_MINE)
FORGET_DAEMONS = sa.delete(daemons).where(daemons.c.seen_at < utcnow(-FORGET_DAEMON_SECONDS))
PULSE = sa.select(
    utcnow().label("now"),
    *(
        sa.select(column).order_by(daemons.c.seen_at.desc()).limit(1).scalar_subquery().label(name)
        for column, name in ((daemons.c.seen_at, "latest_seen_at"), (daemons.c.watching_since, "watching_since"))
    ),
    sa.select(sa.func.count()).where(IS_ALIVE, ~_MINE).scalar_subquery().label("others"),
    sa.select(daemons.c.guard_released_until).where(_MINE).scalar_subquery().label("released_until"),
)
