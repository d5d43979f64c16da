"""One event per line: JSON for machines, readable on a terminal, fields in the journal; no secrets, never in the way.

    structlog ──┐
                ├── the same processors ── scrub ── bounded queue ── writer thread ── stderr, or the journal
    logging ────┘   repeated: count, drop           full: count, drop

A reader that has stopped reading must not stop the daemon: whoever logs only puts a line into a queue.
"""

import io
import json
import logging
import os
import queue
import select
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watchdog.clock import Clock, SystemClock
from watchdog.logs import journald as journal
from watchdog.logs.redaction import redact, scrub
from watchdog.logs.suppression import Repeats

__all__ = ["close", "configure", "dropped_lines", "redact", "set_level", "suppressed_lines"]

CLOSE_SECONDS: Final = 2.0


class _Tally:
    """What this process has not written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.dropped = 0
        self.suppressed = 0

    def drop(self) -> None:
        with self._lock:
            self.dropped += 1

    def suppress(self) -> None:
        with self._lock:
            self.suppressed += 1


_tally: Final = _Tally()


def dropped_lines() -> int:
    """How many lines this process has lost because nobody took them; never falls."""
    return _tally.dropped


def suppressed_lines() -> int:
    """How many repetitions of warnings and errors it has counted instead of written; never falls."""
    return _tally.suppressed


class _Stream:
    """Where lines usually go."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def put(self, line: str) -> None:
        """Write ``line`` for as long as it takes; what the stream refuses is lost, for there is nobody to tell."""
        text = line + "\n"
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:
            self._stream.write(text)
            return
        except ValueError:
            return
        # Not through the stream's own buffer: a thread stuck inside its lock would deadlock the interpreter's exit.
        left = text.encode("utf-8", "backslashreplace")
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
            except OSError:
                return

    def close(self) -> None:
        """The stream is somebody else's."""


class _Journal:
    """The journal's own protocol, and the stream for what the journal cannot take."""

    def __init__(self, path: Path, otherwise: _Stream) -> None:
        self._path = path
        self._otherwise = otherwise
        self._journal: journal.Journal | None = None

    def put(self, line: str) -> None:
        try:
            self._journal = self._journal or journal.Journal(self._path)
        except OSError:
            taken = False
        else:
            taken = isinstance(line, journal.Entry) and self._journal.send(line)
        if not taken:
            self._otherwise.put(line)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


class _Writer:
    """Writes lines from a thread of its own, and drops them while its queue is full."""

    def __init__(self, sink: _Stream | _Journal, capacity: int, repeats: Repeats) -> None:
        self._sink = sink
        self._repeats = repeats
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._dropped = 0
        self._lock = threading.Lock()
        # A daemon thread: one that hangs in a write to a full pipe must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            _tally.drop()
            with self._lock:
                self._dropped += 1

    def close(self, timeout: float) -> None:
        """Write what is queued, for at most ``timeout`` seconds."""
        self._tell_repeats(all_of_them=True)
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
                self._tell_repeats()
                continue
            if line is None:
                self._sink.close()
                return
            self._sink.put(line)
            if self._lines.qsize() <= self._lines.maxsize // 2:
                self._tell_dropped()
                self._tell_repeats()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            structlog.get_logger().warning("log_lines_dropped", dropped=dropped)

    def _tell_repeats(self, *, all_of_them: bool = False) -> None:
        for summary in self._repeats.ended(all_of_them=all_of_them):
            level, event = str(summary.pop("level")), summary.pop("event")
            getattr(structlog.get_logger(), level)(event, **summary)


class _Logger:
    """What structlog hands a rendered line to."""

    def __init__(self, writer: _Writer) -> None:
        self._write = writer.write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = error = critical = fatal = exception = msg


