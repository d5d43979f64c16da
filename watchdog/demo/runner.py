"""Runs a scenario: performs its steps, takes a snapshot five times per second, and shows it.

The runner plays the application and all users. It writes to the database what a backend would write, and does not talk
to the daemon; the daemon calls the sandbox over HTTP.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

from watchdog.clock import Clock
from watchdog.core.model import Outcome
from watchdog.demo.application import Application
from watchdog.demo.environment import DaemonEnded, DaemonProcess
from watchdog.demo.scenario import AGENT_USER, Callbacks, Expected, Hold, People, Release, Scenario, Start, Step
from watchdog.demo.screen import attempt_words
from watchdog.demo.snapshot import ENDED, Line, Snapshot, look
from watchdog.sandbox import Join, Kind, Leave, Misbehaviour, Sandbox, SendCallbacks
from watchdog.sandbox import Start as StartTask
from watchdog.sandbox import Stop as StopTask

_TICK_SECONDS: Final = 0.2
_OVERTIME_SECONDS: Final = 15.0
_START_SECONDS: Final = 20.0
_CALLBACK_PATH: Final = "/callbacks/zego"

Show = Callable[[Snapshot], None]


@dataclass(slots=True)
class Runner:
    """One run of ``scenario``; ``task_ids`` has the tasks of each room, in the order in which they were started.

    The daemon takes callbacks on ``port``.
    """

    scenario: Scenario
    sandbox: Sandbox
    application: Application
    daemon: DaemonProcess
    clock: Clock
    show: Show
    port: int
    footing: str = ""
    task_ids: dict[str, list[str]] = field(init=False, default_factory=dict)
    _people: Counter[str] = field(init=False, default_factory=Counter)
    _captions: list[tuple[float, str]] = field(init=False, default_factory=list)
    _reported: set[int] = field(init=False, default_factory=set)
    _log_seen: int = field(init=False, default=0)

    async def perform(self) -> None:
        """Run all steps, then wait some time if a task that must be stopped still runs. Raises DaemonEnded."""
        await self._wait_for_the_daemon()
        steps = deque(sorted(self.scenario.steps, key=lambda step: step.at))
        began = self.clock.monotonic()
        while True:
            at = self.clock.monotonic() - began
            self.daemon.require()
            while steps and steps[0].at <= at:
                self._do(steps.popleft())
            self._start_again(at)
            snapshot = self._look(at)
            self.show(snapshot)
            must_wait = any(self._is_unfinished(line) for line in snapshot.lines)
            if at >= self.scenario.seconds + (_OVERTIME_SECONDS if must_wait else 0):
                return
            await self.clock.sleep(_TICK_SECONDS)

    def _is_unfinished(self, line: Line) -> bool:
        expected = self.scenario.rooms[line.room]
        if expected is Expected.RESTARTED:
            return len(self.task_ids.get(line.room, ())) < 2
        return expected is Expected.STOPPED and line.state not in ENDED

    async def _wait_for_the_daemon(self) -> None:
        deadline = self.clock.monotonic() + _START_SECONDS
        while not self.application.watched():
            self.daemon.require()
            if self.clock.monotonic() > deadline:
                raise DaemonEnded(f"the daemon did not start to sweep within {_START_SECONDS:g} s")
            await self.clock.sleep(_TICK_SECONDS)

    def _do(self, step: Step) -> None:
        room = step.room
        if step.caption:
            self._captions.append((step.at, f"{room}: {step.caption}"))
        match step.event:
            case Start(kind):
                self._start(room, kind)
            case People(count, reported):
                self._move(room, count)
                if reported:
                    self.application.occupancy(room, count)
            case Hold(seconds):
                self.application.hold(self.task_ids[room][-1], seconds)
            case Release():
                self.sandbox.perform(StopTask(task_id=self.task_ids[room][-1]))
                self.application.released(self.task_ids[room][-1])
            case Callbacks():
                self.sandbox.perform(SendCallbacks(url=f"http://127.0.0.1:{self.port}{_CALLBACK_PATH}"))
            case Join() | Misbehaviour():
                self.sandbox.perform(step.event)
            case _:
                assert_never(step.event)

    def _start(self, room: str, kind: Kind = Kind.ASR) -> None:
        if kind is Kind.AGENT:
            window = self.scenario.timing.max_idle_seconds
            agent = StartTask(room=room, kind=kind, user=AGENT_USER, max_idle_seconds=window)
            task_id = self.sandbox.perform(agent)["task_id"]
            self.application.agent_started(task_id, room, AGENT_USER)
        else:
            task_id = self.sandbox.perform(StartTask(room=room))["task_id"]
            self.application.started(task_id, room)
        self.task_ids.setdefault(room, []).append(task_id)

    def _start_again(self, at: float) -> None:
        """As the backend, start recognition again in the rooms to which people came back."""
        with self.application.returns() as rooms:
            for room in rooms:
                self._start(room)
                self.application.occupancy(room, self._people[room])
                self._captions.append((at, f"{room}: the backend reads room.rejoined, and starts a new task"))

    def _move(self, room: str, people: int) -> None:
        """Let people join or leave until ``people`` are in the room."""
        for number in range(self._people[room], people):
            self.sandbox.perform(Join(room=room, user=f"user{number + 1}"))
        for number in range(self._people[room], people, -1):
            self.sandbox.perform(Leave(room=room, user=f"user{number}"))
        self._people[room] = people

    def _look(self, at: float) -> Snapshot:
        # Read the ledger before the sandbox, so everything in the ledger has already happened there.
        attempts = self.application.attempts()
        for attempt in attempts:
            if attempt["id"] not in self._reported and attempt["outcome"] != Outcome.SENT:
                self._reported.add(attempt["id"])
                self._captions.append((at, attempt_words(attempt)))
        for event in self.sandbox.events(self._log_seen):
            self._log_seen = event["seq"]
            if event["event"] == "auto_stopped":
                self._captions.append((at, f"{event['room_id']}: empty for its MaxIdleTime, so ZEGO ends the task"))
        tasks, now = self.application.tasks(), self.application.now()
        rows = {room: tasks[task_ids[-1]] for room, task_ids in self.task_ids.items()}
        lines = look(list(self.scenario.rooms), rows, attempts, self.sandbox.state(), now)
        return Snapshot(at, self.scenario.seconds, lines, tuple(self._captions), self.footing)
