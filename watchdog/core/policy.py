"""When a task is due, and whether it may be stopped: pure functions, with ``now`` as an argument.

The sweep, ``explain`` and ``stop`` all decide here; SQL only selects the candidates.

    the row ──► plan() ──► due_at, auto_stop_at          once per empty spell, stored in the row
    the row + the vendor's answer ──► decide() ──► keep | wait | stop | unknown, and the rule behind it

A plan only says when to look again; a request needs a decision made right before it.
In doubt the verdict is *unknown*. Unknown keeps the task, and ZEGO ends it by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from watchdog.core.kinds import KINDS, Kind
from watchdog.core.model import Evidence, Mode, OnMaxAge, Reason, Source, Status, Task, Verify


@dataclass(frozen=True, slots=True)
class Limits:
    """The rules that differ between kinds of tasks; in seconds. ``max_idle_seconds`` None: ZEGO ignores empty rooms."""

    max_idle_seconds: float | None
    grace_seconds: float
    never_joined_grace_seconds: float
    safety_margin_seconds: float


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's rules; durations in seconds. ``config.yaml`` explains each one.

    ``kinds`` has the operator's values of ``Limits`` for kinds of tasks other than ASR, by kind and name.
    """

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
    max_age_seconds: float = 0
    on_max_age: OnMaxAge = OnMaxAge.ALERT
    # The page of a task has the policy in a key of its cache, and a mapping has no hash.
    kinds: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)


@dataclass(slots=True)
class CurrentPolicy:
    """The current rules, shared by all services, so that a reload reaches all of them.

    It changes only between two steps of the event loop; a decision reads ``rules`` once.
    """

    rules: Policy


@dataclass(frozen=True, slots=True)
class Plan:
    """When an empty room's task is examined again, and when ZEGO ends it; ``auto_stop_at`` None: never."""

    task_id: str
    empty_since: datetime
    due_at: datetime
    auto_stop_at: datetime | None


class Verdict(StrEnum):
    KEEP = "keep"
    WAIT = "wait"
    STOP = "stop"
    UNKNOWN = "unknown"


class Rule(StrEnum):
    """Which rule decided; stored as ``detail`` if nothing was sent. ``RULE_TEXT`` has the words."""

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
    OLD_BUT_OCCUPIED = "old_but_occupied"
    OLD_AND_EMPTY = "old_and_empty"
    OLD_AND_EMPTY_BY_HINT = "old_and_empty_by_hint"
    OLD_UNANSWERED = "old_unanswered"
    OLD_WITH_PEOPLE = "old_with_people"
    OLD_UNVERIFIED = "old_unverified"


RULE_TEXT: dict[Rule, str] = {
    Rule.ENDED: "the task has already ended",
    Rule.NO_EVIDENCE: "it is not known how many people are in the room",
    Rule.OCCUPIED: "there are people in the room",
    Rule.ON_HOLD: "the task is on hold",
    Rule.NOT_DUE: "the room has not been empty for long enough",
    Rule.UNCONFIRMED: "the vendor has not confirmed that the room is empty",
    Rule.CONTRADICTED: "the application sees people in the room, the vendor has never seen any: is the RoomId right?",
    Rule.STALE_HINT: "the hint of an empty room is too old or from the future, and the vendor could not be asked",
    Rule.HINT_BEFORE_GAP: "the hint is from before a pause in the sweeps, and the vendor could not be asked",
    Rule.VENDOR_SAYS_EMPTY: "the room has been empty for its grace period, and the vendor confirms it",
    Rule.HINT_SAYS_EMPTY: "the room has been empty for its grace period, according to the hint alone",
    Rule.GUARDED: "too many rooms became empty at once, according to hints alone: the guard holds all of them back",
    Rule.OLD_BUT_OCCUPIED: "the task is older than policy.max_age_seconds, but there are people in the room",
    Rule.OLD_AND_EMPTY: "the task is older than policy.max_age_seconds, and the vendor confirms that the room is empty",
    Rule.OLD_AND_EMPTY_BY_HINT: (
        "the task is older than policy.max_age_seconds, and the room is empty, according to the hint alone"
    ),
    Rule.OLD_UNANSWERED: "the task is older than policy.max_age_seconds, and the vendor has not said who is there",
    Rule.OLD_WITH_PEOPLE: (
        "the task is older than policy.max_age_seconds, and policy.on_max_age stops it with people in the room as well"
    ),
    Rule.OLD_UNVERIFIED: (
        "the task is older than policy.max_age_seconds, policy.on_max_age stops it with people in the room as well, "
        "and the vendor could not be asked"
    ),
}

