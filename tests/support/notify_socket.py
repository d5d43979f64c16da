"""The service manager's end of NOTIFY_SOCKET, a real datagram socket; ``conftest`` loads the fixture."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


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
