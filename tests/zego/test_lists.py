"""ZEGO's lists of running tasks: what is asked for, and what is made of the answers."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bench import reply
from tests.support.clock import SettableClock
from watchdog.core.kinds import KINDS
from watchdog.core.model import RunningTask
from watchdog.core.outcomes import ReplyClass
from watchdog.zego.client import ZegoClient
from watchdog.zego.lists import Listed, _entries, _next_page, _task, list_tasks

APP = 7
NOW = 1_772_366_400.0
PLAYER = {"PlayerId": "p1", "RoomId": "room", "Status": 2, "CreateTime": 1_772_366_000}
RECORDING = {"TaskId": "r1", "RoomId": "room", "Status": 2, "RecordBeginTimestamp": 1_772_366_000_500}
HUMAN = {"TaskId": "d1", "RoomId": "room", "StreamId": "s", "Status": 3, "CreateTime": 1_772_366_000}
STARTED = datetime.fromtimestamp(1_772_366_000, UTC)
RECORDED = RunningTask("r1", "recording", "room", APP, STARTED.replace(microsecond=500_000))

Ask = Callable[..., Any]


@pytest.fixture
def requests() -> list[httpx.Request]:
    return []


@pytest.fixture
def replies() -> list[httpx.Response | Exception]:
    return []


@pytest.fixture
async def ask(requests: list[httpx.Request], replies: list[httpx.Response]) -> AsyncIterator[Ask]:
    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return replies.pop(0)

    zego = ZegoClient(
        {APP: "secret"},
        asr_url="http://zego/",
        rtc_url=None,
        timeout_seconds=8,
        clock=SettableClock(),
        transport=httpx.MockTransport(answer),
    )

    async def one(kind: str, page: str | None = None) -> Listed:
        return await list_tasks(zego, KINDS[kind], APP, NOW, page=page)

    yield one
    await zego.aclose()


def body(request: httpx.Request) -> dict[str, Any]:
    found = json.loads(request.content)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("kind", "field", "entry", "task"),
    [
        ("player", "Players", PLAYER, RunningTask("p1", "player", "room", APP, STARTED)),
        ("recording", "TaskList", RECORDING, RECORDED),
        ("recording", "TaskidList", RECORDING, RECORDED),
        ("digital_human", "TaskList", HUMAN, RunningTask("d1", "digital_human", "room", APP, STARTED)),
    ],
)
async def test_each_kind_is_read_from_its_own_host(
    ask: Ask, requests: list[httpx.Request], replies: list[httpx.Response], kind: str, field: str, entry: Any, task: Any
) -> None:
    replies.append(reply(0, Data={field: [entry]}))
    listed = await ask(kind)
    assert (listed.tasks, listed.unusable, listed.next_page) == ((task,), 0, None)
    (request,) = requests
    listing = KINDS[kind].listing
    assert listing is not None
    assert (request.method, request.url.host) == ("POST", httpx.URL(KINDS[kind].url).host)
    assert (request.url.params["Action"], request.url.params["AppId"]) == (listing.action, str(APP))


async def test_what_each_page_is_asked_with(
    ask: Ask, requests: list[httpx.Request], replies: list[httpx.Response]
) -> None:
    replies += [
        reply(0, Data={"Players": [], "NextPageToken": "t2"}),
        reply(0, Data={"Players": [PLAYER], "NextPageToken": ""}),
        reply(0, Data={"TaskList": [RECORDING] * 50}),
        reply(0, Data={"TaskList": [RECORDING] * 49}),
        reply(0, Data={"TaskList": None}),
    ]
    assert (await ask("player")).next_page == "t2"
    assert (await ask("player", "t2")).next_page is None
    assert (await ask("recording")).next_page == "2"
    assert (await ask("recording", "2")).next_page is None
    assert (await ask("digital_human")).tasks == ()
    day_ms = 86_400_000
    end = round(1000 * NOW) + 60_000
    span = {"Status": 2, "StartTime": end - 3 * day_ms, "EndTime": end, "PageSize": 50}
    assert [body(request) for request in requests] == [
        {"PageSize": 50},
        {"PageSize": 50, "PageToken": "t2"},
        span | {"PageOffset": 1},
        span | {"PageOffset": 2},
        {},
    ]


@pytest.mark.parametrize(
    ("answer", "reply_class"),
    [
        (reply(350006001), ReplyClass.THROTTLED),
        (reply(100000005), ReplyClass.CREDENTIALS),
        (httpx.Response(502, text="bad gateway"), ReplyClass.TRANSIENT),
        (reply(0), ReplyClass.STOPPED),
        (reply(0, Data=[]), ReplyClass.STOPPED),
        (reply(0, Data={}), ReplyClass.STOPPED),
        (reply(0, Data={"Players": {}}), ReplyClass.STOPPED),
        (reply(0, Data={"TaskList": [PLAYER]}), ReplyClass.STOPPED),
    ],
)
async def test_without_a_list_nothing_is_known(
    ask: Ask, replies: list[httpx.Response], answer: httpx.Response, reply_class: ReplyClass
) -> None:
    replies.append(answer)
    listed = await ask("player")
    assert (listed.tasks, listed.next_page) == (None, None)
    assert listed.reply_class is reply_class


@pytest.mark.parametrize(
    "changed",
    [
        {"PlayerId": None},
        {"PlayerId": ""},
        {"PlayerId": "a\u0000b"},
        {"PlayerId": "\ud800"},
        {"PlayerId": ["p"]},
        {"PlayerId": "x" * 201},
        {"RoomId": None},
        {"RoomId": ""},
        {"RoomId": "会" * 43},
        {"CreateTime": "soon"},
        {"CreateTime": -5},
        {"CreateTime": 10**15},
        {"CreateTime": 10**300},
        {"CreateTime": 1.5},
        {"CreateTime": True},
    ],
    ids=str,
)
async def test_an_entry_that_makes_no_sense_is_left_out_and_counted(
    ask: Ask, replies: list[httpx.Response], changed: dict[str, Any]
) -> None:
    envelope = {"Code": 0, "Message": "", "RequestId": "r", "Data": {"Players": [PLAYER | changed, PLAYER]}}
    # Escaped: a lone surrogate comes that way.
    replies.append(httpx.Response(200, content=json.dumps(envelope)))
    listed = await ask("player")
    assert ([task.task_id for task in listed.tasks], listed.unusable) == (["p1"], 1)


async def test_what_does_not_run_is_no_task(ask: Ask, replies: list[httpx.Response]) -> None:
    without = {name: value for name, value in PLAYER.items() if name != "Status"}
    replies.append(reply(0, Data={"Players": [PLAYER | {"Status": 7}, without, "nonsense", None]}))
    listed = await ask("player")
    assert (listed.tasks, listed.unusable) == ((), 3)


@pytest.mark.parametrize("started", [None, 0, "", "absent"])
async def test_a_start_that_is_not_told_is_not_known(ask: Ask, replies: list[httpx.Response], started: Any) -> None:
    entry = PLAYER | {"CreateTime": started}
    if started == "absent":
        del entry["CreateTime"]
    replies.append(reply(0, Data={"Players": [entry]}))
    (task,) = (await ask("player")).tasks
    assert task.started_at is None


async def test_a_room_of_128_bytes_and_a_numeric_id_are_fine(ask: Ask, replies: list[httpx.Response]) -> None:
    replies.append(reply(0, Data={"Players": [PLAYER | {"RoomId": "会" * 42 + "ab", "PlayerId": 2**60}]}))
    (task,) = (await ask("player")).tasks
    assert (len(task.room_id.encode()), task.task_id) == (128, str(2**60))


async def test_a_page_that_names_itself_as_the_next_is_the_last(ask: Ask, replies: list[httpx.Response]) -> None:
    replies.append(reply(0, Data={"Players": [PLAYER], "NextPageToken": "t2"}))
    assert (await ask("player", "t2")).next_page is None


async def test_a_kind_without_a_list_is_a_mistake(ask: Ask) -> None:
    with pytest.raises(ValueError, match="no list of the kind agent"):
        await ask("agent")


names = st.sampled_from(["Players", "PlayerId", "RoomId", "Status", "CreateTime", "NextPageToken"])
json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
)


@given(json_values)
def test_nothing_makes_reading_fail(data: Any) -> None:
    kind = KINDS["player"]
    assert kind.listing is not None
    if isinstance(data, dict):
        entries = _entries(kind.listing, data)
        _next_page(kind.listing, data, None, 0)
        for entry in entries or ():
            _task(kind, kind.listing, APP, entry)
    _task(kind, kind.listing, APP, data)
