"""The transport to ZEGO: which proxy it uses, how it closes sockets, and that a cancelled request leaves none open."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.support.running import OTHER_KINDS
from watchdog.clock import SystemClock
from watchdog.errors import ConfigError
from watchdog.zego.client import ZegoClient
from watchdog.zego.transport import network_transport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server:
    """Keeps each connection until the client closes it; answers requests unless ``hold`` is cleared."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.open = 0
        self.resets = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            pass
        except ConnectionError:
            self.resets += 1
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with listening:
        yield server


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the event loop


async def get(url: str, reached: str = "") -> str:
    """Ask for ``url`` by the transport that is made for it; ``reached`` stands in for it on the wire."""
    transport = network_transport(httpx.URL(url), 4, None)
    async with httpx.AsyncClient(transport=transport) as client:
        return (await client.get(reached or url)).text


async def test_without_a_proxy_the_host_is_asked() -> None:
    async with serving() as server:
        assert await get(server.url) == "ok"
        assert server.heads[0].startswith("GET / ")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_the_environments_proxy_is_asked(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert await get("http://zego.test/") == "ok"
        assert proxy.heads[0].startswith("GET http://zego.test/ ")


async def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://").rstrip("/"))
        assert await get("http://zego.test/") == "ok"


async def test_no_proxy_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await get(server.url) == "ok"


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://somebody:made-up@proxy.test:1080",
        "ftp://somebody:made-up@proxy.test",
        "http://[made-up",
        "http://proxy:made-up",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ConfigError, match=r"proxy .* for zego\.test .*ALL_PROXY") as caught:
        network_transport(httpx.URL("https://zego.test/"), 4, None)
    assert "made-up" not in str(caught.value)


def test_nothing_that_is_not_encrypted_needs_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    url = "http://127.0.0.1:1/"
    urls = dict.fromkeys(OTHER_KINDS, url)
    ZegoClient({}, asr_url=url, rtc_url=url, urls=urls, timeout_seconds=1, clock=SystemClock())
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        ZegoClient({}, asr_url=url, rtc_url="https://zego.test/", urls=urls, timeout_seconds=1, clock=SystemClock())


async def test_closing_resets_so_that_nothing_is_delivered_later() -> None:
    async with serving() as server:
        transport = network_transport(httpx.URL(server.url), 1, None)
        await transport.handle_async_request(httpx.Request("GET", server.url))
        await transport.aclose()
        async with asyncio.timeout(60):
            while server.open:
                await turns(1)
        assert server.resets == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_request_that_is_cancelled_leaves_no_socket_open() -> None:
    """At every point from the connection's beginning to the middle of its TLS handshake.

    The library drops some of these sockets; their finalizers close them, with a warning, at the next collection.
    """
    async with serving() as server:
        transport = network_transport(httpx.URL(server.url), 2, None)
        url = server.url.replace("http", "https", 1)
        for number in range(30):
            await _ask_and_cancel(transport, url, number)
        # A collection takes long in a process that has run many tests.
        async with asyncio.timeout(60):
            while server.open:
                gc.collect()
                await turns(100)
        await transport.aclose()


async def _ask_and_cancel(transport: httpx.AsyncBaseTransport, url: str, number: int) -> None:
    asking = asyncio.create_task(transport.handle_async_request(httpx.Request("GET", url)))
    await turns(number)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def test_linger_is_what_the_kernel_is_asked_for() -> None:
    from watchdog.zego import transport  # noqa: PLC0415 - the one constant

    level, option, value = transport._RESET_ON_CLOSE
    with socket.socket() as sock:
        sock.setsockopt(level, option, value)
        assert sock.getsockopt(level, option, 8) == value
