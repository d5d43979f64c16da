"""A circuit breaker per AppId: refused as a whole, an AppId waits, and then one task at a time tries."""


class Breaker:
    """Which AppIds may be served; times are seconds of the caller's monotonic clock."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._until: dict[int, float] = {}

    def trip(self, app_id: int, now: float) -> bool:
        """The vendor refused the whole AppId. True when it was served until now."""
        news = app_id not in self._until
        self._until[app_id] = now + self._retry_seconds
        return news

    def close(self, app_id: int) -> bool:
        """The vendor accepted the AppId. True when it was not served until now."""
        return self._until.pop(app_id, None) is not None

    def postpone(self, app_id: int, now: float) -> None:
        """A probe came to nothing: another one later."""
        if app_id in self._until:
            self._until[app_id] = now + self._retry_seconds

    def hurry(self, now: float) -> None:
        """Something has changed that the vendor may have refused us for: every AppId that waits may be tried now."""
        self._until = dict.fromkeys(self._until, now)

    def unserved(self) -> set[int]:
        """The AppIds whose tasks are to be left alone, those that await a probe included."""
        return set(self._until)

    def probe(self, now: float) -> int | None:
        """An AppId whose waiting is over: one of its tasks, and no more, may be tried now.

        A probe that never comes back is given up after the same wait.
        """
        for app_id, until in self._until.items():
            if until <= now:
                self._until[app_id] = now + self._retry_seconds
                return app_id
        return None
