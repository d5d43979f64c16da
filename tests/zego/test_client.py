import asyncio
import json
import logging
import re
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import formatdate

import httpx2 as httpx
import pytest

from simulation.virtual import run_virtual
from tests.support.clock import SettableClock
from watchdog.core.model import Reply, RoomCount
from watchdog.core.signing import sign
from watchdog.errors import ConfigError, NoAnswer, NotSent, RequestError
from watchdog.zego.client import FATE, ZegoClient
from watchdog.zego.replies import Counts, read_reply

APP_ID, SECRET = 1234567890, "9193cc662a4c0ec135ec71fb57194b38"
NOW = 1_700_000_000.4
A_SIGNATURE = r"Signature(=|%3D)[0-9a-f]{32}"
SUCCESS = b'{"Code":0,"Message":"Success","RequestId":"3151527792559699732"}'
EXPIRED = b'{"Code":100000004,"Message":"signature expired","RequestId":"1"}'

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


OPEN: list[ZegoClient] = []


def client_for(
    url: str = "http://zego.test/",
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    clock: SettableClock | None = None,
    timeout_seconds: float = 5.0,
    max_connections: int = 4,
) -> ZegoClient:
    client = ZegoClient(
        {APP_ID: SECRET},
        asr_url=url,
        rtc_url=url,
        timeout_seconds=timeout_seconds,
        clock=clock or SettableClock(NOW),
        transport=transport,
        max_connections=max_connections,
    )
    OPEN.append(client)
    return client


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Close the clients that a test made."""
    yield
    while OPEN:
        await OPEN.pop().aclose()


class Vendor:
    """A transport that answers every request with the same bytes and keeps the requests."""

    def __init__(self, body: bytes = SUCCESS, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.body, self.status, self.headers = body, status, headers
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, content=self.body, headers=self.headers)


@asynccontextmanager
async def serving(conversation: Conversation, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Let ``conversation`` answer each connection to the URL, which is an http one also with ``tls``."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await conversation(reader, writer)
        finally:
            # With TLS, closing waits for the other side.
            writer.close() if tls is None else writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"(?i)content-length: (\d+)", head)
    return head, await reader.readexactly(int(length[1])) if length else b""


def http_reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def failing(expected: type[RequestError]) -> AsyncIterator[None]:
    """Expect that error, of exactly this class, with its cause, and nothing secret anywhere in its traceback."""
    with pytest.raises(expected) as caught:
        yield
    assert type(caught.value) is expected
    assert caught.value.__cause__ is not None
    assert "StopRealtimeASRTask" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert not re.search(A_SIGNATURE, shown)
    assert "?" not in str(caught.value)


# --- what is sent


async def test_stop_on_the_wire() -> None:
    seen: list[tuple[str, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(http_reply(SUCCESS))

    async with serving(answer) as url:
        client = client_for(url)
        reply = await client.stop_task(APP_ID, "1920370518175780864")
        await client.aclose()

    assert reply == Reply(200, "0", "Success", "3151527792559699732", None, None, None)
    [(head, body)] = seen
    line, *headers = head.split("\r\n")
    assert json.loads(body) == {"TaskId": "1920370518175780864"}
    assert "content-type: application/json" in [header.lower() for header in headers]
    match = re.fullmatch(
        r"POST /\?Action=StopRealtimeASRTask&AppId=1234567890&SignatureNonce=([0-9a-f]{16})"
        r"&Timestamp=1700000000&SignatureVersion=2\.0&Signature=([0-9a-f]{32}) HTTP/1\.1",
        line,
    )
    assert match
    assert match[2] == sign(APP_ID, match[1], SECRET, 1_700_000_000)


async def test_every_request_has_its_own_nonce() -> None:
    vendor = Vendor()
    client = client_for(transport=vendor.transport)
    for _ in range(20):
        await client.stop_task(APP_ID, "1")
    assert len({request.url.params["SignatureNonce"] for request in vendor.requests}) == 20


async def test_room_ids_arrive_as_they_are() -> None:
    vendor = Vendor()
    rooms = ["a", "b&c=d", "e f", "g#h", "+%20", "\u623f\u95f4", "a[]"]
    await client_for(transport=vendor.transport).user_counts(APP_ID, rooms)
    [request] = vendor.requests
    assert request.method == "GET"
    assert request.content == b""
    assert request.url.params["Action"] == "DescribeUserNum"
    assert request.url.params.get_list("RoomId[]") == rooms


async def test_a_path_in_the_base_url_is_kept() -> None:
    vendor = Vendor()
    await client_for("http://proxy.test:81/zego", transport=vendor.transport).stop_task(APP_ID, "1")
    assert vendor.requests[0].url.path == "/zego"
    assert vendor.requests[0].headers["host"] == "proxy.test:81"


@pytest.mark.parametrize("rooms", [[], [str(n) for n in range(11)]])
async def test_one_to_ten_rooms(rooms: list[str]) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        await client_for(transport=Vendor().transport).user_counts(APP_ID, rooms)


@pytest.mark.parametrize(
    "url", ["", "zego.test", "ftp://zego.test/", "https://", "https://h/?a=1", "https://u:p@h/", "https://h:x/", "//h/"]
)
async def test_a_url_that_cannot_be_called_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"zego\.asr_url"):
        client_for(url)


async def test_an_app_without_a_secret_is_named() -> None:
    vendor = Vendor()
    client = client_for(transport=vendor.transport)
    with pytest.raises(ConfigError, match=r"AppId 7 .*zego\.apps"):
        await client.stop_task(7, "1")
    assert not vendor.requests


async def test_no_occupancy_api_no_question() -> None:
    client = ZegoClient(
        {APP_ID: SECRET},
        asr_url="http://z.test/",
        rtc_url="",
        timeout_seconds=1,
        clock=SettableClock(NOW),
        transport=None,
    )
    with pytest.raises(ConfigError, match=r"zego\.rtc_url"):
        await client.user_counts(APP_ID, ["r"])
    await client.aclose()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 407, 425, 429, 500, 502, 503, 504])
async def test_one_request_whatever_is_answered(status: int) -> None:
    vendor = Vendor(b"<html>", status, {"Location": "http://elsewhere.test/", "Retry-After": "0"})
    reply = await client_for(transport=vendor.transport).stop_task(APP_ID, "1")
    assert len(vendor.requests) == 1
    assert (reply.http_status, reply.code, reply.excerpt) == (status, None, "<html>")


# --- what is read


def read(body: bytes) -> Reply:
    return read_reply(200, body, None)


@pytest.mark.parametrize("code", ["0", "-0", "410001002", "0.0", "1e3", "123456789012345678901234567890", "NaN"])
def test_a_number_keeps_its_characters(code: str) -> None:
    reply = read(b'{"Code": %s, "RequestId": %s}' % (code.encode(), code.encode()))
    assert (reply.code, reply.request_id) == (code, code)


@pytest.mark.parametrize("code", ["0", "00", " 0", "", "OK"])
def test_a_string_keeps_its_characters(code: str) -> None:
    reply = read(json.dumps({"Code": code, "RequestId": code}).encode())
    assert (reply.code, reply.request_id) == (code, code)


@pytest.mark.parametrize("value", ["true", "null", "{}", '["0"]', '"0\\u0000"', '"\\ud800"', '"%s"' % ("7" * 201)])
def test_what_is_no_code_is_none_and_kept_in_the_excerpt(value: str) -> None:
    body = f'{{"Code": {value}, "RequestId": "9"}}'
    reply = read(body.encode())
    assert (reply.code, reply.request_id, reply.excerpt) == (None, "9", body[:500])


def test_a_code_counts_without_a_usable_request_id() -> None:
    reply = read(b'{"Code": 0, "RequestId": {}}')
    assert (reply.code, reply.request_id) == ("0", None)
    assert reply.excerpt == '{"Code": 0, "RequestId": {}}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        SUCCESS[:-1],
        b"[]",
        b"null",
        b'"0"',
        b"[" * 60_000,
        b'{"Code":' + b"[" * 60_000,
        b"\xff\xfe\x00",
        b"{}",
        b'{"code": 0}',
    ],
)
def test_an_unusable_body_is_kept_bounded_and_legible(body: bytes) -> None:
    reply = read(body)
    assert (reply.code, reply.request_id) == (None, None)
    assert reply.excerpt is not None
    assert len(reply.excerpt) <= 500
    assert reply.excerpt.isprintable()
    assert reply.excerpt[:1] == body.decode("utf-8", "replace")[:1]


def test_texts_are_bounded_and_legible() -> None:
    reply = read(json.dumps({"Code": 0, "RequestId": "1", "Message": "a\0b\nc\ud800" + "x" * 9000}).encode())
    assert reply.message == ("a\ufffdb c\ufffd" + "x" * 9000)[:500]
    assert reply.excerpt is None


def test_broken_text_does_not_hide_the_code() -> None:
    for body in (
        b'\xef\xbb\xbf{"Code":0,"RequestId":"1","Message":"\xb3\xc9\xb9\xa6"}',
        b'{"Code":0,"RequestId":"1","Message":"a\nb"}',
    ):
        reply = read(body)
        assert (reply.code, reply.request_id, reply.excerpt) == ("0", "1", None)


async def counts(user_count_list: object, code: int = 0, status: int = 200) -> Counts:
    body = {"Code": code, "Message": "m", "RequestId": "1", "Data": {"UserCountList": user_count_list}}
    vendor = Vendor(json.dumps(body).encode(), status)
    return await client_for(transport=vendor.transport).user_counts(APP_ID, ["a", "b"])


def entry(room: object, users: object, admins: object) -> dict[str, object]:
    return {"RoomId": room, "UserCount": users, "AdminUserCount": admins}


async def test_counts_are_read_by_room() -> None:
    answer = await counts([entry("b", 3, 1), entry("a", 0, 0), entry("unasked", 7, 0)])
    assert answer.rooms == {"a": RoomCount(0, 0), "b": RoomCount(3, 1)}
    assert answer.reply.code == "0"


@pytest.mark.parametrize(
    "bad",
    [
        entry("a", -1, 0),
        entry("a", 1, -1),
        entry("a", 1, 2),
        entry("a", 1.0, 0),
        entry("a", None, 0),
        entry("a", 0, None),
        entry("a", True, 0),
        entry("a", "", 0),
        entry("a", "\u0660", 0),
        entry("a", 10**4000, 0),
        entry(["a"], 0, 0),
        entry(None, 0, 0),
        {"RoomId": "a", "UserCount": 0},
        "a",
        None,
        [],
    ],
)
async def test_a_malformed_count_is_absent_and_spoils_no_other(bad: object) -> None:
    assert (await counts([bad, entry("b", 1, 0)])).rooms == {"b": RoomCount(1, 0)}


async def test_contradictory_counts_are_absent() -> None:
    assert (await counts([entry("a", 0, 0), entry("a", 2, 0), entry("a", 0, 0)])).rooms == {}
    assert (await counts([entry("a", 0, 0), entry("a", 0, 0)])).rooms == {"a": RoomCount(0, 0)}
    assert (await counts([entry("a", None, 0), entry("a", 0, 0)])).rooms == {}


@pytest.mark.parametrize("user_count_list", [None, {}, "", 0, []])
async def test_no_list_no_rooms(user_count_list: object) -> None:
    assert (await counts(user_count_list)).rooms == {}


async def test_counts_without_success_are_not_believed() -> None:
    for answer in (await counts([entry("a", 0, 0)], code=206), await counts([entry("a", 0, 0)], status=502)):
        assert answer.rooms == {}
    assert (await counts([], code=206)).reply.code == "206"


# --- the vendor's clock


def dated(offset: float) -> dict[str, str]:
    return {"Date": formatdate(int(NOW) + offset, usegmt=True)}


async def test_the_offset_is_learned_where_the_vendor_says_expired() -> None:
    vendor = Vendor(EXPIRED, headers=dated(900))
    client = client_for(transport=vendor.transport)
    reply = await client.stop_task(APP_ID, "1")
    assert reply.clock_offset_seconds == pytest.approx(899.6)
    assert client.clock_offset_seconds == {"zego.test": pytest.approx(899.6)}
    await client.stop_task(APP_ID, "1")
    assert [request.url.params["Timestamp"] for request in vendor.requests] == ["1700000000", "1700000900"]

    # The host's clock is set right while we run: the same way back.
    vendor.headers = dated(0)
    await client.stop_task(APP_ID, "1")
    await client.stop_task(APP_ID, "1")
    assert vendor.requests[-1].url.params["Timestamp"] == "1700000000"


async def test_the_offset_is_told_and_not_applied_while_signatures_pass() -> None:
    vendor = Vendor(SUCCESS, headers=dated(-300))
    client = client_for(transport=vendor.transport)
    assert (await client.stop_task(APP_ID, "1")).clock_offset_seconds == pytest.approx(-300.4)
    await client.stop_task(APP_ID, "1")
    assert client.clock_offset_seconds == {}
    assert vendor.requests[1].url.params["Timestamp"] == "1700000000"


async def test_each_host_has_its_offset() -> None:
    timestamps: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        timestamps.append(request.url.params["Timestamp"])
        return httpx.Response(200, content=EXPIRED, headers=dated(900 if request.url.host == "rtc.test" else -900))

    client = ZegoClient(
        {APP_ID: SECRET},
        asr_url="http://asr.test/",
        rtc_url="http://rtc.test/",
        timeout_seconds=1,
        clock=SettableClock(NOW),
        transport=httpx.MockTransport(answer),
    )
    for _ in range(2):
        await client.user_counts(APP_ID, ["r"])
        await client.stop_task(APP_ID, "1")
    assert timestamps == ["1700000000", "1700000000", "1700000900", "1699999100"]
    assert client.clock_offset_seconds == {"rtc.test": pytest.approx(899.6), "asr.test": pytest.approx(-900.4)}


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2033 99:99:99 GMT", "Tue, 15 Nov 99999 08:12:31 GMT"])
async def test_an_unreadable_date_teaches_nothing(date: str) -> None:
    client = client_for(transport=Vendor(EXPIRED, headers={"Date": date}).transport)
    assert (await client.stop_task(APP_ID, "1")).clock_offset_seconds is None
    assert client.clock_offset_seconds == {}


# --- the gate


async def answer_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(http_reply(SUCCESS))


async def test_everything_is_ready_at_the_gate_and_nothing_leaves_before_it_opens() -> None:
    arrived: list[bytes] = []
    connected, opened = asyncio.Event(), asyncio.Event()

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_reply(SUCCESS))
        await reader.read()

    async def gate() -> None:
        await connected.wait()
        for _ in range(50):
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.001)
        assert arrived == []
        opened.set()

    async with serving(look) as url:
        assert (await client_for(url).stop_task(APP_ID, "1", gate=gate)).code == "0"
    assert opened.is_set()
    assert len(arrived) == 1


async def test_what_the_gate_raises_keeps_the_request_back() -> None:
    class TooLateError(Exception):
        pass

    seen: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append((await read_request(reader))[1])
            writer.write(http_reply(SUCCESS))

    async def closed() -> None:
        raise TooLateError

    async with serving(keep) as url:
        client = client_for(url, max_connections=1)
        for task_id in ("1", "3"):
            await client.stop_task(APP_ID, task_id)
            with pytest.raises(TooLateError):
                await client.stop_task(APP_ID, "2", gate=closed)
    assert seen == [b'{"TaskId": "1"}', b'{"TaskId": "3"}']


@pytest.mark.parametrize("answers", [True, False])
async def test_the_deadline_begins_anew_where_the_gate_opens(*, answers: bool) -> None:
    async def gate() -> None:
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=2.1)

    async with serving(answer_each if answers else black_hole) as url:
        client = client_for(url, timeout_seconds=2.0)
        began = asyncio.get_running_loop().time()
        if answers:
            assert (await client.stop_task(APP_ID, "1", gate=gate)).code == "0"
        else:
            async with failing(NoAnswer):
                await client.stop_task(APP_ID, "1", gate=gate)
            assert asyncio.get_running_loop().time() - began > 4.0


async def test_a_transport_that_reports_nothing_is_used_after_the_gate() -> None:
    vendor = Vendor()

    async def gate() -> None:
        assert vendor.requests == []

    assert (await client_for(transport=vendor.transport).stop_task(APP_ID, "1", gate=gate)).code == "0"
    assert len(vendor.requests) == 1


async def test_a_proxys_tunnel_is_made_before_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gate() -> None:
        raise AssertionError("there is no connection yet")

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        assert head.startswith("CONNECT asr.test:443 ")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await reader.read(1)

    async with serving(proxy) as url:
        monkeypatch.setenv("https_proxy", url)
        async with failing(NotSent):
            await client_for("https://asr.test/").stop_task(APP_ID, "1", gate=gate)


# --- what goes wrong


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)


LIBRARY_ERRORS = sorted({*subclasses(httpx.RequestError)}, key=lambda error: error.__name__)
CONCRETE_ERRORS = [error for error in LIBRARY_ERRORS if not error.__subclasses__()]


def test_every_concrete_error_of_the_library_has_a_fate() -> None:
    assert len(CONCRETE_ERRORS) >= 14
    assert set(CONCRETE_ERRORS) | {httpx.InvalidURL} == set(FATE)


@pytest.mark.parametrize("error", [*LIBRARY_ERRORS, httpx.RequestError, httpx.InvalidURL, OSError, ssl.SSLError])
async def test_every_error_becomes_ours(error: type[Exception]) -> None:
    never_left = {
        *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
        *(httpx.UnsupportedProtocol, httpx.InvalidURL),
    }

    def fail(_request: httpx.Request) -> httpx.Response:
        raise error("")

    async with failing(NotSent if error in never_left else NoAnswer):
        await client_for(transport=httpx.MockTransport(fail)).stop_task(APP_ID, "1")


async def test_a_bug_is_not_dressed_up_as_a_lost_request() -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client_for(transport=httpx.MockTransport(fail)).stop_task(APP_ID, "1")


def test_late_on_a_transport_that_reports_nothing_is_in_doubt() -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with failing(NoAnswer):
            await client_for(transport=httpx.MockTransport(never), timeout_seconds=8).stop_task(APP_ID, "1")
        assert loop.time() == pytest.approx(8, abs=0.01)

    run_virtual(scenario())


@pytest.mark.parametrize("error", [None, OSError("broken"), ssl.SSLError("bad record"), httpx.ReadError("reset")])
def test_whatever_happens_before_the_departure_is_reported_was_not_sent(error: Exception | None) -> None:
    class Stuck(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if error is not None:
                raise error
            await asyncio.get_running_loop().create_future()
            raise AssertionError(request)

    async def scenario() -> None:
        async with failing(NotSent):
            await client_for(transport=Stuck(), timeout_seconds=8).stop_task(APP_ID, "1")

    run_virtual(scenario())


async def test_refused_is_not_sent() -> None:
    async with serving(black_hole) as url:
        pass
    async with failing(NotSent):
        await client_for(url).stop_task(APP_ID, "1")


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_host_name_that_nobody_can_resolve_is_not_sent(host: str) -> None:
    async with failing(NotSent):
        await client_for(f"http://{host}/").stop_task(APP_ID, "1")


async def black_hole(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await asyncio.Event().wait()


async def test_a_black_hole_is_in_doubt() -> None:
    async with serving(black_hole) as url, failing(NoAnswer):
        # Long enough to send it.
        await client_for(url, timeout_seconds=1.0).stop_task(APP_ID, "1")


async def test_a_tls_handshake_that_never_ends_is_not_sent() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as url, failing(NotSent):
        await client_for(url.replace("http:", "https:"), timeout_seconds=0.1).stop_task(APP_ID, "1")


async def test_a_server_without_tls_is_not_sent() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(http_reply(SUCCESS))

    async with serving(plain) as url, failing(NotSent):
        await client_for(url.replace("http:", "https:")).stop_task(APP_ID, "1")


async def test_waiting_for_a_connection_is_not_sent() -> None:
    async with serving(black_hole) as url:
        client = client_for(url, timeout_seconds=1.0, max_connections=1)
        first = asyncio.ensure_future(client.stop_task(APP_ID, "1"))
        await asyncio.wait([first], timeout=0)
        async with failing(NotSent):
            await client.stop_task(APP_ID, "2")
        async with failing(NoAnswer):
            await first


@pytest.mark.parametrize(
    "beginning",
    [b"", b"HTTP/1.1 200 OK\r\n", http_reply(SUCCESS)[:-10], b"\0\0\0\0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_reply_that_breaks_off_is_in_doubt(beginning: bytes, *, reset: bool) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(beginning)
        await writer.drain()
        if reset:
            writer.transport.abort()

    async with serving(break_off) as url, failing(NoAnswer):
        await client_for(url).stop_task(APP_ID, "1")


@pytest.mark.parametrize(
    "dripped", [http_reply(SUCCESS), b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b" " * 999]
)
async def test_a_dripping_server_is_cut_off(dripped: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in dripped:
            writer.write(bytes([byte]))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    async with serving(drip) as url:
        client = client_for(url, timeout_seconds=1.0)
        started = loop.time()
        async with failing(NoAnswer):
            await client.stop_task(APP_ID, "1")
        assert 0.9 < loop.time() - started < 0.05 * len(dripped), "not at the end of the reply"


async def test_of_a_huge_body_only_the_beginning_is_read() -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"Code":0,"RequestId":"1","Message":"')
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with serving(flood) as url:
        reply = await client_for(url).stop_task(APP_ID, "1")
    assert (reply.code, reply.request_id, reply.message) == (None, None, None)
    assert reply.excerpt == ('{"Code":0,"RequestId":"1","Message":"' + "x" * 500)[:500]
    assert written < 50_000_000


def test_a_whole_reply_just_too_large_is_not_used() -> None:
    fits = b'{"Code":0,"RequestId":"1"}'.ljust(64 * 1024)
    assert read(fits).code == "0"
    assert read(fits + b" ").code is None


async def test_packed_bodies_are_not_unpacked() -> None:
    async def gzipped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        assert "accept-encoding: identity" in head.lower()
        writer.write(http_reply(b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"))

    async with serving(gzipped) as url, aclosing(client_for(url)) as client:
        reply = await client.stop_task(APP_ID, "1")
    assert reply.code is None
    assert reply.excerpt == " \ufffd\ufffd\ufffd"


async def test_connections_are_kept_and_a_cut_one_is_not_reused() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for reply in (http_reply(SUCCESS), http_reply(b"x" * 70_000)):
            await read_request(reader)
            writer.write(reply)
        await asyncio.Event().wait()

    async with serving(answer) as url:
        client = client_for(url)
        replies = [await client.stop_task(APP_ID, "1") for _ in range(5)]
        assert [reply.code for reply in replies] == ["0", None, "0", None, "0"]
        assert connections == 3
        await client.aclose()


async def test_cancelled_calls_leak_no_slot_of_the_pool() -> None:
    open_for_business = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await open_for_business.wait()
            writer.write(http_reply(SUCCESS))

    async with serving(answer) as url:
        client = client_for(url, max_connections=2)
        for turns in range(30):
            calls = [asyncio.ensure_future(client.stop_task(APP_ID, str(n))) for n in range(6)]
            for _ in range(turns):
                await asyncio.wait(calls, timeout=0)
            for call in calls[turns % 2 :: 2]:
                call.cancel()
            for _ in range(3):
                await asyncio.wait(calls, timeout=0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        open_for_business.set()
        replies = await asyncio.gather(*(client.stop_task(APP_ID, str(n)) for n in range(10)))
        assert {reply.code for reply in replies} == {"0"}
        await client.aclose()


async def test_deadlines_under_contention_leak_no_slot_of_the_pool() -> None:
    silent = True

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            if silent:
                await asyncio.Event().wait()
            writer.write(http_reply(SUCCESS))

    async with serving(answer) as url:
        client = client_for(url, max_connections=2, timeout_seconds=1.0)
        results = await asyncio.gather(*(client.stop_task(APP_ID, str(n)) for n in range(8)), return_exceptions=True)
        assert [type(result) for result in results] == [NoAnswer] * 2 + [NotSent] * 6
        silent = False
        replies = await asyncio.gather(*(client.stop_task(APP_ID, str(n)) for n in range(8)))
        assert {reply.code for reply in replies} == {"0"}
        await client.aclose()


# --- what is shown


async def test_nothing_secret_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(http_reply(SUCCESS))

    caplog.set_level(logging.DEBUG)
    async with serving(answer) as url:
        client = client_for(url)
        reply = await client.stop_task(APP_ID, "1")
        await client.aclose()
    shown = "\n".join([repr(client), str(client), repr(vars(client)), repr(reply), caplog.text])
    assert SECRET not in shown
    assert not re.search(A_SIGNATURE, shown)