UNVERIFIED: Final = frozenset({Rule.HINT_SAYS_EMPTY, Rule.OLD_AND_EMPTY_BY_HINT, Rule.OLD_UNVERIFIED})
"""The rules of stops that the vendor has not confirmed: the guard limits them."""

PEOPLE_INSIDE: Final = frozenset({Rule.OLD_WITH_PEOPLE, Rule.OLD_UNVERIFIED})
"""The rules of stops that people in the room do not prevent."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, the rule behind it, and the end of a *wait* (``until``) or the ``reason`` of a *stop*.

    Another verdict has a ``reason`` if only the task's age asked for the stop.
    """

    verdict: Verdict
    rule: Rule
    until: datetime | None = None
    reason: Reason | None = None


def limits(kind: Kind, policy: Policy) -> Limits:
    """The rules of a kind: the operator's for it, else the vendor's, else those for ASR."""
    if kind.is_default:
        return Limits(
            policy.max_idle_seconds,
            policy.grace_seconds,
            policy.never_joined_grace_seconds,
            policy.safety_margin_seconds,
        )
    own = policy.kinds.get(kind.name, {})
    grace, margin = kind.grace_seconds, kind.safety_margin_seconds
    return Limits(
        # Where ZEGO does not look at the room, no setting makes it.
        None if kind.window_seconds is None else own.get("max_idle_seconds", kind.window_seconds),
        own.get("grace_seconds", policy.grace_seconds if grace is None else grace),
        own.get("never_joined_grace_seconds", policy.never_joined_grace_seconds),
        own.get("safety_margin_seconds", policy.safety_margin_seconds if margin is None else margin),
    )


def window(task: Task, policy: Policy) -> timedelta | None:
    """How long ZEGO lets this task's room stay empty; None: for ever."""
    seconds = limits(KINDS[task.kind], policy).max_idle_seconds
    if seconds is None:
        return None
    return timedelta(seconds=seconds if task.max_idle_seconds is None else task.max_idle_seconds)


def reason(task: Task, vendor: Evidence | None = None) -> Reason:
    """Why an empty room's task is stopped; ``vendor`` is the last answer of the RTC API."""
    if vendor is not None and vendor.others > 0 and KINDS[task.kind].bots_keep_alive:
        return Reason.BOTS_ONLY
    return Reason.NEVER_JOINED if task.last_occupied_at is None else Reason.EMPTY_ROOM


def is_too_old(task: Task, policy: Policy, now: datetime) -> bool:
    """Whether the task is older than the limit, if there is one."""
    return policy.max_age_seconds > 0 and now >= task.started_at + timedelta(seconds=policy.max_age_seconds)


