"""The webhook's client against real servers on this machine: good ones, slow ones, and those that mean harm."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

import pytest
import structlog
import trustme
from standardwebhooks import Webhook

from tests.support.clock import SettableClock
from tests.zego.test_client import Conversation, read_request, serving
from watchdog.clock import Clock, SystemClock
from watchdog.core.webhook import Result, Verdict, keys
from watchdog.errors import ConfigError
from watchdog.network.streams import Address
from watchdog.webhook.client import Target, WebhookClient

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type":"task.stopped"}'
ID = "zego_1_1"


@asynccontextmanager
async def client_to(
    url: str, *, clock: Clock | None = None, timeout_seconds: float = 5.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebhookClient]:
    client = WebhookClient(Target(url, keys(SECRET), timeout_seconds), clock or SettableClock(), tls=tls)
    try:
        yield client
    finally:
        await client.aclose()


class Receiver:
    """Answers each request with the same bytes and keeps the requests; one list for each connection."""

    def __init__(self, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n") -> None:
        self.answer = answer
        self.connections: list[list[tuple[str, bytes]]] = []

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[tuple[str, bytes]] = []
        self.connections.append(mine)
        while True:
            try:
                mine.append(await read_request(reader))
            except asyncio.IncompleteReadError:
                return
            writer.write(self.answer)


async def post_to(answer: bytes | Conversation, *, timeout_seconds: float = 5.0) -> Verdict:
    conversation = Receiver(answer).converse if isinstance(answer, bytes) else answer
    async with serving(conversation) as url, client_to(url, timeout_seconds=timeout_seconds) as client:
        return await client.post(ID, BODY)


def answer_of(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_request_is_what_the_specification_says() -> None:
    receiver = Receiver()
    async with serving(receiver.converse) as url, client_to(f"{url}hooks?token=t", clock=SystemClock()) as client:
        for _ in range(2):
            assert await client.post(ID, BODY) == Verdict(Result.DELIVERED)
    ((head, body), again), *others = receiver.connections
    assert (body, again[1], others) == (BODY, BODY, []), "the connection is used again"
    line, *fields = head.split("\r\n")
    assert line == "POST /hooks?token=t HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields if field)}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == ID
    assert Webhook(SECRET).verify(body, headers) == {"type": "task.stopped"}


async def test_the_timestamp_is_that_of_the_attempt() -> None:
    receiver, clock = Receiver(), SettableClock(1_700_000_000)
    async with serving(receiver.converse) as url, client_to(url, clock=clock) as client:
        await client.post(ID, BODY)
        clock.advance(100)
        await client.post(ID, BODY)
    stamps = [re.findall(r"webhook-timestamp: (\d+)", head)[0] for head, _ in receiver.connections[0]]
    assert stamps == ["1700000000", "1700000100"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (answer_of("200 OK", b"thanks"), Verdict(Result.DELIVERED)),
        (answer_of("500 Oh", b"no\n\x00 \xff"), Verdict(Result.REFUSED, "HTTP 500: no �")),
        (answer_of("410 Gone", b"bye"), Verdict(Result.SUSPENDED, "HTTP 410: bye")),
        (answer_of("429 Slow", b"", "Retry-After: 7"), Verdict(Result.BUSY, "HTTP 429", 7.0)),
        (
            answer_of(
                "503 S", b"", "Retry-After: Sun, 01 Mar 2026 12:00:09 GMT", "Date: Sun, 01 Mar 2026 12:00:00 GMT"
            ),
            Verdict(Result.BUSY, "HTTP 503", 9.0),
        ),
        (b"nonsense\r\n\r\n", Result.NO_ANSWER),
        (answer_of("500 E", b"x" * 3000), Verdict(Result.REFUSED, "HTTP 500: " + "x" * 200)),
    ],
)
async def test_answers(answer: bytes, verdict: Verdict | Result) -> None:
    found = await post_to(answer)
    assert (found.result if isinstance(verdict, Result) else found) == verdict


async def test_a_redirect_is_not_followed() -> None:
    receiver = Receiver()
    async with serving(receiver.converse) as other:
        found = await post_to(answer_of("307 There", b"", f"Location: {other}"))
    assert found == Verdict(Result.REFUSED, "HTTP 307 (redirects are not followed)")
    assert receiver.connections == []


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del writer
    await reader.read()


async def drip_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.01)  # noqa: TID251 - it is slow by the wall clock


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    del writer


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        await writer.drain()


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (hang, "no answer within 0.3 s"),
        (drip_head, "no answer within 0.3 s"),
        (close, ""),
        (flood, "more than 8 informational responses"),
    ],
)
async def test_what_does_not_answer_has_not_got_the_event(conversation: Conversation, reason: str) -> None:
    found = await post_to(conversation, timeout_seconds=0.3)
    assert found.result is Result.NO_ANSWER
    assert reason in (found.error or "")


@pytest.mark.parametrize(("status", "result"), [("200 OK", Result.DELIVERED), ("500 Oh", Result.REFUSED)])
async def test_of_a_gigabyte_little_is_taken_and_the_status_counts(status: str, result: Result) -> None:
    sent = 0

    async def overflow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(answer_of(f"{status}\r\nX: y").replace(b"Content-Length: 0", b"Content-Length: 1073741824"))
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    assert (await post_to(overflow)).result is result
    # What fits into the buffers of the kernel, on both sides.
    assert sent < 32 * 1024 * 1024


async def test_a_body_that_drips_holds_nobody_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await reader.read()

    async with asyncio.timeout(4):
        assert await post_to(drip, timeout_seconds=60) == Verdict(Result.DELIVERED)


async def test_nobody_there() -> None:
    async with serving(hang) as url:
        pass
    async with client_to(url) as client:
        found = await client.post(ID, BODY)
    assert found.result is Result.NO_ANSWER
    assert found.error is not None
    assert found.error.startswith(f"{urlsplit(url).netloc}: ")


async def test_a_connection_that_is_closed_when_it_is_used_again_costs_nothing() -> None:
    """Servers close idle connections; the event leaves again at once."""
    requests = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(answer_of("200 OK"))
        await read_request(reader)
        requests += 1

    async with serving(once) as url, client_to(url) as client:
        assert await client.post(ID, BODY) == Verdict(Result.DELIVERED)
        assert await client.post(ID, BODY) == Verdict(Result.DELIVERED)
    assert requests == 3


async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    server, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    receiver = Receiver()
    async with serving(receiver.converse, server) as plain:
        url = plain.replace("http:", "https:")
        async with client_to(url, tls=client_side) as client:
            found = await client.post(ID, BODY)
        assert found.result is Result.NO_ANSWER
        assert "certificate verify failed" in (found.error or "")
        assert not any(receiver.connections)
        authority.configure_trust(client_side)
        async with client_to(url, tls=client_side) as client:
            assert await client.post(ID, BODY) == Verdict(Result.DELIVERED)


class Resolver:
    """A DNS that gives one answer after another, as in DNS rebinding."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        address = self._addresses.pop(0)
        return await asyncio.get_running_loop().getaddrinfo(address, port, type=1)


