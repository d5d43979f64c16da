"""Connections over real sockets: kept, used again, given up in time, and never lost."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpcore2
import httpx2
import pytest

from watchdog.clock import SystemClock
from watchdog.zego.connection_pool import ERRORS, Connections

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request; counts connections, and says how many are open."""

    def __init__(self) -> None:
        self.accepted = 0
        self.open = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        self._writers.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self.hold.wait()
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with listening:
        yield server


def client(most: int, *, keepalive_seconds: float = 60.0, pool_seconds: float = 5.0) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=Connections(most, keepalive_seconds=keepalive_seconds), timeout=httpx2.Timeout(5, pool=pool_seconds)
    )


async def until(happened: Callable[[], bool]) -> None:
    """Give sockets a moment to notice what the other side has done."""
    async with asyncio.timeout(5):
        while not happened():
            await SystemClock().sleep(0.01)


async def test_one_after_another_needs_one_connection() -> None:
    async with serving() as server, client(8) as ours:
        for _ in range(20):
            assert (await ours.get(server.url)).text == "ok"
        assert server.accepted == 1


async def test_no_more_at_a_time_than_allowed_and_all_come_through() -> None:
    async with serving() as server, client(4) as ours:
        answers = await asyncio.gather(*(ours.get(server.url) for _ in range(50)))
        assert [answer.text for answer in answers] == ["ok"] * 50
        assert server.accepted == 4


async def test_who_waits_too_long_for_a_slot_is_told_that_nothing_was_sent() -> None:
    async with serving() as server, client(1, pool_seconds=0.05) as ours:
        server.hold.clear()
        first = asyncio.create_task(ours.get(server.url))
        await until(lambda: server.accepted == 1)
        with pytest.raises(httpx2.PoolTimeout):
            await ours.get(server.url)
        server.hold.set()
        assert (await first).text == "ok"
        assert (await ours.get(server.url)).text == "ok"


async def test_cancelled_requests_give_their_slots_back() -> None:
    """What httpx 0.28 got wrong: every later request timed out."""
    async with serving() as server, client(3) as ours:
        for _ in range(5):
            server.hold.clear()
            waiting = [asyncio.create_task(ours.get(server.url)) for _ in range(9)]
            await until(lambda: server.open == 3)
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            server.hold.set()
            await until(lambda: server.open == 0)
        answers = await asyncio.gather(*(ours.get(server.url) for _ in range(9)))
        assert [answer.text for answer in answers] == ["ok"] * 9


async def test_what_is_opened_for_a_request_that_was_given_up_is_closed_at_once() -> None:
    """The library drops a connection whose request is cancelled in its TLS handshake, and sometimes before."""
    async with serving() as server, client(2) as ours:
        server.hold.clear()
        url = server.url.replace("http", "https", 1)
        gc.collect()
        gc.disable()  # no finalizer is to do what has to be done before
        try:
            for turns in range(30):
                asking = asyncio.create_task(ours.get(url))
                for _ in range(turns):
                    await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
                asking.cancel()
                await asyncio.wait([asking])
                assert asking.cancelled()
            assert server.accepted
            server.hold.set()
            await until(lambda: server.open == 0)
        finally:
            gc.enable()


async def test_an_error_costs_one_connection_and_no_slot() -> None:
    async with serving() as server, client(1) as ours:
        for _ in range(3):
            with pytest.raises(httpx2.ConnectError):
                await ours.get("http://127.0.0.1:1/")
        assert (await ours.get(server.url)).text == "ok"


async def test_what_has_been_idle_for_too_long_is_closed() -> None:
    async with serving() as server, client(4, keepalive_seconds=0.05) as ours:
        await asyncio.gather(*(ours.get(server.url) for _ in range(8)))
        assert server.open == 4
        await SystemClock().sleep(0.1)
        await ours.get(server.url)
        await until(lambda: server.open == 1)


async def test_closing_closes_all() -> None:
    async with serving() as server:
        ours = client(4)
        await asyncio.gather(*(ours.get(server.url) for _ in range(8)))
        server.hold.clear()
        late = asyncio.create_task(ours.get(server.url))
        await SystemClock().sleep(0.05)
        await ours.aclose()
        server.hold.set()
        assert (await late).text == "ok"
        await until(lambda: server.open == 0)


async def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    async with serving() as server, client(1) as ours:
        assert (await ours.get(server.url)).text == "ok"
        server.hang_up()
        await until(lambda: server.open == 0)
        assert (await ours.get(server.url)).text == "ok"
        assert server.accepted == 2


async def test_a_reply_that_is_not_read_to_its_end_costs_one_connection_and_no_slot() -> None:
    async with serving() as server, client(1) as ours:
        for _ in range(2):
            async with ours.stream("GET", server.url):
                pass
        assert (await ours.get(server.url)).text == "ok"
        assert server.accepted == 3


def test_every_error_of_a_connection_has_its_counterpart() -> None:
    general = {httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError}
    concrete = {
        error
        for error in vars(httpcore2).values()
        if isinstance(error, type) and issubclass(error, tuple(general)) and error not in general
    }
    assert concrete | {httpcore2.ProxyError, httpcore2.UnsupportedProtocol} == set(ERRORS)
    assert all(theirs.__name__ == ours.__name__ for theirs, ours in ERRORS.items())
