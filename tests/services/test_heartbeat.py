"""The heartbeat of a daemon: what it learns, and what it passes on."""

from dataclasses import replace

from tests.support.running import SECRET
from tests.support.time_travel import World
from watchdog.config.settings import Config
from watchdog.core.policy import Rule, decide
from watchdog.daemon.lifecycle import Service
from watchdog.wiring import from_config


async def test_while_the_feed_is_dead_older_hints_allow_no_unverified_stop(world: World) -> None:
    config = Config.model_validate(
        {
            "zego": {"apps": [{"app_id": 1, "server_secret": SECRET}], "rtc_url": ""},
            "policy": {"verify": "off", "hint_max_age_seconds": 60},
        }
    )
    service = Service(config, world.clock, world.engine)
    try:
        await service.parts.heartbeat.run_once()
        began = world.now
        world.app.start("t", "room", user_count=1)
        world.app.people("room", 0)
        for _ in range(12):
            await service.parts.heartbeat.run_once()
            world.advance(5)
        assert service.parts.feed.trusted_since == began
        for _ in range(2):
            await service.parts.heartbeat.run_once()
            world.advance(5)
        dead = service.parts.feed.trusted_since
        assert dead == world.ago(5)
        task = world.tasks.newly_empty(1)[1][0]
        rules = from_config.rules(config)
        assert decide(task, None, rules, world.now, watching_since=began).rule is not Rule.HINT_BEFORE_GAP
        fresh = replace(rules, hint_max_age_seconds=3600)
        assert decide(task, None, fresh, world.now, watching_since=dead).rule is Rule.HINT_BEFORE_GAP

        # A hint that comes now is trusted, and the silence is over.
        world.app.people("room", 0)
        world.advance(5)
        await service.parts.heartbeat.run_once()
        assert service.parts.feed.trusted_since == dead
    finally:
        await service.parts.close()