async def post_by_name(
    resolve: Resolver | None, *allowed: IPv4Network | IPv6Network, host: str = "hooks.test"
) -> tuple[Verdict, Receiver]:
    receiver = Receiver()
    async with serving(receiver.converse) as url:
        target = Target(f"http://{host}:{urlsplit(url).port}/", keys(SECRET), 2.0, allowed_networks=allowed)
        client = WebhookClient(target, SettableClock(), resolve=resolve)
        found = await client.post(ID, BODY)
        await client.aclose()
    return found, receiver


async def test_a_name_that_leads_to_this_machine_is_refused() -> None:
    found, receiver = await post_by_name(Resolver("127.0.0.1"))
    assert found.result is Result.NO_ANSWER
    assert re.fullmatch(
        r"hooks\.test:\d+: hooks\.test leads to 127\.0\.0\.1, which is not public: if that is right, add its network "
        r"to notify\.allowed_networks",
        found.error or "",
    )
    assert receiver.connections == []


async def test_unless_its_network_is_allowed() -> None:
    found, _ = await post_by_name(Resolver("127.0.0.1"), IPv4Network("10.0.0.0/8"), IPv4Network("127.0.0.0/24"))
    assert found == Verdict(Result.DELIVERED)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    """DNS rebinding: the second answer would lead into this machine, and it is never asked for."""
    resolve = Resolver("192.0.2.1", "127.0.0.1")
    found, receiver = await post_by_name(resolve)
    # A documentation network is not public either.
    assert (found.result, resolve.asked, receiver.connections) == (Result.NO_ANSWER, ["hooks.test"], [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_what_the_operator_wrote_is_meant(host: str) -> None:
    found, _ = await post_by_name(None, host=host)
    assert found == Verdict(Result.DELIVERED)


async def test_an_address_in_an_unusual_spelling_is_a_name() -> None:
    found, receiver = await post_by_name(None, host="127.1")
    assert (found.result, receiver.connections) == (Result.NO_ANSWER, [])


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await post_to(answer_of("200 OK")) == Verdict(Result.DELIVERED)


async def test_no_secret_is_shown() -> None:
    url = "https://hooks.test/secret-path?token=secret-token"
    target = Target(url, keys(SECRET))
    client = WebhookClient(target, SettableClock(), tls=ssl.create_default_context(), resolve=Resolver("::1"))
    with structlog.testing.capture_logs() as logs:
        found = await client.post(ID, BODY)
    await client.aclose()
    shown = " ".join(map(str, (found, logs, target, client.host)))
    assert "secret" not in shown
    assert "hooks.test" in shown
    with pytest.raises(ConfigError) as refused:
        WebhookClient(Target("https://hooks.test:secret-token/", ()), SettableClock())
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__
