"""A circuit breaker per API of an AppId: after a refusal it is blocked, then one task at a time probes it."""

from watchdog.core.model import Api


class Breaker:
    """Which APIs are blocked; times are seconds of the caller's monotonic clock."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._until: dict[Api, float] = {}

    def trip(self, api: Api, now: float) -> bool:
        """Block an API that refused the AppId. Returns whether it was not blocked before."""
        is_new = api not in self._until
        self._until[api] = now + self._retry_seconds
        return is_new

    def close(self, api: Api) -> bool:
        """Unblock an API that accepted the AppId. Returns whether it was blocked."""
        return self._until.pop(api, None) is not None

    def postpone(self, api: Api, now: float) -> None:
        """Probe again later, because a probe had no result."""
        if api in self._until:
            self._until[api] = now + self._retry_seconds

    def hurry(self, now: float) -> None:
        """Probe every blocked API now, because the cause of the refusal may have been corrected."""
        self._until = dict.fromkeys(self._until, now)

    def unserved(self) -> set[Api]:
        """The blocked APIs, including those with a probe in flight: their tasks must not be stopped."""
        return set(self._until)

    def probe(self, now: float) -> Api | None:
        """Return an API of which exactly one task may be tried now.

        A probe without a result expires after the same wait.
        """
        for api, until in self._until.items():
            if until <= now:
                self._until[api] = now + self._retry_seconds
                return api
        return None
