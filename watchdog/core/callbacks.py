"""A callback's bytes become a typed event, or an error that is safe to show. No I/O, no clock, no database.

    bytes ──► read() ──► Event ──► verify() ──► facts, tasks
                └── BadCallback ◄──────┘

``read`` believes nothing: what it returns is bounded, printable and of the right types, and until ``verify`` has passed
it is still only somebody's claim. The vendor's signature covers the timestamp and the nonce and not the body, so
whoever captured one callback can send another body under its signature: ``replay_key`` is what the store remembers
against that.

ZEGO's pages disagree on how bodies are encoded (JSON, URL-encoded JSON, form fields) and on which values are numbers
and which are strings. So the body is recognised by how it begins, and numbers are taken as the characters they are:
many exceed 2**53. Transcripts are private: of an utterance only the length is kept.

Sources: ZEGO, "Room created / Room destroyed / User logged in / User logged out callback", and "Cloud Realtime ASR:
receiving callbacks".
"""

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote_plus

from watchdog.core.signing import callback_signature
from watchdog.errors import WatchdogError

BODY_LIMIT_BYTES: Final = 65_536
"""No callback is larger; whoever receives one need not read any further."""

IDLE_AUTO_STOP: Final = 1202
"""The :class:`TaskException` code that says: the vendor ended the task because its room was idle."""

ROOM_ID_LIMIT_BYTES: Final = 128
USER_ID_LIMIT_BYTES: Final = 64
_ID_LIMIT_BYTES: Final = 64
_MESSAGE_LIMIT: Final = 200
_FIELDS_LIMIT: Final = 64
_DEPTH_LIMIT: Final = 16
_ID_DIGITS: Final = 20  # an unsigned 64-bit number
_CODE_DIGITS: Final = 9  # a database's integer
_HIGHEST_APP_ID: Final = 2**32 - 1
_BEFORE_ALL_CALLBACKS_MS: Final = 10**12  # 2001
_AFTER_ALL_CALLBACKS_MS: Final = 10**14
_SECONDS_END: Final = 10**11  # fewer are seconds (until the year 5138), more are milliseconds (since 1973)
_AHEAD: Final = timedelta(minutes=10)  # how far the vendor's servers may disagree among themselves
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The vendor's own headers are undocumented: these are the ones that do not contradict what it says it sends.
_MEDIA_TYPES: Final = {"", "application/json", "application/x-www-form-urlencoded", "text/json", "text/plain"}


class Fault(StrEnum):
    """What is wrong with a callback."""

    MALFORMED = "malformed"  # no JSON, no form, or a value of another type
    WRONG_ENCODING = "wrong_encoding"  # another media type, or not UTF-8
    TOO_LARGE = "too_large"
    MISSING_FIELD = "missing_field"
    OUT_OF_RANGE = "out_of_range"  # too long, not digits, an impossible time, control characters
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"


