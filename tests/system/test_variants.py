"""Other ways to run it: instances, a database shared with the application, a socket that keeps callbacks waiting."""

import subprocess
from pathlib import Path

import pytest

from tests.support.running import APP_ID
from tests.system.machine import Machine, clock, until, wait
from tests.system.service import SOCKET_ADDRESS, UNIT, configuration, configure, install
from tests.system.vendor import SERVER_SECRET, Backend, Vendor, fetch

SHARED = "/srv/zego-watchdog/shop.db"
APPLICATION = """
import os, sqlite3, sys
os.umask(0o007)
with sqlite3.connect(sys.argv[1], timeout=10) as connection:
    connection.execute(sys.argv[2])
"""


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Install the package, and stop what that has started."""
    install(machine, package)
    machine.systemctl("disable", "--now", UNIT)
    return machine


def test_instances_keep_apart(installed: Machine, vendor: Vendor) -> None:
    backends = {}
    for name in ("north", "south"):
        database = f"sqlite:////var/lib/zego-watchdog-{name}/watchdog.db"
        configure(installed, configuration(database), instance=name)
        installed.systemctl("enable", "--now", f"zego-watchdog@{name}.service")
        backends[name] = Backend(vendor, installed.path(f"/var/lib/private/zego-watchdog-{name}/watchdog.db"))
    for backend in backends.values():
        backend.expect_stopped(backend.abandon(2))
    # Neither sees the other's files, though systemd gives all instances of a unit one user.
    pid = installed.main_pid("zego-watchdog@north.service")
    owner = installed.path("/var/lib/private/zego-watchdog-north").stat().st_uid
    seen = installed.run(
        *("nsenter", f"--target={pid}", "--mount", "setpriv", f"--reuid={owner}", "--clear-groups"),
        *("sh", "-c", "ls /var/lib/zego-watchdog-*/watchdog.db"),
        check=False,
    )
    assert seen.stdout.split() == ["/var/lib/zego-watchdog-north/watchdog.db"]
    installed.systemctl("stop", "zego-watchdog@north.service")
    left = backends["north"].abandon()
    backends["south"].expect_stopped(backends["south"].abandon())
    assert not backends["north"].have_ended(left)
    installed.systemctl("disable", "--now", "zego-watchdog@south.service")


def test_a_sqlite_file_shared_with_the_application(installed: Machine, vendor: Vendor) -> None:
    examples = "/usr/share/doc/zego-watchdog/examples"
    installed.run(
        *("sh", "-euc"),
        f"""
        install -D -m 644 {examples}/shared-sqlite.conf /etc/systemd/system/zego-watchdog.service.d/shared-sqlite.conf
        install -D -m 644 {examples}/zego-watchdog.sysusers.conf /etc/sysusers.d/zego-watchdog.conf
        systemd-sysusers
        useradd --system --shell /usr/sbin/nologin shop
        install -d -m 2770 -o shop -g zego-watchdog /srv/zego-watchdog
        usermod --append --groups zego-watchdog shop
        systemctl daemon-reload
        """,
    )
    # The file is the application's: it is there first.
    as_the_application(installed, "CREATE TABLE orders (id INTEGER)")
    installed.run("chmod", "660", SHARED)
    # A user that stays the same may have a file of its own.
    own_secret = "/etc/zego-watchdog/own_secret"
    installed.write(own_secret, SERVER_SECRET, 0o600)
    installed.run("chown", "zego-watchdog:", own_secret)
    apps = [{"app_id": APP_ID, "server_secret_file": own_secret}]
    configure(installed, configuration(f"sqlite:///{SHARED}", zego={"apps": apps}))
    installed.systemctl("start", UNIT)
    backend = Backend(vendor, installed.path(SHARED))
    task = backend.start()
    as_the_application(installed, "INSERT INTO orders VALUES (1)")
    as_the_application(installed, f"UPDATE zego_tasks SET user_count = 0 WHERE task_id = '{task}'")
    backend.expect_stopped([task])
    # Another secret, without a restart.
    pid = installed.main_pid(UNIT)
    installed.write(own_secret, "one that ZEGO does not take", 0o600)
    installed.systemctl("reload", UNIT)
    until("it is read", lambda: "zego.apps (secrets)" in installed.journal(UNIT))
    backend.abandon()
    until("ZEGO refuses it", lambda: "100000005" in installed.journal(UNIT))
    assert installed.main_pid(UNIT) == pid
    installed.systemctl("stop", UNIT)
    installed.path("/etc/systemd/system/zego-watchdog.service.d/shared-sqlite.conf").unlink()
    installed.systemctl("daemon-reload")


def as_the_application(machine: Machine, statement: str) -> None:
    """Execute it as a user that has neither root's rights nor the daemon's."""
    machine.run(
        *("setpriv", "--reuid=shop", "--regid=shop", "--init-groups"),
        *("/usr/bin/python3", "-c", APPLICATION, SHARED, statement),
    )


def test_a_callback_that_comes_during_a_restart_is_answered(installed: Machine, vendor: Vendor) -> None:
    configure(installed, configuration())
    installed.systemctl("start", "zego-watchdog.socket", UNIT)
    until("it answers", lambda: fetch(f"http://{SOCKET_ADDRESS}/healthz")[0] == 200)
    vendor.tell("send_callbacks", url=f"http://{SOCKET_ADDRESS}/callbacks/zego")
    before = installed.main_pid(UNIT)
    began, sent = clock.monotonic(), 0
    with subprocess.Popen([*installed.entered("systemctl", "restart", UNIT)]) as restart:
        while restart.poll() is None:
            vendor.tell("join", room="busy", user=f"user-{sent}")
            sent += 1
            wait(0.05)
    assert restart.returncode == 0
    assert clock.monotonic() - began < 60
    assert installed.main_pid(UNIT) != before
    # room_create, and room_login for everybody.
    until("all have had an answer", lambda: len(attempts(vendor)) > sent)
    assert {entry["status"] for entry in attempts(vendor)} <= {200, 204}
    assert {entry["attempt"] for entry in attempts(vendor)} == {1}
    # At least one came while nobody was there to take it.
    assert sent > 3


def attempts(vendor: Vendor) -> list[dict[str, object]]:
    return [entry for entry in vendor.log() if entry["event"] == "callback_sent"]


def test_a_callback_starts_the_service(installed: Machine) -> None:
    installed.systemctl("stop", UNIT)
    assert installed.property("zego-watchdog.socket", "ActiveState") == "active"
    status, _ = fetch(f"http://{SOCKET_ADDRESS}/healthz", seconds=30)
    assert status == 200
    until("it is ready", lambda: installed.property(UNIT, "ActiveState") == "active")
