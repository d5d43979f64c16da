"""The values that travel between the services and the tables; all immutable, times aware UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from watchdog.core.model import Evidence, Outcome, Reason, Reply, Status, Task
from watchdog.core.outcomes import TASK_BECOMES

DETAIL_LEASE_EXPIRED: Final = "the daemon that sent this did not live to record the answer"
"""The ledger's ``detail`` of an attempt that was closed as ``unknown`` because its daemon died."""

DETAIL_ROOM_REFUSED: Final = "room_refused"
"""The ledger's ``detail`` of a stop that was withheld because ZEGO refuses the RoomId."""


def claim_token(instance: str, claim: object) -> str:
    """Return the token of one claim of a process. The plus sign says that it knows all kinds of tasks (schema 0008)."""
    return f"{instance}/{claim}+"


@dataclass(frozen=True, slots=True)
class Peek:
    """Whether there is work: rows without a plan, since when rows are due, and the time of the next one after ``now``.

    Due rows may have to wait, for capacity or for a blocked AppId; ``wake_at`` does not depend on them.
    """

    now: datetime
    newly_empty: bool
    due_since: datetime | None
    wake_at: datetime | None

    @property
    def due(self) -> bool:
        return self.due_since is not None


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that is ours until its lease ends; every write about it names ``token``.

    ``abandoned`` has the reasons of attempts without a recorded answer, which this claim closed as ``unknown``.
    """

    task: Task
    token: str
    earlier_unknown: bool
    abandoned: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """A request to be sent. ``evidence`` allows it; evidence from ZEGO also refreshes the task's hint.

    ``despite_people``: people in the room do not prevent it, and the hint is left as it is.
    """

    claim: Claim
    app_id: int
    reason: Reason
    evidence: Evidence
    auto_stop_at: datetime | None
    despite_people: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """An intent that is committed in state ``sent``; ``id`` is the ledger's.

    ``number`` counts the requests of the task from 1. The request leaves at ``sent_at``.
    """

    intent: Intent
    id: int
    number: int
    sent_at: datetime
    instance: str

    def answer(
        self,
        outcome: Outcome,
        *,
        replied_at: datetime | None = None,
        reply: Reply | None = None,
        detail: str | None = None,
        wake_seconds: float = 0.0,
    ) -> "Answer":
        """Return the result to be recorded. A task that goes on is looked at again after ``wake_seconds``."""
        task = self.intent.claim.task
        return Answer(
            attempt_id=self.id,
            attempt=self.number,
            task_id=task.task_id,
            room_id=task.room_id,
            app_id=task.app_id,
            instance=self.instance,
            token=self.intent.claim.token,
            outcome=outcome,
            replied_at=replied_at,
            http_status=None if reply is None else reply.http_status,
            code=None if reply is None else reply.code,
            message=None if reply is None else reply.message,
            request_id=None if reply is None else reply.request_id,
            detail=detail,
            status=TASK_BECOMES[outcome],
            wake_seconds=wake_seconds,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of an attempt: everything that the ledger, the task and the answer spool need.

    ``status`` is the task's final status, None if the task goes on and is woken after ``wake_seconds``.
    """

    attempt_id: int
    attempt: int
    task_id: str
    room_id: str
    app_id: int | None
    instance: str
    token: str
    outcome: Outcome
    replied_at: datetime | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    detail: str | None
    status: Status | None
    wake_seconds: float


@dataclass(frozen=True, slots=True)
class SetAside:
    """A claim to be given back without a request; ``outcome`` None leaves no row in the ledger.

    ``observed`` is an observation of ZEGO's that is stored as a hint first; people in it end the empty spell. If the
    room stays empty, the row is looked at again after ``wake_seconds``.
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
class Instance:
    """A daemon's identity: these columns of its row in ``zego_daemons``."""

    instance: str
    host: str
    pid: int
    version: str
    mode: str


@dataclass(frozen=True, slots=True)
class Activity:
    """What a daemon reports of its work with each heartbeat: these columns of its row in ``zego_daemons``."""

    in_flight: int = 0
    requests: int = 0
    guard_tripped_at: datetime | None = None
    guard_held: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The result of a heartbeat: when the unbroken watch began, and how many daemons are alive, this one included.

    ``enforcing`` counts the other daemons that are alive in enforce mode. Until ``guard_released_until`` an operator
    has switched off this daemon's guard.
    """

    now: datetime
    watching_since: datetime
    alive: int
    enforcing: int = 0
    guard_released_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a task, as a trigger wrote it. ``attempts`` counts the webhook's attempts, this one included."""

    id: int
    type: str
    task_id: str
    kind: str
    app_id: int | None
    room_id: str
    occurred_at: datetime
    data: Mapping[str, Any]
    attempts: int


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many events wait for their delivery, and how many were given up; both counted up to a limit.

    ``oldest_pending_at`` is when the oldest that waits happened.
    """

    now: datetime
    pending: int
    undelivered: int
    oldest_pending_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of a claimed event, or of an attempt to deliver it; ``error`` is what the receiver said.

    Not delivered, it is tried again after ``wake_seconds``; None gives it up. Not delivered and without an error, it
    was not attempted: it is given back, and the attempt does not count.
    """

    event_id: int
    delivered: bool
    error: str | None
    wake_seconds: float | None
