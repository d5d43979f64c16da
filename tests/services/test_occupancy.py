"""People, not heads: what is made of the vendor's two answers, and what in doubt."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.virtual import run_virtual
from tests.support.bench import reply
from tests.support.clock import SettableClock
from watchdog.core.model import RoomCount, Source
from watchdog.services.occupancy import BACKGROUND_CALLS, BOTS_AT_MOST, Bots, Counted, Occupancy, count_as, people
from watchdog.zego.client import RoomUser, UserList, ZegoClient
from watchdog.zego.pacing import Pace

APP = 1
PATTERNS = ("asr-*", "agent[0-9]")


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
        self.list_reply: httpx2.Response | Exception | None = None
        self.lists: list[str] = []
        self.counts = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        parameters = request.url.params
        if parameters["Action"] == "DescribeUserNum":
            self.counts += 1
            await self.gate.wait()
            admins = sum(role == 4 for _, role in self.users) if self.admins is None else self.admins
            rooms = parameters.get_list("RoomId[]")
            counts = [{"RoomId": room, "UserCount": len(self.users), "AdminUserCount": admins} for room in rooms]
            return reply(0, Data={"UserCountList": counts})
        self.lists.append(parameters["RoomId"])
        if isinstance(self.list_reply, Exception):
            raise self.list_reply
        if self.list_reply is not None:
            return self.list_reply
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
            transport=httpx2.MockTransport(self.vendor),
        )
        bots = Bots(patterns, self.zego, Pace(0), self.clock)
        self.occupancy = Occupancy(self.zego, Pace(0), Now(self.clock), bots=bots)  # type: ignore[arg-type] # its now()

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


ALICE, BOT, RECORDER = ("alice", 2), ("asr-1", 1), ("recorder", 4)


@pytest.mark.parametrize(
    ("users", "number", "others"),
    [
        ([], 0, 0),
        ([ALICE], 1, 0),
        ([BOT], 0, 1),
        ([BOT, ALICE], 1, 1),
        ([RECORDER], 0, 1),
        ([RECORDER, BOT], 0, 2),
        ([RECORDER, BOT, ALICE], 1, 2),
        ([("asr-9", 4), ALICE], 1, 1),  # a bot that is an admin is subtracted once
        ([("asr-9", 4), BOT, ("agent7", 0)], 0, 3),
        ([("agentX", 1)], 1, 0),
    ],
)
async def test_people_are_those_who_are_neither_admins_nor_bots(
    users: list[tuple[str, int]], number: int, others: int
) -> None:
    async with bench(*PATTERNS) as it:
        assert await it.ask(*users) == (number, others)


async def test_without_patterns_nobody_is_listed() -> None:
    async with bench() as it:
        assert await it.ask(BOT, RECORDER) == (1, 1)
        assert it.vendor.lists == []


async def test_only_where_all_of_them_could_be_bots_are_they_listed() -> None:
    async with bench("*-bot") as it:
        assert await it.ask(RECORDER) == (0, 1)
        assert it.vendor.lists == []
        many = [(f"{number}-bot", 1) for number in range(BOTS_AT_MOST + 1)]
        assert await it.ask(*many) == (BOTS_AT_MOST + 1, 0)
        assert it.vendor.lists == []
        assert await it.ask(*many[1:]) == (0, BOTS_AT_MOST)
        assert it.vendor.lists == ["room"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        reply(207),
        reply(100000005),
        httpx2.Response(502, text="bad gateway"),
        reply(0),
        reply(0, Data={"UserList": None}),
        reply(0, Data={"UserList": [{"UserName": "no id"}]}),
        reply(0, Data={"UserList": ["asr-1"]}),
        reply(0, Data=page([BOT], marker="7")),
    ],
    ids=["refused", "late", "throttled", "credentials", "html", "no data", "no list", "no id", "no user", "more"],
)
async def test_in_doubt_they_are_people(answer: httpx2.Response | Exception) -> None:
    async with bench(*PATTERNS) as it:
        it.vendor.list_reply = answer
        assert await it.ask(BOT, RECORDER) == (1, 1)


async def test_somebody_who_comes_between_the_two_questions_counts() -> None:
    async with bench(*PATTERNS) as it:
        it.vendor.listed = [BOT, ("asr-2", 1), ALICE]
        assert await it.ask(BOT, ("asr-2", 1)) == (1, 1)
        it.vendor.listed = [BOT]
        it.clock.advance(1)
        assert (await it.ask(BOT, ALICE))[0] == 1


async def test_one_room_is_listed_once_a_second() -> None:
    async with bench(*PATTERNS) as it:
        began = it.clock.monotonic()
        for _ in range(3):
            await it.ask(BOT)
        assert it.clock.monotonic() - began == 2
        it.vendor.users = [BOT]
        await it.occupancy.ask(APP, ["another"])
        assert it.clock.monotonic() - began == 2


def counted(bots: int, strangers: int, admin_bots: int, admins: int) -> list[Counted]:
    kinds = [("asr-", 1, bots), ("person-", 2, strangers), ("asr-admin-", 4, admin_bots), ("rec-", 4, admins)]
    return [
        count_as(RoomUser(f"{name}{number}", "", role), PATTERNS)
        for name, role, many in kinds
        for number in range(many)
    ]


few = st.integers(0, 8)


@given(few, few, few, few)
def test_of_one_moment_the_number_is_exact(bots: int, strangers: int, admin_bots: int, admins: int) -> None:
    count = RoomCount(bots + strangers + admin_bots + admins, admin_bots + admins)
    assert people(count, counted(bots, strangers, admin_bots, admins)) == strangers


@given(few, few, few, few, few, few)
def test_a_person_in_either_answer_is_never_lost(
    bots: int, strangers: int, admin_bots: int, admins: int, users: int, counted_admins: int
) -> None:
    count = RoomCount(users + counted_admins, counted_admins)
    number = people(count, counted(bots, strangers, admin_bots, admins))
    assert number >= strangers
    assert number >= count.people - bots


async def test_a_list_is_read_from_the_wire() -> None:
    async with bench() as it:
        it.vendor.list_reply = reply(
            0,
            Data={
                "Marker": "9",
                "UserList": [{"UserId": "a", "UserName": None, "UserRole": "x"}, page([BOT])["UserList"][0]],
            },
        )
        listed = await it.zego.user_list(APP, "room", limit=2, marker="3")
        assert isinstance(listed, UserList)
        assert (listed.users, listed.marker) == ((RoomUser("a", "", None), RoomUser("asr-1", "n", 1)), "9")


async def test_a_vendor_that_hangs_holds_up_so_many_background_calls_and_no_verification() -> None:
    async with bench() as it:
        it.vendor.gate.clear()
        rooms = [f"room-{number}" for number in range(40 * 10)]
        polling = asyncio.create_task(it.occupancy.ask(APP, rooms, in_background=True))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - no time: lets the others have their turn
        assert it.vendor.counts == BACKGROUND_CALLS
        verifying = asyncio.create_task(it.occupancy.ask(APP, ["due"]))
        for _ in range(200):
            await asyncio.sleep(0)  # noqa: TID251 - the same
        assert it.vendor.counts == BACKGROUND_CALLS + 1
        it.vendor.gate.set()
        assert len(await verifying) == 1
        assert len(await polling) == 400


def test_in_the_background_four_fifths_of_the_pace_are_used() -> None:
    async def scenario() -> None:
        it = Bench(())
        occupancy = Occupancy(it.zego, Pace(10), Now(it.clock), background=Pace(8))  # type: ignore[arg-type] # its now()
        assert occupancy.background_rate(APP) == 8
        loop = asyncio.get_running_loop()
        began = loop.time()
        await occupancy.ask(APP, [f"room-{number}" for number in range(41 * 10)], in_background=True)
        assert 40 / (loop.time() - began) == pytest.approx(8, rel=0.05)
        await it.zego.aclose()

    run_virtual(scenario())
