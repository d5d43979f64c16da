"""No secret shows up: secrets are planted, everything is made to fail, and then they are searched for."""

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.support.running import APP_ID
from tests.system.machine import Machine, until, wait
from tests.system.service import DATABASE, UNIT, configuration, configure, install
from tests.system.vendor import CALLBACK_SECRET, SERVER_SECRET, Backend, Vendor, fetch

WRONG_SECRET: Final = "planted-and-wrong-secret-19ab"
TOKEN: Final = "planted-metrics-token-c06f"
PASSWORD: Final = "planted-database-password-e3d2"
INLINE: Final = "planted-inline-secret-8b44"
SECRETS: Final = (SERVER_SECRET, CALLBACK_SECRET, WRONG_SECRET, TOKEN, PASSWORD, INLINE)
DECOY: Final = "planted-decoy-0f9d"

LISTEN: Final = "127.0.0.1:8765"
CALLBACKS: Final = f"http://{LISTEN}/callbacks/zego"
PG: Final = "zego-watchdog@pg.service"


def settings() -> str:
    """Return a configuration with everything in it that is secret."""
    return configuration(
        http={"listen": LISTEN, "token_file": "${CREDENTIALS_DIRECTORY}/zego_metrics_token"},
        log={"level": "debug"},
    )


@pytest.fixture(scope="module")
def backend(machine: Machine, vendor: Vendor, package: Path) -> Backend:
    """Run the service with all its secrets, beside one that cannot reach its PostgreSQL."""
    install(machine, package)
    machine.systemctl("stop", UNIT)
    configure(machine, settings())
    machine.write("/etc/zego-watchdog/secrets/metrics_token", TOKEN, 0o600)
    machine.systemctl("start", UNIT)
    return Backend(vendor, machine.path(DATABASE))


