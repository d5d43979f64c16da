"""docs/sql.md: every statement runs on its databases, and answers what the document shows.

The ledger that is asked was written by the stores themselves, in virtual time: two days in the life of three AppIds.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.time_travel import Application, Stores, World
from watchdog.core import policy
from watchdog.core.callbacks import IDLE_AUTO_STOP
from watchdog.core.model import Evidence, Outcome, Reason, Reply, Source
from watchdog.core.policy import Policy, Rule
from watchdog.store.attempts import Ledger
from watchdog.store.callbacks import AutoStop, CallbackStore, Speech
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Claim, Instance, Intent, SetAside
from watchdog.store.tasks import Tasks

DOCUMENT = Path(__file__).parents[2] / "docs/sql.md"

NOW = "2026-03-02 14:30:00"
DEFAULT_APP, OTHER_APP, UNKNOWN_APP = 1234567890, 2345678901, 3456789012
FIRST, SECOND = "asr-1-812-5b1f0c2e", "asr-2-655-e01d77aa"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced statement of the document, and the answer that is shown for it."""

    heading: str
    dialects: frozenset[str]
    kind: str
    statement: str
    answer: str | None


def blocks() -> Iterator[Block]:
    text = DOCUMENT.read_text(encoding="utf-8")
    heading = ""
    # A heading; or statements one right after the other, say one for each database, and the answer they share.
    parts = re.compile(
        r"^##+ (?P<heading>.*)\n"
        r"|(?P<fences>(?:^```sql .*\n(?:(?!```).*\n)+```\n\n?)+)(?:```text\n(?P<answer>(?:(?!```).*\n)*)```)?",
        re.MULTILINE,
    )
    for part in parts.finditer(text):
        if part["heading"]:
            heading = part["heading"]
            continue
        for info, statement in re.findall(r"^```sql (.*)\n((?:(?!```).*\n)+)```$", part["fences"], re.MULTILINE):
            words = info.split()
            dialects = frozenset(words) & {"postgresql", "sqlite"}
            answer = None if part["answer"] is None else part["answer"].rstrip("\n")
            yield Block(heading, dialects, " ".join(words[len(dialects) :]), statement.strip().rstrip(";"), answer)


BLOCKS = list(blocks())


