"""The system's journal, in its native protocol: one datagram per event, with separate fields.

Lines on stderr reach the journal as text only; with fields ``journalctl ZEGO_TASK_ID=…`` finds them. Protocol:
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. An entry that does not fit into a datagram is not sent as a file: none of
our events is that long.
"""

import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, TextIO

from watchdog.logs.redaction import scrub
from watchdog.logs.writer import Sink

__all__ = ["SOCKET", "Entry", "Journal", "is_connected_to"]

SOCKET: Final = Path("/run/systemd/journal/socket")

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_IDENTIFIER: Final = "zego-watchdog"
_PREFIX: Final = "ZEGO_"
_NAME_CHARACTERS: Final = 64
_VALUE_CHARACTERS: Final = 16_384
# Everything else in an event becomes a field. The journal adds the time itself.
_NOT_FIELDS: Final = frozenset({"event", "level", "timestamp", "exception"})
_PLAIN: Final = re.compile(r"[^\s\"=]+")


class Entry(str):
    """An event as a line of text with its priority, ``<4>retry code=206``, and as a ``datagram``."""

    __slots__ = ("datagram",)
    datagram: bytes

    @classmethod
    def of(cls, event: Mapping[str, object]) -> Self:
        """Make an entry of an event as structlog's processors return it; secrets are masked."""
        priority = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
        name = str(event.get("event", ""))
        fields = {key: _text(value) for key, value in event.items() if key not in _NOT_FIELDS and value is not None}
        message = " ".join([name, *(f"{key}={_quoted(text)}" for key, text in fields.items())])
        if exception := event.get("exception"):
            message = f"{message}\n{exception}"
        message = scrub(message)
        entry = cls(f"<{priority}>" + message.replace("\n", "\\n"))
        entry.datagram = b"".join(
            [
                _field("MESSAGE", message),
                _field("PRIORITY", str(priority)),
                _field("SYSLOG_IDENTIFIER", _IDENTIFIER),
                _scrubbed_field(_PREFIX + "EVENT", name),
                *(_scrubbed_field(_name(key), text) for key, text in fields.items()),
            ]
        )
        return entry


class Journal:
    """Sends entries to the journal; what the journal does not take goes to ``otherwise``."""

    def __init__(self, path: Path, otherwise: Sink) -> None:
        self._path = str(path)
        self._otherwise = otherwise
        # Not connected: with the path in every call the socket also reaches a journal that was restarted.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def put(self, line: str) -> None:
        """Send an :class:`Entry`; blocks while the journal reads nothing, so call it in a thread."""
        try:
            if isinstance(line, Entry):
                self._socket.sendto(line.datagram, self._path)
                return
        except OSError:  # there is no journal, or the entry is too long for it
            pass
        self._otherwise.put(line)

    def close(self) -> None:
        self._socket.close()


def is_connected_to(stream: TextIO, journal_stream: str | None) -> bool:
    """Whether ``stream`` leads to the journal: whether it is the file that ``$JOURNAL_STREAM`` (device:inode) names."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def _text(value: object) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float | list | tuple | dict):
        text = json.dumps(value, default=str, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 1] + "…"


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _name(key: str) -> str:
    return (_PREFIX + re.sub(r"[^A-Z0-9_]", "_", key.upper()))[:_NAME_CHARACTERS]


def _scrubbed_field(name: str, value: str) -> bytes:
    # Together with its name, because the name may show that the value is a secret.
    return _field(name, scrub(f"{name}={value}").partition("=")[2])


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
