"""A circuit breaker per AppId: after a credentials or configuration error the whole AppId waits, then one task tries."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Open:
    until: float
    probing: bool = False


class Breaker:
    """Which AppIds may be served; times are seconds of the caller's monotonic clock."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._open: dict[int, _Open] = {}

    def trip(self, app_id: int, now: float) -> bool:
        """The vendor refused the whole AppId. True when it was served until now."""
        news = app_id not in self._open
        self._open[app_id] = _Open(now + self._retry_seconds)
        return news

    def close(self, app_id: int) -> bool:
        """The vendor accepted the AppId. True when it was not served until now."""
        return self._open.pop(app_id, None) is not None

    def postpone(self, app_id: int, now: float) -> None:
        """A probe came to nothing: another one later."""
        if app_id in self._open:
            self._open[app_id] = _Open(now + self._retry_seconds)

    def unserved(self) -> set[int]:
        """The AppIds whose tasks are to be left alone, those that await a probe included."""
        return set(self._open)

    def probe(self, now: float) -> int | None:
        """An AppId whose waiting is over: one of its tasks, and no more, may be tried now."""
        for app_id, state in self._open.items():
            if not state.probing and state.until <= now:
                state.probing = True
                # Should the probe never come back, another may go out.
                state.until = now + self._retry_seconds
                return app_id
            if state.probing and state.until <= now:
                state.probing = False
        return None
