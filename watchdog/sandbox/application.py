"""The sandbox as one ASGI application: the vendor's API at ``/``, the control API under ``/_sandbox/``.

It uses plain ASGI without a router or middleware: ``/`` must handle thousands of requests per second, and a
misbehaviour needs the connection below the request, which ``server`` puts into ``scope["state"]["transport"]``.
"""

import asyncio
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from watchdog.clock import Clock
from watchdog.sandbox.actions import STARTS
from watchdog.sandbox.control import PREFIX, Control
from watchdog.sandbox.misbehaviour import Misbehaviour, Misbehaviours
from watchdog.sandbox.replies import Reply, gateway_error, hang_up, json_reply, read_body, vendor_reply
from watchdog.sandbox.sender import Sender
from watchdog.sandbox.vendor import Answer, Request, Vendor

_CHUNK_BYTES: Final = 1 << 16


@dataclass(kw_only=True, eq=False, repr=False)
class Application:
    """Everything behind the port. Not thread-safe: other threads and processes use the control API.

    ``clock_offset_seconds`` sets the vendor's clock (``Date``, timestamp check) ahead of ``clock``; the log uses
    ``clock``, so it can be compared with other records.
    """

    vendor: Vendor
    control: Control
    misbehaviours: Misbehaviours
    sender: Sender
    clock: Clock
    clock_offset_seconds: float
    _pausing: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _date: tuple[int, bytes] = field(init=False, default=(0, b""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/":
            await self._serve_vendor(scope, receive, send)
        elif not path.startswith(PREFIX):
            await self._send(gateway_error(404), send)
        elif (body := await read_body(receive)) is not None:
            status, value = self.control.answer(scope["method"], path, scope["query_string"], body)
            await self._send(json_reply(status, value), send)

    def break_off(self) -> None:
        """Cancel every delayed exchange, so that the server can close."""
        for task in self._pausing:
            task.cancel()

    async def _serve_vendor(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_at = self.clock.time()
        body = await read_body(receive)
        if body is None:
            return
        request = Request.read(scope["method"], scope["query_string"].decode("latin-1"), body)
        how = self.misbehaviours.choose(request.action)
        transport: asyncio.Transport = scope["state"]["transport"]
        # Only Stop requests are recorded, because only they cannot be undone.
        record: dict[str, Any] | None = None
        if request.stops is not None:
            record = {
                "received_at": received_at,
                "app_id": request.app_id,
                "nonce": request.parameter("SignatureNonce"),
                "kind": request.stops,
                "task_id": request.task_id,
                **dict.fromkeys(("code", "request_id", "http_status")),
                **dict.fromkeys(("processed", "accepted", "readable", "delivered"), False),
            }
        try:
            await self._pause(self.misbehaviours.between(how.latency_seconds))
            reply = self._process(request, how, record)
            await self._pause(self.misbehaviours.between(how.reply_latency_seconds))
            delivered = how.drop_reply is None and await self._deliver(reply, how, transport, send)
            if record is not None:
                record |= {"readable": reply.readable, "delivered": delivered}
            if how.drop_reply is not None:
                await hang_up(transport, receive)
        except asyncio.CancelledError:
            # The sandbox is closing during a delay: the client loses its connection.
            await hang_up(transport, receive)
        finally:
            if record is not None:
                now = self.vendor.world.advance(self.clock.time())
                scene = {} if "people" in record else self.vendor.world.scene(request.task_id, now).as_fields()
                self.vendor.world.log.append(now, "stop_requested", **record, **scene)

    def _process(self, request: Request, how: Misbehaviour, record: dict[str, Any] | None) -> Reply:
        now = self.vendor.world.advance(self.clock.time())
        if record is not None:
            record |= {"processed_at": now} | self.vendor.world.scene(request.task_id, now).as_fields()
        answer: Answer | None = None
        accepted = False
        if how.takes_effect:
            answer = self.vendor.answer(request, now, clock_offset_seconds=self.clock_offset_seconds)
            accepted = answer.code == 0
            if request.action in STARTS:
                # The task may end by itself, which sends a callback.
                self.sender.wake()
        if how.code is not None:
            told = Answer(how.code, "Injected by a misbehaviour.", self.vendor.world.new_id())
            answer = told if answer is None else replace(told, request_id=answer.request_id)
        elif how.http_status is not None:
            answer = None
        reply = (
            gateway_error(200 if how.http_status is None else how.http_status)
            if answer is None
            else vendor_reply(answer, how)
        )
        if record is not None:
            record |= {"processed": how.takes_effect, "accepted": accepted}
            record |= {"code": reply.code, "request_id": reply.request_id, "http_status": reply.status}
        return reply

    async def _deliver(self, reply: Reply, how: Misbehaviour, transport: asyncio.Transport, send: Send) -> bool:
        """Send the reply; return whether the client was connected until the last byte."""
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

    async def _send(self, reply: Reply, send: Send) -> None:
        await send(self._head(reply))
        await send({"type": "http.response.body", "body": reply.body, "more_body": reply.padding > 0})
        for left in range(reply.padding, 0, -_CHUNK_BYTES):
            chunk = b" " * min(left, _CHUNK_BYTES)
            await send({"type": "http.response.body", "body": chunk, "more_body": left > _CHUNK_BYTES})

    def _head(self, reply: Reply) -> dict[str, Any]:
        second = int(self.clock.time() + self.clock_offset_seconds)
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
            await self.clock.sleep(seconds)
        finally:
            self._pausing.discard(task)
