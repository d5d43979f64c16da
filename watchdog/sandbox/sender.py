"""Sends the callbacks of an outbox over HTTP."""

import asyncio
import contextlib
from typing import Any, Final

import httpx2 as httpx

from watchdog.clock import Clock
from watchdog.sandbox.outbox import Delivery, Outbox

TIMEOUT_SECONDS: Final = 5.0
"""For a whole exchange. The vendor does not document its own time-out."""
_READ_BYTES: Final = 1 << 16
# Shorter than the keep-alive of servers: a callback on a connection that just closed would count as failed.
_LIMITS: Final = httpx.Limits(max_connections=None, keepalive_expiry=2.0)


class Sender:
    """Posts due callbacks to ``url``, concurrently; idle until ``url`` is set.

    Call ``wake`` after each change of the world; the sender itself only waits for deadlines.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self.url: str | None = None
        self._outbox = outbox
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        if self.url is not None:
            self._woken.set()

    async def run(self) -> None:
        """Send until cancelled; deliveries in flight are then aborted."""
        while self.url is None:
            await self._woken.wait()
            self._woken.clear()
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=_LIMITS, trust_env=False) as http,
            asyncio.TaskGroup() as sending,
        ):
            while True:
                self._woken.clear()
                for delivery in self._outbox.due(self._clock.time()):
                    sending.create_task(self._send(http, self.url, delivery))
                await self._idle()

    async def _idle(self) -> None:
        """Wait for the next delivery time, or ``wake``."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._woken.wait())]
        next_at = self._outbox.next_at()
        if next_at is not None:
            ahead = max(0.0, next_at - self._clock.time())
            waits.append(asyncio.ensure_future(self._clock.sleep(ahead)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _send(self, http: httpx.AsyncClient, url: str, delivery: Delivery) -> None:
        status = None
        headers = {"Content-Type": delivery.letter.content_type}
        # Every error of the receiver or the address is a failed attempt.
        with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
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
