"""The application beside the watchdog: it says how many people are in a room, and that is all.

Arguments: ``sqlite PATH`` or ``postgresql CONNINFO``. The daemon reckons when a task is due, so the time in the orders
is not used.
"""

import json
import sqlite3

import psycopg

from benchmarks.peers.orders import Rooms, serve


def _sqlite(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA synchronous=FULL")

    def say(rooms: Rooms, people: int) -> None:
        connection.execute(
            "UPDATE zego_tasks SET user_count = ?"
            " WHERE room_id IN (SELECT value FROM json_each(?)) AND status = 'active'",
            (people, json.dumps([room_id for _, room_id in rooms])),
        )

    serve(lambda rooms, _: say(rooms, 0), lambda rooms: say(rooms, 1))


def _postgresql(conninfo: str) -> None:
    connection = psycopg.connect(conninfo, autocommit=True)

    def say(rooms: Rooms, people: int) -> None:
        connection.execute(
            "UPDATE zego_tasks SET user_count = %s WHERE room_id = ANY(%s) AND status = 'active'",
            (people, [room_id for _, room_id in rooms]),
        )

    serve(lambda rooms, _: say(rooms, 0), lambda rooms: say(rooms, 1))


def main(kind: str, where: str) -> None:
    {"sqlite": _sqlite, "postgresql": _postgresql}[kind](where)
