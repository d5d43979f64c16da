"""Builds the parts from a configuration; the daemon and ``zego-watchdog stop`` are put together here and only here."""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

import httpx2
import sqlalchemy as sa

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.circuit_breaker import Breaker
from watchdog.core.guard import Limits
from watchdog.core.policy import InForce, Policy
from watchdog.logs import setup
from watchdog.observer import Observer, Reading
from watchdog.services.callbacks import Webhook
from watchdog.services.figures import DatabaseFigures
from watchdog.services.guard import Guarding
from watchdog.services.occupancy import BACKGROUND_CALLS, BACKGROUND_SHARE, Bots, Occupancy
from watchdog.services.poller import Feed, Poller
from watchdog.services.retention import Keep, Retention
from watchdog.services.sender import Sender, StopSettings
from watchdog.services.stopper import Stopper
from watchdog.services.sweeper import Sweeper
from watchdog.store.aio.answer_journal import AnswerJournal
from watchdog.store.engine import identify
from watchdog.store.records import Instance
from watchdog.wiring.storage import Storage
from watchdog.zego.client import USER_LISTS_PER_SECOND, ZegoClient
from watchdog.zego.pacing import Pace


def rules(config: Config) -> Policy:
    return Policy(**config.policy.model_dump())


def limits(config: Config) -> Limits:
    return Limits(**config.guard.model_dump())


def server_secrets(config: Config) -> dict[int, str]:
    return {app.app_id: app.secret.get_secret_value() for app in config.zego.apps}


def callback_secrets(config: Config) -> dict[int, list[str]]:
    return {app.app_id: [secret.get_secret_value() for secret in app.callback_secrets] for app in config.zego.apps}


def silence_seconds(config: Config) -> float:
    """For how long nobody may say anything of any room before hints are taken to have died."""
    polling = config.schedule.occupancy_poll_seconds
    if config.zego.rtc_url and polling > 0:
        return max(config.policy.gap_seconds, 3 * polling)
    # Where nobody asks, rooms in which nothing happens are silent for long, and older hints are not trusted anyway.
    return config.policy.hint_max_age_seconds


def zego_client(
    config: Config,
    clock: Clock,
    transport: httpx2.AsyncBaseTransport | None = None,
    observer: Observer | None = None,
) -> ZegoClient:
    return ZegoClient(
        server_secrets(config),
        asr_url=config.zego.asr_url,
        rtc_url=config.zego.rtc_url or None,
        timeout_seconds=config.stop.request_timeout_seconds,
        clock=clock,
        transport=transport,
        max_connections=2 * config.stop.concurrency + BACKGROUND_CALLS,
        observer=observer,
    )


def identity(config: Config) -> Instance:
    """Who this process is; fresh each time, so that no two processes ever share a claim token."""
    host = socket.gethostname()
    return Instance(
        instance=f"{host}-{os.getpid()}-{secrets.token_hex(4)}",
        host=host,
        pid=os.getpid(),
        version=__version__,
        mode=config.policy.mode.value,
    )


@dataclass(slots=True)
class Watch:
    """Since when sweeps have followed one another, by the database's clock, and the guard; the heartbeat moves both."""

    watching_since: datetime
    guarding: Guarding


