"""Tells the service manager that the daemon is ready, alive, reloading or stopping, and its status in one line.

    READY=1      after the first complete sweep, and after each reload
    WATCHDOG=1   after each complete sweep; a sweep that ends because the database is away counts as complete
    STATUS=      every few seconds, if it has changed

Pings by a timer would hide a loop that hangs or a sweep that never ends. But a sweep may take long for a good reason:
its database calls wait behind other calls, and each of these may run into its time-out. So a running sweep counts as
alive while database calls are pending and come back within their time-outs.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
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


@dataclass(eq=False, repr=False)
class ServiceStatus:
    """One daemon's reports to its service manager. ``status`` makes the line that ``systemctl status`` shows.

    ``call_seconds`` is the longest time that one database call may take, time-outs included.
    """

    manager: ServiceManager
    clock: Clock
    database: Database
    _: KW_ONLY
    call_seconds: float
    status: Callable[[], str]
    _sweep_began: float | None = field(init=False, default=None)
    _idle_ticks: int = field(init=False, default=0)
    _has_swept: bool = field(init=False, default=False)
    _is_ready_said: bool = field(init=False, default=False)
    _is_reloading: bool = field(init=False, default=False)
    _said: str = field(init=False, default="")
    _said_at: float = field(init=False, default=-math.inf)
    _pinged_at: float = field(init=False, default=-math.inf)

    @property
    def sweep_seconds(self) -> float | None:
        """The longest time between two sweeps that the service manager accepts; None: it has no limit."""
        patience = self.manager.watchdog_seconds
        return None if patience is None else patience / 3

    @contextmanager
    def sweep(self) -> Iterator[None]:
        """Wrap each sweep in this. A sweep that ends with any error but a DatabaseError is not complete."""
        self._sweep_began, self._idle_ticks = self.clock.monotonic(), 0
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
        if self._sweep_began is not None and self._is_waiting(self._sweep_began, self.clock.monotonic()):
            self._ping()
        self.refresh()

    def refresh(self) -> None:
        """Call this every few seconds: it sends the status if that has changed."""
        if self.clock.monotonic() - self._said_at >= STATUS_SECONDS and self._line() != self._said:
            self._say()

    def reloading(self) -> None:
        """Announce that the configuration is being read; ``reloaded`` must follow."""
        self._is_ready_said, self._is_reloading = False, True
        self.manager.notify(RELOADING=1, MONOTONIC_USEC=systemd_monotonic_usec())

    def reloaded(self) -> None:
        self._is_reloading = False
        if self._has_swept:
            self._is_ready_said = self._say(READY=1)

    def stopping(self) -> None:
        self.manager.notify(STOPPING=1, STATUS="ending; requests in flight may finish")

    def extend(self, seconds: float = EXTEND_SECONDS) -> None:
        """Ask for that much time to stop, from now."""
        self.manager.notify(EXTEND_TIMEOUT_USEC=round(seconds * 1_000_000))

    async def keep_extending(self) -> None:
        """Ask for time again and again, until cancelled."""
        while True:
            self.extend()
            await self.clock.sleep(EXTEND_SECONDS / 5)

    def _is_waiting(self, began: float, now: float) -> bool:
        """Whether the sweep waits for the database and nothing else."""
        self._idle_ticks += self.database.pending == 0
        alive_at = max(began, self.database.answered_at)
        return (
            self._idle_ticks < _IDLE_TICKS
            and now - alive_at <= self.call_seconds
            and now - began <= _LONGEST_SWEEP_SECONDS
        )

    def _ping(self) -> None:
        now = self.clock.monotonic()
        if now - self._pinged_at >= PING_SECONDS:
            self._pinged_at = now
            self.manager.notify(WATCHDOG=1)

    def _say(self, **fields: str | int) -> bool:
        self._said, self._said_at = self._line(), self.clock.monotonic()
        return self.manager.notify(**fields, STATUS=self._said)

    def _line(self) -> str:
        return self.status()[:_STATUS_LIMIT] if self.manager.is_there else ""
