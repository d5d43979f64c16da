"""The report of the page, made by ``zego-watchdog report`` in a process of its own.

A report may need a hundred megabytes and some seconds of a processor: so the memory is given back, and no stop waits
for Python's lock.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from watchdog.config.settings import DatabaseConfig
from watchdog.core.model import Mode
from watchdog.errors import DatabaseError, DatabaseUnavailable, TooSlow

LONGEST_SECONDS: Final = 60.0
_OURS: Final = "ZEGO_WATCHDOG_"


class ReportProcess:
    """``make`` may be called again while it runs; ``end`` ends all that run."""

    def __init__(self, database: DatabaseConfig, *, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest_seconds = longest_seconds
        self._running: set[asyncio.subprocess.Process] = set()
        # Not as arguments, which everybody on this machine can read: the URL may have a password.
        self._settings = {
            f"{_OURS}CONFIG": os.devnull,
            # Enforce mode would want ZEGO's secrets, which a report does not need.
            f"{_OURS}POLICY__MODE": Mode.OBSERVE,
            f"{_OURS}DATABASE__URL": database.sqlalchemy_url.get_secret_value(),
            f"{_OURS}DATABASE__STATEMENT_TIMEOUT_SECONDS": str(database.statement_timeout_seconds),
            f"{_OURS}DATABASE__CONNECT_TIMEOUT_SECONDS": str(database.connect_timeout_seconds),
            f"{_OURS}DATABASE__TRANSACTION_POOLING": str(database.transaction_pooling).lower(),
        }

    async def make(self, language: str) -> bytes:
        """Return the report of the last seven days; ``language`` is a tag such as zh-CN. Raises DatabaseError."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "watchdog", "report", "--html", "-"),
            *("--lang", "zh" if language.startswith("zh") else "en"),
            env=others | self._settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._running.add(process)
        try:
            async with asyncio.timeout(self._longest_seconds):
                report, said = await process.communicate()
        except TimeoutError:
            _end(process)
            await process.communicate()
            raise TooSlow(f"the report was not complete after {self._longest_seconds:g} s") from None
        finally:
            self._running.discard(process)
            _end(process)
        if process.returncode == 0:
            return report
        reason = said.decode(errors="replace").strip().removeprefix("zego-watchdog: ")
        kind = DatabaseUnavailable if process.returncode == DatabaseUnavailable.exit_code else DatabaseError
        raise kind(reason or f"the report's process ended with {process.returncode}")

    def end(self) -> None:
        for process in self._running:
            _end(process)


def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()
