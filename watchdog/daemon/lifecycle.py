"""The daemon: its jobs, signals, and an orderly stop.

    sweep       at the next due time, at the latest every ``schedule.poll_seconds``
    heartbeat   reports that this daemon is alive, counts the others, notices gaps and a dead feed of hints
    poll        asks ZEGO about active rooms, every second while rooms are due
    age         looks for tasks older than ``policy.max_age_seconds``, every minute, a slice a second
    reap        closes attempts that a dead daemon left in ``sent``; its answer spool comes first
    retain      removes old rows, a few at a time
    adopt       registers tasks that run at ZEGO and have no row, every ``schedule.adopt_seconds``
    figures     reads the metrics' figures from the database, a few at a time
    notify      delivers events to the webhook; soon after this daemon ended a task, and every second

Jobs are short: they hand work over to the stopper, which works beside them.
"""

import asyncio
import math
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import sqlalchemy as sa
import structlog

from watchdog import __version__
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.model import Mode
from watchdog.daemon.http_protocol import Turns
from watchdog.daemon.http_server import HttpServer
from watchdog.daemon.jobs import Jobs, Recurring
from watchdog.daemon.liveness import ServiceStatus
from watchdog.daemon.metrics import Exposition, Metrics
from watchdog.daemon.outage import DatabaseOutage
from watchdog.daemon.pages import site_of
from watchdog.daemon.reload import Reloader
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import DatabaseError, StatementRefused
from watchdog.services.heartbeat import HEARTBEAT_SECONDS
from watchdog.services.poller import TICK_SECONDS
from watchdog.services.reaper import REAP_SECONDS
from watchdog.store import contract
from watchdog.store.engine import longest_call_seconds, place
from watchdog.store.sqlite_file import warnings
from watchdog.store.tasks import Tasks
from watchdog.wiring.database import opened
from watchdog.wiring.parts import Parts

log = structlog.get_logger(__name__)

_AFTER_PROGRESS_SECONDS: Final = 0.02


