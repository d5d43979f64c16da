"""HTTP on plain ASGI: replies, with the bodies that misbehaviours ask for, and reading and closing a request."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, assert_never

from starlette.types import Receive

from watchdog.sandbox.messages import Answer
from watchdog.sandbox.misbehaviour import Body, Misbehaviour, RequestIdStyle

MAX_REQUEST_BYTES: Final = 1 << 20
HUGE_BYTES: Final = 64 << 20
_HTML: Final = "text/html"
_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply; ``readable`` tells whether a client can read ``request_id`` and ``code`` in it.

    ``padding`` is the number of bytes that follow ``body``.
    """

    status: int
    content_type: str
    body: bytes
    code: int | None = None
    request_id: str | None = None
    readable: bool = False
    padding: int = 0


def gateway_error(status: int) -> Reply:
    return Reply(status, _HTML, _gateway_page(status))


def json_reply(status: int, value: object) -> Reply:
    return Reply(status, _JSON, _to_json(value) + b"\n")


def vendor_reply(answer: Answer, how: Misbehaviour) -> Reply:
    """A reply of the vendor, spoilt as ``how`` says."""
    status = 200 if how.http_status is None else how.http_status
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
            return Reply(status, _JSON, body, answer.code, request_id, readable=True)
        case Body.HTML:
            return Reply(status, _HTML, _gateway_page(status), answer.code, request_id)
        case Body.CUT:
            return Reply(status, _JSON, body[: len(body) // 2], answer.code, request_id)
        case Body.HUGE:
            # The closing brace never comes, so reading everything does not make it valid JSON.
            return Reply(status, _JSON, body[:-1], answer.code, request_id, padding=HUGE_BYTES)
        case _:
            assert_never(how.body)


async def read_body(receive: Receive) -> bytes | None:
    """Read the request body; None if the client disconnected, empty if it exceeds MAX_REQUEST_BYTES."""
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


async def hang_up(transport: asyncio.Transport, receive: Receive) -> None:
    transport.abort()
    # If the application returned before the server noticed, the server would answer 500.
    while (await receive())["type"] != "http.disconnect":
        pass


def _gateway_page(status: int) -> bytes:
    return f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>".encode()


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
