"""The age limit: what becomes of a task that is older than ``max_age_seconds``, by its evidence and by the policy."""

from dataclasses import replace

import pytest

from tests.core.test_policy import EMPTY, HOLD, NEVER_JOINED, SEEN_BY_THE_APP, START, TASK, at
from watchdog.core.model import Evidence, OnMaxAge, Reason, Source, Status, Task, Verify
from watchdog.core.policy import Decision, Policy, Rule, Verdict, decide, is_too_old, plan

OLD = Policy(max_age_seconds=3600, on_max_age=OnMaxAge.STOP)
"""``TASK`` was started 3600 seconds before START, so it is too old from START on."""

REGARDLESS = replace(OLD, on_max_age=OnMaxAge.STOP_WITH_PEOPLE_INSIDE)
OCCUPIED = replace(TASK, user_count=2, user_count_at=at(1), empty_since=None)
UNKNOWN = replace(TASK, user_count=None, user_count_source=None, empty_since=None)
NOBODY = Evidence(0, at(1), Source.API)
PEOPLE = Evidence(3, at(1), Source.API)
STALE = Evidence(3, at(-5), Source.API)
NEW = replace(TASK, started_at=at(-3590))
STOP = Decision(Verdict.STOP, Rule.OLD_AND_EMPTY, reason=Reason.MAX_AGE)
BY_HINT = replace(STOP, rule=Rule.OLD_AND_EMPTY_BY_HINT)
WITH_PEOPLE = replace(STOP, rule=Rule.OLD_WITH_PEOPLE)
UNVERIFIED = replace(STOP, rule=Rule.OLD_UNVERIFIED)
SPARED = Decision(Verdict.KEEP, Rule.OLD_BUT_OCCUPIED, reason=Reason.MAX_AGE)
HELD = Decision(Verdict.WAIT, Rule.ON_HOLD, until=HOLD)


def unknown(rule: Rule, reason: Reason | None = Reason.MAX_AGE) -> Decision:
    return Decision(Verdict.UNKNOWN, rule, reason=reason)


def judge(task: Task, vendor: Evidence | None, policy: Policy, *, now: float = 1, manual: bool = False) -> Decision:
    return decide(task, vendor, policy, at(now), watching_since=START, manual=manual)


@pytest.mark.parametrize(
    ("task", "vendor", "verify", "stop", "regardless"),
    [
        # Nobody is there: no grace.
        (TASK, NOBODY, Verify.REQUIRED, STOP, STOP),
        (OCCUPIED, NOBODY, Verify.REQUIRED, STOP, STOP),
        (UNKNOWN, NOBODY, Verify.WHEN_POSSIBLE, STOP, STOP),
        (TASK, None, Verify.OFF, BY_HINT, BY_HINT),
        (TASK, None, Verify.WHEN_POSSIBLE, BY_HINT, BY_HINT),
        # There are people.
        (TASK, PEOPLE, Verify.REQUIRED, SPARED, WITH_PEOPLE),
        (OCCUPIED, PEOPLE, Verify.WHEN_POSSIBLE, SPARED, WITH_PEOPLE),
        (OCCUPIED, None, Verify.OFF, SPARED, UNVERIFIED),
        (OCCUPIED, None, Verify.WHEN_POSSIBLE, SPARED, UNVERIFIED),
        (OCCUPIED, None, Verify.REQUIRED, SPARED, unknown(Rule.OLD_UNANSWERED)),
        (TASK, STALE, Verify.REQUIRED, SPARED, unknown(Rule.OLD_UNANSWERED)),
        # It is not known.
        (UNKNOWN, None, Verify.OFF, unknown(Rule.NO_EVIDENCE), UNVERIFIED),
        (UNKNOWN, None, Verify.REQUIRED, unknown(Rule.NO_EVIDENCE), unknown(Rule.OLD_UNANSWERED)),
        (TASK, None, Verify.REQUIRED, unknown(Rule.UNCONFIRMED), unknown(Rule.OLD_UNANSWERED)),
        (TASK, replace(NOBODY, observed_at=at(-5)), Verify.OFF, unknown(Rule.UNCONFIRMED), UNVERIFIED),
        (SEEN_BY_THE_APP, NOBODY, Verify.REQUIRED, unknown(Rule.CONTRADICTED), WITH_PEOPLE),
        (
            OCCUPIED,
            Evidence(None, at(1), None),
            Verify.REQUIRED,
            unknown(Rule.NO_EVIDENCE),
            unknown(Rule.OLD_UNANSWERED),
        ),
        # A hold comes before the age.
        (replace(TASK, hold_until=HOLD), NOBODY, Verify.REQUIRED, HELD, HELD),
        (replace(OCCUPIED, hold_until=HOLD), PEOPLE, Verify.REQUIRED, SPARED, HELD),
        (replace(TASK, status=Status.RELEASED), NOBODY, Verify.REQUIRED, *(Decision(Verdict.KEEP, Rule.ENDED),) * 2),
    ],
)
def test_what_becomes_of_an_old_task(
    task: Task, vendor: Evidence | None, verify: Verify, stop: Decision, regardless: Decision
) -> None:
    assert judge(task, vendor, replace(OLD, verify=verify)) == stop
    assert judge(task, vendor, replace(REGARDLESS, verify=verify)) == regardless
    alert = replace(OLD, verify=verify, on_max_age=OnMaxAge.ALERT)
    assert judge(task, vendor, alert) == judge(task, vendor, Policy(verify=verify))


