"""One transaction for many callers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

GROUP_LIMIT: Final = 200
"""How many items go into one transaction at most."""


class GroupCommit(Generic[T, R]):
    """Items that are submitted while a commit runs are committed together by the next one."""

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int = GROUP_LIMIT) -> None:
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Return the item's result after its commit, or raise the error of the commit."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await asyncio.shield(future)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                try:
                    results = await self._commit([item for item, _ in group])
                except Exception as error:  # noqa: BLE001 - every caller of the group gets it
                    for _, future in group:
                        future.set_exception(error)
                        # Retrieved here, because a cancelled caller does not retrieve it.
                        future.exception()
                else:
                    for (_, future), result in zip(group, results, strict=True):
                        future.set_result(result)
        finally:
            self._flushing = None
