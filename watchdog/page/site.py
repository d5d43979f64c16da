"""The site: who may read it, which page an address means, and how few readings answer how many browsers.

    GET /            is it alive, what is wrong, what is due next
    GET /tasks       choice, room; a page at a time
    GET /tasks/ID    why it is stopped, is not stopped, or has ended: as ``explain``
    GET /find?id=    the same, for an id that somebody types
    GET /history     outcome, task, room, since; a page at a time
    GET /report      if there is one

A page is made of what was read at most some seconds ago. It is drawn in a thread, so the event loop only sends it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from watchdog.clock import Clock
from watchdog.core.policy import Policy
from watchdog.errors import DatabaseError, DatabaseUnavailable, StatementRefused, TooSlow
from watchdog.page import language, security, views
from watchdog.page.cache import Cache, Crowded
from watchdog.page.drawing import REFRESH_SECONDS, Answer, View, drawn, error_values
from watchdog.page.language import Language
from watchdog.page.live import Live
from watchdog.page.rendering import Renderer
from watchdog.store.aio.reader import READ_SECONDS, Reader
from watchdog.store.reports.glance import Lately, glance, lately

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 3.0
LATELY_SECONDS: Final = 30.0
REPORT_SECONDS: Final = 300.0
DRAWN_SECONDS: Final = 3.0
"""How long what was read is shown: a page, the last day, a report; and how long a page as it was drawn.

