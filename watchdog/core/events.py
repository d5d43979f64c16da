"""The events that the outbox knows. Triggers write them (``migrations/sql/0006_*.sql``)."""

from enum import StrEnum


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