class BadCallback(WatchdogError):
    """A callback that is not used; ``kind`` for machines. The text names a field and never shows a value."""

    def __init__(self, kind: Fault, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Seal:
    """What a callback's signature speaks of. ``timestamp`` is when it was sent, Unix seconds, the vendor's clock.

    ``timestamp_text`` is the same in the very characters that were signed: seconds or milliseconds.
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
    """``room_create``: a new session of this room begins."""

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
    """``room_logout``. Older pages do not list ``login_time`` here, nor ``user_role``: both may be None."""

    room_id: str
    room_session_id: str
    user_id: str
    session_id: str
    login_at: datetime | None
    logout_at: datetime
    role: int | None


@dataclass(frozen=True, slots=True)
class Utterance(_Sealed):
    """``ASRResult`` or ``TranslationResult``: somebody spoke shortly before ``timestamp``.

    ``characters`` is the length of the text, 0 when nothing was recognised; the text itself is not kept. ``user_id``
    is None when the callback does not say who spoke.
    """

    room_id: str
    task_id: str
    user_id: str | None
    characters: int


@dataclass(frozen=True, slots=True)
class TaskException(_Sealed):
    """``Exception``: ``code`` is :data:`IDLE_AUTO_STOP` or another; ``message`` is bounded and printable."""

    room_id: str
    task_id: str
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Unrecognised(_Sealed):
    """An event of another type. The vendor announces new ones: they are accepted, once verified, and ignored."""

    name: str


Event = RoomCreated | RoomClosed | UserJoined | UserLeft | Utterance | TaskException | Unrecognised


def read(content_type: str | None, body: bytes) -> Event:
    """Read one callback, whichever of the three encodings it has; ``content_type`` is the request's header.

    Raises BadCallback.
    """
    fields = _Fields(_decode(content_type, body))
    # Room callbacks write their keys in small letters, ASR's capitalise them.
    return _room_event(fields) if fields.has("event") else _task_event(fields)


def verify(event: Event, secrets: Sequence[str], now: float, window_seconds: float) -> None:
    """Return if ``event`` was signed with one of ``secrets`` and sent within ``window_seconds`` of ``now``.

    ``secrets`` are those of the event's AppId, more than one while they are rotated; ``now`` is Unix seconds. The
    vendor retries for 62 s, and whether it signs a retry anew is undocumented: the window must be longer than that.

    Raises BadCallback, ``bad_signature`` or ``expired``. The time taken does not tell which secret came close.
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
    """Name the signature's use: two events with the same key came under one signature, of which only the first counts.

    At most 96 characters, printable. The same key is no proof of an attack: it is also a retry of an event whose 2xx
    got lost, or chance, where nonces are as short as the vendor's samples (six digits).
    """
    return f"{event.seal.app_id}:{event.seal.timestamp_text}:{event.seal.nonce}"


class _Fields:
    """The body's values, each of which is taken out as what it must be, or not at all."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        """Whether there is a value; null and the empty string are none."""
        value = self._values.get(name)
        return value is not None and value != ""

    def raw(self, name: str) -> str:
        if not self.has(name):
            raise BadCallback(Fault.MISSING_FIELD, f"{name} is missing")
        value = self._values[name]
        if not isinstance(value, str):
            raise BadCallback(Fault.MALFORMED, f"{name} is neither text nor a number")
        return value

    def text(self, name: str, limit_bytes: int) -> str:
        value = self.raw(name)
        # Neither NUL nor other control characters nor lone surrogates are: databases refuse some, terminals obey some.
        if not value.isprintable() or len(value.encode()) > limit_bytes:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is longer than {limit_bytes} bytes, or not printable")
        return value

    def number(self, name: str, digits: int = _ID_DIGITS) -> int:
        value = self.raw(name)
        if len(value) > digits or not (value.isascii() and value.isdecimal()):
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is not a number of at most {digits} digits")
        return int(value)

    def code_if_any(self, name: str) -> int | None:
        """For what only describes: no event is refused over it."""
        try:
            return self.number(name, _CODE_DIGITS)
        except BadCallback:
            return None

    def id(self, name: str) -> str:
        """A 64-bit id; the same characters whether it came as a number or as a string."""
        return str(self.number(name))

    def milliseconds(self, name: str) -> int:
        number = self.number(name)
        value = number * 1000 if number < _SECONDS_END else number
        if not _BEFORE_ALL_CALLBACKS_MS <= value < _AFTER_ALL_CALLBACKS_MS:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is not a time in seconds or milliseconds since 1970")
        return value

    def moment(self, name: str, seal: Seal) -> datetime:
        """A time before the callback was sent: a later one would outrank whatever truly comes after it."""
        value = _EPOCH + timedelta(milliseconds=self.milliseconds(name))
        if value > _EPOCH + timedelta(seconds=seal.timestamp) + _AHEAD:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is later than the callback itself")
        return value

    def within(self, name: str) -> "_Fields":
        """The fields of an object; a form has its JSON as text."""
        if not self.has(name):
            raise BadCallback(Fault.MISSING_FIELD, f"{name} is missing")
        value = self._values[name]
        if isinstance(value, str):
            value = _read_json(value)
        if not isinstance(value, dict):
            raise BadCallback(Fault.MALFORMED, f"{name} is not an object")
        return _Fields(value)


def _seal(fields: _Fields, app_id: str, timestamp: str, nonce: str, signature: str) -> Seal:
    number = fields.number(app_id)
    if not 0 < number <= _HIGHEST_APP_ID:
        raise BadCallback(Fault.OUT_OF_RANGE, f"{app_id} is not an AppId")
    return Seal(
        app_id=number,
        timestamp=fields.milliseconds(timestamp) / 1000,
        timestamp_text=fields.raw(timestamp),
        nonce=fields.text(nonce, _ID_LIMIT_BYTES),
        signature=fields.text(signature, _ID_LIMIT_BYTES),
    )


def _room_event(fields: _Fields) -> Event:
    name = fields.text("event", _ID_LIMIT_BYTES)
    seal = _seal(fields, "appid", "timestamp", "nonce", "signature")
    match name:
        case "room_create":
            return RoomCreated(
                seal,
                room_id=fields.text("room_id", ROOM_ID_LIMIT_BYTES),
                room_session_id=fields.id("room_session_id"),
                created_at=fields.moment("room_create_time", seal),
            )
        case "room_close":
            return RoomClosed(
                seal,
                room_id=fields.text("room_id", ROOM_ID_LIMIT_BYTES),
                room_session_id=fields.id("room_session_id"),
                closed_at=fields.moment("room_close_time", seal),
                close_reason=fields.code_if_any("close_reason"),
            )
        case "room_login":
            return UserJoined(
                seal,
                room_id=fields.text("room_id", ROOM_ID_LIMIT_BYTES),
                room_session_id=fields.id("room_seq"),
                user_id=fields.text("user_account", USER_ID_LIMIT_BYTES),
                session_id=fields.id("session_id"),
                login_at=fields.moment("login_time", seal),
                role=fields.code_if_any("user_role"),
            )
        case "room_logout":
            return UserLeft(
                seal,
                room_id=fields.text("room_id", ROOM_ID_LIMIT_BYTES),
                room_session_id=fields.id("room_seq"),
                user_id=fields.text("user_account", USER_ID_LIMIT_BYTES),
                session_id=fields.id("session_id"),
                login_at=fields.moment("login_time", seal) if fields.has("login_time") else None,
                logout_at=fields.moment("logout_time", seal),
                role=fields.code_if_any("user_role"),
            )
        case _:
            return Unrecognised(seal, name)


def _task_event(fields: _Fields) -> Event:
    name = fields.text("Event", _ID_LIMIT_BYTES)
    seal = _seal(fields, "AppId", "Timestamp", "Nonce", "Signature")
    match name:
        case "ASRResult" | "TranslationResult":
            data = fields.within("Data")
            return Utterance(
                seal,
                room_id=fields.text("RoomId", ROOM_ID_LIMIT_BYTES),
                task_id=fields.text("TaskId", _ID_LIMIT_BYTES),
                user_id=data.text("UserId", USER_ID_LIMIT_BYTES) if data.has("UserId") else None,
                characters=len(data.raw("Text").strip()) if data.has("Text") else 0,
            )
        case "Exception":
            data = fields.within("Data")
            return TaskException(
                seal,
                room_id=fields.text("RoomId", ROOM_ID_LIMIT_BYTES),
                task_id=fields.text("TaskId", _ID_LIMIT_BYTES),
                code=data.number("Code", _CODE_DIGITS),
                message=_legible(data.raw("Message")) if data.has("Message") else "",
            )
        case _:
            return Unrecognised(seal, name)


def _legible(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_MESSAGE_LIMIT])


def _decode(content_type: str | None, body: bytes) -> Mapping[str, object]:
    """Recognise the encoding by how the body begins: the vendor's header may name the one and mean the other."""
    if len(body) > BODY_LIMIT_BYTES:
        raise BadCallback(Fault.TOO_LARGE, f"the body is longer than {BODY_LIMIT_BYTES} bytes")
    if (content_type or "").partition(";")[0].strip().lower() not in _MEDIA_TYPES:
        raise BadCallback(Fault.WRONG_ENCODING, "the Content-Type is neither JSON nor a URL-encoded form")
    # The causes are dropped on purpose: they hold the body, and with it what people said.
    try:
        text = body.decode("utf-8-sig").strip()
        if text.startswith("{"):
            return _read_json(text)
        if text[:3].lower() == "%7b":
            # Some encoders take the whole for the name of a form field that has no value.
            return _read_json(unquote_plus(text, errors="strict").removesuffix("="))
        form = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_FIELDS_LIMIT
        )
    except UnicodeDecodeError:
        raise BadCallback(Fault.WRONG_ENCODING, "the body is not UTF-8") from None
    except ValueError:
        raise BadCallback(Fault.MALFORMED, "the body is neither JSON nor a URL-encoded form") from None
    if len(form) == 1 and form[0][1].lstrip().startswith("{"):
        return _read_json(form[0][1])
    try:
        return _without_duplicates(form)
    except ValueError:
        raise BadCallback(Fault.MALFORMED, "the form has the same field twice") from None


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    # Of two values under one name different readers believe different ones.
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError("duplicate name")
        fields[name] = value
    return fields


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


# Numbers stay the characters they are, so that nothing is rounded and the signed timestamp can be signed again.
_JSON: Final = json.JSONDecoder(
    parse_int=str,
    parse_float=str,
    parse_constant=_refuse_constant,
    object_pairs_hook=_without_duplicates,
    strict=False,
)


def _read_json(text: str) -> Mapping[str, object]:
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise BadCallback(Fault.MALFORMED, "the JSON cannot be read, or has a name twice") from None
    if not isinstance(value, dict) or _is_deeper_than(_DEPTH_LIMIT, value):
        raise BadCallback(Fault.MALFORMED, f"the JSON is not an object, or nested deeper than {_DEPTH_LIMIT} levels")
    return value


def _is_deeper_than(limit: int, value: object) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return any(isinstance(value, dict | list) for value in level)
