"""When a task is due, and whether it may be stopped: pure functions of what is known, with ``now`` as an argument.

The sweep, ``explain``, ``stop`` and the tests all ask here; SQL only narrows down whom to ask about.

    the row ──► plan() ──► due_at, auto_stop_at          once per empty spell, stored in the row
    the row + the vendor's answer ──► decide() ──► keep | wait | stop | unknown, and the rule that says so

A plan is a promise to look again; only a decision made right before the request allows one.
In doubt the answer is *unknown*, and unknown keeps: ZEGO then ends the task itself.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from watchdog.core.model import Evidence, Mode, Reason, Source, Status, Task, Verify


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's rules; durations in seconds. ``config.yaml`` explains each."""

    mode: Mode = Mode.ENFORCE
    verify: Verify = Verify.REQUIRED
    max_idle_seconds: float = 150
    grace_seconds: float = 45
    never_joined_grace_seconds: float = 90
    safety_margin_seconds: float = 20
    confirm_seconds: float = 5
    hint_max_age_seconds: float = 300
    verification_max_age_seconds: float = 5
    gap_seconds: float = 60
    rejoin_watch_seconds: float = 600


@dataclass(slots=True)
class CurrentPolicy:
    """The rules that hold at present: one object for everybody who decides, so that a reload reaches all of them.

    It is written to between two steps of the event loop only; a decision reads ``rules`` once.
    """

    rules: Policy


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen to one empty room's task: looked at again at ``due_at``, ended by ZEGO at ``auto_stop_at``."""

    task_id: str
    empty_since: datetime
    due_at: datetime
    auto_stop_at: datetime


class Verdict(StrEnum):
    """What a decision allows."""

    KEEP = "keep"
    WAIT = "wait"
    STOP = "stop"
    UNKNOWN = "unknown"


class Rule(StrEnum):
    """Which rule decided; stored as ``detail`` where nothing was sent, and put into words by ``explain``."""

    ENDED = "ended"
    NO_EVIDENCE = "no_evidence"
    OCCUPIED = "occupied"
    ON_HOLD = "on_hold"
    NOT_DUE = "not_due"
    UNCONFIRMED = "unconfirmed"
    CONTRADICTED = "contradicted"
    STALE_HINT = "stale_hint"
    HINT_BEFORE_GAP = "hint_before_gap"
    VENDOR_SAYS_EMPTY = "vendor_says_empty"
    HINT_SAYS_EMPTY = "hint_says_empty"
    GUARDED = "guarded"


