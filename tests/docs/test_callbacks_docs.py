"""The recipes in docs/callbacks.md work, with a real nginx and with the real sandbox as the vendor."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.running import eventually, free_port
from tests.support.tools import needs, program
from watchdog.daemon.http_server import CALLBACK_PATH
from watchdog.sandbox import Join, Sandbox, SendCallbacks

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
APPS = {12345: "not-a-real-secret"}


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


class Receiver:
    """Takes requests and answers 200; in ``requests`` are their first lines, content types and bodies."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (length,) = re.findall(r"(?im)^content-length: (\d+)", head)
        (content_type,) = re.findall(r"(?im)^content-type: (\S+)", head)
        self.requests.append((head.splitlines()[0], content_type, await reader.readexactly(int(length))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def nginx(folder: Path, site: str, port: int) -> AsyncIterator[None]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log {folder / 'error.log'};"
        f"events {{}} http {{ access_log off; {folders}\n{site}\n}}"
    )
    process = await asyncio.create_subprocess_exec(program("nginx"), "-p", str(folder), "-c", str(file), "-e", "stderr")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await eventually("nginx listens", lambda: process.returncode is not None or listens(), seconds=10)
        assert process.returncode is None
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@needs("nginx")
async def test_nginx_sends_a_copy_of_every_callback(tmp_path: Path) -> None:
    port = free_port()
    async with Receiver().running() as application, Receiver().running() as watchdog, Sandbox(APPS) as sandbox:
        site = block("nginx")
        for written, real in (
            ("listen 8080;", f"listen 127.0.0.1:{port};"),
            ("127.0.0.1:8000", f"127.0.0.1:{application.port}"),
            ("127.0.0.1:8765", f"127.0.0.1:{watchdog.port}"),
        ):
            assert site.count(written) == 1
            site = site.replace(written, real)
        async with nginx(tmp_path, site, port):
            sandbox.perform(SendCallbacks(url=f"http://127.0.0.1:{port}/zego/callbacks"))
            sandbox.perform(Join(room="room", user="alice"))
            await eventually("both have both", lambda: len(application.requests) == len(watchdog.requests) == 2)
            await eventually("the vendor knows", lambda: delivered(sandbox) == [200, 200])

    assert {line for line, _, _ in application.requests} == {"POST /zego/callbacks HTTP/1.0"}
    assert {line for line, _, _ in watchdog.requests} == {f"POST {CALLBACK_PATH} HTTP/1.0"}
    copies = [sorted(request[1:] for request in receiver.requests) for receiver in (application, watchdog)]
    assert copies[0] == copies[1]
    assert {json.loads(body)["event"] for _, body in copies[0]} == {"room_create", "room_login"}


def delivered(sandbox: Sandbox) -> list[Any]:
    return [event["status"] for event in sandbox.events() if event["event"] == "callback_sent"]


@needs("nginx")
async def test_the_application_does_not_notice_that_the_copy_goes_nowhere(tmp_path: Path) -> None:
    port = free_port()
    async with Receiver().running() as application, Sandbox(APPS) as sandbox:
        site = block("nginx").replace("listen 8080;", f"listen 127.0.0.1:{port};")
        site = site.replace("127.0.0.1:8000", f"127.0.0.1:{application.port}")
        site = site.replace("127.0.0.1:8765", f"127.0.0.1:{free_port()}")
        async with nginx(tmp_path, site, port):
            sandbox.perform(SendCallbacks(url=f"http://127.0.0.1:{port}/zego/callbacks"))
            sandbox.perform(Join(room="room", user="alice"))
            await eventually("the vendor knows", lambda: delivered(sandbox) == [200, 200])


async def test_the_application_forwards_them() -> None:
    async with Receiver().running() as watchdog:
        namespace: dict[str, Any] = {}
        code = block("python").replace("127.0.0.1:8765", f"127.0.0.1:{watchdog.port}")
        exec(code, namespace)  # noqa: S102 - the page's own code
        await asyncio.to_thread(namespace["forward"], b'{"event": "x"}', "application/json")
    assert watchdog.requests == [(f"POST {CALLBACK_PATH} HTTP/1.1", "application/json", b'{"event": "x"}')]


def test_the_addresses_on_the_page_are_the_daemons() -> None:
    assert PAGE.count(f"http://127.0.0.1:8765{CALLBACK_PATH}") == 3
