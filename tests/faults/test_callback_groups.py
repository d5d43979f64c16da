"""Rows 62 to 64: callbacks are committed in groups, beside the stops."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

import psycopg
import pytest

from tests.faults.client import address, request
from tests.faults.harness import ROOT, Daemon, Stage, fault
from tests.faults.test_evidence import CALLBACK_SECRET, told, with_callbacks
from tests.faults.test_sqlite import file_of, writer_held
from tests.support.running import APP_ID, environment, free_port
from watchdog.sandbox import Join, Leave, Start

USERS = tuple(f"user-{number}" for number in range(4))


# -- 62: more callbacks than are taken --


class Storm:
    """The process ``storm``, as long as the block is running; after it there is what it counted."""

    def __init__(self, daemon: Daemon, connections: int) -> None:
        host, port = address(daemon)
        self._arguments = (host, str(port), str(connections), CALLBACK_SECRET)
        self._process: asyncio.subprocess.Process | None = None
        self._kinds: set[str] = set()
        self.accepted: list[int] = []
        self.answers: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.storm", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        counted = json.loads((await self._process.communicate(b""))[0].splitlines()[-1])
        self.accepted, self.answers = counted["accepted"], counted["answers"]

    async def answered(self, kind: str) -> None:
        """Return when this answer has come for the first time."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while kind not in self._kinds:
                self._kinds.add((await self._process.stdout.readline()).decode().strip())


@contextmanager
def held_up(stage: Stage) -> Iterator[None]:
    """No callback can be written meanwhile."""
    if stage.is_sqlite:
        with writer_held(file_of(stage)):
            yield
    else:
        with psycopg.connect(stage.url) as connection:
            connection.execute("LOCK TABLE zego_callbacks_seen IN EXCLUSIVE MODE")
            yield


@fault(62, "more valid callbacks than are taken, while rooms empty")
async def test_callbacks_do_not_starve_the_stops(stage: Stage) -> None:
    """Of 96 that are sent at once, 64 are read, and of these some wait too long for the database."""
    await stage.open()
    daemon = with_callbacks(stage, stop={"request_timeout_seconds": 4, "lease_seconds": 15})
    await daemon.start()
    rooms: list[str] = []
    async with Storm(daemon, 96) as storm:
        await storm.answered("accepted")
        with held_up(stage):
            await storm.answered("overloaded")
        for _ in range(5):
            rooms += (last := await stage.abandon(4))
            stage.struck()
            await stage.recovers("they are stopped meanwhile", lambda: stage.ended(last))
    heard = {row["user_id"] for row in stage.application.rows("SELECT user_id FROM zego_room_users")}
    assert {f"user-{number}" for number in storm.accepted} - heard == set(), "what was accepted is committed"
    assert storm.answers["busy"] > 0
    stage.visible(daemon, "callback_refused")
    await stage.audit(stopped=rooms)


# -- 63 and 64: one of a group is bad, a group is killed --


async def begin(stage: Stage, *, faults: str = "") -> tuple[Daemon, dict[str, str]]:
    """Start a daemon that only callbacks tell of people, and five tasks; return it, and the tasks with their rooms."""
    sandbox = await stage.open(max_idle_seconds=60, callback_secrets={APP_ID: CALLBACK_SECRET})
    daemon = with_callbacks(stage, policy={"max_idle_seconds": 60})
    # The vendor repeats to the same address.
    daemon.configure(http={"listen": f"127.0.0.1:{free_port()}"})
    await daemon.start(faults=faults)
    sandbox.perform(told(daemon))
    tasks = {}
    for number in range(5):
        room = f"grouped-{number}"
        task = str(sandbox.perform(Start(room=room))["task_id"])
        stage.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, ?)", task, room)
        tasks[task] = room
    return daemon, tasks


async def people_come(stage: Stage, daemon: Daemon, tasks: Mapping[str, str]) -> None:
    """Have the daemon find the callbacks of everybody's logins at the same time."""
    where = address(daemon)
    daemon.send(signal.SIGSTOP)
    await stage.until("it is frozen", lambda: daemon.is_frozen)
    for room in tasks.values():
        for user in USERS:
            stage.sandbox.perform(Join(room=room, user=user))
    await stage.until("all have been sent", lambda: unread(where) >= len(tasks) * len(USERS))
    daemon.send(signal.SIGCONT)


