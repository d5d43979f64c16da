"""Adoption: what runs at ZEGO and has no row is registered, page by page; a list that fails affects no other."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2 as httpx
import pytest
from structlog.testing import capture_logs

from tests.support.bench import reply
from tests.support.time_travel import World
from watchdog.core.model import RunningTask
from watchdog.errors import ConfigError, DatabaseUnavailable, NoAnswer, NotSent, WatchdogError
from watchdog.services.adopter import MOST_PAGES, Adopted, Adopter
from watchdog.store.discovery import AdoptionStore
from watchdog.zego.client import ZegoClient

APP, OTHER_APP = 1, 2
ACTIONS = {"DescribeTasks": "TaskList", "DescribePlayers": "Players", "QueryDigitalHumanStreamTasks": "TaskList"}


class Lists:
    """ZEGO's three lists, empty unless a test queues replies for an action."""

    def __init__(self) -> None:
        self.replies: dict[str, list[httpx.Response | Exception]] = {}
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        action = request.url.params["Action"]
        self.asked.append((action, request.url.params["AppId"]))
        self.bodies.append(json.loads(request.content))
        self.reached.set()
        await self.gate.wait()
        queue = self.replies.get(action)
        if not queue:
            return reply(0, Data={ACTIONS[action]: []})
        head = queue.pop(0)
        if isinstance(head, Exception):
            raise head
        return head


def players(*names: str, following: str = "") -> httpx.Response:
    entries = [{"PlayerId": name, "RoomId": "room", "Status": 2, "CreateTime": 1_772_366_000} for name in names]
    return reply(0, Data={"Players": entries, "NextPageToken": following})


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
async def zego(world: World, lists: Lists) -> AsyncIterator[ZegoClient]:
    client = ZegoClient(
        {APP: "secret", OTHER_APP: "secret"},
        asr_url="http://zego/",
        rtc_url=None,
        timeout_seconds=8,
        clock=world.clock,
        transport=httpx.MockTransport(lists),
    )
    yield client
    await client.aclose()


def adopter(world: World, zego: ZegoClient, *, apps: Sequence[int] = (APP,), every_seconds: float = 0) -> Adopter:
    store = AdoptionStore(world.engine)

    async def register(running: Sequence[RunningTask]) -> Sequence[RunningTask]:
        return store.register(running)

    return Adopter(zego=zego, registrar=register, apps=apps, clock=world.clock, every_seconds=every_seconds)


def ids(adopted: Adopted) -> list[str]:
    return [task.task_id for task in adopted.tasks]


async def test_every_page_of_every_list_is_registered(world: World, zego: ZegoClient, lists: Lists) -> None:
    recording = {"TaskId": "r1", "RoomId": "lecture", "Status": 2, "RecordBeginTimestamp": 1_772_366_000_000}
    human = {"TaskId": "d1", "RoomId": "stage", "Status": 3, "CreateTime": 1_772_366_000}
    lists.replies = {
        "DescribePlayers": [players("p1", "p2", following="t2"), players("p3")],
        "DescribeTasks": [reply(0, Data={"TaskList": [recording, recording | {"RoomId": ""}]})],
        "QueryDigitalHumanStreamTasks": [reply(0, Data={"TaskList": [human]})],
    }
    world.app.start("p2", "room", kind="player")
    service = adopter(world, zego, apps=(APP, OTHER_APP))
    adopted = await service.run_once()
    assert sorted(ids(adopted)) == ["d1", "p1", "p3", "r1"]
    assert (adopted.running, adopted.unusable, adopted.unlisted) == (5, 1, ())
    assert {task: world.task(task)["kind"] for task in ids(adopted)} == {
        "d1": "digital_human",
        "p1": "player",
        "p3": "player",
        "r1": "recording",
    }
    assert sorted(lists.asked) == sorted(
        [(action, str(app)) for action in ACTIONS for app in (APP, OTHER_APP)] + [("DescribePlayers", str(APP))]
    )
    assert {"PageSize": 50, "PageToken": "t2"} in lists.bodies
    lists.replies = {"DescribePlayers": [players("p1", "p2", "p3")]}
    again = await service.run_once()
    assert (ids(again), again.running) == ([], 3)


async def test_a_long_list_without_pages_is_registered_in_parts(world: World, zego: ZegoClient, lists: Lists) -> None:
    entries = [{"TaskId": f"d{number}", "RoomId": "stage", "Status": 3} for number in range(120)]
    lists.replies = {"QueryDigitalHumanStreamTasks": [reply(0, Data={"TaskList": entries})]}
    parts: list[int] = []

    async def register(running: Sequence[RunningTask]) -> Sequence[RunningTask]:
        parts.append(len(running))
        return running

    service = Adopter(zego=zego, registrar=register, apps=[APP], clock=world.clock)
    assert len((await service.run_once()).tasks) == 120
    assert parts == [50, 50, 20]


