"""docs/events.md: its statements are run, by consumers that share the work and by one that fails."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.time_travel import World
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.store.attempts import Ledger
from watchdog.store.engine import reading
from watchdog.store.events import EventStore
from watchdog.store.polling import PollStore
from watchdog.store.records import Intent
from watchdog.store.tables import events

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
TYPES = re.findall(r"^\| `((?:task|room)\.\w+)` \|", PAGE.partition("`data` is")[0], re.MULTILINE)


def statements(kind: str) -> list[str]:
    """Return the statements of the page's only block of this kind."""
    (text,) = re.findall(rf"^```sql {kind}\n((?:(?!```).*\n)+)```$", PAGE, re.MULTILINE)
    if "$$" in text:
        return [f"{part};" for part in re.split(r";\n(?=CREATE)", text.strip().rstrip(";"))]
    return [part.strip() for part in re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).split(";") if part.strip()]


class Consumer:
    """A backend that reads and marks events as the page says."""

    def __init__(self, world: World) -> None:
        self.app = world.connect()
        self.begin, self.read, self.mark, self.commit = statements(world.dialect)

    def take(self) -> list[Mapping[str, Any]]:
        self.app.execute(self.begin)
        return self.app.rows(self.read)

    def done(self, *rows: Mapping[str, Any]) -> None:
        for row in rows:
            assert self.app.execute(self.mark.replace(":id", "?"), row["id"]) == 1
        self.app.execute(self.commit)


@pytest.fixture
def stopped(world: World) -> World:
    """Twelve tasks that were stopped."""
    EventStore(world.engine, "host/1").choose({"task.stopped": False})
    for number in range(12):
        world.app.start(f"task-{number:02}")
    world.app.execute("UPDATE zego_tasks SET status = 'stopped'")
    return world


def unhandled(world: World) -> int:
    (row,) = world.app.rows("SELECT count(*) AS number FROM zego_events WHERE handled_at IS NULL")
    return int(row["number"])


def test_a_consumer_reads_each_event_once(stopped: World) -> None:
    consumer = Consumer(stopped)
    first = consumer.take()
    consumer.done(*first)
    second = consumer.take()
    consumer.done(*second)
    assert [len(first), len(second), unhandled(stopped)] == [10, 2, 0]
    assert len({row["id"] for row in (*first, *second)}) == 12
    with reading(stopped.engine) as connection:
        assert set(connection.execute(sa.select(events.c.handled_at)).scalars()) == {stopped.now}


def test_a_consumer_that_fails_reads_them_again(stopped: World) -> None:
    consumer = Consumer(stopped)
    before = consumer.take()
    consumer.app.execute("ROLLBACK")
    assert consumer.take() == before


@pytest.mark.parametrize("world", ["postgresql"], indirect=True)
def test_consumers_share_the_work(stopped: World) -> None:
    one, other = Consumer(stopped), Consumer(stopped)
    first, second = one.take(), other.take()
    assert [len(first), len(second)] == [10, 2]
    # One event fails; the others are marked.
    one.done(*first[1:])
    other.done(*second)
    assert one.take() == first[:1]


def test_the_last_id_is_no_bookmark(postgresql_world: World) -> None:
    world = postgresql_world
    EventStore(world.engine, "host/1").choose({"task.stopped": False})
    for task in ("slow", "quick"):
        world.app.start(task)
    slow = world.connect()
    slow.execute("BEGIN")
    slow.execute("UPDATE zego_tasks SET status = 'stopped' WHERE task_id = 'slow'")
    world.app.change("quick", status="stopped")
    ids = "SELECT id FROM zego_events ORDER BY id"
    (seen,) = world.app.rows(ids)
    slow.execute("COMMIT")
    missed, last = world.app.rows(ids)
    assert missed["id"] < last["id"] == seen["id"]


def test_a_notification_wakes_the_backend(postgresql_world: World) -> None:
    world = postgresql_world
    function, trigger = statements("postgresql owner")
    (listen,) = statements("postgresql listener")
    EventStore(world.engine, "host/1").choose({"task.stopped": False})
    url = world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    world.app.execute(function)
    try:
        world.app.execute(trigger)
        with psycopg.connect(url, autocommit=True) as backend:
            backend.execute(listen.encode())
            world.app.start("t")
            world.app.change("t", status="stopped")
            (woken,) = backend.notifies(timeout=10, stop_after=1)
            assert woken.channel == "zego_events"
    finally:
        # The database is the next test's, too.
        world.app.execute("DROP FUNCTION wake_the_backend() CASCADE")


def test_the_page_names_every_key(world: World) -> None:
    EventStore(world.engine, "host/1").choose(dict.fromkeys(TYPES, False))
    assert len(TYPES) == 7
    world.app.start("t", "room", user_count=0)
    now = world.now
    world.app.change("t", due_at=now, auto_stop_at=world.ahead(100), wake_at=now)
    _, (claim,) = world.tasks.claim("token", limit=1, lease_seconds=20, default_app=1)
    intent = Intent(claim, 1, Reason.EMPTY_ROOM, Evidence(0, now, Source.API), None)
    ledger = Ledger(world.engine, "host/1", rejoin_watch_seconds=60)
    (attempt,) = ledger.intend([intent])
    assert attempt is not None
    ledger.record([attempt.answer(Outcome.STOPPED, replied_at=now)])
    world.advance(5)
    PollStore(world.engine).observe(1, 1, {"room": Evidence(1, world.now, Source.API)})
    world.app.execute(
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
        " VALUES ('u', 'asr', 'room', 'empty_room', 'would_stop', 'host/1')"
    )
    with reading(world.engine) as connection:
        found = connection.execute(sa.select(events.c.type, events.c.data).order_by(events.c.id)).all()
    assert [row.type for row in found] == ["task.stopped", "room.rejoined", "task.would_stop"]
    section = PAGE.partition("`data` is")[2].partition("## ")[0]
    common = set(re.findall(r"`(\w+)`", section.partition("and:")[0]))
    for row in found:
        (line,) = re.findall(rf"^\|.*`{row.type}`.* \| (.*) \|$", section, re.MULTILINE)
        assert set(row.data) == common | set(re.findall(r"`(\w+)`", line)), row.type