class Service:
    """One daemon on one database: ``start``, then ``stop``."""

    def __init__(
        self, config: Config, clock: Clock, database: sa.Engine, manager: ServiceManager | None = None
    ) -> None:
        """``database`` must be at this program's schema version; see ``schema.require``."""
        manager = manager or ServiceManager({})
        self._clock = clock
        self._outage = DatabaseOutage()
        self._swept_at = clock.monotonic()
        self._due_at: float | None = None
        self.metrics = Metrics()
        self.metrics.show("database_up", lambda: not self._database_trouble())
        self.parts = Parts(
            config,
            clock,
            database,
            Tasks(database, "").now(),
            # Retries may be near, and there may be capacity for tasks that wait.
            on_progress=lambda: self._sweep_job.arm(_AFTER_PROGRESS_SECONDS),
            on_end=self._ended,
            observer=self.metrics,
        )
        self.status = ServiceStatus(
            manager,
            clock,
            self.parts.storage.threads,
            call_seconds=longest_call_seconds(
                config.database.statement_timeout_seconds, config.database.connect_timeout_seconds
            ),
            status=self._status_line,
        )
        self._jobs = Jobs(clock, on_look=self.status.tick)
        self._sweep_job = self._add_job("sweep", self._sweep)
        self._add_job("heartbeat", self._heartbeat, may_be_early=True)
        self._age_job = self._add_job("age", self.parts.aging.step, may_be_early=True)
        self._add_job("reap", self._reap, may_be_early=True)
        # These two log their errors themselves, and are no sign of the database's return.
        self._jobs.add("retain", self.parts.retention.run_once, may_be_early=True)
        self._jobs.add("figures", self.parts.figures.run_once, may_be_early=True)
        if self.parts.poller is not None:
            self._add_job("poll", self._poll)
        if config.schedule.adopt_seconds:
            self._add_job("adopt", self.parts.adopter.run)
        self._notify_job = self._add_job("notify", self.parts.notifier.run_once)
        self.reloader = Reloader(
            parts=self.parts, metrics=self.metrics, status=self.status, on_applied=self._configured
        )
        self.passed = manager.listening_sockets()
        self.http = self._http_server()

    def _ended(self) -> None:
        # Without a webhook a run has nothing to do.
        if self.parts.notifier.has_target:
            self._notify_job.arm(_AFTER_PROGRESS_SECONDS)

    def _configured(self) -> None:
        # What was planned by the old rules may be due by the new ones.
        for job in (self._sweep_job, self._notify_job, self._age_job):
            job.arm(0.0)

    def _http_server(self) -> HttpServer | None:
        address = self.parts.config.http.address
        if address is None and not self.passed:
            return None
        return HttpServer(
            address,
            self.parts.callbacks,
            is_healthy=self._is_healthy,
            not_ready=lambda: self._database_trouble() or ("" if self._jobs.are_started else "starting"),
            turns=Turns(self._clock, gives_way=self.parts.stops_need_time),
            metrics=Exposition(self.metrics.registry, self._clock),
            token=self._token,
            passed=self.passed,
            site=site_of(
                self.parts, self._clock, self._outage, self._is_healthy, self.reloader, self._token, self.passed
            ),
        )

    def _add_job(self, name: str, run: Callable[[], Awaitable[float]], *, may_be_early: bool = False) -> Recurring:
        async def guarded() -> float:
            again = await self._outage.run(name, run, self._poll_seconds)
            self.status.refresh()
            return again

        return self._jobs.add(name, guarded, may_be_early=may_be_early)

    async def start(self) -> None:
        """Register with the database, then begin to sweep. Raises ConfigError, DatabaseError."""
        if self.http is not None:
            self.http.bind()
        await self.parts.heartbeat.run_once()
        # Before the first task ends. A missing right is told by the job, and keeps no stop from being sent.
        with suppress(StatementRefused):
            await self.parts.notifier.prepare()
        # Before the first claim: an answer in a spool may spare a request.
        await self.parts.reaper.replay()
        if self.http is not None:
            await self.http.start()
        self._jobs.start()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send nothing new; let requests in flight finish for ``stop.shutdown_seconds``, or until ``hurry`` is set."""
        parts = self.parts
        self.status.stopping()
        extending = asyncio.create_task(self.status.keep_extending())
        if self.http is not None:
            await self.http.stop()
        await parts.notifier.close()
        await parts.adopter.close()
        await self._jobs.close()
        if parts.poller is not None:
            await parts.poller.close()
        await parts.dry_run.close()
        parts.stopper.close()
        draining = asyncio.create_task(parts.stopper.drain(parts.config.stop.shutdown_seconds))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await parts.stopper.drain(0)
        try:
            await parts.storage.heartbeats.depart(parts.daemon.instance)
        except DatabaseError as error:
            log.warning("departure_not_recorded", error=str(error))
        extending.cancel()
        # The next call blocks the event loop until the database's threads have ended.
        self.status.extend(self.status.call_seconds)
        await parts.close()

    async def _sweep(self) -> float:
        began = self._clock.monotonic()
        with self.status.sweep():
            swept = await self.parts.sweeper.run_once()
        self._swept_at = self._clock.monotonic()
        self._due_at = None if swept.wake_seconds is None else self._swept_at + swept.wake_seconds
        self.metrics.swept(self._swept_at - began, self._clock.time())
        if swept.planned or swept.claimed:
            log.debug("swept", planned=swept.planned, claimed=swept.claimed, wake_seconds=swept.wake_seconds)
        wait = self._poll_seconds()
        if swept.wake_seconds is not None:
            wait = min(wait, swept.wake_seconds)
        # Due rows remain if they came due just now, or for want of capacity: then progress arms the job as well.
        return min(wait, _AFTER_PROGRESS_SECONDS) if swept.due and swept.claimed else wait

    def _poll_seconds(self) -> float:
        """The longest time between two sweeps; the service manager may want less than the configuration."""
        return min(self.parts.config.schedule.poll_seconds, self.status.sweep_seconds or math.inf)

    async def _heartbeat(self) -> float:
        await self.parts.heartbeat.run_once()
        return HEARTBEAT_SECONDS

    async def _poll(self) -> float:
        began = self._clock.monotonic()
        again = TICK_SECONDS
        if (poller := self.parts.poller) is not None and not await poller.begin():
            again = poller.idle_seconds
        return max(0.0, again - (self._clock.monotonic() - began))

    async def _reap(self) -> float:
        await self.parts.reaper.run_once()
        return REAP_SECONDS

    def _token(self) -> str | None:
        token = self.parts.config.http.bearer_token
        return None if token is None else token.get_secret_value()

    def _is_healthy(self) -> bool:
        return self._clock.monotonic() - self._swept_at <= 3 * self.parts.config.schedule.poll_seconds + 5

    def _database_trouble(self) -> str:
        if self._outage.is_on:
            return "the database is away"
        return "the database refuses a statement" if self._outage.is_refused else ""

    def _status_line(self) -> str:
        """The line that ``systemctl status`` shows; needs no database."""
        parts, now = self.parts, self._clock.monotonic()
        problems = [f"{trouble}: {self._outage.problem}"] if (trouble := self._database_trouble()) else []
        problems += [f"ZEGO refuses AppId {app_id}" for app_id in sorted(parts.blocks.app_ids)]
        if (poller := parts.poller) is not None:
            problems += [f"ZEGO does not answer about AppId {app_id}" for app_id in poller.unanswered]
        problems += ["no hints come any more"] if parts.feed.is_dead else []
        if parts.guard.tripped_at is not None:
            problems.append(f"the guard holds back {parts.guard.held} tasks: zego-watchdog guard")
        problems += [] if parts.notifier.problem is None else [parts.notifier.problem]
        if self.reloader.problem is not None:
            problems.append(f"the new configuration is refused: {self.reloader.problem}")
        active = "?" if parts.feed.active is None else parts.feed.active
        due = "none due" if self._due_at is None else f"next due in {max(0, round(self._due_at - now))} s"
        numbers = (
            f"{parts.config.policy.mode}: {active} active, {due}, {parts.workload.in_hand} in hand, "
            f"{parts.workload.stopped} stopped since the start"
        )
        return "; ".join([*problems, numbers])


async def run(
    config: Config,
    *,
    clock: Clock | None = None,
    reload: Callable[[], Config] | None = None,
    manager: ServiceManager | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; a second signal cancels requests in flight. SIGHUP applies what ``reload`` reads.

    Raises ConfigError, SchemaMismatch, DatabaseError before anything has begun.
    """
    ending, hurry, hangup = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if ending.is_set() else ending).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    # Closing the terminal that it runs in ends it.
    loop.add_signal_handler(signal.SIGHUP, signalled if reload is None or sys.stdin.isatty() else hangup.set)
    with opened(config) as database:
        if config.policy.mode is Mode.ENFORCE:
            contract.require(database)
        service = Service(config, clock or SystemClock(), database, manager)
        await service.start()
        log.info(
            "started",
            version=__version__,
            instance=service.parts.daemon.instance,
            mode=config.policy.mode.value,
            verify=config.policy.verify.value,
            apps=[app.app_id for app in config.zego.apps],
            database=place(database),
            http=None if service.http is None else service.http.url,
            http_from="socket unit" if service.passed else "http.listen",
        )
        file = config.database.sqlite_file
        for warning in [*config.warnings, *([] if file is None else warnings(file))]:
            log.warning("configuration", warning=warning)
        reloading = None if reload is None else asyncio.create_task(_reload_on(hangup, service.reloader, reload))
        await ending.wait()
        log.info("stopping")
        if reloading is not None:
            reloading.cancel()
        await service.stop(hurry)
        log.info("stopped_daemon")


async def _reload_on(hangup: asyncio.Event, reloader: Reloader, load: Callable[[], Config]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await reloader.reload(load)