@pytest.mark.parametrize("policy", [OLD, REGARDLESS])
@pytest.mark.parametrize("vendor", [NOBODY, PEOPLE, None])
def test_a_task_within_the_limit_is_judged_as_ever(policy: Policy, vendor: Evidence | None) -> None:
    for task in (NEW, replace(OCCUPIED, started_at=NEW.started_at), replace(UNKNOWN, started_at=NEW.started_at)):
        assert judge(task, vendor, policy) == judge(task, vendor, Policy())


@pytest.mark.parametrize("policy", [OLD, REGARDLESS])
def test_an_operators_order_does_not_ask_for_the_age(policy: Policy) -> None:
    for task in (TASK, OCCUPIED, UNKNOWN):
        for vendor in (NOBODY, PEOPLE, None):
            assert judge(task, vendor, policy, manual=True) == judge(task, vendor, Policy(), manual=True)


@pytest.mark.parametrize("policy", [OLD, REGARDLESS])
def test_a_room_whose_grace_is_over_is_not_stopped_for_its_age(policy: Policy) -> None:
    assert judge(TASK, EMPTY, policy, now=45) == judge(TASK, EMPTY, Policy(), now=45)
    assert judge(TASK, EMPTY, policy, now=45).reason is Reason.EMPTY_ROOM


def test_the_limit_counts_from_the_start_of_the_task() -> None:
    assert [is_too_old(TASK, OLD, at(seconds)) for seconds in (-0.001, 0)] == [False, True]
    assert not is_too_old(TASK, Policy(), at(10**9))


@pytest.mark.parametrize(
    ("task", "policy", "due"),
    [
        (TASK, OLD, 5),
        (TASK, REGARDLESS, 5),
        (TASK, replace(OLD, on_max_age=OnMaxAge.ALERT), 45),
        # It becomes too old during its grace period, or after it.
        (NEW, OLD, 10),
        (replace(TASK, started_at=at(-3500)), OLD, 45),
        (replace(TASK, hold_until=HOLD), OLD, (HOLD - START).total_seconds()),
        (replace(NEVER_JOINED, started_at=at(-3600)), OLD, 5),
    ],
)
def test_an_empty_room_of_an_old_task_is_due_at_once(task: Task, policy: Policy, due: float) -> None:
    made = plan(task, policy, START)
    usual = plan(task, Policy(), START)
    assert made is not None
    assert usual is not None
    assert made.due_at == at(due)
    assert made.auto_stop_at == usual.auto_stop_at
