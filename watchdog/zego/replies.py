"""Reads what ZEGO answers: the envelope that all its server APIs share, room counts and lists of users.

Nothing here fails on any input: what cannot be used is None or missing, which is never the same as zero.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from typing import Final

from watchdog.core.model import Reply, RoomCount, RoomUser

BODY_LIMIT_BYTES: Final = 64 * 1024
"""A longer body is not used; only its beginning is kept."""

_TEXT_LIMIT: Final = 500
_IDENTIFIER_LIMIT: Final = 200
_COUNT_LIMIT_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Counts:
    """DescribeUserNum's answer.

    ``rooms`` has the rooms that were asked for and whose numbers make sense. A room that is missing there is unknown,
    which is not empty; without success in ``reply`` all of them are missing.
    """

    reply: Reply
    rooms: Mapping[str, RoomCount]


@dataclass(frozen=True, slots=True)
class UserList:
    """DescribeUserList's answer: one page, in the order of login.

    ``users`` is None without success in ``reply``, and where an entry makes no sense: who else is there is not known
    then. ``marker`` begins the next page; it is empty on the last one.
    """

    reply: Reply
    users: tuple[RoomUser, ...] | None
    marker: str


# Numbers stay the characters they are: codes and ids are compared and stored, not calculated with, and some exceed
# 2**53. Control characters within strings are let pass here and replaced later.
_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)


def read_reply(http_status: int, body: bytes, clock_offset_seconds: float | None) -> Reply:
    """Read the envelope that all of ZEGO's server APIs share: ``Code``, ``Message``, ``RequestId``, ``Data``.

    Never fails: what cannot be used is None, and then ``excerpt`` has the beginning of the body. A code or RequestId
    of over 200 characters, or with control characters in it, cannot be used; the other of the two still counts.
    """
    text = body.decode("utf-8-sig", "replace")
    envelope = _parse(text) if len(body) <= BODY_LIMIT_BYTES else {}
    code, request_id = _identifier(envelope.get("Code")), _identifier(envelope.get("RequestId"))
    message = envelope.get("Message")
    return Reply(
        http_status=http_status,
        code=code,
        message=_legible(message) if isinstance(message, str) else None,
        request_id=request_id,
        data=envelope.get("Data"),
        excerpt=_legible(text) if code is None or request_id is None else None,
        clock_offset_seconds=clock_offset_seconds,
    )


def _parse(text: str) -> Mapping[str, object]:
    try:
        parsed = _JSON.decode(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _identifier(value: object) -> str | None:
    # NUL and lone surrogates are not printable either, and no database would take them.
    if not isinstance(value, str) or len(value) > _IDENTIFIER_LIMIT or not value.isprintable():
        return None
    return value


def _legible(text: str) -> str:
    shown = text[:_TEXT_LIMIT]
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def read_room_counts(data: object, asked: frozenset[str]) -> Mapping[str, RoomCount]:
    entries = data.get("UserCountList") if isinstance(data, dict) else None
    read: dict[str, RoomCount | None] = {}
    for entry in entries if isinstance(entries, list) else ():
        room_id = entry.get("RoomId") if isinstance(entry, dict) else None
        if isinstance(room_id, str) and room_id in asked:
            count = _room_count(entry)
            # Two entries that disagree on one room say nothing about it.
            read[room_id] = count if read.get(room_id, count) == count else None
    return {room_id: count for room_id, count in read.items() if count is not None}


def _room_count(entry: Mapping[str, object]) -> RoomCount | None:
    users, admins = _count(entry.get("UserCount")), _count(entry.get("AdminUserCount"))
    # The admins are among the users (ZEGO, "DescribeUserNum"); more of them than users would read as an empty room.
    if users is None or admins is None or admins > users:
        return None
    return RoomCount(users, admins)


def read_user_list(data: object) -> tuple[tuple[RoomUser, ...] | None, str]:
    if not isinstance(data, dict) or not isinstance(entries := data.get("UserList"), list):
        return None, ""
    marker = data.get("Marker")
    users: list[RoomUser] = []
    for entry in entries:
        user_id = entry.get("UserId") if isinstance(entry, dict) else None
        if not isinstance(user_id, str) or not user_id:
            return None, ""
        name = entry.get("UserName")
        users.append(RoomUser(user_id, name if isinstance(name, str) else "", _count(entry.get("UserRole"))))
    return tuple(users), marker if isinstance(marker, str) else ""


def _count(value: object) -> int | None:
    if not isinstance(value, str) or len(value) > _COUNT_LIMIT_DIGITS:
        return None
    return int(value) if value.isascii() and value.isdecimal() else None


def clock_offset(date: str | None, now: float) -> float | None:
    sent_at = None if date is None else _unix_time(date)
    return None if sent_at is None else sent_at - now


@lru_cache(maxsize=16)
def _unix_time(date: str) -> int | None:
    """Read an HTTP ``Date`` header. Cached: within a second all replies carry the same."""
    try:
        parts = parsedate_tz(date)
        return None if parts is None else mktime_tz(parts)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
