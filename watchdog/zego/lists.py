"""The lists of all tasks of a kind that run for an AppId, page by page, as ``core.kinds`` describes them.

Nothing of a reply makes this fail: an entry that makes no sense is left out and counted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from watchdog.core.kinds import Kind, Listing
from watchdog.core.model import Reply, RunningTask
from watchdog.core.outcomes import ReplyClass, classify
from watchdog.zego.client import ZegoClient

TASKS_PER_PAGE: Final = 50
"""The most tasks in one page (ZEGO, "DescribeTasks", "DescribePlayers")."""

LISTS_PER_SECOND: Final = 10
"""Requests for each AppId and kind (ZEGO, "DescribeTasks", "DescribePlayers", "QueryDigitalHumanStreamTasks")."""

ROOM_ID_BYTES: Final = 128
_ID_CHARACTERS: Final = 200
_NUMBERS: Final = {
    "task_id": re.compile(r"[0-9]+[.]0|[0-9][0-9.e+]*e[+][0-9][0-9.e+]*"),
    "room_id": re.compile(r"[0-9]{3,}[.]0|[0-9][0-9.e+]*e[+][0-9]{2}[0-9.e+]*"),
}
"""What the trigger zego_tasks_refused takes for a number that became text: it would refuse a whole page for one."""

_EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
"""ZEGO began in this year: an earlier time is one of another unit, and the task would be too old at once."""

_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_AHEAD_SECONDS: Final = 60.0
"""A list of a span of time ends so much later than now: ZEGO's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer to one request: one page.

    ``tasks`` are those that run; None without a list. ``unusable`` counts the entries that make no sense. ``next_page``
    asks for the next page; None on the last one.
    """

    reply: Reply
    reply_class: ReplyClass
    tasks: tuple[RunningTask, ...] | None = None
    unusable: int = 0
    next_page: str | None = None


async def list_tasks(zego: ZegoClient, kind: Kind, app_id: int, now: float, *, page: str | None = None) -> Listed:
    """Ask for one page of the running tasks of ``kind``; ``page`` None is the first. ``now`` is the Unix time.

    Raises NotSent, NoAnswer, ConfigError for an AppId without a secret, ValueError for a kind without lists.
    """
    if kind.listing is None:
        raise ValueError(f"ZEGO has no list of the kind {kind.name}")
    reply = await zego.ask(kind, kind.listing.action, app_id, _question(kind.listing, page, now))
    reply_class = classify(kind, reply)
    if reply_class is not ReplyClass.STOPPED or not isinstance(reply.data, dict):
        return Listed(reply, reply_class)
    entries = _entries(kind.listing, reply.data)
    if entries is None:
        return Listed(reply, reply_class)
    running = [entry for entry in entries if not _has_ended(kind.listing, entry)]
    tasks = [task for entry in running if (task := _task(kind, kind.listing, app_id, entry)) is not None]
    following = _next_page(kind.listing, reply.data, page, len(entries))
    return Listed(reply, reply_class, tuple(tasks), len(running) - len(tasks), following)


def _question(listing: Listing, page: str | None, now: float) -> Mapping[str, object]:
    question: dict[str, object] = dict(listing.query)
    if listing.span_seconds is not None:
        end = now + _AHEAD_SECONDS
        question |= {"StartTime": round(1000 * (end - listing.span_seconds)), "EndTime": round(1000 * end)}
    if listing.is_numbered:
        question |= {"PageSize": TASKS_PER_PAGE, "PageOffset": int(page or "1")}
    if listing.next_field is not None:
        question |= {"PageSize": TASKS_PER_PAGE} | ({} if page is None else {"PageToken": page})
    return question


def _entries(listing: Listing, data: Mapping[str, Any]) -> list[Any] | None:
    """Return the list; an empty one may be null."""
    for name in (listing.field, listing.also_field):
        if name is not None and name in data:
            found = data[name]
            return [] if found is None else found if isinstance(found, list) else None
    return None


def _next_page(listing: Listing, data: Mapping[str, Any], page: str | None, entries: int) -> str | None:
    if listing.is_numbered:
        return str(int(page or "1") + 1) if entries >= TASKS_PER_PAGE else None
    following = None if listing.next_field is None else data.get(listing.next_field)
    # The page that has just been read would be read for ever.
    return following if isinstance(following, str) and following not in ("", page) else None


def _has_ended(listing: Listing, entry: object) -> bool:
    status = entry.get("Status") if isinstance(entry, dict) else None
    return isinstance(status, str) and status not in listing.running


def _task(kind: Kind, listing: Listing, app_id: int, entry: object) -> RunningTask | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("Status"), str) or _has_ended(listing, entry):
        return None
    task_id, room_id = _identifier(entry.get(listing.id_field)), _identifier(entry.get("RoomId"))
    if task_id is None or room_id is None or len(room_id.encode()) > ROOM_ID_BYTES:
        return None
    if _NUMBERS["task_id"].fullmatch(task_id) or _NUMBERS["room_id"].fullmatch(room_id):
        return None
    started = entry.get(listing.started_field)
    if started in (None, "", "0"):
        return RunningTask(task_id, kind.name, room_id, app_id, None)
    if not isinstance(started, str) or not (started.isascii() and started.isdecimal()) or len(started) > _ID_CHARACTERS:
        return None
    moment = int(started) * listing.started_unit
    if not _EARLIEST <= moment < _LATEST:
        return None
    return RunningTask(task_id, kind.name, room_id, app_id, datetime.fromtimestamp(moment, UTC))


def _identifier(value: object) -> str | None:
    # NUL and lone surrogates are not printable, and no database would take them.
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS or not value.isprintable():
        return None
    return value
