"""The report of the page comes from a process of its own; whatever becomes of that, the daemon goes on."""

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.running import eventually
from watchdog.config.settings import DatabaseConfig
from watchdog.daemon.report_process import ReportProcess
from watchdog.errors import DatabaseError, TooSlow
from watchdog.store import schema
from watchdog.store.engine import open_engine


@pytest.fixture
def database(database_url: str) -> DatabaseConfig:
    engine = open_engine(database_url, must_exist=False)
    schema.migrate(engine)
    engine.dispose()
    return DatabaseConfig(url=SecretStr(database_url))


async def test_it_makes_one_in_each_language(database: DatabaseConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # The daemon's own variables are not for this process.
    monkeypatch.setenv("ZEGO_WATCHDOG_POLICY__MODE", "nonsense")
    reports = ReportProcess(database)
    english, chinese = await asyncio.gather(reports.make("en"), reports.make("zh-CN"))
    assert b'<html lang="en">' in english
    assert "报告".encode() in chinese


async def test_what_went_wrong_is_told_without_the_password(tmp_path: Path) -> None:
    address = f"postgresql://somebody:hush@{tmp_path.name}.invalid/nothing"
    reports = ReportProcess(DatabaseConfig(url=SecretStr(address), connect_timeout_seconds=1))
    with pytest.raises(DatabaseError, match=r"^PostgreSQL postgresql") as raised:
        await reports.make("en")
    assert "hush" not in str(raised.value)


async def test_one_that_takes_too_long_is_ended(database: DatabaseConfig) -> None:
    reports = ReportProcess(database, longest_seconds=0.01)
    with pytest.raises(TooSlow, match=r"the report was not complete after 0\.01 s"):
        await reports.make("en")


async def test_none_is_left_when_the_daemon_ends(database: DatabaseConfig) -> None:
    reports = ReportProcess(database)
    making = asyncio.create_task(reports.make("en"))
    await eventually("it has begun", lambda: len(reports._running) == 1)
    (process,) = reports._running
    reports.end()
    with pytest.raises(DatabaseError, match="the report's process ended with -9"):
        await making
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
