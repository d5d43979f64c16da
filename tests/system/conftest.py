"""A machine for each module, what plays ZEGO beside it, and the journal wherever a test fails."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

import watchdog
from tests.system.machine import Machine
from tests.system.service import UNIT
from tests.system.vendor import Vendor

ROOT = Path(__file__).parent.parent.parent
_FIGURES = pytest.StashKey[list[str]]()
_machines: list[Machine] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_FIGURES] = []
    if "SYSTEM_TESTS" not in os.environ:
        pytest.exit("these tests boot a container, in namespaces of their own; run: make system-test", returncode=4)


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the Debian package that was built last."""
    found = list((ROOT / "dist").glob(f"zego-watchdog_{watchdog.__version__}_*.deb"))
    assert len(found) == 1, f"{len(found)} packages in dist; run: make deb"
    return found[0]


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Yield a machine that has booted, with nothing of ours on it."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    made = Machine(tmp_path_factory.mktemp(name) / "machine", name)
    _machines.append(made)
    try:
        made.boot()
        yield made
    finally:
        _machines.remove(made)
        made.discard()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """Yield what plays ZEGO."""
    running = Vendor(tmp_path_factory.mktemp("vendor"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what takes a measured figure, to be shown at the end."""
    return request.config.stash[_FIGURES].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_FIGURES]:
        terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    del item, call
    report = yield
    if report.failed:
        for machine in _machines:
            for title, command in (
                ("journal", ("journalctl", "--no-pager", "--lines=80", "--unit=zego-watchdog*")),
                ("status", ("systemctl", "--no-pager", "status", UNIT)),
            ):
                try:
                    said = machine.run(*command, check=False).stdout
                except AssertionError as error:
                    said = f"{error}\n{machine.console()}"
                report.sections.append((f"{title} of the machine", said))
    return report
