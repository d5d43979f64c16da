"""How long a result is kept, and how often it is made."""

import asyncio
import traceback
from collections.abc import Awaitable

import pytest

from tests.support.clock import SettableClock
from tests.support.store_steps import begun
from watchdog.page.cache import FAILED_SECONDS, LONGEST_SECONDS, SHARE, Cache, Crowded


class Work:
    """Makes 1, 2, 3 …, each after ``seconds`` of the clock; waits for ``go`` if there is one."""

    def __init__(self, clock: SettableClock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.made = 0
        self.go: asyncio.Event | None = None
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.made += 1
        number = self.made
        self.clock.advance(self.seconds)
        if self.go is not None:
            await self.go.wait()
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


async def test_it_is_made_once_for_all_who_ask_at_once(clock: SettableClock) -> None:
    cache, work = Cache[int](clock), Work(clock)
    work.go = asyncio.Event()
    asked = await begun(*(cache.get("key", work, 1.0) for _ in range(100)))
    work.go.set()
    assert await asyncio.gather(*asked) == [1] * 100


async def test_who_leaves_does_not_stop_it_for_the_others(clock: SettableClock) -> None:
    cache, work = Cache[int](clock), Work(clock)
    work.go = asyncio.Event()
    first, second = await begun(cache.get("key", work, 1.0), cache.get("key", work, 1.0))
    first.cancel()
    await begun()
    work.go.set()
    assert await second == 1
    assert work.made == 1


async def test_it_is_kept_for_its_time(clock: SettableClock) -> None:
    cache, work = Cache[int](clock), Work(clock)
    assert [await cache.get("key", work, 3.0), await cache.get("other", work, 3.0)] == [1, 2]
    clock.advance(2.9)
    assert await cache.get("key", work, 3.0) == 1
    clock.advance(0.1)
    assert await cache.get("key", work, 3.0) == 3


@pytest.mark.parametrize(("seconds", "kept"), [(0.5, SHARE * 0.5), (10.0, LONGEST_SECONDS)])
async def test_what_costs_more_is_kept_longer(clock: SettableClock, seconds: float, kept: float) -> None:
    cache, work = Cache[int](clock), Work(clock, seconds)
    await cache.get("key", work, 3.0)
    clock.advance(kept - 0.1)
    assert await cache.get("key", work, 3.0) == 1
    clock.advance(0.1)
    assert await cache.get("key", work, 3.0) == 2


async def test_an_old_one_is_given_while_the_new_one_takes_long(clock: SettableClock) -> None:
    cache, work = Cache[int](clock, stale_seconds=60, patience_seconds=0), Work(clock)
    await cache.get("key", work, 3.0)
    work.go = asyncio.Event()
    clock.advance(59)
    assert await cache.get("key", work, 3.0) == 1
    work.go.set()
    await begun()
    assert await cache.get("key", work, 3.0) == 2
    work.go = asyncio.Event()
    clock.advance(60)
    (asked,) = await begun(cache.get("key", work, 3.0))
    assert not asked.done()
    work.go.set()
    assert await asked == 3


async def test_a_new_one_that_is_quick_is_waited_for(clock: SettableClock) -> None:
    cache, work = Cache[int](clock, stale_seconds=60, patience_seconds=10), Work(clock)
    await cache.get("key", work, 3.0)
    clock.advance(10)
    assert await cache.get("key", work, 3.0) == 2


async def test_a_failure_is_kept_for_a_moment(clock: SettableClock) -> None:
    cache, work = Cache[int](clock, stale_seconds=60), Work(clock)
    work.error = ValueError("away")
    for _ in range(3):
        with pytest.raises(ValueError, match="away"):
            await cache.get("key", work, 30.0)
    assert work.made == 1
    work.error = None
    clock.advance(FAILED_SECONDS)
    assert await cache.get("key", work, 30.0) == 2


async def test_it_keeps_no_more_than_it_may(clock: SettableClock) -> None:
    cache, work = Cache[int](clock, most=2), Work(clock)

    def get(key: str) -> Awaitable[int]:
        return cache.get(key, work, 100.0)

    assert [await get(key) for key in ("a", "b", "a", "c")] == [1, 2, 1, 3]
    assert await get("a") == 1
    assert await get("b") == 4


async def test_closing_waits_for_what_is_being_made(clock: SettableClock) -> None:
    cache, work = Cache[int](clock), Work(clock)
    work.go = asyncio.Event()
    asked, closing = await begun(cache.get("key", work, 1.0), cache.close())
    assert not closing.done()
    work.go.set()
    await closing
    assert await asked == 1


async def test_no_more_than_some_are_in_the_making(clock: SettableClock) -> None:
    cache, work = Cache[int](clock, at_once=2), Work(clock)
    work.go = asyncio.Event()
    asked = await begun(*(cache.get(key, work, 1.0) for key in ("a", "b", "b")))
    with pytest.raises(Crowded):
        await cache.get("c", work, 1.0)
    work.go.set()
    assert await asyncio.gather(*asked) == [1, 2, 2]
    assert await cache.get("c", work, 1.0) == 3


async def test_without_a_share_it_is_fresh_for_its_time_whatever_it_cost(clock: SettableClock) -> None:
    cache = Cache[int](clock, share=0)
    made = 0

    async def slow() -> int:
        nonlocal made
        made += 1
        clock.advance(2)
        return made

    assert await cache.get("key", slow, 1) == 1
    clock.advance(1.1)
    assert await cache.get("key", slow, 1) == 2


async def test_a_kept_error_does_not_grow(clock: SettableClock) -> None:
    cache = Cache[int](clock)

    async def fail() -> int:
        raise ZeroDivisionError

    lengths = []
    for _ in range(5):
        with pytest.raises(ZeroDivisionError) as raised:
            await cache.get("key", fail, 1)
        lengths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert lengths[1] == lengths[-1]
