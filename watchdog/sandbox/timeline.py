"""The time of the fake ZEGO: its log, and what happens at set times. Pure."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Event = Mapping[str, Any]
"""One log entry, JSON-compatible; it always has ``seq``, ``at`` and ``event``."""


def stream(seed: int, name: str) -> random.Random:
    """Return one of the independent random streams of a seed."""
    return random.Random(f"{seed}:{name}")  # noqa: S311  # repeatable runs are the purpose


class Log:
    """The append-only log. ``seq`` counts from 1 without gaps."""

    def __init__(self) -> None:
        self._entries: list[Event] = []

    def append(self, at: float, event: str, /, **fields: Any) -> None:
        """Add an entry for an event at ``at`` (Unix seconds)."""
        self._entries.append({"seq": len(self._entries) + 1, "at": at, "event": event, **fields})

    def since(self, seq: int) -> list[Event]:
        return self._entries[seq:]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Timeline:
    """The time up to which everything has happened, and the deadlines after it. Time never runs backwards."""

    def __init__(self) -> None:
        self.now = 0.0
        # The counter keeps deadlines of the same time in the order in which they were set.
        self._deadlines: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()

    def add(self, at: float, act: Callable[[], None]) -> None:
        """Set a deadline: ``act`` is called when the time is exactly ``at`` (Unix seconds)."""
        heapq.heappush(self._deadlines, (at, next(self._counter), act))

    @property
    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None

    def advance(self, now: float) -> float:
        """Apply every deadline up to ``now``; return the time, which is ``now`` or later."""
        now = max(now, self.now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self.now, _, act = heapq.heappop(self._deadlines)
            act()
        self.now = now
        return now
