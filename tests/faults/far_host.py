"""A network whose far end falls silent."""

import itertools
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

_numbers = itertools.count(1)


_FORWARD = """
import asyncio, sys

async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    up, down = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(pump(reader, down), pump(up, writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 5432)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def can_make_networks() -> bool:
    """Whether this process may make network namespaces."""
    name = f"faults-{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class FarHost:
    """Another host, in a network namespace, whose port 5432 leads to the socket of a server on this one."""

    def __init__(self, socket: str) -> None:
        number = next(_numbers)
        self._name = f"f{os.getpid()}-{number}"
        self._near, self._far = f"fn{os.getpid()}{number}"[-15:], f"ff{os.getpid()}{number}"[-15:]
        subnet = f"10.{100 + number % 100}.{os.getpid() % 250}"
        self._us, self.address = f"{subnet}.1", f"{subnet}.2"
        self._socket = socket
        self._forwarding: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        _ip("addr", "add", f"{self._us}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        self._there("addr", "add", f"{self.address}/30", "dev", self._far)
        self._there("link", "set", self._far, "up")
        self._forwarding = subprocess.Popen(
            ["ip", "netns", "exec", self._name, sys.executable, "-c", _FORWARD, self.address, self._socket],
            stdout=subprocess.PIPE,
        )
        assert self._forwarding.stdout is not None
        assert self._forwarding.stdout.readline() == b"ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._forwarding is not None and self._forwarding.stdout is not None:
            self._forwarding.kill()
            self._forwarding.wait()
            self._forwarding.stdout.close()
        _ip("netns", "del", self._name)

    def fall_silent(self) -> None:
        """Lose everything that this host would send, from now on: every connection is half-open."""
        self._there("route", "add", "blackhole", f"{self._us}/32")

    def come_back(self) -> None:
        """Undo ``fall_silent``."""
        self._there("route", "del", "blackhole", f"{self._us}/32")

    def _there(self, *arguments: str) -> None:
        _ip("-n", self._name, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
