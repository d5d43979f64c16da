"""A callback becomes a typed event, or an error that is safe to show. No I/O, no clock, no database.

    bytes ──► read() ──► Event ──► verify() ──► facts, tasks
                └── BadCallback ◄──────┘

``read`` trusts nothing: its result is bounded, printable and of the right types, but unproven until ``verify`` passes.
The vendor's signature is a hash of secret, timestamp and nonce, sorted and joined. It covers neither the body nor the
AppId, and other divisions of the joined characters into a timestamp and a nonce have the same hash. So a captured
signature can carry another body; the store remembers the signature itself (``replay_key``) to detect that. Transcripts
are private: of an utterance only the length is kept.

Sources: ZEGO, "Room created / Room destroyed / User logged in / User logged out callback", and "Cloud Realtime ASR:
receiving callbacks".
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from watchdog.core.callback_body import BadCallback, Fault, Fields, decode
from watchdog.core.signing import callback_signature

IDLE_AUTO_STOP: Final = 1202
"""The code of a :class:`TaskException`: the vendor ended the task because its room was idle."""

LONGEST_MEMORY_SECONDS: Final = 30 * 86_400.0
"""How long a signature is remembered at most, counted from its timestamp; see ``remembered_until``."""

_SECONDS_DIGITS: Final = 10  # the years 2001 to 2286
_MILLISECONDS_DIGITS: Final = 13  # the same years
_ROOM_ID_LIMIT_BYTES: Final = 128
_USER_ID_LIMIT_BYTES: Final = 64
_ID_LIMIT_BYTES: Final = 64
_HIGHEST_APP_ID: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Seal:
    """What a callback's signature covers. ``timestamp`` is when it was sent: Unix seconds, the vendor's clock.

    ``timestamp_text`` has the characters that were signed: seconds in room events, milliseconds in ASR events.
    """

    app_id: int
    timestamp: float
    timestamp_text: str
    nonce: str
    signature: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Sealed:
    seal: Seal

    @property
    def app_id(self) -> int:
        return self.seal.app_id

    @property
    def timestamp(self) -> float:
        """When the callback was sent: Unix seconds, the vendor's clock."""
        return self.seal.timestamp


@dataclass(frozen=True, slots=True)
class RoomCreated(_Sealed):
    """``room_create``: a new session of this room began."""

    room_id: str
    room_session_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RoomClosed(_Sealed):
    """``room_close``; ``close_reason``: 0 normal, 1 the last user timed out, 2 dropped, 3 kicked."""

    room_id: str
    room_session_id: str
    closed_at: datetime
    close_reason: int | None


@dataclass(frozen=True, slots=True)
class UserJoined(_Sealed):
    """``room_login``; ``room_session_id`` is the page's ``room_seq``. ``role`` 4 is an admin, None unknown."""

    room_id: str
    room_session_id: str
    user_id: str
    session_id: str
    login_at: datetime
    role: int | None


@dataclass(frozen=True, slots=True)
class UserLeft(_Sealed):
    """``room_logout``; older pages list neither ``login_time`` nor ``user_role``, so both may be None."""

    room_id: str
    room_session_id: str
    user_id: str
    session_id: str
    login_at: datetime | None
    logout_at: datetime
    role: int | None


@dataclass(frozen=True, slots=True)
class Utterance(_Sealed):
    """``ASRResult`` or ``TranslationResult``: a user spoke shortly before ``timestamp``.

    ``characters`` is the length of the text, 0 if nothing was recognised. ``user_id`` is None if the callback does not
    name the speaker.
    """

    room_id: str
    task_id: str
    user_id: str | None
    characters: int


@dataclass(frozen=True, slots=True)
class TaskException(_Sealed):
    """``Exception``: ``code`` is :data:`IDLE_AUTO_STOP` or another; ``message`` is short and printable."""

    room_id: str
    task_id: str
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Unrecognised(_Sealed):
    """An event of another type; the vendor announces new ones. It is verified and ignored."""

    name: str


Event = RoomCreated | RoomClosed | UserJoined | UserLeft | Utterance | TaskException | Unrecognised


def read(content_type: str | None, body: bytes) -> Event:
    """Read one callback; ``content_type`` is the request's header. Raises BadCallback."""
    fields = decode(content_type, body)
    # Room callbacks have lower-case keys, ASR callbacks capitalised ones.
    return _room_event(fields) if fields.has("event") else _task_event(fields)


def verify(event: Event, secrets: Sequence[str], now: float, window_seconds: float) -> None:
    """Return if ``event`` was signed with one of ``secrets`` and sent within ``window_seconds`` of ``now``.

    ``secrets`` are those of the event's AppId, more than one during a rotation; ``now`` is Unix seconds. The vendor
    retries for 62 s and does not document whether it signs a retry again, so the window must be longer.

    Raises BadCallback, ``bad_signature`` or ``expired``. Every secret is compared in constant time.
    """
    seal = event.seal
    given = seal.signature.encode()
    matches = [
        hmac.compare_digest(callback_signature(secret, seal.timestamp_text, seal.nonce).encode(), given)
        for secret in secrets
    ]
    if not any(matches):
        raise BadCallback(
            Fault.BAD_SIGNATURE,
            f"the signature is not that of AppId {seal.app_id}'s callback secret: compare it with the ZEGO console's",
        )
    if not abs(now - seal.timestamp) <= window_seconds:
        raise BadCallback(
            Fault.EXPIRED, f"the callback was not sent within {window_seconds:g} s of now: check this host's clock"
        )


