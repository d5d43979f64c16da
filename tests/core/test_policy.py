"""When a task is due (design §4), and whether it may be stopped (§5): tables, and properties for every case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from watchdog.core.kinds import KINDS
from watchdog.core.model import Evidence, Reason, Source, Status, Task, Verify
from watchdog.core.policy import (
    RULE_TEXT,
    Decision,
    Policy,
    Rule,
    Verdict,
    contradicts,
    decide,
    plan,
    reason,
)
from watchdog.core.timing import recheck_seconds

POLICY = Policy()
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a moment in seconds from START."""
    return START + timedelta(seconds=seconds)


def offset(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - START).total_seconds()


TASK = Task(
    task_id="task",
    room_id="room",
    app_id=None,
    kind="asr",
    max_idle_seconds=None,
    grace_seconds=None,
    hold_until=None,
    started_at=at(-3600),
    user_count=0,
    user_count_at=at(0),
    user_count_source=Source.APP,
    last_occupied_at=at(-1),
    empty_since=at(0),
    due_at=None,
    auto_stop_at=None,
    wake_at=None,
    claimed_by=None,
    attempts=0,
    status=Status.ACTIVE,
    ended_at=None,
    asked_at=at(-3600),
    vendor_occupied_at=at(-1),
)
"""A task of long ago, whose room people have left at START."""

NEVER_JOINED = replace(TASK, started_at=at(0), last_occupied_at=None)
"""A task whose room is empty from START on."""


class TestPlan:
    @pytest.mark.parametrize(
        ("window", "grace", "due", "auto_stop"),
        [
            (None, None, 45, 150),
            (None, 0, 5, 150),
            (None, 129, 129, 150),
            (None, 130, 130, 150),
            (None, 131, 130, 150),
            (120, None, 45, 120),
            (30, None, 10, 30),
            (30, 3, 5, 30),
            (1800, 1000, 1000, 1800),
            # Windows so small that nothing but the confirmation is left of them.
            (25, None, 5, 25),
            (20, None, 5, 20),
            (1, None, 5, 1),
        ],
    )
    def test_of_a_room_that_was_occupied(
        self, window: int | None, grace: int | None, due: float, auto_stop: float
    ) -> None:
        found = plan(replace(TASK, max_idle_seconds=window, grace_seconds=grace), POLICY, at(0))
        assert found is not None
        assert (offset(found.due_at), offset(found.auto_stop_at)) == (due, auto_stop)
        assert (found.task_id, found.empty_since) == ("task", at(0))

    @pytest.mark.parametrize(
        ("empty_since", "now", "window", "due", "auto_stop"),
        [
            # Empty from the start: people are waited for.
            (0, 0, None, 90, 150),
            (0, 0, 120, 90, 120),
            (0, 0, 100, 80, 100),
            (0, 0, 30, 10, 30),
            # The first hint came late.
            (50, 50, None, 95, 150),
            # Nothing says which of ZEGO's windows it is: early enough for 120 s from the start as well.
            (56, 56, None, 100, 150),
            (98, 98, None, 103, 150),
            (119, 119, None, 124, 150),
            (98, 98, 150, 130, 150),
            (120, 120, None, 130, 150),
            (128, 128, None, 133, 150),
            (149, 149, None, 154, 150),
            # Older than its window, the task must have been occupied without our seeing it.
            (150, 150, None, 195, 300),
            (3600, 3600, None, 3645, 3750),
            # Empty from the start, and planned only when the window was over.
            (0, 150, None, 155, 150),
            (0, 400, None, 405, 150),
            # Emptiness that claims to be older than the task.
            (-100, 0, None, 90, 150),
        ],
    )
    def test_of_a_room_never_seen_occupied(
        self, empty_since: float, now: float, window: int | None, due: float, auto_stop: float
    ) -> None:
        task = replace(NEVER_JOINED, empty_since=at(empty_since), max_idle_seconds=window)
        found = plan(task, POLICY, at(now))
        assert found is not None
        assert (offset(found.due_at), offset(found.auto_stop_at)) == (due, auto_stop)

    @pytest.mark.parametrize(("hold", "due"), [(-10, 45), (45, 45), (60, 60), (600, 600)])
    def test_is_never_before_a_hold(self, hold: float, due: float) -> None:
        found = plan(replace(TASK, hold_until=at(hold)), POLICY, at(0))
        assert found is not None
        assert (offset(found.due_at), offset(found.auto_stop_at)) == (due, 150)

    @pytest.mark.parametrize(("now", "due"), [(0, 45), (39, 45), (40, 45), (41, 46), (1000, 1005)])
    def test_made_late_leaves_time_to_see_for_oneself(self, now: float, due: float) -> None:
        found = plan(TASK, POLICY, at(now))
        assert found is not None
        assert offset(found.due_at) == due

    def test_there_is_none_for_a_room_that_is_not_known_to_be_empty(self) -> None:
        assert plan(replace(TASK, empty_since=None), POLICY, at(0)) is None

    def test_the_budget_of_the_shorter_window(self) -> None:
        """Notice 5 + grace 45 + attempt 8 = 58 s of 120; under 95 s when a daemon was lost on the way (design §4)."""
        notice, attempt, lease, poll = 5, 8, 20, 5
        found = plan(replace(TASK, max_idle_seconds=120), POLICY, at(notice))
        assert found is not None
        assert offset(found.due_at) == 45
        due = 45 + notice
        assert due + attempt == 58
        assert due + lease + poll + attempt < 95

    def test_the_longest_lengths_that_a_row_may_have_are_calculated_with(self) -> None:
        longest = 2**31 - 1
        task = replace(
            TASK, max_idle_seconds=longest, grace_seconds=longest, hold_until=datetime.max.replace(tzinfo=UTC)
        )
        found = plan(task, POLICY, at(0))
        assert found is not None
        assert found.due_at == task.hold_until


