"""The other road: a virtual environment of one's own, and `zego-watchdog systemd install`."""

import shutil
from pathlib import Path

import pytest

from tests.docs.test_operations_docs import BLOCKS
from tests.system.machine import Machine, until
from tests.system.service import DATABASE, UNIT, configuration, configure
from tests.system.vendor import Backend, Vendor

ROOT = Path(__file__).parent.parent.parent
# What the package was built from.
WHEELS = ROOT / "build/wheels"
VENV = "/usr/local/lib/zego-watchdog"
PROGRAM = f"{VENV}/bin/zego-watchdog"


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    """Install with pip, from wheels: the machine has no network."""
    assert WHEELS.is_dir(), "there are no wheels; run: make deb"
    shutil.copytree(WHEELS, machine.path("/srv/wheels"))
    machine.run("/usr/bin/python3", "-m", "venv", VENV)
    machine.run(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--find-links=/srv/wheels", "zego-watchdog")
    return machine


def test_without_yes_it_only_says_what_it_would_do(installed: Machine) -> None:
    said = installed.run(PROGRAM, "systemd", "install")
    assert "/etc/systemd/system/zego-watchdog.service" in said.stdout + said.stderr
    assert not installed.path("/etc/systemd/system/zego-watchdog.service").exists()


def test_a_program_that_the_service_could_not_see_is_refused(installed: Machine) -> None:
    installed.run("cp", "--archive", VENV, "/home/venv")
    refused = installed.run(
        PROGRAM, "systemd", "install", "--program=/home/venv/bin/zego-watchdog", "--yes", check=False
    )
    assert refused.returncode != 0
    assert not installed.path("/etc/systemd/system/zego-watchdog.service").exists()


def test_it_becomes_a_service_and_stops_what_is_abandoned(installed: Machine, vendor: Vendor) -> None:
    installed.run(PROGRAM, "systemd", "install", "--yes")
    until("it runs", lambda: installed.property(UNIT, "ActiveState") == "active")
    configure(installed, configuration())
    installed.systemctl("restart", UNIT)
    assert VENV in installed.property(UNIT, "ExecStart")
    backend = Backend(vendor, installed.path(DATABASE))
    backend.expect_stopped(backend.abandon(2))
    # Again, as after an upgrade: what is there stays.
    installed.run(PROGRAM, "systemd", "install", "--yes")
    assert installed.path("/etc/zego-watchdog/config.yaml").read_text() == configuration()


def test_it_ceases_to_be_one(installed: Machine) -> None:
    installed.run(PROGRAM, "systemd", "uninstall", "--yes")
    assert installed.property(UNIT, "LoadState") == "not-found"
    assert installed.path(DATABASE).exists()
    installed.run(PROGRAM, "systemd", "uninstall", "--purge", "--yes")
    assert not installed.path("/etc/zego-watchdog").exists()
    assert not installed.path(DATABASE).exists()


def test_as_the_page_has_it(installed: Machine) -> None:
    """From the wheels, not from the checkout: to build one takes a network. See tests/wheel_smoke.sh."""
    (page,) = (block.text for block in BLOCKS if block.heading == "Without the package")
    assert " constraints.txt .\n" in page
    shutil.copy(ROOT / "constraints.txt", installed.path("/srv"))
    typed = page.replace(" constraints.txt .\n", " constraints.txt zego-watchdog\n")
    installed.run("bash", "-euc", f"cd /srv\n{typed}", PIP_NO_INDEX="1", PIP_FIND_LINKS="/srv/wheels")
    until("it runs", lambda: installed.property(UNIT, "ActiveState") == "active")
    assert "/opt/zego-watchdog/bin" in installed.property(UNIT, "ExecStart")
