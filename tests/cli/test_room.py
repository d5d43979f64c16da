"""``zego-watchdog room``: the users and how each counts; and what ``status`` and ``check`` learn from past stops."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.operator import Operator
from tests.support.running import APP_ID, SECRET, Application
from tests.support.store_steps import tried
from tests.support.time_travel import World
from watchdog.cli.checks.findings import Level
from watchdog.cli.commands.check import examine
from watchdog.clock import SystemClock
from watchdog.sandbox import Action, Join, Limits, Misbehaviour, Sandbox
from watchdog.store.reports.situation import situation


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox({APP_ID: SECRET}, seed=7, limits=Limits(start=0, user_num=0), concurrent_tasks=0) as running:
        yield running


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


@pytest.fixture
def operator(application: Application, tmp_path: Path, sandbox: Sandbox) -> Operator:
    return Operator(tmp_path, application.url, sandbox.url)


async def test_every_user_is_shown_with_its_kind_and_the_reason(
    operator: Operator, application: Application, sandbox: Sandbox
) -> None:
    operator.sections["zego"]["bot_user_ids"] = ["asr-*"]
    task = await application.start(sandbox, "room")
    for user, role in (("alice", 1), ("asr-1", 1), ("recorder", 4)):
        sandbox.perform(Join(room="room", user=user, role=role))

    result = await operator.does("room", "room")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "Room room, AppId 12345: 1 person" in result.stdout
    assert "ZEGO counts 3 users, including 1 admin; 2 do not count as people." in result.stdout
    assert "person" in lines["alice"]
    assert "matches no pattern" in lines["alice"]
    assert "bot" in lines["asr-1"]
    assert "matches asr-*" in lines["asr-1"]
    assert "admin" in lines["recorder"]
    assert "none" in lines[task]
    assert 'zego.bot_user_ids: ["alice"]' in result.stderr

    found = await operator.learns("room", "room", "--app", str(APP_ID))
    assert (found["user_count"], found["admin_user_count"], found["people"]) == (3, 1, 1)
    assert [(one["user_id"], one["counted_as"], one["pattern"]) for one in found["users"]] == [
        ("alice", "person", None),
        ("asr-1", "bot", "asr-*"),
        ("recorder", "admin", None),
    ]
    assert [row["task_id"] for row in found["tasks"]] == [task]
    assert application.rows("SELECT user_count FROM zego_tasks") == [{"user_count": None}], "it stores nothing"


async def test_the_user_that_a_task_brings_along_is_a_bot(
    operator: Operator, application: Application, sandbox: Sandbox
) -> None:
    task = await application.start(sandbox, "room")
    application.execute(
        "INSERT INTO zego_tasks (task_id, room_id, kind, bot_user_id) VALUES ('agent-1', 'room', 'agent', 'helper[1]')"
    )
    for user in ("alice", "helper[1]"):
        sandbox.perform(Join(room="room", user=user))
    found = await operator.learns("room", "room")
    assert (found["people"], found["bot_user_ids"]) == (1, [])
    assert [(one["user_id"], one["counted_as"], one["pattern"]) for one in found["users"]] == [
        ("alice", "person", None),
        ("helper[1]", "bot", None),
    ]
    assert found["users"][1]["why"] == "is the bot_user_id of task agent-1"
    assert {row["task_id"] for row in found["tasks"]} == {task, "agent-1"}


async def test_an_empty_room_may_be_a_mistyped_one(operator: Operator) -> None:
    result = await operator.does("room", "nowhere")
    assert result.exit_code == 0
    assert "0 people" in result.stdout
    assert "ZEGO counts 0 users.\n" in result.stdout
    assert "is the RoomId right?" in result.stdout
    assert "No active task" in result.stdout


async def test_a_room_with_only_bots_is_empty(operator: Operator, sandbox: Sandbox) -> None:
    operator.sections["zego"]["bot_user_ids"] = ["asr-*"]
    sandbox.perform(Join(room="room", user="asr-1"))
    result = await operator.does("room", "room")
    assert "the watchdog treats this room as empty" in result.stderr


async def test_numbers_agree_with_their_words(operator: Operator, sandbox: Sandbox) -> None:
    for number, said in enumerate(["1 does not count as people", "2 do not count as people"], 1):
        sandbox.perform(Join(room="room", user=f"recorder-{number}", role=4))
        assert said in (await operator.does("room", "room")).stdout


async def test_a_large_room_is_read_page_by_page(operator: Operator, sandbox: Sandbox) -> None:
    for number in range(130):
        sandbox.perform(Join(room="room", user=f"user-{number}"))
    found = await operator.learns("room", "room")
    assert (found["people"], len(found["users"]), found["complete"]) == (130, 130, True)


@pytest.mark.parametrize(
    ("misbehaviour", "exit_code"),
    [
        (Misbehaviour(action=Action.USER_NUM, http_status=502), 75),
        (Misbehaviour(action=Action.USER_LIST, code=206), 75),
        (Misbehaviour(action=Action.USER_NUM, code=100000005), 78),
    ],
    ids=["down", "throttled", "credentials"],
)
async def test_the_cause_decides_the_exit_code(
    operator: Operator, sandbox: Sandbox, misbehaviour: Misbehaviour, exit_code: int
) -> None:
    sandbox.perform(misbehaviour)
    result = await operator.does("room", "room")
    assert result.exit_code == exit_code, result.output
    assert "ZEGO answers" in result.stderr
    assert SECRET not in result.output


@pytest.mark.parametrize("action", [Action.USER_NUM, Action.USER_LIST])
async def test_a_room_that_zego_refuses_is_wrong_usage(operator: Operator, sandbox: Sandbox, action: Action) -> None:
    sandbox.perform(Misbehaviour(action=action, code=2))
    result = await operator.does("room", "会议室")
    assert result.exit_code == 2, result.output
    assert "'ROOM': ZEGO answers" in result.stderr
    assert "is the RoomId right?" in result.stderr
    assert "try again" not in result.stderr


async def test_unreachable_is_75_and_an_unknown_app_is_78(operator: Operator) -> None:
    assert (await operator.does("room", "room", "--app", "7")).exit_code == 78
    operator.sections["zego"]["rtc_url"] = "http://127.0.0.1:1/"
    assert (await operator.does("room", "room")).exit_code == 75


# What past stops teach


async def test_status_and_check_show_returns_and_zegos_own_window(operator: Operator, application: Application) -> None:
    found = await operator.learns("status")
    assert (found["returns_24h"], found["auto_stop_windows"]) == ({"watched": 0, "returned": 0}, None)
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')" if application.is_sqlite else "now()"
    for number in range(4):
        application.execute(
            "INSERT INTO zego_rejoins (task_id, room_id, stopped_at, watch_until, rejoined_at)"
            f" VALUES (?, 'room', {now}, {now}, {now if number == 0 else 'NULL'})",
            str(number),
        )
    found = await operator.learns("status")
    assert found["returns_24h"] == {"watched": 4, "returned": 1}
    assert "25.0% of 4 stops" in (await operator.does("status")).stdout
    findings = await examine(operator.file, {}, SystemClock(), offline=True)
    (finding,) = [one for one in findings if one.subject == "returns"]
    assert (finding.level, finding.found) == (
        Level.WARN,
        "people came back after 1 of 4 stops of the last 24 hours",
    )


@pytest.mark.parametrize(("lengths", "faster"), [([119, 120, 131], True), ([148, 149, 151], False)])
def test_windows_are_measured_from_zegos_own_stops(world: World, lengths: list[int], *, faster: bool) -> None:
    for number, length in enumerate(lengths):
        tried(
            world,
            str(number),
            code="1202",
            attempt=None,
            empty_since=world.now,
            evidence_at=world.ahead(length),
            auto_stop_at=world.ahead(150),
        )
    tried(world, "another", code="410001002", empty_since=world.now, evidence_at=world.ahead(1))
    tried(world, "unknown", code="1202", attempt=None, evidence_at=world.ahead(1))
    windows = situation(world.engine).windows
    assert windows is not None
    assert (windows.count, windows.minimum, windows.median) == (3, lengths[0], lengths[1])
    assert windows.is_faster_than_configured is faster
    world.advance(8 * 86_400)
    assert situation(world.engine).windows is None


def test_the_oldest_evidence_is_that_of_an_active_task(world: World) -> None:
    world.app.start("ended", "a", user_count=1)
    world.app.release("ended")
    world.advance(5)
    world.app.start("t", "b", user_count=1)
    oldest = world.now
    world.advance(5)
    world.app.start("u", "c", user_count=1)
    world.app.start("unknown", "d")
    found = situation(world.engine)
    assert (found.oldest_evidence_at, found.unknown) == (oldest, 1)
