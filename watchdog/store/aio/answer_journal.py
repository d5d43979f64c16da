"""Answers that the database could not take yet, kept in a file, because an answer of ZEGO's must survive this process.

One file for each process, ``answers-INSTANCE.N.jsonl``, created when it is first needed. Each line is one answer, and
is on disk when ``note`` returns. A process locks its file (flock) for as long as it lives; if another process can lock
it, the owner is dead, and its answers can be recorded. A line may be recorded twice: recording is idempotent.

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
from typing import Any, Final, get_args, get_type_hints
from urllib.parse import quote

import structlog

from watchdog.core.model import Outcome, Status
from watchdog.store.records import Answer

log = structlog.get_logger(__name__)

_FILE_LIMIT_BYTES: Final = 16 << 20
"""No process has so many answers waiting; a larger file is not a journal."""

_SPARE_LINES: Final = 1000
"""How many lines of recorded answers the file may have before it is rewritten."""

_TYPES: Final = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Answer).items()}


def to_json(answer: Answer) -> dict[str, Any]:
    return asdict(answer) | {"replied_at": None if answer.replied_at is None else answer.replied_at.isoformat()}


def from_json(values: Mapping[str, Any]) -> Answer:
    """Read what ``to_json`` wrote. Raises ValueError for anything else."""
    try:
        replied_at, status = values["replied_at"], values["status"]
        parsed = {
            "outcome": Outcome(values["outcome"]),
            "status": None if status is None else Status(status),
            "replied_at": None if replied_at is None else datetime.fromisoformat(replied_at),
            "wake_seconds": float(values["wake_seconds"]),
        }
        answer = Answer(**dict(values) | parsed)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an answer: {error}") from error
    if any(type(getattr(answer, name)) not in types for name, types in _TYPES.items()):
        raise ValueError("not an answer: a value has the wrong type")
    if answer.replied_at is not None and answer.replied_at.tzinfo is None:
        raise ValueError("not an answer: a time without its zone")
    return answer


@dataclass(slots=True)
class Left:
    """The file of a dead process, locked until ``release``."""

    path: Path
    answers: list[Answer] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    is_foreign: bool = False
    """Whether the answers belong to another database."""

    _descriptor: int = -1

    def done(self) -> None:
        """Remove the file, because its answers are recorded; lines that could not be read are kept in a second file."""
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
                next_step="the ledger does not have these answers: read them, then remove the file",
            )
        self.path.unlink(missing_ok=True)

    def release(self) -> None:
        os.close(self._descriptor)


class AnswerJournal:
    """This process's journal in ``directory``, and the files of dead processes there for the same ``database``."""

    def __init__(self, directory: Path, database: str, instance: str) -> None:
        """``database`` identifies the database without a secret. No file is created yet."""
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

    def note(self, answers: Sequence[Answer]) -> None:
        """Write these answers to disk. Raises OSError if none of them was written."""
        lines = {answer.attempt_id: self._line(answer) for answer in answers}
        if self._path is None:
            self._begin()
        # At an offset, not appended: the next line overwrites one that was written in part because the disk was full.
        written = _write(self._descriptor, b"".join(lines.values()), self._size)
        self._size += written
        self._lines += len(lines)
        self._pending |= lines

    def forget(self, attempt_ids: Collection[int]) -> None:
        """Drop answers that the database has. Raises OSError, which the caller may ignore."""
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
        """Close the file; remove it if the database has all its answers."""
        if self._path is not None:
            if not self._pending:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._path = None

    def left(self) -> list[Left]:
        """Lock and return the files of dead processes for this database; the caller must release each."""
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
        """Create the file under a hidden name and lock it before it gets its visible name."""
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

    def _line(self, answer: Answer) -> bytes:
        return json.dumps({"database": self._database} | to_json(answer)).encode() + b"\n"

    def _take(self, path: Path) -> Left | None:
        """Lock and read a file; None if its process is alive, or another process took the file first."""
        # Non-blocking, because opening a named pipe would block.
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
            raise OSError(f"{size} bytes are more than a journal can have")
        data = b""
        while part := os.pread(left._descriptor, size + 1, len(data)):  # noqa: SLF001 - of the same module
            data += part
        *lines, rest = data.split(b"\n")
        if rest:
            # The process died while it wrote this line, and had not reported the answer as safe.
            log.warning("journal_line_torn", file=str(left.path), bytes=len(rest))
        known: dict[int, Answer] = {}
        for line in lines:
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise TypeError("not an object")  # noqa: TRY301 - one handler for all unreadable lines
                database = values.pop("database", None)
                answer = from_json(values)
            except (ValueError, TypeError, RecursionError):
                left.bad.append(line)
                continue
            if database != self._database:
                left.is_foreign = True
                self._say_once(left.path, "journal_of_another_database", database=database, ours=self._database)
                return
            # An answer may have been written twice.
            known[answer.attempt_id] = answer
        left.answers = list(known.values())

    def _say_once(self, path: Path, event: str, **fields: object) -> None:
        if path not in self._said:
            self._said.add(path)
            log.warning(
                event, file=str(path), next_step="the file is kept; the ledger does not have its answers", **fields
            )


def _write(descriptor: int, data: bytes, offset: int | None) -> int:
    """Write all of ``data`` at ``offset``, None for the end, and flush it to disk."""
    view = memoryview(data)
    done = 0
    while done < len(data):
        rest = view[done:]
        done += os.write(descriptor, rest) if offset is None else os.pwrite(descriptor, rest, offset + done)
    os.fsync(descriptor)
    return done
