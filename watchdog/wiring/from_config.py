"""Single parts and values from a configuration; for the daemon and for commands that need only one of them."""

import os
import secrets
import socket

import httpx2 as httpx

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.config.settings import Config
from watchdog.core.guard import Limits
from watchdog.core.policy import Policy
from watchdog.observer import Observer
from watchdog.services.claims import StopSettings
from watchdog.services.notifier import Notifications
from watchdog.services.occupancy import BACKGROUND_CALLS
from watchdog.store.records import Instance
from watchdog.webhook.client import Target
from watchdog.zego.client import ZegoClient


def rules(config: Config) -> Policy:
    return config.policy.rules


def limits(config: Config) -> Limits:
    return Limits(**config.guard.model_dump())


def stop_settings(config: Config) -> StopSettings:
    return StopSettings(
        concurrency=config.stop.concurrency,
        request_timeout_seconds=config.stop.request_timeout_seconds,
        lease_seconds=config.stop.lease_seconds,
        max_attempts=config.stop.max_attempts,
    )


def app_ids(config: Config) -> list[int]:
    return [app.app_id for app in config.zego.apps]


def server_secrets(config: Config) -> dict[int, str]:
    return {app.app_id: app.secret.get_secret_value() for app in config.zego.apps}


def callback_secrets(config: Config) -> dict[int, list[str]]:
    return {app.app_id: [secret.get_secret_value() for secret in app.callback_secrets] for app in config.zego.apps}


def silence_seconds(config: Config) -> float:
    """After how long without any hint the feed of hints counts as dead."""
    polling = config.schedule.occupancy_poll_seconds
    if config.zego.rtc_url and polling > 0:
        return max(config.policy.gap_seconds, 3 * polling)
    # Without polling, rooms in which nothing happens are silent for long, and older hints are not trusted anyway.
    return config.policy.hint_max_age_seconds


def zego_client(
    config: Config,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
    observer: Observer | None = None,
) -> ZegoClient:
    return ZegoClient(
        server_secrets(config),
        asr_url=config.zego.asr_url,
        urls=config.zego.urls.model_dump(),
        rtc_url=config.zego.rtc_url or None,
        timeout_seconds=config.stop.request_timeout_seconds,
        clock=clock,
        transport=transport,
        max_connections=2 * config.stop.concurrency + BACKGROUND_CALLS,
        observer=observer,
    )


def notifications(config: Config) -> Notifications:
    target = Target(
        url=config.notify.url.get_secret_value(),
        keys=config.notify.signing_keys,
        timeout_seconds=config.notify.request_timeout_seconds,
        concurrency=config.notify.concurrency,
        allowed_networks=config.notify.allowed_networks,
    )
    has_target = bool(config.notify.host)
    types = {name.value: has_target for name in config.notify.types}
    return Notifications(types, target if has_target else None)


def identity(config: Config) -> Instance:
    """The identity of this process; unique, so that two processes never share a claim token."""
    host = socket.gethostname()
    return Instance(
        instance=f"{host}-{os.getpid()}-{secrets.token_hex(4)}",
        host=host,
        pid=os.getpid(),
        version=__version__,
        mode=config.policy.mode.value,
    )
