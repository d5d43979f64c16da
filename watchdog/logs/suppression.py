"""A repeated warning is written a few times and then counted, so that an outage does not hide its cause.

    10 lines, then none … and after a minute: {"event": "retry", "app_id": 1234567890, "suppressed": 5321}

Repeated means: the same event, AppId and code. Only warnings and errors are suppressed. INFO, which says what was done
to a task, and DEBUG are always written.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

LIMIT: Final = 10
PERIOD_SECONDS: Final = 60.0

_LEVELS: Final = frozenset({"warning", "error", "critical"})
_KEY_FIELDS: Final = ("logger", "app_id", "code", "http_status", "reply_class", "kind", "job")
# The vendor or a sender of callbacks must not be able to fill the memory with new values.
_MOST_KEYS: Final = 500

_Key = tuple[tuple[str, object], ...]


@dataclass(slots=True)
class _Window:
    ends_at: float
    seen: int = 0


@dataclass(eq=False)
class Repeats:
    """``admit`` decides on each event; ``ended`` returns how many were suppressed. Thread-safe."""

    monotonic: Callable[[], float]
    limit: int = LIMIT
    period_seconds: float = PERIOD_SECONDS
    # Ordered by their ends.
    _windows: dict[_Key, _Window] = field(init=False, default_factory=dict)
    _unreported: list[tuple[_Key, int]] = field(init=False, default_factory=list)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def admit(self, event: Mapping[str, object]) -> bool:
        """Whether to write ``event``, which includes its ``level``; a summary is always written and not counted."""
        if event.get("level") not in _LEVELS or "suppressed" in event:
            return True
        with self._lock:
            key = self._key(event)
            now = self.monotonic()
            window = self._windows.get(key)
            if window is None or now >= window.ends_at:
                self._close(key)
                window = self._windows[key] = _Window(now + self.period_seconds)
            window.seen += 1
            return window.seen <= self.limit

    def ended(self, *, all_of_them: bool = False) -> list[dict[str, object]]:
        """Close the windows that ended (or all); return an event with ``suppressed`` for each that suppressed some."""
        with self._lock:
            now = self.monotonic()
            for key in list(takewhile(lambda key: all_of_them or now >= self._windows[key].ends_at, self._windows)):
                self._close(key)
            unreported, self._unreported = self._unreported, []
        return [{**dict(key), "suppressed": number} for key, number in unreported]

    def next_end(self) -> float | None:
        """In how many seconds ``ended`` will return something; None if there is nothing to wait for."""
        with self._lock:
            if self._unreported:
                return 0.0
            first = next(iter(self._windows.values()), None)
            return None if first is None else max(0.0, first.ends_at - self.monotonic())

    def _close(self, key: _Key) -> None:
        window = self._windows.pop(key, None)
        if window is not None and window.seen > self.limit:
            self._unreported.append((key, window.seen - self.limit))

    def _key(self, event: Mapping[str, object]) -> _Key:
        name: _Key = (("level", event.get("level")), ("event", str(event.get("event"))))
        for key in (name + tuple((one, event[one]) for one in _KEY_FIELDS if _is_plain(event.get(one))), name):
            if key in self._windows or len(self._windows) < _MOST_KEYS:
                return key
        return (("level", event.get("level")), ("event", "other"))


def _is_plain(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= 100)