EMPTY = Evidence(0, at(45), Source.API)
"""The vendor's answer at the moment when TASK is due."""
HOLD = at(100)


class TestDecide:
    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACTIVE])
    def test_an_ended_task_is_kept_whatever_is_known(self, status: Status) -> None:
        assert judge(replace(TASK, status=status), EMPTY, 45) == Decision(Verdict.KEEP, Rule.ENDED)

    @pytest.mark.parametrize("verify", Verify)
    @pytest.mark.parametrize("manual", [True, False])
    @pytest.mark.parametrize(
        ("number", "observed_at"),
        [(None, at(45)), (0, None), (5, None), (None, None), (-1, at(45)), (-1000, at(45))],
    )
    def test_missing_or_malformed_evidence_is_unknown(
        self, verify: Verify, number: int | None, observed_at: datetime | None, *, manual: bool
    ) -> None:
        policy = replace(POLICY, verify=verify)
        unknown = Decision(Verdict.UNKNOWN, Rule.NO_EVIDENCE)
        vendor = Evidence(number, observed_at, Source.API)
        assert judge(TASK, vendor, 45, policy=policy, manual=manual) == unknown
        hinted = replace(TASK, user_count=number, user_count_at=observed_at)
        assert judge(hinted, None, 45, policy=policy, manual=manual) == unknown

    @pytest.mark.parametrize("verify", Verify)
    @pytest.mark.parametrize("manual", [True, False])
    @pytest.mark.parametrize("ahead", [5.001, 3600])
    def test_evidence_from_the_future_is_unknown(self, verify: Verify, ahead: float, *, manual: bool) -> None:
        """A clock set back by an hour would keep it fresh for as long."""
        policy = replace(POLICY, verify=verify)
        vendor = Evidence(0, at(45 + ahead), Source.API)
        assert judge(TASK, vendor, 45, policy=policy, manual=manual) == Decision(Verdict.UNKNOWN, Rule.UNCONFIRMED)
        hinted = replace(TASK, user_count_at=vendor.observed_at)
        rule = Rule.UNCONFIRMED if verify is Verify.REQUIRED else Rule.STALE_HINT
        assert judge(hinted, None, 45, policy=policy, manual=manual) == Decision(Verdict.UNKNOWN, rule)

    @pytest.mark.parametrize("ahead", [0, 1, 5])
    def test_two_readings_of_one_clock_may_differ_by_their_delays(self, ahead: float) -> None:
        assert judge(TASK, Evidence(0, at(45 + ahead), Source.API), 45).verdict is Verdict.STOP

    @pytest.mark.parametrize("vendor", [Evidence(1, at(45), Source.API), Evidence(1, at(-999), Source.API)])
    @pytest.mark.parametrize("manual", [True, False])
    def test_people_keep_a_task(self, vendor: Evidence, *, manual: bool) -> None:
        assert judge(TASK, vendor, 45, manual=manual) == Decision(Verdict.KEEP, Rule.OCCUPIED)
        hinted = replace(TASK, user_count=2, user_count_at=vendor.observed_at)
        assert judge(hinted, None, 45, manual=manual) == Decision(Verdict.KEEP, Rule.OCCUPIED)

    @pytest.mark.parametrize("manual", [True, False])
    def test_a_hold_is_waited_for(self, *, manual: bool) -> None:
        task = replace(TASK, hold_until=HOLD)
        assert judge(task, EMPTY, 45, manual=manual) == Decision(Verdict.WAIT, Rule.ON_HOLD, until=HOLD)
        assert judge(task, Evidence(0, HOLD, Source.API), 100, manual=manual).verdict is Verdict.STOP

    @pytest.mark.parametrize(
        ("task", "until"),
        [
            (TASK, 45),
            (replace(TASK, due_at=at(60)), 60),
            # Today's policy is stricter than the one the plan was made with, or the other way round.
            (replace(TASK, due_at=at(10)), 45),
            (replace(TASK, grace_seconds=30), 30),
            (NEVER_JOINED, 90),
            # Only the vendor reports it empty: the grace period starts there.
            (replace(TASK, empty_since=None, user_count=None), 44 + 45),
        ],
    )
    def test_before_its_time_a_task_is_waited_for(self, task: Task, until: float) -> None:
        vendor = Evidence(0, at(until - 1 if task.empty_since else 44), Source.API)
        assert judge(task, vendor, until - 0.001) == Decision(Verdict.WAIT, Rule.NOT_DUE, until=at(until))
        assert judge(
            task, replace(vendor, observed_at=at(until - 45 if not task.empty_since else until)), until
        ).verdict in {
            Verdict.STOP,
            Verdict.UNKNOWN,
        }

    @pytest.mark.parametrize("verify", [Verify.REQUIRED, Verify.WHEN_POSSIBLE])
    @pytest.mark.parametrize(("task", "reason"), [(TASK, Reason.EMPTY_ROOM), (NEVER_JOINED, Reason.NEVER_JOINED)])
    def test_the_vendor_confirms_it(self, verify: Verify, task: Task, reason: Reason) -> None:
        vendor = Evidence(0, at(90), Source.API)
        policy = replace(POLICY, verify=verify)
        stop = Decision(Verdict.STOP, Rule.VENDOR_SAYS_EMPTY, reason=reason)
        assert judge(task, vendor, 90, policy=policy) == judge(task, vendor, 95, policy=policy) == stop

    @pytest.mark.parametrize("verify", Verify)
    def test_an_answer_that_has_aged_confirms_nothing(self, verify: Verify) -> None:
        policy = replace(POLICY, verify=verify)
        assert judge(TASK, EMPTY, 50.001, policy=policy) == Decision(Verdict.UNKNOWN, Rule.UNCONFIRMED)

    def test_without_the_vendor_a_hint_is_not_enough_where_verification_is_required(self) -> None:
        assert judge(TASK, None, 45) == Decision(Verdict.UNKNOWN, Rule.UNCONFIRMED)

    @pytest.mark.parametrize("verify", [Verify.WHEN_POSSIBLE, Verify.OFF])
    @pytest.mark.parametrize(
        ("observed", "now", "watching_since", "decision"),
        [
            (45, 45, 0, Decision(Verdict.STOP, Rule.HINT_SAYS_EMPTY, reason=Reason.EMPTY_ROOM)),
            (0, 300, 0, Decision(Verdict.STOP, Rule.HINT_SAYS_EMPTY, reason=Reason.EMPTY_ROOM)),
            (0, 300.001, 0, Decision(Verdict.UNKNOWN, Rule.STALE_HINT)),
            (40, 45, 40.001, Decision(Verdict.UNKNOWN, Rule.HINT_BEFORE_GAP)),
            (40, 45, 40, Decision(Verdict.STOP, Rule.HINT_SAYS_EMPTY, reason=Reason.EMPTY_ROOM)),
        ],
    )
    def test_where_it_is_not_a_fresh_hint_will_do(
        self, verify: Verify, observed: float, now: float, watching_since: float, decision: Decision
    ) -> None:
        task = replace(TASK, user_count_at=at(observed))
        policy = replace(POLICY, verify=verify)
        assert decide(task, None, policy, at(now), watching_since=at(watching_since)) == decision

    def test_an_operators_order_waits_for_no_grace(self) -> None:
        vendor = Evidence(0, at(1), Source.API)
        expected = Decision(Verdict.STOP, Rule.VENDOR_SAYS_EMPTY, reason=Reason.MANUAL)
        for task in (TASK, NEVER_JOINED, replace(TASK, empty_since=None, user_count=None, user_count_at=None)):
            assert judge(task, vendor, 1, manual=True) == expected

    def test_every_rule_has_a_text(self) -> None:
        assert set(RULE_TEXT) == set(Rule)

    @pytest.mark.parametrize("manual", [True, False])
    @pytest.mark.parametrize("verify", Verify)
    def test_a_zero_that_contradicts_the_application_is_unknown(self, verify: Verify, *, manual: bool) -> None:
        policy = replace(POLICY, verify=verify)
        task = replace(SEEN_BY_THE_APP, due_at=at(45))
        unknown = Decision(Verdict.UNKNOWN, Rule.CONTRADICTED)
        assert judge(task, EMPTY, 45, policy=policy, manual=manual) == unknown
        assert judge(replace(task, hold_until=HOLD), EMPTY, 45, policy=policy, manual=manual) == unknown
        assert judge(task, None, 45, policy=policy, manual=manual) == Decision(Verdict.KEEP, Rule.OCCUPIED)

    @pytest.mark.parametrize("verify", [Verify.REQUIRED, Verify.WHEN_POSSIBLE])
    @pytest.mark.parametrize("task", [TASK, NEVER_JOINED])
    def test_a_room_with_only_bots_left_is_empty_and_says_so(self, verify: Verify, task: Task) -> None:
        policy = replace(POLICY, verify=verify)
        vendor = Evidence(0, at(90), Source.API, others=2)
        stop = Decision(Verdict.STOP, Rule.VENDOR_SAYS_EMPTY, reason=Reason.BOTS_ONLY)
        assert judge(task, vendor, 90, policy=policy) == stop
        assert judge(task, vendor, 90, policy=policy, manual=True) == replace(stop, reason=Reason.MANUAL)

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_where_zego_counts_bots_they_are_the_reason(self, kind: str) -> None:
        vendor = Evidence(0, at(90), Source.API, others=2)
        expected = Reason.BOTS_ONLY if kind in {"asr", "recording"} else Reason.EMPTY_ROOM
        assert judge(replace(TASK, kind=kind), vendor, 90).reason is expected

    def test_bots_do_not_keep_a_task(self) -> None:
        assert judge(TASK, Evidence(1, at(45), Source.API, others=3), 45) == Decision(Verdict.KEEP, Rule.OCCUPIED)


