"""The SQL of the ledger ``zego_stop_attempts``: commit an attempt before its request, close it with its answer.

An outcome is final, with one exception. An attempt that is ``unknown`` because no answer was recorded is completed if
its answer arrives later: from a process that was slower than its lease, or from a spool.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from watchdog.core.model import Outcome, Reason, Source, Status
from watchdog.core.timing import leaves_at
from watchdog.store.engine import storable, writing
from watchdog.store.many import given, inserting, one_of
from watchdog.store.records import DETAIL_LEASE_EXPIRED, Answer, Attempt, Claim, Intent
from watchdog.store.tables import ACTIVE, attempts, rejoins, tasks, utcnow
from watchdog.store.tasks import circumstances, give_back

# The task finds the row by its key; the pair says whose it is. A token contains no space.
_OWNED = sa.and_(
    one_of(tasks.c.task_id, "task_ids"), one_of(tasks.c.claimed_by + " " + tasks.c.task_id, "owned"), ACTIVE
)
# One statement for many rows: one statement for each row would hold the interpreter's lock for longer.
_CONFIRM_EMPTY = (
    sa.update(tasks)
    .where(
        _OWNED,
        # Another hint that the application has given since the claim is kept.
        sa.or_(
            tasks.c.user_count == 0,
            tasks.c.user_count.is_not_distinct_from(sa.bindparam("count_claimed", type_=sa.Integer)),
        ),
    )
    .values(user_count=sa.bindparam("b_count"), user_count_at=sa.bindparam("b_at"), user_count_source=Source.API)
)
_COUNT_ATTEMPT = (
    sa.update(tasks)
    .where(
        _OWNED,
        sa.or_(tasks.c.user_count == 0, one_of(tasks.c.task_id, "despite_people")),
        # If the plan is gone since the claim, people came and left, or the limits changed.
        sa.or_(tasks.c.due_at.is_not(None), one_of(tasks.c.task_id, "unplanned")),
        sa.or_(tasks.c.hold_until.is_(None), tasks.c.hold_until <= utcnow()),
    )
    .values(attempts=tasks.c.attempts + 1)
    .returning(tasks.c.task_id, tasks.c.attempts, utcnow().label("now"))
)
_SENT = (
    *("task_id", "kind", "room_id", "evidence_source", "evidence_at", "empty_since", "due_at"),
    *("app_id", "attempt", "reason", "auto_stop_at", "sent_at", "outcome", "instance"),
)
_INSERT_ATTEMPTS = inserting(sa.insert(attempts), _SENT).returning(
    attempts.c.id, attempts.c.task_id, attempts.c.attempt, attempts.c.sent_at
)
_UNANSWERED = sa.or_(
    attempts.c.outcome == sa.literal_column("'sent'"),
    sa.and_(
        attempts.c.outcome == sa.literal_column("'unknown'"),
        *(column.is_(None) for column in (attempts.c.replied_at, attempts.c.http_status, attempts.c.code)),
    ),
)
_TO_CLOSE = (
    sa.select(attempts.c.id, attempts.c.task_id, attempts.c.instance, attempts.c.outcome, attempts.c.reason)
    .where(one_of(attempts.c.id, "ids"), _UNANSWERED)
    .with_for_update()
)
_ANSWERED = ("outcome", "replied_at", "http_status", "code", "message", "request_id", "detail")
_CLOSING = given(attempts, ("id", *_ANSWERED))
_CLOSE_ATTEMPTS = (
    sa.update(attempts)
    # The list as well: PostgreSQL takes the rows for a hundred, and would read a small table whole.
    .where(one_of(attempts.c.id, "ids"), attempts.c.id == _CLOSING.c.id, _UNANSWERED)
    .values({name: _CLOSING.c[name] for name in _ANSWERED})
)
_END_TASKS = sa.update(tasks).where(_OWNED).values(status=sa.bindparam("b_status"))
_END_FREE_TASK = (
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
).where(
    one_of(attempts.c.id, "attempt_ids"),
    # People who were there when the task was stopped for its age do not return.
    sa.or_(attempts.c.reason != Reason.MAX_AGE, attempts.c.empty_since.is_not(None)),
)
_WATCH_ROOMS = {
    name: dialect.insert(rejoins)
    .from_select(["task_id", "app_id", "room_id", "stopped_at", "watch_until"], _WATCHED)
    .on_conflict_do_nothing()
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
_REAP = (
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


class Ledger:
    def __init__(self, engine: sa.Engine, instance: str, *, rejoin_watch_seconds: float = 0.0) -> None:
        """After a stop, people who return to its room are noted for ``rejoin_watch_seconds``."""
        self.engine = engine
        self.instance = instance
        self.rejoin_watch_seconds = rejoin_watch_seconds

    def intend(self, intents: Sequence[Intent]) -> list[Attempt | None]:
        """Commit the attempts as ``sent``, before any request is sent.

        None means that the request must not be sent. Since the claim, the row has got another owner, other limits, a
        hold or an end; or a hint said that people were there, even if they have left again. People do not matter to an
        intent ``despite_people``.
        """
        with writing(self.engine) as connection:
            verified = [intent for intent in intents if intent.evidence.source == Source.API]
            _confirm_empty(connection, [intent for intent in verified if not intent.despite_people])
            chosen = {
                **_owned([intent.claim for intent in intents]),
                "unplanned": [intent.claim.task.task_id for intent in intents if intent.claim.task.due_at is None],
                "despite_people": [intent.claim.task.task_id for intent in intents if intent.despite_people],
            }
            ours = {row.task_id: row for row in connection.execute(_COUNT_ATTEMPT, chosen)}
            allowed = {intent.claim.task.task_id: intent for intent in intents if intent.claim.task.task_id in ours}
            committed: dict[str, Attempt] = {}
            if allowed:
                new = [self._row(intent, ours[one].attempts, ours[one].now) for one, intent in allowed.items()]
                rows = connection.execute(_INSERT_ATTEMPTS, {"rows": new})
                committed = {
                    row.task_id: Attempt(allowed[row.task_id], row.id, row.attempt, row.sent_at, self.instance)
                    for row in rows
                }
        return [committed.get(intent.claim.task.task_id) for intent in intents]

    def _row(self, intent: Intent, number: int, now: datetime) -> Mapping[str, Any]:
        return {
            **circumstances(intent.claim.task, intent.evidence),
            "app_id": intent.app_id,
            "attempt": number,
            "reason": intent.reason,
            "auto_stop_at": intent.auto_stop_at,
            "sent_at": leaves_at(intent.claim.task, intent.reason, now),
            "outcome": Outcome.SENT,
            "instance": self.instance,
        }

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        """Close attempts: the ledger always, the task only under the claim that sent the request.

        False for an attempt that was closed before, because its lease expired. If it is ``unknown`` and without an
        answer, this answer completes it.
        """
        with writing(self.engine) as connection:
            before = self._close(connection, answers, posthumous=False)
        return [answer.attempt_id in before and before[answer.attempt_id].outcome == Outcome.SENT for answer in answers]

    def replay(self, answers: Sequence[Answer]) -> tuple[int, list[tuple[Outcome, Reason]]]:
        """Record answers that a dead process left behind; repeating changes nothing.

        Returns how many attempts changed, and outcome and reason of those that were still open.
        """
        with writing(self.engine) as connection:
            before = self._close(connection, answers, posthumous=True)
        outcomes = {answer.attempt_id: answer.outcome for answer in answers}
        return len(before), [
            (outcomes[attempt_id], Reason(row.reason))
            for attempt_id, row in before.items()
            if row.outcome == Outcome.SENT
        ]

    def _close(
        self, connection: sa.Connection, answers: Sequence[Answer], *, posthumous: bool
    ) -> Mapping[int, sa.Row[*tuple[Any, ...]]]:
        """Return the attempts that changed, by id, as they were before.

        ``posthumous`` answers come from a dead process. Its task may have been given back since; then the task is
        ended if no other process holds it.
        """
        before = _close_attempts(connection, answers, posthumous=posthumous)
        # An answer from a spool changes a task only if it changed the ledger.
        known = [answer for answer in answers if not posthumous or answer.attempt_id in before]
        if ended := [answer for answer in known if answer.status is not None]:
            _end_tasks(connection, ended, posthumous=posthumous)
        stopped = [one.attempt_id for one in ended if one.status is Status.STOPPED and one.attempt_id in before]
        if stopped and self.rejoin_watch_seconds > 0:
            watch = _WATCH_ROOMS[connection.dialect.name]
            connection.execute(watch, {"attempt_ids": stopped, "seconds": self.rejoin_watch_seconds})
        if goes_on := [answer for answer in known if answer.status is None]:
            # The time that a dead process wanted to wait has passed.
            give_back(
                connection, ((one.task_id, one.token, 0.0 if posthumous else one.wake_seconds) for one in goes_on)
            )
        return before

    def reap(self, older_than_seconds: float) -> list[Reason]:
        """Close attempts that are still ``sent`` although no process holds their task; return the reason of each.

        ``older_than_seconds`` must exceed a request's total deadline.
        """
        with writing(self.engine) as connection:
            closed = connection.execute(_REAP, {"not_within": -older_than_seconds})
            return [Reason(reason) for reason in closed.scalars()]


def _pair(task_id: str, token: str) -> str:
    """Return what ``_OWNED`` compares."""
    return f"{token} {task_id}"


def _owned(claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the parameters of ``_OWNED``."""
    return {
        "task_ids": [claim.task.task_id for claim in claims],
        "owned": [_pair(claim.task.task_id, claim.token) for claim in claims],
    }


