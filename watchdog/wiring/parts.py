"""Builds the parts of a process from a configuration, for the daemon and for ``zego-watchdog stop``."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Final

import httpx2 as httpx
import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.kinds import KINDS, Kind
from watchdog.core.policy import CurrentPolicy
from watchdog.logs import writer
from watchdog.observer import Observer, Reading
from watchdog.services.aging import Aging
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.bots import Bots, RegisteredBots
from watchdog.services.callbacks import CallbackIntake
from watchdog.services.dry_run import DryRun
from watchdog.services.feed import HintFeed
from watchdog.services.figures import DatabaseFigures
from watchdog.services.guard import StopGuard
from watchdog.services.heartbeat import HeartbeatSender
from watchdog.services.notifier import Notifier
from watchdog.services.occupancy import BACKGROUND_SHARE, Occupancy
from watchdog.services.poller import Poller
from watchdog.services.reaper import Reaper
from watchdog.services.retention import Keep, Retention
from watchdog.services.sender import Sender
from watchdog.services.sightings import Sightings
from watchdog.services.stopper import Stopper
from watchdog.services.sweeper import Sweeper
from watchdog.services.verification import Verifier
from watchdog.services.workload import Workload
from watchdog.store.aio.answer_spool import AnswerSpool
from watchdog.store.engine import identify
from watchdog.store.records import Instance
from watchdog.webhook.client import WebhookClient
from watchdog.wiring.adoption import adopter
from watchdog.wiring.from_config import (
    app_ids,
    callback_secrets,
    identity,
    limits,
    notifications,
    rules,
    server_secrets,
    silence_seconds,
    stop_settings,
    zego_client,
)
from watchdog.wiring.storage import Storage
from watchdog.zego.client import USER_LISTS_PER_SECOND, ZegoClient
from watchdog.zego.pacing import Pace, Schedule

OCCUPANCY: Final = "occupancy"
BACKGROUND: Final = "background"
USER_LIST: Final = "user_list"
"""The names of the paces beside those of stops (``Kind.pace``), also labels of ``pace_requests_per_second``."""


class Parts:
    """Everything that works on one database for one process; built, but not running yet.

    ``now`` is the database's time. The unbroken watch began at ``watching_since``, or else now. ``on_progress`` is
    called when another sweep would find something to do, ``on_end`` when a task has ended. ``transport`` replaces the
    network.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        database: sa.Engine,
        now: datetime,
        *,
        watching_since: datetime | None = None,
        on_progress: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        transport: httpx.AsyncBaseTransport | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._observer = observer or Observer()
        self.daemon = identity(config)
        self.storage = _storage(config, clock, database, self.daemon)
        self.storage.clock.synchronise(now)
        self.zego = zego_client(config, clock, transport, observer)
        self.paces = _paces(config, clock, self.storage)
        self.stop_paces = {name: self.paces[kind.pace] for name, kind in KINDS.items()}
        self.current_policy = CurrentPolicy(rules(config))
        self.blocks = AppBlocks(config.stop.blocked_retry_seconds, clock)
        self.guard = StopGuard(limits(config), self.storage.clock, clock)
        self.feed = HintFeed(
            self.storage.feed,
            clock,
            silence_seconds=silence_seconds(config),
            trusted_since=watching_since or now,
        )
        self.bots = _bots(config, clock, self.zego, self.paces[USER_LIST], self.storage)
        self.sightings = Sightings(clock)
        self._occupancy = self._occupancy_of_rooms()
        self.poller = self._poller()
        self._settings = stop_settings(config)
        self.workload = Workload(
            apps=app_ids(config),
            paces=self.stop_paces,
            current_policy=self.current_policy,
            settings=self._settings,
            occupancy=self._occupancy,
        )
        self._verifier = self._verifier_of_rooms()
        self.stopper = self._stopper(on_progress, on_end)
        self.dry_run = self._dry_run(on_progress)
        self.sweeper = self._sweeper()
        self.aging = _aging(clock, self.storage, self.current_policy, self.dry_run, on_progress)
        self.callbacks = _callbacks(config, clock, self.storage, self._observer)
        self.heartbeat = self._heartbeat()
        self.reaper = _reaper(config, self.storage, self._observer)
        self.notifier = _notifier(config, clock, self.storage, self._observer)
        self.retention = _retention(config, clock, self.storage, self.daemon)
        self.adopter = adopter(config, clock, self.zego, self.storage.adoption.register)
        self.figures = DatabaseFigures(self.storage.figures, self.storage.clock, self._observer, clock)
        _show(self._observer, self)

    def _occupancy_of_rooms(self) -> Occupancy | None:
        if not self.config.zego.rtc_url:
            return None
        return Occupancy(
            self.zego,
            self.paces[OCCUPANCY],
            self.storage.clock,
            self._clock,
            bots=self.bots,
            background=self.paces[BACKGROUND],
            sightings=self.sightings,
        )

    def _poller(self) -> Poller | None:
        every_seconds = self.config.schedule.occupancy_poll_seconds
        if self._occupancy is None or every_seconds <= 0:
            return None
        return Poller(
            polling=self.storage.polling,
            occupancy=self._occupancy,
            apps=app_ids(self.config),
            every_seconds=every_seconds,
            clock=self._clock,
        )

    def _verifier_of_rooms(self) -> Verifier:
        return Verifier(
            database_clock=self.storage.clock,
            occupancy=self._occupancy,
            feed=self.feed,
            guard=self.guard,
            blocks=self.blocks,
            sightings=self.sightings,
            current_policy=self.current_policy,
        )

    def _dry_run(self, on_progress: Callable[[], None]) -> DryRun:
        return DryRun(
            tasks=self.storage.tasks,
            polling=self.storage.polling,
            verifier=self._verifier,
            blocks=self.blocks,
            workload=self.workload,
            clock=self._clock,
            on_progress=on_progress,
            observer=self._observer,
        )

    def _stopper(self, on_progress: Callable[[], None], on_end: Callable[[], None]) -> Stopper:
        sender = Sender(
            answers=self.storage.answers,
            database_clock=self.storage.clock,
            zego=self.zego,
            paces=self.stop_paces,
            blocks=self.blocks,
            workload=self.workload,
            sightings=self.sightings,
            current_policy=self.current_policy,
            settings=self._settings,
            clock=self._clock,
            observer=self._observer,
        )
        return Stopper(
            tasks=self.storage.tasks,
            database_clock=self.storage.clock,
            verifier=self._verifier,
            sender=sender,
            blocks=self.blocks,
            workload=self.workload,
            settings=self._settings,
            clock=self._clock,
            on_progress=on_progress,
            on_end=on_end,
            observer=self._observer,
        )

    def _sweeper(self) -> Sweeper:
        return Sweeper(
            tasks=self.storage.tasks,
            database_clock=self.storage.clock,
            stopper=self.stopper,
            workload=self.workload,
            blocks=self.blocks,
            current_policy=self.current_policy,
            lease_seconds=self.config.stop.lease_seconds,
            instance=self.daemon.instance,
            clock=self._clock,
            dry_run=self.dry_run,
            observer=self._observer,
        )

    def _heartbeat(self) -> HeartbeatSender:
        return HeartbeatSender(
            heartbeats=self.storage.heartbeats,
            database_clock=self.storage.clock,
            instance=self.daemon,
            feed=self.feed,
            guard=self.guard,
            paces=self.paces.values(),
            current_policy=self.current_policy,
            workload=self.workload,
            poller=self.poller,
            dry_run=self.dry_run,
            observer=self._observer,
        )

    def adopt(self, config: Config) -> None:
        """Use ``config`` from now on; it may differ from the present one only in ``reload.APPLIED``."""
        self.config = config
        self.current_policy.rules = rules(config)
        self.guard.set_limits(limits(config))
        self.storage.ledger.store.rejoin_watch_seconds = config.policy.rejoin_watch_seconds
        self.feed.silence_seconds = silence_seconds(config)
        for name, rate in _rates(config).items():
            self.paces[name].set_rate(rate)
        self.zego.set_secrets(server_secrets(config))
        self.blocks.retry_now()
        if self.bots is not None:
            self.bots.set_patterns(config.zego.bot_user_ids)
        self.callbacks.adopt(
            secrets=callback_secrets(config), bot_user_ids=config.zego.bot_user_ids, discover=config.zego.discover
        )
        self.notifier.adopt(notifications(config))

    def stops_need_time(self) -> bool:
        """Whether a stop needs the database now, or is about to leave."""
        return bool(self.workload.leaving) or self.storage.threads.serves_stops

    async def close(self) -> None:
        await self.zego.aclose()
        await self.notifier.aclose()
        self.storage.close()
        self.storage.engine.dispose()


