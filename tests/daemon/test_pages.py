"""The page of a whole daemon, over HTTP: off unless it is wanted, apart from callbacks, and closed with the server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
import structlog

from tests.support.running import Application, eventually
from watchdog.clock import SystemClock
from watchdog.config.settings import Config
from watchdog.daemon.lifecycle import Service
from watchdog.daemon.pages import is_reachable
from watchdog.wiring import database as opening


@asynccontextmanager
async def daemon(url: str, **http: Any) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    sections = {
        "database": {"url": url, "statement_timeout_seconds": 0.5, "pool_size": 2},
        "policy": {"mode": "observe", "verify": "off"},
        "http": {"listen": "127.0.0.1:0", "page": True} | http,
    }
    config = Config.model_validate(sections)
    with opening.opened(config) as database:
        service = Service(config, SystemClock(), database)
        await service.start()
        assert service.http is not None
        async with httpx.AsyncClient(base_url=service.http.url, trust_env=False, timeout=10) as client:
            try:
                yield service, client
            finally:
                await service.stop(asyncio.Event())


async def test_it_shows_this_daemon(database_url: str) -> None:
    application = Application(database_url)
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", "a/b%2F", "lobby")
    async with daemon(database_url) as (service, client):
        home = await client.get("/")
        assert home.status_code == 200
        assert "Alive, in observe mode" in home.text
        assert service.parts.daemon.instance in home.text
        await eventually("the tasks are counted", lambda: service.parts.figures.known is not None)
        task = await client.get("/tasks/a%2Fb%252F")
        assert task.status_code == 200
        assert 'Task <bdi class="id">a/b%2F</bdi>' in task.text
        head = await client.head("/tasks")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Security-Policy"]
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/other")).status_code == 404


async def test_a_callback_with_a_wrong_address_is_told_of_as_before(sqlite_url: str) -> None:
    Application(sqlite_url)
    async with daemon(sqlite_url) as (_, client):
        with structlog.testing.capture_logs() as logs:
            answer = await client.post("/", content=b"{}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert [line["kind"] for line in logs if line["event"] == "callback_refused"] == ["unknown_path"]


async def test_without_the_key_there_is_none(sqlite_url: str) -> None:
    Application(sqlite_url)
    async with daemon(sqlite_url, page=False) as (service, client):
        for path in ("/", "/tasks", "/tasks/1", "/history", "/find?id=1", "/report"):
            assert (await client.get(path)).status_code == 404
        assert service.http is not None


async def test_the_token_and_the_names(sqlite_url: str) -> None:
    Application(sqlite_url)
    async with daemon(sqlite_url, token="secret-token", page_hosts=["Watchdog.Example.com"]) as (_, client):
        assert (await client.get("/")).status_code == 401
        auth = httpx.BasicAuth("me", "secret-token")
        assert (await client.get("/", auth=auth)).status_code == 200
        named = {"Host": "watchdog.example.com"}
        assert (await client.get("/", auth=auth, headers=named)).status_code == 200
        assert (await client.get("/", auth=auth, headers={"Host": "evil.example"})).status_code == 421
        assert (await client.get("/", auth=auth, headers={"Host": socket.gethostname()})).status_code == 200


async def test_while_the_database_is_away_it_says_so(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Application(sqlite_url)
    async with daemon(sqlite_url) as (service, client):
        assert (await client.get("/")).status_code == 200
        monkeypatch.setattr(service._outage, "_away", {"sweep": "PostgreSQL db: gone"})
        answer = await client.get("/", headers={"Accept-Language": "zh"})
        assert answer.status_code == 503
        assert "数据库没有响应" in answer.text
        assert "PostgreSQL db: gone" in answer.text


@pytest.mark.parametrize(
    ("family", "name", "reachable"),
    [
        (socket.AF_INET, ("127.0.0.1", 8765), False),
        (socket.AF_INET, ("0.0.0.0", 8765), True),  # noqa: S104 - not listened on
        (socket.AF_INET6, ("::1", 8765, 0, 0), False),
        (socket.AF_INET6, ("::", 8765, 0, 0), True),
        (socket.AF_INET6, ("fe80::1%eth0", 8765, 0, 2), True),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 8765, 0, 0), False),
        (socket.AF_UNIX, "/run/zego-watchdog/http", False),
    ],
)
def test_a_socket_that_others_can_reach(family: int, name: object, *, reachable: bool) -> None:
    assert is_reachable(family, name) is reachable
