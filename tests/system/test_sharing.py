"""A SQLite file that the application writes, too, as docs/operations.md has it: with pip, then with the package.

One machine, in this order. The application is a user without rights; it speaks the README's three statements.
"""

import shutil
from pathlib import Path

import pytest

from tests.docs.test_operations_docs import BLOCKS
from tests.system.machine import Machine, until
from tests.system.service import UNIT, configuration, configure, install
from tests.system.test_roads import PROGRAM, VENV, WHEELS
from tests.system.vendor import Database, Vendor

FOLDER = "/srv/app"
FILE = f"{FOLDER}/zego-watchdog.db"
(PAGE,) = (block.text for block in BLOCKS if block.heading == "A SQLite file that the application writes, too")
INSERT = "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)"
UPDATE = "UPDATE zego_tasks SET user_count = ? WHERE room_id = ? AND status = 'active'"
RELEASE = "UPDATE zego_tasks SET status = 'released' WHERE task_id = ?"
APPLICATION = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
print(connection.execute("PRAGMA journal_mode").fetchone()[0])
with connection:
    connection.execute(sys.argv[2], sys.argv[3:])
# Not closed: -wal and -shm stay behind, with this user as their owner, as after a crash.
import os; os._exit(0)
"""


def as_the_application(machine: Machine, statement: str, *values: str) -> None:
    """As a user that has neither root's rights nor the daemon's, with the usual umask."""
    user = ("setpriv", "--reuid=shop", "--regid=shop", "--init-groups", "sh", "-c", 'umask 022; exec "$@"', "sh")
    machine.run(*user, "/usr/bin/python3", "-c", APPLICATION, FILE, statement, *values)


def abandon(machine: Machine, vendor: Vendor, room: str) -> str:
    task = str(vendor.tell("start", room=room)["task_id"])
    as_the_application(machine, INSERT, task, room)
    as_the_application(machine, UPDATE, "2", room)
    as_the_application(machine, UPDATE, "0", room)
    return task


def check_both_directions(machine: Machine, vendor: Vendor, name: str) -> None:
    """What the application inserts is stopped; it writes while the daemon runs, and while it does not."""
    database = Database(machine.path(FILE))
    task, kept = abandon(machine, vendor, f"{name}-1"), str(vendor.tell("start", room=f"{name}-2")["task_id"])
    until("it is stopped", lambda: database.statuses()[task] == "stopped", seconds=60)
    as_the_application(machine, INSERT, kept, f"{name}-2")
    as_the_application(machine, RELEASE, kept)
    assert database.statuses()[kept] == "released"
    check_files(machine)
    machine.systemctl("stop", UNIT)
    later = abandon(machine, vendor, f"{name}-3")
    check_files(machine)
    machine.systemctl("start", UNIT)
    until("that, too", lambda: database.statuses()[later] == "stopped", seconds=60)
    check_files(machine)


def check_files(machine: Machine) -> None:
    """The directory and all files of the database belong to the group, which may write them."""
    found = machine.run("sh", "-c", f"stat --format='%a %G %n' {FOLDER} {FOLDER}/*").stdout.splitlines()
    assert found[0] == f"2770 zego-watchdog {FOLDER}"
    assert f"660 zego-watchdog {FILE}" in found
    assert [line for line in found[1:] if not line.startswith("660 zego-watchdog ")] == []


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    shutil.copytree(WHEELS, machine.path("/srv/wheels"))
    machine.run("useradd", "--system", "--shell", "/usr/sbin/nologin", "shop")
    text = configuration(f"sqlite:///{FILE}")
    machine.write("/srv/config.yaml", text)
    machine.write("/usr/local/bin/editor", '#!/bin/sh\nexec cp /srv/config.yaml "$1"\n', 0o755)
    # A command that fails, where this directory is the first of PATH.
    machine.write("/srv/broken/systemd-sysusers", "#!/bin/sh\nexit 1\n", 0o755)
    return machine


def type_the_page(machine: Machine, program: str) -> None:
    """Each line once with a broken systemd-sysusers where it installs: the step is named, and repeating finishes it."""
    lines = PAGE.splitlines()
    (installing,) = (number for number, line in enumerate(lines) if " systemd install " in line)
    lines = [line.replace("zego-watchdog systemd", f"{program} systemd") for line in lines]
    for line in lines[:installing]:
        machine.run("bash", "-euc", line)
    failed = machine.run("bash", "-uc", f"PATH=/srv/broken:$PATH; {lines[installing]}", check=False)
    assert failed.returncode == 1
    assert "could not run systemd-sysusers" in failed.stderr
    for line in lines[installing:]:
        machine.run("bash", "-euc", line)


def test_with_pip(prepared: Machine, vendor: Vendor) -> None:
    prepared.run("/usr/bin/python3", "-m", "venv", VENV)
    prepared.run(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--find-links=/srv/wheels", "zego-watchdog")
    prepared.run("ln", "-s", PROGRAM, "/usr/local/bin/zego-watchdog")
    configure(prepared, configuration())
    type_the_page(prepared, PROGRAM)
    assert prepared.run(PROGRAM, "systemd", "install", f"--sqlite-dir={FOLDER}", "--yes").stdout == "Nothing to do.\n"
    check_both_directions(prepared, vendor, "pip")
    prepared.run(PROGRAM, "systemd", "uninstall", "--yes")
    prepared.run("sh", "-euc", f"rm -r {VENV} /usr/local/bin/zego-watchdog /etc/zego-watchdog")
    prepared.run("sh", "-euc", "gpasswd --delete shop zego-watchdog; userdel zego-watchdog")
    shutil.rmtree(prepared.path(FOLDER))


def test_with_the_package(prepared: Machine, vendor: Vendor, package: Path) -> None:
    install(prepared, package)
    configure(prepared, configuration())
    until("it runs", lambda: prepared.property(UNIT, "ActiveState") == "active")
    type_the_page(prepared, "zego-watchdog")
    assert prepared.property(UNIT, "DynamicUser") == "no"
    check_both_directions(prepared, vendor, "package")


def test_check_notices_a_file_that_the_services_user_may_not_write(prepared: Machine) -> None:
    def said() -> str:
        return prepared.run("zego-watchdog", "check", "--offline", check=False).stdout

    assert "its user zego-watchdog may write" in " ".join(said().split())
    prepared.run("chmod", "g-w", FOLDER)
    closed = " ".join(said().split())
    assert f"may not write {FOLDER}" in closed
    prepared.run("zego-watchdog", "systemd", "install", f"--sqlite-dir={FOLDER}", "--yes")
    assert "its user zego-watchdog may write" in " ".join(said().split())


def test_purging_the_package_leaves_the_applications_file(prepared: Machine) -> None:
    prepared.run("dpkg", "--purge", "zego-watchdog")
    assert Database(prepared.path(FILE)).statuses()