class Story:
    """Tells the store what happened, one task after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemons = {
            name: Stores(
                engine := world.engine,
                Tasks(engine, name),
                Ledger(engine, name, rejoin_watch_seconds=Policy().rejoin_watch_seconds),
                Heartbeats(engine),
            )
            for name in (FIRST, SECOND)
        }
        self.callbacks = CallbackStore(world.engine, FIRST, DEFAULT_APP)
        self._numbers = count(1)
        self._tokens = count(1)
        self._request_ids = count(3151527792559699732, 1387)

    def at(self, moment: str) -> None:
        """Go on to that moment."""
        self.world.advance((datetime.fromisoformat(f"{moment}+00:00") - self.world.now).total_seconds())

    def task(self, room: str, people: int | None = 2, **columns: Any) -> str:
        task_id = str(1920370518175780800 + next(self._numbers))
        self.world.app.start(task_id, room, **columns)
        if people is not None:
            self.world.app.people(room, people)
        return task_id

    def empties(self, task_id: str, daemon: str = FIRST) -> None:
        """The room empties, and three seconds later there is a plan."""
        self.world.app.people(self.world.task(task_id)["room_id"], 0)
        self.world.advance(3)
        tasks = self.daemons[daemon].tasks
        now, found = tasks.newly_empty(500)
        tasks.save_plans([plan for one in found if (plan := policy.plan(one, Policy(), now)) is not None])

    def reply(self, code: str | None, message: str | None = None, *, http_status: int = 200) -> Reply:
        """What the vendor answers; without a code, something that is not JSON."""
        request_id = None if code is None else str(next(self._request_ids))
        return Reply(http_status, code, message, request_id, None, None, 0.0)

    def claim(self, task_id: str, late: float = 0.25, daemon: str = FIRST) -> Claim:
        """Its time comes; ``late`` seconds later the task is claimed."""
        wake_at = self.world.task(task_id)["wake_at"]
        self.world.advance(max(0.0, (wake_at - self.world.now).total_seconds()) + late)
        claim = self.daemons[daemon].tasks.claim_one(task_id, f"{daemon}/{next(self._tokens)}", lease_seconds=20)
        assert claim is not None
        return claim

    def request(
        self,
        claim: Claim,
        outcome: Outcome,
        answer: Reply | None,
        *,
        took: float = 0.125,
        wake: float = 2.0,
        daemon: str = FIRST,
    ) -> None:
        """One stop request and what came of it; ``SENT``: nothing yet."""
        world, ledger = self.world, self.daemons[daemon].ledger
        app_id = claim.task.app_id or DEFAULT_APP
        evidence = Evidence(0, world.now, Source.API)
        (sent,) = ledger.intend([Intent(claim, app_id, policy.reason(claim.task), evidence, claim.task.auto_stop_at)])
        assert sent is not None
        if outcome is Outcome.SENT:
            return
        world.advance(took)
        replied_at = None if answer is None else world.now
        ledger.record([sent.answer(outcome, replied_at=replied_at, reply=answer, wake_seconds=wake)])

    def aside(self, claim: Claim, outcome: Outcome, detail: str, people: int | None = None, wake: float = 2.0) -> None:
        """No request, for this reason; ``people`` is what the vendor said."""
        seen = None if people is None else Evidence(people, self.world.now, Source.API)
        why: Reason = policy.reason(claim.task)
        app_id = claim.task.app_id or DEFAULT_APP
        evidence = seen or claim.task.evidence
        self.daemons[FIRST].tasks.set_aside([SetAside(claim, app_id, outcome, why, detail, evidence, seen, wake)])

    def stopped(self, room: str, *, people: int = 2, late: float = 0.25, daemon: str = FIRST) -> None:
        """The usual: a room empties for good, and its task is stopped with one request."""
        task_id = self.task(room, people)
        self.world.advance(600 if people else 0)
        self.empties(task_id, daemon)
        self.request(self.claim(task_id, late, daemon), Outcome.STOPPED, self.reply("0", "Success"), daemon=daemon)

    def come_back(self, room: str, after: float) -> None:
        """Somebody is in a room again, this long after what happened last."""
        self.world.advance(after)
        self.callbacks.receive([Speech(DEFAULT_APP, room, "", self.world.now, is_person=True, discover=False)])

    def ended_by_zego(self, number: int, after: float, **columns: Any) -> None:
        """A room empties while no stop can be sent, and ZEGO's callback 1202 comes this long after."""
        task_id, room = str(1920370518175780700 + number), f"night-{number}"
        self.world.app.start(task_id, room, user_count=1, **columns)
        self.world.advance(60)
        self.empties(task_id)
        self.world.advance(after - 3)
        now = self.world.now
        (received,) = self.callbacks.receive([AutoStop(DEFAULT_APP, task_id, now, IDLE_AUTO_STOP, "idle timeout")])
        assert received.auto_stopped is not None

    def pulse(self, instance: str, *, fresh: bool) -> None:
        host, pid = instance.rsplit("-", 2)[:2]
        daemon = Instance(instance, host, int(pid), "0.1.0", "enforce")
        self.daemons[instance].heartbeats.beat(daemon, 60, fresh=fresh)

    def tell(self) -> None:
        """All of it."""
        self.first_day()
        self.morning()
        self.noon()
        self.last_hour()
        self.last_minute()

    def first_day(self) -> None:
        self.at("2026-03-01 21:00:00")
        self.stopped("maths-1")
        self.stopped("maths-2", late=0.5)
        self.come_back("maths-2", 18.5)
        self.stopped("standup", people=0)
        for number, after in enumerate((121.25, 120.5, 150.25, 122), 1):
            self.ended_by_zego(number, after)
        self.ended_by_zego(5, 601.5, max_idle_seconds=600)

    def morning(self) -> None:
        # While policy.mode was still observe.
        self.at("2026-03-02 09:00:00")
        garden, tea = self.task("garden"), self.task("tea")
        for task_id in (garden, tea):
            self.empties(task_id)
            self.aside(self.claim(task_id), Outcome.WOULD_STOP, Rule.VENDOR_SAYS_EMPTY, people=0, wake=300)
        self.world.app.people("garden", 3)
        self.world.app.release(tea)
        # ZEGO has trouble, and is too late for this one.
        self.at("2026-03-02 11:05:00")
        lobby = self.task("lobby")
        self.empties(lobby)
        self.request(self.claim(lobby), Outcome.RETRY, self.reply(None, http_status=503), wake=30)
        self.request(self.claim(lobby), Outcome.RETRY, self.reply("410000009", "Internal call failed"), wake=80)
        self.request(self.claim(lobby), Outcome.AUTO_STOPPED, self.reply("410001002", "Task not found"))
        self.at("2026-03-02 11:40:00")
        reception = self.task("reception")
        self.empties(reception)
        self.request(self.claim(reception), Outcome.GONE, self.reply("410001002", "Task not found"))

    def noon(self) -> None:
        # An application that cannot count.
        self.at("2026-03-02 12:10:00")
        for room, times in (("support-7", 3), ("choir", 2), ("band", 1)):
            task_id = self.task(room)
            for _ in range(times):
                self.world.advance(120)
                self.empties(task_id)
                self.aside(self.claim(task_id), Outcome.SPARED, Rule.OCCUPIED, people=2)
        self.at("2026-03-02 12:40:00")
        board = self.task("board")
        self.empties(board)
        self.request(self.claim(board), Outcome.REJECTED, self.reply("410000003", "Parameter invalid"))
        # Its service is not enabled.
        self.at("2026-03-02 13:00:00")
        studio = self.task("studio", app_id=OTHER_APP)
        self.empties(studio)
        refusal = self.reply("410000006", "Service not enabled")
        self.request(self.claim(studio), Outcome.BLOCKED, refusal, wake=5290)
        for room in ("lab-1", "lab-2"):
            self.task(room, None, app_id=OTHER_APP)
        self.task("opera")
        self.at("2026-03-02 13:20:00")
        for room, app_id, detail in (
            ("yoga", None, Rule.UNCONFIRMED),
            ("chess", None, Rule.UNCONFIRMED),
            ("radio", UNKNOWN_APP, "app_not_configured"),
        ):
            task_id = self.task(room, app_id=app_id)
            self.empties(task_id)
            self.aside(self.claim(task_id), Outcome.WITHHELD, detail)
            self.world.app.release(task_id)

    def last_hour(self) -> None:
        self.at("2026-03-02 13:40:00")
        throttled = self.task("maths-3")
        self.empties(throttled)
        self.request(self.claim(throttled), Outcome.RETRY, self.reply("206", "Too many requests"), wake=2)
        self.request(self.claim(throttled), Outcome.STOPPED, self.reply("0", "Success"))
        self.stopped("maths-4", late=0.375, daemon=SECOND)
        self.stopped("standup", people=0, late=0.75)
        # The answer to the first request never came.
        guitar = self.task("guitar")
        self.empties(guitar)
        self.request(self.claim(guitar), Outcome.UNKNOWN, None, took=8, wake=1)
        self.request(self.claim(guitar), Outcome.STOPPED_EARLIER, self.reply("410001002", "Task not found"))
        self.come_back("guitar", 240)
        self.task("conference", 5)
        self.at("2026-03-02 14:23:00")
        self.pulse(FIRST, fresh=True)
        self.world.advance(2)
        self.pulse(SECOND, fresh=True)
        for _ in range(18):
            self.world.advance(18)
            self.pulse(FIRST, fresh=False)
            self.pulse(SECOND, fresh=False)

    def last_minute(self) -> None:
        # The second daemon dies with a request under way, and has not been replaced yet.
        self.at("2026-03-02 14:28:38")
        violin = self.task("violin")
        self.empties(violin, SECOND)
        self.at("2026-03-02 14:29:20")
        self.pulse(SECOND, fresh=False)
        self.at("2026-03-02 14:29:22")
        cello, harp = self.task("cello"), self.task("harp", grace_seconds=120, max_idle_seconds=600)
        self.request(self.claim(violin, daemon=SECOND), Outcome.SENT, None, daemon=SECOND)
        self.empties(cello)
        self.empties(harp)
        self.request(
            self.claim(self.studio()), Outcome.BLOCKED, self.reply("410000006", "Service not enabled"), wake=30
        )
        self.at("2026-03-02 14:29:58")
        self.pulse(FIRST, fresh=False)
        self.at(NOW)

    def studio(self) -> str:
        (row,) = self.world.app.rows("SELECT task_id FROM zego_tasks WHERE room_id = 'studio'")
        return str(row["task_id"])


