"""The application beside the watchdog: it says how many people are in a room, and since when, and that is all.

Arguments: ``sqlite PATH GRACE`` or ``postgresql CONNINFO GRACE``. The daemon reckons when a task is due; of the time in
the orders, which a peer's application hands on, the moment is taken at which the rooms emptied, a grace before it.
"""

import json
import sqlite3

import psycopg

from benchmarks.peers.orders import Rooms, moment, serve


def _sqlite(path: str, grace_seconds: float) -> None:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA synchronous=FULL")

    def say(rooms: Rooms, people: int, at: float | None = None) -> None:
        connection.execute(
            "UPDATE zego_tasks SET user_count = ?, user_count_at = ?, user_count_source = 'app'"
            " WHERE room_id IN (SELECT value FROM json_each(?)) AND status = 'active'",
            (people, None if at is None else moment(at).isoformat(" "), json.dumps([room_id for _, room_id in rooms])),
        )

    serve(lambda rooms, due_at: say(rooms, 0, due_at - grace_seconds), lambda rooms: say(rooms, 1))


def _postgresql(conninfo: str, grace_seconds: float) -> None:
    connection = psycopg.connect(conninfo, autocommit=True)

    def say(rooms: Rooms, people: int, at: float | None = None) -> None:
        connection.execute(
            "UPDATE zego_tasks SET user_count = %s, user_count_at = %s, user_count_source = 'app'"
            " WHERE room_id = ANY(%s) AND status = 'active'",
            (people, None if at is None else moment(at), [room_id for _, room_id in rooms]),
        )

    serve(lambda rooms, due_at: say(rooms, 0, due_at - grace_seconds), lambda rooms: say(rooms, 1))


def main(kind: str, where: str, grace_seconds: str) -> None:
    {"sqlite": _sqlite, "postgresql": _postgresql}[kind](where, float(grace_seconds))
