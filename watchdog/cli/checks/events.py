"""Checks of the events: whether the database writes what the configuration says, and whether the webhook delivers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from watchdog.cli.checks.findings import Finding, ok, warn
from watchdog.config.settings import Config
from watchdog.store.records import EventCounts
from watchdog.store.reports.health import DaemonRow
from watchdog.wiring.from_config import notifications

_PENDING_SECONDS: Final = 900.0
"""An event that waits for so long is worth a warning: its receiver is down, or nobody delivers."""


def check_events(
    config: Config, found: Mapping[str, bool], counts: EventCounts, daemons: Sequence[DaemonRow]
) -> Iterator[Finding]:
    """Compare the configuration with ``found``, the types that the database writes; judge what waits."""
    wanted = notifications(config).types
    if config.notify.events:
        yield ok("events", _told(config))
    # A daemon writes its choice when it starts.
    if wanted != found and any(daemon.alive for daemon in daemons):
        differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        yield warn(
            "events",
            f"the running daemon has another notify section than this configuration: {', '.join(differing)}",
            "reload the daemon: systemctl reload zego-watchdog; give all daemons on a database the same section",
        )
    yield from judge_events(counts)


def judge_events(found: EventCounts) -> Iterator[Finding]:
    """Whether events wait for long, or were given up."""
    if found.oldest_pending_at is not None:
        seconds = (found.now - found.oldest_pending_at).total_seconds()
        if seconds > _PENDING_SECONDS:
            yield warn(
                "events",
                f"the oldest of {found.pending:,} events that wait for the webhook is {seconds / 60:.0f} minutes old",
                "zego-watchdog events shows what the receiver says; after a 410 correct it, then reload the daemon",
            )
    if found.undelivered:
        yield warn(
            "events",
            f"the delivery of {found.undelivered:,} events was given up",
            "list them: zego-watchdog events --undelivered; send one again: zego-watchdog events redeliver ID",
        )


def _told(config: Config) -> str:
    written = f"{len(config.notify.types)} types are written to zego_events"
    if not config.notify.host:
        return f"{written}; notify.url is empty: no webhook"
    secrets = "two secrets" if len(config.notify.signing_keys) > 1 else "one secret"
    return f"{written} and sent to {config.notify.host}, signed with {secrets}"
