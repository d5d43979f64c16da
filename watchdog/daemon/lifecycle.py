"""The daemon: jobs, heartbeat, signals, and an orderly end.

    sweep       at the next known due time, at the latest every ``schedule.poll_seconds``
    heartbeat   says that we are alive, learns who else is, notices gaps, and that no hints come any more
    poll        asks ZEGO about the active rooms whose turn it is, every second as long as it is anybody's
    reap        closes attempts that a dead daemon left in ``sent``, by its own last words where there are any
    prune       forgets old callbacks, where any are taken
    retain      removes, a little at a time, rows that have been kept for long enough
    figures     reads what the metrics say of the database, a little at a time

The jobs are short and only hand work over; the stopper works beside them.
"""

import asyncio
import math
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import sqlalchemy as sa
import structlog

from watchdog import __version__, logs
from watchdog.clock import Clock, SystemClock
from watchdog.config.settings import Config
from watchdog.core.model import Outcome
from watchdog.daemon.http_server import HttpServer
from watchdog.daemon.jobs import Jobs, Recurring
from watchdog.daemon.liveness import EXTEND_SECONDS, Supervision
from watchdog.daemon.metrics import Exposition, Metrics
from watchdog.daemon.reload import Merged, Reloads, merge
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import ConfigError, DatabaseError
from watchdog.services.poller import TICK_SECONDS
from watchdog.store import schema
from watchdog.store.engine import longest_call_seconds, place
from watchdog.store.records import Activity
from watchdog.store.tasks import Tasks
from watchdog.wiring import database as opening
from watchdog.wiring import parts as wiring

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
REAP_SECONDS: Final = 15.0
PRUNE_SECONDS: Final = 60.0
_AFTER_PROGRESS_SECONDS: Final = 0.02


