"""docs/operations.md: its commands and statements run, and restoring an old backup does no harm.

What needs root and systemd (``console root``) is run by the tests of the package.
"""

import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.docs.test_sql_docs import Shell, Story
from tests.repository.test_monitoring import slug
from tests.support.running import (
    APP_ID,
    SECRET,
    Application,
    DaemonProcess,
    environment,
    eventually,
    free_port,
    secret_file,
)
from tests.support.time_travel import World
from tests.support.tools import PACKAGES, postgresql_programs, program
from watchdog import config as configuration
from watchdog.sandbox import Join, Leave, Sandbox

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
DIALECTS = ("postgresql", "sqlite")
ROLES = ("watchdog", "backend")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind that, and the heading it stands under."""

    language: str
    words: frozenset[str]
    heading: str
    text: str


def blocks() -> list[Block]:
    found, heading = [], ""
    for part in re.finditer(
        r"^#+ (?P<heading>.*)\n|^```(?P<info>.+)\n(?P<text>(?:(?!```).*\n)+)```$", PAGE, re.MULTILINE
    ):
        if part["heading"]:
            heading = part["heading"]
        else:
            language, *words = part["info"].split()
            found.append(Block(language, frozenset(words), heading, part["text"]))
    return found


BLOCKS = blocks()


def shell_blocks(dialect: str, *, stopped: bool) -> list[Block]:
    """What runs on that database, while the daemon runs, or does not; what needs an empty one: test_backup_docs.py."""
    return [
        block
        for block in BLOCKS
        if block.language == "sh"
        and "empty" not in block.words
        and ("stopped" in block.words) is stopped
        and (dialect in block.words or not block.words & set(DIALECTS))
    ]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    kinds = {(block.language, *sorted(block.words - set(DIALECTS))) for block in BLOCKS}
    assert kinds == {
        ("console", "root"),
        ("sh",),
        ("sh", "empty"),
        ("sh", "stopped"),
        ("sql",),
        ("sql", "owner"),
        ("sql", "watchdog"),
        ("yaml", "config"),
        ("yaml", "prometheus"),
    }
    assert PAGE.count("\n```") == 2 * len(BLOCKS)


def test_every_link_leads_somewhere() -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", PAGE):
        target = (DOCS / file).resolve() if file else DOCS / "operations.md"
        assert target.is_file(), file
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, anchor


def test_every_alert_has_its_place_here() -> None:
    groups = yaml.safe_load((ROOT / "monitoring/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    severities = {rule["alert"]: rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    sections = {
        slug(heading): text for heading, text in re.findall(r"^### (.*)\n((?:(?!##).*\n)*)", PAGE, re.MULTILINE)
    }
    for group in groups:
        for rule in group["rules"]:
            section = sections[rule["annotations"]["runbook"].partition("#")[2]]
            assert f"`{rule['alert']}`" in section
            assert severities[rule["alert"]] in section.splitlines()[1]
    assert set(re.findall(r"`(ZegoWatchdog\w+)`", PAGE)) == set(severities)


@pytest.mark.parametrize("block", [b for b in BLOCKS if "config" in b.words], ids=lambda block: block.heading)
def test_the_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    secret_file(tmp_path / "zego_server_secret")
    secret_file(tmp_path / "zego_db_password", "not-a-real-password")
    file = tmp_path / "config.yaml"
    sections = {"policy": {"mode": "observe"}, **yaml.safe_load(block.text)}
    file.write_text(yaml.safe_dump(sections))
    config = configuration.load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    if "zego" in sections:
        assert [app.secret.get_secret_value() for app in config.zego.apps] == [SECRET]
    if "database" in sections:
        assert "not-a-real-password" in config.database.sqlalchemy_url.get_secret_value()


def test_statements_are_answered(world: World) -> None:
    Story(world).tell()
    # One event waits for its next attempt, and one was given up.
    for wake_at in (world.ahead(60), None):
        world.app.execute(
            "INSERT INTO zego_events (type, task_id, kind, room_id, occurred_at, data, attempts, wake_at, error)"
            " VALUES ('task.stopped', 't', 'asr', 'r', ?, '{}', 1, ?, 'HTTP 500')",
            world.now,
            wake_at,
        )
    shell = Shell(world)
    asked = [block for block in BLOCKS if block.language == "sql" and world.dialect in block.words]
    assert len(asked) >= 7
    try:
        for block in asked:
            assert block.text.startswith("SELECT")
            answer = shell.answer(block.text.strip().rstrip(";"))
            # Nobody has a transaction open in the story.
            assert answer or "pg_stat_activity" in block.text, block.heading
    finally:
        shell.close()


@dataclass
class Machine:
    """The paths and the address of the page, as they are in this test."""

    folder: Path
    address: str
    url: str
    config: Path
    task: str = ""

    async def run(self, block: Block) -> str:
        """Run the block as a script that ends with its first failure; return what it says."""
        text = block.text
        for written, real in (
            ("/var/lib/zego-watchdog/", f"{self.folder}/"),
            ("/var/backups/", f"{self.folder}/backups/"),
            ("127.0.0.1:8765", self.address),
        ):
            text = text.replace(written, real)
        text = re.sub(r"\bTASK\b", self.task, re.sub(r"\bROOM\b", "room", text))
        path = [str(Path(sys.executable).parent), str(postgresql_programs()), os.environ["PATH"]]
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", text),
            cwd=self.folder,
            env=environment(PATH=os.pathsep.join(path), ZEGO_WATCHDOG_CONFIG=str(self.config), DATABASE=self.url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
        assert process.returncode == 0, f"{block.heading}: {text}{said.decode()}"
        return said.decode()


@asynccontextmanager
async def installed(
    folder: Path, url: str, sandbox: Sandbox
) -> AsyncIterator[tuple[Machine, DaemonProcess, Application]]:
    """A daemon that is not started yet, with all that the page expects to be there."""
    application = Application(url)
    daemon = DaemonProcess(folder, url, sandbox, schedule={"occupancy_poll_seconds": 1})
    address = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load(daemon.config.read_text())
    (folder / "backups").mkdir()
    config["zego"]["apps"][0]["callback_secret_file"] = secret_file(folder / "callback_secret")
    daemon.config.write_text(yaml.safe_dump(config | {"http": {"listen": address}}))
    try:
        yield Machine(folder, address, url, daemon.config), daemon, application
    finally:
        if daemon.alive:
            await daemon.end()


@pytest.fixture
def page_url(database_url: str, tmp_path: Path) -> str:
    """The database, where the page says it is; the page's programs are there."""
    url = f"sqlite:///{tmp_path}/zego-watchdog.db" if database_url.startswith("sqlite") else database_url
    for stopped in (False, True):
        for block in shell_blocks(dialect_of(url), stopped=stopped):
            for name in sorted(PACKAGES.keys() & set(re.findall(r"^[a-z][\w-]*", block.text, re.MULTILINE))):
                program(name)
    return url