class Search:
    """Everything that somebody might read, collected over and over; and where in it a text is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._heard: dict[str, bytes] = {}

    def hear(self, place: str, text: str) -> None:
        """Keep what a command, or an answer, has said."""
        self._heard[place] = self._heard.get(place, b"") + text.encode()

    def run(self, *command: str) -> None:
        done = self._machine.run(*command, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        self.hear("commands", done.stdout + done.stderr)

    def of_processes(self) -> None:
        """Look at the processes there are now."""
        for name in ("cmdline", "environ"):
            self.hear(
                name, self._machine.run("sh", "-c", f"cat /proc/[0-9]*/{name} 2>/dev/null | tr '\\0' '\\n'").stdout
            )
        self.hear("systemctl show", self._machine.systemctl("show", UNIT, PG))

    def places(self, text: str) -> set[str]:
        """Return where ``text`` is, as it is or in base64."""
        needles = (text.encode(), base64.b64encode(text.encode()).rstrip(b"=")[:-1])
        return {place for place, content in self._everything() if any(needle in content for needle in needles)}

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        yield from self._heard.items()
        # With all fields, of all units.
        yield "journal", self._machine.run("journalctl", "--no-pager", "--output=json", "--all").stdout.encode()
        for folder in ("var/lib/private", "var/log", "var/tmp"):
            for path in sorted((self._machine.tree / folder).rglob("*")):
                if path.is_file() and "journal" not in path.parts:
                    yield f"{folder}: {path.name}", path.read_bytes()


@pytest.fixture(scope="module")
def search(machine: Machine) -> Search:
    return Search(machine)


def test_the_search_finds_what_is_there(machine: Machine, backend: Backend, search: Search) -> None:
    machine.run("systemd-cat", "--identifier=zego-watchdog", stdin=f"here it is: {DECOY}")
    backend.database.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES (?, 'decoy')", DECOY)
    machine.run("systemd-run", "--unit=decoy", f"--setenv=DECOY={DECOY}", "sleep", "infinity")
    machine.run("systemd-run", "--unit=decoy-argument", "sh", "-c", "sleep infinity; exit 1", DECOY)
    machine.write("/var/log/decoy.log", base64.b64encode(DECOY.encode()).decode())
    search.run("zego-watchdog", "explain", DECOY)
    until("the journal has it", lambda: "journal" in search.places(DECOY))
    search.of_processes()
    found = search.places(DECOY)
    assert {"journal", "commands", "cmdline", "environ", "var/log: decoy.log"} <= found
    assert any(place.startswith("var/lib/private: zego-watchdog.db") for place in found)
    machine.systemctl("stop", "decoy.service", "decoy-argument.service")


@pytest.mark.parametrize(
    "how",
    [
        {"http_status": 502},
        {"http_status": 500, "processed": True},
        {"body": "cut"},
        {"body": "html"},
        {"code": 206},
        {"drop_reply": "before"},
        {"drop_reply": "after"},
        {"request_id": "long"},
    ],
    ids=json.dumps,
)
def test_zego_misbehaves(backend: Backend, how: dict[str, object]) -> None:
    """In each of these ways, when asked who is there, and when told to stop."""
    backend.vendor.tell("misbehave", requests=1, action="StopRealtimeASRTask", **how)
    backend.vendor.tell("misbehave", requests=1, action="DescribeUserNum", **how)
    # Each misbehaviour is for one request, and nothing is stopped before both were met.
    backend.expect_stopped(backend.abandon(), seconds=60)


def test_callbacks_and_scrapes_are_refused(backend: Backend, search: Search) -> None:
    forged = {"event": "room_login", "appid": str(APP_ID), "timestamp": "1", "nonce": "1", "signature": "0" * 40}
    for body in (json.dumps(forged), "{", "[]", "x" * 70_000, json.dumps({**forged, "signature": CALLBACK_SECRET})):
        status, text = fetch(CALLBACKS, body.encode(), headers={"Content-Type": "application/json"})
        assert status >= 400
        search.hear("answers", text)
    for given in (f"Bearer {TOKEN}-and-more", f"Basic {TOKEN}", "Bearer x"):
        status, text = fetch(f"http://{LISTEN}/metrics", headers={"Authorization": given})
        assert status == 401
        search.hear("answers", text)
    status, text = fetch(f"http://{LISTEN}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert status == 200
    assert "zego_watchdog" in text
    search.hear("metrics", text)
    assert backend.started


def test_the_database_fails(machine: Machine, backend: Backend, search: Search) -> None:
    (task,) = backend.abandon()
    with closing(sqlite3.connect(machine.path(DATABASE), isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        search.run("zego-watchdog", "hold", task, "--for", "1m")
        wait(8)
        connection.execute("ROLLBACK")
    until("it goes on", lambda: backend.outcomes(task))
    # A PostgreSQL that is not there.
    text = configuration(
        database={
            "url": "postgresql://watchdog@127.0.0.1:1/zego",
            "password_file": "${CREDENTIALS_DIRECTORY}/zego_password",
        }
    )
    configure(machine, text, instance="pg")
    machine.write("/etc/zego-watchdog/pg.secrets/password", PASSWORD, 0o600)
    machine.systemctl("start", "--no-block", PG)
    until("it has failed", lambda: "127.0.0.1" in machine.journal(PG))
    for command in ("check", "status", "migrate"):
        search.run("zego-watchdog", "--config", "/etc/zego-watchdog/pg.yaml", command)
    search.of_processes()
    machine.systemctl("stop", PG)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(
            "server_secret_file: ${CREDENTIALS_DIRECTORY}/zego_server_secret", f"server_secret: {INLINE}"
        ),
        lambda text: text.replace(
            "server_secret_file: ${CREDENTIALS_DIRECTORY}/zego_server_secret", f"server_secret: {INLINE} ]: {{"
        ),
        lambda text: text.replace("zego_server_secret", f"zego_server_secret\n    secret: {INLINE}"),
        lambda text: text + f"\nserver_secret: '{INLINE}'\n",
        lambda text: text.replace("sqlite:///", f"postgresql://user:{INLINE}@ [", 1),
    ],
    ids=["inline", "broken line", "unknown key", "unknown section", "broken address"],
)
def test_a_secret_is_in_the_wrong_place(
    machine: Machine, backend: Backend, search: Search, spoil: Callable[[str], str]
) -> None:
    """Refused on reload and on every command, without showing what it was."""
    bad = spoil(settings())
    assert INLINE in bad
    so_far = len(machine.journal(UNIT))
    machine.write("/etc/zego-watchdog/config.yaml", bad)
    machine.systemctl("reload", UNIT)
    until("it is refused", lambda: "refused" in machine.journal(UNIT)[so_far:])
    for command in ("check", "status", "tasks"):
        search.run("zego-watchdog", command)
    machine.write("/etc/zego-watchdog/config.yaml", settings())
    assert backend.started


def test_the_secret_is_wrong(machine: Machine, backend: Backend, search: Search) -> None:
    machine.write("/etc/zego-watchdog/secrets/server_secret", WRONG_SECRET, 0o600)
    machine.systemctl("restart", UNIT)
    (task,) = backend.abandon()
    until("ZEGO refuses", lambda: "100000005" in machine.journal(UNIT))
    for command in (("check",), ("explain", task), ("history", "--json"), ("status", "--json"), ("stop", task)):
        search.run("zego-watchdog", *command)


def test_it_crashes(machine: Machine, search: Search) -> None:
    # After everything that has failed.
    status, text = fetch(f"http://{LISTEN}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (status, "zego_watchdog_apps_blocked 1.0" in text) == (200, True)
    search.hear("metrics", text)
    search.of_processes()
    machine.kill(UNIT, "SIGABRT")
    until("it left a trace", lambda: "Fatal Python error: Aborted" in machine.journal(UNIT))


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_anywhere(search: Search, secret: str) -> None:
    assert search.places("zego_watchdog") >= {"metrics"}
    assert search.places(secret) == set()