class _Handler(logging.Handler):
    """The way of the standard library's loggers to the same writer, which ends when ``logging`` closes this at exit."""

    def __init__(self, writer: _Writer, processors: Sequence[Processor], repeats: Repeats) -> None:
        super().__init__()
        self._writer = writer
        self._processors = processors
        self._repeats = repeats

    def emit(self, record: logging.LogRecord) -> None:
        # By the text before its arguments are put in: they differ each time.
        level = record.levelname.lower()
        if not self._repeats.admit({"level": level, "event": str(record.msg), "logger": record.name}):
            _tally.suppress()
            return
        try:
            event: Any = {"logger": record.name, "level": level, "exc_info": record.exc_info}
            event["event"] = record.getMessage()
            for processor in self._processors:
                event = processor(None, level, event)
            self._writer.write(event)
        except Exception:  # noqa: BLE001  # a library's malformed record must not become our failure
            structlog.get_logger().warning("log_record_malformed", logger=record.name, line=record.lineno)

    def close(self) -> None:
        self._writer.close(CLOSE_SECONDS)
        super().close()


class _Unrepeated:
    """A processor that ends the way of what has been said often enough."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        if self._repeats.admit(event):
            return event
        _tally.suppress()
        raise structlog.DropEvent


class _Scrubbed:
    """A renderer whose every line is scrubbed: keys, values, exceptions and tracebacks alike."""

    def __init__(self, renderer: Processor) -> None:
        self._renderer = renderer

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        return scrub(str(self._renderer(logger, name, event)))


def configure(
    format: str,  # noqa: A002  # the name of the key
    level: str,
    stream: TextIO | None = None,
    *,
    queue_lines: int = 10_000,
    socket: Path = journal.SOCKET,
    clock: Clock | None = None,
) -> None:
    """Send structlog and ``logging`` to ``stream`` (stderr), replacing what an earlier call set up.

    ``format`` is ``auto``, ``json``, ``console`` or ``journal``; ``level`` the lowest that is written. Libraries that
    use ``logging`` are heard from WARNING up, whatever ``level`` says. More than ``queue_lines`` waiting lines are
    dropped. The journal listens at ``socket``; whatever it does not take goes to ``stream``, with its priority.
    """
    stream = stream or sys.stderr
    close()
    terminal = stream.isatty()
    if format == "auto":
        format = _chosen(stream, terminal)  # noqa: A001  # what the key means
    plain = _Stream(stream)
    sink: _Stream | _Journal = plain
    if format == "journal":
        sink = _Journal(socket, plain)
        renderer: Processor = _entry
    else:
        renderer = _Scrubbed(_console(terminal) if format == "console" else _json())
    repeats = Repeats((clock or SystemClock()).monotonic)
    writer = _Writer(sink, queue_lines, repeats)
    stamps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    rendering: list[Processor] = [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*stamps, structlog.processors.add_log_level, _Unrepeated(repeats), *rendering],
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.addHandler(_Handler(writer, [*stamps, *rendering], repeats))
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Write nothing below ``level`` from now on; everything else stays as ``configure`` set it up."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))
    logging.getLogger().setLevel(max(logging.WARNING, threshold))


def close() -> None:
    """Write out what is queued, waiting at most ``CLOSE_SECONDS``; happens by itself at exit."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
        handler.close()


def _chosen(stream: TextIO, terminal: bool) -> str:  # noqa: FBT001  # one private call
    """What ``auto`` is for this stream."""
    if terminal:
        return "console"
    return "journal" if journal.is_connected_to(stream, os.environ.get("JOURNAL_STREAM")) else "json"


def _entry(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    return journal.Entry.of(event)


def _json() -> Processor:
    return structlog.processors.JSONRenderer(json.dumps, default=str, ensure_ascii=False)


def _console(terminal: bool) -> Processor:  # noqa: FBT001  # one private call
    return structlog.dev.ConsoleRenderer(
        colors=terminal and not os.environ.get("NO_COLOR"),
        # The pretty one prints local variables, and those hold secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )
