"""All SQL that the daemon runs, for both databases; every call is one short transaction.

The statements narrow down and guard, they do not decide: what a row's times are and whether its task may be stopped
is ``policy``'s. Every write names the state and the owner it expects; a row that has moved on is left alone, and the
caller learns so from what comes back. Times are the database's own (``utcnow``), never this machine's.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from watchdog.core.model import Evidence, Outcome, Reason, Reply, Source, Status, Task
from watchdog.core.policy import Plan
from watchdog.core.timing import leaves_at
from watchdog.store import attempts as answer_store
from watchdog.store import statements as sql
from watchdog.store.aio.answer_journal import Closing
from watchdog.store.attempts import Written
from watchdog.store.engine import reading, writing
from watchdog.store.tables import attempts, daemons, tasks, utcnow


@dataclass(frozen=True, slots=True)
class Peek:
    """Whether there is anything to do: rows without a plan, rows that are due, and when the next one will be.

    Due rows may have to wait, for capacity or for a blocked AppId; the next one's time is told all the same.
    """

    now: datetime
    newly_empty: bool
    due: bool
    wake_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that is ours until its lease ends; ``token`` guards every write about it.

    ``abandoned`` has the reasons of requests whose answers nobody recorded: by this claim they became ``unknown``.
    """

    task: Task
    token: str
    earlier_unknown: bool
    abandoned: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """A request about to be sent. ``evidence`` is what allows it; from the vendor, it also refreshes the hint."""

    claim: Claim
    app_id: int
    reason: Reason
    evidence: Evidence
    auto_stop_at: datetime | None


@dataclass(frozen=True, slots=True)
class Sent:
    """A committed attempt in state ``sent``, to be sent at ``sent_at``; ``attempt`` counts a task's requests from 1."""

    attempt_id: int
    attempt: int
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request, and what the task becomes: ended with ``status``, or woken ``wake_seconds`` from now."""

    claim: Claim
    sent: Sent
    outcome: Outcome
    replied_at: datetime | None
    reply: Reply | None
    detail: str | None
    status: Status | None
    wake_seconds: float


@dataclass(frozen=True, slots=True)
class SetAside:
    """A claim given back without a request; ``outcome`` None leaves no row in the ledger.

    ``observed`` is the vendor's observation, to be stored as a hint first: people found in the room end the spell.
    ``wake_seconds`` is when to look at the row again, from now, as long as the room stays empty.
    """

    claim: Claim
    app_id: int | None
    outcome: Outcome | None
    reason: Reason
    detail: str
    evidence: Evidence
    observed: Evidence | None
    wake_seconds: float


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon as others see it: one row of ``zego_daemons``."""

    instance: str
    host: str
    pid: int
    version: str
    mode: str