def replay_key(event: Event) -> str:
    """Return the event's signature; of several verified events with one signature only the first counts.

    40 hex characters once ``verify`` has passed. An equal key is no proof of an attack: it may be a retry after a lost
    2xx, or chance, since the vendor's sample nonces have only six digits.
    """
    return event.seal.signature


def remembered_until(event: Event) -> float:
    """Return the latest time (Unix seconds) that the signed characters can be read as: the signature may be used then.

    At most ``LONGEST_MEMORY_SECONDS`` after the event's own timestamp, which is the usual result.
    """
    seal = event.seal
    signed = "".join(sorted((seal.timestamp_text, seal.nonce)))
    readings = (
        _seconds(text)
        for digits in (_SECONDS_DIGITS, _MILLISECONDS_DIGITS)
        for text in (signed[:digits], signed[-digits:])
        if _is_timestamp(text, digits)
    )
    return max((time for time in readings if time <= seal.timestamp + LONGEST_MEMORY_SECONDS), default=seal.timestamp)


def _is_timestamp(text: str, digits: int) -> bool:
    return len(text) == digits and text.isascii() and text.isdecimal() and text[0] != "0"


def _seconds(timestamp: str) -> float:
    return int(timestamp) / (1000 if len(timestamp) == _MILLISECONDS_DIGITS else 1)


def _seal(fields: Fields, digits: int, *, app_id: str, timestamp: str, nonce: str, signature: str) -> Seal:
    number = fields.number(app_id)
    if not 0 < number <= _HIGHEST_APP_ID:
        raise BadCallback(Fault.OUT_OF_RANGE, f"{app_id} is not an AppId")
    text = fields.raw(timestamp)
    if not _is_timestamp(text, digits):
        # The vendor has one format for each kind of event. Another one is another reading of a captured signature.
        raise BadCallback(Fault.OUT_OF_RANGE, f"{timestamp} is not a time of {digits} digits")
    return Seal(
        app_id=number,
        timestamp=_seconds(text),
        timestamp_text=text,
        nonce=fields.text(nonce, _ID_LIMIT_BYTES),
        signature=fields.text(signature, _ID_LIMIT_BYTES),
    )


def _room_event(fields: Fields) -> Event:
    name = fields.text("event", _ID_LIMIT_BYTES)
    seal = _seal(fields, _SECONDS_DIGITS, app_id="appid", timestamp="timestamp", nonce="nonce", signature="signature")
    sent_at = seal.timestamp
    match name:
        case "room_create":
            room = _room(fields, "room_session_id")
            return RoomCreated(seal, *room, created_at=fields.moment("room_create_time", sent_at))
        case "room_close":
            room = _room(fields, "room_session_id")
            closed_at = fields.moment("room_close_time", sent_at)
            return RoomClosed(seal, *room, closed_at=closed_at, close_reason=fields.code_if_any("close_reason"))
        case "room_login":
            who = *_room(fields, "room_seq"), *_user(fields)
            login_at = fields.moment("login_time", sent_at)
            return UserJoined(seal, *who, login_at=login_at, role=fields.code_if_any("user_role"))
        case "room_logout":
            return UserLeft(
                seal,
                *_room(fields, "room_seq"),
                *_user(fields),
                login_at=fields.moment("login_time", sent_at) if fields.has("login_time") else None,
                logout_at=fields.moment("logout_time", sent_at),
                role=fields.code_if_any("user_role"),
            )
        case _:
            return Unrecognised(seal, name)


def _room(fields: Fields, session: str) -> tuple[str, str]:
    return fields.text("room_id", _ROOM_ID_LIMIT_BYTES), fields.id(session)


def _user(fields: Fields) -> tuple[str, str]:
    return fields.text("user_account", _USER_ID_LIMIT_BYTES), fields.id("session_id")


def _task_event(fields: Fields) -> Event:
    name = fields.text("Event", _ID_LIMIT_BYTES)
    seal = _seal(
        fields, _MILLISECONDS_DIGITS, app_id="AppId", timestamp="Timestamp", nonce="Nonce", signature="Signature"
    )
    match name:
        case "ASRResult" | "TranslationResult":
            data = fields.within("Data")
            return Utterance(
                seal,
                room_id=fields.text("RoomId", _ROOM_ID_LIMIT_BYTES),
                task_id=fields.text("TaskId", _ID_LIMIT_BYTES),
                user_id=data.text("UserId", _USER_ID_LIMIT_BYTES) if data.has("UserId") else None,
                characters=len(data.raw("Text").strip()) if data.has("Text") else 0,
            )
        case "Exception":
            data = fields.within("Data")
            return TaskException(
                seal,
                room_id=fields.text("RoomId", _ROOM_ID_LIMIT_BYTES),
                task_id=fields.text("TaskId", _ID_LIMIT_BYTES),
                code=data.code("Code"),
                message=data.message("Message"),
            )
        case _:
            return Unrecognised(seal, name)
