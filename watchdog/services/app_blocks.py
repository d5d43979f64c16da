"""The AppIds that ZEGO refuses as a whole: this module alone uses the circuit breaker, and it logs each change once."""

import structlog

from watchdog.clock import Clock
from watchdog.core.circuit_breaker import Breaker
from watchdog.core.model import Reply
from watchdog.core.outcomes import ReplyClass
from watchdog.services.claims import Claimed

log = structlog.get_logger(__name__)


class AppBlocks:
    """Blocks an AppId that ZEGO refuses; after ``retry_seconds`` one task at a time tests whether it still does."""

    def __init__(self, retry_seconds: float, clock: Clock) -> None:
        self._breaker = Breaker(retry_seconds)
        self._clock = clock
        self._unverifiable: set[int] = set()
        """The AppIds that are blocked because the RTC API refuses their credentials."""

    def blocked(self) -> set[int]:
        """The AppIds whose tasks must wait, including those that wait for a probe."""
        return self._breaker.unserved()

    def is_blocked(self, claimed: Claimed) -> bool:
        """Whether this task must wait; probes and an operator's orders do not."""
        return claimed.app_id in self._breaker.unserved() and not claimed.probe and not claimed.manual

    def next_probe(self) -> int | None:
        """An AppId of which one task may be tried now, if there is one."""
        return self._breaker.probe(self._clock.monotonic())

    def postpone(self, app_id: int) -> None:
        """A request got no answer: if the AppId is blocked, the next probe comes a full wait later."""
        self._breaker.postpone(app_id, self._clock.monotonic())

    def retry_now(self) -> None:
        """The configuration has changed: probe every blocked AppId at once."""
        self._breaker.hurry(self._clock.monotonic())

    def unblock(self, app_id: int) -> None:
        """ZEGO has accepted the AppId."""
        if self._breaker.close(app_id):
            log.info("app_unblocked", app_id=app_id)

    def block(self, app_id: int, reply_class: ReplyClass, reply: Reply) -> None:
        """ZEGO has refused the AppId as a whole."""
        if self._breaker.trip(app_id, self._clock.monotonic()):
            log.error(
                "app_blocked",
                app_id=app_id,
                reply_class=reply_class.value,
                code=reply.code,
                message=reply.message,
                request_id=reply.request_id,
                next_step="no task of this AppId can be stopped until this is corrected: zego-watchdog check",
            )

    def note_verification(self, app_id: int, refusal: Reply | None) -> None:
        """Block the AppId while the RTC API refuses its credentials; ``refusal`` None: it does not.

        For use where each stop must be verified first: then such an AppId cannot be served.
        """
        if refusal is not None:
            self._unverifiable.add(app_id)
            self.block(app_id, ReplyClass.CREDENTIALS, refusal)
        elif app_id in self._unverifiable:
            self._unverifiable.discard(app_id)
            self.unblock(app_id)
