"""People, not heads: what is made of the vendor's two answers, and what in doubt."""

import asyncio

import httpx2 as httpx
import pytest

from tests.support.bench import bench as whole
from tests.support.bench import empty_room, reply
from tests.support.room_api import APP, bench, page
from tests.support.time_travel import World
from watchdog.core.model import RoomUser
from watchdog.core.people import BOTS_AT_MOST
from watchdog.errors import DatabaseUnavailable
from watchdog.services import bots
from watchdog.services.bots import ASK_AGAIN_SECONDS, RegisteredBots
from watchdog.store.aio.calls import AsyncBots
from watchdog.store.aio.threads import DatabaseThreads
from watchdog.store.bots import BotStore
from watchdog.zego.replies import UserList

PATTERNS = ("asr-*", "agent[0-9]")


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
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        reply(207),
        reply(100000005),
        httpx.Response(502, text="bad gateway"),
        reply(0),
        reply(0, Data={"UserList": None}),
        reply(0, Data={"UserList": [{"UserName": "no id"}]}),
        reply(0, Data={"UserList": ["asr-1"]}),
        reply(0, Data=page([BOT], marker="7")),
    ],
    ids=["refused", "late", "throttled", "credentials", "html", "no data", "no list", "no id", "no user", "more"],
)
async def test_in_doubt_they_are_people(answer: httpx.Response | Exception) -> None:
    async with bench(*PATTERNS) as it:
        it.vendor.list_reply = answer
        assert await it.ask(BOT, RECORDER) == (1, 1)
        assert 1 < len(it.vendor.lists) <= 5


async def test_a_list_that_could_not_be_read_is_asked_for_again() -> None:
    async with bench(*PATTERNS) as it:
        it.vendor.list_replies = [httpx.ReadTimeout("slow"), httpx.Response(502, text="bad gateway")]
        assert await it.ask(BOT, RECORDER) == (0, 2)
        assert len(it.vendor.lists) == 3


async def test_beside_a_list_that_takes_long_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bots, "_LATE_SECONDS", 0.01)
    async with bench(*PATTERNS) as it:
        it.vendor.list_replies = [asyncio.Event()]
        assert await it.ask(BOT, RECORDER) == (0, 2)
        assert len(it.vendor.lists) == 2


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
        assert it.clock.monotonic() - began == pytest.approx(2 / 0.98, abs=0.02)
        it.vendor.users = [BOT]
        await it.occupancy.ask(APP, ["another"])
        assert it.clock.monotonic() - began == pytest.approx(2 / 0.98, abs=0.02)


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


# Users that registered tasks bring along


async def test_a_room_with_only_a_registered_agent_is_bots_only(world: World) -> None:
    async with whole(world) as it:
        world.app.start("t", "room")
        world.app.start("agent", "room", kind="agent", bot_user_id="helper*", app_id=1)
        it.vendor.users["room"] = ["helper*"]
        assert (await it.poll()).changed == 2
        assert [world.task(task)["user_count"] for task in ("t", "agent")] == [0, 0]
        world.advance(20)
        it.vendor.users["room"] = ["helper*", "helper2"]
        assert (await it.poll()).changed == 2
        assert [world.task(task)["user_count"] for task in ("t", "agent")] == [1, 1]


async def test_its_task_is_stopped_because_only_bots_are_left(world: World) -> None:
    async with whole(world) as it:
        it.vendor.users["room"] = ["helper"]
        await empty_room(it)
        world.app.start("agent", "room", kind="agent", bot_user_id="helper", user_count=0)
        await it.after(45)
        assert [(row["outcome"], row["reason"]) for row in world.attempts("t")] == [("stopped", "bots_only")]


async def test_without_its_row_the_agent_keeps_the_task(world: World) -> None:
    async with whole(world) as it:
        it.vendor.users["room"] = ["helper"]
        await empty_room(it)
        await it.after(45)
        assert it.outcomes() == ["spared"]


class Counting(BotStore):
    """Counts its calls; ``failing`` is raised by the next."""

    calls = 0
    failing: Exception | None = None

    def _count(self) -> None:
        self.calls += 1
        if self.failing is not None:
            raise self.failing

    def are_known(self) -> bool:
        self._count()
        return super().are_known()

    def of(self, app_id: int, room_id: str) -> list[str]:
        self._count()
        return super().of(app_id, room_id)


@pytest.fixture
def counting(world: World) -> Counting:
    return Counting(world.engine, APP)


async def test_without_agents_the_database_is_asked_every_five_seconds(world: World, counting: Counting) -> None:
    threads = DatabaseThreads(world.engine, world.clock)
    registered = RegisteredBots(AsyncBots(threads, counting), world.clock)
    for _ in range(3):
        for _ in range(10):
            assert list(await registered.of(APP, "room")) == []
        world.advance(ASK_AGAIN_SECONDS)
    assert counting.calls == 3
    world.app.start("agent", "room", kind="agent", bot_user_id="helper")
    assert [list(await registered.of(APP, room)) for room in ("room", "another")] == [["helper"], []]
    assert counting.calls == 6
    threads.close()


async def test_a_failing_database_knows_no_bots_and_is_left_alone(world: World, counting: Counting) -> None:
    threads = DatabaseThreads(world.engine, world.clock)
    registered = RegisteredBots(AsyncBots(threads, counting), world.clock)
    world.app.start("agent", "room", kind="agent", bot_user_id="helper")
    counting.failing = DatabaseUnavailable("away")
    assert [list(await registered.of(APP, "room")) for _ in range(3)] == [[], [], []]
    assert counting.calls == 1
    counting.failing = None
    world.advance(ASK_AGAIN_SECONDS)
    assert list(await registered.of(APP, "room")) == ["helper"]
    counting.failing = DatabaseUnavailable("away")
    assert [list(await registered.of(APP, "room")) for _ in range(3)] == [[], [], []]
    assert counting.calls == 4
    threads.close()


async def test_a_user_that_a_task_brought_may_leave_a_little_later_than_its_task(world: World) -> None:
    """ZEGO still lists the agent for a moment: nobody has come back."""
    async with whole(world) as it:
        await empty_room(it, kind="agent", bot_user_id="agent-7")
        it.vendor.users["room"] = ["agent-7"]
        await it.after(45)
        assert world.task("t")["status"] == "stopped"
        registered = it.parts.bots._registered if it.parts.bots is not None else None
        assert registered is not None
        assert list(await registered.of(1, "room")) == ["agent-7"]
        assert list(await registered.of(1, "another")) == []
        world.advance(61)
        assert list(await registered.of(1, "room")) == []
