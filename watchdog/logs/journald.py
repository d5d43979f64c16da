"""The system's journal, in its own protocol: one datagram per event, with its fields kept apart.

Lines on stderr reach the journal as text only; here ``journalctl ZEGO_TASK_ID=…`` finds them. The protocol is that of
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. What does not fit into a datagram is not sent as a file, but refused: no
event of ours is that long.
"""

import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self, TextIO

from watchdog.logs.redaction import scrub

__all__ = ["SOCKET", "Entry", "Journal", "is_connected_to"]

SOCKET: Final = Path("/run/systemd/journal/socket")

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_IDENTIFIER: Final = "zego-watchdog"
_PREFIX: Final = "ZEGO_"
_NAME_CHARACTERS: Final = 64
_VALUE_CHARACTERS: Final = 16_384
# Whatever else is in an event becomes a field of its own. The journal knows the time itself.
_NOT_FIELDS: Final = frozenset({"event", "level", "timestamp", "exception"})
_PLAIN: Final = re.compile(r"[^\s\"=]+")


class Entry(str):
    """An event as a line of text with its priority, ``<4>retry code=206``, which also knows its ``datagram``."""

    __slots__ = ("datagram",)
    datagram: bytes

    @classmethod
    def of(cls, event: Mapping[str, object]) -> Self:
        """``event`` as structlog's processors leave it: name, level, fields. Nothing secret comes through."""
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
    """A connection to the journal. ``send`` may block, while the journal takes nothing: call it in a thread."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Raises OSError when nobody listens at ``path``."""
        self._path = path
        self._socket: socket.socket | None = self._connect()

    def send(self, entry: Entry) -> bool:
        """Whether the journal has it; False when it is gone, or the entry is too long."""
        for connection in self._connections():
            try:
                connection.send(entry.datagram)
            except OSError:
                continue
            return True
        return False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connections(self) -> Iterator[socket.socket]:
        """The connection there is; then, for the journal may have been started anew, another."""
        if self._socket is not None:
            yield self._socket
        self.close()
        try:
            self._socket = self._connect()
        except OSError:
            return
        yield self._socket

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection


def is_connected_to(stream: TextIO, journal_stream: str | None) -> bool:
    """Whether ``stream`` is what ``$JOURNAL_STREAM`` (device:inode) says: then it ends in the journal."""
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
    # Together with its name, which may be what tells that the value is a secret.
    return _field(name, scrub(f"{name}={value}").partition("=")[2])


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
