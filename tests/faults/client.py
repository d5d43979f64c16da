"""What asks a daemon's HTTP server: monitoring, load balancers, and those who send callbacks."""

import asyncio
import http.client
import socket
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from tests.faults.harness import Daemon
from watchdog.clock import SystemClock

LISTEN: Mapping[str, object] = {"listen": "127.0.0.1:0"}
"""A daemon's section ``http``: whichever port is free."""


def address(daemon: Daemon) -> tuple[str, int]:
    """Where the daemon listens, by its own log."""
    parts = urlsplit(str(daemon.events("started")[-1]["http"]))
    return str(parts.hostname), int(parts.port or 0)


def request(
    where: tuple[str, int],
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 10,
) -> tuple[int, str]:
    """Return status and body; blocking."""
    connection = http.client.HTTPConnection(*where, timeout=seconds)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def metric(where: tuple[str, int], name: str, label: str = "") -> float:
    """Return the sum of a metric's samples, of those with this label only if one is named; blocking."""
    _, page = request(where, "GET", "/metrics")
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.split("{")[0].split(" ")[0] == name and label in line and not line.startswith("#")
    ]
    assert values, f"{name} is not among the metrics:\n{page}"
    return sum(values)


class Pulse:
    """Asks for ``/healthz`` again and again, and keeps the longest time that an answer took."""

    def __init__(self, daemon: Daemon) -> None:
        self._where = address(daemon)
        self._asking: asyncio.Task[None] | None = None
        self.longest_seconds = 0.0
        self.answers = 0

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        clock = SystemClock()
        while True:
            began = clock.monotonic()
            await asyncio.to_thread(request, self._where, "GET", "/healthz", seconds=30)
            self.longest_seconds = max(self.longest_seconds, clock.monotonic() - began)
            self.answers += 1
            await clock.sleep(0.1)


def hanging(where: tuple[str, int], head: bytes) -> socket.socket:
    """Begin a request that never ends; who closes the socket ends it."""
    connection = socket.create_connection(where, timeout=10)
    connection.sendall(head)
    return connection
