"""docs/roles.sql on a real PostgreSQL: each role can do its work, and nothing beyond it."""

import asyncio
import copy
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from tests.support.running import APP_ID, SECRET, Application, DaemonProcess, eventually
from tests.support.tools import postgresql_programs
from watchdog.cli.app.root import app
from watchdog.cli.checks.findings import Blame, Finding, Level
from watchdog.cli.commands.check import examine
from watchdog.clock import SystemClock
from watchdog.errors import DatabaseError
from watchdog.sandbox import Limits, Sandbox
from watchdog.store import schema
from watchdog.store.contract import VIEWS
from watchdog.store.engine import open_engine
from watchdog.store.reports.privileges import NEEDED, privileges
from watchdog.store.retention import Kept, RetentionStore
from watchdog.store.tables import VERSION_TABLE, metadata
from watchdog.store.tasks import Tasks

DOCS = Path(__file__).parents[2] / "docs"
ROLES = DOCS / "roles.sql"
LOGINS = {"backend": "zego_application", "watchdog": "zego_daemon", "anna": "zego_analyst", "deployer": "zego_owner"}


def psql(url: str, *arguments: str, said: str | None = None) -> None:
    """Run psql until its first failure, which is raised with psql's words."""
    done = subprocess.run(
        [postgresql_programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments],
        check=False,
        capture_output=True,
        input=said,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


class Database:
    """A migrated database, and who may run docs/roles.sql on it."""

    def __init__(self, url: str, manager: str = "postgres") -> None:
        self.url = url
        self.manager = manager
        self.application = Application(self.url_of(manager))

    def grant(self) -> None:
        psql(self.url_of(self.manager), "-f", str(ROLES))

    def url_of(self, login: str) -> str:
        return self.url.replace("postgresql://postgres@", f"postgresql://{login}@")

    def run(self, login: str, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url_of(login), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []


@pytest.fixture
def empty_url(postgresql_url: str) -> Iterator[str]:
    """Yield the address of an empty database; no role of the test stays."""
    yield postgresql_url
    # Roles belong to the whole server: another test creates some of the same names.
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        server.execute(f'ALTER DATABASE "{server.info.dbname}" OWNER TO postgres')
        server.execute("ALTER SCHEMA public OWNER TO postgres")
        for (role,) in server.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384").fetchall():
            server.execute(f'DROP OWNED BY "{role}" CASCADE')
            server.execute(f'DROP ROLE "{role}"')


@pytest.fixture
def database(empty_url: str) -> Database:
    """Return a database on which a superuser has run docs/roles.sql, with one login for each role."""
    database = Database(empty_url)
    database.grant()
    for login, role in LOGINS.items():
        database.application.execute(f"CREATE ROLE {login} LOGIN IN ROLE {role}")
    database.application.execute("ALTER ROLE deployer SET role = zego_owner")
    return database


@pytest.fixture
def managed(empty_url: str) -> Database:
    """Return a database whose owner, and nobody else, may create roles; docs/roles.sql has not been run."""
    with psycopg.connect(empty_url, autocommit=True) as server:
        server.execute("CREATE ROLE manager LOGIN CREATEROLE")
        server.execute(f'ALTER DATABASE "{server.info.dbname}" OWNER TO manager')
        if server.info.server_version < 150000:
            # Later, the schema belongs to the owner of its database.
            server.execute("ALTER SCHEMA public OWNER TO manager")
    return Database(empty_url, "manager")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(
        {APP_ID: SECRET}, seed=7, limits=Limits(start=0, stop=0, user_num=0), concurrent_tasks=0
    ) as running:
        yield running


def some_history(database: Database) -> None:
    database.application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    database.application.execute(
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
        " VALUES ('t', 'asr', 'room', 'empty_room', 'stopped', 'host/1')"
    )


# The analyst


def test_an_analyst_reads_the_history_and_the_ledger(database: Database) -> None:
    some_history(database)
    assert database.run("anna", "SELECT task_id, outcome FROM zego_stop_history") == [("t", "stopped")]
    assert database.run("anna", "SELECT count(*) FROM zego_stop_attempts") == [(1,)]
    assert database.run("anna", "SELECT stops FROM zego_savings") == [(1,)]
    assert database.run("anna", "SELECT count(*) FROM zego_empty_spells") == [(0,)]


TABLES_NOT_FOR_ANALYSTS = sorted(set(metadata.tables) - {"zego_stop_attempts", "zego_empty_spells"})


def test_the_application_takes_a_discovered_task_over(database: Database) -> None:
    """Whatever its search_path."""
    database.run(
        "watchdog", "INSERT INTO zego_tasks (task_id, room_id, app_id, discovered_at) VALUES ('t', 'room', 7, now())"
    )
    insert = "INSERT INTO public.zego_tasks (task_id, room_id) VALUES ('t', 'room')"
    database.run("backend", f"SET search_path = pg_catalog; {insert}")
    assert database.run("postgres", "SELECT app_id, discovered_at FROM zego_tasks") == [(None, None)]
    assert database.run("postgres", "SELECT 1 FROM zego_deleted_tasks") == []


def test_the_application_names_the_user_that_its_task_brings_along(database: Database) -> None:
    insert = "INSERT INTO public.zego_tasks (task_id, room_id, kind, bot_user_id) VALUES ('t', 'room', 'agent', 'a')"
    database.run("backend", insert)
    database.run("backend", "UPDATE public.zego_tasks SET bot_user_id = 'b' WHERE task_id = 't'")
    assert database.run("postgres", "SELECT kind, bot_user_id FROM zego_tasks") == [("agent", "b")]


def test_a_task_is_deleted_and_noted_if_that_is_allowed(database: Database) -> None:
    """Whatever the application's search_path."""
    for revoked, noted in ((False, [("a",)]), (True, [("a",)])):
        if revoked:
            database.run("postgres", "REVOKE ALL ON zego_deleted_tasks FROM zego_application")
        task = "b" if revoked else "a"
        database.run("backend", f"INSERT INTO public.zego_tasks (task_id, room_id) VALUES ('{task}', 'room')")
        database.run("backend", f"SET search_path = pg_catalog; DELETE FROM public.zego_tasks WHERE task_id = '{task}'")
        assert database.run("postgres", "SELECT 1 FROM zego_tasks") == []
        assert database.run("postgres", "SELECT task_id FROM zego_deleted_tasks") == noted


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT 1 FROM {table}" for table in TABLES_NOT_FOR_ANALYSTS),
        "INSERT INTO zego_tasks (task_id, room_id) VALUES ('x', 'x')",
        "UPDATE zego_tasks SET status = 'released'",
        "DELETE FROM zego_stop_attempts",
        "UPDATE zego_stop_attempts SET outcome = 'gone'",
        "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance) VALUES (1, 1, 1, 1, 1, 1)",
        "DELETE FROM zego_stop_history",
        "TRUNCATE zego_stop_attempts",
        "DROP TABLE zego_stop_attempts",
        "DROP VIEW zego_stop_history",
        "ALTER TABLE zego_stop_attempts DISABLE TRIGGER ALL",
        "CREATE INDEX i ON zego_stop_attempts (code)",
        "CREATE TRIGGER t AFTER INSERT ON zego_stop_attempts EXECUTE FUNCTION zego_stop_attempts_append_only()",
        "SELECT 1 FROM zego_stop_attempts FOR UPDATE",
        "CREATE TABLE mine (x integer)",
        "CREATE VIEW mine AS SELECT 1 AS x",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE TEMPORARY TABLE mine (x integer)",
        "CREATE SCHEMA mine",
        "GRANT SELECT ON zego_tasks TO PUBLIC",
        "UPDATE zego_schema_version SET version_num = '9999'",
        "SET ROLE zego_owner",
        "SELECT setval('zego_stop_attempts_id_seq', 1)",
        "COPY zego_stop_attempts TO PROGRAM 'cat'",
    ],
)
def test_an_analyst_can_do_nothing_else(database: Database, statement: str) -> None:
    some_history(database)
    # What is not a table is refused as such, for every role.
    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
    with pytest.raises(refusals[1] if statement == "DELETE FROM zego_stop_history" else refusals[0]):
        database.run("anna", statement)
    assert database.run("postgres", "SELECT count(*) FROM zego_stop_attempts") == [(1,)]


