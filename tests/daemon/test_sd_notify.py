"""What the service manager hears: over a real datagram socket, with a clock turned by hand."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.clock import SettableClock
from tests.support.running import APP_ID, SECRET
from tests.support.time_travel import World
from watchdog.config.settings import Config
from watchdog.daemon.lifecycle import Service
from watchdog.daemon.liveness import EXTEND_SECONDS, STATUS_SECONDS, Supervision
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import DatabaseUnavailable


class Ear:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[dict[str, str]]:
        """Return the messages since the last time."""
        messages = []
        with suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(65536).decode().splitlines()
                messages.append(dict(line.split("=", 1) for line in lines))
        return messages


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    one = Ear(str(tmp_path / "notify") if request.param == "path" else f"@zego-watchdog-{os.getpid()}-{tmp_path.name}")
    yield one
    one.socket.close()


def test_a_message_has_one_line_a_field(ear: Ear) -> None:
    assert ServiceManager(ear.environment).notify(READY=1, STATUS="two\nlines\r\nREADY=0 \N{SNOWMAN}")
    assert ear.heard() == [{"READY": "1", "STATUS": "two lines READY=0 \N{SNOWMAN}"}]


@pytest.mark.parametrize(
    "address", ["", "relative", "/nowhere/notify", "@nobody-listens", "vsock:2:1", "/" + "x" * 200]
)
def test_nobody_there_is_no_error(address: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address} if address else {})
    assert manager.notify(READY=1) is False


def test_a_manager_that_does_not_read_is_not_waited_for(ear: Ear) -> None:
    manager = ServiceManager(ear.environment)
    said = [manager.notify(STATUS="x" * 60_000) for _ in range(1000)]
    assert said[0]
    assert not said[-1]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "15000000"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_managers_patience(environment: dict[str, str], seconds: float | None) -> None:
    assert ServiceManager(environment).watchdog_seconds == seconds


# Sockets


def test_sockets_for_another_process_or_none_are_not_ours() -> None:
    assert ServiceManager({}).listening_sockets() == ()
    assert ServiceManager({"LISTEN_PID": "1", "LISTEN_FDS": "1"}).listening_sockets() == ()
    assert ServiceManager({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}).listening_sockets() == ()


PASSED = """
import os, sys
from watchdog.daemon.sd_notify import ServiceManager
for number, descriptor in enumerate(map(int, sys.argv[1:]), 3):
    os.dup2(descriptor, number)
passed = ServiceManager({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sys.argv) - 1)}).listening_sockets()
print(*(f"{one.family.name}:{one.fileno()}:{os.get_inheritable(one.fileno())}" for one in passed))
"""


def test_listening_stream_sockets_are_taken_and_nothing_else(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket() as unbound,
        (tmp_path / "file").open("wb") as file,
    ):
        unix.bind(str(tmp_path / "listen"))
        unix.listen()
        given = [one.fileno() for one in (tcp, datagrams, unbound, file, unix)]
        # Out of the way of the numbers that they are to have.
        moved = [os.dup2(descriptor, 50 + number) for number, descriptor in enumerate(given)]
        try:
            ran = subprocess.run(
                [sys.executable, "-c", PASSED, *map(str, moved)],
                pass_fds=moved,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            for descriptor in moved:
                os.close(descriptor)
    assert ran.stdout.split() == ["AF_INET:3:False", "AF_UNIX:7:False"]


# What is said when


class Calls:
    """The database's calls, as they are said to stand."""

    pending = 0
    answered_at = 0.0


