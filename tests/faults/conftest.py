"""The stage of each test, the choice of tests, and the table at the end.

$FAULTS         set: every row runs, not only the quick ones (make faults)
$FAULTS_KILLS   how many kills the random ones are made of
$FAULTS_WRITE   set: the table goes into docs/reliability.md, too
"""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.harness import Nursery, Record, Stage

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fault(row, what, quick, halts): one row of the fault matrix; see docs/reliability.md"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("FAULTS"):
        return
    for item in list(items):
        marker = item.get_closest_marker("fault")
        if marker is not None and not marker.kwargs.get("quick"):
            items.remove(item)
            config.hook.pytest_deselected(items=[item])


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Yield this test process's own."""
    running = Nursery(tmp_path_factory.mktemp("nursery") / "stderr.log")
    yield running
    running.close()


@pytest.fixture
async def stage(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, nursery: Nursery
) -> AsyncIterator[Stage]:
    """Yield the stage, on each database in turn; its record is part of the test's report."""
    marker = request.node.get_closest_marker("fault")
    backend = "SQLite" if database_url.startswith("sqlite") else "PostgreSQL"
    record = Record(marker.args[0], marker.args[1], backend, marker.kwargs["halts"])
    made = Stage(tmp_path, database_url, nursery, record)
    request.node.stash[_RECORD] = record
    try:
        yield made
    finally:
        await made.close()


_RECORD = pytest.StashKey[Record]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Attach the record; it is read when the call is over."""
    record = item.stash.get(_RECORD, None)
    if record is not None:
        item.user_properties.append(("fault", record))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    del call
    result = yield
    result.user_properties = [
        (name, value.as_property() if isinstance(value, Record) else value) for name, value in item.user_properties
    ]
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    passed = [
        value
        for result in terminalreporter.stats.get("passed", ())
        for name, value in result.user_properties
        if name == "fault" and result.when == "call"
    ]
    if not passed or not os.environ.get("FAULTS"):
        return
    terminalreporter.section("what was injected, and how long recovery took")
    terminalreporter.write_line(report.as_text(passed))
    if not os.environ.get("FAULTS_WRITE") or hasattr(config, "workerinput"):
        # An xdist worker gets here as well, and knows only its own tests.
        return
    # So does an interrupted run.
    if exitstatus != pytest.ExitCode.OK or not _is_whole(config):
        terminalreporter.write_line(f"not written into {report.PAGE.name}: it takes a run of all rows, none failed")
    else:
        report.write(passed)
        terminalreporter.write_line(f"written into {report.PAGE.name}")


def _is_whole(config: pytest.Config) -> bool:
    return [Path(given).resolve() for given in config.args] == [HERE] and not (
        config.option.keyword or config.option.markexpr
    )
