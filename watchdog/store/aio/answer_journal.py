"""Answers that the database could not take yet, in a file: what ZEGO said must outlive us, too.

One file per process, ``answers-INSTANCE.N.jsonl``, made when it is first needed; each line is one answer, on disk when
``note`` returns. The file is locked (flock) for as long as its process lives, however that ends: whoever gets the lock
may write down what a dead process has left. A line may be written down twice, for the second time changes nothing.

Called by one thread at a time.
"""

import fcntl
import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog

from watchdog.core.model import Outcome, Status

log = structlog.get_logger(__name__)

_FILE_LIMIT_BYTES: Final = 16 << 20
"""Nobody has that many answers in hand; what is longer is not ours to read."""

_SPARE_LINES: Final = 1000
"""So many lines that are done with may stand in the file before it is written anew."""


@dataclass(frozen=True, slots=True)
class Closing:
    """An attempt's answer by itself: all that is written when the attempt is closed, and by whose claim.

    ``status`` is what the task becomes, None where it goes on ``wake_seconds`` later.
    """

    attempt_id: int
    attempt: int
    task_id: str
    room_id: str
    app_id: int | None
    instance: str
    token: str
    outcome: Outcome
    replied_at: datetime | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    detail: str | None
    status: Status | None
    wake_seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"replied_at": None if self.replied_at is None else self.replied_at.isoformat()}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Closing":
        """Read what ``as_json`` wrote. Raises ValueError for anything else."""
        try:
            replied_at, status = values["replied_at"], values["status"]
            closing = cls(
                **dict(values)
                | {
                    "outcome": Outcome(values["outcome"]),
                    "status": None if status is None else Status(status),
                    "replied_at": None if replied_at is None else datetime.fromisoformat(replied_at),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no answer: {error}") from error
        texts: list[Any] = [closing.task_id, closing.room_id, closing.instance, closing.token]
        texts += [
            text for text in (closing.code, closing.message, closing.request_id, closing.detail) if text is not None
        ]
        numbers: list[Any] = [closing.attempt_id, closing.attempt]
        numbers += [number for number in (closing.app_id, closing.http_status) if number is not None]
        wake: Any = closing.wake_seconds
        if (
            not all(type(number) is int for number in numbers)
            or not all(type(text) is str for text in texts)
            or not isinstance(wake, int | float)
            or (closing.replied_at is not None and closing.replied_at.tzinfo is None)
        ):
            raise ValueError("no answer: a value of another kind than was written")
        return closing


@dataclass(slots=True)
class Left:
    """What a dead process has left, locked against everybody else until ``release``."""

    path: Path
    closings: list[Closing] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    is_foreign: bool = False
    """It belongs to another database."""

    _descriptor: int = -1

    def done(self) -> None:
        """It has been written down: the file is removed, and what could not be read is kept beside it."""
        if self.bad:
            aside = self.path.with_suffix(".bad")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _write(descriptor, b"".join(line + b"\n" for line in self.bad), None)
            finally:
                os.close(descriptor)
            log.error(
                "journal_lines_unreadable",
                lines=len(self.bad),
                file=str(aside),
                next_step="these answers are not in the ledger: read them, then remove the file",
            )
        self.path.unlink(missing_ok=True)

    def release(self) -> None:
        os.close(self._descriptor)


class AnswerJournal:
    """One process's journal in ``directory``, and whatever others have left there for the same ``database``."""

    def __init__(self, directory: Path, database: str, instance: str) -> None:
        """``database`` says which one it is, without a secret. Nothing is touched yet."""
        self.directory = directory
        self._database = database
        self._name = f"answers-{quote(instance, safe='')}"
        self._segment = 0
        self._path: Path | None = None
        self._descriptor = -1
        self._size = 0
        self._lines = 0
        self._pending: dict[int, bytes] = {}
        self._said: set[Path] = set()

    def note(self, closings: Sequence[Closing]) -> None:
        """Have these on disk when this returns. Raises OSError, and then none of them is."""
        lines = {closing.attempt_id: self._line(closing) for closing in closings}
        if self._path is None:
            self._begin()
        # Not appended: half of a line that found no room is overwritten by the next one.
        written = _write(self._descriptor, b"".join(lines.values()), self._size)
        self._size += written
        self._lines += len(lines)
        self._pending |= lines

    def forget(self, attempt_ids: Collection[int]) -> None:
        """These are in the database. Raises OSError, which may be passed over."""
        for attempt_id in attempt_ids:
            self._pending.pop(attempt_id, None)
        if self._path is None:
            return
        if not self._pending:
            os.ftruncate(self._descriptor, 0)
            self._size = self._lines = 0
        elif self._lines > _SPARE_LINES + 2 * len(self._pending):
            old, descriptor = self._path, self._descriptor
            pending = b"".join(self._pending.values())
            self._begin()
            self._size = _write(self._descriptor, pending, 0)
            self._lines = len(self._pending)
            old.unlink(missing_ok=True)
            os.close(descriptor)

    def close(self) -> None:
        """Leave behind what is not in the database, and no empty file."""
        if self._path is not None:
            if not self._pending:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._path = None

    def left(self) -> list[Left]:
        """Everything that dead processes have left for this database, each to be released; nobody else sees it."""
        found: list[Left] = []
        for path in sorted(self.directory.glob("answers-*.jsonl")):
            try:
                one = self._take(path)
            except OSError as error:
                self._say_once(path, "journal_unreadable", error=error.strerror or str(error))
                continue
            if one is not None and one.is_foreign:
                one.release()
            elif one is not None:
                found.append(one)
        return found

    def _begin(self) -> None:
        """A new file, which nobody sees before it is locked."""
        self._segment += 1
        path = self.directory / f"{self._name}.{self._segment}.jsonl"
        hidden = self.directory / f".{path.name}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(path)
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise
        self._path, self._descriptor, self._size, self._lines = path, descriptor, 0, 0

    def _line(self, closing: Closing) -> bytes:
        return json.dumps({"database": self._database} | closing.as_json()).encode() + b"\n"

    def _take(self, path: Path) -> Left | None:
        """Lock and read a file; None when its process is alive, or somebody else was quicker."""
        # A pipe of that name must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        left = Left(path, _descriptor=descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not path.exists() or path.stat().st_ino != status.st_ino:
                left.release()
                return None
            self._read(left, status.st_size)
        except BlockingIOError:
            left.release()
            return None
        except OSError:
            left.release()
            raise
        return left

    def _read(self, left: Left, size: int) -> None:
        if size > _FILE_LIMIT_BYTES:
            raise OSError(f"{size} bytes are more than a journal ever has")
        data = b""
        while part := os.pread(left._descriptor, size + 1, len(data)):  # noqa: SLF001 - of the same module
            data += part
        *lines, rest = data.split(b"\n")
        if rest:
            # Its process died while it wrote, so nobody was told that this answer was safe.
            log.warning("journal_line_torn", file=str(left.path), bytes=len(rest))
        known: dict[int, Closing] = {}
        for line in lines:
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise TypeError("no object")  # noqa: TRY301 - one answer to all that is unreadable
                database = values.pop("database", None)
                closing = Closing.of_json(values)
            except (ValueError, TypeError, RecursionError):
                left.bad.append(line)
                continue
            if database != self._database:
                left.is_foreign = True
                self._say_once(left.path, "journal_of_another_database", database=database, ours=self._database)
                return
            # Last words may be said twice.
            known[closing.attempt_id] = closing
        left.closings = list(known.values())

    def _say_once(self, path: Path, event: str, **fields: object) -> None:
        if path not in self._said:
            self._said.add(path)
            log.warning(
                event, file=str(path), next_step="it is left alone: its answers are not in the ledger", **fields
            )


def _write(descriptor: int, data: bytes, offset: int | None) -> int:
    """All of it, at ``offset`` or at the end, on disk when this returns."""
    view = memoryview(data)
    done = 0
    while done < len(data):
        rest = view[done:]
        done += os.write(descriptor, rest) if offset is None else os.pwrite(descriptor, rest, offset + done)
    os.fsync(descriptor)
    return done
