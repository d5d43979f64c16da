"""The daemon's side of an HTTP connection: it leaves the event loop to stops, and closes what stays silent.

    what arrives ──► Turns ──► the HTTP library ──► one task for each request

A hundred senders may have something ready at once. A stop needs several turns of the event loop, so in each turn only
a few requests are begun.

The HTTP library is a parser in C without limits of its own. So it gets what arrives in small pieces, none while a
request waits for the answer of the one before, and a request may have only so much beside its body.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl

from watchdog.clock import Clock
from watchdog.embedded_server import QuietProtocol

TURN_SECONDS: Final = 0.001
"""For how long requests are begun in one turn of the event loop."""

GIVING_WAY_SECONDS: Final = 0.005
"""How long a turn is put off while a stop is about to leave: requests get a sixth of the time."""


_PIECE_BYTES: Final = 1024
"""The parser gets so much at a time: it begins every request in it, and each takes memory until it is answered."""

HEAD_LIMIT_BYTES: Final = 65_536
"""How much of a request may not be its body: the line, the headers, what frames the pieces of a body."""


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

    def __init__(self, transport: asyncio.Transport, protocol: "TimedProtocol") -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if self.read_paused and not self._protocol.pipeline:
            self.read_paused = False
            self._protocol.read_on()


class TimedProtocol(QuietProtocol):
    """Closes connections on which no request comes, or no answer is taken, within ``read_seconds``.

    What arrives takes turns with what arrives on the others.
    """

    read_seconds: float
    turns: Turns
    _too_slow: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    """When the last request was answered, by the event loop's clock."""
    _unsent: asyncio.TimerHandle | None = None
    _waiting = 0
    """How many times something has arrived that waits for its turn."""
    _unparsed = b""
    _beside_body = 0
    """Bytes of the present request that are not its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self._idle_since = self.loop.time()
        self._close_late(self.read_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._too_slow, self._unsent):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._waiting += 1
        if self._waiting > 1 or self._unparsed:
            # A sender that does not wait for its answer fills its own connection, not our memory.
            self.transport.pause_reading()
        self.turns.add(lambda: self._read(data))

    def read_on(self) -> None:
        """Go on with what has arrived, or with reading."""
        if self._unparsed:
            self.turns.add(self._parse)
        elif not self._waiting and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._beside_body = 0

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            # The parser takes such a request for one without a body, and its body for other requests.
            raise ValueError("no other protocol is spoken here")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._beside_body -= len(body)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn leaves the closing to the event loop
        # What came before it has its turn first.
        self.turns.add(self.transport.close)
        return True

    def on_response_complete(self) -> None:
        # First: the next request may be here already.
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.cancel()

    def _read(self, data: bytes) -> None:
        self._waiting -= 1
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and not self.flow.read_paused and not self.transport.is_closing():
            piece, self._unparsed = self._unparsed[:_PIECE_BYTES], self._unparsed[_PIECE_BYTES:]
            super().data_received(piece)
            self._beside_body += len(piece)
            if self._beside_body > HEAD_LIMIT_BYTES and not self.transport.is_closing():
                self.send_400_response("Too much beside the body.")
        if not self.flow.read_paused and not self._unparsed:
            self.read_on()

    def _close_late(self, seconds: float) -> None:
        # What has arrived by then counts. One timer that looks again, instead of a new one for each request.
        self._too_slow = self.loop.call_later(seconds, self.turns.add, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.transport.is_closing():
            return
        left = self._idle_since + self.read_seconds - self.loop.time()
        if left > 0:
            self._close_late(left)
        elif self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr] # None at first
            self.transport.close()
        else:
            # It is being answered.
            self._close_late(self.read_seconds)
