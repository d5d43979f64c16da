"""One run of the world, the network, the application and the watchdog's real parts, over hours of virtual time."""

import asyncio
import gc
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httpx2 as httpx
import sqlalchemy as sa

from simulation import liveness
from simulation.gateway import Gateway, Span
from simulation.jobs import Jobs, silent_logs
from simulation.judge import Grace, Judge, Judgement, Watched
from simulation.rooms import APP_ID, BOTS, Backend, Fleet, Room, exodus, returns
from simulation.virtual import AtOnce, SqliteTime, VirtualClock, VirtualLoop
from watchdog.config.settings import Config
from watchdog.core.advice import Spells
from watchdog.core.kinds import KINDS
from watchdog.core.model import Verify
from watchdog.core.policy import Policy, limits
from watchdog.sandbox import referee
from watchdog.sandbox.kinds import Kind
from watchdog.sandbox.misbehaviour import CallbackBehaviour
from watchdog.sandbox.outbox import Outbox
from watchdog.sandbox.world import Event, World, stream
from watchdog.store import schema
from watchdog.store.engine import open_engine, reading
from watchdog.store.reports.spells import find_spells
from watchdog.store.tables import attempts, tasks
from watchdog.store.tasks import Tasks
from watchdog.wiring.parts import Parts

CALLBACKS: Final = CallbackBehaviour(
    lose=0.05, duplicate=0.10, reorder=0.20, delay_seconds=(0.05, 1.0), reorder_seconds=(1.0, 10.0)
)
_DELIVERY_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated. ``wrong_hints`` is the share of hints that call an occupied room empty.

    ``exodus`` more rooms lose all their people at once, half-way through. To ``returning`` more, people come back after
    times of a known distribution. With ``mixed`` the rooms have tasks of all kinds. ``policy`` and ``stop`` are
    sections of the configuration, and ``callbacks`` is how ZEGO's callbacks arrive. While an outage lasts, for
    ``outage_seconds``, ZEGO answers nothing.
    """

    seed: int = 1
    rooms: int = 1000
    hours: float = 2.0
    verify: Verify = Verify.REQUIRED
    wrong_hints: float = 0.0
    exodus: int = 0
    returning: int = 0
    mixed: bool = False
    policy: Mapping[str, float | str] = field(default_factory=dict)
    stop: Mapping[str, float] = field(default_factory=dict)
    callbacks: CallbackBehaviour = CALLBACKS
    outage_seconds: tuple[float, float] = (10, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result. ``took_seconds`` is real time, and not compared."""

    scenario: Scenario
    judgement: Judgement
    verdict: referee.Verdict
    silences: tuple[liveness.Silence, ...]
    outcomes: Mapping[str, int]
    requests: int
    took_seconds: float = field(compare=False)
    log: tuple[Event, ...] = field(compare=False, repr=False)
    attempts: tuple[Mapping[str, Any], ...] = field(compare=False, repr=False)
    spells: tuple[Spells, ...] = field(compare=False, repr=False)

    @property
    def speed(self) -> float:
        """How many times faster than real time."""
        return self.scenario.hours * 3600 / self.took_seconds

    def trace(self, room_id: str) -> Iterator[str]:
        """Everything that happened in a room, and its ledger rows, in order."""
        told = [
            (event["at"], {key: value for key, value in event.items() if key not in {"seq", "at", "app_id"}})
            for event in self.log
            if event.get("room_id") == room_id or _names(event, room_id)
        ]
        noted = [
            (row["recorded_at"].timestamp(), {"ledger": row["outcome"], **row})
            for row in self.attempts
            if row["room_id"] == room_id
        ]
        for at, fields in sorted(chain(told, noted), key=lambda entry: entry[0]):
            shown = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
            yield f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f} {shown}"


def _names(event: Event, room_id: str) -> bool:
    return event["event"] == "answered_who_is_there" and room_id in event["people"]


