"""What ``check`` says of events and of the webhook."""

from datetime import timedelta

from pydantic import SecretStr

from tests.support.time_travel import World
from watchdog.cli.checks.events import check_events, judge_events
from watchdog.cli.checks.findings import Finding, Level
from watchdog.config.policy_settings import PolicyConfig
from watchdog.config.settings import Config, NotifyConfig
from watchdog.core.model import Mode
from watchdog.store.events import EventStore
from watchdog.store.records import EventCounts, Instance
from watchdog.store.reports.events import chosen_types, count_events
from watchdog.store.reports.health import all_daemons

SECRET = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def config_of(notify: NotifyConfig) -> Config:
    return Config(policy=PolicyConfig(mode=Mode.OBSERVE), notify=notify)


def found(world: World, notify: NotifyConfig) -> list[Finding]:
    types, counts, daemons = chosen_types(world.engine), count_events(world.engine), all_daemons(world.engine)[1]
    return list(check_events(config_of(notify), types, counts, daemons))


HOOK = NotifyConfig(url=SecretStr("https://h.test/in?token=x"), secret=SECRET, events=("task.gone", "room.rejoined"))


def test_without_events_there_is_nothing_to_say(world: World) -> None:
    assert found(world, NotifyConfig()) == []


def test_what_is_written_and_where_it_goes(world: World) -> None:
    (only,) = found(world, NotifyConfig(events=("all",)))
    assert (only.level, only.found) == (
        Level.OK,
        "7 types are written to zego_events; notify.url is empty: no webhook",
    )
    (hook,) = found(world, HOOK)
    assert hook.found == "2 types are written to zego_events and sent to h.test, signed with one secret"


def test_a_daemon_with_another_configuration(world: World) -> None:
    store = EventStore(world.engine, "host/1")
    store.choose({"task.gone": True, "task.failed": True})
    assert len(found(world, HOOK)) == 1, "no daemon is alive: the next one writes its choice"
    world.heartbeats.beat(Instance("host/1", "host", 1, "0", "enforce"), 60, fresh=True)
    _, differs = found(world, HOOK)
    assert differs.level is Level.WARN
    assert differs.found.endswith("than this configuration: room.rejoined, task.failed")
    store.choose({"task.gone": True, "room.rejoined": True})
    assert len(found(world, HOOK)) == 1


def test_events_that_wait_or_were_given_up(world: World) -> None:
    def judged(pending: int, age_seconds: float, undelivered: int) -> list[str]:
        oldest = world.now - timedelta(seconds=age_seconds) if pending else None
        counts = EventCounts(now=world.now, pending=pending, oldest_pending_at=oldest, undelivered=undelivered)
        return [finding.found for finding in judge_events(counts)]

    assert judged(0, 0, 0) == judged(5, 800, 0) == []
    assert judged(5, 1800, 2) == [
        "the oldest of 5 events that wait for the webhook is 30 minutes old",
        "the delivery of 2 events was given up",
    ]