Drawing takes 10 ms of a processor that stops need too, so each page is drawn every few seconds at most.
"""

STALE_SECONDS: Final = 60.0
"""How old a reading may be that is shown because a new one takes long."""

DIFFERENT: Final = 16
"""Different pages in the making; who asks for one more is told to come again."""

_TASK: Final = "/tasks/"
_PLACES: Final = ("/", "/tasks", "/history", "/find")


class Reports(Protocol):
    """Makes reports: each a complete page of HTML without a script."""

    async def make(self, language: str) -> bytes:
        """Return one in a language, given by its tag. Raises DatabaseError."""

    def end(self) -> None:
        """Give up those in the making."""


class Site:
    """Answers requests; ``serves`` says which. ``close`` ends its threads."""

    def __init__(
        self,
        reader: Reader,
        clock: Clock,
        *,
        live: Callable[[], Live],
        policy: Callable[[], tuple[Policy, float]],
        token: Callable[[], str | None] = lambda: None,
        is_exposed: bool = False,
        hosts: Collection[str] = (),
        reports: Reports | None = None,
    ) -> None:
        """``policy``: the current rules, and the silence after which the feed of hints counts as dead.

        ``is_exposed``: other machines can reach it, so without a token nobody may read it. ``hosts``: the names by
        which browsers may call it.
        """
        self._reader = reader
        self._live = live
        self._policy = policy
        self._token = token
        self._is_exposed = is_exposed
        self._hosts = frozenset({"localhost", *hosts})
        self._reports = reports
        self._renderer = Renderer()
        self._headers = security.headers(self._renderer.style)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page")
        self._read = Cache[Any](clock, stale_seconds=STALE_SECONDS)
        self._drawn = Cache[Answer](clock, most=64, at_once=DIFFERENT, share=0)
        self._made_reports = Cache[bytes](clock, most=2, stale_seconds=2 * REPORT_SECONDS)

    def serves(self, path: str) -> bool:
        return path in _PLACES or path.startswith(_TASK) or (self._reports is not None and path == "/report")

    async def answer(self, request: Request) -> Response:
        """Answer a request for a path that it serves."""
        if (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            return await self._answer(request, language.choose(request.headers.get("Accept-Language", "")))
        except Crowded:
            return PlainTextResponse("busy\n", 503, {"Retry-After": "2"})

    async def close(self) -> None:
        """Wait for what is being read or drawn; what has not begun is given up."""
        if self._reports is not None:
            self._reports.end()
        await self._reader.close()
        for cache in (self._read, self._drawn, self._made_reports):
            await cache.close()
        await asyncio.to_thread(self._thread.shutdown)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in {"GET", "HEAD"}:
            return PlainTextResponse("only GET\n", 405, {"Allow": "GET, HEAD"})
        if not security.is_known_host(request.headers.get("Host"), self._hosts):
            return PlainTextResponse("unknown host: add its name to http.page_hosts\n", 421)
        token = self._token()
        if token is None:
            # systemd may pass a socket of which the configuration knows nothing.
            refused = PlainTextResponse("set http.token_file: other machines can reach this address\n", 403)
            return refused if self._is_exposed else None
        if security.has_token(request.headers.get("Authorization", ""), token):
            return None
        return PlainTextResponse("the token of http.token_file is needed, as the password\n", 401, security.ASK)

    async def _answer(self, request: Request, chosen: Language) -> Response:
        path, query = request.scope["path"], request.query_params
        is_still = "still" in query
        try:
            if path == "/report" and self._reports is not None:
                return await self._reported(self._reports, chosen)
            view = self._view(path, query)
            key = (view, chosen.tag, is_still)
            found = await self._drawn.get(key, lambda: self._draw(view, chosen, is_still=is_still), DRAWN_SECONDS)
        except Crowded:
            raise
        except views.Unreadable:
            found = self._error(chosen, HTTPStatus.BAD_REQUEST, "bad_link")
        except TooSlow:
            name = "slow_report" if path == "/report" else "slow"
            found = self._error(chosen, HTTPStatus.SERVICE_UNAVAILABLE, name, seconds=f"{READ_SECONDS:g}")
        except StatementRefused as error:
            found = self._error(chosen, HTTPStatus.SERVICE_UNAVAILABLE, "refused", detail=str(error))
        except DatabaseError as error:
            found = self._error(chosen, HTTPStatus.SERVICE_UNAVAILABLE, "away", detail=str(error))
        except Exception:
            log.exception("page_failed", path=path[:80])
            found = self._error(chosen, HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
        headers = dict(self._headers)
        if (
            not is_still
            and found.status in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
            and path not in {"/find", "/report"}
        ):
            # A header, because an element that reloads the page is a barrier for some people's tools.
            headers["Refresh"] = str(REFRESH_SECONDS)
        return Response(found.body, found.status, headers, media_type="text/html; charset=utf-8")

    def _view(self, path: str, query: Mapping[str, str]) -> View:
        """What an address asks for. Raises Unreadable."""
        match path:
            case "/":
                return views.Home()
            case "/tasks":
                return views.Tasks.asked(query)
            case "/history":
                return views.History.asked(query)
            case "/find":
                return views.OneTask(query.get("id", "").strip(), *self._policy())
            case _:
                return views.OneTask(path.removeprefix(_TASK), *self._policy())

    async def _draw(self, view: View, chosen: Language, *, is_still: bool) -> Answer:
        live = self._live()
        if live.is_away:
            raise DatabaseUnavailable(live.database_trouble)
        if isinstance(view, views.Home):
            now = await self._read.get(view, lambda: self._reader.call(glance), FRESH_SECONDS)
            found: Any = now, await self._lately()
        else:
            found = await self._read.get(view, lambda: self._reader.call(view.read), FRESH_SECONDS)
        common = {"live": live, "is_still": is_still, "has_report": self._reports is not None}
        return await self._in_thread(lambda: drawn(self._renderer, view, found, chosen, common))

    async def _lately(self) -> Lately | None:
        """The last day; None if it takes too long to read: then the rest is shown without it."""
        try:
            found: Lately = await self._read.get("lately", lambda: self._reader.call(lately), LATELY_SECONDS)
        except TooSlow:
            return None
        return found

    async def _reported(self, reports: Reports, chosen: Language) -> Response:
        body = await self._made_reports.get(chosen.tag, lambda: reports.make(chosen.tag), REPORT_SECONDS)
        return Response(body, headers=security.report_headers(), media_type="text/html; charset=utf-8")

    def _error(self, chosen: Language, status: HTTPStatus, name: str, **values: str) -> Answer:
        detail = values.pop("detail", None)
        return Answer(status, self._renderer.render("error", chosen, **error_values(name, detail, values)))

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.wrap_future(self._thread.submit(work))
