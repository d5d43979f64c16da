"""The body of a callback: bytes become named fields, and each field is read as the type it must have.

ZEGO's pages disagree on the encoding (JSON, URL-encoded JSON, form fields) and on which values are numbers and which
are strings. So the encoding is recognised by how the body begins, and numbers stay text: many exceed 2**53, and the
signature covers the characters of the timestamp.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote_plus

from watchdog.errors import WatchdogError

BODY_LIMIT_BYTES: Final = 65_536
"""The longest body that is read; callbacks of the vendor are shorter."""

_MESSAGE_LIMIT: Final = 200
_FIELDS_LIMIT: Final = 64
_DEPTH_LIMIT: Final = 16
_ID_DIGITS: Final = 20  # an unsigned 64-bit number
_CODE_DIGITS: Final = 9  # fits a database integer
_FIRST_YEAR_MS: Final = 10**12  # 2001
_LAST_YEAR_MS: Final = 10**14
_SECONDS_END: Final = 10**11  # smaller numbers are seconds (until the year 5138), larger are milliseconds (since 1973)
_CLOCK_SKEW: Final = timedelta(minutes=10)  # between the vendor's own servers
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The vendor does not document its headers; these fit the encodings that its pages name.
_MEDIA_TYPES: Final = {"", "application/json", "application/x-www-form-urlencoded", "text/json", "text/plain"}


class Fault(StrEnum):
    MALFORMED = "malformed"  # neither JSON nor a form, or a value of the wrong type
    WRONG_ENCODING = "wrong_encoding"  # an unknown media type, or not UTF-8
    TOO_LARGE = "too_large"
    MISSING_FIELD = "missing_field"
    OUT_OF_RANGE = "out_of_range"  # too long, not digits, an impossible time, control characters
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"


class BadCallback(WatchdogError):
    """The callback cannot be used; ``kind`` says why. The text names a field and never shows a value."""

    def __init__(self, kind: Fault, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Fields:
    """The values of a body. Every method raises BadCallback if the value is missing or not what it must be."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        """Whether there is a value; null and the empty string are none."""
        value = self._values.get(name)
        return value is not None and value != ""

    def raw(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str):
            raise BadCallback(Fault.MALFORMED, f"{name} is neither text nor a number")
        return value

    def text(self, name: str, limit_bytes: int) -> str:
        value = self.raw(name)
        # No NUL, control characters or lone surrogates: databases refuse some, terminals obey others.
        if not value.isprintable() or len(value.encode()) > limit_bytes:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is longer than {limit_bytes} bytes, or not printable")
        return value

    def message(self, name: str) -> str:
        """Text for people: shortened and made printable instead of refused; empty if there is none."""
        text = self.raw(name)[:_MESSAGE_LIMIT] if self.has(name) else ""
        return "".join(c if c.isprintable() else " " for c in text)

    def number(self, name: str, digits: int = _ID_DIGITS) -> int:
        value = self.raw(name)
        if len(value) > digits or not (value.isascii() and value.isdecimal()):
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is not a number of at most {digits} digits")
        return int(value)

    def code(self, name: str) -> int:
        return self.number(name, _CODE_DIGITS)

    def code_if_any(self, name: str) -> int | None:
        """A code that only describes: an unusable one is None and does not refuse the callback."""
        try:
            return self.code(name)
        except BadCallback:
            return None

    def id(self, name: str) -> str:
        """A 64-bit id; the same text whether it came as a number or as a string."""
        return str(self.number(name))

    def milliseconds(self, name: str) -> int:
        """A Unix time in milliseconds; it may have come in seconds."""
        number = self.number(name)
        value = number * 1000 if number < _SECONDS_END else number
        if not _FIRST_YEAR_MS <= value < _LAST_YEAR_MS:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is not a time in seconds or milliseconds since 1970")
        return value

    def moment(self, name: str, sent_at: float) -> datetime:
        """A time before the callback was sent (``sent_at``, Unix seconds).

        A later time is refused, because it would override every true event until then.
        """
        value = _EPOCH + timedelta(milliseconds=self.milliseconds(name))
        if value > _EPOCH + timedelta(seconds=sent_at) + _CLOCK_SKEW:
            raise BadCallback(Fault.OUT_OF_RANGE, f"{name} is later than the callback itself")
        return value

    def within(self, name: str) -> "Fields":
        """The fields of an object; in a form it is JSON text."""
        value = self._value(name)
        if isinstance(value, str):
            value = _read_json(value)
        if not isinstance(value, dict):
            raise BadCallback(Fault.MALFORMED, f"{name} is not an object")
        return Fields(value)

    def _value(self, name: str) -> object:
        if not self.has(name):
            raise BadCallback(Fault.MISSING_FIELD, f"{name} is missing")
        return self._values[name]


def decode(content_type: str | None, body: bytes) -> Fields:
    """Read a body in any of the three encodings; ``content_type`` is the request's header. Raises BadCallback."""
    if len(body) > BODY_LIMIT_BYTES:
        raise BadCallback(Fault.TOO_LARGE, f"the body is longer than {BODY_LIMIT_BYTES} bytes")
    if (content_type or "").partition(";")[0].strip().lower() not in _MEDIA_TYPES:
        raise BadCallback(Fault.WRONG_ENCODING, "the Content-Type is neither JSON nor a URL-encoded form")
    # The causes are dropped on purpose: they hold the body, and with it what people said.
    try:
        text = body.decode("utf-8-sig").strip()
        if text.startswith("{"):
            return Fields(_read_json(text))
        if text[:3].lower() == "%7b":
            # Some encoders take the whole JSON for the name of a form field without a value.
            return Fields(_read_json(unquote_plus(text, errors="strict").removesuffix("=")))
        form = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_FIELDS_LIMIT
        )
    except UnicodeDecodeError:
        raise BadCallback(Fault.WRONG_ENCODING, "the body is not UTF-8") from None
    except ValueError:
        raise BadCallback(Fault.MALFORMED, "the body is neither JSON nor a URL-encoded form") from None
    if len(form) == 1 and form[0][1].lstrip().startswith("{"):
        return Fields(_read_json(form[0][1]))
    try:
        return Fields(_without_duplicates(form))
    except ValueError:
        raise BadCallback(Fault.MALFORMED, "the form has the same field twice") from None


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    # Two readers may believe different ones of two values with the same name.
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError("duplicate name")
        fields[name] = value
    return fields


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_JSON: Final = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates, strict=False
)


def _read_json(text: str) -> Mapping[str, object]:
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise BadCallback(Fault.MALFORMED, "the JSON cannot be read, or has a name twice") from None
    # To count costs less than to walk, and is enough for every callback of the vendor.
    may_be_deep = text.count("{") + text.count("[") > _DEPTH_LIMIT
    if not isinstance(value, dict) or (may_be_deep and _is_deeper_than(_DEPTH_LIMIT, value)):
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
