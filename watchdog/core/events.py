"""The events that the outbox knows. Triggers write them (``migrations/sql/0006_*.sql``)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, assert_never


class EventType(StrEnum):
    """What happened."""

    TASK_STOPPED = "task.stopped"
    """The daemon or an operator stopped the task."""
    TASK_AUTO_STOPPED = "task.auto_stopped"
    """ZEGO ended the task by itself."""
    TASK_FAILED = "task.failed"
    """The task could not be stopped, and no further request is sent."""
    TASK_GONE = "task.gone"
    """ZEGO no longer knew the task when the first request came."""
    TASK_DISCOVERED = "task.discovered"
    """A callback reported a task that the application had not registered."""
    TASK_WOULD_STOP = "task.would_stop"
    """In observe mode: the task would have been stopped."""
    ROOM_REJOINED = "room.rejoined"
    """People came back to the room after a stop: recognition must be started again."""


SAMPLE: Final = "sample"
"""The TaskId and the RoomId of a sample: no receiver has such a task."""

_TIMES: Final = ("started_at", "empty_since", "due_at", "auto_stop_at", "ended_at")
_ATTEMPT: Final = ("reason", "outcome", "attempt", "code", "request_id", "http_status")


def sample(event_type: EventType | None, now: datetime, app_id: int | None) -> Mapping[str, Any]:
    """Return ``data`` like that of a real event of this type, and of none for the type ``test``."""
    about: dict[str, Any] = {"task_id": SAMPLE, "kind": "asr", "app_id": app_id, "room_id": SAMPLE}
    ended: dict[str, Any] = {"status": "stopped", "reason": "empty_room", "outcome": "stopped", "attempt": 1}
    ended |= {"code": "0", "request_id": SAMPLE, "http_status": 200}
    ended |= {
        name: as_text(now - timedelta(seconds=ago)) for name, ago in zip(_TIMES, (600, 45, 0, -75, 0), strict=True)
    }
    match event_type:
        case None:
            return about
        case EventType.ROOM_REJOINED:
            stopped_at = as_text(now - timedelta(seconds=30))
            return about | {"stopped_at": stopped_at, "rejoined_at": as_text(now), "absent_seconds": 30.0}
        case EventType.TASK_STOPPED:
            return about | ended
        case EventType.TASK_FAILED:
            return about | ended | {"status": "failed", "outcome": "rejected", "code": "410000003"}
        case EventType.TASK_GONE | EventType.TASK_AUTO_STOPPED:
            name = event_type.removeprefix("task.")
            return about | ended | {"status": name, "outcome": name, "code": "410001002"}
        case EventType.TASK_DISCOVERED:
            unknown = dict.fromkeys((*_ATTEMPT, *_TIMES[1:]))
            return about | {"status": "active", "started_at": as_text(now)} | unknown
        case EventType.TASK_WOULD_STOP:
            kept = {name: ended[name] for name in ("empty_since", "due_at", "auto_stop_at")}
            return about | {"status": "active", "reason": "empty_room", "outcome": "would_stop"} | kept
        case _:
            assert_never(event_type)


def as_text(moment: datetime) -> str:
    """Return the time as it stands in an event, the same text that the triggers write."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