class Shell:
    """A person at ``psql`` or ``sqlite3``, in the story's time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sqlite: sqlite3.Connection | None = None
        self._real = sqlite3.connect(":memory:")
        if world.dialect == "sqlite":
            (main,) = world.app.rows("PRAGMA database_list")
            self._sqlite = sqlite3.connect(main["file"], isolation_level=None)
            self._sqlite.row_factory = sqlite3.Row
            for name in ("strftime", "datetime", "julianday"):
                self._sqlite.create_function(name, -1, self._in_story_time(name))

    def _in_story_time(self, name: str) -> Any:
        def function(*arguments: Any) -> Any:
            told = [f"{self._world.now:%Y-%m-%d %H:%M:%S.%f}" if one == "now" else one for one in arguments]
            return self._real.execute(f"SELECT {name}({', '.join('?' * len(told))})", told).fetchone()[0]

        return function

    def answer(self, statement: str) -> str:
        """The rows as a table; of a statement without rows, nothing."""
        if self._sqlite is None:
            with closing(self._world.connect()) as application:
                if not statement.startswith("SELECT"):
                    application.execute(statement)
                    return ""
                return table(application.rows(statement))
        return table([dict(row) for row in self._sqlite.execute(statement).fetchall()])

    def close(self) -> None:
        self._real.close()
        if self._sqlite is not None:
            self._sqlite.close()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As psql draws it, without its outermost spaces."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    drawn = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([drawn[0], "-+-".join("-" * width for width in widths), *drawn[1:]])


def shown(value: object) -> str:
    """Values in one way for both databases: times in UTC to the second, numbers without zeros that say nothing."""
    match value:
        case None:
            return ""
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", value):
            return value[:19]
        case float() | Decimal():
            return f"{float(value):.3f}".rstrip("0").rstrip(".")
        case _:
            return str(value)


@contextmanager
def refused(application: Application) -> Iterator[None]:
    """Expect the database to say that this is not allowed; the transaction goes on."""
    application.execute("SAVEPOINT before")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        yield
    application.execute("ROLLBACK TO before")


@pytest.fixture
def told(world: World) -> Iterator[tuple[World, Shell]]:
    """Yield a world to which everything has happened, and somebody to ask about it."""
    Story(world).tell()
    with closing(Shell(world)) as shell:
        yield world, shell


def statements(dialect: str, kind: str = "") -> list[Block]:
    return [block for block in BLOCKS if dialect in block.dialects and block.kind == kind]


def test_there_are_enough_questions_and_each_is_asked_on_both_databases() -> None:
    asked = {
        dialect: [block.heading for block in statements(dialect) if block.answer is not None]
        for dialect in ("postgresql", "sqlite")
    }
    assert asked["postgresql"] == asked["sqlite"]
    assert len(set(asked["sqlite"])) >= 15
    assert all(block.dialects for block in BLOCKS)


def test_every_answer_is_the_one_shown(told: tuple[World, Shell]) -> None:
    world, shell = told
    expected = {}
    answered = {}
    for block in statements(world.dialect):
        # In the document's order: what one statement of a section writes, the next one reads.
        answer = shell.answer(block.statement)
        if block.answer is None:
            assert block.statement.startswith("UPDATE")
            continue
        expected[block.heading] = block.answer
        answered[block.heading] = answer
    assert answered == expected
    assert all(answered.values())


def test_a_room_is_let_go_again(told: tuple[World, Shell]) -> None:
    world, shell = told
    held, released = (block for block in statements(world.dialect) if block.statement.startswith("UPDATE"))
    (row,) = world.app.rows("SELECT task_id FROM zego_tasks WHERE room_id = 'conference'")
    shell.answer(held.statement)
    assert world.task(row["task_id"])["hold_until"] == world.ahead(7200)
    shell.answer(released.statement)
    assert world.task(row["task_id"])["hold_until"] is None


def test_the_applications_three_statements(world: World) -> None:
    (block,) = statements(world.dialect, "application")
    start, say, release = (one.strip() for one in block.statement.split(";") if one.strip())
    mark = "?" if world.dialect == "sqlite" else "%s"
    assert {one.count(mark) for one in (start, say, release)} == {1, 2}
    world.app.execute(start, "1920370518175780864", "room")
    assert world.task("1920370518175780864")["user_count"] is None
    world.app.execute(say, 2, "room")
    assert world.task("1920370518175780864")["last_occupied_at"] == world.now
    world.advance(10)
    world.app.execute(say, 0, "room")
    since = world.now
    world.advance(10)
    world.app.execute(say, 0, "room")
    assert world.task("1920370518175780864")["empty_since"] == since
    world.app.execute(release, "1920370518175780864")
    task = world.task("1920370518175780864")
    assert (task["status"], task["ended_at"]) == ("released", world.now)
    assert world.app.execute(say, 1, "room") == 0


def test_rights_that_keep_the_application_to_its_columns(postgresql_world: World) -> None:
    (block,) = statements("postgresql", "rights")
    with closing(postgresql_world.connect()) as application:
        application.execute("BEGIN")  # roles belong to the whole server: they go with the transaction
        application.execute(block.statement)
        # Virtual time is not part of the product.
        application.execute("GRANT USAGE ON SCHEMA time_travel TO zego_application, zego_reader")
        application.execute("GRANT SELECT ON time_travel.clock TO zego_application, zego_reader")
        application.execute("SET LOCAL ROLE zego_application")
        application.start("task", "room", max_idle_seconds=120)
        assert application.people("room", 0) == 1
        assert application.change("task", hold_until=postgresql_world.ahead(60)) == 1
        for column in ("due_at", "wake_at", "claimed_by", "empty_since"):
            with refused(application):
                application.change("task", **{column: None})
        with refused(application):
            application.execute("DELETE FROM zego_stop_attempts")
        assert application.release("task") == 1
        assert application.execute("DELETE FROM zego_tasks") == 1
        application.execute("SET LOCAL ROLE zego_reader")
        application.rows("SELECT task_id FROM zego_stop_history")
        with refused(application):
            application.release("task")
        application.execute("ROLLBACK")
