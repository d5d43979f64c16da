"""Observe mode: looks at due tasks and records what would be done with them, without a claim and without a stop.

    due rows, a page at a time ──► ask the vendor, in the background ──► decide ──► note once per empty spell

A row is left as it is, so that a daemon in enforce mode on the same database can claim it at any time. What has been
noted is remembered here.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from watchdog.clock import Clock
from watchdog.core import policy, timing
from watchdog.core.capacity import ROOMS_PER_CALL
from watchdog.core.model import ALL_KINDS, Api, Evidence, Outcome, Task
from watchdog.core.policy import Verdict
from watchdog.errors import DatabaseError
from watchdog.observer import Observer
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.claims import DETAIL_UNSERVED, UNSERVED_SECONDS, Claimed, announce
from watchdog.services.verification import Unsent, Verifier
from watchdog.services.workload import Workload
from watchdog.store.aio.calls import AsyncPolling, AsyncTasks
from watchdog.store.records import Claim, SetAside

log = structlog.get_logger(__name__)

_EXAMINED_AT_ONCE: Final = 100
_REMEMBERED: Final = 10_000
_BLOCKED_SECONDS: Final = 5.0
_SOONEST_SECONDS: Final = 2.0
"""A task that is not settled is examined again after this time at the earliest."""


class _Known(NamedTuple):
    """An examined task: its empty spell, and when to examine it again (monotonic; infinite: it has been noted)."""

    empty_since: datetime | None
    again_at: float


@dataclass(kw_only=True, eq=False, repr=False)
class DryRun:
    """``run_once`` begins to examine due tasks; ``drain`` waits for them.

    ``on_progress`` is called when there is room for tasks that could not be examined yet.
    """

    tasks: AsyncTasks
    polling: AsyncPolling
    verifier: Verifier
    blocks: AppBlocks
    workload: Workload
    clock: Clock
    on_progress: Callable[[], None] = lambda: None
    observer: Observer = field(default_factory=Observer)
    is_alone: bool = True
    """Whether no daemon in enforce mode is alive: then the tasks must be planned here."""

    _known: dict[str, _Known] = field(default_factory=dict, init=False)
    _examining: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _after: tuple[datetime, str] | None = field(default=None, init=False)
    _from_start_at: float = field(default=-math.inf, init=False)
    _has_more: bool = field(default=False, init=False)

    async def run_once(self) -> int:
        """Begin to examine due tasks; return how many rows were read. Raises DatabaseError."""
        found = await self._due()
        of_app: defaultdict[tuple[int | None, str], list[Task]] = defaultdict(list)
        for task in found:
            if task.task_id not in self._examining and not self._is_settled(task):
                of_app[self.workload.default_app if task.app_id is None else task.app_id, task.kind].append(task)
        blocked = self.blocks.blocked()
        waiting = {Api(app_id, one) for app_id, kind in of_app if app_id is not None for one in (kind, ALL_KINDS)}
        probe = self.blocks.next_probe() if blocked & waiting else None
        for (app_id, kind), tasks in of_app.items():
            refused = blocked & {(app_id, kind), (app_id, ALL_KINDS)}
            if refused:
                # One task tests whether ZEGO still refuses the AppId.
                number = int(probe in refused)
                probe = None if number else probe
                for task in tasks[number:]:
                    self._remember(task, self.clock.monotonic() + _BLOCKED_SECONDS)
                tasks = tasks[:number]  # noqa: PLW2901 - the rest waits
            for start in range(0, len(tasks), ROOMS_PER_CALL):
                self._begin(app_id, tasks[start : start + ROOMS_PER_CALL])
        return len(found)

    async def drain(self) -> None:
        """Wait for the examinations that have begun."""
        if self._examining:
            await asyncio.wait(set(self._examining.values()))

    async def close(self) -> None:
        """Cancel the examinations: nothing is lost."""
        for examining in self._examining.values():
            examining.cancel()
        await self.drain()

    async def _due(self) -> Sequence[Task]:
        """Read the rows to be examined again, then the next page of due rows."""
        now, most = self.clock.monotonic(), _EXAMINED_AT_ONCE - len(self._examining)
        if now >= self._from_start_at:
            self._from_start_at, self._after = now + timing.OBSERVE_AGAIN_SECONDS, None
        again = [task_id for task_id, known in self._known.items() if known.again_at <= now][: max(0, most)]
        found = {task.task_id: task for task in await self.tasks.due(len(again), task_ids=again)} if again else {}
        for task_id in set(again) - found.keys():
            # Ended, claimed, or not due any more.
            self._known.pop(task_id, None)
        most -= len(found)
        page = await self.tasks.due(most, after=self._after) if most > 0 else []
        if page and page[-1].wake_at is not None:
            self._after = page[-1].wake_at, page[-1].task_id
        self._has_more = len(page) >= most
        return list((found | {task.task_id: task for task in page}).values())

    def _is_settled(self, task: Task) -> bool:
        known = self._known.get(task.task_id)
        return known is not None and known.empty_since == task.empty_since and known.again_at > self.clock.monotonic()

    def _remember(self, task: Task, again_at: float) -> None:
        self._known.pop(task.task_id, None)
        if len(self._known) >= _REMEMBERED:
            # The ledger still notes it once; ZEGO is asked again when the rows are read from the start.
            self._known.pop(next(iter(self._known)))
        self._known[task.task_id] = _Known(task.empty_since, again_at)

    def _begin(self, app_id: int | None, tasks: Sequence[Task]) -> None:
        examining = asyncio.create_task(self._examine(app_id, tasks))
        self._examining.update(dict.fromkeys((task.task_id for task in tasks), examining))

        def finished(examining: asyncio.Task[None]) -> None:
            for task in tasks:
                self._examining.pop(task.task_id, None)
            if self._has_more:
                self.on_progress()
            if not examining.cancelled() and (error := examining.exception()) is not None:
                trace = None if isinstance(error, DatabaseError) else error
                log.error("dry_run_failed", error=str(error), tasks=len(tasks), exc_info=trace)
                self._from_start_at = -math.inf

        examining.add_done_callback(finished)

    async def _examine(self, app_id: int | None, tasks: Sequence[Task]) -> None:
        claims = [Claimed(Claim(task, "", earlier_unknown=False), app_id, math.inf) for task in tasks]
        if app_id is None or app_id not in self.workload.apps:
            unserved = Unsent(Outcome.WITHHELD, DETAIL_UNSERVED, UNSERVED_SECONDS)
            await self._note([(claimed, None, unserved) for claimed in claims])
            return
        answers = await self.verifier.ask_in_background(app_id, [task.room_id for task in tasks])
        await self._note([self._judge(claimed, app_id, answers) for claimed in claims])
        occupied = {room_id: seen for room_id, seen in answers.items() if seen.user_count}
        if occupied:
            await self.polling.observe(app_id, self.workload.default_app, occupied)

    def _judge(
        self, claimed: Claimed, app_id: int, answers: Mapping[str, Evidence]
    ) -> tuple[Claimed, Evidence | None, Unsent]:
        vendor, decision = self.verifier.judge(claimed, app_id, answers.get(claimed.room_id))
        if decision.verdict is Verdict.STOP:
            return claimed, vendor, Unsent(Outcome.WOULD_STOP, decision.rule, math.inf, decision.reason)
        return claimed, vendor, self.verifier.unsent(claimed, vendor, decision)

    async def _note(self, found: Sequence[tuple[Claimed, Evidence | None, Unsent]]) -> None:
        items = [
            SetAside(
                claim=claimed.claim,
                app_id=claimed.app_id,
                outcome=unsent.outcome,
                reason=unsent.reason or policy.reason(claimed.claim.task, vendor),
                detail=unsent.detail,
                evidence=vendor or claimed.claim.task.evidence,
                observed=None,
                wake_seconds=unsent.wake_seconds,
            )
            for claimed, vendor, unsent in found
        ]
        noted = await self.tasks.note(items)
        for (claimed, _, unsent), item, is_news in zip(found, items, noted, strict=True):
            self._remember(claimed.claim.task, self.clock.monotonic() + max(_SOONEST_SECONDS, unsent.wake_seconds))
            if is_news and item.outcome is not None:
                self.observer.attempt(item.outcome, item.reason)
                people = item.evidence.user_count
                announce(claimed, item.outcome, reason=item.reason.value, detail=item.detail, people=people)