def contradicts(task: Task, observed: Evidence) -> bool:
    """Whether the vendor's 0 is not evidence: the application saw people and the vendor never did.

    The vendor reports 0 also for a room that does not exist, has another spelling or belongs to another AppId. Once it
    has reported people in the room, its 0 counts.
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
    """The times of an empty room's task (design §4), or None if the room is not known to be empty.

    ``now`` is the database's. The plan is never due before ``now`` + ``confirm_seconds``, even if the hint came late
    or claims to be old. A task that is stopped for its age has no grace period.
    """
    if task.empty_since is None:
        return None
    confirmed = now + timedelta(seconds=policy.confirm_seconds)
    due = max(_earliest(task, task.empty_since, policy, now), confirmed)
    if policy.max_age_seconds > 0 and policy.on_max_age is not OnMaxAge.ALERT:
        too_old_at = task.started_at + timedelta(seconds=policy.max_age_seconds)
        due = min(due, max(too_old_at, confirmed, task.hold_until or confirmed))
    return Plan(task.task_id, task.empty_since, due, _auto_stop(task, task.empty_since, policy, now))


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

    ``vendor`` is the answer of the RTC API, None if it was not asked or did not answer. ``watching_since`` is when the
    current unbroken series of sweeps began. ``manual``: an operator's order, which skips the grace period but no other
    rule; it does not ask for the task's age.
    """
    decision = _decide_by_people(task, vendor, policy, now, watching_since, manual=manual)
    if manual or policy.on_max_age is OnMaxAge.ALERT or not is_too_old(task, policy, now):
        return decision
    return _decide_by_age(decision, task, vendor, policy, now, watching_since)


def _decide_by_people(
    task: Task, vendor: Evidence | None, policy: Policy, now: datetime, watching_since: datetime, *, manual: bool
) -> Decision:
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
    # The room is empty and the task is due: is the evidence good enough?
    rule = _judge(vendor, evidence.observed_at, policy, now, watching_since)
    if rule not in {Rule.VENDOR_SAYS_EMPTY, Rule.HINT_SAYS_EMPTY}:
        return Decision(Verdict.UNKNOWN, rule)
    return Decision(Verdict.STOP, rule, reason=Reason.MANUAL if manual else reason(task, vendor))


def _decide_by_age(
    decision: Decision, task: Task, vendor: Evidence | None, policy: Policy, now: datetime, watching_since: datetime
) -> Decision:
    """Return ``decision`` as it is for a task that is to be stopped for its age.

    It is stopped without a grace period. People prevent that, and so does missing evidence. With
    ``stop_with_people_inside`` only a hold prevents it, or, where verification is required, that the vendor gave no
    answer.
    """
    observed_at = (task.evidence if vendor is None else vendor).observed_at
    match decision.rule:
        case Rule.ENDED | Rule.ON_HOLD:
            return decision
        case Rule.OCCUPIED:
            decision = Decision(Verdict.KEEP, Rule.OLD_BUT_OCCUPIED, reason=Reason.MAX_AGE)
        case Rule.NO_EVIDENCE | Rule.CONTRADICTED:
            decision = replace(decision, reason=Reason.MAX_AGE)
        case Rule.NOT_DUE if observed_at is not None:
            rule = _judge(vendor, observed_at, policy, now, watching_since)
            old = _OLD_AND_EMPTY.get(rule)
            verdict = Verdict.UNKNOWN if old is None else Verdict.STOP
            decision = Decision(verdict, old or rule, reason=Reason.MAX_AGE)
    if decision.verdict is Verdict.STOP or policy.on_max_age is not OnMaxAge.STOP_WITH_PEOPLE_INSIDE:
        return decision
    if task.hold_until is not None and task.hold_until > now:
        return Decision(Verdict.WAIT, Rule.ON_HOLD, until=task.hold_until)
    has_answered = (
        vendor is not None
        and vendor.user_count is not None
        and observed_at is not None
        and _judge_answer(observed_at, policy, now) is not Rule.UNCONFIRMED
    )
    if not has_answered and policy.verify is Verify.REQUIRED:
        return Decision(Verdict.UNKNOWN, Rule.OLD_UNANSWERED, reason=Reason.MAX_AGE)
    rule = Rule.OLD_WITH_PEOPLE if has_answered else Rule.OLD_UNVERIFIED
    return Decision(Verdict.STOP, rule, reason=Reason.MAX_AGE)


