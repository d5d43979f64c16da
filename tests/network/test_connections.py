"""The transport of many connections: how many there are, which goes first, and when one is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2 as httpx
import pytest

from watchdog.network import connections
from watchdog.network.connections import Connections


class Server:
    """Answers each request with the number of its connection, when it may."""

    def __init__(self) -> None:
        self.url = ""
        self.accepted = 0
        self.open = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Semaphore(0)
        self._changed = asyncio.Event()

    async def has_left(self, number: int) -> None:
        """Wait until only so many connections are open."""
        async with asyncio.timeout(10):
            while self.open > number:
                self._changed.clear()
                await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        number = str(self.accepted).encode()
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.release()
                await self.may_answer.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self._changed.set()
            writer.close()


@asynccontextmanager
async def serving(limit: int) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    transport = Connections(lambda: httpx.AsyncHTTPTransport(limits=one), limit)
    async with listening, httpx.AsyncClient(transport=transport) as client:
        yield server, client


async def ask(server: Server, client: httpx.AsyncClient, number: int) -> list[str]:
    """Ask so often at a time; return which connections answered."""
    server.may_answer.clear()
    asking = [asyncio.create_task(client.get(server.url)) for _ in range(number)]
    for _ in range(number):
        async with asyncio.timeout(10):
            await server.asked.acquire()
    server.may_answer.set()
    return sorted(answer.text for answer in await asyncio.gather(*asking))


async def test_the_connection_that_was_used_last_goes_first() -> None:
    async with serving(8) as (server, client):
        assert await ask(server, client, 3) == ["1", "2", "3"]
        (last,) = await ask(server, client, 1)
        assert await ask(server, client, 1) == [last]
        assert server.accepted == 3


async def test_at_most_so_many_at_a_time_and_whoever_waits_too_long_is_told() -> None:
    async with serving(1) as (server, client):
        server.may_answer.clear()
        asking = asyncio.create_task(client.get(server.url))
        async with asyncio.timeout(10):
            await server.asked.acquire()
        with pytest.raises(httpx.PoolTimeout):
            await client.get(server.url, timeout=httpx.Timeout(10, pool=0.01))
        waiting = asyncio.create_task(client.get(server.url))
        server.may_answer.set()
        assert [answer.text for answer in await asyncio.gather(asking, waiting)] == ["1", "1"]


async def test_connections_that_are_not_needed_are_closed_one_after_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(8) as (server, client):
        await ask(server, client, 4)
        monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", -1.0)
        for _ in range(6):
            await ask(server, client, 1)
        await server.has_left(1)


async def test_the_end_closes_all_of_them() -> None:
    async with serving(8) as (server, client):
        await ask(server, client, 4)
        await client.aclose()
        await server.has_left(0)
