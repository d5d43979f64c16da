"""The database's outages, as the daemon's jobs see them."""

from collections.abc import Awaitable, Callable

import structlog

from watchdog.errors import DatabaseError

log = structlog.get_logger(__name__)


class DatabaseOutage:
    """Runs jobs; logs once when the database fails one of them, and once when all of those have succeeded again."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        """The jobs whose last run the database failed."""
        self.problem = ""

    @property
    def is_on(self) -> bool:
        return bool(self._failed)

    async def run(self, name: str, run: Callable[[], Awaitable[float]], retry_seconds: Callable[[], float]) -> float:
        """Run a job; returns the seconds to wait, ``retry_seconds`` after a DatabaseError."""
        try:
            again = await run()
        except DatabaseError as error:
            if not self.is_on:
                log.error("database_away", error=str(error))
            self._failed.add(name)
            self.problem = str(error)
            return retry_seconds()
        if self.is_on:
            self._failed.discard(name)
            if not self._failed:
                log.info("database_back")
        return again
