"""All metrics, and the page that shows them. ``docs/metrics.md`` explains each to operators.

``Metrics`` is the daemon's ``Observer``: it counts events as they happen. The values of ``SHOWN`` are read at a scrape.
Those that come from the database are read by ``services.figures`` from time to time, so no scrape uses the database.
"""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchdog import __version__
from watchdog.clock import Clock
from watchdog.core.model import Ending, Outcome, Reason
from watchdog.core.webhook import Result
from watchdog.observer import Observer, Reading
from watchdog.store.engine import SQLITE_VERSION

PREFIX: Final = "zego_watchdog_"

RENDER_SECONDS: Final = 1.0
"""How old a page may be: it is rendered at most this often."""

_OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"

_LATENESS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 60, 120)
_MARGIN: Final = (0, 5, 10, 20, 30, 45, 60, 75, 90, 105, 120, 150, 300, 600, 1800)
_REQUEST: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15)
_SWEEP: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

_DAEMONS_REASONS: Final = tuple(reason for reason in Reason if reason is not Reason.MANUAL)
"""The reasons for stops of the daemon's own; the series of manual stops appears with the first one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric that is read at a scrape; ``counts`` marks a counter, which only grows."""

    name: str
    explanation: str
    labels: tuple[str, ...] = ()
    counts: bool = False


SHOWN: Final = (
    Shown("tasks", "Tasks in the table, by status.", ("status",)),
    Shown("oldest_empty_room_seconds", "For how long the room of an active task has been empty, at most."),
    Shown("oldest_evidence_seconds", "Age of the oldest evidence of who is in the room of an active task."),
    Shown("unknown_rooms", "Active tasks of whose rooms nothing is known."),
    Shown("tasks_too_old", "Active tasks older than policy.max_age_seconds, as last counted."),
    Shown("due_tasks", "Active tasks whose time has come and that no daemon holds; counted up to 10000."),
    Shown("due_lag_seconds", "For how long the longest of the due tasks has been waiting."),
    Shown("rejoined_stops", "Stops of the last 24 hours after which people came back to the room."),
    Shown("events_pending", "Events that wait for their delivery by webhook; counted up to 10000."),
    Shown("events_undelivered", "Events whose delivery was given up; counted up to 10000."),
    Shown("oldest_pending_event_seconds", "Age of the oldest event that waits for its delivery."),
    Shown("daemons_alive", "Daemons on this database, this one included."),
    Shown("feed_dead", "1 while tasks are active and no evidence of any kind arrives."),
    Shown("database_refreshed_timestamp_seconds", "When the figures of active tasks were last read to the end."),
    Shown("sqlite_wal_bytes", "Size of SQLite's write-ahead log; a reader that does not end lets it grow."),
    Shown("guard_tripped", "1 while nothing is stopped on hints alone, because too many rooms read empty at once."),
    Shown("guard_held_tasks", "Tasks that the guard has held back within the last minute."),
    Shown("apps_blocked", "AppIds whose credentials or configuration ZEGO refuses at present."),
    Shown("pace_requests_per_second", "Requests that may leave at present, by AppId.", ("pace", "app_id")),
    Shown("last_sweep_timestamp_seconds", "When the last sweep was over."),
    Shown("database_up", "0 while the database is away or refuses a statement, as the daemon's jobs see it."),
    Shown("database_errors", "Statements that the database failed or refused.", counts=True),
    Shown("callbacks", "Callbacks, by what they were answered.", ("answer",), counts=True),
    Shown("webhook_suspended", "1 while nothing is delivered, because the webhook's receiver answered 410."),
    Shown("log_lines_dropped", "Log lines lost because nobody took them.", counts=True),
    Shown("log_lines_suppressed", "Repetitions of warnings and errors, counted instead of written.", counts=True),
    Shown("config_last_reload_successful", "0 when the last reload of the configuration was refused."),
)


