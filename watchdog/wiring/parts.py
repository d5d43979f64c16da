"""Builds the parts of a process from a configuration, for the daemon and for ``zego-watchdog stop``."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx2
import sqlalchemy as sa

from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.policy import CurrentPolicy
from watchdog.logs import writer
from watchdog.observer import Observer, Reading
from watchdog.services.app_blocks import AppBlocks
from watchdog.services.bots import Bots
from watchdog.services.callbacks import CallbackIntake
from watchdog.services.feed import HintFeed
from watchdog.services.figures import DatabaseFigures
from watchdog.services.guard import StopGuard
from watchdog.services.heartbeat import HeartbeatSender
from watchdog.services.occupancy import BACKGROUND_SHARE, Occupancy
from watchdog.services.poller import Poller
from watchdog.services.reaper import Reaper
from watchdog.services.retention import Keep, Retention
from watchdog.services.sender import Sender
from watchdog.services.stopper import Stopper
from watchdog.services.sweeper import Sweeper
from watchdog.services.verification import Verifier
from watchdog.services.workload import Workload
from watchdog.store.aio.answer_journal import AnswerJournal
from watchdog.store.engine import identify
from watchdog.store.records import Instance
from watchdog.wiring.from_config import (
    app_ids,
    callback_secrets,
    identity,
    limits,
    rules,
    server_secrets,
    silence_seconds,
    stop_settings,
    zego_client,
)
from watchdog.wiring.storage import Storage, storage
from watchdog.zego.client import USER_LISTS_PER_SECOND, ZegoClient
from watchdog.zego.pacing import Pace, Schedule

STOP: Final = "stop"
OCCUPANCY: Final = "occupancy"
BACKGROUND: Final = "background"
USER_LIST: Final = "user_list"
"""The names of the paces, also as labels of the metric ``pace_requests_per_second``."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """Everything that works on one database for one process. ``poller`` and ``bots`` need the RTC API."""

    config: Config
    daemon: Instance
    storage: Storage
    zego: ZegoClient
    paces: Mapping[str, Pace[int]]
    current_policy: CurrentPolicy
    blocks: AppBlocks
    guard: StopGuard
    feed: HintFeed
    workload: Workload
    stopper: Stopper
    sweeper: Sweeper
    bots: Bots | None
    poller: Poller | None
    callbacks: CallbackIntake
    heartbeat: HeartbeatSender
    reaper: Reaper
    retention: Retention
    figures: DatabaseFigures

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

    async def close(self) -> None:
        await self.zego.aclose()
        self.storage.close()
        self.storage.engine.dispose()


def build(
    config: Config,
    clock: Clock,
    database: sa.Engine,
    now: datetime,
    *,
    watching_since: datetime | None = None,
    on_progress: Callable[[], None] = lambda: None,
    transport: httpx2.AsyncBaseTransport | None = None,
    observer: Observer | None = None,
) -> Parts:
    """Build the parts of a daemon, not running yet.

    ``now`` is the database's time. The unbroken watch began at ``watching_since``, or else now. ``on_progress`` is
    called when another sweep would find something to do. ``transport`` replaces the network.
    """
    base = _base(
        config=config,
        clock=clock,
        database=database,
        now=now,
        watching_since=now if watching_since is None else watching_since,
        transport=transport,
        observer=observer or Observer(),
    )
    bots, occupancy = _occupancy(base)
    poller = _poller(base, occupancy)
    workload, stopper = _stopping(base, occupancy, on_progress)
    parts = Parts(
        config=config,
        daemon=base.daemon,
        storage=base.storage,
        zego=base.zego,
        paces=base.paces,
        current_policy=base.current_policy,
        blocks=base.blocks,
        guard=base.guard,
        feed=base.feed,
        workload=workload,
        stopper=stopper,
        sweeper=_sweeper(base, workload, stopper),
        bots=bots,
        poller=poller,
        callbacks=_callbacks(base),
        heartbeat=_heartbeat(base, workload, poller),
        reaper=Reaper(
            answers=base.storage.answers,
            ledger=base.storage.ledger,
            lease_seconds=config.stop.lease_seconds,
            observer=base.observer,
        ),
        retention=_retention(base),
        figures=DatabaseFigures(base.storage.figures, base.storage.clock, base.observer, clock),
    )
    _show(base.observer, parts)
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What the other parts are built on."""

    config: Config
    clock: Clock
    observer: Observer
    daemon: Instance
    storage: Storage
    zego: ZegoClient
    paces: Mapping[str, Pace[int]]
    current_policy: CurrentPolicy
    blocks: AppBlocks
    guard: StopGuard
    feed: HintFeed


def _base(
    *,
    config: Config,
    clock: Clock,
    database: sa.Engine,
    now: datetime,
    watching_since: datetime,
    transport: httpx2.AsyncBaseTransport | None,
    observer: Observer,
) -> _Base:
    daemon = identity(config)
    folder = config.journal(os.environ)
    calls = storage(
        database,
        clock,
        instance=daemon.instance,
        default_app=next(iter(app_ids(config)), None),
        rejoin_watch_seconds=config.policy.rejoin_watch_seconds,
        journal=None if folder is None else AnswerJournal(folder, identify(database), daemon.instance),
    )
    calls.clock.synchronise(now)
    return _Base(
        config=config,
        clock=clock,
        observer=observer,
        daemon=daemon,
        storage=calls,
        zego=zego_client(config, clock, transport, observer),
        paces=_paces(config, clock, calls),
        current_policy=CurrentPolicy(rules(config)),
        blocks=AppBlocks(config.stop.blocked_retry_seconds, clock),
        guard=StopGuard(limits(config), calls.clock, clock),
        feed=HintFeed(calls.polling, clock, silence_seconds=silence_seconds(config), trusted_since=watching_since),
    )


