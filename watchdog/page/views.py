"""The pages: what the address asks for, and the reading that answers it.

A view is a value: two browsers that ask for the same have equal views, and share one result.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from watchdog.core.model import Outcome
from watchdog.core.policy import Policy
from watchdog.insight.explanation import Explanation, explain
from watchdog.store.engine import Engine
from watchdog.store.polling import PollStore
from watchdog.store.reports.history import Row, history
from watchdog.store.reports.paging import Choice, Mark, TaskPage, is_mark, task_page
from watchdog.store.reports.tasks import biography, similar

ROWS: Final = 50
"""How many rows a table has at most."""

ROWS_OF_A_TASK: Final = 200
"""How many attempts and events of one task are shown; there are rarely more than a few."""

E = TypeVar("E", Choice, Outcome)

SINCE: Final = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}
_LONGEST_TEXT: Final = 300


class Unreadable(Exception):
    """The address has a value that no link of ours has."""


@dataclass(frozen=True, slots=True)
class Home:
    """The overview. It is made of ``Glance`` and ``Lately``, which are read apart."""


@dataclass(frozen=True, slots=True)
class Tasks:
    choice: Choice
    room: str | None
    after: Mark | None

    @classmethod
    def asked(cls, query: Mapping[str, str]) -> "Tasks":
        """Raises Unreadable."""
        choice = _one_of(Choice, query.get("choice", "")) or Choice.ACTIVE
        after = None if not query.get("after") else read_mark(query["after"])
        if after is not None and not is_mark(choice, after):
            raise Unreadable
        return cls(choice, _text(query, "room"), after)

    def read(self, engine: Engine) -> TaskPage:
        return task_page(engine, self.choice, limit=ROWS, room_id=self.room, after=self.after)

    @property
    def query(self) -> Mapping[str, str]:
        """The address's values without the place."""
        return _filled(choice=self.choice.value, room=self.room)


@dataclass(frozen=True, slots=True)
class History:
    outcome: Outcome | None
    task: str | None
    room: str | None
    since: str | None
    before: int | None

    @classmethod
    def asked(cls, query: Mapping[str, str]) -> "History":
        """Raises Unreadable."""
        since, before = query.get("since") or None, query.get("before") or None
        if since is not None and since not in SINCE:
            raise Unreadable
        if before is not None and not (before.isascii() and before.isdecimal() and len(before) < 19):
            raise Unreadable
        outcome = _one_of(Outcome, query.get("outcome", ""))
        return cls(outcome, _text(query, "task"), _text(query, "room"), since, None if before is None else int(before))

    def read(self, engine: Engine) -> tuple[datetime, Sequence[Row], int | None]:
        """Return the database's time, the rows, and the ``before`` of the following page, None after the last one."""
        now, rows = history(
            engine,
            limit=ROWS + 1,
            outcome=self.outcome,
            task_id=self.task,
            room_id=self.room,
            since=None if self.since is None else SINCE[self.since],
            before_id=self.before,
        )
        return now, rows[:ROWS], rows[ROWS - 1]["attempt_id"] if len(rows) > ROWS else None

    @property
    def query(self) -> Mapping[str, str]:
        """The address's values without the place."""
        return _filled(outcome=self.outcome, task=self.task, room=self.room, since=self.since)


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such task; ``similar`` are TaskIds, of the room of this name if ``is_room``."""

    similar: Sequence[str]
    is_room: bool


@dataclass(frozen=True, slots=True)
class OneTask:
    task_id: str
    policy: Policy
    silence_seconds: float

    def read(self, engine: Engine) -> Explanation | Missing:
        if "\0" in self.task_id:
            # PostgreSQL has no such text.
            return Missing((), is_room=False)
        story = biography(engine, self.task_id)
        if story is None:
            return Missing(*similar(engine, self.task_id))
        newest = PollStore(engine).newest_hint()
        return explain(story, self.task_id, self.policy, newest, self.silence_seconds)


def write_mark(mark: Mark) -> str:
    """Return a mark as letters for an address."""
    value = mark.value if isinstance(mark.value, str) else mark.value.timestamp()
    return base64.urlsafe_b64encode(json.dumps([mark.part, value, mark.task_id]).encode()).decode().rstrip("=")


def read_mark(text: str) -> Mark:
    """Raises Unreadable."""
    try:
        part, value, task_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(part, int) or not isinstance(task_id, str) or not isinstance(value, str | float | int):
            raise Unreadable
        where = value if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        # Half of a surrogate pair is in no text of a database.
        f"{where}{task_id}".encode()
    except (ValueError, TypeError, OverflowError, OSError, RecursionError, binascii.Error):
        raise Unreadable from None
    if "\0" in task_id or (isinstance(where, str) and "\0" in where):
        raise Unreadable
    return Mark(part, where, task_id)


def _text(query: Mapping[str, str], name: str) -> str | None:
    """Raises Unreadable if no id can be so."""
    value = query.get(name, "")
    if "\0" in value or len(value) > _LONGEST_TEXT:
        raise Unreadable
    return value or None


def _one_of(kind: type[E], value: str) -> E | None:
    """None for an empty value. Raises Unreadable."""
    try:
        return kind(value) if value else None
    except ValueError:
        raise Unreadable from None


def _filled(**values: str | None) -> Mapping[str, str]:
    return {name: value for name, value in values.items() if value}
