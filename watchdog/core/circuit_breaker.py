"""A circuit breaker per AppId: after a refusal the AppId is blocked, then one task at a time probes it."""


class Breaker:
    """Which AppIds are blocked; times are seconds of the caller's monotonic clock."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._until: dict[int, float] = {}

    def trip(self, app_id: int, now: float) -> bool:
        """Block an AppId that the vendor refused. Returns whether it was not blocked before."""
        is_new = app_id not in self._until
        self._until[app_id] = now + self._retry_seconds
        return is_new

    def close(self, app_id: int) -> bool:
        """Unblock an AppId that the vendor accepted. Returns whether it was blocked."""
        return self._until.pop(app_id, None) is not None

    def postpone(self, app_id: int, now: float) -> None:
        """Probe again later, because a probe had no result."""
        if app_id in self._until:
            self._until[app_id] = now + self._retry_seconds

    def hurry(self, now: float) -> None:
        """Probe every blocked AppId now, because the cause of the refusal may have been corrected."""
        self._until = dict.fromkeys(self._until, now)

    def unserved(self) -> set[int]:
        """The blocked AppIds, including those with a probe in flight: their tasks must not be stopped."""
        return set(self._until)

    def probe(self, now: float) -> int | None:
        """Return an AppId of which exactly one task may be tried now.

        A probe without a result expires after the same wait.
        """
        for app_id, until in self._until.items():
            if until <= now:
                self._until[app_id] = now + self._retry_seconds
                return app_id
        return None
