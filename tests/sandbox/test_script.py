"""Room scripts and the program that plays them."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.support.clock import SettableClock
from watchdog.config import load
from watchdog.errors import ConfigError
from watchdog.sandbox import CallbackBehaviour, Join, Leave, Misbehaviour, Operation, Sandbox, Start
from watchdog.sandbox.callbacks import EXAMPLE_CALLBACK_SECRET
from watchdog.sandbox.command import EXAMPLE_SERVER_SECRET, how_to_use, read_secret, run_sandbox
from watchdog.sandbox.script import Script, play

SCRIPT = """
steps:
  - {at: 0, start: {room: lecture, max_idle_seconds: 60}}
  - {at: 30.5, leave: {room: lecture, user: alice}}
  - {at: 0, join: {room: lecture, user: alice}}
  - {at: 40, misbehave: {action: StopRealtimeASRTask, http_status: 500, requests: 3}}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "script.yaml"
    path.write_text(text)
    return path


def test_a_script_is_sorted_by_time_and_keeps_the_order_within_a_moment(tmp_path: Path) -> None:
    script = Script.load(write(tmp_path, SCRIPT))
    assert [(step.at, step.number) for step in script.steps] == [(0.0, 1), (0.0, 3), (30.5, 2), (40.0, 4)]
    assert script.steps[0].operation == Start(room="lecture", max_idle_seconds=60)


async def test_steps_are_performed_at_their_times_however_slow_the_consumer() -> None:
    clock = SettableClock()
    performed: list[tuple[float, Operation]] = []

    def perform(operation: Operation) -> dict[str, Any]:
        performed.append((clock.monotonic(), operation))
        return {"n": len(performed)}

    first, second, third = Join(room="a", user="x"), Leave(room="a", user="x"), Misbehaviour(code=206)
    results = []
    async for step, result in play(Script.of((5, second), (1, first), (20, third)), perform, clock):
        results.append((step.at, result))
        clock.advance(2)
    assert performed == [(1, first), (5, second), (20, third)]
    assert results == [(1, {"n": 1}), (5, {"n": 2}), (20, {"n": 3})]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "script: expected a mapping with a list called steps"),
        ({"steps": {}}, "script: expected a mapping with a list called steps"),
        ({"steps": [], "stpes": []}, "script: unknown key 'stpes'"),
        ({"steps": ["join"]}, "step 1: expected a mapping, got str"),
        ({"steps": [{"join": {}}]}, "step 1: at: expected seconds from the start, 0 or more, got None"),
        ({"steps": [{"at": -1, "behave": {}}]}, "step 1: at: "),
        ({"steps": [{"at": float("nan"), "behave": {}}]}, "step 1: at: "),
        ({"steps": [{"at": 1}]}, "step 1: expected at and one of join, leave, "),
        ({"steps": [{"at": 1, "behave": {}, "stop": {}}]}, "step 1: expected at and one of "),
        ({"steps": [{"at": 1, "behave": {}}, {"at": 1, "dance": {}}]}, "step 2: dance: no such operation"),
        ({"steps": [{"at": 1, "join": {"room": "a"}}]}, "step 1: join.user: "),
        ({"steps": [{"at": 1, "join": None}]}, "step 1: join: expected a mapping of fields"),
    ],
)
def test_a_bad_script_is_told_by_step_and_key(document: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Script.parse(document)
    assert str(caught.value).startswith(says)


def test_a_script_that_is_no_yaml_or_no_file_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"script .*script\.yaml: cannot be read: "):
        Script.load(write(tmp_path, "steps: ["))
    with pytest.raises(
        ConfigError, match=r"nothing\.yaml: cannot be read: No such file or directory; correct the path$"
    ):
        Script.load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match=r"script\.yaml: step 1: at: "):
        Script.load(write(tmp_path, "steps: [{join: {}}]"))


APPS = {12345: EXAMPLE_SERVER_SECRET}


