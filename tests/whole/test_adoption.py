"""A daemon, a database and the sandbox: tasks that nobody registered are found at ZEGO, registered and stopped."""

import asyncio
import signal
from pathlib import Path

import pytest
import yaml

from tests.support.operator import Operator
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually
from watchdog.sandbox import Limits, Sandbox, Start
from watchdog.sandbox.kinds import Kind

LISTED = [Kind.RECORDING, Kind.PLAYER, Kind.DIGITAL_HUMAN]


@pytest.fixture
def application(database_url: str) -> Application:
    return Application(database_url)


def started(sandbox: Sandbox) -> dict[str, str]:
    """Start one task of each kind, in a room of its own; return the TaskIds with their kinds."""
    tasks = {kind: sandbox.perform(Start(room=f"room-{kind}", kind=kind)) for kind in (*LISTED, Kind.AGENT, Kind.ASR)}
    return {str(task["task_id"]): kind for kind, task in tasks.items()}


def urls(sandbox: Sandbox) -> dict[str, str]:
    return {kind.value: sandbox.url for kind in (*LISTED, Kind.AGENT)}


async def test_what_nobody_registered_is_stopped(application: Application, tmp_path: Path) -> None:
    limits = Limits(start=0, user_num=0)
    async with Sandbox({APP_ID: SECRET}, limits=limits, concurrent_tasks=0) as sandbox:
        tasks = started(sandbox)
        daemon = DaemonProcess(
            tmp_path, application.url, sandbox, schedule={"adopt_seconds": 60, "occupancy_poll_seconds": 0.5}
        )
        config = yaml.safe_load(daemon.config.read_text())
        config["zego"] |= {"urls": urls(sandbox), "bot_user_ids": ["player*", "digital*"]}
        config["policy"]["kinds"] = {"recording": {"grace_seconds": 1, "safety_margin_seconds": 5}}
        daemon.config.write_text(yaml.safe_dump(config))
        listed = {task for task, kind in tasks.items() if kind in LISTED}
        try:
            await daemon.start()
            await eventually(
                "all are stopped",
                lambda: application.statuses() == dict.fromkeys(listed, "stopped"),
                seconds=60,
            )
            (line,) = daemon.events("tasks_adopted")
            assert (line["tasks"], line["running"], line["unusable_entries"]) == (3, 3, 0)
            assert await daemon.end() == 0
        finally:
            if daemon.alive:
                await daemon.end(signal.SIGKILL)
        stops = [event["task_id"] for event in sandbox.events() if event["event"] == "stop_requested"]
        assert sorted(stops) == sorted(listed)
        rows = application.rows("SELECT task_id, kind, room_id, discovered_at FROM zego_tasks")
        assert {row["task_id"]: row["kind"] for row in rows} == {task: tasks[task] for task in listed}
        assert all(row["room_id"] == f"room-{row['kind']}" and row["discovered_at"] is not None for row in rows)


async def test_the_command_reads_the_same_lists(application: Application, tmp_path: Path) -> None:
    async with Sandbox({APP_ID: SECRET}, limits=Limits(start=0, user_num=0), concurrent_tasks=0) as sandbox:
        tasks = started(sandbox)
        operator = Operator(tmp_path, application.url, sandbox.url)
        operator.sections["zego"]["urls"] = urls(sandbox)
        seen = await operator.learns("adopt")
        assert {task["task_id"]: task["kind"] for task in seen["tasks"]} == {
            task: kind for task, kind in tasks.items() if kind in LISTED
        }
        assert (await asyncio.to_thread(application.statuses)) == {}
        done = await operator.does("adopt", "--apply", "--kind", "player")
        assert done.exit_code == 0, done.output
        assert "this 1 had no row" in done.stderr
        assert [tasks[task] for task in application.statuses()] == [Kind.PLAYER]
