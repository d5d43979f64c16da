"""Whether a request reaches the vendor after its sender has given it up: what the kernel still has, it sends again.

A program of its own, for a network namespace of its own (root): the vendor is behind a pair of interfaces, and the way
to it is a black hole for a while. It prints the TaskIds that arrived, and exits.

    unshare --net python -m tests.faults.late_arrival
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys

from watchdog.clock import SystemClock
from watchdog.errors import NoAnswer
from watchdog.zego.client import ZegoClient

VENDOR = "10.9.0.2"
DEADLINE_SECONDS = 1.0
HOLE_SECONDS = 2.0
LONG_ENOUGH_SECONDS = 5.0
"""The kernel's pauses double from 0.2 s: by then it has tried again after the hole."""

_CLONE_NEWNET = 0x40000000
_REPLY = b'HTTP/1.1 200 OK\r\ncontent-length: 39\r\n\r\n{"Code":0,"Message":"","RequestId":"1"}'


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def vendor(ready: int, wired: int) -> None:
    """Answer every request, in a namespace of our own, and print which task it was about."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET):
        raise OSError("no namespace")
    os.write(ready, b"!")
    os.read(wired, 1)
    run(f"ip addr add {VENDOR}/24 dev away")
    run("ip link set away up")
    with socket.create_server((VENDOR, 80)) as listening:
        os.write(ready, b"!")
        connection, _ = listening.accept()
        request = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                request += part
                # Head and body may come one by one.
                if request.endswith(b"}"):
                    sys.stdout.write(json.loads(request.partition(b"\r\n\r\n")[2])["TaskId"] + "\n")
                    sys.stdout.flush()
                    connection.sendall(_REPLY)
                    request = b""


async def play() -> None:
    clock = SystemClock()
    client = ZegoClient(
        {1: "made-up"}, asr_url=f"http://{VENDOR}/", rtc_url=None, timeout_seconds=DEADLINE_SECONDS, clock=clock
    )
    await client.stop_task(1, "in-time")
    run(f"ip route add blackhole {VENDOR}/32")
    with contextlib.suppress(NoAnswer):
        await client.stop_task(1, "late")
        raise AssertionError("there was to be no answer")
    await clock.sleep(HOLE_SECONDS - DEADLINE_SECONDS)
    run(f"ip route del blackhole {VENDOR}/32")
    await clock.sleep(LONG_ENOUGH_SECONDS)
    await client.aclose()


def main() -> None:
    ready_here, ready_there = os.pipe()
    wired_there, wired_here = os.pipe()
    child = os.fork()
    if not child:
        vendor(ready_there, wired_there)
        os._exit(0)
    try:
        os.read(ready_here, 1)
        run(f"ip link add here type veth peer name away netns {child}")
        run("ip addr add 10.9.0.1/24 dev here")
        run("ip link set here up")
        os.write(wired_here, b"!")
        os.read(ready_here, 1)
        asyncio.run(play())
    finally:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
