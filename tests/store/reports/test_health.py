"""Daemons, vitals and hints, as ``check`` reads them."""

from tests.support.time_travel import World
from watchdog.store.records import Instance
from watchdog.store.reports.health import Hints, all_daemons, hints, vitals


def test_a_daemon_that_said_goodbye_is_not_alive(world: World) -> None:
    world.heartbeats.beat(Instance("host/1", "host", 1, "0.1.0", "enforce"), 60, fresh=True)
    assert [one.alive for one in all_daemons(world.engine)[1]] == [True]
    world.heartbeats.depart("host/1")
    assert [one.alive for one in all_daemons(world.engine)[1]] == [False]


def test_vitals(world: World) -> None:
    before = vitals(world.engine)
    assert before.writable
    assert before.server.lower().startswith(world.dialect)
    assert before.journal_mode == ("wal" if world.dialect == "sqlite" else None)
    assert before.encoding == (None if world.dialect == "sqlite" else "UTF8")


def test_hints_are_counted_among_active_tasks_only(world: World) -> None:
    assert hints(world.engine) == Hints(world.now, 0, 0, None)
    world.app.start("without", "a")
    world.app.start("with", "b")
    world.app.people("b", 1)
    newest = world.now
    world.app.start("ended", "c")
    world.advance(5)
    world.app.people("c", 1)
    world.app.release("ended")
    assert hints(world.engine) == Hints(world.now, 2, 1, newest)