SEEN_BY_THE_APP = replace(TASK, user_count=2, empty_since=None, vendor_occupied_at=None)
"""A room in which the application sees two people, and the vendor has never seen anybody."""


class TestContradicts:
    def test_a_zero_where_the_application_sees_people_and_the_vendor_never_did(self) -> None:
        assert contradicts(SEEN_BY_THE_APP, EMPTY)

    @pytest.mark.parametrize(
        "columns",
        [
            {"vendor_occupied_at": at(-600)},
            {"user_count": 0},
            {"user_count": None},
            {"user_count_source": Source.API},
            {"user_count_source": Source.CALLBACK},
            {"user_count_source": None},
        ],
        ids=str,
    )
    def test_no_contradiction_if_the_vendor_saw_people_or_the_app_sees_none(self, columns: dict[str, Any]) -> None:
        assert not contradicts(replace(SEEN_BY_THE_APP, **columns), EMPTY)

    def test_the_source_is_what_the_database_says(self) -> None:
        assert contradicts(replace(SEEN_BY_THE_APP, user_count_source="app"), EMPTY)

    @pytest.mark.parametrize("observed", [(0, 1), (1, 0), (None, 0)])
    def test_not_where_the_vendor_knows_the_room_or_says_nothing(self, observed: tuple[int | None, int]) -> None:
        number, others = observed
        assert not contradicts(SEEN_BY_THE_APP, Evidence(number, at(45), Source.API, others))