RULE_TEXT: dict[Rule, str] = {
    Rule.ENDED: "the task has already ended",
    Rule.NO_EVIDENCE: "nobody has said how many people are in the room",
    Rule.OCCUPIED: "there are people in the room",
    Rule.ON_HOLD: "the task is on hold",
    Rule.NOT_DUE: "the room has not been empty for long enough",
    Rule.UNCONFIRMED: "the vendor has not confirmed that the room is empty",
    Rule.CONTRADICTED: "the application sees people in a room in which the vendor has never seen any: is it the same?",
    Rule.STALE_HINT: "the hint of an empty room is too old or from the future, and the vendor could not be asked",
    Rule.HINT_BEFORE_GAP: "the hint is from before a time when nobody watched, and the vendor could not be asked",
    Rule.VENDOR_SAYS_EMPTY: "the room has been empty for its grace, and the vendor confirms it",
    Rule.HINT_SAYS_EMPTY: "the room has been empty for its grace, by the hint alone",
    Rule.GUARDED: "too many rooms read empty at once, by hints alone: the guard holds all of them back",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, the rule behind it, and ``until`` when a *wait* ends or ``reason`` why a *stop* is right."""

    verdict: Verdict
    rule: Rule
    until: datetime | None = None
    reason: Reason | None = None


def window(task: Task, policy: Policy) -> timedelta:
    """How long ZEGO lets this task's room stay empty."""
    return timedelta(seconds=policy.max_idle_seconds if task.max_idle_seconds is None else task.max_idle_seconds)


def reason(task: Task, vendor: Evidence | None = None) -> Reason:
    """Why an empty room's task is stopped; ``vendor`` is what the RTC API answered last."""
    if vendor is not None and vendor.others > 0:
        return Reason.BOTS_ONLY
    return Reason.NEVER_JOINED if task.last_occupied_at is None else Reason.EMPTY_ROOM


def contradicts(task: Task, observed: Evidence) -> bool:
    """Whether the vendor's 0 is not to be believed: the application saw people, the vendor never did.

    To the vendor a room that does not exist is empty, and so is a mistyped one, or one of another AppId. Once it has
    seen somebody in the room its 0 counts.
    """
    return (
        observed.user_count == 0
        and observed.others == 0
        and task.user_count is not None
        and task.user_count > 0
        and task.user_count_source == Source.APP
        and task.vendor_occupied_at is None
    )


def plan(task: Task, policy: Policy, now: datetime) -> Plan | None:
    """The times of an empty room's task (design §4), or None while the room is not known to be empty.

    ``now`` is the database's. A plan made late, because the hint came late or claims to be old, is never due before
    the emptiness has lasted ``confirm_seconds`` under our own eyes.
    """
    if task.empty_since is None:
        return None
    due = max(_earliest(task, task.empty_since, policy, now), now + timedelta(seconds=policy.confirm_seconds))
    return Plan(task.task_id, task.empty_since, due, _auto_stop(task, task.empty_since, policy, now))


VENDORS_NEWER_WINDOW_SECONDS: Final = 120
"""MaxIdleTime's default since 2026-07-08 (https://doc-zh.zego.im, StartRealtimeASRTask); the briefed one is 150."""

LEAD_SECONDS: Final = 0.2
"""How long before its time a task may be claimed, and ZEGO asked, so that its request can leave at the due moment.

The next sweep is half of it before the first of them is due, so that one sweep claims what comes due one after another,
and a claim, a question to a vendor 20 ms away and a commit fit in, even where the database is busy for as long again.
"""

COMMIT_LEAD_SECONDS: Final = 0.03
"""How long before its time an attempt is committed, so that at the due moment only the request is left to be made.

As long as a commit may take, and no longer: what the application says of the room after it stops no request any more.
"""

OBSERVE_AGAIN_SECONDS = 300.0
"""In observe mode a task that would have been stopped is looked at again this much later, as long as it is active."""


def acts_at(task: Task, now: datetime, lead_seconds: float, *, manual: bool = False) -> datetime:
    """The moment for which something is done ``now``: the due moment if that is at most so far ahead, else now."""
    if manual or task.due_at is None:
        return now
    return task.due_at if now < task.due_at <= now + timedelta(seconds=lead_seconds) else now


def leaves_at(task: Task, reason: Reason, now: datetime) -> datetime:
    """When the request leaves whose attempt is committed ``now``."""
    return acts_at(task, now, COMMIT_LEAD_SECONDS, manual=reason is Reason.MANUAL)


def recheck_seconds(task: Task, now: datetime) -> float:
    """How long until a task whose evidence did not suffice is looked at again: half its lateness, 2 to 10 s.

    Ten, so that a vendor that answers again is asked within the last 30 s of the window (invariant I3); once the
    window is over there is no hurry, and it becomes a minute.
    """
    if task.due_at is None:
        return 2.0
    over = task.auto_stop_at is not None and now >= task.auto_stop_at
    return min(60.0 if over else 10.0, max(2.0, (now - task.due_at).total_seconds() / 2))


def decide(
    task: Task,
    vendor: Evidence | None,
    policy: Policy,
    now: datetime,
    *,
    watching_since: datetime,
    manual: bool = False,
) -> Decision:
    """Whether ``task`` may be stopped now.

    ``vendor`` is what the RTC API answered, None when it was not asked or did not say. ``watching_since`` is when the
    present unbroken stretch of sweeps began. ``manual`` is an operator's own order, which waits for no grace but for
    everything else.
    """
    if task.status is not Status.ACTIVE:
        return Decision(Verdict.KEEP, Rule.ENDED)
    evidence = task.evidence if vendor is None else vendor
    if evidence.user_count is None or evidence.user_count < 0 or evidence.observed_at is None:
        return Decision(Verdict.UNKNOWN, Rule.NO_EVIDENCE)
    if evidence.user_count > 0:
        return Decision(Verdict.KEEP, Rule.OCCUPIED)
    if vendor is not None and contradicts(task, vendor):
        return Decision(Verdict.UNKNOWN, Rule.CONTRADICTED)
    if task.hold_until is not None and task.hold_until > now:
        return Decision(Verdict.WAIT, Rule.ON_HOLD, until=task.hold_until)
    due = now if manual else _due(task, evidence.observed_at, policy, now)
    if now < due:
        return Decision(Verdict.WAIT, Rule.NOT_DUE, until=due)
    # The room is said to be empty and its time has come: is what says so good enough?
    if vendor is not None:
        rule = _vendors_word(evidence.observed_at, policy, now)
    else:
        rule = _hints_word(evidence.observed_at, policy, now, watching_since)
    if rule not in {Rule.VENDOR_SAYS_EMPTY, Rule.HINT_SAYS_EMPTY}:
        return Decision(Verdict.UNKNOWN, rule)
    return Decision(Verdict.STOP, rule, reason=Reason.MANUAL if manual else reason(task, vendor))


def _vendors_word(observed_at: datetime, policy: Policy, now: datetime) -> Rule:
    fresh = _is_fresh(observed_at, policy.verification_max_age_seconds, policy, now)
    return Rule.VENDOR_SAYS_EMPTY if fresh else Rule.UNCONFIRMED


def _hints_word(observed_at: datetime, policy: Policy, now: datetime, watching_since: datetime) -> Rule:
    if policy.verify is Verify.REQUIRED:
        return Rule.UNCONFIRMED
    if not _is_fresh(observed_at, policy.hint_max_age_seconds, policy, now):
        return Rule.STALE_HINT
    return Rule.HINT_BEFORE_GAP if observed_at < watching_since else Rule.HINT_SAYS_EMPTY


def _is_fresh(observed_at: datetime, max_age_seconds: float, policy: Policy, now: datetime) -> bool:
    """Whether evidence is neither too old nor from the future.

    Two readings of one clock differ by their delays, but evidence from further ahead is not fresh: after a clock was
    set back by an hour it would stay so for as long.
    """
    age = (now - observed_at).total_seconds()
    return -policy.verification_max_age_seconds <= age <= max_age_seconds


def _due(task: Task, observed_at: datetime, policy: Policy, now: datetime) -> datetime:
    """The stored plan, or later where today's policy or a hold says so; without a plan, what it would be."""
    if task.empty_since is None:
        return observed_at + timedelta(seconds=policy.grace_seconds)
    earliest = _earliest(task, task.empty_since, policy, now)
    return earliest if task.due_at is None else max(task.due_at, earliest)


def _earliest(task: Task, empty_since: datetime, policy: Policy, now: datetime) -> datetime:
    margin = timedelta(seconds=policy.safety_margin_seconds)
    grace = timedelta(seconds=policy.grace_seconds if task.grace_seconds is None else task.grace_seconds)
    due = empty_since + grace
    if task.last_occupied_at is None:
        join_by = task.started_at + timedelta(seconds=policy.never_joined_grace_seconds)
        due = max(due, join_by)
        newer = task.started_at + timedelta(seconds=VENDORS_NEWER_WINDOW_SECONDS)
        if task.max_idle_seconds is None and empty_since < newer:
            # ZEGO's clock runs from the start, however late the room was noticed, and to 120 s if we are unlucky.
            due = min(due, max(join_by, task.started_at + grace, newer - margin))
    due = min(due, _auto_stop(task, empty_since, policy, now) - margin)
    due = max(due, empty_since + timedelta(seconds=policy.confirm_seconds))
    return due if task.hold_until is None else max(due, task.hold_until)


def _auto_stop(task: Task, empty_since: datetime, policy: Policy, now: datetime) -> datetime:
    """When ZEGO ends the task by itself, at the latest.

    For a task never seen occupied ZEGO's clock began with the task; but one that has outlived its window must have
    been occupied without our seeing it, so there it began when the room emptied.
    """
    length = window(task, policy)
    if task.last_occupied_at is None and now < task.started_at + length:
        return task.started_at + length
    return empty_since + length
