"""Results kept for some seconds: a hundred browsers cost the database what one does."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from watchdog.clock import Clock

V = TypeVar("V")

SHARE: Final = 20
"""A result is kept at least so many times as long as it took to make, up to ``LONGEST_SECONDS``."""

LONGEST_SECONDS: Final = 60.0

FAILED_SECONDS: Final = 1.0
"""How long a failure is kept: a database that is away is not asked by each browser."""


@dataclass(frozen=True, slots=True)
class _Made(Generic[V]):
    """A result or an error, when it was made, and how long it is fresh."""

    value: V | None
    error: Exception | None
    at: float
    fresh_seconds: float


class Crowded(Exception):
    """As many results are being made as may be at a time."""


class Cache(Generic[V]):
    """Keeps at most ``most`` results; of several that ask for one, the first one's call answers all.

    If a new result takes longer than ``patience_seconds``, an old one is given instead, if it is younger than
    ``stale_seconds``.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        most: int = 128,
        at_once: int = 128,
        stale_seconds: float = 0.0,
        patience_seconds: float = 0.2,
        share: int = SHARE,
    ) -> None:
        """``at_once``: how many different results may be in the making. ``share``: see ``SHARE``."""
        self._clock = clock
        self._at_once = at_once
        self._most = most
        self._stale_seconds = stale_seconds
        self._patience_seconds = patience_seconds
        self._share = share
        self._kept: OrderedDict[Hashable, _Made[V]] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[_Made[V]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[V]], fresh_seconds: float) -> V:
        """Return what ``make`` returned for ``key`` at most ``fresh_seconds`` ago, or call it.

        Raises what it raises, and Crowded. ``make`` goes on if the caller is cancelled, for others may wait for it.
        """
        kept, now = self._kept.get(key), self._clock.monotonic()
        if kept is not None and now - kept.at < kept.fresh_seconds:
            self._kept.move_to_end(key)
            return _result(kept)
        making = self._making.get(key)
        if making is None:
            if len(self._making) >= self._at_once:
                raise Crowded
            making = self._making[key] = asyncio.create_task(self._make(key, make, fresh_seconds))
        if kept is not None and kept.error is None and now - kept.at < self._stale_seconds:
            await asyncio.wait({making}, timeout=self._patience_seconds)
            return _result(making.result() if making.done() else kept)
        return _result(await asyncio.shield(making))

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[V]], fresh_seconds: float) -> _Made[V]:
        began = self._clock.monotonic()
        try:
            value = await make()
        except Exception as error:  # noqa: BLE001 - it is raised again for each one that asks
            made: _Made[V] = _Made(None, error, self._clock.monotonic(), FAILED_SECONDS)
        else:
            now = self._clock.monotonic()
            longer = min(self._share * (now - began), LONGEST_SECONDS)
            made = _Made(value, None, now, max(fresh_seconds, longer))
        finally:
            del self._making[key]
        self._kept[key] = made
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return made

    async def close(self) -> None:
        """Wait for what is being made."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)


def _result(made: _Made[V]) -> V:
    if made.error is not None:
        # Without what former callers have added to it.
        raise made.error.with_traceback(None)
    return made.value  # type: ignore[return-value] # only an error has none, and V may include None