@dataclass(frozen=True, slots=True)
class Doing:
    """What a daemon says of itself with each heartbeat; the columns of these names in ``zego_daemons``."""

    in_flight: int = 0
    requests: int = 0
    guard_tripped_at: datetime | None = None
    guard_held: int = 0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heartbeat learns: since when sweeps have followed one another, and how many daemons are alive.

    ``guard_released_until`` is an operator's order to this daemon.
    """

    now: datetime
    watching_since: datetime
    alive: int
    guard_released_until: datetime | None = None


class Store:
    """The daemon's database. Every method is one transaction and may be called from any thread.

    Raises DatabaseUnavailable where a later call may succeed, DatabaseError otherwise.
    """

    def __init__(self, engine: sa.Engine, instance: str, *, rejoin_watch_seconds: float = 0.0) -> None:
        """``rejoin_watch_seconds`` is how long the room of a stopped task is watched for people who come back."""
        self.engine = engine
        self.instance = instance
        self.rejoin_watch_seconds = rejoin_watch_seconds

    def now(self) -> datetime:
        """The database's time."""
        with reading(self.engine) as connection:
            return connection.execute(sql.NOW).scalar_one()

    def peek(self) -> Peek:
        with reading(self.engine) as connection:
            row = connection.execute(sql.PEEK).one()
        return Peek(row.now, bool(row.newly_empty), row.due_since is not None, row.wake_at)

    def newly_empty(self, limit: int) -> tuple[datetime, list[Task]]:
        """At most ``limit`` active tasks whose room is empty and that have no plan, longest empty first."""
        with reading(self.engine) as connection:
            now = connection.execute(sql.NOW).scalar_one()
            return now, [as_task(row) for row in connection.execute(sql.NEWLY_EMPTY, {"limit": limit})]

    def save_plans(self, plans: Sequence[Plan]) -> int:
        """Store the plans of rows that are still as they were planned for; returns how many were.

        A row that somebody has locked is passed over: whoever waits for it serves nobody.
        """
        if not plans:
            return 0
        with writing(self.engine) as connection:
            free = set(connection.execute(sql.FREE, {"task_ids": [plan.task_id for plan in plans]}).scalars())
            plans = [plan for plan in plans if plan.task_id in free]
            if not plans:
                return 0
            return connection.execute(
                sql.SAVE_PLAN,
                [
                    {
                        "b_task_id": plan.task_id,
                        "b_empty_since": plan.empty_since,
                        "b_due_at": plan.due_at,
                        "b_auto_stop_at": plan.auto_stop_at,
                    }
                    for plan in plans
                ],
            ).rowcount

    def claim(
        self,
        token: str,
        *,
        limit: int,
        lease_seconds: float,
        default_app: int | None,
        except_apps: Collection[int] = (),
        except_tasks: Collection[str] = (),
        only_app: int | None = None,
    ) -> tuple[datetime, list[Claim]]:
        """Take at most ``limit`` tasks whose time has come, those that ZEGO would end first, for ``lease_seconds``.

        A lease that ran out is taken over, and the request it may have sent becomes ``unknown``; ``except_tasks`` are
        those that the caller works on itself, whatever a clock that jumped says of their leases.
        """
        app = sa.func.coalesce(tasks.c.app_id, default_app)
        due = sql.DUE.limit(limit)
        if except_apps:
            due = due.where(sa.or_(app.is_(None), app.not_in(sorted(except_apps))))
        if except_tasks:
            due = due.where(tasks.c.task_id.not_in(sorted(except_tasks)))
        if only_app is not None:
            due = due.where(app == only_app)
        return self._claim(due, token, lease_seconds)

    def claim_one(self, task_id: str, token: str, *, lease_seconds: float) -> Claim | None:
        """Take this task, due or not; None when it is not active or somebody else's lease on it is running."""
        free = sa.or_(tasks.c.claimed_by.is_(None), tasks.c.wake_at <= utcnow())
        chosen = sa.select(tasks.c.task_id).where(tasks.c.task_id == task_id, sql.ACTIVE, free)
        _, claims = self._claim(chosen, token, lease_seconds)
        return claims[0] if claims else None

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
            # The very moment that the rows were found to be due at.
            now = rows[0].now if rows else connection.execute(sql.NOW).scalar_one()
            claimed = [as_task(row[:-1]) for row in rows]
            tried = [task.task_id for task in claimed if task.attempts > 0]
            unknown: set[str] = set()
            abandoned: defaultdict[str, list[Reason]] = defaultdict(list)
            if tried:
                for row in connection.execute(
                    sa.update(attempts)
                    .where(attempts.c.task_id.in_(tried), attempts.c.outcome == Outcome.SENT)
                    .values(outcome=Outcome.UNKNOWN, detail=sql.DETAIL_LEASE_EXPIRED)
                    .returning(attempts.c.task_id, attempts.c.reason)
                ):
                    abandoned[row.task_id].append(Reason(row.reason))
                unknown.update(
                    connection.execute(
                        sa.select(attempts.c.task_id)
                        .distinct()
                        .where(attempts.c.task_id.in_(tried), sql.MAY_HAVE_STOPPED)
                    ).scalars()
                )
        claimed.sort(key=lambda task: (task.auto_stop_at is None, task.auto_stop_at, task.task_id))
        return now, [Claim(task, token, task.task_id in unknown, tuple(abandoned[task.task_id])) for task in claimed]

    def intend(self, intents: Sequence[Intent]) -> list[Sent | None]:
        """Commit the attempts as ``sent``, before anything is.

        None for an intent whose row is no longer ours, has ended, is on hold by now, has been given a hint of people,
        even if they left again, or other limits: that request must not be sent.
        """
        with writing(self.engine) as connection:
            self._confirm(connection, [intent for intent in intents if intent.evidence.source == Source.API])
            ours = {
                row.task_id: row
                for row in connection.execute(
                    sql.COUNT_ATTEMPT,
                    {
                        **_owned_ones([intent.claim for intent in intents]),
                        "unplanned": [
                            intent.claim.task.task_id for intent in intents if intent.claim.task.due_at is None
                        ],
                    },
                )
            }
            allowed = [intent for intent in intents if intent.claim.task.task_id in ours]
            sent: dict[str, Sent] = {}
            if allowed:
                rows = connection.execute(
                    sql.INSERT_ATTEMPT,
                    [
                        {
                            **_circumstances(intent.claim.task, intent.evidence),
                            "app_id": intent.app_id,
                            "attempt": ours[intent.claim.task.task_id].attempts,
                            "reason": intent.reason,
                            "auto_stop_at": intent.auto_stop_at,
                            "sent_at": leaves_at(intent.claim.task, intent.reason, ours[intent.claim.task.task_id].now),
                            "outcome": Outcome.SENT,
                            "instance": self.instance,
                        }
                        for intent in allowed
                    ],
                )
                sent = {row.task_id: Sent(row.id, row.attempt, row.sent_at) for row in rows}
        return [sent.get(intent.claim.task.task_id) for intent in intents]

    def _confirm(self, connection: sa.Connection, intents: Sequence[Intent]) -> None:
        """Through the triggers, like everybody's hints. Nobody's later word that people came is overwritten."""
        alike: defaultdict[tuple[int | None, datetime | None, int | None], list[Claim]] = defaultdict(list)
        for intent in intents:
            said, claim = intent.evidence, intent.claim
            alike[said.user_count, said.observed_at, claim.task.user_count].append(claim)
        for (count, at, count_claimed), claims in alike.items():
            parameters = {"b_count": count, "b_at": at, "count_claimed": count_claimed}
            connection.execute(sql.CONFIRM_EMPTY, parameters | _owned_ones(claims))

    def record(self, answers: Sequence[Answer]) -> list[bool]:
        """Write what came of the requests: the ledger always, the task only under the claim that sent it.

        False for an attempt that had been closed already, because its lease had run out. If it is ``unknown`` for want
        of an answer, this one completes it.
        """
        closings = [self.closing(answer) for answer in answers]
        with writing(self.engine) as connection:
            written = answer_store.close(
                connection, closings, rejoin_watch_seconds=self.rejoin_watch_seconds, posthumous=False
            )
        return [one is not None and one.was_open for one in written]

    def replay(self, closings: Sequence[Closing]) -> list[Written | None]:
        """Write answers that a process which is no more has left; None for those that were written before."""
        with writing(self.engine) as connection:
            return answer_store.close(
                connection, closings, rejoin_watch_seconds=self.rejoin_watch_seconds, posthumous=True
            )

    def closing(self, answer: Answer) -> Closing:
        """The answer by itself, as a journal keeps it."""
        task = answer.claim.task
        return Closing(
            attempt_id=answer.sent.attempt_id,
            attempt=answer.sent.attempt,
            task_id=task.task_id,
            room_id=task.room_id,
            app_id=task.app_id,
            instance=self.instance,
            token=answer.claim.token,
            outcome=answer.outcome,
            replied_at=answer.replied_at,
            detail=answer.detail,
            status=answer.status,
            wake_seconds=answer.wake_seconds,
            **{name: getattr(answer.reply, name, None) for name in _OF_REPLY},
        )

    def set_aside(self, items: Sequence[SetAside]) -> int:
        """Give claims back, and say why once per empty spell and reason; returns how often it was said."""
        with writing(self.engine) as connection:
            observed = [_hint(item.claim, item.observed) for item in items if item.observed is not None]
            if observed:
                connection.execute(sql.HINT, observed)
            rows = [
                {
                    **{f"b_{name}": value for name, value in _circumstances(item.claim.task, item.evidence).items()},
                    "b_app_id": item.app_id,
                    "b_reason": item.reason,
                    "b_auto_stop_at": item.claim.task.auto_stop_at,
                    "b_outcome": item.outcome,
                    "b_detail": item.detail,
                    "b_instance": self.instance,
                    "b_token": item.claim.token,
                }
                for item in items
                if item.outcome is not None
            ]
            noted = 0
            if rows:
                noted = connection.execute(sql.NOTE, rows, execution_options={"preserve_rowcount": True}).rowcount
            connection.execute(sql.GIVE_BACK, [{**_owned(item.claim), "b_wake": item.wake_seconds} for item in items])
        return noted

    def reap(self, older_than_seconds: float) -> list[Reason]:
        """Close attempts left in ``sent`` whose task nobody holds any more; returns the reason of each.

        Forgets daemons that have long been gone, too. ``older_than_seconds`` must exceed a request's total deadline.
        """
        with writing(self.engine) as connection:
            connection.execute(sql.FORGET_DAEMONS)
            closed = connection.execute(sql.REAP, {"not_within": -older_than_seconds})
            return [Reason(reason) for reason in closed.scalars()]

    def pulse(self, daemon: Daemon, gap_seconds: float, *, fresh: bool, doing: Doing | None = None) -> Pulse:
        """Say that this daemon is alive, and learn who else is.

        A stretch of watching goes on as long as any daemon has been seen within ``gap_seconds``; after a longer gap it
        begins anew. ``fresh`` is for the first beat of a process.
        """
        with writing(self.engine) as connection:
            found = connection.execute(sql.PULSE, {"b_instance": daemon.instance}).one()
            now, latest = found.now, found.latest_seen_at
            gap = latest is None or (now - latest).total_seconds() > gap_seconds
            since = now if gap else found.watching_since
            mine = {
                **{name: getattr(daemon, name) for name in Daemon.__slots__},
                **{name: getattr(doing or Doing(), name) for name in Doing.__slots__},
                "watching_since": since,
                "seen_at": now,
            }
            updated = 0
            if not fresh:
                updated = connection.execute(sql.BEAT, {**mine, "b_instance": daemon.instance}).rowcount
            if not updated:
                connection.execute(sa.insert(daemons).values(**mine, started_at=now))
        return Pulse(now, since, found.others + 1, found.released_until)

    def depart(self) -> None:
        """This daemon ends in good order: the others may have its share at once. Its row stays, as last seen."""
        with writing(self.engine) as connection:
            connection.execute(sa.update(daemons).where(daemons.c.instance == self.instance).values(mode=sql.ENDED))