def test_the_commands_that_look_at_the_history_work_for_an_analyst(database: Database, tmp_path: Path) -> None:
    some_history(database)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"database": {"url": database.url_of("anna")}, "policy": {"mode": "observe"}}))
    for words in (["history", "--json"], ["history", "export"], ["history", "export", "--attempts"]):
        result = CliRunner().invoke(app, ["--config", str(file), *words])
        assert result.exit_code == 0, result.output
        assert "stopped" in result.stdout


# The application


def test_the_application_has_its_three_statements_and_the_triggers_work(database: Database) -> None:
    database.run("backend", "INSERT INTO zego_tasks (task_id, room_id, max_idle_seconds) VALUES ('t', 'room', 120)")
    update = "UPDATE zego_tasks SET user_count = {} WHERE room_id = 'room' AND status = 'active'"
    database.run("backend", update.format(3))
    database.run("backend", update.format(0))
    row = "SELECT empty_since IS NOT NULL, last_occupied_at IS NOT NULL, user_count_source FROM zego_tasks"
    assert database.run("backend", row) == [(True, True, "app")]
    database.run("backend", update.format("4, user_count_source = 'api', user_count_at = now()"))
    assert database.run("backend", "SELECT empty_since, vendor_occupied_at IS NULL FROM zego_tasks") == [(None, False)]
    database.run("backend", "UPDATE zego_tasks SET hold_until = now() + interval '1 hour' WHERE task_id = 't'")
    database.run("backend", "UPDATE zego_tasks SET status = 'released' WHERE task_id = 't'")
    assert database.run("backend", "SELECT status, ended_at IS NULL FROM zego_tasks") == [("released", False)]
    database.run("backend", "DELETE FROM zego_tasks WHERE task_id = 't'")
    assert database.run("backend", "SELECT 1 FROM zego_tasks") == []


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT 1 FROM {table}" for table in sorted(metadata.tables) if table not in {"zego_tasks", "zego_events"}),
        "INSERT INTO zego_events (type, task_id, kind, room_id, occurred_at, data) SELECT '', '', '', '', now(), '{}'",
        "UPDATE zego_events SET handled_at = now(), delivered_at = now()",
        "UPDATE zego_events SET wake_at = now()",
        "UPDATE zego_events SET data = '{}'",
        "DELETE FROM zego_events",
        "TRUNCATE zego_events",
        "INSERT INTO zego_event_types (type, webhook) VALUES ('task.stopped', false)",
        "UPDATE zego_tasks SET claimed_by = 'me'",
        "UPDATE zego_tasks SET due_at = now()",
        "UPDATE zego_tasks SET wake_at = now()",
        "UPDATE zego_tasks SET attempts = 0",
        "UPDATE zego_tasks SET empty_since = NULL",
        "UPDATE zego_tasks SET room_id = 'other'",
        "DELETE FROM zego_stop_attempts",
        "TRUNCATE zego_tasks",
        "ALTER TABLE zego_tasks DISABLE TRIGGER ALL",
        "CREATE TABLE mine (x integer)",
    ],
)
def test_the_application_can_do_nothing_else_with_our_tables(database: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run("backend", statement)


def test_the_application_marks_events_that_its_own_statements_wrote(database: Database) -> None:
    """Whatever its search_path, and although it may not write events."""
    database.run("watchdog", "INSERT INTO zego_event_types (type, webhook) VALUES ('task.stopped', false)")
    database.run("backend", "INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    end = "UPDATE public.zego_tasks SET status = 'stopped'"
    database.run("backend", f"SET search_path = pg_catalog; {end}")
    mark = (
        "UPDATE zego_events SET handled_at = now() WHERE id IN"
        " (SELECT id FROM zego_events WHERE handled_at IS NULL FOR UPDATE SKIP LOCKED) RETURNING type, task_id"
    )
    assert database.run("backend", mark) == [("task.stopped", "t")]
    assert database.run("backend", mark) == []


def test_the_applications_statements_write_empty_spells(database: Database) -> None:
    """Whatever its search_path, and although it may not write them."""
    hint = "SET search_path = pg_catalog; UPDATE public.zego_tasks SET user_count = {} WHERE room_id = 'room'"
    for number in range(3):
        database.run("backend", f"INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('{number}', 'room', 0)")
    database.run("backend", hint.format("1"))
    database.run("backend", hint.format("0"))
    database.run("backend", "UPDATE zego_tasks SET status = 'released' WHERE task_id = '1'")
    database.run("backend", "DELETE FROM zego_tasks WHERE task_id = '2'")
    spells = "SELECT task_id, ending FROM zego_empty_spells ORDER BY id"
    assert database.run("watchdog", spells) == [
        *((str(number), "returned") for number in range(3)),
        ("1", "released"),
        ("2", "released"),
    ]
    for statement in ("SELECT 1 FROM zego_empty_spells", "DELETE FROM zego_empty_spells"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("backend", statement)


def test_the_functions_that_write_events_write_into_our_tables_only(database: Database) -> None:
    """They run with their owner's rights, so nobody else may choose the tables that they work on."""
    database.run("postgres", "CREATE SCHEMA theirs AUTHORIZATION backend")
    database.run("backend", "CREATE TABLE theirs.zego_event_types (type text, webhook boolean)")
    database.run("backend", "CREATE TABLE theirs.tasks (LIKE zego_tasks)")
    found = database.run("postgres", "SELECT proname FROM pg_proc WHERE proname LIKE 'zego%' AND prosecdef ORDER BY 1")
    assert [name for (name,) in found] == [
        *("zego_rejoins_told", "zego_stop_attempts_told", "zego_tasks_spell_ended", "zego_tasks_told")
    ]
    for (name,) in found:
        trigger = f"CREATE TRIGGER t AFTER INSERT ON theirs.tasks FOR EACH ROW EXECUTE FUNCTION {name}()"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("backend", trigger)
    # Temporary tables are found last.
    ((name,),) = database.run("postgres", "SELECT current_database()")
    database.run("postgres", f'GRANT TEMPORARY ON DATABASE "{name}" TO backend')
    database.run("backend", "INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    database.run(
        "backend",
        "CREATE TEMPORARY TABLE zego_event_types AS SELECT 'task.stopped' AS type, true AS webhook;"
        " UPDATE zego_tasks SET status = 'stopped'",
    )
    assert database.run("postgres", "SELECT 1 FROM zego_events") == []


# The daemon


async def test_a_daemon_does_all_of_its_work(database: Database, sandbox: Sandbox, tmp_path: Path) -> None:
    # As the application's own role; the tables are there already.
    backend = copy.copy(database.application)
    backend.url = database.url_of("backend")
    daemon = DaemonProcess(tmp_path, database.url_of("watchdog"), sandbox, schedule={"occupancy_poll_seconds": 1})
    await daemon.start()
    try:
        started = await backend.abandon(sandbox, ["one", "two"])
        await eventually(
            "both tasks are stopped",
            lambda: backend.statuses() == dict.fromkeys(started, "stopped"),
        )
    finally:
        assert await daemon.end() == 0
    assert not daemon.events("database_away"), daemon.log.read_text()
    assert "permission denied" not in daemon.log.read_text()
    history = await asyncio.to_thread(database.run, "anna", "SELECT outcome, code FROM zego_stop_history")
    assert history == [("stopped", "0")] * 2


def test_a_daemon_may_prune(database: Database) -> None:
    some_history(database)
    database.run("postgres", "UPDATE zego_tasks SET status = 'stopped', ended_at = '2020-01-01'")
    database.run("postgres", "ALTER TABLE zego_stop_attempts DISABLE TRIGGER ALL")
    database.run("postgres", "UPDATE zego_stop_attempts SET recorded_at = '2020-01-01'")
    engine = open_engine(database.url_of("watchdog"))
    store, before = RetentionStore(engine), Tasks(engine, "").now()
    assert store.prune_tasks("", 100, before, Kept()).tasks == 1
    assert store.prune_attempts(0, 100, before, Kept()).attempts == 1
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (x integer)",
        "CREATE TEMPORARY TABLE mine (x integer)",
        "ALTER TABLE zego_tasks ADD COLUMN x integer",
        "DROP TABLE zego_tasks",
        "TRUNCATE zego_stop_attempts",
        "ALTER TABLE zego_stop_attempts DISABLE TRIGGER ALL",
        "UPDATE zego_schema_version SET version_num = '9999'",
        "CREATE INDEX i ON zego_tasks (app_id)",
        "CREATE TRIGGER t AFTER INSERT ON zego_tasks FOR EACH ROW EXECUTE FUNCTION zego_tasks_told('ended')",
        "SET ROLE zego_owner",
    ],
)
def test_a_daemon_changes_rows_and_no_tables(database: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run("watchdog", statement)


def test_a_daemon_cannot_migrate_and_says_why(database: Database) -> None:
    database.run("postgres", "DROP TABLE zego_schema_version")
    engine = open_engine(database.url_of("watchdog"))
    with pytest.raises(DatabaseError, match="run: GRANT USAGE, CREATE ON SCHEMA public TO watchdog"):
        schema.migrate(engine)
    engine.dispose()


# The owner


def test_the_owner_migrates_and_what_it_makes_is_the_owners(database: Database) -> None:
    tables = (*metadata.tables, VERSION_TABLE)
    for one in (*(f"VIEW {view}" for view in VIEWS), *(f"TABLE {table}" for table in tables)):
        database.run("deployer", f"DROP {one}")
    for function in database.run("deployer", "SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'zego%'"):
        database.run("deployer", f"DROP FUNCTION {function[0]}")
    engine = open_engine(database.url_of("deployer"))
    schema.migrate(engine)
    engine.dispose()
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'zego%'"
    assert database.run("postgres", owners) == [("zego_owner",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run("watchdog", "SELECT 1 FROM zego_tasks")
    database.grant()
    database.run("watchdog", "SELECT 1 FROM zego_tasks")


# The file itself


def test_an_owner_of_the_database_who_may_create_roles_runs_it_all(managed: Database) -> None:
    """As on a managed PostgreSQL, where nobody is a superuser; with the page's own lines."""
    page = (DOCS / "sql-roles.md").read_text(encoding="utf-8")
    (logins,) = re.findall(r"^psql -d calls <<'SQL'\n((?:.*\n)+?)SQL$", page, re.MULTILINE)
    managed.run("manager", "CREATE ROLE backend LOGIN")
    managed.grant()
    psql(managed.url_of("manager"), said=logins)
    some_history(managed)
    assert managed.run("anna", "SELECT outcome FROM zego_stop_history") == [("stopped",)]
    assert managed.run("backend", "UPDATE zego_tasks SET user_count = 1 RETURNING user_count") == [(1,)]
    assert managed.run("watchdog", "DELETE FROM zego_tasks RETURNING task_id") == [("t",)]
    for login, refused in (
        ("anna", "SELECT 1 FROM zego_tasks"),
        ("backend", "UPDATE zego_tasks SET attempts = 0"),
        ("watchdog", "DROP TABLE zego_tasks"),
        ("watchdog", "CREATE TABLE mine (x integer)"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            managed.run(login, refused)
    managed.run("deployer", "ALTER TABLE zego_tasks ADD COLUMN another integer")
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'zego%'"
    assert managed.run("manager", owners) == [("zego_owner",)]
    managed.run("manager", "GRANT SELECT ON zego_tasks TO zego_analyst")
    managed.grant()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        managed.run("anna", "SELECT 1 FROM zego_tasks")


def test_running_it_again_takes_back_what_was_granted_too_much(database: Database) -> None:
    database.run("postgres", "GRANT SELECT ON zego_tasks TO zego_analyst, PUBLIC")
    assert database.run("anna", "SELECT 1 FROM zego_tasks") == []
    database.grant()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run("anna", "SELECT 1 FROM zego_tasks")


def test_tables_of_the_application_are_left_alone(database: Database) -> None:
    database.run("postgres", "CREATE TABLE zego_invoices (x integer)")
    database.run("postgres", "GRANT SELECT ON zego_invoices TO zego_analyst")
    database.grant()
    assert database.run("anna", "SELECT 1 FROM zego_invoices") == []
    assert database.run("postgres", "SELECT tableowner FROM pg_tables WHERE tablename = 'zego_invoices'") == [
        ("postgres",)
    ]


def test_it_names_every_table() -> None:
    (listed,) = re.findall(r"^\\set tables 'ARRAY\[(.*)\]'$", ROLES.read_text(), re.MULTILINE)
    assert set(re.findall(r"zego_\w+", listed)) == set(metadata.tables)
    assert set(NEEDED) == {*metadata.tables, VERSION_TABLE, *VIEWS}


# What check says of it


async def check_as(database: Database, login: str, folder: Path) -> list[Finding]:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"database": {"url": database.url_of(login)}, "policy": {"mode": "observe"}}))
    found = await examine(file, {}, SystemClock(), offline=True)
    return [one for one in found if one.subject == "role"]


async def test_check_knows_the_role(database: Database, tmp_path: Path) -> None:
    (fine,) = await check_as(database, "watchdog", tmp_path)
    assert (fine.level, fine.found) == (Level.OK, "watchdog has every right it needs")
    (warned,) = await check_as(database, "postgres", tmp_path)
    assert warned.level is Level.WARN
    assert "superuser" in warned.found


async def test_check_names_the_rights_that_are_missing(database: Database, tmp_path: Path) -> None:
    database.run("postgres", "REVOKE DELETE, INSERT ON zego_tasks FROM zego_daemon")
    (failed,) = await check_as(database, "watchdog", tmp_path)
    assert (failed.level, failed.blame) == (Level.FAIL, Blame.CONFIGURATION)
    assert failed.found == "watchdog lacks INSERT, DELETE ON zego_tasks"
    assert "GRANT INSERT, DELETE ON zego_tasks TO watchdog" in failed.todo


def test_sqlite_knows_no_roles(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url, must_exist=False)
    assert privileges(engine) is None
    engine.dispose()
