"""Writes log lines from a thread of its own, so that a slow reader never blocks the daemon.

write() ── bounded queue ── thread ── stderr, or the journal
full: count, drop
"""

import io
import os
import queue
import select
import threading
from typing import Final, Protocol, TextIO

import structlog

from watchdog.logs.suppression import Repeats

__all__ = ["Sink", "Stream", "Writer", "dropped_lines", "suppressed_lines"]


class _Tally:
    """Counts lines of this process, from any thread; call it for the number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    def __call__(self) -> int:
        return self._number

    def add(self) -> None:
        with self._lock:
            self._number += 1


dropped_lines: Final = _Tally()
"""Lines lost because the reader was too slow."""
suppressed_lines: Final = _Tally()
"""Repeated warnings and errors, counted instead of written."""


class Sink(Protocol):
    def put(self, line: str) -> None:
        """Write one line; may block."""

    def close(self) -> None:
        """Release what the sink opened itself."""


class Stream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def put(self, line: str) -> None:
        """Write ``line``, however long it takes; a line that the stream refuses is lost."""
        text = line + "\n"
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:
            self._stream.write(text)
            return
        except ValueError:
            return
        # Not through the stream's buffer: a thread that hangs inside its lock would block the interpreter's exit.
        left = text.encode("utf-8", "backslashreplace")
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
            except OSError:
                return

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""


class Writer:
    """Queues lines for its thread and drops them while the queue is full; structlog uses it as a logger."""

    def __init__(self, sink: Sink, capacity: int, repeats: Repeats) -> None:
        """``capacity`` is the length of the queue in lines; ``repeats`` reports what was suppressed."""
        self._sink = sink
        self._repeats = repeats
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._reported = dropped_lines()
        # A daemon thread: if it hangs in a write to a full pipe, the process can still exit.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            dropped_lines.add()

    msg = debug = info = warning = error = critical = fatal = exception = write

    def close(self, timeout: float) -> None:
        """Write what is queued, for at most ``timeout`` seconds."""
        self._report_repeats(all_of_them=True)
        try:
            self._lines.put(None, timeout=timeout / 2)
        except queue.Full:
            return
        self._thread.join(timeout / 2)

    def _run(self) -> None:
        while True:
            try:
                line = self._lines.get(timeout=self._repeats.next_end())
            except queue.Empty:
                self._report_repeats()
                continue
            if line is None:
                self._sink.close()
                return
            self._sink.put(line)
            if self._lines.qsize() <= self._lines.maxsize // 2:
                self._report_dropped()
                self._report_repeats()

    def _report_dropped(self) -> None:
        if dropped := dropped_lines() - self._reported:
            self._reported += dropped
            structlog.get_logger().warning("log_lines_dropped", dropped=dropped)

    def _report_repeats(self, *, all_of_them: bool = False) -> None:
        for summary in self._repeats.ended(all_of_them=all_of_them):
            level, event = str(summary.pop("level")), summary.pop("event")
            getattr(structlog.get_logger(), level)(event, **summary)