def _storage(config: Config, clock: Clock, database: sa.Engine, daemon: Instance) -> Storage:
    folder = config.journal(os.environ)
    return Storage(
        database,
        clock,
        instance=daemon.instance,
        default_app=next(iter(app_ids(config)), None),
        rejoin_watch_seconds=config.policy.rejoin_watch_seconds,
        spool=None if folder is None else AnswerSpool(folder, identify(database), daemon.instance),
    )


def _bots(config: Config, clock: Clock, zego: ZegoClient, pace: Pace[int], storage: Storage) -> Bots | None:
    registered = RegisteredBots(storage.bots, clock)
    return Bots(config.zego.bot_user_ids, zego, pace, clock, registered) if config.zego.rtc_url else None


def _callbacks(config: Config, clock: Clock, storage: Storage, observer: Observer) -> CallbackIntake:
    return CallbackIntake(
        store=storage.callbacks,
        database_clock=storage.clock,
        secrets=callback_secrets(config),
        bot_user_ids=config.zego.bot_user_ids,
        discover=config.zego.discover,
        clock=clock,
        observer=observer,
    )


def _aging(
    clock: Clock, storage: Storage, current_policy: CurrentPolicy, dry_run: DryRun, on_woken: Callable[[], None]
) -> Aging:
    return Aging(aging=storage.aging, current_policy=current_policy, dry_run=dry_run, clock=clock, on_woken=on_woken)


