"""The vendor's callbacks: from a log entry to the bodies that it sends. Pure.

Fields, types and spelling follow the vendor's pages: "Room created", "Room destroyed", "User logged in" and "User
logged out callback" of the RTC server API, "Receiving callbacks" of cloud real-time ASR. Room events have numbers where
user events have strings, and ASR events use milliseconds. The vendor does not specify the format of a nonce (its
examples have six digits), nor how objects in an ASR event become form fields (here: JSON).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never
from urllib.parse import quote_plus, urlencode

from watchdog.core.signing import callback_signature
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.world import Event

EXAMPLE_CALLBACK_SECRET: Final = "secret"  # noqa: S105  # the vendor's published example
IDLE_AUTO_STOP: Final = 1202
"""The ``Code`` of the ``Exception`` for a task that ended in an idle room."""

_to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class CallbackEncoding(StrEnum):
    """The encoding of a body; the vendor's pages disagree, and form fields are optional."""

    JSON = "json"
    URLENCODED_JSON = "urlencoded_json"
    FORM = "form"

    @property
    def content_type(self) -> str:
        return "application/x-www-form-urlencoded" if self is CallbackEncoding.FORM else "application/json"


@dataclass(frozen=True, slots=True)
class Callback:
    """One event before signing. ``timestamp`` is in seconds, for ASR events in milliseconds."""

    name: str
    app_id: int
    room_id: str
    timestamp: int
    fields: Mapping[str, Any]

    def signed(self, secret: str, nonce: str) -> dict[str, Any]:
        signature = callback_signature(secret, str(self.timestamp), nonce)
        if self.name in {"ASRResult", "Exception"}:
            head = {"AppId": self.app_id, "Event": self.name, "Nonce": nonce, "Timestamp": self.timestamp}
            return {**head, "Signature": signature, **self.fields}
        is_text = self.name in {"room_login", "room_logout"}
        app_id = str(self.app_id) if is_text else self.app_id
        timestamp = str(self.timestamp) if is_text else self.timestamp
        head = {"event": self.name, "appid": app_id, "timestamp": timestamp, "nonce": nonce, "signature": signature}
        return {**head, "room_id": self.room_id, **self.fields}


def callbacks_of(event: Event, *, clock_offset_seconds: float = 0.0) -> Iterator[Callback]:
    """Yield the callbacks for one log entry, in order; most entries have none.

    ``clock_offset_seconds`` is how far the vendor's clock is ahead of the log's.
    """
    now = event["at"] + clock_offset_seconds
    match event["event"]:
        case "join":
            if event["user_update_seq"] == 1:
                created = {"room_create_time": _milliseconds(now), "id_name": event["user_id"]}
                yield _room_event("room_create", event, now, created)
            yield _user_event(
                "room_login",
                event,
                now,
                login_time=_milliseconds(now),
                user_role=str(event["role"]),
                relogin=str(int(event["relogin"])),
                user_update_seq=str(event["user_update_seq"]),
            )
        case "leave" | "session_timed_out":
            yield _user_event(
                "room_logout",
                event,
                now,
                login_time=_milliseconds(event["login_at"] + clock_offset_seconds),
                logout_time=_milliseconds(now),
                reason=str(int(event["reason"])),
                user_update_seq=str(event["user_update_seq"]),
            )
            if not event["users"]:
                closed = {"close_reason": int(event["reason"]), "room_close_time": _milliseconds(now)}
                yield _room_event("room_close", event, now, closed)
        case "speech":
            for task in event["heard_by"]:
                user_id = event["user_id"]
                said = {"UserId": user_id, "StreamId": f"{user_id}_main", "Round": task["round"], "Text": event["text"]}
                yield _task_event("ASRResult", event, task["task_id"], now, said)
        case "auto_stopped" if event["kind"] == Kind.ASR:
            message = f"RTC room has been idle for over {event['max_idle_seconds']} seconds."
            yield _task_event("Exception", event, event["task_id"], now, {"Code": IDLE_AUTO_STOP, "Message": message})
        case _:
            # The vendor sends none for a deliberate stop either. Those of other kinds' products are not imitated.
            return


def encode(body: Mapping[str, Any], encoding: CallbackEncoding) -> bytes:
    match encoding:
        case CallbackEncoding.JSON:
            return _to_json(body).encode()
        case CallbackEncoding.URLENCODED_JSON:
            return quote_plus(_to_json(body)).encode()
        case CallbackEncoding.FORM:
            flat = {key: _to_json(value) if isinstance(value, dict) else value for key, value in body.items()}
            return urlencode(flat).encode()
        case _:
            assert_never(encoding)


def _room_event(name: str, event: Event, now: float, fields: Mapping[str, Any]) -> Callback:
    session = {"room_session_id": int(event["room_session_id"])}
    return Callback(name, event["app_id"], event["room_id"], int(now), {**session, **fields})


def _user_event(name: str, event: Event, now: float, **fields: str) -> Callback:
    user = {"user_account": event["user_id"], "session_id": event["session_id"]}
    session = {"room_seq": event["room_session_id"], **user}
    return Callback(name, event["app_id"], event["room_id"], int(now), session | fields)


def _task_event(name: str, event: Event, task_id: str, now: float, data: Mapping[str, Any]) -> Callback:
    fields = {"TaskId": task_id, "RoomId": event["room_id"], "Data": data}
    return Callback(name, event["app_id"], event["room_id"], round(now * 1000), fields)


def _milliseconds(at: float) -> str:
    return str(round(at * 1000))
