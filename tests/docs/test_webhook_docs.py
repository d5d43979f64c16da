"""docs/events.md: what it says of the webhook. Its receivers take what a real daemon sends, and refuse the rest."""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.integrations.programs import node_program
from tests.support.clock import SettableClock
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually, free_port
from watchdog import config
from watchdog.cli.app.root import app
from watchdog.clock import SystemClock
from watchdog.core.webhook import GIVE_UP_SECONDS, LONGEST_PAUSE_SECONDS, keys, message_id, payload, signatures
from watchdog.sandbox import Sandbox
from watchdog.webhook.client import Target, WebhookClient

WHOLE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
PAGE = WHOLE.partition("## Receive events by webhook")[2]
SECRET_FILE = "/etc/zego-watchdog/webhook_secret"
RECEIVERS = ["receiver.py", "receiver.mjs"]


def blocks(fence: str) -> list[str]:
    return re.findall(rf"^```{re.escape(fence)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def make_secret(folder: Path) -> str:
    """Make a secret with the page's command."""
    (command,) = [block for block in blocks("sh") if "openssl" in block]
    assert command.count(SECRET_FILE) == 1
    subprocess.run(["bash", "-c", command.replace(SECRET_FILE, "webhook_secret")], cwd=folder, check=True)
    file = folder / "webhook_secret"
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text().strip()


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    make_secret(tmp_path)
    (section,) = (block.replace(SECRET_FILE, "webhook_secret") for block in blocks("yaml config"))
    file = tmp_path / "config.yaml"
    file.write_text(f"policy: {{mode: observe}}\n{section}")
    read = config.load(file, environ={})
    assert (read.notify.host, len(read.notify.signing_keys), len(read.notify.types)) == ("backend.example.com", 1, 2)


def test_the_printed_request_is_one_of_ours() -> None:
    (request,) = blocks("http")
    head, _, body = request.strip().partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    event = json.loads(body)
    occurred_at = datetime.fromisoformat(event["timestamp"])
    assert body == payload(event["type"], occurred_at, event["data"]).decode()
    assert headers["webhook-id"] == message_id(17, occurred_at)
    (secret,) = set(re.findall(r"`(whsec_\w+)`", PAGE))
    sent_at = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == signatures(keys(secret), headers["webhook-id"], sent_at, body.encode())


def test_the_times_of_the_page_are_those_of_the_rules() -> None:
    assert GIVE_UP_SECONDS == 24 * 3600
    assert "older than a day is given up" in PAGE
    assert LONGEST_PAUSE_SECONDS == 5 * 60
    assert "up to 5 minutes" in PAGE


@asynccontextmanager
async def receiving(folder: Path, name: str, secret: str) -> AsyncIterator[tuple[str, Path]]:
    """Run a printed receiver; yield its URL and the file of what it prints."""
    language = {"py": "python", "mjs": "js"}[name.rpartition(".")[2]]
    (text,) = blocks(f"{language} {name}")
    (folder / name).write_text(text)
    port, said = free_port(), folder / "said"
    program = node_program() if name.endswith("mjs") else sys.executable
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(program, name),
            cwd=folder,
            env=os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)},
            stdout=output,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await eventually(f"{name} listens", lambda: process.returncode is not None or listens())
        yield f"http://127.0.0.1:{port}/hooks/zego", said
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("name", RECEIVERS)
async def test_a_receiver_takes_what_the_daemon_sends_once(tmp_path: Path, sqlite_url: str, name: str) -> None:
    secret = make_secret(tmp_path)
    application = Application(sqlite_url)
    async with Sandbox({APP_ID: SECRET}) as sandbox, receiving(tmp_path, name, secret) as (url, said):
        daemon = DaemonProcess(tmp_path, sqlite_url, sandbox)
        written = yaml.safe_load(daemon.config.read_text())
        written["notify"] = {"events": ["all"], "url": url, "secret_file": "webhook_secret"}
        daemon.config.write_text(yaml.safe_dump(written))
        await daemon.start()

        def delivered() -> list[int]:
            return [row["id"] for row in application.rows("SELECT * FROM zego_events") if row["delivered_at"]]

        try:
            application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'lecture')")
            application.execute("UPDATE zego_tasks SET status = 'stopped'")
            await eventually("the event is delivered", lambda: len(delivered()) == 1)
            (number,) = delivered()
            commands = [
                line for block in blocks("sh") for line in block.splitlines() if line.startswith("zego-watchdog ")
            ]
            assert len(commands) == 4
            for command in commands:
                words = shlex.split(command.replace(" 17", f" {number}"))[1:]
                done = await asyncio.to_thread(CliRunner().invoke, app, ["--config", str(daemon.config), *words])
                assert done.exit_code == 0, done.output
            await eventually("it is delivered again", lambda: len(delivered()) == 1)
        finally:
            assert await daemon.end() == 0
        assert sorted(said.read_text().splitlines()) == ["task.stopped lecture", "test sample"]


@pytest.mark.parametrize("name", RECEIVERS)
async def test_a_receiver_refuses_what_is_not_signed_now_with_its_secret(tmp_path: Path, name: str) -> None:
    secret, other = make_secret(tmp_path), "whsec_" + "A" * 32
    body = payload("task.stopped", datetime.fromisoformat("2026-03-01T12:00:00Z"), {"room_id": "r"})
    old = SettableClock(SystemClock().time() - 400)
    async with receiving(tmp_path, name, secret) as (url, said):

        async def status(secrets: str, clock: SystemClock | SettableClock) -> int:
            client = WebhookClient(Target(url, keys(secrets)), clock)
            try:
                return (await client.ask("zego_1_1", body)).status
            finally:
                await client.aclose()

        assert await status(other, SystemClock()) == 401
        assert await status(secret, old) == 401
        assert said.read_text() == ""
        # While the secret is rotated, the receiver knows one of the two.
        assert await status(f"{other}\n{secret}", SystemClock()) == 204
        assert said.read_text() == "task.stopped r\n"
