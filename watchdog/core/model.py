"""The terms of the domain as frozen values. Every layer imports them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

ADMIN_ROLE: Final = 4
"""The role of recorders, moderators and the like, which DescribeUserNum counts as AdminUserCount."""


class Status(StrEnum):
    """The state of a task (``zego_tasks.status``)."""

    ACTIVE = "active"
    STOPPED = "stopped"
    GONE = "gone"
    AUTO_STOPPED = "auto_stopped"
    FAILED = "failed"
    RELEASED = "released"


class Outcome(StrEnum):
    """The result of an attempt (``zego_stop_attempts.outcome``)."""

    SENT = "sent"
    STOPPED = "stopped"
    GONE = "gone"
    STOPPED_EARLIER = "stopped_earlier"
    AUTO_STOPPED = "auto_stopped"
    RETRY = "retry"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    BLOCKED = "blocked"
    SPARED = "spared"
    WITHHELD = "withheld"
    WOULD_STOP = "would_stop"


class Reason(StrEnum):
    """Why a task is stopped (``zego_stop_attempts.reason``)."""

    EMPTY_ROOM = "empty_room"
    NEVER_JOINED = "never_joined"
    BOTS_ONLY = "bots_only"
    MAX_AGE = "max_age"
    MANUAL = "manual"


class Ending(StrEnum):
    """How an empty spell of a task's room ended (``zego_empty_spells.ending``)."""

    RETURNED = "returned"
    STOPPED = "stopped"
    AUTO_STOPPED = "auto_stopped"
    RELEASED = "released"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """Who made an observation (``zego_tasks.user_count_source``)."""

    APP = "app"
    CALLBACK = "callback"
    API = "api"


class Mode(StrEnum):
    """``observe`` records what the daemon would do and sends nothing."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Verify(StrEnum):
    """Whether the vendor is asked, right before a stop, who is in the room."""

    REQUIRED = "required"
    WHEN_POSSIBLE = "when_possible"
    OFF = "off"


class OnMaxAge(StrEnum):
    """What happens to a task that is older than the limit. Only the last value stops it with people in its room."""

    ALERT = "alert"
    STOP = "stop"
    STOP_WITH_PEOPLE_INSIDE = "stop_with_people_inside"


@dataclass(frozen=True, slots=True)
class Evidence:
    """How many people were in a room, when, and who said so; ``user_count`` None means unknown.

    ``others`` counts the admins and bots that the vendor sees; while there are any, it does not end the task.
    """

    user_count: int | None
    observed_at: datetime | None
    source: str | None
    others: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One row of ``zego_tasks``; ``docs/schema.md`` explains the columns."""

    task_id: str
    room_id: str
    app_id: int | None
    kind: str
    max_idle_seconds: int | None
    grace_seconds: int | None
    hold_until: datetime | None
    started_at: datetime
    user_count: int | None
    user_count_at: datetime | None
    user_count_source: str | None
    last_occupied_at: datetime | None
    empty_since: datetime | None
    due_at: datetime | None
    auto_stop_at: datetime | None
    wake_at: datetime | None
    claimed_by: str | None
    attempts: int
    status: Status
    ended_at: datetime | None
    asked_at: datetime
    vendor_occupied_at: datetime | None
    discovered_at: datetime | None = None
    bot_user_id: str | None = None

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.user_count, self.user_count_at, self.user_count_source)


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that ZEGO lists as running; ``started_at`` is None if it does not say when it started."""

    task_id: str
    kind: str
    room_id: str
    app_id: int
    started_at: datetime | None


ALL_KINDS: Final = "all"


class Api(NamedTuple):
    """What ZEGO counts requests for, and refuses as a whole: an AppId at the API of one kind of tasks.

    ``ALL_KINDS`` as ``kind``: the AppId at all of these APIs.
    """

    app_id: int
    kind: str

    @property
    def of_all_kinds(self) -> "Api":
        return Api(self.app_id, ALL_KINDS)


@dataclass(frozen=True, slots=True)
class RoomCount:
    """DescribeUserNum's numbers for one room: all users, and how many of them are admins."""

    users: int
    admins: int

    @property
    def people(self) -> int:
        """The users that are not admins; never below 0."""
        return max(0, self.users - self.admins)


@dataclass(frozen=True, slots=True)
class RoomUser:
    """A user of a room as DescribeUserList has it; ``role`` is None if the vendor's number is unusable."""

    user_id: str
    name: str
    role: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """The vendor's reply to one request.

    ``code``, ``message`` and ``request_id`` have the reply's characters, also of a number; None if it sent none.
    ``data`` is the parsed ``Data``, ``excerpt`` the beginning of an unusable body. ``clock_offset_seconds`` is the
    vendor's clock minus ours by the ``Date`` header, in whole seconds.
    """

    http_status: int
    code: str | None
    message: str | None
    request_id: str | None
    data: object
    excerpt: str | None
    clock_offset_seconds: float | None
