"""The service under a real systemd, from the first start to a power cut. The tests share one machine, in this order."""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.machine import Machine, clock, until
from tests.system.service import DATABASE, UNIT, configuration, configure, install, restarted
from tests.system.vendor import Backend, Vendor

TIMES = 5
WATCHDOG_SECONDS = 15
IMPATIENT = "/etc/systemd/system/zego-watchdog.service.d/impatient.conf"
# The way from outside into the event loop: what a defect would do, done by a signal. No part of the product.
BLOCKER = "import signal; signal.signal(signal.SIGUSR1, lambda *_: __import__('time').sleep(600))\n"


@pytest.fixture(scope="module")
def backend(machine: Machine, vendor: Vendor, package: Path) -> Backend:
    """Install, configure and start the service; return the backend beside it."""
    install(machine, package)
    machine.systemctl("stop", UNIT)
    configure(machine, configuration())
    (library,) = machine.path("/opt/zego-watchdog/lib").glob("python3.*/site-packages")
    (library / "zz-blocker.pth").write_text(BLOCKER)
    machine.systemctl("start", UNIT)
    return Backend(vendor, machine.path(DATABASE))


def restarts(machine: Machine) -> int:
    return int(machine.property(UNIT, "NRestarts"))


def test_it_starts_and_stops_what_is_abandoned(machine: Machine, backend: Backend) -> None:
    backend.expect_stopped(backend.abandon(5))
    assert machine.property(UNIT, "SubState") == "running"
    assert machine.property(UNIT, "StatusText")
    assert machine.property(UNIT, "DynamicUser") == "yes"
    # Root's own commands find configuration and database.
    assert "stopped" in machine.run("zego-watchdog", "history").stdout


def test_people_are_left_alone(backend: Backend) -> None:
    task = backend.start()
    room = next(event["room_id"] for event in backend.vendor.log() if event.get("task_id") == task)
    backend.vendor.tell("join", room=room, user="alice")
    backend.leave([task])
    until("it is spared", lambda: backend.outcomes(task) == ["spared"])
    backend.vendor.tell("leave", room=room, user="alice")


def test_how_long_a_start_takes(machine: Machine, backend: Backend, figure: Callable[[str], None]) -> None:
    del backend
    taken = []
    for _ in range(TIMES):
        machine.systemctl("stop", UNIT)
        began = clock.monotonic()
        # Returns at READY=1, which follows the first completed sweep.
        machine.systemctl("start", UNIT)
        taken.append(clock.monotonic() - began)
    figure(f"systemctl start to READY: {statistics.median(taken):.2f} s (median of {TIMES}: {spread(taken)})")
    assert max(taken) < 20


def test_it_survives_being_killed(machine: Machine, backend: Backend, figure: Callable[[str], None]) -> None:
    taken = []
    before = restarts(machine)
    for _ in range(TIMES):
        tasks = backend.abandon(2)
        killed = clock.monotonic()
        machine.kill(UNIT, "SIGKILL")
        taken.append(restarted(machine, UNIT, killed))
        backend.expect_stopped(tasks)
    assert restarts(machine) == before + TIMES
    median = statistics.median(taken)
    figure(f"kill -9 to the first completed sweep: {median:.2f} s (median of {TIMES}: {spread(taken)})")
    assert max(taken) < 20


def spread(taken: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in sorted(taken))


@pytest.mark.parametrize(
    ("what", "name", "traceback"),
    [
        ("it is frozen", "SIGSTOP", ""),
        ("its event loop is blocked", "SIGUSR1", "in <lambda>"),
    ],
)
def test_the_watchdog_ends_it_when(
    machine: Machine, backend: Backend, figure: Callable[[str], None], what: str, name: str, traceback: str
) -> None:
    before, so_far = restarts(machine), len(machine.journal(UNIT))
    began = clock.monotonic()
    machine.kill(UNIT, name)
    tasks = backend.abandon(2)
    taken = restarted(machine, UNIT, began, seconds=WATCHDOG_SECONDS + 30)
    assert taken > WATCHDOG_SECONDS / 2
    assert restarts(machine) == before + 1
    said = machine.journal(UNIT)[so_far:]
    assert "Watchdog timeout" in said
    # PYTHONFAULTHANDLER: where it hung is on record.
    assert re.search(traceback, said)
    backend.expect_stopped(tasks)
    figure(f"{what}, to the first sweep after it: {taken:.1f} s (WatchdogSec={WATCHDOG_SECONDS}s)")


