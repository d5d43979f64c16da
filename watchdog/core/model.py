"""The words of the domain as frozen values. No I/O, no clock, no SQL: everything else imports this."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What has become of a task (``zego_tasks.status``)."""

    ACTIVE = "active"
    STOPPED = "stopped"
    GONE = "gone"
    AUTO_STOPPED = "auto_stopped"
    FAILED = "failed"
    RELEASED = "released"


class Outcome(StrEnum):
    """What came of an attempt (``zego_stop_attempts.outcome``)."""

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
    """Why a task is to be stopped (``zego_stop_attempts.reason``)."""

    EMPTY_ROOM = "empty_room"
    NEVER_JOINED = "never_joined"
    BOTS_ONLY = "bots_only"
    MANUAL = "manual"


class Source(StrEnum):
    """Who made an observation (``zego_tasks.user_count_source``)."""

    APP = "app"
    CALLBACK = "callback"
    API = "api"


class Mode(StrEnum):
    """``observe`` records what it would do and sends nothing."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Verify(StrEnum):
    """Whether the vendor is asked who is in the room right before a stop."""

    REQUIRED = "required"
    WHEN_POSSIBLE = "when_possible"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statement of how many real people were in a room, and when; ``user_count`` None says nothing is known.

    ``others`` counts users that the vendor sees and that are not people: admins and bots. While there are any, the
    vendor does not end the task by itself.
    """

    user_count: int | None
    observed_at: datetime | None
    source: str | None
    others: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One row of ``zego_tasks``; the columns are explained in ``docs/schema.md``."""

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

    @property
    def evidence(self) -> Evidence:
        """The hint that stands in the row."""
        return Evidence(self.user_count, self.user_count_at, self.user_count_source)


@dataclass(frozen=True, slots=True)
class RoomCount:
    """DescribeUserNum's numbers for one room: all users, and how many of them the vendor calls admins."""

    users: int
    admins: int

    @property
    def people(self) -> int:
        """The users that are not admins; never below 0."""
        return max(0, self.users - self.admins)


@dataclass(frozen=True, slots=True)
class RoomUser:
    """One user of a room; ``role`` is None where the vendor's number makes no sense."""

    user_id: str
    name: str
    role: int | None


ADMIN_ROLE: Final = 4
"""``UserRole`` of the users that DescribeUserNum counts as AdminUserCount."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the vendor answered to one request.

    ``code``, ``message`` and ``request_id`` hold the very characters of the reply, whether it had them as a number or
    as a string; None where the reply had none. ``data`` is the parsed ``Data`` object. ``excerpt`` is the beginning of
    the raw body, kept where the body could not be used. ``clock_offset_seconds`` is the vendor's clock minus ours as
    the ``Date`` header has it (whole seconds), None without the header.
    """

    http_status: int
    code: str | None
    message: str | None
    request_id: str | None
    data: object
    excerpt: str | None
    clock_offset_seconds: float | None
