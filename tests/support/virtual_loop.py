"""An event loop whose time passes only when nothing else is left to do: minutes of pacing run in milliseconds.

For code that waits on timers alone. With sockets or worker threads virtual time would run ahead of them.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

# Each turn of the loop takes a moment, as in reality; a timer due "now" would never be reached if time stood still.
_TURN_SECONDS = 1e-6

T = TypeVar("T")


class _SkippingSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        self.now += max(timeout, _TURN_SECONDS)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of its own time, in seconds from 0."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def hold_up(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as when something blocks the loop."""
        self._skipping.now += seconds


def run_virtual(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


class LoopClock:
    """The virtual loop's time as a Clock."""

    def time(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - virtual time
