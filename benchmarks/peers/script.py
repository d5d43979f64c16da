"""The script that people write first: every five seconds a SELECT, then one request after another.

Arguments: ``application DATABASE`` and ``worker DATABASE VENDOR``; the table is in an SQLite file of the application's.
What has been stopped is marked, so that it is not stopped again.
"""

import sqlite3
import threading

import httpx2 as httpx

from benchmarks.peers import vendor
from benchmarks.peers.orders import Rooms, serve
from watchdog.clock import SystemClock

EVERY_SECONDS = 5.0

_TABLE = "CREATE TABLE IF NOT EXISTS rooms (task_id TEXT PRIMARY KEY, due_at REAL, stopped INTEGER NOT NULL DEFAULT 0)"


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(_TABLE)
    return connection


def _application(path: str) -> None:
    connection = _open(path)

    def note(rooms: Rooms, due_at: float | None) -> None:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO rooms (task_id, due_at) VALUES (?, ?) ON CONFLICT DO UPDATE SET due_at = excluded.due_at",
            [(task_id, due_at) for task_id, _ in rooms],
        )
        connection.execute("COMMIT")

    serve(note, lambda rooms: note(rooms, None))


def _worker(path: str, url: str) -> None:
    connection = _open(path)
    clock = SystemClock()
    with httpx.Client(base_url=url, trust_env=False) as client:
        print("ready", flush=True)
        while True:
            select = "SELECT task_id FROM rooms WHERE due_at <= ? AND NOT stopped"
            for (task_id,) in connection.execute(select, (clock.time(),)).fetchall():
                vendor.stop(client, task_id)
                connection.execute("UPDATE rooms SET stopped = 1 WHERE task_id = ?", (task_id,))
            threading.Event().wait(EVERY_SECONDS)


def main(part: str, path: str, url: str = "") -> None:
    if part == "application":
        _application(path)
    else:
        _worker(path, url)
