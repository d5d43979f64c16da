"""SIGHUP, and what a service manager sees: real processes, a real sandbox, a real notify socket."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually
from watchdog.clock import SystemClock
from watchdog.config.settings import Config
from watchdog.core.signing import callback_signature
from watchdog.daemon.http_server import CALLBACK_PATH
from watchdog.daemon.reload import merge
from watchdog.errors import ConfigError
from watchdog.sandbox import Action, Misbehaviour, Sandbox


class Manager:
    """The service manager's end of the notify socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        self.messages: list[dict[str, str]] = []

    def close(self) -> None:
        self._socket.close()

    def heard(self, name: str) -> list[str]:
        """Return what has been said of ``name`` so far."""
        with suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(65536).decode().splitlines()
                self.messages.append(dict(line.split("=", 1) for line in lines))
        return [message[name] for message in self.messages if name in message]

    @property
    def status(self) -> str:
        return (self.heard("STATUS") or [""])[-1]


class Daemon(DaemonProcess):
    """A daemon whose configuration is edited while it runs."""

    def edit(self, **sections: Mapping[str, object]) -> None:
        config = yaml.safe_load(self.config.read_text())
        for section, keys in sections.items():
            config.setdefault(section, {}).update(keys)
        self.config.write_text(yaml.safe_dump(config))

    async def reload(self, expected: str = "reloaded") -> dict[str, Any]:
        """Send SIGHUP, and return the event that says what came of it."""
        before = len(self.events(expected))
        self.send(signal.SIGHUP)
        await eventually(f"it says {expected}: {self.log.read_text()}", lambda: len(self.events(expected)) > before)
        return self.events(expected)[-1]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as one:
        monkeypatch.setenv("NOTIFY_SOCKET", one.address)
        monkeypatch.setenv("WATCHDOG_USEC", "6000000")
        yield one


@pytest.fixture
def application(sqlite_url: str) -> Application:
    return Application(sqlite_url)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox({APP_ID: SECRET}, seed=7, concurrent_tasks=0, max_idle_seconds=30) as running:
        yield running


@pytest.fixture
async def daemon(application: Application, sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Daemon]:
    (tmp_path / "daemon").mkdir()
    one = Daemon(tmp_path / "daemon", application.url, sandbox)
    yield one
    if one.alive:
        await one.end(signal.SIGKILL)


def outcomes(application: Application) -> list[str]:
    return [row["outcome"] for row in application.attempts()]


# What a reload changes


async def test_from_observe_to_enforce_and_back(
    application: Application, sandbox: Sandbox, daemon: Daemon, manager: Manager
) -> None:
    daemon.edit(policy={"mode": "observe"})
    await daemon.start()
    await application.abandon(sandbox, ["first"])
    await eventually("it is noted", lambda: outcomes(application) == ["would_stop"])

    daemon.edit(policy={"mode": "enforce"}, log={"level": "debug"})
    event = await daemon.reload()
    assert (event["changed"], event["mode"]) == (["policy.mode", "log.level"], "enforce")
    (second,) = await application.abandon(sandbox, ["second"])
    await eventually("it is stopped", lambda: application.statuses()[second] == "stopped")
    await eventually("debug lines come", lambda: bool(daemon.events("swept")))
    await eventually("the heartbeat tells others", lambda: modes(application) == ["enforce"])

    daemon.edit(policy={"mode": "observe"}, log={"level": "info"})
    await daemon.reload()
    await application.abandon(sandbox, ["third"])
    # The first one too is stopped once the mode is enforce: observing has left it as it was.
    await eventually("it is noted", lambda: outcomes(application) == ["would_stop", "stopped", "stopped", "would_stop"])
    assert manager.heard("READY") == ["1"] * 3
    assert len(manager.heard("RELOADING")) == len(manager.heard("MONOTONIC_USEC")) == 2
    assert await daemon.end() == 0


def modes(application: Application) -> list[str]:
    return [row["mode"] for row in application.rows("SELECT mode FROM zego_daemons")]


