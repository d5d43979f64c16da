"""An event loop that wakes when it is asked to, and not up to a millisecond later."""

import asyncio
import select
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class FineSelector(selectors.EpollSelector):
    """Waits to the microsecond. ``epoll_wait`` counts whole milliseconds, and a wait is rounded up to them."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See ``selectors.BaseSelector.select``."""
        if timeout is not None and timeout > 0:
            # An epoll object is readable when one of its files is ready.
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, on such a loop."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(main)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(FineSelector())