@pytest.mark.parametrize(
    ("task", "vendor", "expected"),
    [
        (TASK, None, Reason.EMPTY_ROOM),
        (TASK, EMPTY, Reason.EMPTY_ROOM),
        (NEVER_JOINED, None, Reason.NEVER_JOINED),
        (NEVER_JOINED, EMPTY, Reason.NEVER_JOINED),
        (TASK, replace(EMPTY, others=1), Reason.BOTS_ONLY),
        (NEVER_JOINED, replace(EMPTY, others=1), Reason.BOTS_ONLY),
    ],
)
def test_reason(task: Task, vendor: Evidence | None, expected: Reason) -> None:
    assert reason(task, vendor) is expected


def judge(
    task: Task, vendor: Evidence | None, now: float, *, policy: Policy = POLICY, manual: bool = False
) -> Decision:
    """Decide at ``now``, with unbroken sweeps before."""
    return decide(task, vendor, policy, at(now), watching_since=at(-(10**6)), manual=manual)


@pytest.mark.parametrize(
    ("due", "auto_stop", "now", "seconds"),
    [
        (None, None, 0, 2),
        (0, 100, 0, 2),
        (0, 100, 4, 2),
        (0, 100, 10, 5),
        (0, 100, 20, 10),
        (0, 100, 99, 10),
        (0, 100, 100, 50),
        (0, 100, 1000, 60),
        (0, None, 1000, 10),
        (50, 100, 0, 2),
    ],
)
def test_recheck(due: float | None, auto_stop: float | None, now: float, seconds: float) -> None:
    task = replace(
        TASK,
        due_at=None if due is None else at(due),
        auto_stop_at=None if auto_stop is None else at(auto_stop),
    )
    assert recheck_seconds(task, at(now)) == seconds