class Metrics(Observer):
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        # The start time of each series would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self.registry = CollectorRegistry()
        self._shown: dict[str, Reading | Callable[[], Reading]] = {shown.name: None for shown in SHOWN}
        self._attempts = self._counter(
            "attempts", "Rows of the ledger that this daemon wrote or closed, by final outcome.", "outcome", "reason"
        )
        self._lateness = self._histogram(
            "stop_lateness_seconds", "From a task's due time to its first request.", _LATENESS
        )
        self._margin = self._histogram(
            "stop_margin_seconds", "From a successful stop to ZEGO's own; 0 when it came later.", _MARGIN
        )
        self._freed = self._counter(
            "slot_seconds_freed", "Seconds between stops and ZEGO's own, as far as there is one to compare with."
        )
        self._spells = self._counter("empty_spells", "Empty spells of rooms that ended, by how.", "ending")
        self._requests = self._histogram(
            "vendor_request_seconds", "From a request to its answer, or to giving up.", _REQUEST, "operation"
        )
        self._replies = self._counter(
            "vendor_replies",
            "ZEGO's answers, by what they mean; not_sent and no_answer are those that did not come.",
            *("operation", "class"),
        )
        self._sweep = self._histogram("sweep_seconds", "How long a sweep took.", _SWEEP)
        self._deliveries = self._counter(
            "webhook_deliveries", "Attempts to deliver an event to the webhook, by what came of them.", "result"
        )
        self._reloads = self._counter("config_reloads", "Reloads of the configuration.", "result")
        Info(PREFIX + "build", "What is running.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version(), "sqlite": SQLITE_VERSION}
        )
        # A rate needs the 0 before the first event.
        for outcome, reason in product(Outcome, _DAEMONS_REASONS):
            if outcome is not Outcome.SENT:
                self._attempts.labels(outcome, reason)
        for result in ("ok", "refused"):
            self._reloads.labels(result)
        for ending in Ending:
            self._spells.labels(ending)
        for delivery in Result:
            self._deliveries.labels(delivery)
        self.show("config_last_reload_successful", 1)
        self.registry.register(_Live(self._shown))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _counter(self, name: str, explanation: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, explanation, labels, registry=self.registry)

    def _histogram(self, name: str, explanation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, explanation, labels, buckets=buckets, registry=self.registry)

    def attempt(self, outcome: Outcome, reason: Reason) -> None:
        self._attempts.labels(outcome, reason).inc()

    def sent(self, seconds_after_due: float) -> None:
        self._lateness.observe(seconds_after_due)

    def stopped(self, seconds_before_auto_stop: float) -> None:
        # A histogram with a sum has no negative values.
        self._margin.observe(max(0.0, seconds_before_auto_stop))

    def freed(self, slot_seconds: float) -> None:
        self._freed.inc(slot_seconds)

    def spells_ended(self, ending: Ending, number: int) -> None:
        self._spells.labels(ending).inc(number)

    def request(self, operation: str, reply_class: str, seconds: float) -> None:
        self._requests.labels(operation).observe(seconds)
        self._replies.labels(operation, reply_class).inc()

    def swept(self, seconds: float, at: float) -> None:
        self._sweep.observe(seconds)
        self.show("last_sweep_timestamp_seconds", at)

    def delivery(self, result: Result) -> None:
        self._deliveries.labels(result).inc()

    def reloaded(self, *, successful: bool) -> None:
        self._reloads.labels("ok" if successful else "refused").inc()
        self.show("config_last_reload_successful", float(successful))

    def show(self, name: str, value: Reading | Callable[[], Reading]) -> None:
        if name not in self._shown:
            raise KeyError(f"there is no metric {name} to show")
        self._shown[name] = value


class _Live(Collector):
    def __init__(self, shown: dict[str, Reading | Callable[[], Reading]]) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        for shown in SHOWN:
            value = self._shown[shown.name]
            reading = value() if callable(value) else value
            kind = CounterMetricFamily if shown.counts else GaugeMetricFamily
            family = kind(PREFIX + shown.name, shown.explanation, labels=shown.labels)
            if isinstance(reading, float | int):
                family.add_metric([], reading)
            elif reading is not None:
                for labels, number in sorted(reading.items()):
                    family.add_metric(labels, number)
            yield family


@dataclass(frozen=True, slots=True)
class Page:
    """One format of the metrics, as of a moment of the monotonic clock."""

    content_type: str
    body: bytes
    made_at: float


@dataclass(eq=False)
class Exposition:
    """The metrics in the format that a scraper asks for; rendered in the event loop, which takes little time."""

    registry: CollectorRegistry
    clock: Clock
    _pages: dict[str, Page] = field(init=False, default_factory=dict)

    def page(self, accept: str) -> Page:
        """The page for an Accept header, at most ``RENDER_SECONDS`` old: OpenMetrics, or the older text format."""
        # Only two formats: the header's details would be echoed, and each variant kept.
        encode, content_type = choose_encoder(_OPEN_METRICS if _OPEN_METRICS.partition(";")[0] in accept else "")
        now = self.clock.monotonic()
        page = self._pages.get(content_type)
        if page is None or now - page.made_at >= RENDER_SECONDS:
            page = self._pages[content_type] = Page(content_type, encode(self.registry), now)
        return page
