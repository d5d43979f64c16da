"""The workload: what is in hand, how many more tasks may be claimed, and whose turn it is to send."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

from watchdog.core.model import Outcome
from watchdog.core.policy import CurrentPolicy
from watchdog.services.claims import Claimed, Finished, StopSettings
from watchdog.zego.client import ROOMS_PER_CALL
from watchdog.zego.pacing import Depart, Pace


class Workload:
    """Counts the claims in hand. Claim no more of an AppId than its pace can send in time."""

    def __init__(
        self, *, apps: Sequence[int], pace: Pace[int], current_policy: CurrentPolicy, settings: StopSettings
    ) -> None:
        """``apps`` are the configured AppIds, ``pace`` is the pace of stop requests."""
        self.apps = apps
        self.default_app = next(iter(apps), None)
        """The AppId of tasks that name none: the first configured."""
        self._pace = pace
        self._current_policy = current_policy
        self._settings = settings
        self._in_hand_of: Counter[int | None] = Counter()
        self._tasks: Counter[str] = Counter()
        self._is_short = False
        self._requests = asyncio.Semaphore(settings.concurrency)
        self.in_hand = 0
        """How many claims are being worked on."""
        self.requests = 0
        """How many stop requests have been sent since the start."""
        self.stopped = 0
        """How many tasks have been stopped since the start."""
        self.is_closing = False
        """Whether nothing more may be claimed or sent."""

    @property
    def tasks(self) -> Collection[str]:
        """The TaskIds in hand."""
        return self._tasks.keys()

    def capacity(self, blocked: Collection[int] = ()) -> tuple[int, set[int]]:
        """How many claims to take at a time, and the AppIds that have enough of them. ``blocked`` AppIds get none."""
        limit, full = self._capacity(blocked)
        self._is_short = limit == 0 or bool(full) or bool(blocked)
        return limit, full

    def _capacity(self, blocked: Collection[int]) -> tuple[int, set[int]]:
        # Many are claimed at once, and only when few wait for their turn.
        enough = self.is_closing or self.in_hand > 3 * self._settings.concurrency
        most = 0 if enough else 4 * self._settings.concurrency - self.in_hand
        room = {app_id: self._room(app_id) for app_id in self.apps if app_id not in blocked}
        full = {app_id for app_id, left in room.items() if left <= 0}
        if room and len(full) == len(room):
            return 0, full
        # All of the claims may belong to one AppId.
        return max(0, int(min([most, *(left for left in room.values() if left > 0)]))), full

    def _room(self, app_id: int) -> float:
        """How many more claims of one AppId to take: as many as can be sent while their verification is fresh.

        Also no more than can be sent within their lease. A claim whose lease runs short is given back unsent; if it
        were claimed again as the last one each time, nothing would be sent.
        """
        rate = self._pace.rate(app_id)
        if not 0 < rate < math.inf:
            return math.inf
        fresh = max(ROOMS_PER_CALL, int(rate * self._current_policy.rules.verification_max_age_seconds / 2))
        patience = self._settings.lease_seconds - self._settings.request_timeout_seconds
        return min(fresh, max(1, int(rate * patience / 2))) - self._in_hand_of[app_id]

    @asynccontextmanager
    async def slot(self, app_id: int) -> AsyncIterator[Depart]:
        """Admission by the AppId's pace, then a request slot: a slow AppId takes no slots from the others.

        Yields what to await just before the request leaves.
        """
        async with self._pace.admitted(app_id) as depart, self._requests:
            yield depart

    def begin(self, group: Sequence[Claimed]) -> None:
        """Count a group of one AppId's claims as in hand."""
        self.in_hand += len(group)
        self._in_hand_of[group[0].app_id] += len(group)
        self._tasks.update(one.task_id for one in group)

    def end(self, group: Sequence[Claimed], results: Iterable[Finished]) -> bool:
        """Count the group no more. Returns whether another sweep would find something to do.

        It would if a row was given back, or if the last sweep may have left due tasks for want of capacity.
        """
        self.in_hand -= len(group)
        self._in_hand_of[group[0].app_id] -= len(group)
        self._tasks -= Counter(one.task_id for one in group)
        results = list(results)
        self.stopped += sum(result.outcome is Outcome.STOPPED for result in results)
        return self._is_short or not all(result.has_ended_the_task for result in results)