def simulate(scenario: Scenario, at_the_end: Callable[[sa.Engine], None] | None = None) -> Result:
    """Run a scenario; the same one gives the same result.

    ``at_the_end`` gets the database while its clock still stands at the end of the run.
    """
    # The jitter of retries is drawn from the process's own source.
    random.seed(scenario.seed)
    began = perf_counter()
    loop = VirtualLoop()
    with (
        silent_logs(),
        _little_garbage(),
        tempfile.TemporaryDirectory(dir=_memory(), prefix="simulation-") as directory,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        return runner.run(_Run(scenario, loop, Path(directory) / "simulation.db", at_the_end).result(began))


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Collect garbage rarely: the log only grows, and scanning it takes much of the time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _memory() -> str | None:
    """A directory in memory, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a fresh directory in it


class _Run:
    def __init__(
        self, scenario: Scenario, loop: VirtualLoop, file: Path, at_the_end: Callable[[sa.Engine], None] | None
    ) -> None:
        self._scenario = scenario
        self._at_the_end = at_the_end
        self._loop = loop
        self._clock = VirtualClock(loop.time)
        unlimited = dict.fromkeys(Kind, 0)
        self._world = World(seed=scenario.seed, account_limits=unlimited, max_idle_seconds=120)
        self._outbox = Outbox(self._world, seed=scenario.seed, secrets={APP_ID: _SECRET})
        self._outbox.behaviour = scenario.callbacks
        self._world.advance(self._clock.time())
        self._outages = tuple(self._plan_outages())
        self._time = SqliteTime(self._clock)
        self._file = file
        self._config = _config(scenario)
        self._over: asyncio.Future[None] = loop.create_future()
        self._background: set[asyncio.Task[None]] = set()
        self._progress = asyncio.Event()

    def _plan_outages(self) -> Iterator[Span]:
        chance = stream(self._scenario.seed, "outages")
        at = self._clock.time()
        end = at + self._scenario.hours * 3600
        while (at := at + chance.uniform(900, 2400)) < end:
            yield at, at + chance.uniform(*self._scenario.outage_seconds)

    async def result(self, began: float) -> Result:
        with closing(self._time):
            self._engine = self._open()
            self._gateway = Gateway(
                self._world,
                {APP_ID: _SECRET},
                clock=self._clock,
                seed=self._scenario.seed,
                outages=self._outages,
                bots=BOTS,
            )
            self._parts = Parts(
                self._config,
                self._clock,
                self._engine,
                Tasks(self._engine, "").now(),
                on_progress=self._progress.set,
                transport=httpx.MockTransport(self._gateway),
            )
            # Threads would run in real time.
            self._parts.storage.threads._threads.shutdown()  # noqa: SLF001 - see AtOnce
            self._parts.storage.threads._threads = AtOnce(1)  # noqa: SLF001 - the product has no seam for it
            try:
                return await self._play(began)
            finally:
                for task in self._background:
                    task.cancel()
                await self._parts.close()

    async def _play(self, began: float) -> Result:
        application = self._connect()
        with closing(application):
            fleet = Fleet(
                self._world,
                Backend(application),
                self._clock,
                seed=self._scenario.seed,
                seconds=self._scenario.hours * 3600,
                in_background=self._spawn,
                wrong_hints=self._scenario.wrong_hints,
                mixed=self._scenario.mixed,
            )
            self._spawn(self._daemon())
            self._spawn(self._deliver())
            for number in range(self._scenario.rooms):
                # The application forgets a third of the rooms.
                self._spawn(Room(fleet, number, hints=number % 3 != 0).live())
            if self._scenario.exodus:
                self._spawn(exodus(fleet, self._scenario.exodus))
            for number in range(self._scenario.returning):
                self._spawn(returns(fleet, number))
            self._loop.call_at(self._scenario.hours * 3600, self._end)
            await self._over
            self._world.advance(self._clock.time())
        if self._at_the_end is not None:
            self._at_the_end(self._engine)
        return self._conclude(began)

    def _conclude(self, began: float) -> Result:
        with reading(self._engine) as connection:
            ledger = tuple(row._asdict() for row in connection.execute(sa.select(attempts).order_by(attempts.c.id)))
            table = [row._asdict() for row in connection.execute(sa.select(tasks))]
        watched = [
            Watched(row["task_id"], row["started_at"].timestamp(), row["ended_at"] and row["ended_at"].timestamp())
            for row in table
        ]
        log = tuple(self._world.log)
        policy = self._config.policy
        judgement = Judge(
            watched,
            bots=BOTS,
            grace=lambda kind: _grace(kind, policy.rules),
            outages=self._outages,
            verified=policy.verify is not Verify.OFF,
        ).judge(log, self._clock.time())
        outcomes: dict[str, int] = {}
        for row in ledger:
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + 1
        return Result(
            scenario=self._scenario,
            judgement=judgement,
            verdict=referee.judge(log, ledger, bot_user_ids=BOTS, daemon_killed=True),
            silences=tuple(self._silences(log, table, ledger)),
            outcomes=outcomes,
            requests=self._gateway.requests,
            took_seconds=perf_counter() - began,
            log=log,
            attempts=ledger,
            spells=tuple(find_spells(self._engine, timedelta(days=1)).spells),
        )

    def _silences(
        self, log: Sequence[Event], table: Sequence[Mapping[str, Any]], ledger: Sequence[Mapping[str, Any]]
    ) -> list[liveness.Silence]:
        stop = self._config.stop
        return liveness.judge(
            table,
            ledger,
            [event["received_at"] for event in log if event["event"] == "stop_requested"],
            allowed_seconds=liveness.allowed_seconds(
                stops_per_second=stop.requests_per_second,
                calls_per_second=stop.occupancy_requests_per_second,
                request_timeout_seconds=stop.request_timeout_seconds,
                sweep_seconds=self._config.schedule.poll_seconds,
            ),
            since=0.0,
            until=self._clock.time(),
        )

    async def _daemon(self) -> None:
        for job in await Jobs(self._parts, self._config, self._clock, self._progress).begin():
            self._spawn(self._forever(job))

    async def _forever(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            await job()

    async def _deliver(self) -> None:
        """Send the vendor's callbacks; polls, because nothing wakes it."""
        webhook = self._parts.callbacks
        while True:
            for delivery in self._outbox.due(self._clock.time()):
                answer = await webhook.receive(delivery.letter.content_type, delivery.letter.body)
                self._outbox.settle(delivery, answer.http_status, self._clock.time())
            now, at = self._clock.time(), self._outbox.next_at()
            await self._clock.sleep(_DELIVERY_SECONDS if at is None else min(_DELIVERY_SECONDS, max(0.0, at - now)))

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    def _end(self, error: BaseException | None = None) -> None:
        if not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)

    def _open(self) -> sa.Engine:
        engine = open_engine(f"sqlite:///{self._file}", must_exist=False)
        sa.event.listen(engine, "connect", lambda connection, _record: self._prepare(connection))
        schema.migrate(engine)
        return engine

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=30)
        self._prepare(connection)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # No power cut is simulated here.
        connection.execute("PRAGMA synchronous = OFF")
        self._time.govern(connection)


_SECRET: Final = "made-up-secret"  # noqa: S105 - made up


def _grace(kind: str, policy: Policy) -> Grace:
    rules = limits(KINDS[kind], policy)
    return Grace(rules.grace_seconds, rules.never_joined_grace_seconds)


def _config(scenario: Scenario) -> Config:
    return Config.model_validate(
        {
            "zego": {
                "apps": [{"app_id": APP_ID, "server_secret": _SECRET, "callback_secret": _SECRET}],
                "bot_user_ids": BOTS,
            },
            "policy": {"verify": scenario.verify, **scenario.policy},
            # Half as often as by default, which makes it harder, and the run shorter.
            "schedule": {"occupancy_poll_seconds": 30},
            "stop": scenario.stop,
        }
    )
