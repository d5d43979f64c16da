"""The limit for callbacks: the daemon's HTTP server and loop, the signature, and one row for each, committed in groups.

Arguments: ``sqlite`` or ``postgresql``, where the database is, and the port. Prints ``ready``. Nothing is concluded
from a callback, and none is refused because the database is busy.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from benchmarks.processes import CALLBACK_SECRET
from watchdog.clock import SystemClock
from watchdog.core import callbacks
from watchdog.daemon import event_loop
from watchdog.daemon.http_protocol import TimedProtocol, Turns
from watchdog.daemon.http_server import READ_SECONDS
from watchdog.embedded_server import EmbeddedServer, listen
from watchdog.services.callbacks import WINDOW_SECONDS
from watchdog.store.aio.group_commit import GroupCommit

_TABLE = "CREATE TABLE received (event TEXT NOT NULL, room_id TEXT NOT NULL, sent_at DOUBLE PRECISION NOT NULL)"

Row = tuple[str, str, float]


def main(kind: str, where: str, port: str) -> None:
    """Serve until the process is ended."""
    event_loop.run(_serve(_on_sqlite(where) if kind == "sqlite" else _on_postgresql(where), int(port)))


def _on_sqlite(where: str) -> Callable[[Sequence[Row]], None]:
    connection = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(_TABLE)

    def insert(rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO received VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")

    return insert


def _on_postgresql(where: str) -> Callable[[Sequence[Row]], None]:
    connection = psycopg.connect(where)
    connection.execute(_TABLE)
    connection.commit()

    def insert(rows: Sequence[Row]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany("INSERT INTO received VALUES (%s, %s, %s)", rows)

    return insert


async def _serve(insert: Callable[[Sequence[Row]], None], port: int) -> None:
    clock, thread = SystemClock(), ThreadPoolExecutor(1)

    async def commit(rows: Sequence[Row]) -> Sequence[None]:
        await asyncio.get_running_loop().run_in_executor(thread, insert, rows)
        return [None] * len(rows)

    groups = GroupCommit[Row, None](commit)

    async def take(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        event = callbacks.read(request.headers.get("Content-Type"), await request.body())
        callbacks.verify(event, [CALLBACK_SECRET], clock.time(), WINDOW_SECONDS)
        await groups.submit((type(event).__name__, getattr(event, "room_id", ""), event.timestamp))
        await PlainTextResponse("accepted\n")(scope, receive, send)

    protocol = type("_Protocol", (TimedProtocol,), {"read_seconds": READ_SECONDS, "turns": Turns(clock)})
    server = EmbeddedServer(
        take, [listen("127.0.0.1", port, 512)], protocol=protocol, log_level="error", finish_seconds=1
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await server.end()
