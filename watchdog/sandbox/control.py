"""The control API: moves people, starts and stops tasks, sets faults, and shows the state and the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never
from urllib.parse import parse_qs

from watchdog.clock import Clock
from watchdog.errors import ConfigError
from watchdog.sandbox import operations
from watchdog.sandbox.misbehaviour import FAITHFUL, CallbackBehaviour, Misbehaviour, Misbehaviours
from watchdog.sandbox.operations import OPERATIONS, Operation, parse_operation
from watchdog.sandbox.outbox import Outbox
from watchdog.sandbox.sender import Sender
from watchdog.sandbox.world import Event, World

PREFIX: Final = "/_sandbox/"


@dataclass(kw_only=True, eq=False, repr=False)
class Control:
    """Everything that changes or shows the sandbox without the vendor's API. Not thread-safe.

    The first of ``app_ids`` is the default of every operation. ``outbox`` and ``sender`` belong to ``world``.
    """

    app_ids: Sequence[int]
    world: World
    outbox: Outbox
    sender: Sender
    misbehaviours: Misbehaviours
    clock: Clock

    def perform(self, operation: Operation) -> dict[str, Any]:
        """Perform the operation now; return its result, JSON-compatible. Raises ConfigError if it is not possible."""
        result = self._perform(operation, self.clock.time())
        self.sender.wake()
        return result

    def events(self, since: int = 0) -> list[Event]:
        """Return the log after entry ``since``, with auto-stops up to now."""
        self.world.advance(self.clock.time())
        return self.world.log.since(since)

    def state(self) -> dict[str, Any]:
        """Return the rooms and running tasks of this moment, JSON-compatible."""
        return self.world.state(self.clock.time())

    def answer(self, method: str, path: str, query_string: bytes, body: bytes) -> tuple[int, Mapping[str, Any]]:
        try:
            return self._answer(method, path, query_string, body)
        except ConfigError as error:
            return 400, {"error": str(error)}

    def _answer(self, method: str, path: str, query_string: bytes, body: bytes) -> tuple[int, Mapping[str, Any]]:
        name = path.removeprefix(PREFIX)
        if name in OPERATIONS:
            if method != "POST":
                return 405, {"error": f"{path}: use POST"}
            try:
                fields = json.loads(body or b"{}")
            except ValueError as error:
                raise ConfigError(f"{name}: the body is not JSON: {error}") from error
            return 200, self.perform(parse_operation(name, fields))
        if name not in {"log", "state"}:
            known = ", ".join([*OPERATIONS, "log", "state"])
            return 404, {"error": f"{path}: no such endpoint; {PREFIX} has {known}"}
        if method != "GET":
            return 405, {"error": f"{path}: use GET"}
        if name == "state":
            return 200, self.state()
        since = parse_qs(query_string.decode("latin-1"), keep_blank_values=True).get("since", ["0"])[0]
        if not (since.isascii() and since.isdigit() and len(since) <= 18):
            raise ConfigError(f"since: expected the seq of a log entry, got {since!r}")
        events = self.events(int(since))
        return 200, {"last_seq": len(self.world.log), "events": events}

    def _perform(self, operation: Operation, now: float) -> dict[str, Any]:
        match operation:
            case operations.Join() | operations.Leave() | operations.Crash() | operations.Speak():
                return self._move(operation, now)
            case operations.Start():
                return self._start(operation, now)
            case operations.Stop() | operations.EndMedia():
                return self._end(operation, now)
            case Misbehaviour() | CallbackBehaviour() | operations.Behave() | operations.SendCallbacks():
                self._set_up(operation, now)
                return {}
            case _:
                assert_never(operation)

    def _start(self, operation: operations.Start, now: float) -> dict[str, Any]:
        app_id, kind = self._app(operation.app_id), operation.kind
        idle = operation.max_idle_seconds
        task_id = self.world.start(
            app_id, operation.room, now, kind=kind, user_id=operation.user, max_idle_seconds=idle
        )
        if task_id is None:
            limit = self.world.account_limits[kind]
            raise ConfigError(f"start: app {app_id} already runs {limit} tasks; stop one or raise the limit")
        return {"task_id": task_id}

    def _end(self, operation: operations.Stop | operations.EndMedia, now: float) -> dict[str, Any]:
        app_id, task_id = self._app(operation.app_id), operation.task_id
        match operation:
            case operations.Stop(graceful_seconds=seconds):
                if not self.world.stop(app_id, task_id, now, request_id=None, graceful_seconds=seconds):
                    raise ConfigError(f"stop.task_id: app {app_id} runs no task {task_id}")
            case operations.EndMedia():
                if not self.world.end_media(app_id, task_id, now):
                    raise ConfigError(f"end_media.task_id: app {app_id} runs no player {task_id}")
            case _:
                assert_never(operation)
        return {"task_id": task_id}

    def _move(
        self, operation: operations.Join | operations.Leave | operations.Crash | operations.Speak, now: float
    ) -> dict[str, Any]:
        who = self._app(operation.app_id), operation.room, operation.user
        match operation:
            case operations.Join():
                return self.world.join(*who, now, operation.role, operation.name).as_fields()
            case operations.Speak():
                if (task_ids := self.world.speak(*who, operation.text, now)) is not None:
                    return {"task_ids": list(task_ids)}
            case operations.Leave() | operations.Crash():
                go = self.world.leave if isinstance(operation, operations.Leave) else self.world.crash
                if (scene := go(*who, now)) is not None:
                    return scene.as_fields()
            case _:
                assert_never(operation)
        raise ConfigError(f"{type(operation).__name__.lower()}.user: {operation.user} is not in room {operation.room}")

    def _set_up(
        self, operation: Misbehaviour | CallbackBehaviour | operations.Behave | operations.SendCallbacks, now: float
    ) -> None:
        # Events up to now are sent, or not, by the previous settings.
        self.world.advance(now)
        if self.sender.url is None:
            self.outbox.skip()
        else:
            self.outbox.collect()
        match operation:
            case Misbehaviour():
                self.misbehaviours.add(operation)
            case CallbackBehaviour():
                self.outbox.behaviour = operation
            case operations.Behave():
                self.misbehaviours.clear()
                self.outbox.behaviour = FAITHFUL
            case operations.SendCallbacks():
                self.outbox.encoding = operation.encoding
                self.sender.url = operation.url
            case _:
                assert_never(operation)

    def _app(self, app_id: int | None) -> int:
        if app_id is None:
            return self.app_ids[0]
        if app_id not in self.app_ids:
            raise ConfigError(f"app_id: the sandbox has no app {app_id}; it has {', '.join(map(str, self.app_ids))}")
        return app_id