# --- what holds in every case ---

# Few of them, so that the rare coincidences are common.
moments = st.sampled_from([-600, -151, -45, -5, -1, 0, 1, 5, 25, 45, 90, 150, 600]).map(at)
lengths = st.sampled_from([0, 3, 45, 90, 600])
policies = st.builds(
    Policy,
    verify=st.sampled_from(Verify),
    max_idle_seconds=st.integers(30, 1800),
    grace_seconds=lengths,
    never_joined_grace_seconds=lengths,
    safety_margin_seconds=st.integers(0, 200),
    confirm_seconds=st.integers(0, 60),
    hint_max_age_seconds=lengths,
    verification_max_age_seconds=st.integers(1, 5),
)
numbers = st.sampled_from([0, 0, 0, 0, -1, 2, None])
evidences = st.builds(Evidence, numbers, st.none() | moments, st.just(Source.API), st.sampled_from([0, 0, 1]))
tasks = st.builds(
    lambda **columns: replace(TASK, **columns),
    max_idle_seconds=st.none() | st.sampled_from([1, 20, 30, 120, 1800]),
    grace_seconds=st.none() | lengths,
    hold_until=st.none() | moments,
    started_at=moments,
    user_count=numbers,
    user_count_at=st.none() | moments,
    last_occupied_at=st.none() | moments,
    empty_since=st.none() | moments,
    due_at=st.none() | moments,
    vendor_occupied_at=st.none() | moments,
    status=st.sampled_from([*[Status.ACTIVE] * 5, *Status]),
)


