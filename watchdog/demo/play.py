"""The performance: makes the story happen, looks around five times a second, and shows what it sees.

The demo is the application here, and everybody in the rooms. It tells the database what a backend would, and nothing
to the daemon; the daemon reaches the sandbox over HTTP, like anybody.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

from watchdog.clock import Clock
from watchdog.core.model import Outcome
from watchdog.demo.application import Application
from watchdog.demo.screen import attempt_words
from watchdog.demo.snapshot import ENDED, Snapshot, look
from watchdog.demo.stage import DaemonEnded, DaemonProcess
from watchdog.demo.story import Beat, Fate, Hold, People, Recorder, Release, Start, Story, Trouble
from watchdog.sandbox import Join, Leave, Sandbox
from watchdog.sandbox import Start as StartTask
from watchdog.sandbox import Stop as StopTask
from watchdog.sandbox.world import ADMIN_ROLE

_TICK_SECONDS: Final = 0.2
_OVERTIME_SECONDS: Final = 15.0
_START_SECONDS: Final = 20.0

Show = Callable[[Snapshot], None]


@dataclass(slots=True)
class Play:
    """One performance of ``story``; ``task_ids`` has every room whose task was started."""

    story: Story
    sandbox: Sandbox
    application: Application
    daemon: DaemonProcess
    clock: Clock
    show: Show
    footing: str = ""
    task_ids: dict[str, str] = field(init=False, default_factory=dict)
    _people: Counter[str] = field(init=False, default_factory=Counter)
    _captions: list[tuple[float, str]] = field(init=False, default_factory=list)
    _told: set[int] = field(init=False, default_factory=set)
    _log_seen: int = field(init=False, default=0)

    async def perform(self) -> None:
        """Play to the end, and for a while longer if a task that is to be stopped still runs.

        Raises DaemonEnded as soon as there is no daemon.
        """
        await self._wait_for_the_daemon()
        beats = deque(sorted(self.story.beats, key=lambda beat: beat.at))
        began = self.clock.monotonic()
        while True:
            at = self.clock.monotonic() - began
            self.daemon.require()
            while beats and beats[0].at <= at:
                self._do(beats.popleft())
            snapshot = self._look(at)
            self.show(snapshot)
            if at >= self.story.seconds + (_OVERTIME_SECONDS if self._undecided(snapshot) else 0):
                return
            await self.clock.sleep(_TICK_SECONDS)

    async def _wait_for_the_daemon(self) -> None:
        patience = self.clock.monotonic() + _START_SECONDS
        while not self.application.watched():
            self.daemon.require()
            if self.clock.monotonic() > patience:
                raise DaemonEnded(f"the daemon has not begun to sweep within {_START_SECONDS:g} s")
            await self.clock.sleep(_TICK_SECONDS)

    def _undecided(self, snapshot: Snapshot) -> bool:
        return any(self.story.rooms[line.room] is Fate.STOPPED and line.state not in ENDED for line in snapshot.lines)

    def _do(self, beat: Beat) -> None:
        room = beat.room
        if beat.caption:
            self._captions.append((beat.at, f"{room}: {beat.caption}"))
        match beat.event:
            case Start():
                self.task_ids[room] = self.sandbox.perform(StartTask(room=room))["task_id"]
                self.application.started(self.task_ids[room], room)
            case People(count, said):
                self._move(room, count)
                if said:
                    self.application.occupancy(room, count)
            case Recorder():
                self.sandbox.perform(Join(room=room, user="recorder", role=ADMIN_ROLE))
            case Hold(seconds):
                self.application.hold(self.task_ids[room], seconds)
            case Release():
                self.sandbox.perform(StopTask(task_id=self.task_ids[room]))
                self.application.released(self.task_ids[room])
            case Trouble(how):
                self.sandbox.perform(how)
            case _:
                assert_never(beat.event)

    def _move(self, room: str, people: int) -> None:
        """Let people come or go until there are so many."""
        for number in range(self._people[room], people):
            self.sandbox.perform(Join(room=room, user=f"user{number + 1}"))
        for number in range(self._people[room], people, -1):
            self.sandbox.perform(Leave(room=room, user=f"user{number}"))
        self._people[room] = people

    def _look(self, at: float) -> Snapshot:
        # The ledger before the sandbox: what it lacks may have happened meanwhile, what it has did happen.
        attempts = self.application.attempts()
        for attempt in attempts:
            if attempt["id"] not in self._told and attempt["outcome"] != Outcome.SENT:
                self._told.add(attempt["id"])
                self._captions.append((at, attempt_words(attempt)))
        for event in self.sandbox.events(self._log_seen):
            self._log_seen = event["seq"]
            if event["event"] == "auto_stopped":
                self._captions.append((at, f"{event['room_id']}: empty for its whole window, it is ended by ZEGO"))
        tasks, now = self.application.tasks(), self.application.now()
        rows = {room: tasks[task_id] for room, task_id in self.task_ids.items()}
        lines = look(list(self.story.rooms), rows, attempts, self.sandbox.app.state(), now)
        return Snapshot(at, self.story.seconds, lines, tuple(self._captions), self.footing)
