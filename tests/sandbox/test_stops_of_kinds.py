"""The daemon's client and table against the sandbox, which does not share the table: over HTTP, each kind of tasks."""

import asyncio

import pytest

from tests.support.running import APP_ID, OTHER_KINDS, SECRET, fake_zego
from watchdog.clock import SystemClock
from watchdog.core.kinds import KINDS
from watchdog.core.model import Reply
from watchdog.core.outcomes import RETURN_CODES, ReplyClass, classify
from watchdog.sandbox import Behave, Kind, Limits, Misbehaviour, Sandbox, Start
from watchdog.sandbox.actions import Action
from watchdog.zego.client import ZegoClient

_LIMITS = ("start", "stop", "stop_agent", "stop_digital_human", "stop_player", "stop_recording", "user_num")


def client_of(sandbox: Sandbox) -> ZegoClient:
    return ZegoClient(
        {APP_ID: SECRET},
        asr_url=sandbox.url,
        rtc_url=sandbox.url,
        urls=dict.fromkeys(OTHER_KINDS, sandbox.url),
        timeout_seconds=5,
        clock=SystemClock(),
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_running_then_gone(kind: str) -> None:
    """The first stop is accepted; the second, and that of a task that never was, get the kind's own code."""
    async with fake_zego() as sandbox:
        client = client_of(sandbox)
        task_id = str(sandbox.perform(Start(room="room", kind=Kind(kind)))["task_id"])
        replies = [await client.stop_task(APP_ID, one, kind=kind) for one in (task_id, task_id, "1000")]
        await client.aclose()
        requested = [event for event in sandbox.events() if event["event"] == "stop_requested"]
    classes = [classify(KINDS[kind], reply) for reply in replies]
    gone = ReplyClass.UNEXPECTED if kind == "player" else ReplyClass.GONE
    assert classes == [ReplyClass.STOPPED, gone, gone]
    assert [(event["task_id"], event["accepted"]) for event in requested] == [
        (task_id, True),
        (task_id, False),
        ("1000", False),
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_code_arrives_as_the_table_has_it(kind: str) -> None:
    replies: dict[str, Reply] = {}
    async with fake_zego(limits=Limits(**dict.fromkeys(_LIMITS, 0))) as sandbox:
        client = client_of(sandbox)
        for code in RETURN_CODES[kind]:
            sandbox.perform(Misbehaviour(action=Action(KINDS[kind].action), code=int(code), requests=1))
            replies[code] = await client.stop_task(APP_ID, "1000", kind=kind)
        await client.aclose()
    assert {reply.code: classify(KINDS[kind], reply) for reply in replies.values()} == RETURN_CODES[kind]


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.stops_per_second is not None])
async def test_the_vendors_own_limit_is_the_tables(kind: str) -> None:
    """Sent at once, as many are let through as the table's limit says, within the vendor's second."""
    limit = int(KINDS[kind].stops_per_second or 0)
    async with fake_zego(limits=Limits(start=0)) as sandbox:
        client = client_of(sandbox)
        replies = await asyncio.gather(
            *(client.stop_task(APP_ID, str(number), kind=kind) for number in range(1, 2 * limit + 1))
        )
        await client.aclose()
        requested = {
            int(event["task_id"]): event["received_at"]
            for event in sandbox.events()
            if event["event"] == "stop_requested"
        }
    # For an agent the vendor documents no code of its own, so the program takes it for a passing fault.
    refusals = {ReplyClass.THROTTLED, ReplyClass.TRANSIENT}
    refused = [number for number, reply in enumerate(replies, 1) if classify(KINDS[kind], reply) in refusals]
    passed = [at for number, at in requested.items() if number not in refused]
    # A little less than the second, which begins and ends inside the sandbox.
    assert max(sum(at <= one < at + 0.9 for one in passed) for at in passed) <= limit
    if max(requested.values()) - min(requested.values()) < 0.9:
        assert len(refused) >= limit, "twice the limit within a second"


async def test_what_the_vendor_does_wrong_to_one_kind_is_not_done_to_another() -> None:
    async with fake_zego() as sandbox:
        client = client_of(sandbox)
        sandbox.perform(Misbehaviour(action=Action.STOP_AGENT, http_status=503))
        replies = [await client.stop_task(APP_ID, "1000", kind=kind) for kind in KINDS]
        assert [reply.http_status for reply in replies] == [503 if kind == "agent" else 200 for kind in KINDS]
        sandbox.perform(Behave())
        assert (await client.stop_task(APP_ID, "1000", kind="agent")).http_status == 200
        await client.aclose()
