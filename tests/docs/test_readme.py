"""The README's statements and commands run as written, and both languages show the same."""

import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.running import APP_ID, OTHER_KINDS, SECRET, Application, environment, eventually
from watchdog.errors import TooFewSpells
from watchdog.sandbox import Sandbox, Start

ROOT = Path(__file__).parents[2]
LANGUAGES = ("README.md", "README.zh-CN.md")


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def without_comments(block: str) -> list[str]:
    return [re.split(r"\s+(?:#|--) ", line)[0] for line in block.splitlines()]


def table_commands(file: str) -> list[str]:
    return re.findall(r"^\|.*\| `(zego-watchdog [^`]*)`", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("language", ["console", "sql", "bash", "text", "yaml"])
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
        assert f'step "{command}" ' in continuous
        assert re.search(rf'^(step "{command}"|   ) {command}( |$)', continuous, re.MULTILINE)


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


PYTHON3 = """#!/bin/sh
# For "-m venv FOLDER": its pip installs nothing but a link to the program under test.
set -eu
test "$1 $2" = "-m venv"
mkdir -p "$3/bin"
cat >"$3/bin/pip" <<'PIP'
#!/bin/sh
test "$*" = "install --constraint constraints.txt ." && exec ln -s @PROGRAM@ "$(dirname "$0")"
PIP
chmod +x "$3/bin/pip"
"""
"""What the page installs with; tests/wheel_smoke.sh really installs, which takes a network."""


def as_printed(folder: Path) -> str:
    """The page's blocks in their order, for one shell; with the paths of ``folder``, which is prepared."""
    script = "".join(blocks("README.md", "bash"))
    for place in ("/opt/zego-watchdog", "/usr/local/bin", "/etc/zego-watchdog"):
        assert place in script
        script = script.replace(place, f"{folder}{place}")
    for name in ("opt", "usr/local/bin", "etc"):
        (folder / name).mkdir(parents=True)
    python = folder / "usr/local/bin/python3"
    python.write_text(PYTHON3.replace("@PROGRAM@", str(Path(sys.executable).parent / "zego-watchdog")))
    python.chmod(0o755)
    return script


async def test_run_it_for_real(sandbox: Sandbox, tmp_path: Path) -> None:
    """As printed, from the checkout, with a new user's PATH; the vendor's addresses point to the sandbox."""
    settings = environment(
        PATH=f"{tmp_path}/usr/local/bin:/usr/bin:/bin",
        ZEGO_WATCHDOG_ZEGO__ASR_URL=sandbox.url,
        ZEGO_WATCHDOG_ZEGO__RTC_URL=sandbox.url,
        **{f"ZEGO_WATCHDOG_ZEGO__URLS__{kind.upper()}": sandbox.url for kind in OTHER_KINDS},
        ZEGO_WATCHDOG_ZEGO__APPS=f'[{{"app_id": {APP_ID}, "server_secret": "{SECRET}"}}]',
    )

    async def start(command: str, folder: Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", command),
            cwd=folder,
            env=settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    file = tmp_path / "etc/zego-watchdog/zego-watchdog.db"

    def daemons() -> list[int]:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return [pid for (pid,) in database.execute("SELECT pid FROM zego_daemons")]
        return []

    shell = await start(as_printed(tmp_path), ROOT)
    try:
        await eventually(
            "the daemon watches, or the shell ended",
            lambda: bool(daemons()) or shell.returncode is not None,
            seconds=300,
        )
        application = Application(f"sqlite:///{file}")
        task = str(sandbox.perform(Start(room="room"))["task_id"])
        application.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, 'room', 0)", task)
        for command in table_commands("README.md"):
            asked = await start(command.replace("TASK", task).replace("ROOM", "room"), file.parent)
            out, err = await asked.communicate()
            # `stop` is an operator's order, but in observe mode and on hold nothing is sent. For `advise` there are too
            # few rooms.
            expected = 1 if " stop " in command else TooFewSpells.exit_code if " advise" in command else 0
            assert asked.returncode == expected, f"{command}: {out.decode()}{err.decode()}"
    finally:
        for pid in daemons():
            os.kill(pid, signal.SIGTERM)
        said, log = await shell.communicate()
    assert shell.returncode == 0, said.decode() + log.decode()
