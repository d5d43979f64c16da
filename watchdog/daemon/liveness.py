"""Telling the service manager how we are: ready, alive, reloading, ending, and in one line what there is to know.

    READY=1      when the first sweep has completed, and after each reload
    WATCHDOG=1   after each completed sweep; one that ended because the database is away is complete
    STATUS=      every few seconds, if it has changed

A ping of its own would hide a loop that hangs or a sweep that never ends. But a sweep may take long for a good reason:
it waits for a database that is away, behind others that wait for it too, one time-out after the other. So a sweep that
runs counts as alive while calls of the database are waited for, and come back, each within its time-outs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from watchdog.clock import Clock, systemd_monotonic_usec
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import DatabaseError

STATUS_SECONDS: Final = 5.0
PING_SECONDS: Final = 1.0
"""Sweeps may follow one another much faster than anybody wants to be told."""

EXTEND_SECONDS: Final = 10.0
"""How much more patience to ask for at a time while requests in flight finish."""

_LONGEST_SWEEP_SECONDS: Final = 600.0
_IDLE_TICKS: Final = 2
_STATUS_LIMIT: Final = 300


class Database(Protocol):
    """What must be known of the calls to the database."""

    @property
    def pending(self) -> int:
        """How many have been made and have not come back."""

    @property
    def answered_at(self) -> float:
        """When the last one came back, well or not (monotonic)."""


class Supervision:
    """One daemon's side of it. ``status`` composes the line that people read in ``systemctl status``."""

    def __init__(
        self,
        manager: ServiceManager,
        clock: Clock,
        database: Database,
        *,
        call_seconds: float,
        status: Callable[[], str],
    ) -> None:
        """``call_seconds`` is how long one call of the database may take at most, time-outs included."""
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
        """How often to sweep, at least, for the service manager not to lose patience; None: as you like."""
        patience = self._manager.watchdog_seconds
        return None if patience is None else patience / 3

    @contextmanager
    def sweep(self) -> Iterator[None]:
        """Around each sweep; one that ends by anything else than a DatabaseError is not complete."""
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
            # Lost, it is said again after the next sweep: whoever waits for it would end us otherwise.
            self._is_ready_said = self._say(READY=1)

    def tick(self) -> None:
        """To be called once a second while a sweep runs."""
        if self._sweep_began is not None and self._is_waiting(self._sweep_began, self._clock.monotonic()):
            self._ping()
        self.refresh()

    def refresh(self) -> None:
        """To be called every few seconds: say how we are, if that has changed."""
        if self._clock.monotonic() - self._said_at >= STATUS_SECONDS and self._line() != self._said:
            self._say()

    def reloading(self) -> None:
        """The configuration is about to be read again; ``reloaded`` must follow, whatever comes of it."""
        self._is_ready_said, self._is_reloading = False, True
        self._manager.notify(RELOADING=1, MONOTONIC_USEC=systemd_monotonic_usec())

    def reloaded(self) -> None:
        self._is_reloading = False
        if self._has_swept:
            self._is_ready_said = self._say(READY=1)

    def stopping(self) -> None:
        self._manager.notify(STOPPING=1, STATUS="ending; requests in flight may finish")

    def extend(self, seconds: float = EXTEND_SECONDS) -> None:
        """Ask for patience while ending: so much from now on."""
        self._manager.notify(EXTEND_TIMEOUT_USEC=round(seconds * 1_000_000))

    def _is_waiting(self, began: float, now: float) -> bool:
        """Whether what keeps the sweep is the database, and nothing else."""
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
