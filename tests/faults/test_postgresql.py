"""Rows 22 to 25: what can happen to a PostgreSQL server, on the way to it, and among several daemons on it."""

import asyncio
import itertools
import math
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest

from tests.faults.client import LISTEN, Pulse, address, request
from tests.faults.far_host import FarHost, can_make_networks
from tests.faults.harness import Stage, Supervisor, fault
from tests.faults.proxy import Mode
from tests.support.postgresql import Server
from tests.support.tools import needs
from watchdog.sandbox import Action, Misbehaviour

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_its_own = pytest.mark.parametrize("database_url", ["own_postgresql"], indirect=True)

DAEMONS = 8


def through(url: str, port: int, host: str = "127.0.0.1") -> str:
    """The same database by TCP."""
    database = re.sub(r".*/([^/?]+)\?.*", r"\1", url)
    return f"postgresql://postgres@{host}:{port}/{database}"


async def load(stage: Stage, tasks: list[str], *, every_seconds: float = 0.3) -> None:
    """Abandon rooms until cancelled; the application, too, comes again when the database is away."""
    while True:
        with suppress(psycopg.OperationalError):
            tasks += await stage.abandon(1)
        await stage.clock.sleep(every_seconds)


@on_postgresql
@fault(22, "PostgreSQL backend ended at each statement", quick=True, halts=math.inf)
async def test_the_backend_ends_at_each_statement(stage: Stage) -> None:
    # A task whose intent fails waits for a lease each time, and the first ones' fail a dozen times.
    sandbox = await stage.open(max_idle_seconds=120)
    daemon = stage.daemon(policy={"max_idle_seconds": 120})
    await daemon.start(environment={"FAULTS_TERMINATE": "1"})
    daemon.send(signal.SIGUSR2)
    # Some ways are taken only now and then: a retry, people in the room.
    sandbox.perform(Misbehaviour(action=Action.STOP, code=206, requests=2))
    kept = await stage.talk(2)
    rooms: list[str] = []
    terminated: set[str] = set()
    for _ in range(6):
        rooms += await stage.abandon(3)
        await stage.until("the round is over", lambda: stage.ended(rooms), seconds=60)  # noqa: B023 - used at once
        terminated |= {line for line in daemon.log.read_text().splitlines() if line.startswith("terminated")}
    stage.struck(len(terminated))
    rooms += (last := await stage.abandon(3))
    await stage.recovers("work goes on", lambda: stage.ended(last))
    for table in ("zego_tasks", "zego_stop_attempts"):
        for when in ("before", "after", "at the commit of"):
            assert any(line.startswith(f"terminated {when}") and table in line for line in terminated), (when, table)
    stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms, kept=kept)


@on_its_own
@fault(23, "PostgreSQL stopped at once, killed, restarted, in mid-load", halts=math.inf)
async def test_the_server_dies_again_and_again(stage: Stage, own_server: Server) -> None:
    sandbox = await stage.open(max_idle_seconds=60)
    sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(0.0, 0.5)))
    daemons = [stage.daemon(policy={"max_idle_seconds": 60}) for _ in range(2)]
    for daemon in daemons:
        await daemon.start()
    rooms: list[str] = []
    loading = asyncio.create_task(load(stage, rooms))
    for number in range(10):
        before = len(rooms)
        await stage.until("there is load", lambda: len(rooms) >= before + 3, seconds=60)  # noqa: B023 - used at once
        if number % 2:
            own_server.kill()
        else:
            await asyncio.to_thread(own_server.stop, "immediate")
        stage.record.times += 1
        await stage.clock.sleep(0.5)
        await asyncio.to_thread(own_server.start)
        stage.lifted()
        (task,) = await stage.abandon(1)
        rooms.append(task)
        await stage.recovers("a new task is stopped", lambda: stage.ended([task]))  # noqa: B023 - used at once
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    await stage.until("all are stopped", lambda: stage.ended(rooms), seconds=60)
    for daemon in daemons:
        assert daemon.alive
        stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms)


@pytest.fixture
async def far(stage: Stage, postgresql_server: str) -> AsyncIterator[FarHost]:
    socket = postgresql_server.split("host=")[1] + "/.s.PGSQL.5432"
    with FarHost(socket) as host:
        yield host
        # Nobody shall wait for a host that goes away.
        await stage.close()


@needs("ip")
@pytest.mark.skipif(not can_make_networks(), reason="needs the right to make networks")
@on_postgresql
@fault(24, "PostgreSQL half-open: the host falls silent", halts=math.inf)
async def test_the_host_falls_silent(stage: Stage, far: FarHost) -> None:
    sandbox = await stage.open()
    sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(0.5, 0.5), requests=2))
    url = through(stage.url, 5432, far.address)
    daemon = stage.daemon(
        http=LISTEN,
        database={"url": url, "connect_timeout_seconds": 1, "statement_timeout_seconds": 1},
    )
    await daemon.start()
    rooms = await stage.abandon(2)
    await stage.until("requests are under way", lambda: len(stage.attempts("sent")) == 2)
    async with Pulse(daemon) as pulse:
        far.fall_silent()
        stage.struck()
        await stage.until("it is said", lambda: bool(daemon.events("database_away")), seconds=20)
        assert daemon.alive
        far.come_back()
        stage.lifted()
        rooms += await stage.abandon(2)
        await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    assert pulse.longest_seconds < 2, "the event loop waited for the database, too"
    stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms)


