"""What the service manager is told and when: over a real datagram socket, with a clock set by hand."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.support.clock import SettableClock
from tests.support.notify_socket import Ear
from tests.support.running import APP_ID, SECRET
from tests.support.time_travel import World
from watchdog.config.settings import Config
from watchdog.daemon.lifecycle import Service
from watchdog.daemon.liveness import EXTEND_SECONDS, STATUS_SECONDS, ServiceStatus
from watchdog.daemon.sd_notify import ServiceManager
from watchdog.errors import DatabaseUnavailable


class Calls:
    """The database's calls, as they are said to stand."""

    pending = 0
    answered_at = 0.0


class Scene:
    """A daemon's service status, and the socket that hears it."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.clock = SettableClock()
        self.calls = Calls()
        self.status = "fine"
        manager = ServiceManager(ear.environment | {"WATCHDOG_USEC": "15000000"})
        self.service_status = ServiceStatus(
            manager, self.clock, self.calls, call_seconds=40, status=lambda: self.status
        )

    def sweep(self, *, fails_with: Exception | None = None) -> None:
        with suppress(Exception), self.service_status.sweep():
            if fails_with is not None:
                raise fails_with

    def pings(self, seconds: int) -> int:
        """Let that many seconds pass, tick by tick; return how often it pinged."""
        pings = 0
        for _ in range(seconds):
            self.clock.advance(1)
            self.service_status.tick()
            # Each time: the socket holds ten messages.
            pings += sum("WATCHDOG" in message for message in self.ear.heard())
        return pings


@pytest.fixture
def scene(ear: Ear) -> Scene:
    return Scene(ear)


def test_ready_after_the_first_sweep_that_succeeds_and_once(scene: Scene) -> None:
    assert scene.pings(30) == 0
    scene.ear.heard()
    scene.sweep(fails_with=DatabaseUnavailable("away"))
    assert [set(message) for message in scene.ear.heard()] == [{"WATCHDOG"}]
    scene.clock.advance(5)
    scene.sweep()
    scene.clock.advance(5)
    scene.sweep()
    heard = scene.ear.heard()
    assert [message for message in heard if "READY" in message] == [{"READY": "1", "STATUS": "fine"}]
    assert sum("WATCHDOG" in message for message in heard) == 2


def test_ready_that_was_lost_is_said_again(scene: Scene) -> None:
    manager = ServiceManager(scene.ear.environment)
    while manager.notify(STATUS="x" * 60_000):
        pass
    scene.sweep()
    scene.ear.heard()
    scene.clock.advance(5)
    scene.sweep()
    assert {"READY": "1", "STATUS": "fine"} in scene.ear.heard()


def test_a_database_that_is_away_is_no_reason_to_be_ended(scene: Scene) -> None:
    for _ in range(100):
        scene.sweep(fails_with=DatabaseUnavailable("away"))
        scene.clock.advance(5)
        assert scene.ear.heard() == [{"WATCHDOG": "1"}]


def test_a_sweep_that_breaks_is_no_sign_of_life(scene: Scene) -> None:
    for _ in range(10):
        scene.sweep(fails_with=RuntimeError("a bug"))
        assert scene.pings(1) == 0


def test_sweeps_in_quick_succession_are_not_all_told(scene: Scene) -> None:
    for _ in range(100):
        scene.sweep()
        scene.clock.advance(0.02)
    assert sum("WATCHDOG" in message for message in scene.ear.heard()) <= 3


def test_a_sweep_that_waits_for_nothing_gets_no_ping(scene: Scene) -> None:
    with scene.service_status.sweep():
        assert scene.pings(60) <= 1


def test_a_sweep_behind_others_that_time_out_lives_and_one_behind_a_dead_call_does_not(scene: Scene) -> None:
    with scene.service_status.sweep():
        scene.calls.pending = 20
        for _ in range(20):
            # One after the other comes back, five seconds each.
            assert scene.pings(5) == 5
            scene.calls.pending -= 1
            scene.calls.answered_at = scene.clock.monotonic()
        scene.calls.pending = 1
        assert 35 <= scene.pings(60) <= 41
        assert scene.pings(600) == 0


def test_no_sweep_lasts_for_ever_whatever_it_waits_for(scene: Scene) -> None:
    with scene.service_status.sweep():
        scene.calls.pending = 1
        for _ in range(700):
            scene.calls.answered_at = scene.clock.monotonic()
            scene.pings(1)
        assert scene.pings(10) == 0


def test_the_status_is_said_when_it_has_changed_and_not_too_often(scene: Scene) -> None:
    scene.sweep()
    scene.ear.heard()
    said = []
    for second in range(60):
        scene.status = f"second {second}"
        scene.clock.advance(1)
        scene.service_status.tick()
        said += [message for message in scene.ear.heard() if "STATUS" in message]
    assert 10 <= len(said) <= 60 / STATUS_SECONDS
    scene.clock.advance(30)
    scene.service_status.tick()
    scene.ear.heard()
    scene.pings(30)
    assert scene.ear.heard() == []


def test_a_reload_is_announced_with_its_moment_and_ended_with_ready(scene: Scene) -> None:
    scene.sweep()
    scene.ear.heard()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    scene.service_status.reloading()
    # A sweep in between is no end of it.
    scene.sweep()
    scene.status = "the new configuration is refused"
    scene.service_status.reloaded()
    first, second = scene.ear.heard()
    assert first["RELOADING"] == "1"
    assert before <= int(first["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert second == {"READY": "1", "STATUS": "the new configuration is refused"}


def test_ending_is_announced_and_patience_asked_for(scene: Scene) -> None:
    scene.service_status.stopping()
    scene.service_status.extend()
    first, second = scene.ear.heard()
    assert first["STOPPING"] == "1"
    assert second == {"EXTEND_TIMEOUT_USEC": str(int(EXTEND_SECONDS * 1_000_000))}


def test_sweeps_are_asked_for_often_enough(scene: Scene) -> None:
    assert scene.service_status.sweep_seconds == 5


# The daemon's side


@pytest.fixture
async def service(ear: Ear, sqlite_world: World) -> AsyncIterator[Service]:
    config = Config.model_validate({"zego": {"apps": [{"app_id": APP_ID, "server_secret": SECRET}]}})
    one = Service(config, sqlite_world.clock, sqlite_world.engine, ServiceManager(ear.environment))
    yield one
    await one.parts.close()


async def test_the_status_follows_what_the_jobs_do(ear: Ear, sqlite_world: World, service: Service) -> None:
    await service._sweep_job._run()
    (ready,) = (message for message in ear.heard() if "READY" in message)
    assert "none due" in ready["STATUS"]
    sqlite_world.app.start("t", "room", user_count=1)
    sqlite_world.app.people("room", 0)
    sqlite_world.advance(STATUS_SECONDS)
    await service._sweep_job._run()
    (message,) = (message for message in ear.heard() if "STATUS" in message)
    assert "next due in" in message["STATUS"]


async def test_a_sweep_that_waits_for_the_database_is_seen_to_live(
    ear: Ear, sqlite_world: World, service: Service
) -> None:
    with service.status.sweep():
        service.parts.storage.threads.pending = 1
        sqlite_world.advance(2)
        service._jobs.look()
        assert {"WATCHDOG": "1"} in ear.heard()