def test_a_good_configuration_is_reloaded(machine: Machine, backend: Backend) -> None:
    pid = machine.main_pid(UNIT)
    reload(machine, configuration(policy={"mode": "observe"}), "reloaded")
    (task,) = backend.abandon()
    until("only observed", lambda: backend.outcomes(task) == ["would_stop"])
    reload(machine, configuration(), "reloaded")
    backend.expect_stopped(backend.abandon())
    assert machine.main_pid(UNIT) == pid


def test_a_bad_configuration_is_refused_and_the_old_one_stays(machine: Machine, backend: Backend) -> None:
    pid = machine.main_pid(UNIT)
    bad = configuration().replace("grace_seconds: 1\n", "grace_secnds: 1\n")
    assert bad != configuration()
    said = reload(machine, bad, "refused")
    assert "grace_secnds" in said
    assert machine.property(UNIT, "ActiveState") == "active"
    assert machine.main_pid(UNIT) == pid
    backend.expect_stopped(backend.abandon())
    assert "refused" in reload(machine, bad.replace("mode: enforce", "mode: [cut"), "refused")
    reload(machine, configuration(), "reloaded")


def reload(machine: Machine, text: str, word: str) -> str:
    """Have another configuration read; return what the journal says of it, as soon as ``word`` is in it."""
    so_far = len(machine.journal(UNIT))
    machine.write("/etc/zego-watchdog/config.yaml", text)
    machine.systemctl("reload", UNIT)
    said = ""

    def is_said() -> bool:
        nonlocal said
        said = machine.journal(UNIT)[so_far:]
        return word in said

    until(f"the journal says {word}", is_said)
    return said


def test_it_ends_in_time_with_requests_in_flight(
    machine: Machine, backend: Backend, figure: Callable[[str], None]
) -> None:
    # Less than the requests take: the daemon asks for more time, and gets it.
    machine.write(IMPATIENT, "[Service]\nTimeoutStopSec=2s\n")
    machine.systemctl("daemon-reload")
    backend.vendor.tell("misbehave", action="StopRealtimeASRTask", reply_latency_seconds=[4, 4])
    tasks = backend.abandon(8)
    until("requests are in flight", lambda: any("sent" in backend.outcomes(task) for task in tasks))
    began = clock.monotonic()
    machine.systemctl("stop", UNIT)
    taken = clock.monotonic() - began
    assert machine.property(UNIT, "Result") == "success"
    assert 2 < taken < 20
    # What had left was waited for, and its answer is on record.
    assert not any("sent" in backend.outcomes(task) for task in tasks)
    assert any(backend.have_ended([task]) for task in tasks)
    backend.vendor.tell("behave")
    machine.path(IMPATIENT).unlink()
    machine.systemctl("daemon-reload")
    machine.systemctl("start", UNIT)
    backend.expect_stopped(tasks)
    figure(f"systemctl stop with 8 requests in flight, answered after 4 s: {taken:.1f} s")


@pytest.mark.parametrize("how", ["shut down", "without power"])
def test_it_works_on_after_the_machine_was(machine: Machine, backend: Backend, how: str) -> None:
    backend.vendor.tell("misbehave", action="StopRealtimeASRTask", latency_seconds=[1, 1], reply_latency_seconds=[1, 1])
    tasks = backend.abandon(4)
    until("requests are in flight", lambda: any("sent" in backend.outcomes(task) for task in tasks))
    if how == "shut down":
        machine.power_off()
    else:
        machine.cut_power()
    backend.vendor.tell("behave")
    tasks += backend.abandon(2)
    machine.boot()
    assert machine.property(UNIT, "ActiveState") in {"activating", "active"}
    backend.expect_stopped(tasks, seconds=60)


def test_it_is_well_fenced_in(machine: Machine, figure: Callable[[str], None]) -> None:
    said = machine.run("systemd-analyze", "security", "--no-pager", UNIT).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    figure(f"systemd-analyze security: {found[1]}")
    assert float(found[1]) <= 1.5, said


def test_at_the_end_the_ledger_agrees_with_what_happened(
    machine: Machine, backend: Backend, figure: Callable[[str], None]
) -> None:
    del machine
    verdict = backend.judge()
    figure(f"the sandbox's verdict: {verdict.summary()}")
    assert verdict.disagreements == ()
    assert verdict.wrong_stops == ()
    assert verdict.missed == ()
    # One was spared. The observed one was stopped once the mode was enforce again.
    assert verdict.stopped_in_time == len(backend.started) - 1
