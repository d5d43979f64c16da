"""The README's statements and commands run as written, and both languages show the same."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.running import APP_ID, SECRET, Application, environment, eventually
from watchdog.sandbox import Sandbox, Start

ROOT = Path(__file__).parents[2]
LANGUAGES = ("README.md", "README.zh-CN.md")


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def without_comments(block: str) -> list[str]:
    return [re.split(r"\s+(?:#|--) ", line)[0] for line in block.splitlines()]


def table_commands(file: str) -> list[str]:
    return re.findall(r"^\|.*\| `(zego-watchdog [^`]*)`", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("language", ["console", "sql", "bash", "text"])
def test_both_languages_show_the_same(language: str) -> None:
    english, chinese = ([without_comments(block) for block in blocks(file, language)] for file in LANGUAGES)
    assert english == chinese
    assert english


def test_both_languages_have_the_same_commands_and_links() -> None:
    english, chinese = (table_commands(file) for file in LANGUAGES)
    assert english == chinese
    links = [
        set(re.findall(r"\]\((?!README)([^)]+)\)", (ROOT / file).read_text(encoding="utf-8"))) for file in LANGUAGES
    ]
    assert links[0] == links[1]
    for link in links[0]:
        assert (ROOT / link).is_file(), link


def test_the_two_commands_are_make_targets() -> None:
    """``.ci/run`` runs them; here: that they are the same."""
    (block,) = blocks("README.md", "console")
    continuous = (ROOT / ".ci" / "run").read_text()
    for command in without_comments(block):
        assert f'step "{command}" {command}' in continuous


def test_the_three_statements_are_enough(database_url: str) -> None:
    application = Application(database_url)
    (block,) = blocks("README.md", "sql")
    insert, update, release = (
        statement.strip() + ";" for statement in " ".join(without_comments(block)).split(";")[:3]
    )
    application.execute(insert, "task", "room")
    application.execute(update, 2, "room")
    application.execute(update, 0, "room")
    (row,) = application.rows("SELECT * FROM zego_tasks")
    assert (row["user_count"], row["status"]) == (0, "active")
    assert row["empty_since"] is not None
    application.execute(release, "task")
    assert application.statuses() == {"task": "released"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox({APP_ID: SECRET}, seed=1) as running:
        yield running


async def test_run_it_for_real(sandbox: Sandbox, tmp_path: Path) -> None:
    """The shipped configuration, in an empty folder; the vendor's addresses point to the sandbox."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    settings = environment(
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        ZEGO_WATCHDOG_ZEGO__ASR_URL=sandbox.url,
        ZEGO_WATCHDOG_ZEGO__RTC_URL=sandbox.url,
        ZEGO_WATCHDOG_ZEGO__APPS=f'[{{"app_id": {APP_ID}, "server_secret": "{SECRET}"}}]',
    )

    async def start(command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *shlex.split(command),
            cwd=tmp_path,
            env=settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def output(command: str, *, expected: int = 0) -> str:
        process = await start(command)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode == expected, f"{command}: {out.decode()}{err.decode()}"
        return out.decode()

    migrate, check, run = without_comments(blocks("README.md", "bash")[1])
    await output(migrate)
    application = Application(f"sqlite:///{tmp_path / 'zego-watchdog.db'}")
    task = str(sandbox.perform(Start(room="room"))["task_id"])
    application.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, 'room', 0)", task)
    await output(check)

    daemon = await start(run)
    try:
        await eventually("the daemon watches", lambda: bool(application.rows("SELECT * FROM zego_daemons")))
        for command in table_commands("README.md"):
            # `stop` is an operator's order, but in observe mode and on hold nothing is sent.
            await output(
                command.replace("TASK", task).replace("ROOM", "room"), expected=1 if " stop " in command else 0
            )
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = await daemon.communicate()
    assert daemon.returncode == 0, log.decode()
