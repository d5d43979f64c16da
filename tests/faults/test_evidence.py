"""Rows 27 to 32: people who move, and hints and callbacks that are right or wrong."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.faults.client import LISTEN, address, metric, request
from tests.faults.harness import Daemon, Stage, fault
from tests.support.running import APP_ID, SECRET, secret_file
from watchdog.clock import SystemClock
from watchdog.core.signing import callback_signature
from watchdog.sandbox import CallbackBehaviour, Join, Leave, SendCallbacks, Start
from watchdog.sandbox.callbacks import CallbackEncoding

CALLBACK_SECRET = "not-a-real-callback-secret"
JSON = {"Content-Type": "application/json"}


# -- 27: people return between decision and send --


async def waiting(stage: Stage, tasks: list[str]) -> list[str]:
    """Wait for the first stop; return the tasks that are still waiting for the pace."""
    await stage.until("one has been stopped", lambda: len(stage.requests()) >= 1)
    stopped = {event["task_id"] for event in stage.requests()}
    return [task for task in tasks if task not in stopped]


@fault(27, "people return between decision and send", quick=True)
async def test_people_return_before_the_request(stage: Stage) -> None:
    """The pace lets few requests leave: tasks that wait are verified again."""
    await stage.open()
    daemon = stage.daemon(
        policy={"verification_max_age_seconds": 1},
        stop={"requests_per_second": 0.4, "concurrency": 4, "lease_seconds": 15},
    )
    rooms = await stage.abandon(4)
    await daemon.start()
    back = await waiting(stage, rooms)
    for task in back:
        stage.sandbox.perform(Join(room=stage.room_of(task), user="alice"))
    returned_at = stage.clock.time()
    stage.struck(len(back))
    await stage.recovers(
        "the others are spared", lambda: {row["task_id"] for row in stage.attempts("spared")} >= set(back)
    )
    late = [event for event in stage.requests() if event["received_at"] > returned_at]
    assert late == []
    await stage.audit(stopped=[task for task in rooms if task not in back], kept=back)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(27, "application sees people return between decision and send")
async def test_the_hint_comes_before_the_request(stage: Stage) -> None:
    await stage.open()
    daemon = stage.daemon(stop={"requests_per_second": 0.4, "concurrency": 4, "lease_seconds": 15})
    rooms = await stage.abandon(3)
    await daemon.start()
    back = await waiting(stage, rooms)
    for task in back:
        stage.application.execute("UPDATE zego_tasks SET user_count = 1 WHERE task_id = ?", task)
    stage.struck(len(back))
    await stage.clock.sleep(6)
    assert {event["task_id"] for event in stage.requests()} == set(rooms) - set(back)
    stage.lifted()
    for task in back:
        stage.application.execute("UPDATE zego_tasks SET user_count = 0 WHERE task_id = ?", task)
    await stage.recovers("when they leave again all are stopped", lambda: stage.ended(rooms))
    await stage.audit(stopped=rooms)


# -- 28: hints --


@pytest.mark.parametrize("verify", ["required", "when_possible"])
@fault(28, "hints stale, negative, future, missing, flapping")
async def test_hints_of_every_kind(stage: Stage, verify: str) -> None:
    await stage.begin(policy={"verify": verify, "grace_seconds": 1.5, "hint_max_age_seconds": 2})
    now = (
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{} seconds')" if stage.is_sqlite else "now() + interval '{} seconds'"
    )
    stage.struck()
    hints: dict[str, list[tuple[str, str]]] = {
        "missing": [],
        "null": [("2", "now"), ("NULL", "now")],
        "stale": [("0", "-86400")],
        "future": [("0", "86400")],
        "negative": [("2", "now"), ("-1", "now")],
        "late zero": [("2", "now"), ("0", "-60")],
    }
    empty: dict[str, str] = {}
    full: dict[str, str] = {}
    for kind, said in hints.items():
        for group, people in ((empty, False), (full, True)):
            room = f"{kind.replace(' ', '-')}-{'full' if people else 'empty'}"
            group[kind] = task = str(stage.sandbox.perform(Start(room=room))["task_id"])
            if people:
                stage.sandbox.perform(Join(room=room, user="alice"))
            stage.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, room)
            for number, at in said:
                dated = "" if at == "now" else f", user_count_at = {now.format(at)}"
                with suppress(Exception):  # a negative one is refused
                    stage.application.execute(
                        f"UPDATE zego_tasks SET user_count = {number}{dated} WHERE task_id = ?", task
                    )
    # One room's hint goes to and fro faster than any grace.
    (flapping,) = await stage.talk(1, says=2)
    began = stage.clock.monotonic()
    for flip in count():
        if stage.clock.monotonic() - began > 5:
            break
        await asyncio.to_thread(
            stage.application.execute, "UPDATE zego_tasks SET user_count = ? WHERE task_id = ?", flip % 2, flapping
        )
        await stage.clock.sleep(0.1)
    await asyncio.to_thread(
        stage.application.execute, "UPDATE zego_tasks SET user_count = 1 WHERE task_id = ?", flapping
    )
    sure = [empty["stale"], empty["future"]]
    await stage.recovers("where a zero stands, and the vendor agrees, tasks are stopped", lambda: stage.ended(sure))
    for kind in ("missing", "null", "negative", "late zero"):
        assert not stage.ended([empty[kind]]), f"{kind}: nobody has said that it is empty"
    await stage.audit(
        stopped=sure,
        kept=[*full.values(), flapping, *(empty[kind] for kind in ("missing", "null", "negative", "late zero"))],
    )


# -- 29: the feed --


@fault(29, "feed dies while rooms are full", quick=True)
async def test_the_feed_dies(stage: Stage) -> None:
    """The last that was said of these rooms is 0, because the writer died in the middle of it."""
    daemon = await stage.begin(
        http=LISTEN,
        policy={"verify": "when_possible", "grace_seconds": 4, "hint_max_age_seconds": 1, "gap_seconds": 1},
        zego={"rtc_url": "http://127.0.0.1:9/"},
    )
    full = await stage.talk(5)
    stage.struck()
    await stage.until("they are due", lambda: len(stage.attempts("withheld")) == len(full))
    await stage.clock.sleep(2)
    assert stage.requests() == []
    stage.visible(daemon, "withheld")
    await stage.audit(kept=full)


@fault(29, "feed reads all rooms empty, and ZEGO says otherwise")
async def test_the_feed_reads_all_empty(stage: Stage) -> None:
    daemon = await stage.begin()
    full = await stage.talk(30, says=2)
    stage.struck()
    stage.application.execute("UPDATE zego_tasks SET user_count = 0")
    await stage.recovers("all are spared", lambda: {row["task_id"] for row in stage.attempts("spared")} == set(full))
    rooms = await stage.abandon(3)
    await stage.until("others are stopped as ever", lambda: stage.ended(rooms))
    stage.visible(daemon, "spared")
    await stage.audit(stopped=rooms, kept=full)


@fault(29, "feed reads all rooms empty, and nobody is asked")
async def test_the_guard_holds_back(stage: Stage) -> None:
    """Where the application alone is trusted, no more than a share can go wrong."""
    daemon = await stage.begin(policy={"verify": "off"}, guard={"unverified_share": 0.25})
    full = await stage.talk(40, says=2)
    # It counts the active tasks with its heartbeat.
    await stage.clock.sleep(5.5)
    stage.struck()
    stage.application.execute("UPDATE zego_tasks SET user_count = 0")
    await stage.until("the guard has tripped", lambda: bool(daemon.events("guard_tripped")))
    await stage.clock.sleep(2)
    assert len(stage.requests()) <= len(full) * 0.25
    stage.visible(daemon, "guard_tripped")


# -- 30: a RoomId again --


@fault(30, "the same RoomId used again by a new session")
async def test_a_room_is_used_again(stage: Stage) -> None:
    await stage.begin(policy={"grace_seconds": 2})
    execute = stage.application.execute
    old = await stage.abandon(3)
    names = {task: stage.room_of(task) for task in old}
    stage.struck()
    new = []
    for task in old:
        room = names[task]
        stage.sandbox.perform(Join(room=room, user="bob"))
        new.append(str(stage.sandbox.perform(Start(room=room))["task_id"]))
        # This application only knows the new session, and says nothing of the old task.
        execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES (?, ?, 1)", new[-1], room)
    await stage.until(
        "the old ones are spared", lambda: {row["task_id"] for row in stage.attempts("spared")} == set(old)
    )
    assert stage.requests() == []
    for task in old:
        stage.sandbox.perform(Leave(room=names[task], user="bob"))
        execute("UPDATE zego_tasks SET user_count = 0 WHERE room_id = ? AND status = 'active'", names[task])
    stage.lifted()
    await stage.recovers("both sessions' are stopped when all have left", lambda: stage.ended([*old, *new]))
    await stage.audit(stopped=[*old, *new])


# -- 31 and 32: callbacks --


def with_callbacks(stage: Stage, **sections: Any) -> Daemon:
    """Make a daemon that takes callbacks, and knows of people only by them."""
    daemon = stage.daemon(http=LISTEN, **sections)
    app = {
        "app_id": APP_ID,
        "server_secret_file": str(daemon.folder / "server_secret"),
        "callback_secret_file": secret_file(stage.folder / "callback_secret", CALLBACK_SECRET),
    }
    daemon.configure(zego={"apps": [app]})
    return daemon


def told(daemon: Daemon) -> SendCallbacks:
    host, port = address(daemon)
    return SendCallbacks(url=f"http://{host}:{port}/callbacks/zego")


async def come_and_go(stage: Stage) -> tuple[list[str], list[str]]:
    """Have people come to twenty rooms; return the tasks of those that they leave again, and of the others."""
    left: list[str] = []
    stayed: list[str] = []
    for number in range(20):
        room = f"callbacks-{number}"
        task = str(stage.sandbox.perform(Start(room=room))["task_id"])
        await asyncio.to_thread(
            stage.application.execute, "INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, room
        )
        for user in ("alice", "bob"):
            stage.sandbox.perform(Join(room=room, user=user))
            if number % 3 == 0:
                stage.sandbox.perform(Leave(room=room, user=user))
                stage.sandbox.perform(Join(room=room, user=user))
        (left if number % 2 else stayed).append(task)
        if number % 2:
            for user in ("alice", "bob"):
                stage.sandbox.perform(Leave(room=room, user=user))
        elif number % 3 == 0:
            # There remains bob, who had left and has come back.
            stage.sandbox.perform(Leave(room=room, user="alice"))
    return left, stayed


@fault(31, "callbacks late, duplicated, reordered, half of them lost")
async def test_callbacks_come_in_disorder(stage: Stage) -> None:
    sandbox = await stage.open(max_idle_seconds=60, callback_secrets={APP_ID: CALLBACK_SECRET})
    daemon = with_callbacks(
        stage,
        policy={"max_idle_seconds": 60, "grace_seconds": 2},
        schedule={"occupancy_poll_seconds": 2},
    )
    await daemon.start()
    sandbox.perform(told(daemon))
    sandbox.perform(
        CallbackBehaviour(lose=0.5, duplicate=0.3, reorder=0.5, delay_seconds=(0.0, 1.0), reorder_seconds=(0.5, 2.0))
    )
    stage.struck()
    left, stayed = await come_and_go(stage)
    stage.lifted()
    await stage.recovers("the tasks of those that are empty are stopped", lambda: stage.ended(left), seconds=60)
    await stage.clock.sleep(3)
    await stage.audit(stopped=left, kept=stayed)


@fault(31, "callbacks late, duplicated, reordered, and nothing else to go by")
async def test_callbacks_in_disorder_are_enough(stage: Stage) -> None:
    sandbox = await stage.open(max_idle_seconds=60, callback_secrets={APP_ID: CALLBACK_SECRET})
    daemon = with_callbacks(
        stage,
        # The grace is longer than any callback takes.
        policy={"verify": "off", "max_idle_seconds": 60, "grace_seconds": 4},
        schedule={"occupancy_poll_seconds": 0},
        guard={"unverified_per_minute": 0, "unverified_share": 0},
    )
    await daemon.start()
    sandbox.perform(told(daemon))
    sandbox.perform(CallbackBehaviour(duplicate=0.5, reorder=0.5, delay_seconds=(0.0, 1.0), reorder_seconds=(0.5, 2.0)))
    stage.struck()
    left, stayed = await come_and_go(stage)
    stage.lifted()
    await stage.recovers("the tasks of those that are empty are stopped", lambda: stage.ended(left))
    await stage.clock.sleep(3)
    await stage.audit(stopped=left, kept=stayed)


class Forger:
    """Makes callbacks, good and bad."""

    def __init__(self) -> None:
        self._nonces: Iterator[int] = count(100_000)

    def login(self, room: str = "room", *, ago: float = 0, secret: str = CALLBACK_SECRET, **fields: Any) -> bytes:
        now = SystemClock().time() - ago
        timestamp, nonce = str(int(now)), str(next(self._nonces))
        return json.dumps(
            {
                "event": "room_login",
                "appid": str(APP_ID),
                "timestamp": timestamp,
                "nonce": nonce,
                "signature": callback_signature(secret, timestamp, nonce),
                "room_id": room,
                "room_seq": "4242",
                "user_account": "alice",
                "session_id": "1",
                "login_time": str(int(now * 1000)),
                "user_role": "1",
            }
            | fields
        ).encode()


@fault(32, "callbacks forged, replayed, 10 MB, slow, malformed, in a wrong encoding")
async def test_callbacks_of_every_bad_kind(stage: Stage) -> None:
    await stage.open()
    daemon = with_callbacks(stage)
    await daemon.start()
    where = address(daemon)
    forger = Forger()

    async def post(body: bytes, content_type: str = "application/json") -> int:
        headers = {"Content-Type": content_type}
        try:
            status, _ = await asyncio.to_thread(
                request, where, "POST", "/callbacks/zego", body=body, headers=headers, seconds=15
            )
        except (ConnectionError, OSError):
            return 0
        return status

    rooms = await stage.abandon(3)
    good = forger.login("somewhere")
    assert await post(good) == 200
    memory = daemon.status("VmRSS")
    bad = {
        "forged": forger.login(secret="guessed"),
        "old": forger.login(ago=3600),
        "from the future": forger.login(ago=-3600),
        "no secret of this app": forger.login(appid="777"),
        "not JSON": b"{",
        "deep": b"[" * 60_000,
        "no object": b"[]",
        "empty": b"",
        "binary": bytes(range(256)) * 10,
        "UTF-16": good.decode().encode("utf-16"),
        "numbers": forger.login(timestamp="9" * 5000),
        "NaN": good.replace(b'"1"', b"NaN"),
        "no fields": b'{"event": "room_login"}',
    }
    statuses = {kind: await post(body) for kind, body in bad.items()}
    stage.struck(len(bad))
    assert {kind for kind, status in statuses.items() if not 400 <= status < 500} == set(), statuses
    assert await post(good, "text/xml; charset=nonsense") in {200, 400, 415}
    # A replay is said yes to, for the vendor repeats what it has no answer to, and changes nothing.
    assert [await post(good) for _ in range(3)] == [200] * 3
    replayed = await asyncio.to_thread(metric, where, "zego_watchdog_callbacks_total", 'answer="replayed"')
    assert replayed == 3
    assert await post(b"x" * 10_000_000) in {0, 413}
    # Fifty senders that never finish hold up nobody.
    host, port = where
    slow = [await asyncio.to_thread(socket.create_connection, (host, port), 10) for _ in range(50)]
    for one in slow:
        one.sendall(b"POST /callbacks/zego HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    stage.lifted()
    assert await post(forger.login("elsewhere")) == 200
    await stage.recovers("tasks are stopped meanwhile", lambda: stage.ended(rooms))
    for one in slow:
        answer = await asyncio.to_thread(one.recv, 4096)
        assert not answer or b" 408 " in answer
        one.close()
    assert daemon.status("VmRSS") - memory < 60_000, "kB more than before"
    assert await asyncio.to_thread(metric, where, "zego_watchdog_callbacks_total") > len(bad)
    stage.visible(daemon, "callback_refused")
    assert "signature" not in [line for line in daemon.log.read_text().split('"') if line == "signature"]
    await stage.audit(stopped=rooms)


@pytest.mark.parametrize("encoding", list(CallbackEncoding))
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@fault(32, "callbacks in each of the vendor's encodings")
async def test_each_encoding_is_taken(stage: Stage, encoding: CallbackEncoding, tmp_path: Path) -> None:
    del tmp_path
    sandbox = await stage.open(callback_secrets={APP_ID: CALLBACK_SECRET})
    daemon = with_callbacks(stage)
    await daemon.start()
    sandbox.perform(SendCallbacks(url=told(daemon).url, encoding=encoding))
    stage.struck()
    task = str(sandbox.perform(Start(room="encoded"))["task_id"])
    stage.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, 'encoded')", task)
    sandbox.perform(Join(room="encoded", user="alice"))
    sandbox.perform(Leave(room="encoded", user="alice"))
    await stage.recovers("it is stopped by what callbacks say alone", lambda: stage.ended([task]))
    await stage.audit(stopped=[task])


assert SECRET != CALLBACK_SECRET