class Scene:
    """A daemon's supervision, and who listens to it."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.clock = SettableClock()
        self.calls = Calls()
        self.status = "fine"
        manager = ServiceManager(ear.environment | {"WATCHDOG_USEC": "15000000"})
        self.supervision = Supervision(manager, self.clock, self.calls, call_seconds=40, status=lambda: self.status)

    def sweep(self, *, fails_with: Exception | None = None) -> None:
        with suppress(Exception), self.supervision.sweep():
            if fails_with is not None:
                raise fails_with

    def pings(self, seconds: int) -> int:
        """Let that many seconds pass, tick by tick; return how often it pinged."""
        pings = 0
        for _ in range(seconds):
            self.clock.advance(1)
            self.supervision.tick()
            # Each time: the socket holds ten messages.
            pings += sum("WATCHDOG" in message for message in self.ear.heard())
        return pings


@pytest.fixture
def scene(ear: Ear) -> Scene:
    return Scene(ear)


def test_ready_after_the_first_sweep_that_succeeds_and_once(scene: Scene) -> None:
    assert scene.pings(30) == 0
    scene.ear.heard()
    scene.sweep(fails_with=DatabaseUnavailable("away"))
    assert [set(message) for message in scene.ear.heard()] == [{"WATCHDOG"}]
    scene.clock.advance(5)
    scene.sweep()
    scene.clock.advance(5)
    scene.sweep()
    heard = scene.ear.heard()
    assert [message for message in heard if "READY" in message] == [{"READY": "1", "STATUS": "fine"}]
    assert sum("WATCHDOG" in message for message in heard) == 2


def test_ready_that_was_lost_is_said_again(scene: Scene) -> None:
    manager = ServiceManager(scene.ear.environment)
    while manager.notify(STATUS="x" * 60_000):
        pass
    scene.sweep()
    scene.ear.heard()
    scene.clock.advance(5)
    scene.sweep()
    assert {"READY": "1", "STATUS": "fine"} in scene.ear.heard()


def test_a_database_that_is_away_is_no_reason_to_be_ended(scene: Scene) -> None:
    for _ in range(100):
        scene.sweep(fails_with=DatabaseUnavailable("away"))
        scene.clock.advance(5)
        assert scene.ear.heard() == [{"WATCHDOG": "1"}]


def test_a_sweep_that_breaks_is_no_sign_of_life(scene: Scene) -> None:
    for _ in range(10):
        scene.sweep(fails_with=RuntimeError("a bug"))
        assert scene.pings(1) == 0


def test_sweeps_in_quick_succession_are_not_all_told(scene: Scene) -> None:
    for _ in range(100):
        scene.sweep()
        scene.clock.advance(0.02)
    assert sum("WATCHDOG" in message for message in scene.ear.heard()) <= 3


def test_a_sweep_that_waits_for_nothing_gets_no_ping(scene: Scene) -> None:
    with scene.supervision.sweep():
        assert scene.pings(60) <= 1


def test_a_sweep_behind_others_that_time_out_lives_and_one_behind_a_dead_call_does_not(scene: Scene) -> None:
    with scene.supervision.sweep():
        scene.calls.pending = 20
        for _ in range(20):
            # One after the other comes back, five seconds each.
            assert scene.pings(5) == 5
            scene.calls.pending -= 1
            scene.calls.answered_at = scene.clock.monotonic()
        scene.calls.pending = 1
        assert 35 <= scene.pings(60) <= 41
        assert scene.pings(600) == 0


def test_no_sweep_lasts_for_ever_whatever_it_waits_for(scene: Scene) -> None:
    with scene.supervision.sweep():
        scene.calls.pending = 1
        for _ in range(700):
            scene.calls.answered_at = scene.clock.monotonic()
            scene.pings(1)
        assert scene.pings(10) == 0


def test_the_status_is_said_when_it_has_changed_and_not_too_often(scene: Scene) -> None:
    scene.sweep()
    scene.ear.heard()
    said = []
    for second in range(60):
        scene.status = f"second {second}"
        scene.clock.advance(1)
        scene.supervision.tick()
        said += [message for message in scene.ear.heard() if "STATUS" in message]
    assert 10 <= len(said) <= 60 / STATUS_SECONDS
    scene.clock.advance(30)
    scene.supervision.tick()
    scene.ear.heard()
    scene.pings(30)
    assert scene.ear.heard() == []


def test_a_reload_is_announced_with_its_moment_and_ended_with_ready(scene: Scene) -> None:
    scene.sweep()
    scene.ear.heard()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    scene.supervision.reloading()
    # A sweep in between is no end of it.
    scene.sweep()
    scene.status = "the new configuration is refused"
    scene.supervision.reloaded()
    first, second = scene.ear.heard()
    assert first["RELOADING"] == "1"
    assert before <= int(first["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert second == {"READY": "1", "STATUS": "the new configuration is refused"}


def test_ending_is_announced_and_patience_asked_for(scene: Scene) -> None:
    scene.supervision.stopping()
    scene.supervision.extend()
    first, second = scene.ear.heard()
    assert first["STOPPING"] == "1"
    assert second == {"EXTEND_TIMEOUT_USEC": str(int(EXTEND_SECONDS * 1_000_000))}


def test_sweeps_are_asked_for_often_enough(scene: Scene) -> None:
    assert scene.supervision.sweep_seconds == 5


# The daemon's side


@pytest.fixture
async def service(ear: Ear, sqlite_world: World) -> AsyncIterator[Service]:
    config = Config.model_validate({"zego": {"apps": [{"app_id": APP_ID, "server_secret": SECRET}]}})
    one = Service(config, sqlite_world.clock, sqlite_world.engine, ServiceManager(ear.environment))
    yield one
    await one.parts.close()


async def test_the_status_follows_what_the_jobs_do(ear: Ear, sqlite_world: World, service: Service) -> None:
    await service._sweep_job._run()
    (ready,) = (message for message in ear.heard() if "READY" in message)
    assert "none due" in ready["STATUS"]
    sqlite_world.app.start("t", "room", user_count=1)
    sqlite_world.app.people("room", 0)
    sqlite_world.advance(STATUS_SECONDS)
    await service._sweep_job._run()
    (message,) = (message for message in ear.heard() if "STATUS" in message)
    assert "next due in" in message["STATUS"]


async def test_a_sweep_that_waits_for_the_database_is_seen_to_live(
    ear: Ear, sqlite_world: World, service: Service
) -> None:
    with service.supervision.sweep():
        service.parts.storage.pending = 1
        sqlite_world.advance(2)
        service._jobs.look()
        assert {"WATCHDOG": "1"} in ear.heard()