def _confirm_empty(connection: sa.Connection, intents: Sequence[Intent]) -> None:
    """Store ZEGO's observations as hints, through the triggers. A later hint that people came is kept."""
    alike: defaultdict[tuple[int | None, datetime | None, int | None], list[Claim]] = defaultdict(list)
    for intent in intents:
        seen, claim = intent.evidence, intent.claim
        alike[seen.user_count, seen.observed_at, claim.task.user_count].append(claim)
    for (count, at, count_claimed), claims in alike.items():
        parameters = {"b_count": count, "b_at": at, "count_claimed": count_claimed}
        connection.execute(_CONFIRM_EMPTY, parameters | _owned(claims))


def _close_attempts(
    connection: sa.Connection, answers: Sequence[Answer], *, posthumous: bool
) -> Mapping[int, sa.Row[*tuple[Any, ...]]]:
    locked = connection.execute(_TO_CLOSE, {"ids": [answer.attempt_id for answer in answers]})
    rows = {row.id: row for row in locked}
    news = {}
    for answer in answers:
        row = rows.get(answer.attempt_id)
        if row is None or row.task_id != answer.task_id or (posthumous and row.instance != answer.instance):
            # Another task or daemon has this id: the database has been restored since.
            continue
        if row.outcome == Outcome.SENT or answer.outcome is not Outcome.UNKNOWN:
            news[answer.attempt_id] = answer
    if news:
        facts = [{"id": one, **{name: getattr(answer, name) for name in _ANSWERED}} for one, answer in news.items()]
        for fact in facts:
            fact |= {name: storable(connection, fact[name]) for name in ("code", "message", "request_id", "detail")}
        connection.execute(_CLOSE_ATTEMPTS, {"rows": facts, "ids": list(news)})
    return {attempt_id: rows[attempt_id] for attempt_id in news}


def _end_tasks(connection: sa.Connection, ended: Sequence[Answer], *, posthumous: bool) -> None:
    if posthumous:
        rows = [{"b_task_id": one.task_id, "b_token": one.token, "b_status": one.status} for one in ended]
        connection.execute(_END_FREE_TASK, rows)
        return
    for status in {one.status for one in ended}:
        alike = [one for one in ended if one.status is status]
        parameters = {
            "b_status": status,
            "task_ids": [one.task_id for one in alike],
            "owned": [_pair(one.task_id, one.token) for one in alike],
        }
        connection.execute(_END_TASKS, parameters)