_OLD_AND_EMPTY: Final = {
    Rule.VENDOR_SAYS_EMPTY: Rule.OLD_AND_EMPTY,
    Rule.HINT_SAYS_EMPTY: Rule.OLD_AND_EMPTY_BY_HINT,
}


def _judge(
    vendor: Evidence | None, observed_at: datetime, policy: Policy, now: datetime, watching_since: datetime
) -> Rule:
    """Whether what says that the room is empty is good enough for a stop."""
    if vendor is not None:
        return _judge_answer(observed_at, policy, now)
    return _judge_hint(observed_at, policy, now, watching_since)


def _judge_answer(observed_at: datetime, policy: Policy, now: datetime) -> Rule:
    fresh = _is_fresh(observed_at, policy.verification_max_age_seconds, policy, now)
    return Rule.VENDOR_SAYS_EMPTY if fresh else Rule.UNCONFIRMED


def _judge_hint(observed_at: datetime, policy: Policy, now: datetime, watching_since: datetime) -> Rule:
    if policy.verify is Verify.REQUIRED:
        return Rule.UNCONFIRMED
    if not _is_fresh(observed_at, policy.hint_max_age_seconds, policy, now):
        return Rule.STALE_HINT
    return Rule.HINT_BEFORE_GAP if observed_at < watching_since else Rule.HINT_SAYS_EMPTY


def _is_fresh(observed_at: datetime, max_age_seconds: float, policy: Policy, now: datetime) -> bool:
    """Whether evidence is neither too old nor from the future, as after a clock was set back.

    A small lead is allowed for, because two readings of one clock have different delays.
    """
    age = (now - observed_at).total_seconds()
    return -policy.verification_max_age_seconds <= age <= max_age_seconds


def _due(task: Task, observed_at: datetime, policy: Policy, now: datetime) -> datetime:
    """The stored due time, or a later one if the current policy or a hold says so; without a plan, a computed one."""
    if task.empty_since is None:
        return observed_at + _grace(task, policy)
    earliest = _earliest(task, task.empty_since, policy, now)
    return earliest if task.due_at is None else max(task.due_at, earliest)


def _earliest(task: Task, empty_since: datetime, policy: Policy, now: datetime) -> datetime:
    kind = KINDS[task.kind]
    rules = limits(kind, policy)
    margin = timedelta(seconds=rules.safety_margin_seconds)
    grace = _grace(task, policy)
    due = empty_since + grace
    if task.last_occupied_at is None:
        join_by = task.started_at + timedelta(seconds=rules.never_joined_grace_seconds)
        due = max(due, join_by)
        newer = task.started_at + timedelta(seconds=kind.newer_window_seconds or 0.0)
        if task.max_idle_seconds is None and empty_since < newer:
            # ZEGO counts from the start, even if we saw the room late, and its window may be the newer one.
            due = min(due, max(join_by, task.started_at + grace, newer - margin))
    auto_stop_at = _auto_stop(task, empty_since, policy, now)
    due = due if auto_stop_at is None else min(due, auto_stop_at - margin)
    due = max(due, empty_since + timedelta(seconds=policy.confirm_seconds))
    return due if task.hold_until is None else max(due, task.hold_until)


def _grace(task: Task, policy: Policy) -> timedelta:
    own = limits(KINDS[task.kind], policy).grace_seconds
    return timedelta(seconds=own if task.grace_seconds is None else task.grace_seconds)


def _auto_stop(task: Task, empty_since: datetime, policy: Policy, now: datetime) -> datetime | None:
    """When ZEGO ends the task by itself, at the latest; None: never.

    For a task never seen occupied ZEGO counts from the start, unless the task outlived its window: then people were in
    the room without our knowledge.
    """
    length = window(task, policy)
    if length is None:
        return None
    if task.last_occupied_at is None and now < task.started_at + length:
        return task.started_at + length
    return empty_since + length
