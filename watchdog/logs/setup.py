"""Sets up logging: one event per line, as JSON, as text on a terminal or as journal entries, without secrets.

structlog ──┐
├── the same processors ── scrub ── writer
logging ────┘   repeated: count, drop
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watchdog.clock import Clock, SystemClock
from watchdog.logs import journald
from watchdog.logs.redaction import scrub
from watchdog.logs.suppression import Repeats
from watchdog.logs.writer import Sink, Stream, Writer, suppressed_lines

__all__ = ["close", "configure", "set_level"]

CLOSE_SECONDS: Final = 2.0


def configure(
    format: str,  # noqa: A002  # the name of the key
    level: str,
    stream: TextIO | None = None,
    *,
    queue_lines: int = 10_000,
    socket: Path | None = None,
    clock: Clock | None = None,
) -> None:
    """Send structlog and ``logging`` to ``stream`` (stderr), replacing an earlier set-up.

    ``format`` is ``auto``, ``json``, ``console`` or ``journal``. ``level`` is the lowest that is written; for libraries
    that use ``logging`` it is at least WARNING. At most ``queue_lines`` lines wait; more are dropped. ``socket`` is the
    journal's; what it does not take goes to ``stream``, with its priority.
    """
    stream = stream or sys.stderr
    close()
    terminal = stream.isatty()
    if format == "auto":
        is_journal = journald.is_connected_to(stream, os.environ.get("JOURNAL_STREAM"))
        format = "console" if terminal else "journal" if is_journal else "json"  # noqa: A001  # what the key means
    sink: Sink = Stream(stream)
    if format == "journal":
        sink = journald.Journal(socket or journald.SOCKET, sink)
    repeats = Repeats((clock or SystemClock()).monotonic)
    writer = Writer(sink, queue_lines, repeats)
    stamps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    rendering: list[Processor] = [
        structlog.processors.format_exc_info,
        _renderer(format, colours=terminal and not os.environ.get("NO_COLOR")),
    ]
    structlog.configure(
        processors=[*stamps, structlog.processors.add_log_level, _unrepeated(repeats), *rendering],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.addHandler(_Handler(writer, [*stamps, *rendering], repeats))
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Write nothing below ``level`` from now on; the rest of the set-up stays."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))
    logging.getLogger().setLevel(max(logging.WARNING, threshold))


def close() -> None:
    """Write what is queued, for at most ``CLOSE_SECONDS``; ``logging`` calls this at exit."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
        handler.close()


class _Handler(logging.Handler):
    """Passes the records of the standard library's loggers to the same writer, and closes it."""

    def __init__(self, writer: Writer, processors: Sequence[Processor], repeats: Repeats) -> None:
        super().__init__()
        self._writer, self._processors, self._repeats = writer, processors, repeats

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        # Compared without its arguments, which differ each time.
        if not self._repeats.admit({"level": level, "event": str(record.msg), "logger": record.name}):
            suppressed_lines.add()
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


def _unrepeated(repeats: Repeats) -> Processor:
    """Return a processor that drops what was repeated too often."""

    def process(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        if repeats.admit(event):
            return event
        suppressed_lines.add()
        raise structlog.DropEvent

    return process


def _renderer(format: str, *, colours: bool) -> Processor:  # noqa: A002  # the name of the key
    if format == "journal":
        return lambda _logger, _name, event: journald.Entry.of(event)
    renderer: Processor = structlog.processors.JSONRenderer(json.dumps, default=str, ensure_ascii=False)
    if format == "console":
        # The default formatter of exceptions prints local variables, which contain secrets.
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    # The whole line: keys, values, exceptions and tracebacks.
    return lambda logger, name, event: scrub(str(renderer(logger, name, event)))