def dialect_of(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql"


async def test_commands_run(page_url: str, tmp_path: Path) -> None:
    async with (
        Sandbox({APP_ID: SECRET}, seed=5) as sandbox,
        installed(tmp_path, page_url, sandbox) as (machine, daemon, application),
    ):
        await daemon.start()
        (machine.task,) = await application.abandon(sandbox, ["room"])
        await eventually("it is stopped", lambda: application.statuses()[machine.task] == "stopped")
        forged = Block("sh", frozenset(), "a callback", "curl -sS http://127.0.0.1:8765/callbacks/zego -d nonsense")
        await machine.run(forged)
        said = {}
        for block in shell_blocks(dialect_of(page_url), stopped=False):
            said[block.heading, block.text.splitlines()[0].split()[0]] = await machine.run(block)
        assert await daemon.end() == 0
    assert len(said) >= 10
    if dialect_of(page_url) == "sqlite":
        for backup in ("zego-watchdog.db", "zego-watchdog-compact.db"):
            with closing(sqlite3.connect(tmp_path / "backups" / backup)) as connection:
                assert connection.execute("SELECT status FROM zego_tasks").fetchall() == [("stopped",)]


async def test_a_backup_of_yesterday_does_no_harm(page_url: str, tmp_path: Path) -> None:
    (restore,) = shell_blocks(dialect_of(page_url), stopped=True)
    (file,) = set(re.findall(r"/var/backups/[\w.-]+", restore.text))
    (backup,) = (block for block in shell_blocks(dialect_of(page_url), stopped=False) if file in block.text)
    async with (
        Sandbox({APP_ID: SECRET}, seed=6, max_idle_seconds=60) as sandbox,
        installed(tmp_path, page_url, sandbox) as (machine, daemon, application),
    ):
        await daemon.start()
        tasks = {}
        for room in ("ended", "again"):
            sandbox.perform(Join(room=room, user="alice"))
            tasks[room] = await application.start(sandbox, room)

        def seen() -> bool:
            return [row["user_count"] for row in application.rows("SELECT user_count FROM zego_tasks")] == [1, 1]

        await eventually("ZEGO has been asked", seen)
        await machine.run(backup)
        for room in tasks:
            sandbox.perform(Leave(room=room, user="alice"))
        await eventually("both are stopped", lambda: set(application.statuses().values()) == {"stopped"})
        assert await daemon.end() == 0

        # The room is used again, by a task that the backup knows nothing of.
        sandbox.perform(Join(room="again", user="bob"))
        fresh = await application.start(sandbox, "again")
        await machine.run(restore)
        assert application.statuses() == dict.fromkeys(tasks.values(), "active")

        await daemon.start()
        await eventually("what is gone is known to be", lambda: application.statuses()[tasks["ended"]] == "gone")
        assert application.statuses()[tasks["again"]] == "active"
        ended = {event["task_id"] for event in sandbox.events() if event["event"] in {"task_stopped", "auto_stopped"}}
        assert ended == set(tasks.values())
        assert fresh not in ended
        sandbox.perform(Leave(room="again", user="bob"))
        await eventually("and the other one", lambda: application.statuses()[tasks["again"]] == "gone")
        assert await daemon.end() == 0


async def test_the_services_role_makes_its_tables_itself(postgresql_url: str, tmp_path: Path) -> None:
    """With the right that the log names; afterwards without it."""
    prepare, grant, revoke = (block for block in BLOCKS if block.language == "sql" and block.heading == "On PostgreSQL")
    owner, watchdog, backend = (postgresql_url.replace("postgres@", f"{role}@") for role in ("postgres", *ROLES))

    def execute(url: str, *statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    create, allow = prepare.text.strip().splitlines()
    execute(owner, create, "CREATE ROLE backend LOGIN")
    try:
        async with Sandbox({APP_ID: SECRET}, seed=8) as sandbox:
            daemon = DaemonProcess(tmp_path, watchdog, sandbox)
            with pytest.raises(AssertionError, match=re.escape(allow.rstrip(";"))):
                await daemon.start("--migrate")
            execute(owner, allow)
            await daemon.start("--migrate")
            execute(watchdog, grant.text)
            execute(owner, revoke.text)
            application = Application(owner)
            application.url = backend
            (task,) = await application.abandon(sandbox, ["room"])
            await eventually("it is stopped", lambda: application.statuses() == {task: "stopped"})
            assert await daemon.end() == 0
            await daemon.start("--migrate")
            assert await daemon.end() == 0
    finally:
        execute(owner, *(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}" for role in ROLES))


def test_root_is_told_what_the_package_can_do() -> None:
    commands = [line for block in BLOCKS if "root" in block.words for line in block.text.splitlines()]
    first = {line.split()[0] for line in commands}
    assert first <= {
        *(
            "apt",
            "install",
            "editor",
            "systemctl",
            "journalctl",
            "zego-watchdog",
            "python3",
            "fuser",
            "df",
            "usermod",
            "ln",
        ),
        "/opt/zego-watchdog/bin/pip",
        "/opt/zego-watchdog/bin/zego-watchdog",
    }
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "watchdog").rglob("*.py"))
    for event in re.findall(r"\bZEGO_EVENT=(\w+)", PAGE):
        assert f'"{event}"' in sources, event
