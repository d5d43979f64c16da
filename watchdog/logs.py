"""One event per line on stderr: JSON for machines, readable on a terminal; nothing secret, and never in the way.

    structlog ──┐
                ├── the same processors ── scrub ── bounded queue ── writer thread ── stderr
    logging ────┘                                   full: count, drop

A reader of stderr that has stopped reading must not stop the daemon: whoever logs only puts a line into a queue.
"""

import io
import json
import logging
import os
import queue
import select
import sys
import threading
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watchdog.redaction import redact, scrub

__all__ = ["close", "configure", "redact"]

CLOSE_SECONDS: Final = 2.0


class _Writer:
    """Writes lines to ``stream`` from a thread of its own, and drops them while its queue is full."""

    def __init__(self, stream: TextIO, capacity: int) -> None:
        self._stream = stream
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
            with self._lock:
                self._dropped += 1

    def close(self, timeout: float) -> None:
        """Write what is queued, for at most ``timeout`` seconds."""
        try:
            self._lines.put(None, timeout=timeout / 2)
        except queue.Full:
            return
        self._thread.join(timeout / 2)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._put(line + "\n")
            if self._lines.qsize() <= self._lines.maxsize // 2:
                self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            structlog.get_logger().warning("log_lines_dropped", dropped=dropped)

    def _put(self, text: str) -> None:
        """Write ``text`` for as long as it takes; what the stream refuses is lost, for there is nobody to tell."""
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


class _Logger:
    """What structlog hands a rendered line to."""

    def __init__(self, writer: _Writer) -> None:
        self._write = writer.write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = error = critical = fatal = exception = msg


class _Handler(logging.Handler):
    """The way of the standard library's loggers to the same writer, which ends when ``logging`` closes this at exit."""

    def __init__(self, writer: _Writer, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record))
        except Exception:  # noqa: BLE001  # a library's malformed record must not become our failure
            structlog.get_logger().warning("log_record_malformed", logger=record.name, line=record.lineno)

    def close(self) -> None:
        self._writer.close(CLOSE_SECONDS)
        super().close()


class _Scrubbed:
    """A renderer whose every line is scrubbed: keys, values, exceptions and tracebacks alike."""

    def __init__(self, renderer: Processor) -> None:
        self._renderer = renderer

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        return scrub(str(self._renderer(logger, name, event)))


def configure(format: str, level: str, stream: TextIO | None = None, *, queue_lines: int = 10_000) -> None:  # noqa: A002  # the name of the key
    """Send structlog and ``logging`` to ``stream`` (stderr), replacing what an earlier call set up.

    ``format`` is ``auto``, ``json`` or ``console``; ``level`` the lowest that is written. Libraries that use
    ``logging`` are heard from WARNING up, whatever ``level`` says. More than ``queue_lines`` waiting lines are dropped.
    """
    stream = stream or sys.stderr
    close()
    writer = _Writer(stream, queue_lines)
    terminal = stream.isatty()
    renderer = _Scrubbed(_console(terminal) if format == "console" or (format == "auto" and terminal) else _json())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stamps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    structlog.configure(
        processors=[*stamps, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*stamps, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    root = logging.getLogger()
    root.addHandler(_Handler(writer, formatter))
    root.setLevel(max(logging.WARNING, threshold))
    logging.captureWarnings(capture=True)


def close() -> None:
    """Write out what is queued, waiting at most ``CLOSE_SECONDS``; happens by itself at exit."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
        handler.close()


def _json() -> Processor:
    return structlog.processors.JSONRenderer(json.dumps, default=str, ensure_ascii=False)


def _console(terminal: bool) -> Processor:  # noqa: FBT001  # one private call
    return structlog.dev.ConsoleRenderer(
        colors=terminal and not os.environ.get("NO_COLOR"),
        # The pretty one prints local variables, and those hold secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )
