"""The SQL of heartbeats, on both databases: who is alive, and since when the watch is unbroken."""

from dataclasses import replace
from datetime import timedelta

from tests.support.time_travel import World
from watchdog.store.heartbeats import ALIVE_SECONDS
from watchdog.store.records import Instance
from watchdog.store.retention import FORGET_DAEMON_SECONDS, RetentionStore

DAEMON = Instance(instance="host/1", host="host", pid=1, version="0.1", mode="enforce")
GAP = 60.0


class TestPulse:
    def test_the_first_daemon_begins_to_watch(self, world: World) -> None:
        pulse = world.heartbeats.beat(DAEMON, GAP, fresh=True)
        assert (pulse.now, pulse.watching_since, pulse.alive) == (world.now, world.now, 1)

    def test_watching_goes_on_across_beats_and_restarts(self, world: World) -> None:
        begun = world.heartbeats.beat(DAEMON, GAP, fresh=True).watching_since
        world.advance(GAP)
        assert world.heartbeats.beat(DAEMON, GAP, fresh=False).watching_since == begun
        world.heartbeats.depart("host/1")
        world.advance(GAP)
        assert world.heartbeats.beat(replace(DAEMON, instance="host/2"), GAP, fresh=True).watching_since == begun

    def test_after_a_gap_it_begins_anew(self, world: World) -> None:
        world.heartbeats.beat(DAEMON, GAP, fresh=True)
        world.advance(GAP + 0.001)
        assert world.heartbeats.beat(DAEMON, GAP, fresh=False).watching_since == world.now
        world.advance(GAP + 0.001)
        assert world.heartbeats.beat(replace(DAEMON, instance="host/2"), GAP, fresh=True).watching_since == world.now

    def test_the_living_are_counted_and_the_dead_are_not(self, world: World) -> None:
        second = replace(DAEMON, instance="host/2")
        world.heartbeats.beat(DAEMON, GAP, fresh=True)
        assert world.heartbeats.beat(second, GAP, fresh=True).alive == 2
        world.advance(ALIVE_SECONDS)
        assert world.heartbeats.beat(second, GAP, fresh=False).alive == 2
        world.advance(0.001)
        assert world.heartbeats.beat(second, GAP, fresh=False).alive == 1

    def test_who_departs_is_not_counted_but_remembered(self, world: World) -> None:
        world.heartbeats.beat(DAEMON, GAP, fresh=True)
        world.heartbeats.depart("host/1")
        assert world.heartbeats.beat(replace(DAEMON, instance="host/2"), GAP, fresh=True).alive == 1
        rows = world.app.rows("SELECT instance, mode FROM zego_daemons ORDER BY instance")
        assert [tuple(row.values()) for row in rows] == [("host/1", "ended"), ("host/2", "enforce")]

    def test_a_row_that_was_deleted_comes_back_with_the_next_beat(self, world: World) -> None:
        world.heartbeats.beat(DAEMON, GAP, fresh=True)
        world.app.execute("DELETE FROM zego_daemons")
        assert world.heartbeats.beat(DAEMON, GAP, fresh=False).alive == 1

    def test_the_long_dead_are_forgotten(self, world: World) -> None:
        world.heartbeats.beat(DAEMON, GAP, fresh=True)
        world.advance(FORGET_DAEMON_SECONDS - 1)
        world.heartbeats.beat(replace(DAEMON, instance="host/2"), GAP, fresh=True)
        RetentionStore(world.engine).prune_gone()
        assert len(world.app.rows("SELECT instance FROM zego_daemons")) == 2
        world.advance(2)
        RetentionStore(world.engine).prune_gone()
        assert [row["instance"] for row in world.app.rows("SELECT instance FROM zego_daemons")] == ["host/2"]

    def test_a_clock_set_back_trusts_no_older_hints(self, world: World) -> None:
        begun = world.heartbeats.beat(DAEMON, GAP, fresh=True).watching_since
        world.advance(-3600)
        assert world.heartbeats.beat(DAEMON, GAP, fresh=False).watching_since == begun == world.now + timedelta(hours=1)
