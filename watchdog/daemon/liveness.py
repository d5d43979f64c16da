"""Tells the service manager that the daemon is ready, alive, reloading or stopping, and its status in one line.

    READY=1      after the first complete sweep, and after each reload
    WATCHDOG=1   after each complete sweep; a sweep that ends because the database is away counts as complete
    STATUS=      every few seconds, if it has changed

Pings by a timer would hide a loop that hangs or a sweep that never ends. But a sweep may take long for a good reason:
its database calls wait behind other calls, and each of these may run into its time-out. So a running sweep counts as
alive while database calls are pending and come back within their time-outs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from watchdog.clock import Clock, systemd_monotonic_usec
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import DatabaseError

STATUS_SECONDS: Final = 5.0
PING_SECONDS: Final = 1.0
"""Sweeps may come much faster than that."""

EXTEND_SECONDS: Final = 10.0
"""By how much to extend the stop time-out at a time while requests in flight finish."""

_LONGEST_SWEEP_SECONDS: Final = 600.0
_IDLE_TICKS: Final = 2
_STATUS_LIMIT: Final = 300


class Database(Protocol):
    """The state of the database calls."""

    @property
    def pending(self) -> int:
        """How many are running or waiting."""

    @property
    def answered_at(self) -> float:
        """When the last one came back, with or without an error (monotonic)."""


class ServiceStatus:
    """One daemon's reports to its service manager. ``status`` makes the line that ``systemctl status`` shows."""

    def __init__(
        self,
        manager: ServiceManager,
        clock: Clock,
        database: Database,
        *,
        call_seconds: float,
        status: Callable[[], str],
    ) -> None:
        """``call_seconds`` is the longest time that one database call may take, time-outs included."""
        self._manager = manager
        self._clock = clock
        self._database = database
        self.call_seconds = call_seconds
        self._status = status
        self._sweep_began: float | None = None
        self._idle_ticks = 0
        self._has_swept = False
        self._is_ready_said = False
        self._is_reloading = False
        self._said = ""
        self._said_at = self._pinged_at = clock.monotonic() - STATUS_SECONDS

    @property
    def sweep_seconds(self) -> float | None:
        """The longest time between two sweeps that the service manager accepts; None: it has no limit."""
        patience = self._manager.watchdog_seconds
        return None if patience is None else patience / 3

    @contextmanager
    def sweep(self) -> Iterator[None]:
        """Wrap each sweep in this. A sweep that ends with any error but a DatabaseError is not complete."""
        self._sweep_began, self._idle_ticks = self._clock.monotonic(), 0
        try:
            yield
        except DatabaseError:
            self._ping()
            raise
        finally:
            self._sweep_began = None
        self._ping()
        self._has_swept = True
        if not self._is_ready_said and not self._is_reloading:
            # If it is lost, repeat it after the next sweep: without it the service manager would end the daemon.
            self._is_ready_said = self._say(READY=1)

    def tick(self) -> None:
        """Call this once a second while a sweep runs."""
        if self._sweep_began is not None and self._is_waiting(self._sweep_began, self._clock.monotonic()):
            self._ping()
        self.refresh()

    def refresh(self) -> None:
        """Call this every few seconds: it sends the status if that has changed."""
        if self._clock.monotonic() - self._said_at >= STATUS_SECONDS and self._line() != self._said:
            self._say()

    def reloading(self) -> None:
        """Announce that the configuration is being read; ``reloaded`` must follow."""
        self._is_ready_said, self._is_reloading = False, True
        self._manager.notify(RELOADING=1, MONOTONIC_USEC=systemd_monotonic_usec())

    def reloaded(self) -> None:
        self._is_reloading = False
        if self._has_swept:
            self._is_ready_said = self._say(READY=1)

    def stopping(self) -> None:
        self._manager.notify(STOPPING=1, STATUS="ending; requests in flight may finish")

    def extend(self, seconds: float = EXTEND_SECONDS) -> None:
        """Ask for that much time to stop, from now."""
        self._manager.notify(EXTEND_TIMEOUT_USEC=round(seconds * 1_000_000))

    def _is_waiting(self, began: float, now: float) -> bool:
        """Whether the sweep waits for the database and nothing else."""
        self._idle_ticks += self._database.pending == 0
        alive_at = max(began, self._database.answered_at)
        return (
            self._idle_ticks < _IDLE_TICKS
            and now - alive_at <= self.call_seconds
            and now - began <= _LONGEST_SWEEP_SECONDS
        )

    def _ping(self) -> None:
        now = self._clock.monotonic()
        if now - self._pinged_at >= PING_SECONDS:
            self._pinged_at = now
            self._manager.notify(WATCHDOG=1)

    def _say(self, **fields: str | int) -> bool:
        self._said, self._said_at = self._line(), self._clock.monotonic()
        return self._manager.notify(**fields, STATUS=self._said)

    def _line(self) -> str:
        return self._status()[:_STATUS_LIMIT] if self._manager.is_there else ""
