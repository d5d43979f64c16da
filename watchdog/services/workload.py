"""The workload: what is in hand, how many more tasks may be claimed, and whose turn it is to send."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from watchdog.core.capacity import ROOMS_PER_CALL, verified_at_a_time
from watchdog.core.kinds import DEFAULT_KIND
from watchdog.core.model import Api, Outcome, Verify
from watchdog.core.policy import CurrentPolicy
from watchdog.services.claims import Claimed, Finished, StopSettings
from watchdog.services.occupancy import Occupancy
from watchdog.zego.pacing import Depart, Pace


@dataclass(frozen=True, slots=True)
class Overload:
    """An AppId with more due tasks than can be verified, and its present limits."""

    app_id: int
    rooms_per_second: float
    at_a_time: float
    stops_per_second: float


class Workload:
    """Counts the claims in hand. Claim no more for an API than its pace can send in time."""

    def __init__(
        self,
        *,
        apps: Sequence[int],
        paces: Mapping[str, Pace[int]],
        current_policy: CurrentPolicy,
        settings: StopSettings,
        occupancy: Occupancy | None = None,
    ) -> None:
        """``apps`` are the configured AppIds, ``paces`` those of the stop requests of each kind of tasks."""
        self.apps = apps
        self.default_app = next(iter(apps), None)
        """The AppId of tasks that name none: the first configured."""
        self._paces = paces
        self._occupancy = occupancy
        self._current_policy = current_policy
        self._settings = settings
        self._in_hand_of: Counter[Api | None] = Counter()
        self._seen = dict.fromkeys(Api(app_id, DEFAULT_KIND) for app_id in apps)
        """The APIs that matter for how many tasks are claimed at a time; the others would make it fewer for nothing."""
        self._tasks: Counter[str] = Counter()
        self._is_short = False
        self._is_overloaded: dict[Api, bool] = {}
        self._requests = {kind: asyncio.Semaphore(settings.concurrency) for kind in paces}
        self.leaving: set[str] = set()
        """The TaskIds whose attempts are being committed or wait for their moment: nothing should delay these."""
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

    def capacity(self, blocked: Collection[Api] = ()) -> tuple[int, set[Api]]:
        """How many claims to take at a time, and the APIs that have enough of them. ``blocked`` ones get none."""
        limit, full = self._capacity(blocked)
        self._is_short = limit == 0 or bool(full) or bool(blocked)
        return limit, full

    def _capacity(self, blocked: Collection[Api]) -> tuple[int, set[Api]]:
        self._is_overloaded.clear()
        room = {api: self._room(api) for api in self._seen if api not in blocked and api.of_all_kinds not in blocked}
        full = {api for api, left in room.items() if left <= 0}
        if self.is_closing or (room and len(full) == len(room)):
            return 0, full
        # All of the claims may be for one API.
        most = 4 * self._settings.concurrency
        return max(0, int(min([most, *(left for left in room.values() if left > 0)]))), full

    def _room(self, api: Api) -> float:
        """How many more claims to take for one API: as many as can be verified and sent within their lease.

        Also no more than can be sent while their verification is fresh. A claim whose lease runs short is given back
        unsent; if too many were claimed each time, none of them would be sent.
        """
        rules, settings = self._current_policy.rules, self._settings
        in_hand = self._in_hand_of[api]
        # Many are claimed at once, and only when few wait for their turn.
        bounds = [0.0 if in_hand > 3 * settings.concurrency else 4.0 * settings.concurrency]
        rate = self._rate(api)
        if 0 < rate < math.inf:
            patience = settings.lease_seconds - settings.request_timeout_seconds
            fresh = max(ROOMS_PER_CALL, int(rate * rules.verification_max_age_seconds / 2))
            bounds += [fresh, max(1, int(rate * patience / 2))]
        verified = self._verified_at_a_time(api.app_id)
        verifying = sum(number for other, number in self._in_hand_of.items() if other and other.app_id == api.app_id)
        self._is_overloaded[api] = verifying >= verified < min(bounds)
        return min(min(bounds) - in_hand, verified - verifying)

    def _rate(self, api: Api) -> float:
        return self._paces[api.kind].rate(api.app_id)

    def _verified_at_a_time(self, app_id: int) -> float:
        if self._occupancy is None or self._current_policy.rules.verify is Verify.OFF:
            return math.inf
        lease, timeout = self._settings.lease_seconds, self._settings.request_timeout_seconds
        return verified_at_a_time(self._occupancy.rooms_per_second(app_id), lease, timeout)

    def overload(self) -> Overload | None:
        """Whether the pace of verification kept the last ``capacity`` from being larger, and for which AppId."""
        for api, is_overloaded in self._is_overloaded.items():
            if is_overloaded and self._occupancy is not None:
                rooms = self._occupancy.rooms_per_second(api.app_id)
                return Overload(api.app_id, rooms, self._verified_at_a_time(api.app_id), self._rate(api))
        return None

    @asynccontextmanager
    async def slot(self, api: Api) -> AsyncIterator[Depart]:
        """Admission by the API's pace, then a request slot: a slow AppId or API takes no slots from the others.

        Yields what to await just before the request leaves.
        """
        async with self._paces[api.kind].admitted(api.app_id) as depart, self._requests[api.kind]:
            yield depart

    def begin(self, claimed: Claimed) -> None:
        """Count a claim as in hand."""
        self.in_hand += 1
        self._in_hand_of[claimed.api] += 1
        if claimed.api is not None and claimed.app_id in self.apps:
            self._seen[claimed.api] = None
        self._tasks[claimed.task_id] += 1

    def end(self, claimed: Claimed, result: Finished | None) -> bool:
        """Count the claim no more; ``result`` is None if it broke off. Returns whether a sweep would find work.

        It would if the row was given back, or if the last sweep may have left due tasks for want of capacity.
        """
        self.in_hand -= 1
        self._in_hand_of -= Counter([claimed.api])
        self._tasks -= Counter([claimed.task_id])
        if result is None:
            return self._is_short
        self.stopped += result.outcome is Outcome.STOPPED
        return self._is_short or not result.has_ended_the_task
