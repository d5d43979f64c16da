"""Has PostgreSQL end the daemon's connection at each of its statements; in the daemon's process, see chaos_daemon.

Of each different statement, the first time: before it; the second time: after it, inside its transaction; and of each
transaction of as many statements once: at its COMMIT. Each is said on stderr as ``terminated WHEN STATEMENT``.
"""

import signal
import sys
from collections import Counter
from typing import Any

import psycopg
import sqlalchemy as sa

_seen: Counter[str] = Counter()
_commits: set[str] = set()
_last: dict[int, str] = {}
_active: list[bool] = []


def install() -> None:
    """Listen to every engine of this process; it begins with SIGUSR2."""
    signal.signal(signal.SIGUSR2, lambda *_: _begin())
    sa.event.listen(sa.Engine, "before_cursor_execute", _before)
    sa.event.listen(sa.Engine, "after_cursor_execute", _after)
    sa.event.listen(sa.Engine, "commit", _commit)


def _begin() -> None:
    _active.append(True)


def _before(connection: sa.Connection, _cursor: Any, statement: str, *_: object) -> None:
    if not _active:
        return
    _last[id(connection)] = statement
    _seen[statement] += 1
    if _seen[statement] == 1:
        _terminate(connection, "before", statement)


def _after(connection: sa.Connection, _cursor: Any, statement: str, *_: object) -> None:
    if _seen[statement] == 2:
        _terminate(connection, "after", statement)


def _commit(connection: sa.Connection) -> None:
    statement = _last.pop(id(connection), "")
    if _seen[statement] > 2 and statement not in _commits:
        _commits.add(statement)
        _terminate(connection, "at the commit of", statement)


def _terminate(connection: sa.Connection, when: str, statement: str) -> None:
    ours: Any = connection.connection.dbapi_connection
    with psycopg.connect(ours.info.dsn, autocommit=True, application_name="terminator") as other:
        other.execute("SELECT pg_terminate_backend(%s, 1000)", (ours.info.backend_pid,))
    sys.stderr.write(f"terminated {when} {' '.join(statement.split())[:60]}\n")
    sys.stderr.flush()