def as_task(row: Sequence[Any]) -> Task:
    """A row of all columns of ``zego_tasks``, in the table's order."""
    values = list(row)
    values[_STATUS_AT] = Status(values[_STATUS_AT])
    return Task(*values)


_OF_REPLY = ("http_status", "code", "message", "request_id")
_STATUS_AT = list(tasks.c.keys()).index("status")


def _owned(claim: Claim) -> dict[str, Any]:
    return {"b_task_id": claim.task.task_id, "b_token": claim.token}


def _owned_ones(claims: Sequence[Claim]) -> dict[str, Any]:
    """The parameters of ``statements.OWNED_ONES``."""
    return {
        "task_ids": [claim.task.task_id for claim in claims],
        "owned": [(claim.task.task_id, claim.token) for claim in claims],
    }


def _hint(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    return {
        **_owned(claim),
        "b_count": evidence.user_count,
        "b_at": evidence.observed_at,
        "b_source": evidence.source,
    }


def _circumstances(task: Task, evidence: Evidence) -> Mapping[str, Any]:
    return {
        "task_id": task.task_id,
        "kind": task.kind,
        "room_id": task.room_id,
        "evidence_source": evidence.source,
        "evidence_at": evidence.observed_at,
        "empty_since": task.empty_since,
        "due_at": task.due_at,
    }