@on_postgresql
@fault(24, "PostgreSQL half-open: what is sent is acknowledged, and nobody answers", halts=math.inf)
async def test_the_server_answers_nothing(stage: Stage) -> None:
    """No time-out of the network's comes into play: the service manager's watchdog is the last resort."""
    await stage.open(max_idle_seconds=60)
    proxy = await stage.proxy(stage.url.split("host=")[1] + "/.s.PGSQL.5432")
    daemon = stage.daemon(
        http=LISTEN,
        policy={"max_idle_seconds": 60},
        database={
            "url": through(stage.url, proxy.port),
            "connect_timeout_seconds": 1,
            "statement_timeout_seconds": 1,
        },
    )
    async with Supervisor(daemon, watchdog_seconds=3) as supervisor:
        await stage.until("it works", lambda: bool(daemon.events("started")))
        rooms = await stage.abandon(1)
        await stage.until("it stops", lambda: stage.ended(rooms))
        where = address(daemon)
        await proxy.set(Mode.SILENT)
        stage.struck()
        await stage.until("it is not healthy", lambda: request(where, "GET", "/healthz")[0] == 503, seconds=20)
        stage.record.invariants.add("I8")
        await stage.until("it is ended", lambda: supervisor.timeouts > 0, seconds=40)
        await proxy.set(Mode.PASS)
        stage.lifted()
        rooms += await stage.abandon(1)
        await stage.recovers("it is there again, and all are stopped", lambda: stage.ended(rooms), seconds=40)
    await daemon.end()
    await stage.audit(stopped=rooms)


@on_postgresql
@fault(24, "PostgreSQL read-only after a failover", halts=math.inf)
async def test_the_server_is_read_only(stage: Stage) -> None:
    """As after a failover: connections that still lead to what is a replica now must not be kept for ever."""
    daemon = await stage.begin()
    rooms = await stage.abandon(2)
    await stage.until("all are stopped", lambda: stage.ended(rooms))
    with psycopg.connect(stage.url, autocommit=True) as operator:
        name = operator.info.dbname
        operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        # Those that are connected go on by the old setting; as in a failover, they are cut off.
        operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'zego-watchdog'"
        )
        stage.struck()
        await stage.until("it is said", lambda: bool(daemon.events("database_away")))
        await stage.until(
            "and why", lambda: any("read-only" in event["error"] for event in daemon.events("database_away"))
        )
        await stage.clock.sleep(1)
        operator.execute("SET default_transaction_read_only = off")
        operator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    stage.lifted()
    rooms += await stage.abandon(2)
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    stage.visible(daemon, "database_away", "database_back")
    await stage.audit(stopped=rooms)


@on_postgresql
@pytest.mark.parametrize(
    "when",
    ["unplanned", "planned", "sent"],
)
@fault(24, "a task's row locked by somebody else", halts=math.inf)
async def test_a_row_is_locked(stage: Stage, when: str) -> None:
    sandbox = await stage.open()
    sandbox.perform(Misbehaviour(action=Action.STOP, latency_seconds=(1.0, 1.0), requests=6))
    daemon = stage.daemon(policy={"grace_seconds": 1.5 if when == "planned" else 0.5})
    if when == "unplanned":
        (locked,) = await stage.abandon(1)
        others = []
    else:
        await daemon.start()
        locked, *others = await stage.abandon(6)
    if when == "planned":
        planned = "SELECT task_id FROM zego_tasks WHERE due_at IS NOT NULL"
        await stage.until("all are planned", lambda: len(stage.application.rows(planned)) == len(others) + 1)
    if when == "sent":
        # Their answers come together, and would be written down together.
        await stage.until("requests are under way", lambda: len(stage.attempts("sent")) == len(others) + 1)
    with psycopg.connect(stage.url) as operator:
        operator.execute("SELECT * FROM zego_tasks WHERE task_id = %s FOR UPDATE", (locked,))
        stage.struck()
        if when == "unplanned":
            await daemon.start()
        others += await stage.abandon(5)
        await stage.recovers("the others are stopped meanwhile", lambda: stage.ended(others))
        # Longer than a lock is waited for, and than the lease.
        await stage.clock.sleep(5)
        operator.rollback()
    await stage.until("then the locked one, too", lambda: stage.ended([locked]))
    await stage.audit(stopped=[locked, *others])


@on_postgresql
@fault(25, "eight daemons start at once on one database")
async def test_eight_start_at_once(stage: Stage) -> None:
    await stage.open()
    daemons = [stage.daemon(database={"url": stage.url, "pool_size": 2}) for _ in range(DAEMONS)]
    rooms = await stage.abandon(40)
    stage.struck(DAEMONS)
    await asyncio.gather(*(daemon.start() for daemon in daemons))
    await stage.recovers("all are stopped", lambda: stage.ended(rooms))
    instances = {daemon.events("started")[-1]["instance"] for daemon in daemons}
    assert len(instances) == DAEMONS, "one host, one name for each process"
    await stage.audit(stopped=rooms)
    per_task = [len(list(group)) for _, group in itertools.groupby(sorted(e["task_id"] for e in stage.requests()))]
    assert set(per_task) == {1}, "each was stopped by one of them"
    assert await asyncio.gather(*(daemon.end(signal.SIGTERM) for daemon in daemons)) == [0] * DAEMONS
