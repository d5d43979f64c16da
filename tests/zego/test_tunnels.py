"""TLS, directly and through a proxy: a proxy that fails or forges costs no more than its own requests."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from tests.support.clock import SettableClock
from tests.zego.test_client import APP_ID, SECRET, SUCCESS, http_reply, read_request, serving
from watchdog.core.model import Reply
from watchdog.errors import NoAnswer, NotSent
from watchdog.zego.client import ZegoClient

ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"
FORGED = http_reply(b'{"Code": 0, "Message": "", "RequestId": "forged"}')


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def environment(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def certified(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(http_reply(SUCCESS))


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(65536):
            writer.write(some)
    finally:
        writer.close()


class Proxy:
    """Makes tunnels to ``url``; the first ``broken`` of them get no TLS. ``writer`` writes to the last client."""

    writer: asyncio.StreamWriter

    def __init__(self, url: str, established: bytes = ESTABLISHED, broken: int = 0) -> None:
        self.port = int(url.rstrip("/").rpartition(":")[2])
        self.established = established
        self.broken = broken

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        await read_request(reader)
        writer.write(self.established)
        if self.broken:
            self.broken -= 1
            await reader.read(1)
            writer.write(b"no record of TLS at all")
            await reader.read()
            return
        vendor = await asyncio.open_connection("localhost", self.port)
        await asyncio.gather(pass_on(reader, vendor[1]), pass_on(vendor[0], writer))


@asynccontextmanager
async def client_through(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext | None = None
) -> AsyncIterator[ZegoClient]:
    """``context``: an https proxy's, so that there is TLS in TLS."""
    async with serving(proxy.converse, context) as url:
        scheme = "http" if context is None else "https"
        monkeypatch.setenv("https_proxy", url.replace("http://127.0.0.1", f"{scheme}://localhost"))
        async with client_for(f"https://localhost:{proxy.port}/") as client:
            yield client


@asynccontextmanager
async def client_for(url: str, *, encrypted: bool = True) -> AsyncIterator[ZegoClient]:
    url = url.replace("http://127.0.0.1", "https://localhost") if encrypted else url
    client = ZegoClient({APP_ID: SECRET}, asr_url=url, rtc_url=None, timeout_seconds=20.0, clock=SettableClock())
    try:
        yield client
    finally:
        await client.aclose()


async def stop(client: ZegoClient) -> Reply:
    return await client.stop_task(APP_ID, "task")


@pytest.mark.parametrize("nested", [False, True])
async def test_after_a_tunnel_without_tls_the_next_request_has_another(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, *, nested: bool
) -> None:
    """The library takes such a connection for busy for ever, so that its place never became free."""
    context = certified(authority)
    async with (
        serving(answer_all, context) as url,
        client_through(Proxy(url, broken=2), monkeypatch, context if nested else None) as client,
    ):
        for _ in range(2):
            with pytest.raises(NotSent):
                await stop(client)
        for _ in range(2):
            assert (await stop(client)).code == "0"


@pytest.mark.parametrize("nested", [False, True])
async def test_a_tunnel_that_breaks_after_the_request_left_is_no_answer(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, *, nested: bool
) -> None:
    context = certified(authority)

    async def spoil(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        proxy.writer.write(b"no record of TLS at all")
        await reader.read()

    async with serving(spoil, context) as url:
        proxy = Proxy(url)
        async with client_through(proxy, monkeypatch, context if nested else None) as client:
            with pytest.raises(NoAnswer):
                await stop(client)


@pytest.mark.parametrize("length", [len(ESTABLISHED), 1024, 2048, 4096, 65536])
async def test_what_a_proxy_says_in_clear_text_is_no_reply_of_zego(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    padding = b"" if length == len(ESTABLISHED) else b"X: " + b"x" * (length - len(ESTABLISHED) - 5) + b"\r\n"
    established = ESTABLISHED[:-2] + padding + b"\r\n"
    assert len(established) == length
    async with (
        serving(answer_all, certified(authority)) as url,
        client_through(Proxy(url, established + FORGED), monkeypatch) as client,
    ):
        for _ in range(2):
            with suppress(NotSent):
                assert (await stop(client)).request_id != "forged"


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("head_bytes", [None, 2043, 2048, 2053])
async def test_a_second_reply_to_one_request_is_no_reply_to_the_next(
    authority: trustme.CA, *, encrypted: bool, head_bytes: int | None
) -> None:
    """``head_bytes``: how long the first reply is; what is read at once ends before, after or in the second."""
    served = 0

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            await read_request(reader)
            served += 1
            body = b'{"Code": 0, "Message": "", "RequestId": "%d"}' % served
            padding = "x" * (head_bytes - len(http_reply(body, "X: "))) if head_bytes is not None else ""
            writer.write(http_reply(body, f"X: {padding}") + FORGED)

    tls = certified(authority) if encrypted else None
    async with serving(vendor, tls) as url, client_for(url, encrypted=encrypted) as client:
        assert [(await stop(client)).request_id for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("only_half", [True, False])
async def test_a_new_connection_that_closes_before_its_request_leaves_is_not_sent(
    authority: trustme.CA, *, encrypted: bool, only_half: bool
) -> None:
    """As no answer, a task that is gone later would count as stopped by this request."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)
        assert not await reader.read()

    async def gate() -> None:
        writer = await accepted.get()
        if only_half and writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
        for _ in range(50):
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, so that the end arrives

    tls = certified(authority) if encrypted else None
    async with serving(vendor, tls) as url, client_for(url, encrypted=encrypted) as client:
        with pytest.raises(NotSent):
            await client.stop_task(APP_ID, "task", gate=gate)
