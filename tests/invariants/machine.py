"""The machine: rules by which an application, people, the network and faults act on a Town."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

import hypothesis.strategies as st
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.invariants.database import Driver, Trouble, Violation
from tests.invariants.model import ANY, UNSERVED_APP, Process, Town
from tests.invariants.vendor import ASKS, IS_TOLD_OF_STOP, IS_TOLD_WHO, STOPS
from watchdog.sandbox.misbehaviour import Body, Drop, Misbehaviour
from watchdog.sandbox.vendor import Action
from watchdog.sandbox.world import ADMIN_ROLE

ROOMS: Final = ("red", "blue")
USERS: Final = {"ann": 1, "bob": 1, "bot-1": 1, "recorder": ADMIN_ROLE}
MOST_DAEMONS: Final = 3
MOST_TASKS: Final = 6

SLOW_PACES: Final = tuple(
    {
        "requests_per_second": 100.0,
        "occupancy_requests_per_second": calls,
        "request_timeout_seconds": timeout,
        "lease_seconds": lease,
    }
    for calls, timeout, lease in [(0.2, 4.0, 12.0), (0.5, 2.0, 5.0)]
)
"""``stop`` where a crowd waits for its verification longer than a lease lasts."""

CROWD: Final = 40

Point = tuple[str, int]

rooms = st.sampled_from(ROOMS)
users = st.sampled_from(sorted(USERS))
points = st.tuples(st.sampled_from([ANY, ASKS, IS_TOLD_WHO, STOPS, IS_TOLD_OF_STOP]), st.integers(0, 5))
"""Between which two steps: so many points after the next of that name."""

which = st.integers(0, MOST_DAEMONS - 1)
lengths = st.sampled_from([0.0, 0.003, 0.03, 0.5, 2.0, 9.0, 21.0, 46.0])
"""How much time passes: none, a call of the store, a round trip, a poll, a deadline, a lease, a grace."""

TROUBLES: Final = {
    "reply lost": Misbehaviour(drop_reply=Drop.AFTER),
    "request lost": Misbehaviour(drop_reply=Drop.BEFORE),
    "206": Misbehaviour(code=206),
    "207": Misbehaviour(code=207),
    "system error": Misbehaviour(code=410000001),
    "parameter invalid": Misbehaviour(code=410000003),
    "no such task": Misbehaviour(code=410001002),
    "signature wrong": Misbehaviour(code=100000005),
    "429": Misbehaviour(http_status=429),
    "502": Misbehaviour(http_status=502),
    "cut": Misbehaviour(body=Body.CUT),
    "html": Misbehaviour(body=Body.HTML),
    "slow request": Misbehaviour(latency_seconds=(3.0, 3.0)),
    "request after the deadline": Misbehaviour(latency_seconds=(12.0, 12.0)),
    "slow reply": Misbehaviour(reply_latency_seconds=(6.0, 6.0)),
    "reply after the deadline": Misbehaviour(reply_latency_seconds=(12.0, 12.0)),
}


SLOW: Final = ("429", "reply lost", "slow reply", "slow request", "system error")

ACTS: Final[dict[str, Callable[[Town, str], None]]] = {
    "release": lambda town, task_id: town.release(task_id, stopped=False),
    "stop and release": lambda town, task_id: town.release(task_id, stopped=True),
    "stop quietly": Town.stop_quietly,
    "delete": Town.delete,
    "hold for 3 s": lambda town, task_id: town.change(task_id, hold_until=town.ago(-3)),
    "hold for 60 s": lambda town, task_id: town.change(task_id, hold_until=town.ago(-60)),
    "hold no more": lambda town, task_id: town.change(task_id, hold_until=None),
    "no grace": lambda town, task_id: town.change(task_id, grace_seconds=0),
    "more grace": lambda town, task_id: town.change(task_id, grace_seconds=50),
    "less time": lambda town, task_id: town.change(task_id, max_idle_seconds=60),
}
acts = st.sampled_from(sorted(ACTS))


@dataclass(slots=True)
class Tally:
    """What has been played so far, over all examples."""

    examples: int = 0
    steps: int = 0
    daemons: int = 0
    faults: int = 0
    requests: int = 0
    stops: int = 0
    virtual_seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, town: Town, steps: int) -> None:
        self.examples += 1
        self.steps += steps
        self.daemons += len(town.processes)
        self.faults += town.faults + town.database.injected + town.vendor.troubled
        self.requests += town.vendor.requests
        self.stops += len(town.vendor.stops)
        self.virtual_seconds += town.timeline.now
        for row in town.database.record.attempts.values():
            self.outcomes[row["outcome"]] = self.outcomes.get(row["outcome"], 0) + 1

    def merge(self, other: "Tally") -> None:
        for one in fields(self):
            if one.name != "outcomes":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        for outcome, number in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + number


class Machine(RuleBasedStateMachine):
    """One example: a Town that has to settle at the end. Subclass it with a ``driver``."""

    driver: ClassVar[Driver]
    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self._town: Town | None = None
        self._most_tasks = MOST_TASKS
        self.failed = False
        self.steps = 0

    @property
    def town(self) -> Town:
        assert self._town is not None, "initialize comes first"
        return self._town

    @initialize(
        poll=st.sampled_from([0, 0, 0, 15]),
        callbacks=st.sampled_from([False, False, True]),
        daemons=st.sampled_from([1, 2, 2, 3]),
        stop=st.sampled_from([None, None, None, None, *SLOW_PACES]),
    )
    def begin(
        self,
        poll: int,
        callbacks: bool,  # noqa: FBT001 - drawn by name
        daemons: int,
        stop: dict[str, float] | None,
    ) -> None:
        self._town = Town(self.driver, occupancy_poll_seconds=poll, callbacks=callbacks, stop=stop)
        if stop is not None:
            self._most_tasks += CROWD
            self._town.abandon_crowd(CROWD)
        for _ in range(daemons - 1):
            self._town.start_daemon()
        self._abandon(ROOMS[0])

    def _has_room_for_tasks(self) -> bool:
        return len(self.town.database.record.tasks) < self._most_tasks

    def _abandon(self, room: str) -> None:
        self.town.start_task(room)
        self.town.join(room, "ann")
        self.town.hint(room, 1)
        self._empty(room)
        self.town.hint(room, 0)

    def _empty(self, room: str) -> None:
        for user in USERS:
            self.town.leave(room, user)

    # Time.

    @rule(then=lengths)
    def time_passes(self, then: float) -> None:
        self._play(lambda: None, then)

    # The application.

    @precondition(lambda self: self._has_room_for_tasks())
    @rule(
        then=lengths,
        room=rooms,
        max_idle=st.sampled_from([None, None, 30, 120, 300]),
        grace=st.sampled_from([None, None, 0, 60]),
        people=st.sampled_from([None, 0, 2]),
        app_id=st.sampled_from([None, None, None, None, UNSERVED_APP]),
    )
    def start_task(
        self, then: float, room: str, max_idle: int | None, grace: int | None, people: int | None, app_id: int | None
    ) -> None:
        columns = {"grace_seconds": grace, "user_count": people, "app_id": app_id}
        self._play(lambda: self.town.start_task(room, max_idle_seconds=max_idle, **columns), then)

    @precondition(lambda self: self._has_room_for_tasks())
    @rule(then=lengths, room=rooms, seconds=st.sampled_from([0.0, 40.0, 44.0, 46.0]))
    def a_room_is_abandoned(self, then: float, room: str, seconds: float) -> None:
        """The most common case as one rule, so that examples always have work."""

        def story() -> None:
            self._abandon(room)
            self.town.advance(seconds)

        self._play(story, then)

    @rule(
        then=lengths,
        room=rooms,
        people=st.sampled_from([None, 0, 0, 0, 1]),
        ago=st.sampled_from([None, None, None, -600, 0, 3, 60, 400]),
    )
    def hint(self, then: float, room: str, people: int | None, ago: int | None) -> None:
        self._play(lambda: self.town.hint(room, people, at=None if ago is None else self.town.ago(ago)), then)

    @rule(then=lengths, act=acts, task=st.integers(0, MOST_TASKS - 1))
    def application_acts(self, then: float, act: str, task: int) -> None:
        self._play(lambda: self._with_task(task, ACTS[act]), then)

    # People.

    @rule(then=lengths, room=rooms, user=users, leave=st.booleans())
    def come_or_go(self, then: float, room: str, user: str, leave: bool) -> None:  # noqa: FBT001 - drawn by name
        if leave:
            self._play(lambda: self._empty(room), then)
        else:
            self._play(lambda: self.town.join(room, user, role=USERS[user]), then)

    # Between any two steps.

    @rule(then=lengths, point=points, said=st.booleans())
    def people_return_at(self, then: float, point: Point, said: bool) -> None:  # noqa: FBT001 - drawn by name
        def back(process: Process) -> None:
            for room in ROOMS:
                process.town.join(room, "bob")
                if said:
                    process.town.hint(room, 1)

        self._arm(point, back, then)

    @rule(then=lengths, point=points, task=st.integers(0, MOST_TASKS - 1), act=acts)
    def application_acts_at(self, then: float, point: Point, task: int, act: str) -> None:
        self._arm(point, lambda _process: self._with_task(task, ACTS[act]), then)

    @rule(then=lengths, point=points)
    def crash_at(self, then: float, point: Point) -> None:
        self._arm(point, self.town.crash, then)

    @rule(then=lengths, point=points, seconds=st.sampled_from([13.0, 20.4, 23.0]))
    def freeze_at(self, then: float, point: Point, seconds: float) -> None:
        self._arm(point, lambda process: self.town.freeze(process, seconds), then)

    @rule(then=lengths, point=points, seconds=st.sampled_from([20.05, 20.4, 21.0, 23.0]), trouble=st.sampled_from(SLOW))
    def a_lease_is_lost(self, then: float, point: Point, seconds: float, trouble: str) -> None:
        """Freeze a daemon until another one has its task, while the vendor is slow."""

        def story() -> None:
            while len(self.town.running) < 2:
                self.town.start_daemon()
            self.town.advance(0.5)
            for room in ROOMS:
                self._abandon(room)
            self.town.advance(40.0)

        def lose(process: Process) -> None:
            self.town.freeze(process, seconds)
            self.town.vendor_misbehaves(TROUBLES[trouble], None, 2)

        if self._has_room_for_tasks():
            self._play(story)
            self._arm(point, lose, 9.0)
        self._play(lambda: self.town.advance(21.0), then)

    @rule(then=lengths, point=points, trouble=st.sampled_from(list(Trouble)), countdown=st.integers(1, 4))
    def database_fails_at(self, then: float, point: Point, trouble: Trouble, countdown: int) -> None:
        self._arm(point, lambda process: self.town.database.fail(trouble, countdown, process.instance), then)

    # Faults.

    @rule(then=lengths, daemon=which)
    def crash(self, then: float, daemon: int) -> None:
        self._play(lambda: self._with_daemon(daemon, self.town.crash), then)

    @rule(then=lengths, daemon=which, seconds=st.sampled_from([13.0, 25.0, 100.0]))
    def freeze(self, then: float, daemon: int, seconds: float) -> None:
        self._play(lambda: self._with_daemon(daemon, lambda process: self.town.freeze(process, seconds)), then)

    @rule(then=lengths, daemon=which, end=st.booleans())
    def start_or_end(self, then: float, daemon: int, end: bool) -> None:  # noqa: FBT001 - drawn by name
        if end:
            self._play(lambda: self._with_daemon(daemon, Process.end), then)
        elif len(self.town.running) < MOST_DAEMONS:
            self._play(self.town.start_daemon, then)

    @rule(then=lengths, trouble=st.sampled_from(sorted(TROUBLES)), requests=st.integers(1, 2))
    def vendor_misbehaves(self, then: float, trouble: str, requests: int) -> None:
        self._play(lambda: self.town.vendor_misbehaves(TROUBLES[trouble], None, requests), then)

    @rule(then=lengths, trouble=st.sampled_from(sorted(TROUBLES)), requests=st.integers(1, 2))
    def vendor_misbehaves_at_stops(self, then: float, trouble: str, requests: int) -> None:
        self._play(lambda: self.town.vendor_misbehaves(TROUBLES[trouble], Action.STOP, requests), then)

    @rule(
        then=lengths,
        seconds=st.sampled_from([5.0, 30.0, 90.0]),
        what=st.sampled_from(["database", "no route", "silence"]),
    )
    def something_is_away(self, then: float, seconds: float, what: str) -> None:
        if what == "database":
            self._play(lambda: self.town.database_is_away(seconds), then)
        else:
            self._play(lambda: self.town.vendor_is_away(seconds, silent=what == "silence"), then)

    @rule(then=lengths, daemon=which, seconds=st.sampled_from([-3600.0, -90.0, 90.0, 900.0, 378_000_000.0]))
    def clock_steps(self, then: float, daemon: int, seconds: float) -> None:
        """The host's, and, where that is no more than a minute and a half, or the database's own."""
        if abs(seconds) > 90.0:
            self._play(
                lambda: self._with_daemon(daemon, lambda process: self.town.step_host_clock(process, seconds)), then
            )
        else:
            self._play(lambda: self.town.step_database_clock(seconds), then)

    def teardown(self) -> None:
        if self._town is None:
            return
        try:
            if not self.failed:
                self._play(self.town.settle)
        finally:
            self.tally.add(self._town, self.steps)
            self._town.close()

    def _play(self, what: Any, then: float = 0.0) -> None:
        self.steps += 1
        try:
            what()
            self.town.advance(then)
        except Violation:
            self.failed = True
            note("\n".join(self.town.story))
            raise
        except BaseException:
            self.failed = True
            raise

    def _with_daemon(self, number: int, what: Any) -> None:
        if running := self.town.running:
            what(running[number % len(running)])

    def _with_task(self, number: int, what: Any) -> None:
        if tasks := list(self.town.database.record.tasks):
            what(self.town, tasks[number % len(tasks)])

    def _arm(self, point: Point, what: Any, then: float) -> None:
        """Do it to the first daemon that gets there."""
        waiting = [what]

        def once(process: Process) -> None:
            if waiting:
                waiting.pop()(process)

        def arm() -> None:
            for process in self.town.running:
                process.arm(*point, once)

        self._play(arm, then)
