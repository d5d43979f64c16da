"""ZEGO's room API as ``Occupancy`` and ``Bots`` see it: a handler at the HTTP seam."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx

from tests.support.bench import reply
from tests.support.clock import SettableClock
from watchdog.core.model import Source
from watchdog.services.bots import Bots
from watchdog.services.occupancy import Occupancy
from watchdog.zego.client import ZegoClient
from watchdog.zego.pacing import Pace

APP = 1


class Now:
    """What Occupancy wants of a Storage."""

    def __init__(self, clock: SettableClock) -> None:
        self._clock = clock

    def now(self) -> Any:
        return self._clock.now


class Vendor:
    def __init__(self) -> None:
        self.users: list[tuple[str, int]] = []
        self.admins: int | None = None
        self.listed: list[tuple[str, int]] | None = None
        self.list_reply: httpx.Response | Exception | None = None
        self.list_replies: list[httpx.Response | Exception | asyncio.Event] = []
        """Those to the first requests for a list; an event is waited for first."""
        self.lists: list[str] = []
        self.counts = 0
        self.asked: list[list[str]] = []
        self.refused: dict[str, httpx.Response] = {}
        """The reply to each call with one of these rooms in it."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        parameters = request.url.params
        if parameters["Action"] == "DescribeUserNum":
            self.counts += 1
            rooms = parameters.get_list("RoomId[]")
            self.asked.append(rooms)
            await self.gate.wait()
            if refusal := next((self.refused[room] for room in rooms if room in self.refused), None):
                return httpx.Response(refusal.status_code, content=refusal.content)
            admins = sum(role == 4 for _, role in self.users) if self.admins is None else self.admins
            counts = [{"RoomId": room, "UserCount": len(self.users), "AdminUserCount": admins} for room in rooms]
            return reply(0, Data={"UserCountList": counts})
        self.lists.append(parameters["RoomId"])
        answer = self.list_replies.pop(0) if self.list_replies else self.list_reply
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        elif answer is not None:
            return answer
        return reply(0, Data=page(self.users if self.listed is None else self.listed))


def page(users: Sequence[tuple[str, int]], marker: str = "") -> dict[str, Any]:
    return {
        "Marker": marker,
        "UserList": [{"UserId": user, "UserName": "n", "UserRole": role} for user, role in users],
    }


class Bench:
    def __init__(self, patterns: Sequence[str]) -> None:
        self.clock = SettableClock()
        self.vendor = Vendor()
        self.zego = ZegoClient(
            {APP: "secret"},
            asr_url="http://zego/",
            rtc_url="http://zego/",
            timeout_seconds=8,
            clock=self.clock,
            transport=httpx.MockTransport(self.vendor),
        )
        bots = Bots(patterns, self.zego, Pace(0, clock=self.clock), self.clock)
        self.occupancy = Occupancy(self.zego, Pace(0, clock=self.clock), Now(self.clock), self.clock, bots=bots)  # type: ignore[arg-type] # its now()

    async def ask(self, *users: tuple[str, int]) -> tuple[int | None, int]:
        self.vendor.users = list(users)
        evidence = (await self.occupancy.ask(APP, ["room"]))["room"]
        assert evidence.source == Source.API
        return evidence.user_count, evidence.others


@asynccontextmanager
async def bench(*patterns: str) -> AsyncIterator[Bench]:
    it = Bench(patterns)
    try:
        yield it
    finally:
        await it.zego.aclose()
