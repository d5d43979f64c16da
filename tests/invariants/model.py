"""A town of real daemons in virtual time, on one real database, with a vendor that keeps its own record.

A test, or the machine, acts on ``Town``: the application's statements, people, time and faults. The daemons run in
``advance``, which raises any broken invariant.

A daemon passes *points*: before and after each call of the store, when a request leaves and when a reply arrives.
``Process.arm`` makes something happen at a point, such as a crash between two statements.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import httpx2 as httpx

from simulation import liveness
from simulation.jobs import Jobs, silent_logs
from simulation.virtual import START, VirtualClock
from tests.invariants.database import ACTIVE, SENT, Database, Driver, Row, Violation, moment
from tests.invariants.timeline import ProcessLoop, Timeline
from tests.invariants.vendor import APP_ID, BOTS, SECRET, ModelVendor
from watchdog.config.settings import Config
from watchdog.errors import DatabaseError
from watchdog.sandbox.misbehaviour import CallbackBehaviour, Misbehaviour
from watchdog.sandbox.outbox import Delivery, Outbox
from watchdog.sandbox.vendor import Action
from watchdog.sandbox.world import Event
from watchdog.wiring.parts import Parts

P = ParamSpec("P")
T = TypeVar("T")

WINDOW_SECONDS: Final = 150
"""The vendor's MaxIdleTime where a task states none, and what the daemons take it for."""

CALM_SECONDS: Final = 75.0
"""I3 is checked if nothing but one crash has happened for so long before the auto-stop."""

NOTICED_SECONDS: Final = 30.0
"""… and if the table said this soon that the room was empty."""

ANY: Final = "any"
BEFORE_CALL, AFTER_CALL = "before a call of the store", "after a call of the store"
UNSERVED_APP: Final = 99
_CALL_SECONDS: Final = 0.002
_SETTLE_SECONDS: Final = 1200.0
_SETTLE_STEP_SECONDS: Final = 10.0
_RECOVERED_SECONDS: Final = 60.0
"""After the last fault a lease may have to end, and an AppId may still be blocked."""

_SHUTDOWN_SECONDS: Final = 10.0


class StoreThread(ThreadPoolExecutor):
    """A process's calls of the store: one at a time, each takes a moment, none after its death."""

    def __init__(self, process: "Process") -> None:
        super().__init__(1)
        self._process = process

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        process, future = self._process, Future[T]()

        def run() -> None:
            if not process.is_alive:
                return
            try:
                result = process.town.database.call(process.instance, lambda: fn(*args, **kwargs))
            except Violation as violation:
                process.town.violated(violation)
            except BaseException as error:  # noqa: BLE001 - as a thread hands it on
                give = partial(future.set_exception, error)
                process.loop.call_later(_CALL_SECONDS, deliver, give)
            else:
                process.loop.call_later(_CALL_SECONDS, deliver, partial(future.set_result, result))

        def deliver(give: Callable[[], None]) -> None:
            process.reached(AFTER_CALL)
            if process.is_alive:
                give()

        process.reached(BEFORE_CALL)
        process.loop.call_later(_CALL_SECONDS, run)
        return future


