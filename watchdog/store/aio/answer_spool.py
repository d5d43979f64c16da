"""Answers that the database could not take yet, in a SQLite file, because ZEGO's answers must survive this process.

One file for each process, ``answers-INSTANCE.sqlite``, created when it is first needed. An answer is on disk when
``note`` returns. SQLite locks the file as long as its process lives; if another process can read it, the owner is dead,
and its answers can be recorded. An answer may be recorded twice: recording is idempotent.

Called by one thread at a time. Only SQLite may open the file in its own process: POSIX releases a lock when any
descriptor of the file is closed.
"""

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog

from watchdog.core.model import Outcome, Status
from watchdog.store.records import Answer

log = structlog.get_logger(__name__)

_NAMES: Final = [column.name for column in fields(Answer)]
_CREATE: Final = f"CREATE TABLE answers (database, {', '.join(_NAMES)}, PRIMARY KEY (attempt_id))"
_INSERT: Final = f"INSERT OR REPLACE INTO answers VALUES (?{', ?' * len(_NAMES)})"  # noqa: S608 - names of our own
_SELECT: Final = f"SELECT database, {', '.join(_NAMES)} FROM answers"  # noqa: S608 - names of our own
_DELETE: Final = "DELETE FROM answers WHERE attempt_id = ?"

_PARSERS: Final = (("outcome", Outcome), ("status", Status), ("replied_at", datetime.fromisoformat))


@contextmanager
def _sqlite_as_os_error() -> Iterator[None]:
    """Raise OSError for every error of SQLite's; BlockingIOError if another process has the file."""
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the low byte.
        is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        raise (BlockingIOError if is_busy else OSError)(str(error)) from error


@dataclass(frozen=True, slots=True)
class Left:
    """The file of a dead process, locked until ``release``."""

    path: Path
    answers: Sequence[Answer]
    _file: sqlite3.Connection

    def done(self) -> None:
        """Remove the file, because its answers are recorded. Raises OSError."""
        _remove(self.path)

    def release(self) -> None:
        self._file.close()


class AnswerSpool:
    """This process's file in ``directory``, and the files of dead processes there for the same ``database``."""

    def __init__(self, directory: Path, database: str, instance: str) -> None:
        """``database`` identifies the database without a secret; ``instance`` is new in each process."""
        self.directory = directory
        self._database = database
        self._path = directory / f"answers-{quote(instance, safe='')}.sqlite"
        self._file: sqlite3.Connection | None = None
        self._said: set[Path] = set()

    @_sqlite_as_os_error()
    def note(self, answers: Sequence[Answer]) -> None:
        """Write these answers to disk. Raises OSError if none of them was written."""
        if self._file is None:
            self._file = _create(self._path)
        _write(self._file, "FULL", _INSERT, [[self._database, *_to_row(answer)] for answer in answers])

    @_sqlite_as_os_error()
    def forget(self, attempt_ids: Collection[int]) -> None:
        """Drop answers that the database has. Raises OSError, which the caller may ignore."""
        if self._file is not None:
            # No fsync: if a power cut restores them, they are only recorded twice.
            _write(self._file, "NORMAL", _DELETE, [(attempt_id,) for attempt_id in attempt_ids])

    @_sqlite_as_os_error()
    def close(self) -> None:
        """Close the file; remove it if the database has all its answers. Raises OSError."""
        if self._file is not None:
            with closing(self._file) as file:
                self._file = None
                if file.execute(_SELECT).fetchone() is None:
                    _remove(self._path)

    def left(self) -> list[Left]:
        """Lock and return the files of dead processes for this database; the caller must release each."""
        found: list[Left] = []
        for path in sorted(self.directory.glob("answers-*.sqlite")):
            try:
                found += self._take(path)
            except BlockingIOError:
                continue  # its process is alive, or another process has taken it
            except (OSError, TypeError, ValueError) as error:
                self._say_once(path, "journal_unreadable", error=str(error))
        return found

    @_sqlite_as_os_error()
    def _take(self, path: Path) -> Sequence[Left]:
        """Lock and read a file. Raises TypeError or ValueError if another version of this program wrote it."""
        if not path.stat().st_size:
            # Its process will lock it in a moment, or was killed before its first note returned.
            return ()
        with ExitStack() as undo:
            file = undo.enter_context(closing(_open(path)))
            rows = file.execute(_SELECT).fetchall()
            if strange := {database for database, *_ in rows} - {self._database}:
                self._say_once(path, "journal_of_another_database", database=strange.pop(), ours=self._database)
                return ()
            left = Left(path, [_from_row(row) for _, *row in rows], file)
            undo.pop_all()
        return (left,)

    def _say_once(self, path: Path, event: str, **fields: object) -> None:
        # Another process may have recorded the answers and removed the file meanwhile.
        if path not in self._said and path.exists():
            self._said.add(path)
            log.warning(
                event, file=str(path), next_step="the file is kept; the ledger does not have its answers", **fields
            )


def _to_row(answer: Answer) -> list[Any]:
    values = [getattr(answer, name) for name in _NAMES]
    return [value.isoformat() if isinstance(value, datetime) else value for value in values]


def _from_row(row: Sequence[Any]) -> Answer:
    values = dict(zip(_NAMES, row, strict=True))
    for name, parse in _PARSERS:
        values[name] = None if values[name] is None else parse(values[name])
    return Answer(**values)


def _create(path: Path) -> sqlite3.Connection:
    with ExitStack() as undo:
        # By ourselves, because SQLite takes the mode of its files from the umask.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        undo.callback(_remove, path)
        file = undo.enter_context(closing(_open(path)))
        # One fsync a commit instead of three.
        file.execute("PRAGMA journal_mode=WAL")
        file.execute(_CREATE)
        undo.pop_all()
    return file


def _open(path: Path) -> sqlite3.Connection:
    """Open an existing file; the first statement that reads or writes locks it until ``close``, or fails at once."""
    uri = f"file:{quote(str(path))}?mode=rw"
    file = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA locking_mode=EXCLUSIVE")
    return file


def _write(file: sqlite3.Connection, synchronous: str, statement: str, rows: Sequence[Any]) -> None:
    file.execute(f"PRAGMA synchronous={synchronous}")
    with file:
        file.execute("BEGIN")
        file.executemany(statement, rows)


def _remove(path: Path) -> None:
    for one in (path, path.with_name(f"{path.name}-wal")):
        one.unlink(missing_ok=True)