@given(task=tasks, vendor=st.none() | evidences, policy=policies, now=moments, since=moments, manual=st.booleans())
def test_nothing_is_stopped_but_on_fresh_evidence_of_an_empty_room(
    task: Task, vendor: Evidence | None, policy: Policy, now: datetime, since: datetime, *, manual: bool
) -> None:
    decision = decide(task, vendor, policy, now, watching_since=since, manual=manual)
    assert (decision.until is not None) == (decision.verdict is Verdict.WAIT)
    assert (decision.reason is not None) == (decision.verdict is Verdict.STOP)
    if decision.until is not None:
        assert decision.until > now
    if decision.verdict is not Verdict.STOP:
        return
    evidence = vendor or task.evidence
    assert task.status is Status.ACTIVE
    assert evidence.user_count == 0
    assert evidence.observed_at is not None
    age = (now - evidence.observed_at).total_seconds()
    assert age >= -policy.verification_max_age_seconds
    if vendor is None:
        assert policy.verify is not Verify.REQUIRED
        assert age <= policy.hint_max_age_seconds
        assert evidence.observed_at >= since
    else:
        assert age <= policy.verification_max_age_seconds
        assert not contradicts(task, vendor)
        assert manual or (decision.reason is Reason.BOTS_ONLY) == (vendor.others > 0)
    assert task.hold_until is None or now >= task.hold_until
    if not manual:
        assert task.due_at is None or task.empty_since is None or now >= task.due_at
        assert task.empty_since is None or (now - task.empty_since).total_seconds() >= policy.confirm_seconds


@given(task=tasks, policy=policies, now=moments)
def test_a_plan_keeps_to_its_bounds(task: Task, policy: Policy, now: datetime) -> None:
    found = plan(task, policy, now)
    assert (found is None) == (task.empty_since is None)
    if found is None:
        return
    assert found.auto_stop_at is not None, "ASR ends by itself"
    confirm = timedelta(seconds=policy.confirm_seconds)
    margin = timedelta(seconds=policy.safety_margin_seconds)
    seen = max(now, found.empty_since) + confirm
    assert found.due_at >= seen
    assert task.hold_until is None or found.due_at >= task.hold_until
    if task.hold_until is None or task.hold_until <= found.auto_stop_at - margin:
        assert found.due_at <= max(found.auto_stop_at - margin, seen), "in time, wherever that is possible"
    grace = policy.grace_seconds if task.grace_seconds is None else task.grace_seconds
    patient = found.empty_since + timedelta(seconds=grace)
    sooner = found.auto_stop_at - margin
    if task.last_occupied_at is None and task.max_idle_seconds is None:
        sooner = min(sooner, task.started_at + timedelta(seconds=120) - margin)
    assert found.due_at >= min(patient, sooner), "no sooner than it must be"


@given(task=tasks, policy=policies, now=moments, emptied=moments, occupied=moments)
def test_a_plan_is_stopped_when_it_is_due(
    task: Task, policy: Policy, now: datetime, emptied: datetime, occupied: datetime
) -> None:
    """The decision keeps the plan's promise: it neither comes early nor puts the matter off."""
    # A task never seen occupied may outlive its window in between, and that is another matter.
    task = replace(task, status=Status.ACTIVE, empty_since=emptied, last_occupied_at=occupied)
    found = plan(task, policy, now)
    assert found is not None
    planned = replace(task, due_at=found.due_at, auto_stop_at=found.auto_stop_at)
    vendor = Evidence(0, found.due_at, Source.API)
    assume(not contradicts(planned, vendor))
    decision = decide(planned, vendor, policy, found.due_at, watching_since=found.due_at)
    assert decision == Decision(Verdict.STOP, Rule.VENDOR_SAYS_EMPTY, reason=Reason.EMPTY_ROOM)
    early = found.due_at - timedelta(milliseconds=1)
    assert (
        decide(planned, replace(vendor, observed_at=early), policy, early, watching_since=early).verdict is Verdict.WAIT
    )


def test_a_policy_with_kinds_can_be_a_key() -> None:
    policy = Policy(kinds={"agent": {"grace_seconds": 30.0}})
    assert {policy: 1}[replace(policy)] == 1
    assert policy != Policy()
