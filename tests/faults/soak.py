"""Row 37: a random mix of faults, while one daemon's memory, descriptors and threads are watched.

Two daemons on one database: a *survivor*, which nothing ends, and a *victim*, which is killed, frozen and restarted.
A round takes some faults by chance, abandons rooms, has people talk in others, and ends with an audit of everything
that has happened so far. ``daemons`` is the driver of ``make soak``: half of its time on either database.
"""

import asyncio
import random
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from tests.faults.client import LISTEN, address, request
from tests.faults.harness import LEASE_SECONDS, Nursery, Record, Stage, process_status
from tests.support.postgresql import Server
from watchdog.clock import SystemClock
from watchdog.sandbox import Action, Behave, Body, Drop, Join, Misbehaviour, Stop

WINDOW_SECONDS: Final = 120
HALTS_SECONDS: Final = LEASE_SECONDS + 6.0
"""A victim may hold all that is due for a lease while the database is away for three seconds, twice."""

WARM_UP_ROUNDS: Final = 4
"""Until then everything has been used once: pools are full, and code is compiled."""

_STOP: Final = Action.STOP
_MISBEHAVIOURS: Final = (
    Misbehaviour(action=_STOP, requests=4, code=206),
    Misbehaviour(action=_STOP, requests=4, http_status=503),
    Misbehaviour(action=_STOP, requests=4, drop_reply=Drop.AFTER),
    Misbehaviour(action=_STOP, requests=4, drop_reply=Drop.BEFORE),
    Misbehaviour(action=_STOP, requests=4, body=Body.CUT),
    Misbehaviour(action=_STOP, requests=4, body=Body.HTML),
    Misbehaviour(action=_STOP, requests=4, latency_seconds=(0.0, 1.5)),
    Misbehaviour(action=_STOP, requests=2, reply_latency_seconds=(3.0, 3.0)),
    Misbehaviour(action=Action.USER_NUM, requests=3, http_status=502),
    Misbehaviour(action=Action.USER_NUM, requests=3, latency_seconds=(0.0, 1.0)),
    Misbehaviour(action=Action.USER_NUM, requests=2, body=Body.CUT),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has in hand."""

    memory_kib: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(process_status(pid, "VmRSS"), descriptors, process_status(pid, "Threads"))

    def __str__(self) -> str:
        return f"{self.memory_kib / 1024:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


class Soak:
    """One stage, round after round."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._chance = random.Random(seed)  # noqa: S311 - to be played again
        self._stopped: list[str] = []
        self._victims_turn = asyncio.Lock()
        self.rounds = 0
        self.faults: Counter[str] = Counter()
        self.warm: Usage | None = None
        self._faults = (
            self.vendor_misbehaves,
            self.victim_is_killed,
            self.victim_is_frozen,
            self.victim_is_ended,
            self.database_fails,
            self.bad_reload,
            self.many_ask,
            self.hints_flap,
        )

    async def begin(self) -> None:
        """Start both daemons."""
        await self._stage.open(max_idle_seconds=WINDOW_SECONDS)
        policy = {"max_idle_seconds": WINDOW_SECONDS}
        self.survivor = self._stage.daemon(policy=policy, http=LISTEN)
        self.victim = self._stage.daemon(policy=policy)
        await self.survivor.start()
        await self.victim.start()

    async def round(self) -> None:
        """Play one; raises what does not hold."""
        stage = self._stage
        chosen = self._chance.sample(self._faults, 2)
        kept = await self._written(stage.talk(3))
        left = await self._written(stage.abandon(6))
        stage.struck(len(chosen))
        await asyncio.gather(*(fault(kept) for fault in chosen), self._more(left))
        stage.sandbox.perform(Behave())
        stage.lifted()
        self._stopped += left
        await stage.recovers("all are stopped", lambda: stage.ended(left), seconds=90)
        await stage.audit(stopped=self._stopped, kept=kept, killed=True)
        for task in kept:
            await asyncio.to_thread(
                stage.application.execute, "UPDATE zego_tasks SET status = 'released' WHERE task_id = ?", task
            )
            stage.sandbox.perform(Stop(task_id=task))
        self.faults.update(fault.__name__ for fault in chosen)
        self.rounds += 1
        if self.rounds == WARM_UP_ROUNDS:
            self.warm = Usage.of(self.survivor.pid)

    async def _more(self, left: list[str]) -> None:
        """Some are abandoned in the midst of it; the application, too, comes again when the database is away."""
        for _ in range(3):
            await self._stage.clock.sleep(self._chance.uniform(0.1, 1.0))
            left += await self._written(self._stage.abandon(1))

    async def _written(self, writing: object) -> list[str]:
        assert asyncio.iscoroutine(writing)
        tasks = await writing
        assert isinstance(tasks, list)
        return tasks

    # -- faults --

    async def vendor_misbehaves(self, _: Sequence[str]) -> None:
        for misbehaviour in self._chance.sample(_MISBEHAVIOURS, 2):
            self._stage.sandbox.perform(misbehaviour)
        await self._stage.clock.sleep(2)

    async def victim_is_killed(self, _: Sequence[str]) -> None:
        for _again in range(2):
            await self._stage.clock.sleep(self._chance.uniform(0.0, 1.5))
            async with self._victims_turn:
                await self.victim.end(signal.SIGKILL)
                await self._start_victim()

    async def victim_is_frozen(self, _: Sequence[str]) -> None:
        await self._stage.clock.sleep(self._chance.uniform(0.0, 1.0))
        async with self._victims_turn:
            self.victim.send(signal.SIGSTOP)
            await self._stage.clock.sleep(LEASE_SECONDS + 1)
            self.victim.send(signal.SIGCONT)

    async def victim_is_ended(self, _: Sequence[str]) -> None:
        await self._stage.clock.sleep(self._chance.uniform(0.0, 1.0))
        async with self._victims_turn:
            await self.victim.end(signal.SIGTERM)
            await self._start_victim()

    async def _start_victim(self) -> None:
        """As a service manager does: again and again, for it may find a database that is away."""
        for _ in range(10):
            with suppress(AssertionError):
                await self.victim.start()
                return
            await self._stage.clock.sleep(0.5)
        raise AssertionError(f"it does not start:\n{self.victim.log.read_text()[-2000:]}")

    async def database_fails(self, _: Sequence[str]) -> None:
        if self._stage.is_sqlite:
            await asyncio.to_thread(self._hold_the_writer)
        else:
            for _again in range(5):
                await self._stage.clock.sleep(self._chance.uniform(0.0, 0.4))
                await asyncio.to_thread(self._end_backends)

    def _hold_the_writer(self) -> None:
        file = self._stage.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            asyncio.run(SystemClock().sleep(2.5))
            connection.execute("ROLLBACK")

    def _end_backends(self) -> None:
        with psycopg.connect(self._stage.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'zego-watchdog'"
            )

    async def bad_reload(self, _: Sequence[str]) -> None:
        good = self.survivor.config.read_text()
        for text in ("nonsense: [", good, good.replace("grace_seconds: 0.5", "grace_seconds: 0.7"), good):
            self.survivor.config.write_text(text)
            self.survivor.send(signal.SIGHUP)
            await self._stage.clock.sleep(0.3)

    async def many_ask(self, _: Sequence[str]) -> None:
        where = address(self.survivor)
        paths = [self._chance.choice(("/metrics", "/healthz", "/readyz", "/nothing")) for _ in range(30)]
        asked = [asyncio.to_thread(request, where, "GET", path, seconds=30) for path in paths]
        asked += [
            asyncio.to_thread(request, where, "POST", "/callbacks/zego", body=self._chance.randbytes(500), seconds=30)
            for _ in range(20)
        ]
        await asyncio.gather(*asked)

    async def hints_flap(self, kept: Sequence[str]) -> None:
        """People stay, and the application says otherwise; some only come when the stop is near."""
        for number in range(6):
            for task in kept:
                await asyncio.to_thread(
                    self._stage.application.execute,
                    "UPDATE zego_tasks SET user_count = ? WHERE task_id = ?",
                    number % 2,
                    task,
                )
            await self._stage.clock.sleep(0.2)
        self._stage.sandbox.perform(Join(room=f"passing-{self.rounds}", user="carol"))

    # -- the end --

    def verdict(self) -> str:
        """Say how much was done and how flat the survivor stayed; AssertionError when it grew."""
        now = Usage.of(self.survivor.pid)
        said = (
            f"{self.rounds} rounds, {sum(self.faults.values())} faults, {len(self._stopped)} tasks stopped; "
            f"the survivor: {self.warm} warm, {now} now"
        )
        if self.warm is not None:
            grown = now.memory_kib - self.warm.memory_kib
            # What is remembered on purpose, of repeated warnings and of rooms, is bounded, and small.
            assert grown < 0.2 * self.warm.memory_kib + 4096, f"memory grows: {said}"
            assert now.descriptors <= self.warm.descriptors + 8, f"descriptors grow: {said}"
            assert now.threads <= self.warm.threads + 4, f"threads grow: {said}"
        return said


def daemons(seconds: float) -> Iterator[str]:
    """Driver of ``make soak``: real processes under faults, half of the time on either database."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sqlite").mkdir()
        (folder / "postgresql").mkdir()
        yield from _on("SQLite", f"sqlite:///{folder}/soak.db", folder / "sqlite", seconds / 2)
        with closing(Server()) as server:
            yield from _on("PostgreSQL", server.create_database("soak"), folder / "postgresql", seconds / 2)


def _on(database: str, url: str, folder: Path, seconds: float) -> Iterator[str]:
    clock, seed = SystemClock(), random.SystemRandom().getrandbits(32)
    until = clock.monotonic() + seconds
    nursery = Nursery(folder / "nursery.log")
    stage = Stage(folder, url, nursery, Record(37, "soak", database, HALTS_SECONDS))
    soak = Soak(stage, seed)
    with asyncio.Runner() as runner:
        try:
            runner.run(soak.begin())
            while clock.monotonic() < until:
                try:
                    runner.run(soak.round())
                except BaseException as error:
                    error.add_note(f"soak on {database}, seed {seed}, round {soak.rounds}, faults {dict(soak.faults)}")
                    raise
                if not soak.rounds % 5:
                    yield f"{database}: {soak.verdict()}"
            yield f"{database}: {soak.verdict()}; {dict(sorted(soak.faults.items()))}"
        finally:
            runner.run(stage.close())
            nursery.close()