class Service:
    """One daemon on one database: ``start``, then ``stop``."""

    def __init__(
        self, config: Config, clock: Clock, database: sa.Engine, manager: ServiceManager | None = None
    ) -> None:
        """``database`` must be at this program's schema version; see ``schema.require``. ``manager`` is told all."""
        manager = manager or ServiceManager({})
        self._config = config
        self._clock = clock
        self._jobs = Jobs(clock, on_look=self._look)
        self._sweep_job = self._add_job("sweep", self._sweep)
        self._add_job("heartbeat", self._heartbeat, may_be_early=True)
        self._add_job("reap", self._reap, may_be_early=True)
        self._add_job("retain", self._retain)
        self.metrics = Metrics()
        self.parts = wiring.build(
            config,
            clock,
            database,
            Tasks(database, "").now(),
            on_progress=self._progressed,
            observer=self.metrics,
        )
        # Not guarded: it says by itself when the database is away, and knows nothing of its return.
        self._jobs.add("figures", self.parts.figures.run_once, may_be_early=True)
        if self.parts.poller is not None:
            self._add_job("poll", self._poll)
        self.http: HttpServer | None = None
        self.passed = manager.listening_sockets()
        if (address := config.http.address) is not None or self.passed:
            self._add_job("prune", self._prune, may_be_early=True)
            self.http = HttpServer(
                address,
                self.parts.webhook,
                is_healthy=self._is_healthy,
                is_ready=lambda: self._jobs.are_started and not self._database_away,
                metrics=Exposition(self.metrics.registry, clock),
                token=self._token,
                passed=self.passed,
            )
        self._swept_at = clock.monotonic()
        self._due_at: float | None = None
        self._failed: set[str] = set()
        """The jobs whose last run the database failed."""
        self._database_problem = ""
        self.reloads = Reloads()
        self.supervision = Supervision(
            manager,
            clock,
            self.parts.storage.threads,
            call_seconds=longest_call_seconds(
                config.database.statement_timeout_seconds, config.database.connect_timeout_seconds
            ),
            status=self._status,
        )
        self.metrics.show("database_up", lambda: not self._database_away)
        self._trusted_since: datetime | None = None

    def _add_job(self, name: str, run: Callable[[], Awaitable[float]], *, may_be_early: bool = False) -> Recurring:
        async def guarded() -> float:
            again = await self._guarded(name, run)
            self.supervision.refresh()
            return again

        return self._jobs.add(name, guarded, may_be_early=may_be_early)

    async def start(self) -> None:
        """Say hello to the database, then begin to sweep. Raises ConfigError, DatabaseError."""
        if self.http is not None:
            self.http.bind()
        await self._beat(first=True)
        await self._replay()
        if self.http is not None:
            await self.http.start()
        self._jobs.start()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send nothing new, let what is in flight finish for ``stop.shutdown_seconds``, or until ``hurry`` is set."""
        self.supervision.stopping()
        extending = asyncio.create_task(self._ask_for_patience())
        if self.http is not None:
            await self.http.stop()
        await self._jobs.close()
        if self.parts.poller is not None:
            await self.parts.poller.close()
        self.parts.stopper.close()
        draining = asyncio.create_task(self.parts.stopper.drain(self._config.stop.shutdown_seconds))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await self.parts.stopper.drain(0)
        try:
            await self.parts.storage.heartbeats.depart(self.parts.daemon.instance)
        except DatabaseError as error:
            log.warning("departure_not_recorded", error=str(error))
        extending.cancel()
        # The database's threads are waited for without the event loop.
        self.supervision.extend(self.supervision.call_seconds)
        await self.parts.close()

    async def _ask_for_patience(self) -> None:
        while True:
            self.supervision.extend()
            await self._clock.sleep(EXTEND_SECONDS / 5)

    def _progressed(self) -> None:
        # Retries may be near, and there may be capacity for tasks that wait.
        self._sweep_job.arm(_AFTER_PROGRESS_SECONDS)

    async def _guarded(self, name: str, run: Callable[[], Awaitable[float]]) -> float:
        """Run a job; a database that is away is said once, and its return, to every job it failed, too."""
        try:
            again = await run()
        except DatabaseError as error:
            if not self._database_away:
                log.error("database_away", error=str(error))
            self._failed.add(name)
            self._database_problem = str(error)
            return self._poll_seconds()
        if self._database_away:
            self._failed.discard(name)
            if not self._failed:
                log.info("database_back")
        return again

    @property
    def _database_away(self) -> bool:
        return bool(self._failed)

    async def _sweep(self) -> float:
        began = self._clock.monotonic()
        with self.supervision.sweep():
            swept = await self.parts.sweeper.run_once()
        self._swept_at = self._clock.monotonic()
        self._due_at = None if swept.wake_seconds is None else self._swept_at + swept.wake_seconds
        self.metrics.swept(self._swept_at - began, self._clock.time())
        if swept.planned or swept.claimed:
            log.debug("swept", planned=swept.planned, claimed=swept.claimed, wake_seconds=swept.wake_seconds)
        wait = self._poll_seconds()
        if swept.wake_seconds is not None:
            wait = min(wait, swept.wake_seconds)
        # Due rows remain for want of capacity, and then progress wakes us, or because they came due just now.
        return min(wait, _AFTER_PROGRESS_SECONDS) if swept.due and swept.claimed else wait

    def _poll_seconds(self) -> float:
        """The longest time between two sweeps: the service manager's patience may be shorter than ours."""
        return min(self._config.schedule.poll_seconds, self.supervision.sweep_seconds or math.inf)

    async def _heartbeat(self) -> float:
        await self._beat(first=False)
        return HEARTBEAT_SECONDS

    async def _beat(self, *, first: bool) -> None:
        parts = self.parts
        pulse = await parts.storage.heartbeats.beat(
            parts.daemon,
            self._config.policy.gap_seconds,
            fresh=first,
            activity=Activity(
                in_flight=parts.stopper.in_hand,
                requests=parts.stopper.requests,
                guard_tripped_at=parts.guarding.tripped_at,
                guard_held=parts.guarding.held,
            ),
        )
        parts.storage.clock.synchronise(pulse.now)
        if pulse.watching_since > parts.watch.watching_since and not first:
            log.warning("watch_interrupted", watching_since=pulse.watching_since.isoformat())
        if await parts.feed.check(-math.inf if parts.poller is None else parts.poller.answered_at):
            # Like a gap: whatever was said before the silence may have changed since.
            self._trusted_since = pulse.now
        self.metrics.show("daemons_alive", pulse.alive)
        self.metrics.show("feed_dead", parts.feed.is_dead)
        parts.watch.watching_since = max(pulse.watching_since, self._trusted_since or pulse.watching_since)
        for pace in parts.paces:
            pace.set_share(1 / max(1, pulse.alive))
        parts.guarding.look(active=parts.feed.active, daemons=pulse.alive, released_until=pulse.guard_released_until)

    async def _poll(self) -> float:
        began = self._clock.monotonic()
        again = TICK_SECONDS
        if (poller := self.parts.poller) is not None and not await poller.begin():
            again = poller.idle_seconds
        return max(0.0, again - (self._clock.monotonic() - began))

    async def _replay(self) -> None:
        """Before anything is claimed: what was answered to a process that could not write it down, we need not ask."""
        for outcome, reason in await self.parts.storage.answers.replay():
            self.metrics.attempt(outcome, reason)

    async def _reap(self) -> float:
        storage = self.parts.storage
        await self._replay()
        await storage.retention.prune_gone()
        closed = await storage.ledger.reap(self._config.stop.lease_seconds)
        if closed:
            log.warning("abandoned_attempts_closed", attempts=len(closed))
        for reason in closed:
            self.metrics.attempt(Outcome.UNKNOWN, reason)
        return REAP_SECONDS

    async def _prune(self) -> float:
        pruned = await self.parts.storage.retention.prune_callbacks()
        return 1.0 if pruned else PRUNE_SECONDS

    async def _retain(self) -> float:
        return await self.parts.retention.run_once()

    def _token(self) -> str | None:
        token = self._config.http.bearer_token
        return None if token is None else token.get_secret_value()

    def _is_healthy(self) -> bool:
        return self._clock.monotonic() - self._swept_at <= 3 * self._config.schedule.poll_seconds + 5

    def _look(self) -> None:
        self.supervision.tick()

    def _status(self) -> str:
        """What ``systemctl status`` shows, of things that are known without asking."""
        parts, now = self.parts, self._clock.monotonic()
        problems = [f"the database is away: {self._database_problem}"] if self._database_away else []
        problems += [f"ZEGO refuses AppId {app_id}" for app_id in sorted(parts.breaker.unserved())]
        if parts.feed.is_dead:
            problems.append("no hints come any more")
        if parts.guarding.tripped_at is not None:
            problems.append(f"the guard holds back {parts.guarding.held} tasks: zego-watchdog guard")
        if self.reloads.problem is not None:
            problems.append(f"the new configuration is refused: {self.reloads.problem}")
        active = "?" if parts.feed.active is None else parts.feed.active
        due = "none due" if self._due_at is None else f"next due in {max(0, round(self._due_at - now))} s"
        numbers = (
            f"{self._config.policy.mode}: {active} active, {due}, {parts.stopper.in_hand} in hand, "
            f"{parts.stopper.stopped} stopped since the start"
        )
        return "; ".join([*problems, numbers])

    async def reload(self, load: Callable[[], Config]) -> None:
        """Take over what can be taken over from a new configuration; one that is refused changes nothing."""
        self.supervision.reloading()
        try:
            merged = merge(self._config, await asyncio.to_thread(load))
        except ConfigError as error:
            self._refuse_reload(str(error))
        except Exception as error:
            # Whatever is wrong with a file, it must not end a daemon that works.
            log.exception("reload_failed")
            self._refuse_reload(f"{type(error).__name__}: {error}")
        else:
            self._adopt(merged)
        finally:
            self.supervision.reloaded()

    def _adopt(self, merged: Merged) -> None:
        self._config = merged.config
        self.parts.adopt(merged.config)
        logs.set_level(merged.config.log.level)
        self.reloads.succeeded()
        self.metrics.reloaded(successful=True)
        log.info("reloaded", changed=list(merged.applied), mode=merged.config.policy.mode.value)
        if merged.need_restart:
            log.warning("needs_a_restart", keys=list(merged.need_restart), next_step="the old values stay until then")
        for warning in merged.config.warnings:
            log.warning("configuration", warning=warning)
        # What was planned by the old rules may be due by the new ones.
        self._sweep_job.arm(0.0)

    def _refuse_reload(self, problem: str) -> None:
        self.reloads.failed(problem)
        self.metrics.reloaded(successful=False)
        log.error("reload_refused", error=problem, next_step="correct this; until then the old configuration holds")


async def run(
    config: Config,
    *,
    clock: Clock | None = None,
    reload: Callable[[], Config] | None = None,
    manager: ServiceManager | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; a second signal cuts short what is in flight. SIGHUP applies what ``reload`` reads.

    Raises ConfigError, SchemaMismatch, DatabaseError before anything has begun.
    """
    ending, hurry, hangup = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if ending.is_set() else ending).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    # Who runs it in a terminal, and closes that, wants it to end.
    loop.add_signal_handler(signal.SIGHUP, signalled if reload is None or sys.stdin.isatty() else hangup.set)
    database = opening.engine(config.database)
    schema.require(database)
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
    for warning in config.warnings:
        log.warning("configuration", warning=warning)
    reloading = None if reload is None else asyncio.create_task(_reload_on(hangup, service, reload))
    await ending.wait()
    log.info("stopping")
    if reloading is not None:
        reloading.cancel()
    await service.stop(hurry)
    log.info("stopped_daemon")


async def _reload_on(hangup: asyncio.Event, service: Service, load: Callable[[], Config]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await service.reload(load)
