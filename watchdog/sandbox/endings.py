"""How tasks of the fake ZEGO end: by a Stop, or by the vendor itself when they have been idle for too long. Pure."""

from collections.abc import Mapping
from typing import Any, Final, assert_never

from watchdog.sandbox.kinds import Idle
from watchdog.sandbox.rooms import Rooms
from watchdog.sandbox.tasks import Ended, Place, Task, Tasks
from watchdog.sandbox.timeline import Log, Timeline

LIFE: Final = "life"
"""``because`` of an ``auto_stopped`` whose task had run for as long as any of its kind may; else it is an ``Idle``."""


class Endings:
    """Ends tasks, writes that to the log, and takes the users that they brought out of their rooms."""

    def __init__(self, log: Log, timeline: Timeline, tasks: Tasks, rooms: Rooms) -> None:
        self._log = log
        self._timeline = timeline
        self._tasks = tasks
        self._rooms = rooms

    def begin(self, task: Task) -> None:
        """Watch a new task."""
        if task.facts.life_seconds is not None:
            self._timeline.add(task.started_at + task.facts.life_seconds, lambda: self._end_if_idle(task))
        self.consider(task)

    def consider_all(self, place: Place) -> None:
        """Consider the tasks of a room to which a user has come, or whom one has left."""
        for task in self._tasks.running_in(place):
            self.consider(task)

    def consider(self, task: Task) -> None:
        """Begin or end the idle time of a task, if it is time for that."""
        if not self._is_idle(task):
            task.idle_since = None
        elif task.idle_since is None:
            task.idle_since = self._timeline.now
            self._timeline.add(task.idle_since + task.max_idle_seconds, lambda: self._end_if_idle(task))

    def stop(self, task: Task, *, request_id: str | None, via: str, graceful_seconds: float) -> None:
        """Stop a running task, after ``graceful_seconds``."""

        def end() -> None:
            # The vendor may have been faster.
            if task.ended is None:
                fields = {"task_id": task.task_id, "app_id": task.app_id, "kind": task.kind, "request_id": request_id}
                scene = self._rooms.scene(task.place).as_fields()
                self._end(task, Ended.BY_REQUEST, "task_stopped", fields | {"via": via} | scene)

        if graceful_seconds:
            task.stopping = True
            self._timeline.add(self._timeline.now + graceful_seconds, end)
        else:
            end()

    def _is_idle(self, task: Task) -> bool:
        room = self._rooms.find(task.place)
        match task.facts.idle:
            case Idle.NO_USER:
                return room is None
            case Idle.NO_VISITOR:
                return room is None or not room.has_visitors
            case Idle.NOT_DRIVEN:
                return True
            case Idle.NOT_PLAYING:
                return task.media_ended
            case rule:
                assert_never(rule)

    def _end_if_idle(self, task: Task) -> None:
        # Otherwise the deadline is outdated: the task was not idle in between, or it was stopped.
        if task.ended is None and task.auto_stop_at == self._timeline.now:
            fields = task.as_fields()
            del fields["auto_stop_at"]
            because = task.facts.idle if task.idle_ends_at == self._timeline.now else LIFE
            self._end(task, Ended.BY_VENDOR, "auto_stopped", fields | {"because": because})

    def _end(self, task: Task, ended: Ended, event: str, fields: Mapping[str, Any]) -> None:
        self._tasks.end(task, ended)
        self._log.append(self._timeline.now, event, **fields)
        if task.user_id is not None and task.session_id is not None:
            self._rooms.end_session(task.place, task.user_id, task.session_id)
