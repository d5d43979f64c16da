"""The findings of ``check``, with real databases and the sandbox as ZEGO."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.operator import Operator
from tests.support.postgresql import Server
from tests.support.running import APP_ID, SECRET, Application, DaemonProcess
from watchdog.cli.checks import database, vendor
from watchdog.cli.checks.database import judge_sqlite
from watchdog.cli.checks.findings import Blame, Finding, Level, exit_code
from watchdog.cli.checks.installation import check_configuration
from watchdog.cli.commands.check import examine
from watchdog.clock import SystemClock
from watchdog.config.settings import Config
from watchdog.network.certificates import tls_context
from watchdog.sandbox import Action, Drop, Limits, Misbehaviour, Sandbox
from watchdog.store import sqlite_file
from watchdog.store.engine import open_engine
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Instance


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox({APP_ID: SECRET}, limits=Limits(user_num=0)) as running:
        yield running


class Setup(Operator):
    """An operator who runs ``check``."""

    async def examine(self, *, offline: bool = False) -> list[Finding]:
        return await examine(self.write(), {}, SystemClock(), offline=offline)


def about(found: list[Finding], subject: str, level: Level | None = None) -> list[Finding]:
    return [one for one in found if one.subject == subject and level in {None, one.level}]


@pytest.fixture
def setup(database_url: str, tmp_path: Path, sandbox: Sandbox) -> Setup:
    Application(database_url)
    return Setup(tmp_path, database_url, sandbox.url)


@pytest.fixture
def sqlite_setup(sqlite_url: str, tmp_path: Path, sandbox: Sandbox) -> Setup:
    Application(sqlite_url)
    return Setup(tmp_path, sqlite_url, sandbox.url)


async def test_what_is_in_order_passes(setup: Setup) -> None:
    found = await setup.examine()
    assert [one for one in found if one.level is Level.FAIL] == []
    assert exit_code(found) == 0
    for subject in ("package", "python", "configuration", "secrets", "policy", "database", "schema", "database clock"):
        assert about(found, subject, Level.OK), subject
    for subject in ("stops", "rooms", "hints"):
        assert about(found, subject, Level.OK), subject
    assert about(found, "daemon", Level.WARN)
    assert all(one.todo for one in found if one.level is not Level.OK)


async def test_zego_is_asked_about_a_room_and_never_told_to_stop_anything(
    sqlite_setup: Setup, sandbox: Sandbox
) -> None:
    # The sandbox's log has every Stop that arrives, whatever comes of it.
    sandbox.perform(Misbehaviour(action=Action.USER_NUM, code=206))
    assert about(await sqlite_setup.examine(), "rooms", Level.WARN)
    assert sandbox.events() == []


async def test_offline_asks_nobody(sqlite_setup: Setup) -> None:
    found = await sqlite_setup.examine(offline=True)
    assert about(found, "rooms") == about(found, "stops") == []
    assert about(found, "database", Level.OK)


async def test_no_secret_is_shown(sqlite_setup: Setup, sandbox: Sandbox) -> None:
    sandbox.perform(Misbehaviour(code=100000005))
    found = await sqlite_setup.examine()
    assert SECRET not in str(found)


async def test_no_configuration_is_one(tmp_path: Path) -> None:
    found = await examine(tmp_path / "missing.yaml", {}, SystemClock(), offline=True)
    (failure,) = about(found, "configuration", Level.FAIL)
    assert "missing.yaml" in failure.found
    assert exit_code(found) == 78
    assert about(found, "python", Level.OK)


async def test_a_secret_that_everybody_may_read_is_a_matter_of_configuration(sqlite_setup: Setup) -> None:
    sqlite_setup.secret.chmod(0o644)
    found = await sqlite_setup.examine()
    (failure,) = about(found, "configuration", Level.FAIL)
    assert "chmod 600" in failure.todo
    assert exit_code(found) == 78


async def test_a_database_that_is_not_there_names_the_command_that_makes_it(sqlite_url: str, tmp_path: Path) -> None:
    found = await Setup(tmp_path, sqlite_url).examine(offline=True)
    (failure,) = about(found, "database", Level.FAIL)
    assert failure.todo == "create it with: zego-watchdog migrate"
    assert not (tmp_path / "watchdog.db").exists()
    assert exit_code(found) == 78


async def test_a_database_of_another_version_is_refused(setup: Setup, database_url: str) -> None:
    Application(database_url).execute("UPDATE zego_schema_version SET version_num = '9999'")
    found = await setup.examine(offline=True)
    (failure,) = about(found, "database", Level.FAIL)
    assert "9999" in failure.found
    assert failure.todo == "install a newer zego-watchdog"
    assert exit_code(found) == 78


async def test_a_server_that_cannot_be_reached_may_be_there_later(tmp_path: Path) -> None:
    found = await Setup(tmp_path, "postgresql://me:hunter22@127.0.0.1:1/db").examine(offline=True)
    assert about(found, "database", Level.FAIL)[0].blame is Blame.REACHABILITY
    assert exit_code(found) == 75
    assert "hunter22" not in str(found)


async def test_zego_out_of_reach_is_told_from_everything_else(sqlite_setup: Setup) -> None:
    sqlite_setup.sections["zego"] |= {"asr_url": "http://127.0.0.1:1/", "rtc_url": "http://127.0.0.1:1/"}
    found = await sqlite_setup.examine()
    assert about(found, "stops", Level.FAIL)
    assert about(found, "rooms", Level.FAIL)
    assert exit_code(found) == 75


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
async def test_a_proxy_is_named_where_the_client_would_use_it(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://me:made-up@proxy.test:3128")
    (found,) = about([await vendor._host("http://zego.test/", "zego.asr_url", 1)], "stops", Level.OK)
    assert found.found == "requests to zego.test go through the proxy proxy.test; not tested"


async def test_a_certificate_is_verified_as_the_client_does(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[object] = []

    async def connect(*_: object, ssl: object, **__: object) -> NoReturn:
        used.append(ssl)
        raise OSError("no more is needed")

    clients = tls_context("ZEGO's")
    monkeypatch.setattr(vendor, "tls_context", lambda _: clients)
    monkeypatch.setattr(asyncio, "open_connection", connect)
    assert (await vendor._host("https://zego.test/", "zego.asr_url", 1)).level is Level.FAIL
    assert used == [clients]


async def test_a_wrong_secret_is_a_matter_of_configuration(sqlite_setup: Setup) -> None:
    sqlite_setup.secret.write_text("another-secret")
    found = await sqlite_setup.examine()
    (failure,) = about(found, "rooms", Level.FAIL)
    assert "100000005" in failure.found
    assert "ServerSecret" in failure.todo
    assert exit_code(found) == 78


@pytest.mark.parametrize(
    ("misbehaviour", "level", "code"),
    [
        (Misbehaviour(code=410000002), Level.FAIL, 78),
        (Misbehaviour(code=410000001), Level.FAIL, 75),
        (Misbehaviour(http_status=503), Level.FAIL, 75),
        (Misbehaviour(drop_reply=Drop.AFTER), Level.FAIL, 75),
        (Misbehaviour(code=206), Level.WARN, 0),
        (Misbehaviour(http_status=429), Level.WARN, 0),
    ],
)
async def test_each_answer_has_its_own_meaning(
    sqlite_setup: Setup, sandbox: Sandbox, misbehaviour: Misbehaviour, level: Level, code: int
) -> None:
    sandbox.perform(misbehaviour)
    found = await sqlite_setup.examine()
    assert [one.level for one in about(found, "rooms")] == [level]
    assert exit_code(found) == code


async def test_a_clock_that_is_off_is_learned_and_told(sqlite_url: str, tmp_path: Path) -> None:
    Application(sqlite_url)
    async with Sandbox({APP_ID: SECRET}, clock_offset_seconds=900) as sandbox:
        found = await Setup(tmp_path, sqlite_url, sandbox.url).examine()
    (warning,) = about(found, "ZEGO's clock", Level.WARN)
    assert "+900 s" in warning.found or "+899 s" in warning.found
    assert about(found, "rooms", Level.OK)
    assert exit_code(found) == 0


async def test_without_a_room_api_nothing_is_asked(sqlite_setup: Setup) -> None:
    sqlite_setup.sections["zego"]["rtc_url"] = ""
    sqlite_setup.sections["policy"] = {"verify": "off"}
    found = await sqlite_setup.examine()
    assert "only the application" in about(found, "rooms", Level.OK)[0].found
    assert exit_code(found) == 0


async def test_a_missing_trigger_is_a_failure(setup: Setup, database_url: str) -> None:
    table = "" if database_url.startswith("sqlite") else " ON zego_tasks"
    Application(database_url).execute(f"DROP TRIGGER zego_tasks_hinted{table}")
    found = await setup.examine(offline=True)
    assert "zego_tasks_hinted" in about(found, "schema", Level.FAIL)[0].found
    assert exit_code(found) == 1


def test_without_a_trigger_the_daemon_does_not_enforce(database_url: str, tmp_path: Path) -> None:
    table = "" if database_url.startswith("sqlite") else " ON zego_tasks"
    Application(database_url).execute(f"DROP TRIGGER zego_tasks_hinted{table}")
    ended = Setup(tmp_path, database_url).types("run")
    assert ended.exit_code == 78
    assert "missing or disabled: trigger zego_tasks_hinted" in ended.stderr


async def test_a_trigger_that_is_switched_off_is_missing(tmp_path: Path, postgresql_url: str) -> None:
    Application(postgresql_url).execute("ALTER TABLE zego_tasks DISABLE TRIGGER zego_tasks_replan")
    found = await Setup(tmp_path, postgresql_url).examine(offline=True)
    assert "zego_tasks_replan" in about(found, "schema", Level.FAIL)[0].found


async def test_a_read_only_database_is_a_failure(tmp_path: Path, postgresql_url: str) -> None:
    application = Application(postgresql_url)
    (row,) = application.rows("SELECT current_database() AS name")
    application.execute(f'ALTER DATABASE "{row["name"]}" SET default_transaction_read_only = on')
    found = await Setup(tmp_path, postgresql_url).examine(offline=True)
    assert "read-only" in about(found, "database", Level.FAIL)[0].found


def test_a_read_replica_is_refused_by_name(own_server: Server, tmp_path: Path) -> None:
    """As a database.url that still leads to the old primary, or to the address for readers."""
    Application(own_server.address)
    with own_server.replica() as address:
        setup = Setup(tmp_path, address)
        found = asyncio.run(setup.examine(offline=True))
        (failure,) = about(found, "database", Level.FAIL)
        assert failure.found == "it is read-only"
        assert failure.todo == "set database.url to the primary server"
        assert exit_code(found) == 78
        ended = setup.types("run")
        assert ended.exit_code == 75
        assert "read-only transaction; set database.url to the primary server" in ended.stderr


async def test_an_application_that_sets_another_journal_mode_is_noticed(sqlite_setup: Setup, tmp_path: Path) -> None:
    found = await sqlite_setup.examine(offline=True)
    assert about(found, "sqlite", Level.WARN)[1:] == []
    with closing(sqlite3.connect(tmp_path / "watchdog.db")) as application:
        assert application.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    found = await sqlite_setup.examine(offline=True)
    (warning,) = [one for one in about(found, "sqlite", Level.WARN) if "journal mode" in one.found]
    assert "PRAGMA journal_mode" in warning.todo
    assert exit_code(found) == 0
    assert "journal mode" not in str(await sqlite_setup.examine(offline=True)), "check itself has set it"


async def test_a_disk_of_several_hosts_is_warned_of(
    sqlite_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("36 35 0:99 / / rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(database, "warnings", lambda file: sqlite_file.warnings(file, mounts))
    found = await sqlite_setup.examine(offline=True)
    (warning,) = [one for one in about(found, "sqlite", Level.WARN) if "nfs4" in one.found]
    assert warning.todo == "use a local disk, or PostgreSQL"
    assert exit_code(found) == 0


async def test_a_file_that_is_no_database_is_a_failure(sqlite_setup: Setup, tmp_path: Path) -> None:
    file = tmp_path / "watchdog.db"
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(b"this is not a database, whatever its name may be " * 100)
    found = await sqlite_setup.examine(offline=True)
    assert about(found, "database", Level.FAIL)
    assert exit_code(found) == 78


async def test_a_daemon_that_is_alive_is_named(setup: Setup, database_url: str) -> None:
    engine = open_engine(database_url)
    Heartbeats(engine).beat(Instance("host-7", "host", 7, "0.1.0", "enforce"), 60, fresh=True)
    engine.dispose()
    found = await setup.examine(offline=True)
    assert "host-7 (enforce)" in about(found, "daemon", Level.OK)[0].found


async def test_daemons_in_different_modes_are_warned_of(setup: Setup, database_url: str) -> None:
    engine = open_engine(database_url)
    for pid, mode in ((7, "enforce"), (8, "observe"), (9, "ended")):
        Heartbeats(engine).beat(Instance(f"host-{pid}", f"host{pid}", pid, "0.1.0", mode), 60, fresh=True)
    engine.dispose()
    (warning,) = about(await setup.examine(offline=True), "daemon", Level.WARN)
    assert "host-8 (observe)" in warning.found
    assert "modes differ" in warning.found
    assert "policy.mode" in warning.todo
    assert "MODES DIFFER: enforce, observe" in (await setup.does("status")).stdout


async def test_rooms_that_zego_refuses_are_named(setup: Setup, database_url: str) -> None:
    application = Application(database_url)
    assert about(await setup.examine(offline=True), "refused rooms") == []
    for task, room, detail in (("1", "odd", "room_refused"), ("2", "odd", "room_refused"), ("3", "r", "unconfirmed")):
        application.execute(
            "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance, detail)"
            f" VALUES ('{task}', 'asr', '{room}', 'empty_room', 'withheld', 'host-1', '{detail}')"
        )
    (warning,) = about(await setup.examine(offline=True), "refused rooms", Level.WARN)
    assert "1 room" in warning.found
    assert "odd" in warning.found
    assert "RoomId" in warning.todo


async def test_windows_that_zego_does_not_have_are_named(setup: Setup, database_url: str) -> None:
    application = Application(database_url)
    assert about(await setup.examine(offline=True), "short windows") == []
    application.old_rows(1)
    (warning,) = about(await setup.examine(offline=True), "short windows", Level.WARN)
    assert "1 active task has a max_idle_seconds below 30" in warning.found
    assert warning.found.endswith(": old-0")
    assert "MaxIdleTime" in warning.todo


async def test_tasks_older_than_the_limit_are_named(sqlite_setup: Setup, sqlite_url: str) -> None:
    application = Application(sqlite_url)
    application.execute("INSERT INTO zego_tasks (task_id, room_id, started_at) VALUES ('aged', 'room', '2026-01-01')")
    assert about(await sqlite_setup.examine(offline=True), "age") == []
    assert sqlite_setup.sees("status")["too_old"] is None
    sqlite_setup.sections["policy"] = {"max_age_seconds": 3600}
    (warning,) = about(await sqlite_setup.examine(offline=True), "age", Level.WARN)
    assert warning.found == "1 task is older than 3600 s (policy.max_age_seconds); the oldest: aged"
    assert "1 task OLDER THAN 1h (policy.on_max_age: alert)" in sqlite_setup.types("status").stdout
    application.execute("UPDATE zego_tasks SET status = 'released'")
    assert len(about(await sqlite_setup.examine(offline=True), "age", Level.OK)) == 1
    assert "no task is older than 1h" in sqlite_setup.types("status").stdout


async def test_hints_that_never_came_or_stopped_coming_are_missed(setup: Setup, database_url: str) -> None:
    application = Application(database_url)
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'r')")
    assert "has ever had" in about(await setup.examine(offline=True), "hints", Level.WARN)[0].found
    application.execute("UPDATE zego_tasks SET user_count = 1, user_count_at = ?", "2026-01-01 00:00:00.000000")
    assert "hours old" in about(await setup.examine(offline=True), "hints", Level.WARN)[0].found
    application.execute("UPDATE zego_tasks SET user_count = 2")
    (fine,) = about(await setup.examine(offline=True), "hints", Level.OK)
    assert fine.found.startswith("the active task has one, the newest ")
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('2', 's')")
    assert "1 of 2" in about(await setup.examine(offline=True), "hints", Level.WARN)[0].found


async def test_a_policy_that_may_surprise_is_warned_of(sqlite_setup: Setup) -> None:
    sqlite_setup.sections["policy"] = {"mode": "observe", "grace_seconds": 110}
    found = await sqlite_setup.examine(offline=True)
    observe, window = about(found, "policy", Level.WARN)
    assert "observe" in observe.found
    assert "120" in window.found
    assert "grace_seconds" in window.todo
    assert exit_code(found) == 0


async def test_without_apps_there_is_a_warning(sqlite_setup: Setup) -> None:
    sqlite_setup.sections["zego"]["apps"] = []
    sqlite_setup.sections["policy"] = {"mode": "observe"}
    assert about(await sqlite_setup.examine(), "secrets", Level.WARN)


async def test_the_namesake_is_noticed(sqlite_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "elsewhere" / "watchdog-6.0.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: watchdog\nVersion: 6.0.0\n")
    monkeypatch.syspath_prepend(str(metadata.parent.parent))
    (warning,) = about(await sqlite_setup.examine(offline=True), "package", Level.WARN)
    assert "6.0.0" in warning.found


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.6.23", Level.OK),
        ("3.7.0", Level.WARN),
        ("3.40.1", Level.WARN),
        ("3.51.2", Level.WARN),
        ("3.51.3", Level.OK),
        ("3.52.0", Level.OK),
        ("4.0.0", Level.OK),
    ],
)
def test_the_versions_of_sqlite_with_the_wal_fault(version: str, level: Level) -> None:
    assert judge_sqlite(version).level is level


def test_the_configuration_outranks_and_reachability_must_be_all_there_is() -> None:
    def failures(*blames: Blame) -> list[Finding]:
        return [Finding(Level.FAIL, "x", "y", "z", blame) for blame in blames]

    assert exit_code([Finding(Level.WARN, "x", "y", "z")]) == 0
    assert exit_code(failures(Blame.REACHABILITY)) == 75
    assert exit_code(failures(Blame.REACHABILITY, Blame.OTHER)) == 1
    assert exit_code(failures(Blame.REACHABILITY, Blame.OTHER, Blame.CONFIGURATION)) == 78


async def test_a_check_changes_nothing(sqlite_setup: Setup, tmp_path: Path) -> None:
    def dump() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "watchdog.db")) as connection:
            return list(connection.iterdump())

    before = dump()
    await sqlite_setup.examine()
    assert dump() == before


def test_it_says_where_answers_wait_for_the_database(tmp_path: Path) -> None:
    def found(folder: str, url: str = "postgresql://me@host/db") -> tuple[str, str]:
        config = Config.model_validate(
            {"database": {"url": url}, "policy": {"mode": "observe"}, "stop": {"journal_directory": folder}}
        )
        (one,) = (one for one in check_configuration(tmp_path, config, {}) if one.subject == "answers")
        return one.level.value, one.found

    assert found(str(tmp_path)) == ("ok", f"while the database is unavailable, answers are kept in {tmp_path}")
    assert found("", f"sqlite:///{tmp_path}/w.db")[1].endswith(str(tmp_path))
    assert found("")[0] == "ok"
    assert "in memory only" in found("")[1]
    assert found(str(tmp_path / "nowhere"))[0] == "warn"


async def test_each_error_of_the_configuration_is_a_failure_with_its_own_step(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "mysql://h/d")
    setup.sections["policy"] = {"grace_secnds": 3, "max_idle_seconds": "x"}
    found = about(await setup.examine(offline=True), "configuration", Level.FAIL)
    assert sorted(one.todo for one in found) == [
        "did you mean grace_seconds?",
        "write a number (default: 150)",
        "write sqlite:///FILE (three slashes, then a path) or postgresql://user@host/database",
    ]
    assert all("\n" not in one.found and "\ufffd" not in one.found for one in found)
    shown = (await setup.does("check", "--offline")).stdout
    assert shown.count("fail  configuration") == 3
    assert "3 failures" in shown


def http_setup(setup: Setup, port: int) -> Setup:
    setup.sections["http"] = {"listen": f"127.0.0.1:{port}"}
    return setup


async def test_a_port_that_another_process_holds_fails(sqlite_setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        setup = http_setup(sqlite_setup, other.getsockname()[1])
        found = await setup.examine(offline=True)
        (failure,) = about(found, "http", Level.FAIL)
        assert "another process listens" in failure.found
        assert exit_code(found) == 78
    assert about(await setup.examine(offline=True), "http", Level.OK)


async def test_an_address_of_another_machine_fails(sqlite_setup: Setup) -> None:
    sqlite_setup.sections["http"] = {"listen": "192.0.2.1:8765"}
    (failure,) = about(await sqlite_setup.examine(offline=True), "http", Level.FAIL)
    assert "an address of this machine" in failure.todo


async def test_a_port_that_a_daemon_of_ours_holds_passes(
    sqlite_setup: Setup, sqlite_url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    daemon = DaemonProcess(tmp_path, sqlite_url, sandbox)
    daemon.config.write_text(daemon.config.read_text() + "http: {listen: '127.0.0.1:0'}\n")
    await daemon.start()
    try:
        port = int(daemon.events("started")[-1]["http"].rpartition(":")[2])
        (finding,) = about(await http_setup(sqlite_setup, port).examine(offline=True), "http")
        assert finding.level is Level.OK
        assert finding.found.endswith("listens there")
    finally:
        assert await daemon.end() == 0
