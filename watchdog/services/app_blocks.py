"""The APIs that refuse an AppId as a whole. This module alone uses the circuit breaker, and logs each change once."""

import structlog

from watchdog.clock import Clock
from watchdog.core.circuit_breaker import Breaker
from watchdog.core.model import ALL_KINDS, Api, Reply
from watchdog.core.outcomes import ReplyClass
from watchdog.services.claims import Claimed

log = structlog.get_logger(__name__)


class AppBlocks:
    """Blocks an API that refuses an AppId; after ``retry_seconds`` one task at a time tests whether it still does."""

    def __init__(self, retry_seconds: float, clock: Clock) -> None:
        self._breaker = Breaker(retry_seconds)
        self._clock = clock
        self._unverifiable: set[int] = set()
        """The AppIds of which no task can be verified, because the RTC API refuses them."""

    def blocked(self) -> set[Api]:
        """Whose tasks must wait, including those that wait for a probe."""
        return self._breaker.unserved()

    @property
    def app_ids(self) -> set[int]:
        """The AppIds that are refused by at least one API."""
        return {api.app_id for api in self.blocked()}

    def is_blocked(self, claimed: Claimed) -> bool:
        """Whether this task must wait; probes and an operator's orders do not."""
        if claimed.api is None or claimed.probe or claimed.manual:
            return False
        return not self._breaker.unserved().isdisjoint((claimed.api, claimed.api.of_all_kinds))

    def next_probe(self) -> Api | None:
        """Of which one task may be tried now, if there is one."""
        return self._breaker.probe(self._clock.monotonic())

    def postpone(self, api: Api) -> None:
        """A request got no answer: if the API is blocked, the next probe comes a full wait later."""
        self._breaker.postpone(api, self._clock.monotonic())

    def retry_now(self) -> None:
        """The configuration has changed: probe everything that is blocked at once."""
        self._breaker.hurry(self._clock.monotonic())

    def unblock(self, api: Api) -> None:
        """The API has accepted the AppId, in a request that no refusal of the RTC API prevented."""
        for one in {api, api.of_all_kinds}:
            if self._breaker.close(one):
                log.info("app_unblocked", app_id=one.app_id, kind=one.kind)

    def block(self, api: Api, reply_class: ReplyClass, reply: Reply) -> None:
        """The API has refused the AppId as a whole."""
        if self._breaker.trip(api, self._clock.monotonic()):
            log.error(
                "app_blocked",
                app_id=api.app_id,
                kind=api.kind,
                reply_class=reply_class.value,
                code=reply.code,
                message=reply.message,
                request_id=reply.request_id,
                next_step="none of these tasks can be stopped until this is corrected: zego-watchdog check",
            )

    def note_verification(self, app_id: int, refusal: tuple[ReplyClass, Reply] | None) -> None:
        """Block all tasks of the AppId while the RTC API refuses it as a whole; ``refusal`` None: it does not.

        For use where each stop must be verified first: then such an AppId cannot be served.
        """
        if refusal is not None:
            self._unverifiable.add(app_id)
            self.block(Api(app_id, ALL_KINDS), *refusal)
        elif app_id in self._unverifiable:
            self._unverifiable.discard(app_id)
            self.unblock(Api(app_id, ALL_KINDS))
