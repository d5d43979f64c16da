"""A claimed task on its way through the services, and what came of it."""

from dataclasses import dataclass
from typing import Final

import structlog

from watchdog.clock import Clock
from watchdog.core import outcomes
from watchdog.core.model import Api, Outcome, Reply
from watchdog.store.records import Claim

log = structlog.get_logger(__name__)

DETAIL_UNSERVED: Final = "app_not_configured"

UNSERVED_SECONDS: Final = 60.0
"""How long a task of an AppId that is not configured waits."""

_LOG_LEVELS: Final = {
    **dict.fromkeys((Outcome.BLOCKED, Outcome.REJECTED), "error"),
    **dict.fromkeys((Outcome.AUTO_STOPPED, Outcome.UNKNOWN, Outcome.RETRY, Outcome.WITHHELD), "warning"),
}


@dataclass(frozen=True, slots=True)
class StopSettings:
    """How stopping is done; durations in seconds. ``config.yaml`` explains each."""

    concurrency: int = 32
    request_timeout_seconds: float = 8
    lease_seconds: float = 20
    max_attempts: int = 20


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that this process has claimed.

    ``until`` is the end of the lease on the monotonic clock, counted from before the claim. ``manual`` marks an
    operator's order. A ``probe`` tests whether ZEGO still refuses the AppId.
    """

    claim: Claim
    app_id: int | None
    until: float
    manual: bool = False
    probe: bool = False

    @property
    def api(self) -> Api | None:
        """The API that stops the task; None if no AppId is known."""
        return None if self.app_id is None else Api(self.app_id, self.claim.task.kind)

    @property
    def task_id(self) -> str:
        return self.claim.task.task_id

    @property
    def room_id(self) -> str:
        return self.claim.task.room_id

    @property
    def is_unplanned(self) -> bool:
        """Whether no empty spell asked for the stop: an operator did, or the task's age."""
        return self.manual or self.claim.task.due_at is None

    def lease_suffices(self, clock: Clock, settings: StopSettings) -> bool:
        """Whether a request that is sent now ends before the lease does."""
        return self.until - clock.monotonic() > settings.request_timeout_seconds


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a claim; ``outcome`` is None if the row was given back without an entry in the ledger."""

    outcome: Outcome | None
    detail: str | None
    reply: Reply | None = None

    @property
    def has_ended_the_task(self) -> bool:
        """False if the row must be looked at again."""
        return self.outcome is not None and outcomes.TASK_BECOMES[self.outcome] is not None


def announce(claimed: Claimed, outcome: Outcome, **fields: object) -> None:
    """Log one event for an outcome, with the ids as fields; fields that are None are left out."""
    getattr(log, _LOG_LEVELS.get(outcome, "info"))(
        outcome.value,
        task_id=claimed.task_id,
        room_id=claimed.room_id,
        app_id=claimed.app_id,
        kind=claimed.claim.task.kind,
        outcome=outcome.value,
        **{name: value for name, value in fields.items() if value is not None},
    )
