"""An event loop that wakes on time, not up to a millisecond late."""

import asyncio
import select
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class FineSelector(selectors.EpollSelector):
    """Waits with microsecond precision; ``epoll_wait`` rounds up to whole milliseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            # An epoll object is readable as soon as one of its files is ready.
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like ``asyncio.run``, on such a loop."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FineSelector())) as runner:
        return runner.run(main)