async def test_a_bad_file_changes_nothing_and_says_so(
    application: Application, sandbox: Sandbox, daemon: Daemon, manager: Manager
) -> None:
    daemon.edit(http={"listen": "127.0.0.1:0"})
    await daemon.start()
    good = daemon.config.read_text()

    daemon.edit(policy={"mode": "observe", "grace_second": 3}, stop={"requests_per_second": -1})
    event = await daemon.reload("reload_refused")
    assert "did you mean grace_seconds?" in event["error"]
    assert "stop.requests_per_second" in event["error"]
    await eventually("it is shown", lambda: manager.status.startswith("the new configuration is refused: "))
    assert "grace_second" in manager.status
    assert (await shown(daemon))["config_last_reload_successful"] == 0
    # As before: enforce.
    (task,) = await application.abandon(sandbox, ["room"])
    await eventually("it is stopped", lambda: application.statuses()[task] == "stopped")

    for text in ("policy: [", "", None):
        # Broken, empty (enforce without an app), and not there at all.
        daemon.config.unlink() if text is None else daemon.config.write_text(text)
        await daemon.reload("reload_refused")
    daemon.config.write_text(good)
    assert (await daemon.reload())["changed"] == []
    await eventually("all is well", lambda: manager.status.startswith("enforce: "))
    numbers = await shown(daemon)
    assert numbers["config_last_reload_successful"] == 1
    assert numbers['config_reloads_total{result="ok"}'] == 1
    assert numbers['config_reloads_total{result="refused"}'] == 4
    assert await daemon.end() == 0


