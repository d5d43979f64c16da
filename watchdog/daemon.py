"""The daemon: jobs, heartbeat, signals, and an orderly end.

    sweep       at the next known due time, at the latest every ``schedule.poll_seconds``
    heartbeat   says that we are alive, learns who else is, notices gaps, and that no hints come any more
    poll        asks ZEGO about the active rooms whose turn it is, every second
    reap        closes attempts that a dead daemon left in ``sent``
    prune       forgets old callbacks, where any are taken

The jobs are short and only hand work over; the stopper works beside them.
"""

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import sqlalchemy as sa
import structlog

from watchdog import __version__, schema, wiring
from watchdog.clock import Clock, SystemClock
from watchdog.database import place
from watchdog.errors import DatabaseError
from watchdog.http_server import HttpServer
from watchdog.jobs import Recurring, scheduler
from watchdog.poller import TICK_SECONDS
from watchdog.settings import Config
from watchdog.store import Store

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
REAP_SECONDS: Final = 15.0
PRUNE_SECONDS: Final = 60.0
_RESCUE_SECONDS: Final = 1.0
_AFTER_PROGRESS_SECONDS: Final = 0.02


class Service:
    """One daemon on one database: ``start``, then ``stop``."""

    def __init__(self, config: Config, clock: Clock, database: sa.Engine) -> None:
        """``database`` must be at this program's schema version; see ``schema.require``."""
        self._config = config
        self._clock = clock
        self._scheduler = scheduler()
        self._sweep_job = self._recurring("sweep", self._sweep)
        self._jobs: tuple[Recurring, ...] = (
            self._sweep_job,
            self._recurring("heartbeat", self._heartbeat),
            self._recurring("reap", self._reap),
        )
        self._poll_job = self._recurring("poll", self._poll)
        self.parts = wiring.build(config, clock, database, Store(database, "").now(), on_progress=self._progressed)
        self.http: HttpServer | None = None
        if (address := config.http.address) is not None:
            self._jobs += (self._recurring("prune", self._prune),)
            self.http = HttpServer(
                address, self.parts.webhook, is_healthy=self._is_healthy, is_ready=lambda: self._rescuing is not None
            )
        self._swept_at = clock.monotonic()
        self._database_away = False
        self._trusted_since: datetime | None = None
        self._rescuing: asyncio.Task[None] | None = None

    def _recurring(self, name: str, run: Callable[[], Awaitable[float]]) -> Recurring:
        return Recurring(name, lambda: self._guarded(run), scheduler=self._scheduler, clock=self._clock)

    async def start(self) -> None:
        """Say hello to the database, then begin to sweep. Raises ConfigError, DatabaseError."""
        if self.http is not None:
            self.http.bind()
        await self._beat(first=True)
        if self.http is not None:
            await self.http.start()
        self._scheduler.start()
        if self.parts.poller is not None:
            self._jobs += (self._poll_job,)
        for job in self._jobs:
            job.arm(0.0)
        self._rescuing = asyncio.create_task(self._rescue())

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send nothing new, let what is in flight finish for ``stop.shutdown_seconds``, or until ``hurry`` is set."""
        if self.http is not None:
            await self.http.stop()
        if self._rescuing is not None:
            self._rescuing.cancel()
        for job in self._jobs:
            await job.close()
        self._scheduler.shutdown(wait=False)
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
            await self.parts.storage.call(self.parts.storage.store.depart)
        except DatabaseError as error:
            log.warning("departure_not_recorded", error=str(error))
        await self.parts.close()

    def _progressed(self) -> None:
        # Retries may be near, and there may be capacity for tasks that wait.
        self._sweep_job.arm(_AFTER_PROGRESS_SECONDS)

    async def _guarded(self, run: Callable[[], Awaitable[float]]) -> float:
        """Run a job; a database that is away is said once, and its return too."""
        try:
            again = await run()
        except DatabaseError as error:
            if not self._database_away:
                log.error("database_away", error=str(error))
            self._database_away = True
            return self._config.schedule.poll_seconds
        if self._database_away:
            log.info("database_back")
        self._database_away = False
        return again

    async def _sweep(self) -> float:
        swept = await self.parts.sweeper.run_once()
        self._swept_at = self._clock.monotonic()
        if swept.planned or swept.claimed:
            log.debug("swept", planned=swept.planned, claimed=swept.claimed, wake_seconds=swept.wake_seconds)
        wait = self._config.schedule.poll_seconds
        if swept.wake_seconds is not None:
            wait = min(wait, swept.wake_seconds)
        # Due rows remain for want of capacity, and then progress wakes us, or because they came due just now.
        return min(wait, _AFTER_PROGRESS_SECONDS) if swept.due and swept.claimed else wait

    async def _heartbeat(self) -> float:
        await self._beat(first=False)
        return HEARTBEAT_SECONDS

    async def _beat(self, *, first: bool) -> None:
        parts = self.parts
        pulse = await parts.storage.call(
            parts.storage.store.pulse, parts.daemon, self._config.policy.gap_seconds, fresh=first
        )
        parts.storage.synchronise(pulse.now)
        if pulse.watching_since > parts.watch.watching_since and not first:
            log.warning("watch_interrupted", watching_since=pulse.watching_since.isoformat())
        if await parts.feed.check(-math.inf if parts.poller is None else parts.poller.answered_at):
            # Like a gap: whatever was said before the silence may have changed since.
            self._trusted_since = pulse.now
        parts.watch.watching_since = max(pulse.watching_since, self._trusted_since or pulse.watching_since)
        for pace in parts.paces:
            pace.set_share(1 / max(1, pulse.alive))

    async def _poll(self) -> float:
        began = self._clock.monotonic()
        if self.parts.poller is not None:
            await self.parts.poller.begin()
        return max(0.0, TICK_SECONDS - (self._clock.monotonic() - began))

    async def _reap(self) -> float:
        storage = self.parts.storage
        await storage.call(self.parts.poll_store.prune)
        closed = await storage.call(storage.store.reap, self._config.stop.lease_seconds)
        if closed:
            log.warning("abandoned_attempts_closed", attempts=closed)
        return REAP_SECONDS

    async def _prune(self) -> float:
        pruned = await self.parts.storage.call(self.parts.webhook.prune)
        return 1.0 if pruned else PRUNE_SECONDS

    def _is_healthy(self) -> bool:
        return self._clock.monotonic() - self._swept_at <= 3 * self._config.schedule.poll_seconds + 5

    async def _rescue(self) -> None:
        while True:
            await self._clock.sleep(_RESCUE_SECONDS)
            for job in self._jobs:
                job.rescue()


async def run(config: Config, *, clock: Clock | None = None) -> None:
    """Run until SIGTERM or SIGINT; a second signal cuts short what is in flight.

    Raises ConfigError, SchemaMismatch, DatabaseError before anything has begun.
    """
    database = wiring.engine(config.database)
    schema.require(database)
    ending, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if ending.is_set() else ending).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    service = Service(config, clock or SystemClock(), database)
    await service.start()
    log.info(
        "started",
        version=__version__,
        instance=service.parts.daemon.instance,
        mode=config.policy.mode.value,
        verify=config.policy.verify.value,
        apps=[app.app_id for app in config.zego.apps],
        database=place(database),
    )
    for warning in config.warnings:
        log.warning("configuration", warning=warning)
    await ending.wait()
    log.info("stopping")
    await service.stop(hurry)
    log.info("stopped_daemon")
