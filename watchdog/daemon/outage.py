"""The database's outages, and the statements that it refuses, as the daemon's jobs see them."""

from collections.abc import Awaitable, Callable

import structlog

from watchdog.errors import DatabaseError, StatementRefused

log = structlog.get_logger(__name__)


class DatabaseOutage:
    """Runs jobs; logs once when the database fails one of them, and once when all of those have succeeded again.

    A statement that the database refuses is no outage: the database answers, and a right is missing.
    """

    def __init__(self) -> None:
        self._away: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        """The jobs whose last run failed, and why."""

    @property
    def is_on(self) -> bool:
        return bool(self._away)

    @property
    def is_refused(self) -> bool:
        """Whether the database refuses a statement of some job."""
        return bool(self._refused)

    @property
    def problem(self) -> str:
        """The last error; an outage comes before a refused statement. Empty if all is well."""
        return next(reversed((self._away or self._refused).values()), "")

    async def run(self, name: str, run: Callable[[], Awaitable[float]], retry_seconds: Callable[[], float]) -> float:
        """Run a job; returns the seconds to wait, ``retry_seconds`` after a DatabaseError."""
        try:
            again = await run()
        except StatementRefused as error:
            if name not in self._refused:
                log.error(
                    "statement_refused", job=name, error=str(error), next_step="which rights: zego-watchdog check"
                )
            self._put(self._refused, name, error)
            return retry_seconds()
        except DatabaseError as error:
            if not self.is_on:
                log.error("database_away", error=str(error))
            self._put(self._away, name, error)
            return retry_seconds()
        self._put({}, name, None)
        return again

    def _put(self, now: dict[str, str], name: str, error: DatabaseError | None) -> None:
        """Note the result of a job's run: it counts in ``now`` and no longer in the others."""
        was_on, was_refused = self.is_on, self.is_refused
        for jobs in (self._away, self._refused):
            jobs.pop(name, None)
        if error is not None:
            now[name] = str(error)
        if was_on and not self.is_on:
            log.info("database_back")
        if was_refused and not self.is_refused and error is None:
            log.info("statement_allowed")