class Process:
    """One daemon: its parts and jobs on an event loop of its own."""

    def __init__(self, town: "Town", number: int) -> None:
        self.town = town
        self.number = number
        self.loop = ProcessLoop(town.timeline)
        self.loop.set_exception_handler(self._complain)
        self.clock = VirtualClock(lambda: town.timeline.now)
        self.is_alive = True
        self.frozen_until = -1.0
        self.disturbed_at = -1.0
        self.born_at = town.timeline.now
        self.points = 0
        self._waiting: list[tuple[str, int, Callable[[Process], None]]] = []
        self._armed: dict[int, Callable[[Process], None]] = {}
        self._ending = False
        self._progress = asyncio.Event()
        self.parts = Parts(
            town.config,
            self.clock,
            town.database.engine,
            town.database.now,
            on_progress=self._progress.set,
            transport=httpx.MockTransport(lambda request: town.vendor.handle(self, request)),
        )
        self.instance = self.parts.daemon.instance
        # Threads would run in real time.
        self.parts.storage.threads._threads.shutdown()
        self.parts.storage.threads._threads = StoreThread(self)
        self._jobs: list[asyncio.Task[None]] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._spawn(self._run)

    @property
    def is_running(self) -> bool:
        return self.is_alive and self.frozen_until <= self.town.timeline.now

    @property
    def is_ending(self) -> bool:
        """Whether it has been told to end."""
        return self._ending

    def arm(self, after: str, points: int, what: "Callable[[Process], None]") -> None:
        """Do ``what`` so many points after the next point called ``after``; 0 is that point itself."""
        self._waiting.append((after, points, what))

    def disarm(self) -> None:
        self._armed.clear()
        self._waiting.clear()

    def reached(self, point: str) -> None:
        """Pass a point and do what was armed for it."""
        self.points += 1
        for waiting in [waiting for waiting in self._waiting if waiting[0] in {ANY, point}]:
            self._waiting.remove(waiting)
            self._armed.setdefault(self.points + waiting[1], waiting[2])
        if self.is_alive and (what := self._armed.pop(self.points, None)) is not None:
            self.town.tell(f"daemon {self.number}, {point}:")
            what(self)

    def crash(self) -> None:
        """End at once: none of its code runs again."""
        self.is_alive = False
        self.disturbed_at = self.town.timeline.now

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self.town.timeline.now + seconds)
        self.disturbed_at = self.frozen_until
        self.town.timeline.at(self.frozen_until, lambda: None)

    def thaw(self) -> None:
        self.frozen_until = min(self.frozen_until, self.town.timeline.now)

    def end(self) -> None:
        """Ask it to shut down, as SIGTERM does."""
        if not self._ending:
            self._ending = True
            self._spawn(self._end)

    def deliver(self, delivery: Delivery, outbox: Outbox) -> None:
        """Deliver a callback to it."""

        async def receive() -> None:
            answer = await self.parts.callbacks.receive(delivery.letter.content_type, delivery.letter.body)
            outbox.settle(delivery, answer.http_status, self.town.vendor.now)

        task = self.loop.create_task(receive())
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    def bury(self) -> None:
        """Discard what is left of it; nothing it still does has an effect."""
        self.is_alive = False
        for _ in range(5):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        # Only loop callbacks that fail; a task's unread error concerns the task's owner.
        if "handle" in context and self.is_alive:
            error = context.get("exception")
            self.town.violated(Violation(f"daemon {self.number}: {context['message']}: {error!r}"), error)

    def _spawn(self, what: Callable[[], Awaitable[None]]) -> None:
        async def watched() -> None:
            try:
                await what()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, a daemon would have died of it
                if self.is_alive:
                    self.town.violated(Violation(f"daemon {self.number} has died of {error!r}"), error)

        self._jobs.append(self.loop.create_task(watched()))

    async def _run(self) -> None:
        # At the daemon's own rate, polling would dominate an example.
        jobs = Jobs(self.parts, self.town.config, self.clock, self._progress, ticks=3)
        try:
            found = await jobs.begin()
        except DatabaseError:
            # The program ends and the service manager starts another, under a new name: this one may be registered.
            self.is_alive = False
            self.town.restart_daemon(self)
            return
        for job in found:
            self._spawn(lambda job=job: self._forever(job))  # type: ignore[misc] # bound at once

    async def _forever(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except DatabaseError:
                await self.clock.sleep(self.town.config.schedule.poll_seconds)

    async def _end(self) -> None:
        for job in self._jobs[:-1]:
            job.cancel()
        if self.parts.poller is not None:
            await self.parts.poller.close()
        self.parts.stopper.close()
        await self.parts.stopper.drain(_SHUTDOWN_SECONDS)
        with suppress(DatabaseError):
            await self.parts.storage.heartbeats.depart(self.instance)
        self.is_alive = False


class Town:
    """One example: the daemons, the database, the vendor and the application."""

    def __init__(
        self,
        driver: Driver,
        *,
        occupancy_poll_seconds: float = 0,
        callbacks: bool = False,
        stop: Mapping[str, float] | None = None,
    ) -> None:
        """``stop`` is that section of the configuration."""
        self.timeline = Timeline()
        self.database = Database(driver, self.timeline)
        self.config = _config(occupancy_poll_seconds, stop or {})
        self.vendor = ModelVendor(self.timeline, self.database, self.config.stop, self.violated)
        self.processes: list[Process] = []
        self.story: list[str] = []
        self.faults = 0
        self._violations: list[tuple[Violation, BaseException | None]] = []
        self._log_read = 0
        self._disturbed_until = 0.0
        self._troubled = 0
        self._crashes: list[float] = []
        self._changed_at: dict[str, float] = {}
        self._outbox: Outbox | None = None
        if callbacks:
            self._outbox = Outbox(self.vendor.world, seed=1, secrets={APP_ID: SECRET})
            self._outbox.behaviour = CallbackBehaviour(
                lose=0.1, duplicate=0.1, reorder=0.2, delay_seconds=(0.05, 1.0), reorder_seconds=(1.0, 10.0)
            )
        with silent_logs():
            self.start_daemon()

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass and run everything. Raises Violation."""
        end = self.timeline.now + seconds
        with silent_logs():
            while True:
                self._settle_all()
                at = min((at for at in self._next_times() if at is not None), default=math.inf)
                if at > end:
                    break
                self.timeline.now = max(at, self.timeline.now)
                self.timeline.happen()
            self.timeline.now = end
            self._settle_all()

    def _next_times(self) -> Iterator[float | None]:
        yield self.timeline.next_at
        for process in self.processes:
            if process.is_running:
                yield process.loop.next_at
        if self._outbox is not None and (at := self._outbox.next_at()) is not None:
            yield max(self.timeline.now + 0.05, at - START.timestamp())
        if (at := self.vendor.world.next_deadline) is not None:
            # Slightly later: two ways to compute the same moment differ in the last digit.
            yield max(self.timeline.now + 1e-3, at - START.timestamp())

    def _settle_all(self) -> None:
        self.vendor.world.advance(self.vendor.now)
        self._deliver()
        for process in self.processes:
            process.loop.settle(lambda process=process: process.is_running)  # type: ignore[misc] # bound at once
        self._judge_auto_stops()
        if self._violations:
            violation, cause = self._violations[0]
            raise violation from cause

    def _deliver(self) -> None:
        if self._outbox is None:
            return
        for delivery in self._outbox.due(self.vendor.now):
            hearer = next((process for process in self.processes if process.is_running), None)
            if hearer is None:
                self._outbox.settle(delivery, None, self.vendor.now)
            else:
                hearer.deliver(delivery, self._outbox)

    def violated(self, violation: Violation, cause: BaseException | None = None) -> None:
        self._violations.append((violation, cause))
        self.tell(str(violation))

    def tell(self, what: str) -> None:
        """Add to the story, which is shown when an example fails."""
        self.story.append(f"{self.timeline.now:10.3f} {what}")

    # Daemons.

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    def start_daemon(self) -> Process:
        process = Process(self, len(self.processes))
        self.processes.append(process)
        self.tell(f"daemon {process.number} starts, {process.instance}")
        return process

    def restart_daemon(self, ended: Process) -> None:
        """Start another daemon a second later, as the service manager does after an error."""

        def restart() -> None:
            self.start_daemon()

        self.tell(f"daemon {ended.number} cannot start")
        self.timeline.at(self.timeline.now + 1.0, restart)

    def crash(self, process: Process) -> None:
        self.tell(f"daemon {process.number} crashes")
        self.faults += 1
        self._crashes.append(self.timeline.now)
        process.crash()

    def freeze(self, process: Process, seconds: float) -> None:
        self.tell(f"daemon {process.number} is frozen for {seconds:g} s")
        self._disturb(seconds)
        process.freeze(seconds)

    def _disturb(self, seconds: float) -> None:
        self.faults += 1
        self._disturbed_until = max(self._disturbed_until, self.timeline.now + seconds)

    # The database, the network, the clocks.

    def database_is_away(self, seconds: float) -> None:
        self._disturb(seconds)
        self.database.away_until = self.timeline.now + seconds

    def vendor_is_away(self, seconds: float, *, silent: bool) -> None:
        self._disturb(seconds)
        self.vendor.outage_until = self.timeline.now + seconds
        self.vendor.outage_is_silent = silent

    def vendor_misbehaves(self, how: Misbehaviour, action: Action | None, requests: int) -> None:
        """Make the vendor treat its next requests like that, for one action or for any."""
        self.vendor.troubles.add(replace(how, action=action, requests=requests))

    def step_host_clock(self, process: Process, seconds: float) -> None:
        self._disturb(0.0)
        process.clock.host_is_off_by += seconds

    def step_database_clock(self, seconds: float) -> None:
        """Set the database host's clock; the age of all stored times changes with it."""
        self._disturb(WINDOW_SECONDS + abs(seconds))
        self.database.driver.offset_seconds += seconds

    # People and the application.

    def join(self, room: str, user: str, *, role: int = 1) -> None:
        self.vendor.world.join(APP_ID, room, user, self.vendor.now, role)

    def leave(self, room: str, user: str) -> None:
        self.vendor.world.leave(APP_ID, room, user, self.vendor.now)

    def start_task(self, room: str, *, max_idle_seconds: int | None = None, **columns: Any) -> str:
        """Start a task at the vendor and insert it."""
        task_id = self.vendor.world.start(APP_ID, room, self.vendor.now, max_idle_seconds=max_idle_seconds)
        assert task_id is not None, "there is no quota here"
        columns = {"task_id": task_id, "room_id": room, "max_idle_seconds": max_idle_seconds, **columns}
        marks = ", ".join("?" * len(columns))
        self.database.execute(f"INSERT INTO zego_tasks ({', '.join(columns)}) VALUES ({marks})", *columns.values())
        self._changed_at[task_id] = self.timeline.now
        return task_id

    def abandon_crowd(self, tasks: int) -> None:
        """Start so many tasks, each in a room of its own; then all rooms empty at once."""
        rooms = [f"crowd-{number:02}" for number in range(tasks)]
        for room in rooms:
            self.join(room, "ann")
            self.start_task(room, user_count=1)
        for room in rooms:
            self.leave(room, "ann")
        self.database.execute("UPDATE zego_tasks SET user_count = 0 WHERE room_id LIKE ?", "crowd-%")

    def hint(self, room: str, people: int | None, *, at: datetime | str | None = None) -> None:
        """Write the application's hint for a room; ``at``, if given, is its ``user_count_at``."""
        where = "WHERE room_id = ? AND status = 'active'"
        if at is None:
            self.database.execute(f"UPDATE zego_tasks SET user_count = ? {where}", people, room)
        else:
            self.database.execute(f"UPDATE zego_tasks SET user_count = ?, user_count_at = ? {where}", people, at, room)

    def release(self, task_id: str, *, stopped: bool) -> None:
        """Release a task, stopped by the application or not."""
        if stopped:
            self.vendor.world.stop(APP_ID, task_id, self.vendor.now, request_id=None)
        self.database.execute("UPDATE zego_tasks SET status = 'released' WHERE task_id = ?", task_id)

    def stop_quietly(self, task_id: str) -> None:
        """Stop a task at the vendor as the application, without writing it to the table."""
        self.vendor.world.stop(APP_ID, task_id, self.vendor.now, request_id=None)

    def delete(self, task_id: str) -> None:
        self.database.execute("DELETE FROM zego_tasks WHERE task_id = ?", task_id)

    def change(self, task_id: str, **columns: Any) -> None:
        """Write other columns of a task: a hold, a limit."""
        self._changed_at[task_id] = self.timeline.now
        setting = ", ".join(f"{name} = ?" for name in columns)
        self.database.execute(f"UPDATE zego_tasks SET {setting} WHERE task_id = ?", *columns.values(), task_id)

    def ago(self, seconds: float) -> datetime:
        """A moment by the database's clock."""
        return self.database.now - timedelta(seconds=seconds)

    # Judgement.

    def _judge_auto_stops(self) -> None:
        troubled = self.vendor.troubled + self.database.injected
        if troubled > self._troubled:
            self._troubled = troubled
            self._disturbed_until = max(self._disturbed_until, self.timeline.now)
        entries = self.vendor.world.log.since(self._log_read)
        self._log_read += len(entries)
        for entry in entries:
            if entry["event"] == "auto_stopped" and self._should_have_been_stopped(entry):
                row = self.database.record.tasks[entry["task_id"]]
                self.violated(Violation(f"I3: the vendor came first: {dict(entry)}, {dict(row)}"))

    def _should_have_been_stopped(self, entry: Event) -> bool:
        now = self.timeline.now
        row = self.database.record.tasks.get(entry["task_id"])
        if row is None or row["status"] != ACTIVE or row["user_count"] != 0 or row["app_id"] == UNSERVED_APP:
            return False
        window = entry["max_idle_seconds"]
        empty_since = moment(row["empty_since"])
        calm_since = now - max(CALM_SECONDS, window - NOTICED_SECONDS)
        crashes = sum(at > calm_since for at in self._crashes)
        return (
            self._disturbed_until < calm_since
            and not self.database.faults
            and crashes <= (1 if window >= WINDOW_SECONDS else 0)
            # At least one was there all the time.
            and any(process.is_running and process.born_at < calm_since for process in self.processes)
            and self._changed_at.get(entry["task_id"], 0.0) <= max(0.0, now - window)
            and empty_since is not None
            and empty_since <= self.ago(window - NOTICED_SECONDS)
            and (row["grace_seconds"] is None or row["grace_seconds"] <= self.config.policy.grace_seconds)
            and ((held := moment(row["hold_until"])) is None or held <= self.ago(window - NOTICED_SECONDS))
        )

    def settle(self) -> None:
        """End all faults and check that every task settles. Raises Violation."""
        self.tell("no more faults")
        self.vendor.troubles.clear()
        self.vendor.outage_until = self.database.away_until = 0.0
        self.database.faults.clear()
        # After a clock that was ahead is corrected, nothing is due until the present has caught up.
        ahead = abs(self.database.driver.offset_seconds)
        patience = _SETTLE_SECONDS + ahead
        lively_since = self.vendor.now + ahead + _RECOVERED_SECONDS
        self.database.driver.offset_seconds = 0.0
        for process in self.running:
            process.thaw()
            process.disarm()
        if all(process.is_ending for process in self.running):
            # Daemons that are shutting down still run for a moment; then none would be left.
            with silent_logs():
                self.start_daemon()
        until = self.timeline.now + patience
        self.advance(_SETTLE_STEP_SECONDS)
        while (left := self._unsettled()) and self.timeline.now < until:
            self.advance(_SETTLE_STEP_SECONDS)
        # A backend may release tasks that ended long ago: that changes nothing (I5).
        for task_id, row in list(self.database.record.tasks.items()):
            if row["status"] != ACTIVE:
                self.release(task_id, stopped=False)
        self.vendor.check_ledger(self.database.record.attempts)
        self._check_credit()
        self._check_liveness(lively_since)
        if left:
            self.violated(Violation(f"not settled after {patience:g} s: {left}"))
        self._settle_all()

    def _unsettled(self) -> list[Row]:
        record = self.database.record
        flying = [dict(row) for row in record.attempts.values() if row["outcome"] == SENT]
        return flying + [dict(row) for row in record.tasks.values() if not self._is_accounted_for(row)]

    def _is_accounted_for(self, row: Row) -> bool:
        """Whether a task has ended, or has a known reason not to."""
        if row["status"] != ACTIVE:
            return True
        if row["app_id"] == UNSERVED_APP:
            attempts = [one for one in self.database.record.attempts.values() if one["task_id"] == row["task_id"]]
            return row["user_count"] != 0 or any(one["detail"] == "app_not_configured" for one in attempts)
        held = moment(row["hold_until"])
        if held is not None and held > self.database.now:
            return True
        people = self.vendor.people(row["room_id"])
        is_polled = self.config.schedule.occupancy_poll_seconds > 0
        if row["user_count"] is None:
            return not is_polled
        if row["user_count"] > 0:
            # If the vendor has never seen a person in a room, the application's count stays.
            is_contradicted = row["vendor_occupied_at"] is None and row["user_count_source"] == "app" and not people
            return people > 0 or is_contradicted or not is_polled
        return False

    def _check_credit(self) -> None:
        """Check that a task ended by our request is not recorded as ended by another cause."""
        for stop in self.vendor.stops:
            row = self.database.record.tasks.get(stop.task_id)
            if stop.accepted and row is not None and row["status"] == "gone":
                self.violated(Violation(f"stopped by {stop}, and recorded as gone: {dict(row)}"))

    def _check_liveness(self, since: float) -> None:
        """I9, once the last fault is over."""
        stop = self.config.stop
        for silence in liveness.judge(
            self.database.record.tasks.values(),
            self.database.record.attempts.values(),
            [START.timestamp() + one.left_at for one in self.vendor.stops],
            allowed_seconds=liveness.allowed_seconds(
                stops_per_second=stop.requests_per_second,
                calls_per_second=stop.occupancy_requests_per_second,
                request_timeout_seconds=stop.request_timeout_seconds,
                sweep_seconds=self.config.schedule.poll_seconds,
            ),
            since=since,
            until=self.vendor.now,
        ):
            self.violated(Violation(str(silence)))

    def close(self) -> None:
        with silent_logs():
            for process in self.processes:
                process.bury()
        self.database.close()


def _config(occupancy_poll_seconds: float, stop: Mapping[str, float]) -> Config:
    sections: Mapping[str, Any] = {
        # Never opened; it only says that there is no folder for a journal, which would need threads.
        "database": {"url": "postgresql://nobody@localhost/nothing"},
        "zego": {
            "apps": [{"app_id": APP_ID, "server_secret": SECRET, "callback_secret": SECRET}],
            "bot_user_ids": list(BOTS),
        },
        "schedule": {"occupancy_poll_seconds": occupancy_poll_seconds},
        "policy": {"max_idle_seconds": WINDOW_SECONDS},
        "stop": stop,
    }
    return Config.model_validate(sections)
