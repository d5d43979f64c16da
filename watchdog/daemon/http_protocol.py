"""The daemon's side of an HTTP connection: it leaves the event loop to stops, and closes what stays silent.

    what arrives ──► Turns ──► the HTTP library ──► one task for each request

A hundred senders may have something ready at once. A stop needs several turns of the event loop, so in each turn only
a few requests are begun.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl

from watchdog.clock import Clock
from watchdog.embedded_server import QuietProtocol

TURN_SECONDS: Final = 0.001
"""For how long requests are begun in one turn of the event loop."""

GIVING_WAY_SECONDS: Final = 0.005
"""How long a turn is put off while a stop is about to leave: requests get a sixth of the time."""


class Turns:
    """Does what it is given in order, some of it in each turn of the event loop."""

    def __init__(self, clock: Clock, gives_way: Callable[[], bool] = lambda: False) -> None:
        """``gives_way``: whether a stop is about to leave; then most of the time is left to it."""
        self._clock = clock
        self._gives_way = gives_way
        self._waiting = deque[Callable[[], None]]()

    def add(self, work: Callable[[], None]) -> None:
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._soon()

    def _soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._gives_way():
            loop.call_later(GIVING_WAY_SECONDS, self._work)
        else:
            loop.call_soon(self._work)

    def _work(self) -> None:
        until = self._clock.monotonic() + TURN_SECONDS
        try:
            while True:
                self._waiting[0]()
                if len(self._waiting) == 1 or self._clock.monotonic() >= until:
                    break
                self._waiting.popleft()
        finally:
            # It stayed in the queue until now, so that what was added meanwhile did not ask for a turn as well.
            self._waiting.popleft()
            if self._waiting:
                self._soon()


class _Flow(FlowControl):
    """Does not read on while a request is being answered and the next one is here: it would fill the memory."""

    def __init__(self, transport: asyncio.Transport, conn: h11.Connection) -> None:
        super().__init__(transport)
        self._conn = conn

    def resume_reading(self) -> None:
        if self._conn.their_state is not h11.DONE or self._conn.our_state is h11.DONE:
            super().resume_reading()


class TimedProtocol(QuietProtocol):
    """Closes connections on which no request comes, or no answer is taken, within ``read_seconds``.

    What arrives takes turns with what arrives on the others.
    """

    read_seconds: float
    turns: Turns
    _too_slow: asyncio.TimerHandle | None = None
    _unsent: asyncio.TimerHandle | None = None
    _unread = 0
    """How many pieces have arrived and wait for their turn."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self.conn)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._too_slow, self._unsent):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._unread += 1
        if self._unread > 1:
            # A sender that does not wait for its answer fills its own connection, not our memory.
            self.transport.pause_reading()
        self.turns.add(lambda: self._read(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn leaves the closing to the event loop
        # What came before it has its turn first.
        self.turns.add(self.transport.close)
        return True

    def on_response_complete(self) -> None:
        # First: the next request may be here already.
        self._expect_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.cancel()

    def _read(self, data: bytes) -> None:
        self._unread -= 1
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._unread and not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _expect_request(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()

        def late() -> None:
            # What has arrived by now counts.
            self.turns.add(lambda: self._close_if_idle(timer))

        timer = self._too_slow = self.loop.call_later(self.read_seconds, late)

    def _close_if_idle(self, timer: asyncio.TimerHandle) -> None:
        is_last = timer is self._too_slow
        if is_last and self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
