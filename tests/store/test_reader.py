"""Reading beside the daemon's work: limited in time, and unable to write."""

import pytest
import sqlalchemy as sa

from tests.support.clock import SettableClock
from tests.support.time_travel import World
from watchdog.clock import SystemClock
from watchdog.errors import DatabaseError, TooSlow
from watchdog.store.aio.reader import Reader
from watchdog.store.engine import open_engine, reading, writing

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT max(i) FROM n"


def counting(number: int) -> sa.TextClause:
    return sa.text(COUNT.format(number))


async def test_it_reads(world: World) -> None:
    reader = Reader(world.another_store("reader").engine, world.clock)
    world.app.start("task")

    def names(engine: sa.Engine) -> list[str]:
        with reading(engine) as connection:
            return list(connection.execute(sa.text("SELECT task_id FROM zego_tasks")).scalars())

    assert await reader.call(names) == ["task"]
    await reader.close()


async def test_it_cannot_write(world: World) -> None:
    reader = Reader(world.another_store("reader").engine, world.clock)

    def write(engine: sa.Engine) -> None:
        with reading(engine) as connection:
            connection.execute(sa.text("DELETE FROM zego_tasks"))

    world.app.start("task")
    with pytest.raises(DatabaseError):
        await reader.call(write)
    await reader.close()
    assert world.task("task")


async def test_what_takes_too_long_is_broken_off_and_the_next_is_not(sqlite_world: World) -> None:
    clock = SettableClock()
    reader = Reader(sqlite_world.another_store("reader").engine, clock, read_seconds=1.0)

    def count(engine: sa.Engine) -> int:
        with reading(engine) as connection:
            return int(connection.execute(counting(200_000)).scalar_one())

    assert await reader.call(count) == 200_000
    # Each look at the clock now takes half a second.
    clock.step_seconds = 0.6
    with pytest.raises(TooSlow, match="longer than 1 s"):
        await reader.call(count)
    clock.step_seconds = 0.0
    assert await reader.call(count) == 200_000
    await reader.close()


async def test_postgresql_keeps_the_limit_itself(postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql://", "postgresql+psycopg://")
    reader = Reader(open_engine(url, statement_timeout_seconds=0.1), SystemClock(), read_seconds=0.1)

    def wait(engine: sa.Engine) -> None:
        with reading(engine) as connection:
            connection.execute(sa.text("SELECT pg_sleep(30)"))

    with pytest.raises(TooSlow):
        await reader.call(wait)

    def write(engine: sa.Engine) -> None:
        with writing(engine) as connection:
            connection.execute(sa.text("CREATE TABLE other (i int)"))

    with pytest.raises(DatabaseError, match="read-only"):
        await reader.call(write)
    await reader.close()
