"""The tests' databases, a SQLite file and a real PostgreSQL; and what is said where a program is missing."""

import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests.support import tools

# Examples have no deadline, because test machines are shared.
hypothesis.settings.register_profile("watchdog", deadline=None)
hypothesis.settings.load_profile("watchdog")

pytest_plugins = ["tests.support.notify_socket", "tests.support.postgresql", "tests.support.time_travel"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Under .ci/run, which installs everything, nothing may be missing."""
    del session
    if os.environ.get("CI") == "true" and (absent := tools.missing()):
        pytest.exit(
            f"CI lacks {', '.join(absent)}: {tools.apt_install(absent)}", returncode=pytest.ExitCode.USAGE_ERROR
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under .ci/run a skipped test has failed."""
    del item, call
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longreprtext}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", ())
    line = tools.skipped(report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple))
    if line is not None:
        terminalreporter.write_line(line)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the address of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'watchdog.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Run the test once on each database."""
    url = request.getfixturevalue(f"{request.param}_url")
    assert isinstance(url, str)
    return url