def unread(where: tuple[str, int]) -> int:
    """How many connections to this port have brought what nobody has read yet."""
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(one[1].endswith(f":{where[1]:04X}") and not one[4].endswith(":00000000") for one in fields)


async def people_are_known(stage: Stage, tasks: Collection[str]) -> None:
    """Wait until each of these tasks knows of everybody in its room, once."""
    known = f"SELECT task_id FROM zego_tasks WHERE user_count = {len(USERS)}"
    await stage.until(
        "they are known", lambda: {row["task_id"] for row in stage.application.rows(known)} >= set(tasks), seconds=60
    )


async def all_leave(stage: Stage, tasks: Mapping[str, str]) -> None:
    for room in tasks.values():
        for user in USERS:
            stage.sandbox.perform(Leave(room=room, user=user))
    stage.lifted()
    await stage.recovers("all are stopped", lambda: stage.ended(tasks))


def answered(daemon: Daemon, kind: str) -> float:
    """How many callbacks the daemon has answered in this way."""
    _, page = request(address(daemon), "GET", "/metrics")
    counts = (line.rsplit(" ", 1) for line in page.splitlines())
    return sum(float(count) for name, count in counts if name == f'zego_watchdog_callbacks_total{{answer="{kind}"}}')


def failed(stage: Stage, room: str) -> int:
    """How many callbacks of the room were sent, and not accepted."""
    sent = [one for one in stage.sandbox.events() if one["event"] == "callback_sent" and one["room_id"] == room]
    return sum(one["status"] != 200 for one in sent)


@contextmanager
def refused(stage: Stage, room: str) -> Iterator[None]:
    """A constraint of the application's own."""
    if stage.is_sqlite:
        stage.application.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON zego_room_users "
            f"WHEN new.room_id = '{room}' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
        yield
        stage.application.execute("DROP TRIGGER refused")
    else:
        stage.application.execute(
            f"ALTER TABLE zego_room_users ADD CONSTRAINT refused CHECK (room_id <> '{room}') NOT VALID"
        )
        yield
        stage.application.execute("ALTER TABLE zego_room_users DROP CONSTRAINT refused")


@contextmanager
def locked(stage: Stage, room: str) -> Iterator[None]:
    with psycopg.connect(stage.url) as connection:
        connection.execute("SELECT * FROM zego_tasks WHERE room_id = %s FOR UPDATE", (room,))
        yield


async def one_is_bad(stage: Stage, bad: Callable[[Stage, str], AbstractContextManager[None]]) -> None:
    daemon, tasks = await begin(stage)
    *others, (bad_task, bad_room) = tasks.items()
    with bad(stage, bad_room):
        await people_come(stage, daemon, tasks)
        stage.struck()
        await stage.until("the bad ones are answered", lambda: failed(stage, bad_room) > 0)
        await people_are_known(stage, [task for task, _ in others])
        await stage.until(
            "nobody else is refused for their sake",
            lambda: 0 < answered(daemon, "database_away") <= failed(stage, bad_room),
        )
    await people_are_known(stage, [bad_task])
    stage.visible(daemon, "callback_refused")
    await all_leave(stage, tasks)
    await stage.audit(stopped=list(tasks))


@fault(63, "a callback in a group that the database refuses")
async def test_a_refused_callback_harms_no_neighbour(stage: Stage) -> None:
    await one_is_bad(stage, refused)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@fault(63, "a callback in a group whose row is locked by somebody else")
async def test_a_locked_callback_harms_no_neighbour(stage: Stage) -> None:
    await one_is_bad(stage, locked)


@pytest.mark.parametrize("place", ["receive.commit", "receive.committed"])
@fault(64, "killed while a group of callbacks is committed, before it is answered")
async def test_a_group_is_killed_and_repeated(stage: Stage, place: str) -> None:
    daemon, tasks = await begin(stage, faults=f"{place}=kill")
    await people_come(stage, daemon, tasks)
    await stage.strikes("it is dead", lambda: not daemon.alive)
    seen = len(stage.application.rows("SELECT * FROM zego_callbacks_seen"))
    assert (seen > 0) == (place == "receive.committed")
    await daemon.start()
    await people_are_known(stage, tasks)
    # Each was stored twice: its signature with and without its body.
    await stage.until(
        "those that were committed are only repetitions", lambda: answered(daemon, "replayed") == seen / 2
    )
    await all_leave(stage, tasks)
    await stage.audit(stopped=list(tasks), killed=True)
