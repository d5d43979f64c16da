"""What the service manager hears: over a real datagram socket, with a clock turned by hand."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notify_socket import Ear
from watchdog.daemon.sd_notify import ServiceManager


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
