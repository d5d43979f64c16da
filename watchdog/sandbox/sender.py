"""Sends what an outbox has due, over HTTP, for as long as it runs."""

import asyncio
import contextlib
from typing import Any, Final

import httpx2

from watchdog.clock import Clock
from watchdog.sandbox.outbox import Delivery, Outbox

TIMEOUT_SECONDS: Final = 5.0
"""For a whole exchange. The vendor does not say how long it waits."""
_READ_BYTES: Final = 1 << 16
# Shorter than servers keep an idle connection: a callback that meets the closing of one would count as a failure.
_LIMITS: Final = httpx2.Limits(max_connections=None, keepalive_expiry=2.0)


class Sender:
    """Posts callbacks to ``url``, as many at a time as are due; does nothing, and costs nothing, until there is one.

    ``wake`` it when something may have happened: it finds out by itself only what time brings.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self.url: str | None = None
        self._outbox = outbox
        self._clock = clock
        self._stirred = asyncio.Event()

    def wake(self) -> None:
        """Look at the outbox now."""
        if self.url is not None:
            self._stirred.set()

    async def run(self) -> None:
        """Send until cancelled; what is under way then is given up."""
        while self.url is None:
            await self._stirred.wait()
            self._stirred.clear()
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, limits=_LIMITS, trust_env=False) as http,
            asyncio.TaskGroup() as sending,
        ):
            while True:
                self._stirred.clear()
                for delivery in self._outbox.due(self._clock.time()):
                    sending.create_task(self._send(http, self.url, delivery))
                await self._idle()

    async def _idle(self) -> None:
        """Return when it is time for the next delivery, or when woken."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._stirred.wait())]
        next_at = self._outbox.next_at()
        if next_at is not None:
            ahead = max(0.0, next_at - self._clock.time())
            waits.append(asyncio.ensure_future(self._clock.sleep(ahead)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _send(self, http: httpx2.AsyncClient, url: str, delivery: Delivery) -> None:
        status = None
        headers = {"Content-Type": delivery.letter.content_type}
        # Whatever a receiver does, and wherever the address leads, is an attempt that failed.
        with contextlib.suppress(httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async with http.stream("POST", url, content=delivery.letter.body, headers=headers) as reply:
                    size = 0
                    async for part in reply.aiter_raw():
                        size += len(part)
                        if size > _READ_BYTES:
                            break
                status = reply.status_code
        self._outbox.settle(delivery, status, self._clock.time())
        self.wake()
