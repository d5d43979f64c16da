"""A site on a database in virtual time, and a browser that asks it without a network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.support.time_travel import World
from watchdog.core.model import Mode
from watchdog.core.policy import Policy
from watchdog.page.live import Live
from watchdog.page.site import Site
from watchdog.store.aio.reader import Reader

QUIET = Live(
    version="1.2.3",
    instance="host/1",
    mode=Mode.ENFORCE,
    sweeps=True,
    database_trouble="",
    is_away=False,
    unanswered=(),
    feed_is_dead=False,
    webhook_problem=None,
    reload_problem=None,
    active=None,
    known=None,
    too_old=None,
)


@dataclass
class Bench:
    """One site; ``live`` and ``token`` may be changed. ``statements`` are those that it has sent to the database."""

    world: World
    site: Site
    http: httpx.AsyncClient
    statements: list[str]
    live: Live = QUIET
    token: str | None = None
    policy: Policy = field(default_factory=Policy)

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return Path(str(self.world.engine.url.database))

    async def get(self, path: str, language: str = "en", **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={"Accept-Language": language, **headers})

    async def text(self, path: str, language: str = "en") -> str:
        """Return a page that is there."""
        answer = await self.get(path, language)
        assert answer.status_code == 200, answer.text
        return answer.text


@asynccontextmanager
async def serving(world: World, **options: Any) -> AsyncIterator[Bench]:
    engine = world.another_store("host/page").engine
    statements: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    bench: Bench
    site = Site(
        Reader(engine, world.clock),
        world.clock,
        live=lambda: bench.live,
        policy=lambda: (bench.policy, 60.0),
        token=lambda: bench.token,
        **options,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (await site.answer(Request(scope, receive)))(scope, receive, send)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", trust_env=False) as http:
        bench = Bench(world, site, http, statements)
        yield bench
        await site.close()


@pytest.fixture
async def bench(world: World) -> AsyncIterator[Bench]:
    """Return a site on each database in turn."""
    async with serving(world) as it:
        yield it


@pytest.fixture
async def sqlite_bench(sqlite_world: World) -> AsyncIterator[Bench]:
    async with serving(sqlite_world) as it:
        yield it
