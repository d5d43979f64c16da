"""The daemon's event loop: on time to less than a millisecond, and awake when a file is ready."""

import socket

from watchdog.clock import SystemClock
from watchdog.daemon.event_loop import FineSelector, run


def test_waits_for_less_than_a_millisecond() -> None:
    clock = SystemClock()

    async def took() -> float:
        began = clock.monotonic()
        await clock.sleep(0.0002)
        return clock.monotonic() - began

    # The quickest of many: the machine may be busy.
    assert 0.0002 <= min(run(took()) for _ in range(50)) < 0.001


def test_a_file_that_is_ready_ends_the_wait() -> None:
    with FineSelector() as selector:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            selector.register(ours, 1, "ours")
            assert selector.select(0.0001) == []
            theirs.send(b"!")
            for timeout in (60.0, None, 0, -1.0):
                assert [(key.data, events) for key, events in selector.select(timeout)] == [("ours", 1)]
