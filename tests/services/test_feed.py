"""The feed of hints: when it counts as dead, and how seldom it is read."""

import math
from datetime import datetime

import pytest
import structlog

from tests.support.bench import bench
from tests.support.time_travel import World
from watchdog.services.feed import COUNT_SECONDS, LOOKS, HintFeed
from watchdog.store.aio.calls import AsyncPolling
from watchdog.store.polling import PollStore


async def test_silence_is_said_once_and_its_end_too(world: World) -> None:
    async with bench(world) as it:
        feed = HintFeed(it.parts.storage.polling, world.clock, silence_seconds=60, trusted_since=world.now)
        with structlog.testing.capture_logs() as logs:
            world.advance(1000)
            assert not await feed.check()  # no task, no hints
            world.app.start("t", "room", user_count=1)
            for _ in range(13):
                assert not await feed.check()
                world.advance(5)
            assert await feed.check()
            assert await feed.check()
            # ZEGO's answers, too, are words.
            assert not await feed.check(world.clock.monotonic() - 1)
            world.advance(70)
            assert await feed.check()
            world.app.people("room", 1)
            assert not await feed.check()
        assert [event["event"] for event in logs] == ["hints_have_died", "hints_are_back"] * 2


@pytest.mark.parametrize("who", ["application", "ZEGO"])
async def test_a_feed_that_lives_is_seldom_looked_at_and_never_taken_for_dead(world: World, who: str) -> None:
    """A look is ten thousand rows, and while ZEGO answers it says nothing new."""
    looks = 0

    class Counting(PollStore):
        def newest_hint(self) -> datetime | None:
            nonlocal looks
            looks += 1
            return super().newest_hint()

    world.app.start("t", "room", user_count=1)
    last = world.clock.monotonic()
    async with bench(world) as it:
        feed = HintFeed(
            AsyncPolling(it.parts.storage.threads, Counting(world.engine)),
            world.clock,
            silence_seconds=300,
            trusted_since=world.now,
        )
        for second in range(0, 3000, 5):
            assert not await feed.check(world.clock.monotonic() if who == "ZEGO" else -math.inf)
            if second % 290 == 0:
                last = world.clock.monotonic()
                world.app.people("room", 1)
            world.advance(5)
        assert looks == 0 if who == "ZEGO" else LOOKS <= looks <= LOOKS * 3000 / 300
        if who == "application":
            while not await feed.check():
                world.advance(5)
            assert 300 <= world.clock.monotonic() - last <= 300 + 300 / LOOKS + 5


async def test_the_active_tasks_are_counted_now_and_then(world: World) -> None:
    async with bench(world) as it:
        feed = HintFeed(it.parts.storage.polling, world.clock, silence_seconds=60, trusted_since=world.now)
        counted = []
        for number in range(5):
            await feed.check()
            counted.append(feed.active)
            world.app.start(f"t{number}")
            world.advance(5)
        assert COUNT_SECONDS == 15
        assert counted == [0, 1, 1, 1, 4], "at once where there were none"


async def test_the_word_of_the_last_moment_counts(world: World) -> None:
    world.app.start("t", "room", user_count=1)
    async with bench(world) as it:
        feed = HintFeed(it.parts.storage.polling, world.clock, silence_seconds=300, trusted_since=world.now)
        for second in range(0, 305, 5):
            assert not await feed.check(), second
            world.advance(5)
        # The last regular look was five seconds ago.
        world.app.people("room", 1)
        assert not await feed.check()


async def test_where_nothing_is_active_any_more_nothing_has_died(world: World) -> None:
    world.app.start("t", "room")
    async with bench(world) as it:
        feed = HintFeed(it.parts.storage.polling, world.clock, silence_seconds=301, trusted_since=world.now)
        for second in range(0, 305, 5):
            assert not await feed.check(), second
            world.advance(5)
        # They were last counted five seconds ago.
        world.app.release("t")
        assert not await feed.check()