async def shown(daemon: DaemonProcess) -> dict[str, float]:
    """Read the metrics of this program, without their prefix."""
    async with httpx.AsyncClient(trust_env=False) as http:
        # A page is made once a second.
        await SystemClock().sleep(1.1)
        text = (await http.get(daemon.events("started")[-1]["http"] + "/metrics")).text
    lines = [line.removeprefix("zego_watchdog_").rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#"]
    return {name: float(value) for name, value in lines}


async def test_secrets_are_rotated_without_a_restart(
    application: Application, sandbox: Sandbox, daemon: Daemon, tmp_path: Path
) -> None:
    callback_secret = tmp_path / "callback_secret"
    callback_secret.write_text("the old one")
    callback_secret.chmod(0o600)
    app = {
        "app_id": APP_ID,
        "server_secret_file": str(daemon.folder / "server_secret"),
        "callback_secret_file": str(callback_secret),
    }
    token = tmp_path / "token"
    token.write_text("the old token")
    token.chmod(0o600)
    daemon.edit(
        zego={"apps": [app]}, http={"listen": "127.0.0.1:0", "token_file": str(token)}, policy={"verify": "off"}
    )
    (daemon.folder / "server_secret").write_text("one that ZEGO does not take")
    await daemon.start()
    url = daemon.events("started")[0]["http"] + CALLBACK_PATH
    (task,) = await application.abandon(sandbox, ["room"])
    await eventually("ZEGO refuses it", lambda: bool(daemon.events("app_blocked")))
    assert await called(url, "the old one") == 200
    assert await called(url, "the new one") == 401
    assert [await scraped(daemon, each) for each in ("the old token", "the new token")] == [200, 401]

    (daemon.folder / "server_secret").write_text(SECRET)
    callback_secret.write_text("the new one")
    token.write_text("the new token")
    assert (await daemon.reload())["changed"] == ["zego.apps (secrets)", "http.token_file"]
    assert await called(url, "the old one") == 401
    assert await called(url, "the new one") == 200
    assert [await scraped(daemon, each) for each in ("the old token", "the new token")] == [401, 200]
    await eventually("the next request is taken", lambda: application.statuses()[task] == "stopped", seconds=20)
    assert daemon.events("needs_a_restart") == []
    assert await daemon.end() == 0
    for secret in ("the old", "the new", SECRET, "one that ZEGO does not take"):
        assert secret not in daemon.log.read_text()


async def scraped(daemon: DaemonProcess, token: str) -> int:
    """Return the status of what somebody with this token is answered."""
    async with httpx.AsyncClient(trust_env=False) as http:
        url = daemon.events("started")[-1]["http"] + "/metrics"
        return (await http.get(url, headers={"Authorization": f"Bearer {token}"})).status_code


async def called(url: str, secret: str) -> int:
    """Send an event that changes nothing, signed with ``secret``; return the answer's status."""
    timestamp, nonce = str(int(SystemClock().time())), os.urandom(4).hex()
    body = {
        "event": "stream_create",
        "appid": str(APP_ID),
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": callback_signature(secret, timestamp, nonce),
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"})
    return answer.status_code


async def test_what_needs_a_restart_is_named_and_stays(
    application: Application, sandbox: Sandbox, daemon: Daemon
) -> None:
    await daemon.start()
    other = {"app_id": 99, "server_secret_file": str(daemon.folder / "server_secret")}
    own = {"app_id": APP_ID, "server_secret_file": str(daemon.folder / "server_secret")}
    daemon.edit(
        database={"url": "sqlite:////nowhere/other.db"},
        http={"listen": "127.0.0.1:1"},
        stop={"concurrency": 1, "requests_per_second": 20},
        zego={"apps": [own, other]},
    )
    event = await daemon.reload()
    assert event["changed"] == ["stop.requests_per_second"]
    await eventually("it says so", lambda: bool(daemon.events("needs_a_restart")))
    (warning,) = daemon.events("needs_a_restart")
    assert warning["keys"] == ["database.url", "zego.apps", "stop.concurrency", "http.listen"]
    (task,) = await application.abandon(sandbox, ["room"])
    await eventually("it works on as before", lambda: application.statuses()[task] == "stopped")
    assert await daemon.end() == 0


async def test_signals_that_come_in_a_burst_are_no_trouble(daemon: Daemon) -> None:
    await daemon.start()
    for _ in range(50):
        daemon.send(signal.SIGHUP)
    await daemon.reload()
    assert await daemon.end() == 0


def configured(**sections: Mapping[str, object]) -> Config:
    app = {"app_id": APP_ID, "server_secret": SECRET}
    return Config.model_validate({"zego": {"apps": [app]}, **sections})


def test_what_does_not_go_with_what_must_stay_is_refused_as_a_whole() -> None:
    old = configured(policy={"verify": "off"}, zego={"rtc_url": "", "apps": configured().zego.apps})
    with pytest.raises(ConfigError, match=r"policy\.verify.*zego\.rtc_url.*restart"):
        merge(old, configured())


def test_every_key_is_either_applied_or_named() -> None:
    changed = configured(
        database={"url": "sqlite:///other.db"},
        policy={"grace_seconds": 40},
        schedule={"poll_seconds": 4, "occupancy_poll_seconds": 0},
        stop={"max_attempts": 3, "occupancy_requests_per_second": 1},
        log={"format": "json", "level": "debug"},
    )
    merged = merge(configured(), changed)
    assert merged.applied == (
        "policy.grace_seconds",
        "schedule.poll_seconds",
        "stop.occupancy_requests_per_second",
        "log.level",
    )
    assert merged.need_restart == (
        "database.url",
        "schedule.occupancy_poll_seconds",
        "stop.max_attempts",
        "log.format",
    )
    assert merged.config.policy.grace_seconds == 40
    assert merged.config.stop.max_attempts == configured().stop.max_attempts
    assert merge(merged.config, merged.config).applied == ()


# What the service manager sees


async def test_the_life_of_a_service(
    application: Application, sandbox: Sandbox, daemon: Daemon, manager: Manager
) -> None:
    daemon.edit(stop={"shutdown_seconds": 19, "request_timeout_seconds": 19, "lease_seconds": 30})
    await daemon.start()
    await eventually("it is ready", lambda: manager.heard("READY") == ["1"])
    sandbox.perform(Misbehaviour(action=Action.STOP, reply_latency_seconds=(18, 18), requests=1))
    await application.abandon(sandbox, ["room"])
    await eventually("the request is in flight", lambda: "sent" in outcomes(application))
    await eventually("it is shown", lambda: ", 1 in hand, 0 stopped since the start" in manager.status)
    await eventually("it is counted", lambda: manager.status.startswith("enforce: 1 active, "))
    pings = len(manager.heard("WATCHDOG"))

    assert await daemon.end(seconds=40) == 0
    assert pings >= 2
    assert manager.heard("STOPPING") == ["1"]
    assert manager.heard("EXTEND_TIMEOUT_USEC").count("10000000") >= 2, "it did not ask for patience while it drained"
    assert manager.heard("STATUS")[-1].startswith("ending")


async def test_a_long_poll_interval_is_shorter_for_an_impatient_manager(daemon: Daemon, manager: Manager) -> None:
    daemon.edit(schedule={"poll_seconds": 20, "occupancy_poll_seconds": 0}, policy={"max_idle_seconds": 150})
    await daemon.start()
    # The patience is 6 seconds.
    await gapless(manager, seconds=9, at_most=5.5)
    assert await daemon.end() == 0


async def test_a_database_that_is_locked_is_no_reason_to_be_ended(
    application: Application, daemon: Daemon, manager: Manager
) -> None:
    await daemon.start()
    await eventually("it is ready", lambda: manager.heard("READY") == ["1"])
    with closing(sqlite3.connect(application.url.removeprefix("sqlite:///"), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        # It must want to write: somebody has left.
        writer.execute("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('1', 'room', 0)")
        writer.execute("COMMIT")
        writer.execute("BEGIN IMMEDIATE")
        await gapless(manager, seconds=12, at_most=5.5)
        assert "the database is away" in manager.status
    await eventually("it is back", lambda: manager.status.startswith("enforce: "))
    assert await daemon.end() == 0


async def gapless(manager: Manager, *, seconds: float, at_most: float) -> None:
    """Watch the pings for so long; fail when one is missing for longer than ``at_most``."""
    clock = SystemClock()
    began = last = clock.monotonic()
    seen = len(manager.heard("WATCHDOG"))
    while (now := clock.monotonic()) - began < seconds:
        if (pings := len(manager.heard("WATCHDOG"))) != seen:
            seen, last = pings, now
        assert now - last < at_most, f"no ping for {now - last:.1f} s; {manager.status}"
        await clock.sleep(0.05)


async def test_a_loop_that_hangs_pings_no_more(daemon: Daemon, manager: Manager) -> None:
    await daemon.start()
    await eventually("it is ready", lambda: manager.heard("READY") == ["1"])
    daemon.send(signal.SIGSTOP)
    try:
        await SystemClock().sleep(0.5)
        pings = len(manager.heard("WATCHDOG"))
        await SystemClock().sleep(3)
        assert len(manager.heard("WATCHDOG")) == pings
    finally:
        daemon.send(signal.SIGCONT)
    assert await daemon.end() == 0


async def test_a_socket_that_is_passed_stands_in_for_http_listen(daemon: Daemon) -> None:
    daemon.edit(http={"listen": "127.0.0.1:1"})
    with socket.create_server(("127.0.0.1", 0)) as listening, daemon.log.open("wb") as log:
        # Connected before anybody is there to accept: it waits.
        early = asyncio.create_task(healthy(listening.getsockname()[1]))
        shell = f'exec 3<&{listening.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec {sys.executable} -m watchdog "$@"'
        daemon.process = await asyncio.create_subprocess_exec(
            *("bash", "-c", shell, "bash", "--config", str(daemon.config), "run"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
            pass_fds=[listening.fileno()],
        )
        assert await early == 200
        (started,) = daemon.events("started")
        assert started["http"].endswith(f":{listening.getsockname()[1]}")
        assert started["http_from"] == "socket unit"
        assert await daemon.end() == 0
        # Ours is still open: who comes now waits for the next daemon.
        with socket.create_connection(listening.getsockname()):
            pass


async def healthy(port: int) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        return (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code


# The start, with a migration


async def test_eight_that_start_at_once_on_an_empty_database_all_come_up(
    database_url: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    daemons = []
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        daemons.append(Daemon(tmp_path / str(number), database_url, sandbox))
        daemons[-1].edit(database={"statement_timeout_seconds": 20})
    try:
        await asyncio.gather(*(daemon.start("--migrate", seconds=120) for daemon in daemons))
        migrated = [event for daemon in daemons for event in daemon.events("migrated")]
        assert {event["before"] for event in migrated} == {None}, "somebody says so who found it done"
        assert [await daemon.end(seconds=60) for daemon in daemons] == [0] * 8
    finally:
        for daemon in daemons:
            if daemon.alive:
                await daemon.end(signal.SIGKILL)


@pytest.mark.parametrize("state", [None, "elsewhere"])
async def test_a_file_is_created_nowhere_but_in_the_state_directory(
    sqlite_url: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    if state is not None:
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / state))
    ran = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchdog", "--config", str(Daemon(tmp_path, sqlite_url, sandbox).config)),
        *("run", "--migrate"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await ran.communicate()
    assert ran.returncode == 78
    assert b"zego-watchdog migrate" in said
    assert not os.path.exists(sqlite_url.removeprefix("sqlite:///"))  # noqa: PTH110, ASYNC240 - a moment's look