def _rates(config: Config) -> dict[str, float]:
    """Requests per second of each pace that the configuration sets."""
    return {
        STOP: config.stop.requests_per_second,
        OCCUPANCY: config.stop.occupancy_requests_per_second,
        BACKGROUND: BACKGROUND_SHARE * config.stop.occupancy_requests_per_second,
    }


def _paces(config: Config, clock: Clock, calls: Storage) -> dict[str, Pace[int]]:
    """On PostgreSQL the daemons share the schedules of ``stop`` and ``occupancy``."""
    rates = _rates(config) | {USER_LIST: USER_LISTS_PER_SECOND}
    paces = {name: Pace[int](rate, clock=clock) for name, rate in rates.items()}
    if calls.engine.dialect.name == "postgresql":
        paces |= {
            name: Pace[int](rates[name], schedule=_schedule(name, calls), clock=clock) for name in (STOP, OCCUPANCY)
        }
    return paces


def _schedule(kind: str, calls: Storage) -> Schedule[int]:
    async def schedule(app_id: int, /, seconds: float, catch_up_seconds: float) -> float:
        begins_at, now = await calls.pace.reserve(app_id, kind, seconds, catch_up_seconds)
        calls.clock.synchronise(now)
        # By the quickest reading of the clock: each answer has its own delay, and would shift the slots by it.
        return (begins_at - calls.clock.now()).total_seconds()

    return schedule


def _occupancy(base: _Base) -> tuple[Bots | None, Occupancy | None]:
    if not base.config.zego.rtc_url:
        return None, None
    bots = Bots(base.config.zego.bot_user_ids, base.zego, base.paces[USER_LIST], base.clock)
    paces = base.paces
    return bots, Occupancy(base.zego, paces[OCCUPANCY], base.storage.clock, bots=bots, background=paces[BACKGROUND])


def _poller(base: _Base, occupancy: Occupancy | None) -> Poller | None:
    every_seconds = base.config.schedule.occupancy_poll_seconds
    if occupancy is None or every_seconds <= 0:
        return None
    return Poller(
        polling=base.storage.polling,
        occupancy=occupancy,
        apps=app_ids(base.config),
        every_seconds=every_seconds,
        clock=base.clock,
    )


def _stopping(base: _Base, occupancy: Occupancy | None, on_progress: Callable[[], None]) -> tuple[Workload, Stopper]:
    settings, apps, pace = stop_settings(base.config), app_ids(base.config), base.paces[STOP]
    workload = Workload(apps=apps, pace=pace, current_policy=base.current_policy, settings=settings)
    verifier = Verifier(
        database_clock=base.storage.clock,
        occupancy=occupancy,
        feed=base.feed,
        guard=base.guard,
        blocks=base.blocks,
        current_policy=base.current_policy,
    )
    sender = Sender(
        answers=base.storage.answers,
        database_clock=base.storage.clock,
        zego=base.zego,
        pace=pace,
        blocks=base.blocks,
        workload=workload,
        current_policy=base.current_policy,
        settings=settings,
        clock=base.clock,
        observer=base.observer,
    )
    stopper = Stopper(
        tasks=base.storage.tasks,
        database_clock=base.storage.clock,
        verifier=verifier,
        sender=sender,
        blocks=base.blocks,
        workload=workload,
        settings=settings,
        clock=base.clock,
        on_progress=on_progress,
        observer=base.observer,
    )
    return workload, stopper


def _sweeper(base: _Base, workload: Workload, stopper: Stopper) -> Sweeper:
    return Sweeper(
        tasks=base.storage.tasks,
        database_clock=base.storage.clock,
        stopper=stopper,
        workload=workload,
        blocks=base.blocks,
        current_policy=base.current_policy,
        lease_seconds=base.config.stop.lease_seconds,
        instance=base.daemon.instance,
        clock=base.clock,
        observer=base.observer,
    )


def _callbacks(base: _Base) -> CallbackIntake:
    return CallbackIntake(
        store=base.storage.callbacks,
        secrets=callback_secrets(base.config),
        bot_user_ids=base.config.zego.bot_user_ids,
        discover=base.config.zego.discover,
        clock=base.clock,
        observer=base.observer,
    )


def _heartbeat(base: _Base, workload: Workload, poller: Poller | None) -> HeartbeatSender:
    return HeartbeatSender(
        heartbeats=base.storage.heartbeats,
        database_clock=base.storage.clock,
        instance=base.daemon,
        feed=base.feed,
        guard=base.guard,
        paces=base.paces.values(),
        current_policy=base.current_policy,
        workload=workload,
        poller=poller,
        observer=base.observer,
    )


def _retention(base: _Base) -> Retention:
    return Retention(
        retention=base.storage.retention,
        keep=Keep.of_days(base.config.retention.tasks_days, base.config.retention.attempts_days),
        instance=base.daemon.instance,
        clock=base.clock,
    )


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
    observer.show("apps_blocked", lambda: len(parts.blocks.blocked()))
    observer.show("callbacks", lambda: {(kind,): number for kind, number in parts.callbacks.responses.items()})
    observer.show("database_errors", lambda: parts.storage.threads.errors)
    observer.show("log_lines_dropped", writer.dropped_lines)
    observer.show("log_lines_suppressed", writer.suppressed_lines)
