"""What an application is told on its standard input: one JSON object a line, each answered with ``ok`` when it is done.

{"empty": [["TaskId", "RoomId"], …], "due_at": 1700000000.0}    these rooms have emptied; stop their tasks then
{"occupied": [["TaskId", "RoomId"], …]}                         people are back: do not
"""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

Rooms = Sequence[tuple[str, str]]
"""TaskIds, each with its RoomId."""


def serve(empty: Callable[[Rooms, float], object], occupied: Callable[[Rooms], object]) -> None:
    """Carry out orders until the input ends. ``empty`` gets the Unix time at which its tasks are due."""
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "empty" in order:
            empty([(task_id, room_id) for task_id, room_id in order["empty"]], order["due_at"])
        else:
            occupied([(task_id, room_id) for task_id, room_id in order["occupied"]])
        print("ok", flush=True)


def moment(unix_time: float) -> datetime:
    return datetime.fromtimestamp(unix_time, UTC)
