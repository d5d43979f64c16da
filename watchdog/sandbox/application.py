"""The sandbox as one ASGI application: the vendor's API at ``/``, the control API under ``/_sandbox/``.

Written against ASGI itself, without a router or middleware: ``/`` has to carry thousands of requests a second, and a
misbehaviour needs the connection beneath the request, which ``server`` puts into ``scope["state"]["transport"]``.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Final, assert_never
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from watchdog.clock import Clock
from watchdog.errors import ConfigError
from watchdog.sandbox.misbehaviour import FAITHFUL, Body, CallbackBehaviour, Misbehaviour, Misbehaviours, RequestIdStyle
from watchdog.sandbox.operations import (
    OPERATIONS,
    Behave,
    Crash,
    Join,
    Leave,
    Operation,
    SendCallbacks,
    Speak,
    Start,
    Stop,
    parse_operation,
)
from watchdog.sandbox.outbox import Outbox
from watchdog.sandbox.sender import Sender
from watchdog.sandbox.vendor import Action, Answer, Limits, Request, Vendor
from watchdog.sandbox.world import Event, World, stream

MAX_REQUEST_BYTES: Final = 1 << 20
HUGE_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 16
_CONTROL: Final = "/_sandbox/"
_HTML: Final = "text/html"
_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Reply:
    """An HTTP reply; ``readable`` says that a client finds ``request_id`` and ``code`` in it.

    ``padding`` is how many more bytes follow ``body``.
    """

    status: int
    content_type: str
    body: bytes
    code: int | None = None
    request_id: str | None = None
    readable: bool = False
    padding: int = 0


def _gateway_page(status: int) -> bytes:
    return f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>".encode()


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _render(answer: Answer | None, how: Misbehaviour) -> _Reply:
    """Write what goes over the wire; ``answer`` None is a gateway's error, in which the vendor had no part."""
    status = 200 if how.http_status is None else how.http_status
    if answer is None:
        return _Reply(status, _HTML, _gateway_page(status))
    request_id = answer.request_id
    if how.request_id is RequestIdStyle.LONG:
        request_id = (request_id * 2)[:30]
    fields: dict[str, Any] = {"Code": answer.code, "Message": answer.message}
    fields["RequestId"] = int(request_id) if how.request_id is RequestIdStyle.NUMBER else request_id
    if answer.data is not None:
        fields["Data"] = answer.data
    body = _to_json(fields)
    match how.body:
        case Body.JSON:
            return _Reply(status, _JSON, body, answer.code, request_id, readable=True)
        case Body.HTML:
            return _Reply(status, _HTML, _gateway_page(status), answer.code, request_id)
        case Body.CUT:
            return _Reply(status, _JSON, body[: len(body) // 2], answer.code, request_id)
        case Body.HUGE:
            # The closing brace never comes: whoever reads all of it has nothing more than its beginning.
            return _Reply(status, _JSON, body[:-1], answer.code, request_id, padding=HUGE_BYTES)
        case _:
            assert_never(how.body)


class Application:
    """Everything behind the port. Not thread-safe: other threads and processes use the control API.

    ``secrets`` maps AppIds to ServerSecrets; the first AppId is the default of every operation. ``outbox`` belongs to
    ``world``, and the caller runs the ``sender``. ``clock_offset_seconds`` sets the vendor's clock (``Date``, timestamp
    check) ahead of ``clock``; the log keeps to ``clock``, so that it can be compared with what others recorded.
    """

    def __init__(
        self,
        secrets: Mapping[int, str],
        *,
        world: World,
        outbox: Outbox,
        sender: Sender,
        clock: Clock,
        seed: int,
        limits: Limits,
        clock_offset_seconds: float,
    ) -> None:
        if not secrets:
            raise ConfigError("the sandbox needs at least one app: an AppId and its ServerSecret")
        self.world = world
        self.misbehaviours = Misbehaviours(stream(seed, "misbehaviour"))
        self._outbox = outbox
        self._sender = sender
        self._vendor = Vendor(world, secrets, limits)
        self._clock = clock
        self._clock_offset_seconds = clock_offset_seconds
        self._default_app = next(iter(secrets))
        self._apps = frozenset(secrets)
        self._pausing: set[asyncio.Task[Any]] = set()
        self._date = (0, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path = scope["path"]
        if path == "/":
            await self._serve_vendor(scope, receive, send)
        elif path.startswith(_CONTROL):
            await self._serve_control(scope, receive, send)
        else:
            await self._send(_Reply(404, _HTML, _gateway_page(404)), send)

    def perform(self, operation: Operation) -> dict[str, Any]:
        """Do it now and return what came of it, JSON-able. ConfigError where the world, as it is, does not allow it."""
        result = self._perform(operation, self._clock.time())
        self._sender.wake()
        return result

    def events(self, since: int = 0) -> list[Event]:
        """Return the log after entry ``since``, auto-stops up to now included."""
        self.world.advance(self._clock.time())
        return self.world.log.since(since)

    def state(self) -> dict[str, Any]:
        """Return rooms and running tasks as they are now, JSON-able."""
        return self.world.state(self._clock.time())

    def break_off(self) -> None:
        """End every exchange that is being held up, so that the server can close."""
        for task in self._pausing:
            task.cancel()

    def _perform(self, operation: Operation, now: float) -> dict[str, Any]:
        match operation:
            case Join() | Leave() | Crash() | Speak():
                return self._move(operation, now)
            case Start():
                app_id = self._app(operation.app_id)
                task_id = self.world.start(app_id, operation.room, now, max_idle_seconds=operation.max_idle_seconds)
                if task_id is None:
                    limit = self.world.concurrent_tasks
                    raise ConfigError(f"start: app {app_id} already runs {limit} tasks; stop one or raise the limit")
                return {"task_id": task_id}
            case Stop():
                app_id = self._app(operation.app_id)
                if not self.world.stop(app_id, operation.task_id, now, request_id=None):
                    raise ConfigError(f"stop.task_id: app {app_id} runs no task {operation.task_id}")
                return {"task_id": operation.task_id}
            case Misbehaviour() | CallbackBehaviour() | Behave() | SendCallbacks():
                self._set_up(operation, now)
                return {}
            case _:
                assert_never(operation)

    def _move(self, operation: Join | Leave | Crash | Speak, now: float) -> dict[str, Any]:
        app_id, room, user = self._app(operation.app_id), operation.room, operation.user
        result: dict[str, Any] | None
        match operation:
            case Join():
                result = self.world.join(app_id, room, user, now, operation.role, operation.name).as_fields()
            case Leave() | Crash():
                go = self.world.leave if isinstance(operation, Leave) else self.world.crash
                scene = go(app_id, room, user, now)
                result = None if scene is None else scene.as_fields()
            case Speak():
                task_ids = self.world.speak(app_id, room, user, operation.text, now)
                result = None if task_ids is None else {"task_ids": list(task_ids)}
            case _:
                assert_never(operation)
        if result is None:
            raise ConfigError(f"{type(operation).__name__.lower()}.user: {user} is not in room {room}")
        return result

    def _set_up(self, operation: Misbehaviour | CallbackBehaviour | Behave | SendCallbacks, now: float) -> None:
        # What has happened until now is told, or not, as it was to be until now.
        self.world.advance(now)
        if self._sender.url is None:
            self._outbox.skip()
        else:
            self._outbox.collect()
        match operation:
            case Misbehaviour():
                self.misbehaviours.add(operation)
            case CallbackBehaviour():
                self._outbox.behaviour = operation
            case Behave():
                self.misbehaviours.clear()
                self._outbox.behaviour = FAITHFUL
            case SendCallbacks():
                self._outbox.encoding = operation.encoding
                self._sender.url = operation.url
            case _:
                assert_never(operation)

    def _app(self, app_id: int | None) -> int:
        if app_id is None:
            return self._default_app
        if app_id not in self._apps:
            raise ConfigError(f"app_id: the sandbox has no app {app_id}; it has {', '.join(map(str, self._apps))}")
        return app_id

    async def _serve_vendor(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_at = self._clock.time()
        body = await _read(receive)
        if body is None:
            return
        request = Request.read(scope["method"], scope["query_string"].decode("latin-1"), body)
        how = self.misbehaviours.choose(request.action)
        transport: asyncio.Transport = scope["state"]["transport"]
        # Only a Stop is recorded as a request: it is the one that cannot be taken back.
        record: dict[str, Any] | None = None
        if request.action is Action.STOP:
            record = {
                "received_at": received_at,
                "app_id": request.app_id,
                "nonce": request.parameter("SignatureNonce"),
            }
            record |= {"task_id": request.task_id, "code": None, "request_id": None, "http_status": None}
            record |= {"processed": False, "accepted": False, "readable": False, "delivered": False}
        try:
            await self._pause(self.misbehaviours.between(how.latency_seconds))
            reply = self._process(request, how, record)
            await self._pause(self.misbehaviours.between(how.reply_latency_seconds))
            delivered = how.drop_reply is None and await self._deliver(reply, how, transport, send)
            if record is not None:
                record |= {"readable": reply.readable, "delivered": delivered}
            if how.drop_reply is not None:
                await _hang_up(transport, receive)
        except asyncio.CancelledError:
            # The sandbox is closing while it holds this exchange up: for the client the connection is lost.
            await _hang_up(transport, receive)
        finally:
            if record is not None:
                now = self.world.advance(self._clock.time())
                scene = {} if "people" in record else self.world.scene(request.task_id, now).as_fields()
                self.world.log.append(now, "stop_requested", **record, **scene)

    def _process(self, request: Request, how: Misbehaviour, record: dict[str, Any] | None) -> _Reply:
        now = self.world.advance(self._clock.time())
        if record is not None:
            record |= {"processed_at": now} | self.world.scene(request.task_id, now).as_fields()
        answer: Answer | None = None
        accepted = False
        if how.takes_effect:
            answer = self._vendor.answer(request, now, clock_offset_seconds=self._clock_offset_seconds)
            accepted = answer.code == 0
            if request.action is Action.START:
                # The task may end by itself, and that will be told.
                self._sender.wake()
        if how.code is not None:
            told = Answer(how.code, "Told to answer this.", self.world.new_id())
            answer = told if answer is None else replace(told, request_id=answer.request_id)
        elif how.http_status is not None:
            answer = None
        reply = _render(answer, how)
        if record is not None:
            record |= {"processed": how.takes_effect, "accepted": accepted}
            record |= {"code": reply.code, "request_id": reply.request_id, "http_status": reply.status}
        return reply

    async def _deliver(self, reply: _Reply, how: Misbehaviour, transport: asyncio.Transport, send: Send) -> bool:
        """Send it; whether the client was still there for the last byte."""
        if not how.drip:
            here = not transport.is_closing()
            await self._send(reply, send)
            return here if not reply.padding else not transport.is_closing()
        await send(self._head(reply))
        for at in range(len(reply.body)):
            await self._pause(1)
            if transport.is_closing():
                return False
            last = at == len(reply.body) - 1
            await send({"type": "http.response.body", "body": reply.body[at : at + 1], "more_body": not last})
        return True

    async def _send(self, reply: _Reply, send: Send) -> None:
        await send(self._head(reply))
        await send({"type": "http.response.body", "body": reply.body, "more_body": reply.padding > 0})
        for left in range(reply.padding, 0, -_CHUNK_BYTES):
            chunk = b" " * min(left, _CHUNK_BYTES)
            await send({"type": "http.response.body", "body": chunk, "more_body": left > _CHUNK_BYTES})

    def _head(self, reply: _Reply) -> dict[str, Any]:
        second = int(self._clock.time() + self._clock_offset_seconds)
        if self._date[0] != second:
            self._date = second, formatdate(second, usegmt=True).encode()
        return {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [
                (b"date", self._date[1]),
                (b"content-type", reply.content_type.encode()),
                (b"content-length", str(len(reply.body) + reply.padding).encode()),
            ],
        }

    async def _pause(self, seconds: float) -> None:
        task = asyncio.current_task()
        if seconds <= 0 or task is None:
            return
        self._pausing.add(task)
        try:
            await self._clock.sleep(seconds)
        finally:
            self._pausing.discard(task)

    async def _serve_control(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        try:
            status, value = self._control(scope["method"], scope["path"], scope["query_string"], body)
        except ConfigError as error:
            status, value = 400, {"error": str(error)}
        await self._send(_Reply(status, _JSON, _to_json(value) + b"\n"), send)

    def _control(self, method: str, path: str, query_string: bytes, body: bytes) -> tuple[int, Mapping[str, Any]]:
        name = path.removeprefix(_CONTROL)
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
            return 404, {"error": f"{path}: no such endpoint; under {_CONTROL} there are {known}"}
        if method != "GET":
            return 405, {"error": f"{path}: use GET"}
        if name == "state":
            return 200, self.state()
        since = parse_qs(query_string.decode("latin-1"), keep_blank_values=True).get("since", ["0"])[0]
        if not (since.isascii() and since.isdigit() and len(since) <= 18):
            raise ConfigError(f"since: expected the seq of a log entry, got {since!r}")
        events = self.events(int(since))
        return 200, {"last_seq": len(self.world.log), "events": events}


async def _read(receive: Receive) -> bytes | None:
    """Read the request's body; None where the client went away before all of it was here, or it is past any use."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_REQUEST_BYTES:
            return b""
        if not message.get("more_body", False):
            return b"".join(parts)


async def _hang_up(transport: asyncio.Transport, receive: Receive) -> None:
    """Close the connection without an answer."""
    transport.abort()
    # Until the server has noticed it, returning would make it answer 500 by itself.
    while (await receive())["type"] != "http.disconnect":
        pass
