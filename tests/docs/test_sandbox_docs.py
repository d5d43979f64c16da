"""Everything in docs/sandbox.md that can be executed is executed."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.tools import needs
from watchdog.sandbox import Sandbox
from watchdog.sandbox.command import EXAMPLE_APP_ID, EXAMPLE_SERVER_SECRET
from watchdog.sandbox.misbehaviour import CallbackBehaviour, Misbehaviour
from watchdog.sandbox.operations import OPERATIONS
from watchdog.sandbox.script import Script

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


async def run(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@needs("curl")
async def test_the_shell_examples_work_in_the_order_of_the_page() -> None:
    apps = {EXAMPLE_APP_ID: EXAMPLE_SERVER_SECRET}
    # Another sandbox takes the callbacks: whatever is posted to it, the HTTP status is 200.
    async with Sandbox(apps) as sandbox, Sandbox(apps) as receiver:
        shell = "\n".join(["set -euo pipefail", *blocks("bash")])
        printed = await run("bash", "-c", shell, SANDBOX=sandbox.url.rstrip("/"), RECEIVER=receiver.url)
    assert printed.count('"Message":"Success"') == 5
    assert printed.count("<h1>502</h1>") == 1
    log = json.loads(printed.splitlines()[-1])["events"]
    sent = [event for event in log if event["event"] == "callback_sent"]
    assert sorted((event["callback"], event["status"]) for event in sent) == [
        ("ASRResult", 200),
        ("room_create", 200),
        ("room_login", 200),
    ]
    assert [event["event"] for event in log if event not in sent] == [
        "task_started",
        "join",
        "join",
        "leave",
        *("task_started", "join"),
        *("task_started", "task_stopped", "stop_requested"),
        *("task_started", "join", "task_stopped", "leave", "stop_requested"),
        "task_started",
        "join",
        "speech",
        "crash",
        "stop_requested",
    ]
    counts = re.search(r'"UserCountList":(\[.*?\])', printed)
    assert counts is not None
    assert [(c["UserCount"], c["AdminUserCount"]) for c in json.loads(counts[1])] == [(1, 1), (0, 0)]


async def test_the_python_examples_work() -> None:
    serving, simulating = blocks("python")
    printed = await run(sys.executable, "-c", serving)
    assert [line.split()[-1] for line in printed.splitlines()[1:]] == ["task_started", "join"]
    printed = await run(sys.executable, "-c", simulating)
    *attempts, tasks = printed.splitlines()
    assert {line.split()[1] for line in attempts} <= {
        "room_create",
        "room_login",
        "room_logout",
        "room_close",
        "Exception",
    }
    assert {line.split()[-1] for line in attempts} == {"1", "2"}
    assert tasks == "[]"


def test_the_script_is_one() -> None:
    (script,) = blocks("yaml")
    assert [step.at for step in Script.parse(yaml.safe_load(script)).steps] == [0, 0, 5, 10, 20]


def test_every_kind_of_block_is_run() -> None:
    assert set(re.findall(r"^```(\w+)$", PAGE, flags=re.MULTILINE)) == {"bash", "python", "yaml"}


@pytest.mark.parametrize("name", [*OPERATIONS, "state", "log"])
def test_every_call_is_in_the_table(name: str) -> None:
    assert re.search(rf"^\| `(GET|POST) {name}` ", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("field", [*Misbehaviour.__dataclass_fields__, *CallbackBehaviour.__dataclass_fields__])
def test_every_misbehaviour_is_in_the_table(field: str) -> None:
    assert f"\n| `{field}` |" in PAGE
