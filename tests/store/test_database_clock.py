"""The database's clock between two readings."""

from datetime import timedelta

import pytest

from tests.support.time_travel import World
from watchdog.store.aio.database_clock import DatabaseClock


@pytest.fixture
def database_clock(world: World) -> DatabaseClock:
    return DatabaseClock(world.clock)


async def test_is_unknown_until_the_database_was_asked(database_clock: DatabaseClock) -> None:
    with pytest.raises(RuntimeError, match="not been read"):
        database_clock.now()


async def test_goes_on_from_what_the_database_said_whatever_the_host_believes(
    world: World, database_clock: DatabaseClock
) -> None:
    database_clock.synchronise(world.tasks.now())
    world.advance(12.5)
    world.clock.host_is_off_by = -3600
    assert database_clock.now() == world.now
    database_clock.synchronise(world.ahead(100))
    assert database_clock.now() == world.ahead(100)


async def test_the_reading_that_was_late_by_the_least_counts(world: World, database_clock: DatabaseClock) -> None:
    database_clock.synchronise(world.now)
    world.advance(1)
    database_clock.synchronise(world.ago(0.02))
    assert timedelta(0) <= world.now - database_clock.now() < timedelta(seconds=0.002)
    world.advance(60)
    database_clock.synchronise(world.ago(0.02))
    assert database_clock.now() == world.ago(0.02), "a minute later nobody knows how right it still is"


async def test_a_clock_that_was_set_back_is_believed(world: World, database_clock: DatabaseClock) -> None:
    database_clock.synchronise(world.now)
    database_clock.synchronise(world.ago(5))
    assert database_clock.now() == world.ago(5)
