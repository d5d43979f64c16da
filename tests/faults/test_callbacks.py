"""Rows 43 and 44: callbacks that come before or after the application's own statements about a task."""

import asyncio

from tests.faults.harness import Stage, fault
from tests.faults.test_evidence import CALLBACK_SECRET, told, with_callbacks
from tests.support.running import APP_ID
from watchdog.sandbox import Join, Leave, Speak, Start

ROOMS = 10


async def spoken(stage: Stage) -> dict[str, str]:
    """Start a daemon that takes callbacks, and tasks that recognise speech; return the tasks with their rooms."""
    sandbox = await stage.open(max_idle_seconds=60, callback_secrets={APP_ID: CALLBACK_SECRET})
    daemon = with_callbacks(stage, policy={"max_idle_seconds": 60, "grace_seconds": 2})
    await daemon.start()
    sandbox.perform(told(daemon))
    tasks = {}
    for number in range(ROOMS):
        room = f"spoken-{number}"
        tasks[str(sandbox.perform(Start(room=room))["task_id"])] = room
        sandbox.perform(Join(room=room, user="alice"))
    return tasks


@fault(43, "a callback comes after the application has deleted its task")
async def test_a_deleted_task_is_not_brought_back(stage: Stage) -> None:
    tasks = await spoken(stage)
    for task, room in tasks.items():
        stage.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, room)
    deleted = list(tasks)[: ROOMS // 2]
    for task in deleted:
        stage.application.execute("DELETE FROM zego_tasks WHERE task_id = ?", task)
    stage.struck(len(deleted))
    for room in tasks.values():
        stage.sandbox.perform(Speak(room=room, user="alice", text="Hello?"))
    kept = list(tasks)[ROOMS // 2 :]
    heard = "SELECT task_id FROM zego_tasks WHERE user_count = 1"
    await stage.until("the others are heard", lambda: len(stage.application.rows(heard)) == len(kept))
    for room in tasks.values():
        stage.sandbox.perform(Leave(room=room, user="alice"))
    await stage.recovers("and stopped", lambda: stage.ended(kept))
    assert set(stage.application.statuses()) == set(kept)
    assert {event["task_id"] for event in stage.requests()} == set(kept)
    await stage.audit(stopped=kept)


@fault(44, "a callback comes before the application's INSERT of its task, or at the same time")
async def test_the_applications_insert_wins(stage: Stage) -> None:
    tasks = await spoken(stage)
    first = list(tasks)[: ROOMS // 2]

    def speak(task: str) -> None:
        stage.sandbox.perform(Speak(room=tasks[task], user="alice", text="Hello?"))

    for task in first:
        speak(task)
    await stage.until("they are discovered", lambda: set(stage.application.statuses()) >= set(first))
    stage.struck(len(tasks))
    for task in list(tasks)[ROOMS // 2 :]:
        speak(task)
    await asyncio.to_thread(insert, stage, tasks)
    theirs = "SELECT task_id FROM zego_tasks WHERE discovered_at IS NULL AND grace_seconds = 1 AND app_id IS NULL"
    assert len(stage.application.rows(theirs)) == len(tasks)
    for room in tasks.values():
        stage.sandbox.perform(Leave(room=room, user="alice"))
    await stage.recovers("all are stopped", lambda: stage.ended(tasks))
    assert len(stage.application.rows(theirs)) == len(tasks)
    await stage.audit(stopped=list(tasks))


def insert(stage: Stage, tasks: dict[str, str]) -> None:
    for task, room in tasks.items():
        statement = "INSERT INTO zego_tasks (task_id, room_id, grace_seconds) VALUES (?, ?, 1)"
        stage.application.execute(statement, task, room)