async def run_until(sandbox: Sandbox, script: Path, last_line: str) -> tuple[list[str], dict[str, Any]]:
    """Run the sandbox until it has announced a line, read its log, then end it by a signal as systemd does."""
    lines: list[str] = []
    seen = asyncio.Event()

    def announce(line: str) -> None:
        lines.append(line)
        if last_line in line:
            seen.set()

    running = asyncio.create_task(run_sandbox(sandbox, Script.load(script), announce))
    await asyncio.wait({running, asyncio.create_task(seen.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    url = lines[0].split(" for ")[0].rsplit(" ", 1)[1]
    async with httpx.AsyncClient(base_url=url) as http:
        log: dict[str, Any] = (await http.get("/_sandbox/log")).json()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    return lines, log


async def test_the_program_serves_plays_its_script_and_ends_on_a_signal(tmp_path: Path) -> None:
    script = write(tmp_path, SCRIPT.replace("30.5", "0.01").replace("40", "0.02"))
    lines, log = await run_until(Sandbox(APPS, seed=7), script, "step 4")
    assert "AppId 12345; seed 7." in lines[0]
    assert [event["event"] for event in log["events"]] == ["task_started", "join", "leave"]
    assert EXAMPLE_SERVER_SECRET not in "".join(lines)


async def test_the_program_fails_on_a_step_that_is_not_possible(tmp_path: Path) -> None:
    script = write(tmp_path, "steps: [{at: 0, leave: {room: a, user: x}}]")
    with pytest.raises(ConfigError, match=r"^step 1 \(at 0 s\): leave.user: x is not in room a$"):
        await run_sandbox(Sandbox(APPS), Script.load(script), lambda _: None)


def test_the_server_secret_comes_from_a_file_or_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path, "from-the-file\n")
    environment = {"ZEGO_SANDBOX_SERVER_SECRET": "from-the-environment"}
    assert read_secret("ServerSecret", file, environment) == "from-the-file"
    assert read_secret("ServerSecret", None, environment) == "from-the-environment"
    assert read_secret("ServerSecret", None, {}) == EXAMPLE_SERVER_SECRET
    with pytest.raises(ConfigError, match="is empty"):
        read_secret("ServerSecret", None, {"ZEGO_SANDBOX_SERVER_SECRET": " "})
    with pytest.raises(
        ConfigError,
        match=r"^the sandbox's ServerSecret cannot be read: .*/nothing: No such file or directory; correct the path$",
    ):
        read_secret("ServerSecret", tmp_path / "nothing", {})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text; it must contain only the secret"):
        read_secret("ServerSecret", file, {})
    assert "hidden" not in repr(Sandbox({1: "hidden"}))


def test_the_callback_secret_comes_from_a_file_or_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path, "from-the-file\n")
    environment = {"ZEGO_SANDBOX_CALLBACK_SECRET": "from-the-environment", "ZEGO_SANDBOX_SERVER_SECRET": "another"}
    assert read_secret("callback secret", file, environment) == "from-the-file"
    assert read_secret("callback secret", None, environment) == "from-the-environment"
    assert read_secret("callback secret", None, {}) == EXAMPLE_CALLBACK_SECRET
    with pytest.raises(ConfigError, match="put your application's callback secret there"):
        read_secret("callback secret", None, {"ZEGO_SANDBOX_CALLBACK_SECRET": ""})
    assert "hidden" not in repr(Sandbox(APPS, callback_secrets={12345: "hidden"}))


async def test_the_program_sends_callbacks_as_it_is_told(tmp_path: Path) -> None:
    script = write(tmp_path, "steps: [{at: 0, join: {room: a, user: x}}]")
    sandbox = Sandbox(APPS, callback_url="http://127.0.0.1:1/callbacks/zego")
    sandbox.perform(CallbackBehaviour(lose=1))
    lines, log = await run_until(sandbox, script, "step 1")
    assert "Callbacks go to http://127.0.0.1:1/callbacks/zego." in lines
    assert [event.get("callback") for event in log["events"]] == [None, "room_create", "room_login"]


def test_an_invalid_callback_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^send_callbacks\.url: "):
        Sandbox(APPS, callback_url="127.0.0.1:8765")


def test_the_configuration_it_prints_is_valid_and_shows_no_secret_of_the_user(tmp_path: Path) -> None:
    for secret, is_shown in ((EXAMPLE_SERVER_SECRET, True), ("0123456789abcdef0123456789abcdef", False)):
        _, *lines, last = how_to_use("http://127.0.0.1:8766/", 12345, secret)
        (tmp_path / "config.yaml").write_text("\n".join(lines))
        (tmp_path / "sandbox-secret").write_text(secret)
        (tmp_path / "sandbox-secret").chmod(0o600)
        zego = load(tmp_path / "config.yaml", {}).zego
        assert (zego.asr_url, zego.apps[0].secret.get_secret_value()) == ("http://127.0.0.1:8766/", secret)
        assert set(zego.urls.model_dump().values()) == {"http://127.0.0.1:8766/"}
        assert (secret in last) is is_shown
