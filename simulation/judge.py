"""The judgement of a run, by the sandbox's log of what really happened. Pure.

A *wrong stop* is a Stop that the vendor accepted while somebody was really in the room: not an admin, not a bot, not a
client that had crashed. With verification, a person who joined after the vendor had said 0, at most
``VERIFY_TO_SEND_SECONDS`` before the request left (design I1), counts as ``raced`` instead.

A *miss* is an auto-stop of a task that stood in the table, active, for its grace and longer, while the vendor could be
reached throughout the last ``REACHABLE_SECONDS`` (design I3); with an outage in them it is ``excused``. So it is if the
room became empty during an outage, and the grace that began when ZEGO could be asked again was not over. An end of a
digital human, a player or an old recording that has nothing to do with its room is none.

*Left running* is a task whose room people abandoned long ago, by the end of the run; the vendor ends none of those in
which a bot or recorder stayed. Where another task of the room was never registered it is none: what that one brought
into the room is a person to the watchdog.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any, Final

from watchdog.sandbox.kinds import OF_THE_ROOM
from watchdog.sandbox.world import ADMIN_ROLE, Event

VERIFY_TO_SEND_SECONDS: Final = 13.0
"""An answer may be 5 s old when the request leaves, and its own way may have taken 8 s."""

REACHABLE_SECONDS: Final = 30.0
LEFT_SECONDS: Final = 180.0
"""Abandoned for longer than this at the end of the run is left running: grace, a retry or two, and an outage."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One stop or end that was wrong."""

    task_id: str
    room_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Watched:
    """One row of ``zego_tasks``: from when to when it was active, Unix seconds; ``until`` None: it still is."""

    task_id: str
    since: float
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The numbers.

    ``lateness``, for each task rightly stopped, is how many seconds after the vendor's last sight of people, plus
    grace, the vendor received the Stop; 0 where it came sooner.
    """

    wrong: tuple[Finding, ...]
    raced: int
    missed: tuple[Finding, ...]
    excused: int
    unwatched: int
    left_running: tuple[Finding, ...]
    stopped: int
    lateness: tuple[float, ...]
    callbacks_delivered: int
    callbacks_lost: int

    @property
    def mean_lateness(self) -> float:
        return fmean(self.lateness) if self.lateness else 0.0

    @property
    def worst_lateness(self) -> float:
        return max(self.lateness, default=0.0)


@dataclass(frozen=True, slots=True)
class Grace:
    """How long a room may be empty before its task is stopped, in seconds; ``never_joined`` from the start."""

    usual: float
    never_joined: float


@dataclass(slots=True)
class _Task:
    room_id: str
    started_at: float
    seen_people: bool
    grace: Grace


class Judge:
    """Reads the log once, in order."""

    def __init__(
        self,
        watched: Iterable[Watched],
        *,
        bots: Sequence[str],
        grace: Callable[[str], Grace],
        outages: Sequence[tuple[float, float]],
        verified: bool,
    ) -> None:
        self._watched = {row.task_id: row for row in watched}
        self._bots = bots
        # By kind.
        self._grace = grace
        self._outages = outages
        self._verified = verified
        # People as the vendor sees them, by room, and since when there are none.
        self._people: Counter[str] = Counter()
        self._empty_since: dict[str, float] = {}
        self._tasks: dict[str, _Task] = {}
        self._running: dict[str, set[str]] = {}
        # By room, in order: when an answer came, of when it is, and how many people it spoke of.
        self._answers: dict[str, list[tuple[float, float, int]]] = {}
        self._left_at: dict[str | None, float] = {}
        self._wrong: list[Finding] = []
        self._missed: list[Finding] = []
        self._lateness: list[float] = []
        self._counts: Counter[str] = Counter()

    def judge(self, log: Iterable[Event], end: float) -> Judgement:
        """Judge a whole run that ended at ``end``."""
        log = list(log)
        # When the request left that the vendor later acted upon.
        self._left_at = {event["of_stop"]: event["received_at"] for event in log if event["event"] == "stop_requested"}
        for event in log:
            match event["event"]:
                case "join" | "leave":
                    self._presence(event)
                case "task_started":
                    self._started(event)
                case "task_stopped":
                    self._stopped(event)
                case "auto_stopped":
                    self._auto_stopped(event)
                case "answered_who_is_there":
                    for room_id, people in event["people"].items():
                        self._answers.setdefault(room_id, []).append((event["at"], event["asked_at"], people))
                case "callback_sent" if event["status"] is not None and 200 <= event["status"] < 300:
                    self._counts["delivered"] += 1
                case "callback_lost":
                    self._counts["lost"] += 1
        return Judgement(
            wrong=tuple(self._wrong),
            raced=self._counts["raced"],
            missed=tuple(self._missed),
            excused=self._counts["excused"],
            unwatched=self._counts["unwatched"],
            left_running=tuple(self._left(end)),
            stopped=len(self._lateness),
            lateness=tuple(self._lateness),
            callbacks_delivered=self._counts["delivered"],
            callbacks_lost=self._counts["lost"],
        )

    def _is_person(self, user: Row) -> bool:
        if user["role"] == ADMIN_ROLE or "brought_by" in user:
            return False
        return not any(fnmatchcase(user["user_id"], bot) for bot in self._bots)

    def _presence(self, event: Event) -> None:
        room_id = event["room_id"]
        before, now = self._people[room_id], sum(map(self._is_person, event["users"]))
        self._people[room_id] = now
        if now:
            for task_id in self._running.get(room_id, ()):
                self._tasks[task_id].seen_people = True
        elif before:
            self._empty_since[room_id] = event["at"]

    def _started(self, event: Event) -> None:
        task_id, room_id = event["task_id"], event["room_id"]
        self._tasks[task_id] = _Task(room_id, event["at"], self._people[room_id] > 0, self._grace(event["kind"]))
        self._running.setdefault(room_id, set()).add(task_id)

    def _ended(self, event: Event) -> _Task:
        task = self._tasks[event["task_id"]]
        self._running[task.room_id].discard(event["task_id"])
        return task

    def _stopped(self, event: Event) -> None:
        task = self._ended(event)
        if event["via"] != "api":
            return
        if any(self._is_person(user) and not user.get("crashed") for user in event["users"]):
            if self._verified and self._was_said_to_be_empty(task.room_id, self._left_at[event["request_id"]]):
                self._counts["raced"] += 1
            else:
                self._wrong.append(Finding(event["task_id"], task.room_id, event["at"]))
            return
        # Where the application saw a client crash long before the vendor did, grace is over when the vendor agrees.
        self._lateness.append(max(0.0, event["at"] - self._due(task, event["at"])))

    def _was_said_to_be_empty(self, room_id: str, sent_at: float) -> bool:
        """Whether the vendor's last answer before a request left was recent, and that nobody was there."""
        known = [answer for answer in self._answers.get(room_id, ()) if answer[0] <= sent_at]
        if not known:
            return False
        _, asked_at, people = known[-1]
        return people == 0 and sent_at - asked_at <= VERIFY_TO_SEND_SECONDS

    def _due(self, task: _Task, now: float) -> float:
        """When the task should have been stopped."""
        if self._people[task.room_id]:
            # Only crashed clients are there, and the vendor does not know yet; it is early rather than late.
            return now
        empty_since = max(task.started_at, self._empty_since.get(task.room_id, 0.0))
        due = empty_since + task.grace.usual
        return due if task.seen_people else max(due, task.started_at + task.grace.never_joined)

    def _auto_stopped(self, event: Event) -> None:
        task = self._ended(event)
        at = event["at"]
        row = self._watched.get(event["task_id"])
        if event["because"] not in OF_THE_ROOM:
            self._counts["of_no_room"] += 1
        elif row is None or row.since > at - task.grace.usual or (row.until is not None and row.until < at):
            self._counts["unwatched"] += 1
        elif any(self._was_in_the_way(outage, task, at) for outage in self._outages):
            self._counts["excused"] += 1
        else:
            self._missed.append(Finding(event["task_id"], task.room_id, at))

    def _was_in_the_way(self, outage: tuple[float, float], task: _Task, at: float) -> bool:
        began, ended = outage
        seconds = REACHABLE_SECONDS
        if began < self._empty_since.get(task.room_id, task.started_at) < ended:
            seconds += task.grace.usual
        return began < at and ended > at - seconds

    def _left(self, end: float) -> Iterable[Finding]:
        for room_id, task_ids in self._running.items():
            if not task_ids <= self._watched.keys():
                continue
            for task_id in sorted(task_ids):
                task, row = self._tasks[task_id], self._watched.get(task_id)
                abandoned = not self._people[room_id] and end - self._due(task, end) > LEFT_SECONDS
                if abandoned and row is not None and row.since < end - LEFT_SECONDS and row.until is None:
                    yield Finding(task_id, room_id, end)