@pytest.mark.parametrize(
    ("answer", "kind", "parts"),
    [
        (reply(100000005), ConfigError, ["AppId 1: ", "DescribePlayers with code 100000005", "RequestId r", "check"]),
        (reply(350006003), WatchdogError, ["350006003", "report it"]),
        (reply(350010000), NoAnswer, ["350010000", "try again later"]),
        (httpx.Response(502, text="bad gateway"), NoAnswer, ["HTTP 502", "try again later"]),
        (reply(0), NoAnswer, ["no list that can be read"]),
        (httpx.ConnectError("refused"), NotSent, ["DescribePlayers", "refused"]),
        (httpx.ReadTimeout("slow"), NoAnswer, ["DescribePlayers"]),
    ],
    ids=["credentials", "rejected", "system", "html", "no list", "refused", "late"],
)
async def test_a_list_that_fails_is_named_and_the_others_are_read(
    world: World,
    zego: ZegoClient,
    lists: Lists,
    answer: httpx.Response | Exception,
    kind: type[WatchdogError],
    parts: list[str],
) -> None:
    human = {"TaskId": "d1", "RoomId": "stage", "Status": 3}
    lists.replies = {
        "DescribePlayers": [players("p1", following="t2"), answer],
        "QueryDigitalHumanStreamTasks": [reply(0, Data={"TaskList": [human]})],
    }
    adopted = await adopter(world, zego).run_once()
    assert sorted(ids(adopted)) == ["d1", "p1"]
    (unlisted,) = adopted.unlisted
    assert (unlisted.app_id, unlisted.kind, type(unlisted.error)) == (APP, "player", kind)
    assert all(part in str(unlisted.error) for part in parts), str(unlisted.error)
    assert "secret" not in str(unlisted.error).replace("check the secret", "")


@pytest.mark.parametrize("code", [100000004, 350006001])
async def test_it_asks_once_more_with_the_right_clock_or_slower(
    world: World, zego: ZegoClient, lists: Lists, code: int
) -> None:
    lists.replies = {"DescribePlayers": [reply(code), players("p1")]}
    assert ids(await adopter(world, zego).run_once()) == ["p1"]
    lists.replies = {"DescribePlayers": [reply(code), reply(code)]}
    assert len((await adopter(world, zego).run_once()).unlisted) == 1


async def test_lists_without_an_end_are_left(world: World, zego: ZegoClient, lists: Lists) -> None:
    lists.replies = {
        "DescribePlayers": [players(f"p{number}", following=f"t{number}") for number in range(MOST_PAGES + 1)]
    }
    began = world.clock.monotonic()
    adopted = await adopter(world, zego).run_once()
    assert len(adopted.tasks) == MOST_PAGES
    assert "200 pages" in str(adopted.unlisted[0].error)
    # Ten requests a second.
    assert world.clock.monotonic() - began == pytest.approx(MOST_PAGES / 10, rel=0.1)


# The daemon's job


async def test_one_line_says_how_many(world: World, zego: ZegoClient, lists: Lists) -> None:
    service = adopter(world, zego, every_seconds=600)
    lists.replies = {"DescribePlayers": [players("p1", "p2"), players("p1", "p2")]}
    with capture_logs() as logs:
        assert await service.run() == 600
        assert await service.run() == 600
    assert logs == [
        {"event": "tasks_adopted", "log_level": "info", "tasks": 2, "running": 2, "unusable_entries": 0},
    ]


async def test_a_list_that_cannot_be_read_is_logged_once(world: World, zego: ZegoClient, lists: Lists) -> None:
    service = adopter(world, zego)
    refused = [reply(100000005), reply(100000005), players(), reply(100000005)]
    lists.replies = {"DescribePlayers": list(refused)}
    with capture_logs() as logs:
        for _ in refused:
            await service.run()
    assert [(line["event"], line["kind"], line["app_id"]) for line in logs] == [("tasks_not_listed", "player", APP)] * 2


async def test_closing_breaks_a_run_off(world: World, zego: ZegoClient, lists: Lists) -> None:
    lists.gate.clear()
    service = adopter(world, zego, every_seconds=60)
    running = asyncio.create_task(service.run())
    await lists.reached.wait()
    await service.close()
    async with asyncio.timeout(5):
        assert await running == 60
    assert len(lists.asked) == 1


async def test_an_error_of_the_database_is_the_jobs(world: World, zego: ZegoClient, lists: Lists) -> None:
    async def register(running: Sequence[RunningTask]) -> Sequence[RunningTask]:
        raise DatabaseUnavailable(f"away, with {len(running)} tasks")

    lists.replies = {"DescribePlayers": [players("p1")]}
    service = Adopter(zego=zego, registrar=register, apps=[APP], clock=world.clock)
    with pytest.raises(DatabaseUnavailable):
        await service.run()


@pytest.mark.parametrize(
    "entry",
    [
        {"RoomId": "1e+05"},
        {"RoomId": "1001.0"},
        {"PlayerId": "1920370518175780864.0"},
        {"PlayerId": "1.9203705181757809e+18"},
        {"CreateTime": 1_772_366},
    ],
)
async def test_an_entry_that_no_row_can_hold_does_not_cost_the_others_their_page(
    every_world: World, lists: Lists, entry: dict[str, Any]
) -> None:
    client = ZegoClient(
        {APP: "secret"},
        asr_url="http://zego/",
        rtc_url=None,
        timeout_seconds=8,
        clock=every_world.clock,
        transport=httpx.MockTransport(lists),
    )
    good = {"PlayerId": "p1", "RoomId": "1.0", "Status": 2, "CreateTime": 1_772_366_000}
    lists.replies = {"DescribePlayers": [reply(0, Data={"Players": [good | {"PlayerId": "bad"} | entry, good]})]}
    adopted = await adopter(every_world, client).run_once()
    await client.aclose()
    assert (ids(adopted), adopted.unusable, adopted.unlisted) == (["p1"], 1, ())
