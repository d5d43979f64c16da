"""The reaper: closes attempts that a dead daemon left in ``sent``; answers found in a spool come first."""

from dataclasses import dataclass, field
from typing import Final

import structlog

from watchdog.core.model import Outcome
from watchdog.observer import Observer
from watchdog.store.aio.answers import Answers
from watchdog.store.aio.calls import AsyncLedger

log = structlog.get_logger(__name__)

REAP_SECONDS: Final = 15.0


@dataclass(kw_only=True, eq=False, repr=False)
class Reaper:
    """``run_once`` does both; ``replay`` alone is for the start, before anything is claimed."""

    answers: Answers
    ledger: AsyncLedger
    lease_seconds: float
    observer: Observer = field(default_factory=Observer)

    async def replay(self) -> None:
        """Record answers that a process could not record. Raises DatabaseError."""
        for outcome, reason in await self.answers.replay():
            self.observer.attempt(outcome, reason)

    async def run_once(self) -> int:
        """Close attempts whose lease is over as ``unknown``; returns how many. Raises DatabaseError."""
        await self.replay()
        closed = await self.ledger.reap(self.lease_seconds)
        if closed:
            log.warning("abandoned_attempts_closed", attempts=len(closed))
        for reason in closed:
            self.observer.attempt(Outcome.UNKNOWN, reason)
        return len(closed)