def _reaper(config: Config, storage: Storage, observer: Observer) -> Reaper:
    return Reaper(
        answers=storage.answers, ledger=storage.ledger, lease_seconds=config.stop.lease_seconds, observer=observer
    )


def _notifier(config: Config, clock: Clock, storage: Storage, observer: Observer) -> Notifier:
    return Notifier(
        notifications=notifications(config),
        events=storage.events,
        database_clock=storage.clock,
        clock=clock,
        connect=lambda target: WebhookClient(target, clock),
        observer=observer,
    )


def _retention(config: Config, clock: Clock, storage: Storage, daemon: Instance) -> Retention:
    keep = Keep.of_days(
        tasks=config.retention.tasks_days,
        attempts=config.retention.attempts_days,
        events=config.retention.events_days,
        spells=config.retention.spells_days,
    )
    return Retention(
        retention=storage.retention,
        keep=keep,
        instance=daemon.instance,
        clock=clock,
    )


def _rates(config: Config) -> dict[str, float]:
    """Requests per second of each pace that the configuration sets."""
    return {
        **{kind.pace: _at_most(config.stop.requests_per_second, kind) for kind in KINDS.values()},
        OCCUPANCY: config.stop.occupancy_requests_per_second,
        BACKGROUND: BACKGROUND_SHARE * config.stop.occupancy_requests_per_second,
    }


def _at_most(ours: float, kind: Kind) -> float:
    """The configured rate of stops, but no more than ZEGO allows; 0 sets no limit of ours."""
    zegos = kind.stops_per_second
    return ours if zegos is None else min(ours or zegos, zegos)


def _paces(config: Config, clock: Clock, calls: Storage) -> dict[str, Pace[int]]:
    """On PostgreSQL the daemons share the schedules of stops and of ``occupancy``."""
    rates = _rates(config) | {USER_LIST: USER_LISTS_PER_SECOND}
    paces = {name: Pace[int](rate, clock=clock) for name, rate in rates.items()}
    if calls.engine.dialect.name == "postgresql":
        shared = [*(kind.pace for kind in KINDS.values()), OCCUPANCY]
        paces |= {name: Pace[int](rates[name], schedule=_schedule(name, calls), clock=clock) for name in shared}
    return paces


def _schedule(kind: str, calls: Storage) -> Schedule[int]:
    async def schedule(app_id: int, /, seconds: float, catch_up_seconds: float) -> float:
        begins_at, now = await calls.pace.reserve(app_id, kind, seconds, catch_up_seconds)
        calls.clock.synchronise(now)
        # By the quickest reading of the clock: each answer has its own delay, and would shift the slots by it.
        return (begins_at - calls.clock.now()).total_seconds()

    return schedule


def _show(observer: Observer, parts: Parts) -> None:
    """Show the observer the values that the parts keep themselves."""

    def paces() -> Reading:
        return {
            (name, str(app_id)): pace.rate(app_id)
            for name, pace in parts.paces.items()
            for app_id in app_ids(parts.config)
        }

    observer.show("pace_requests_per_second", paces)
    observer.show("guard_tripped", lambda: parts.guard.tripped_at is not None)
    observer.show("guard_held_tasks", lambda: parts.guard.held)
    observer.show("apps_blocked", lambda: len(parts.blocks.app_ids))
    observer.show("tasks_too_old", lambda: parts.aging.too_old)
    observer.show("callbacks", lambda: {(kind,): number for kind, number in parts.callbacks.responses.items()})
    observer.show("database_errors", lambda: parts.storage.threads.errors)
    observer.show("webhook_suspended", lambda: parts.notifier.is_suspended)
    observer.show("log_lines_dropped", writer.dropped_lines)
    observer.show("log_lines_suppressed", writer.suppressed_lines)