@dataclass(slots=True)
class Parts:
    """Everything that works on one database for one process."""

    config: Config
    clock: Clock
    daemon: Instance
    watch: Watch
    storage: Storage
    zego: ZegoClient
    stop_pace: Pace
    occupancy_pace: Pace
    breaker: Breaker
    settings: StopSettings
    stopper: Stopper
    sweeper: Sweeper
    poller: Poller | None
    feed: Feed
    background_pace: Pace
    user_list_pace: Pace
    webhook: Webhook
    retention: Retention
    in_force: InForce
    bots: Bots | None
    figures: DatabaseFigures
    guarding: Guarding
    paces: tuple[Pace, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.paces = (self.stop_pace, self.occupancy_pace, self.background_pace, self.user_list_pace)

    def adopt(self, config: Config) -> None:
        """Work by ``config`` from now on, which differs from the one so far in nothing but ``reload.APPLIED``."""
        self.config = config
        self.in_force.rules = rules(config)
        self.guarding.set_limits(limits(config))
        self.daemon = replace(self.daemon, mode=config.policy.mode.value)
        self.storage.ledger.store.rejoin_watch_seconds = config.policy.rejoin_watch_seconds
        self.feed.silence_seconds = silence_seconds(config)
        self.stop_pace.set_rate(config.stop.requests_per_second)
        self.occupancy_pace.set_rate(config.stop.occupancy_requests_per_second)
        self.background_pace.set_rate(BACKGROUND_SHARE * config.stop.occupancy_requests_per_second)
        self.zego.set_secrets(server_secrets(config))
        self.breaker.hurry(self.clock.monotonic())
        if self.bots is not None:
            self.bots.set_patterns(config.zego.bot_user_ids)
        self.webhook.adopt(
            secrets=callback_secrets(config), bot_user_ids=config.zego.bot_user_ids, discover=config.zego.discover
        )

    async def close(self) -> None:
        await self.zego.aclose()
        self.storage.close()
        self.storage.engine.dispose()


def build(
    config: Config,
    clock: Clock,
    database: sa.Engine,
    watching_since: datetime,
    *,
    on_progress: Callable[[], None] = lambda: None,
    transport: httpx2.AsyncBaseTransport | None = None,
    observer: Observer | None = None,
) -> Parts:
    """The parts of a daemon, not running yet.

    ``watching_since`` is the database's time now, or when an unbroken watch began. ``on_progress`` is called whenever
    the stopper has given something back, or has room again for what it had to leave. ``transport`` stands in for the
    network. ``observer`` hears of what is counted.
    """
    observer = observer or Observer()
    daemon = identity(config)
    folder = config.journal(os.environ)
    storage = Storage(
        database,
        clock,
        instance=daemon.instance,
        default_app=next((app.app_id for app in config.zego.apps), None),
        rejoin_watch_seconds=config.policy.rejoin_watch_seconds,
        journal=None if folder is None else AnswerJournal(folder, identify(database), daemon.instance),
    )
    storage.clock.synchronise(watching_since)

    def shared(kind: str, requests_per_second: float) -> Pace:
        if database.dialect.name != "postgresql":
            return Pace(requests_per_second)

        async def schedule(app_id: int, seconds: float, catch_up_seconds: float) -> float:
            begins_at, now = await storage.pace.reserve(app_id, kind, seconds, catch_up_seconds)
            storage.clock.synchronise(now)
            # By the quickest reading, for each answer is late in its own way, and the slots would shift by that.
            return (begins_at - storage.clock.now()).total_seconds()

        return Pace(requests_per_second, schedule=schedule, clock=clock)

    zego = zego_client(config, clock, transport, observer)
    stop_pace = shared("stop", config.stop.requests_per_second)
    occupancy_pace = shared("occupancy", config.stop.occupancy_requests_per_second)
    background_pace = Pace(BACKGROUND_SHARE * config.stop.occupancy_requests_per_second)
    user_list_pace = Pace(USER_LISTS_PER_SECOND)
    breaker = Breaker(config.stop.blocked_retry_seconds)
    in_force = InForce(rules(config))
    settings = StopSettings(
        concurrency=config.stop.concurrency,
        request_timeout_seconds=config.stop.request_timeout_seconds,
        lease_seconds=config.stop.lease_seconds,
        max_attempts=config.stop.max_attempts,
    )
    watch = Watch(watching_since, Guarding(limits(config), storage.clock, clock))
    occupancy = bots = None
    if config.zego.rtc_url:
        bots = Bots(config.zego.bot_user_ids, zego, user_list_pace, clock)
        occupancy = Occupancy(zego, occupancy_pace, storage.clock, bots=bots, background=background_pace)
    polling = config.schedule.occupancy_poll_seconds
    poller = None
    if occupancy is not None and polling > 0:
        poller = Poller(
            polling=storage.polling,
            occupancy=occupancy,
            apps=[app.app_id for app in config.zego.apps],
            every_seconds=polling,
            clock=clock,
        )
    stopper = Stopper(
        tasks=storage.tasks,
        database_clock=storage.clock,
        occupancy=occupancy,
        sender=Sender(
            answers=storage.answers,
            database_clock=storage.clock,
            zego=zego,
            pace=stop_pace,
            breaker=breaker,
            policy_in_force=in_force,
            settings=settings,
            clock=clock,
            observer=observer,
        ),
        pace=stop_pace,
        apps=[app.app_id for app in config.zego.apps],
        policy_in_force=in_force,
        settings=settings,
        surroundings=watch,
        clock=clock,
        on_progress=on_progress,
    )
    sweeper = Sweeper(
        tasks=storage.tasks,
        database_clock=storage.clock,
        stopper=stopper,
        breaker=breaker,
        policy_in_force=in_force,
        lease_seconds=settings.lease_seconds,
        instance=daemon.instance,
        clock=clock,
        observer=observer,
    )
    webhook = Webhook(
        callbacks=storage.callbacks,
        secrets=callback_secrets(config),
        bot_user_ids=config.zego.bot_user_ids,
        discover=config.zego.discover,
        clock=clock,
        observer=observer,
    )
    retention = Retention(
        retention=storage.retention,
        keep=Keep.of_days(config.retention.tasks_days, config.retention.attempts_days),
        instance=daemon.instance,
        clock=clock,
    )
    parts = Parts(
        config,
        clock,
        daemon,
        watch,
        storage,
        zego,
        stop_pace,
        occupancy_pace,
        breaker,
        settings,
        stopper,
        sweeper,
        poller,
        Feed(storage.polling, clock, silence_seconds=silence_seconds(config)),
        background_pace,
        user_list_pace,
        webhook,
        retention,
        in_force,
        bots,
        DatabaseFigures(storage.figures, storage.clock, observer, clock),
        watch.guarding,
    )
    _show(observer, parts)
    return parts


def _show(observer: Observer, parts: Parts) -> None:
    """Let an observer look at what the parts know by themselves."""

    def paces() -> Reading:
        named = zip(("stop", "occupancy", "background", "user_list"), parts.paces, strict=True)
        return {
            (name, str(app.app_id)): pace.rate(app.app_id) for name, pace in named for app in parts.config.zego.apps
        }

    observer.show("pace_requests_per_second", paces)
    observer.show("guard_tripped", lambda: parts.guarding.tripped_at is not None)
    observer.show("guard_held_tasks", lambda: parts.guarding.held)
    observer.show("apps_blocked", lambda: len(parts.breaker.unserved()))
    observer.show("callbacks", lambda: {(kind,): number for kind, number in parts.webhook.answers.items()})
    observer.show("database_errors", lambda: parts.storage.threads.errors)
    observer.show("log_lines_dropped", setup.dropped_lines)
    observer.show("log_lines_suppressed", setup.suppressed_lines)
