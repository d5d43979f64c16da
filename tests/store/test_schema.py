"""The migrations: what they build, how they may be run, and that the plans of the store's statements use it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from watchdog import SCHEMA_VERSION
from watchdog.core.model import Status
from watchdog.core.outcomes import TASK_BECOMES
from watchdog.errors import ConfigError, DatabaseError, DatabaseUnavailable, SchemaMismatch, StatementRefused
from watchdog.shipped import shipped
from watchdog.store import schema
from watchdog.store.contract import VIEWS
from watchdog.store.engine import open_engine, reading, writing
from watchdog.store.reports.situation import short_windows
from watchdog.store.tables import REPLACED_COLUMNS, REPLACED_TABLE, VERSION_TABLE, metadata

VIEW_COLUMNS = [
    *("task_id", "room_id", "app_id", "kind", "reason", "outcome", "code", "message", "request_id", "attempts"),
    *("empty_since", "due_at", "stopped_at", "auto_stop_at", "reaction_seconds", "seconds_before_auto_stop"),
    "rejoined_after_seconds",
]
SAVINGS_COLUMNS = [
    *("day", "kind", "app_id", "stops", "slot_seconds_freed", "seconds_before_auto_stop", "no_auto_stop", "missed"),
    *("spared", "back_within_60", "back_within_600"),
]
INDEXES = {
    "zego_tasks": {
        "zego_tasks_newly_empty": ["empty_since"],
        "zego_tasks_wake": ["wake_at"],
        "zego_tasks_room": ["room_id"],
        "zego_tasks_asked": ["asked_at"],
        "zego_tasks_bots": ["room_id", "ended_at"],
    },
    "zego_stop_attempts": {"zego_stop_attempts_task": ["task_id", "id"], "zego_stop_attempts_in_flight": ["sent_at"]},
    "zego_daemons": {},
    "zego_pace": {},
    "zego_room_sessions": {"zego_room_sessions_seen_at": ["seen_at"]},
    "zego_room_users": {},
    "zego_event_types": {},
    "zego_events": {
        "zego_events_task": ["task_id"],
        "zego_events_unhandled": ["id"],
        "zego_events_pending": ["wake_at"],
        "zego_events_undelivered": ["id"],
    },
    "zego_empty_spells": {"zego_empty_spells_task": ["task_id", "empty_since"]},
    "zego_deleted_tasks": {"zego_deleted_tasks_at": ["deleted_at"]},
    "zego_callbacks_seen": {"zego_callbacks_seen_at": ["seen_at"]},
    "zego_rejoins": {
        "zego_rejoins_watched": ["watch_until"],
        "zego_rejoins_asked": ["asked_at"],
        "zego_rejoins_room": ["room_id"],
    },
}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """An engine on an empty database."""
    engine = open_engine(database_url, must_exist=False)
    yield engine
    engine.dispose()


def objects(engine: sa.Engine) -> set[str]:
    with reading(engine) as connection:
        found = sa.inspect(connection)
        return {*found.get_table_names(), *found.get_view_names()}


def to_first_revision(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


class TestMigrate:
    def test_builds_what_the_code_declares(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        with reading(engine) as connection:
            found = sa.inspect(connection)
            for table in metadata.sorted_tables:
                keys = found.get_pk_constraint(table.name)["constrained_columns"]
                assert keys == [column.name for column in table.primary_key]
                assert [
                    (
                        column["name"],
                        column["type"].compile(engine.dialect),
                        column["nullable"] and column["name"] not in keys,
                    )
                    for column in found.get_columns(table.name)
                ] == [(column.name, column.type.compile(engine.dialect), column.nullable) for column in table.columns]
                defaults = {column["name"] for column in found.get_columns(table.name) if column["default"] is not None}
                assert defaults == {column.name for column in table.columns if column.server_default is not None}
                indexes = {index["name"]: index["column_names"] for index in found.get_indexes(table.name)}
                assert indexes == INDEXES[table.name]
            assert [column["name"] for column in found.get_columns("zego_stop_history")] == VIEW_COLUMNS
            assert [column["name"] for column in found.get_columns("zego_savings")] == SAVINGS_COLUMNS
            only = {REPLACED_TABLE} if engine.dialect.name == "sqlite" else set()
            for name in only:
                assert {column["name"] for column in found.get_columns(name)} == REPLACED_COLUMNS
        assert objects(engine) == {*metadata.tables, *only, *VIEWS, VERSION_TABLE}

    def test_the_program_is_written_for_the_last_revision(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(shipped("migrations")))
        assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION

    def test_again_is_nothing(self, engine: sa.Engine) -> None:
        assert schema.version(engine) is None
        assert schema.migrate(engine) == (None, SCHEMA_VERSION)
        with writing(engine) as connection:
            connection.execute(sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')"))
        assert schema.migrate(engine) == (SCHEMA_VERSION, SCHEMA_VERSION)
        assert schema.version(engine) == SCHEMA_VERSION
        with reading(engine) as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM zego_tasks")).scalar() == 1

    def test_lives_beside_the_applications_own_tables(self, engine: sa.Engine) -> None:
        with writing(engine) as connection:
            connection.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
            connection.execute(sa.text("INSERT INTO alembic_version VALUES ('the application''s')"))
            connection.execute(sa.text("CREATE TABLE rooms (id text PRIMARY KEY)"))
        schema.migrate(engine)
        assert {"alembic_version", "rooms", "zego_tasks"} <= objects(engine)
        with reading(engine) as connection:
            assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [
                "the application's"
            ]

    def test_a_role_that_may_create_nothing_is_told_the_statement(self, postgresql_url: str) -> None:
        """As every role but the owner's from PostgreSQL 15 on; and where it may not even use the schema."""
        role = f"Odd-role {sa.make_url(postgresql_url).database}"
        with psycopg.connect(postgresql_url, autocommit=True) as owner:
            owner.execute(f'CREATE ROLE "{role}" LOGIN')
            owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            engine = open_engine(sa.make_url(postgresql_url).set(username=role).render_as_string(hide_password=False))
            for prepare in ("SELECT", f'GRANT USAGE ON SCHEMA public TO "{role}"'):
                owner.execute(prepare.encode())
                with pytest.raises(StatementRefused, match="may not create tables in schema public; ") as caught:
                    schema.migrate(engine)
                statement = str(caught.value).partition("run: ")[2]
                assert statement == f'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"'
            owner.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"')
            assert schema.migrate(engine) == (None, SCHEMA_VERSION)
            owner.execute(f'REVOKE CREATE ON SCHEMA public FROM "{role}"')
            assert schema.migrate(engine) == (SCHEMA_VERSION, SCHEMA_VERSION)
            engine.dispose()
            owner.execute(f'DROP OWNED BY "{role}"')
            owner.execute(f'DROP ROLE "{role}"')

    def test_a_search_path_that_leads_nowhere(self, postgresql_url: str) -> None:
        engine = open_engine(f"{postgresql_url}&options=-csearch_path%3Dnowhere")
        with pytest.raises(ConfigError, match="search_path is nowhere, and there is no such schema; create it"):
            schema.migrate(engine)
        engine.dispose()

    def test_a_role_that_does_not_own_the_tables_is_told_so(self, postgresql_url: str) -> None:
        role = f"guest_{sa.make_url(postgresql_url).database}"
        with psycopg.connect(postgresql_url, autocommit=True) as owner:
            first = open_engine(postgresql_url)
            to_first_revision(first)
            first.dispose()
            owner.execute(f"CREATE ROLE {role} LOGIN")
            owner.execute(f"GRANT ALL ON SCHEMA public TO {role}")
            owner.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            engine = open_engine(sa.make_url(postgresql_url).set(username=role).render_as_string(hide_password=False))
            with pytest.raises(StatementRefused, match=r"must be owner of .*; run it as the role that owns the tables"):
                schema.migrate(engine)
            engine.dispose()
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")

    def test_an_old_server_is_refused(self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(schema, "POSTGRESQL_MINIMUM", 99)
        engine = open_engine(postgresql_url)
        with pytest.raises(ConfigError, match=r"PostgreSQL [\d.]+ is too old: 99 or later is needed"):
            schema.migrate(engine)
        assert objects(engine) == set()
        engine.dispose()

    def test_half_a_migration_leaves_nothing(self, engine: sa.Engine) -> None:
        run(engine, "CREATE TABLE rooms (id integer)", "CREATE INDEX zego_rejoins_room ON rooms (id)")
        before = objects(engine)
        with pytest.raises(DatabaseError, match="already exists"):
            schema.migrate(engine)
        assert objects(engine) == before
        assert schema.version(engine) is None
        run(engine, "DROP INDEX zego_rejoins_room")
        assert schema.migrate(engine) == (None, SCHEMA_VERSION)

    def test_by_several_threads_at_once(self, database_url: str) -> None:
        def migrate(_number: int) -> str:
            engine = open_engine(database_url, must_exist=False)
            try:
                return schema.migrate(engine)[1]
            finally:
                engine.dispose()

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(migrate, range(4))) == [SCHEMA_VERSION] * 4

    def test_by_several_processes_at_once(self, database_url: str) -> None:
        program = (
            "import sys; from watchdog.store import schema; from watchdog.store.engine import open_engine;"
            " sys.stdin.readline();"
            " print(*schema.migrate(open_engine(sys.argv[1], must_exist=False)))"
        )
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program, database_url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=60) for process in running]
        assert [error for _, error in ended] == [""] * 4
        assert {output.split()[1] for output, _ in ended} == {SCHEMA_VERSION}
        engine = open_engine(database_url)
        schema.require(engine)
        engine.dispose()

    def test_it_may_take_longer_than_a_statement_of_the_daemons(self, postgresql_url: str) -> None:
        """As an index on a large table does; whoever migrates meanwhile waits as long."""
        with psycopg.connect(postgresql_url, autocommit=True) as superuser:
            superuser.execute(
                "CREATE FUNCTION dawdle() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); END'"
            )
            superuser.execute(
                "CREATE EVENT TRIGGER dawdle ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION dawdle()"
            )

        def migrate(_number: int) -> tuple[str | None, str]:
            engine = open_engine(postgresql_url, statement_timeout_seconds=1)
            try:
                return schema.migrate(engine)
            finally:
                engine.dispose()

        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(migrate, range(2))) == [(None, SCHEMA_VERSION)] * 2

    def test_it_does_not_stand_in_the_applications_way(self, postgresql_url: str) -> None:
        """A table that somebody reads for long is not waited for: all others would have to wait behind us."""
        engine = open_engine(postgresql_url, statement_timeout_seconds=0.5)
        to_first_revision(engine)
        with psycopg.connect(postgresql_url) as reader:
            reader.execute("SELECT * FROM zego_tasks")
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                schema.migrate(engine)
        assert schema.migrate(engine) == ("0001", SCHEMA_VERSION)
        engine.dispose()


def test_constraints_that_another_program_has_rewritten_are_named_and_nothing_changes(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'x.db'}", must_exist=False)
    to_first_revision(engine)
    with writing(engine) as connection:
        before = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, 'kind = ', 'kind=') WHERE name = 'zego_tasks'"
        )
        connection.exec_driver_sql(f"PRAGMA schema_version = {before + 1}")
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    with pytest.raises(SchemaMismatch, match=r"CHECK \(kind = 'asr'\) of zego_tasks; .* migrate again"):
        schema.migrate(engine)
    assert schema.version(engine) == "0001"
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO zego_tasks (task_id, room_id) VALUES ('t', 'room')")
    engine.dispose()


class TestUpgrade:
    """A database of revision 0001 in use: nothing that is in it, or was built upon it, is lost."""

    @pytest.fixture
    def engine(self, engine: sa.Engine) -> sa.Engine:
        """A database of revision 0001, in use."""
        to_first_revision(engine)
        run(
            engine,
            "INSERT INTO zego_tasks (task_id, room_id, user_count, app_id) VALUES ('occupied', 'a', 2, 7)",
            "INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('empty', 'b', 0), ('unknown', 'c', NULL)",
            "UPDATE zego_tasks SET due_at = user_count_at, wake_at = user_count_at, attempts = 2 WHERE room_id = 'b'",
            "INSERT INTO zego_tasks (task_id, room_id, status) VALUES ('ended', 'd', 'stopped')",
            "INSERT INTO zego_stop_attempts"
            " (task_id, kind, room_id, attempt, reason, due_at, replied_at, outcome, instance)"
            " SELECT 'ended', 'asr', 'd', 1, 'empty_room', started_at, started_at, 'stopped', 'host/1'"
            " FROM zego_tasks WHERE task_id = 'ended'",
            "INSERT INTO zego_stop_attempts (task_id, kind, room_id, attempt, reason, outcome, instance)"
            " VALUES ('empty', 'asr', 'b', 1, 'empty_room', 'sent', 'host/1')",
            "INSERT INTO zego_daemons (instance, host, pid, version, mode, started_at, watching_since, seen_at)"
            " SELECT 'host/1', 'host', 1, '0', 'enforce', started_at, started_at, started_at"
            " FROM zego_tasks WHERE task_id = 'ended'",
        )
        return engine

    def test_keeps_every_row(self, engine: sa.Engine) -> None:
        names = ("zego_tasks", "zego_stop_attempts", "zego_daemons", "zego_stop_history")
        before = {name: rows(engine, name) for name in names}
        assert [len(found) for found in before.values()] == [4, 2, 1, 2]
        assert schema.migrate(engine) == ("0001", SCHEMA_VERSION)
        after = {name: rows(engine, name) for name in names}
        for name in names:
            assert [
                {column: row[column] for column in old} for old, row in zip(before[name], after[name], strict=True)
            ] == before[name]
        assert {str(row["asked_at"])[:19] for row in after["zego_tasks"]} == {"1970-01-01 00:00:00"}
        assert {row["vendor_occupied_at"] for row in after["zego_tasks"]} == {None}
        assert {row["rejoined_after_seconds"] for row in after["zego_stop_history"]} == {None}

    def test_what_a_hint_means_stays_and_the_vendors_word_is_noted(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        run(
            engine,
            "UPDATE zego_tasks SET user_count = 0 WHERE room_id = 'a'",
            "UPDATE zego_tasks SET user_count = 3, user_count_source = 'api' WHERE room_id = 'b'",
            "UPDATE zego_tasks SET user_count = 1 WHERE room_id = 'c'",
            "UPDATE zego_tasks SET status = 'released' WHERE room_id IN ('c', 'd')",
        )
        found = {row["task_id"]: row for row in rows(engine, "zego_tasks")}
        assert found["occupied"]["empty_since"] == found["occupied"]["user_count_at"]
        assert found["occupied"]["vendor_occupied_at"] is None
        assert (found["empty"]["empty_since"], found["empty"]["due_at"], found["empty"]["wake_at"]) == (None,) * 3
        assert found["empty"]["vendor_occupied_at"] == found["empty"]["user_count_at"]
        assert found["unknown"]["vendor_occupied_at"] is None
        assert (found["unknown"]["status"], found["ended"]["status"]) == ("released", "stopped")

    def test_a_spell_that_began_before_it_is_written_when_it_ends(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        assert rows(engine, "zego_empty_spells") == []
        run(engine, "UPDATE zego_tasks SET user_count = 1 WHERE room_id = 'b'")
        (spell,) = rows(engine, "zego_empty_spells")
        (task,) = (row for row in rows(engine, "zego_tasks") if row["task_id"] == "empty")
        assert (spell["task_id"], spell["ending"], spell["ended_at"]) == ("empty", "returned", task["user_count_at"])

    def test_the_ledger_stays_append_only_and_goes_on(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        run(engine, "UPDATE zego_stop_attempts SET outcome = 'gone' WHERE outcome = 'sent'")
        with pytest.raises(DatabaseError, match="never updated"):
            run(engine, "UPDATE zego_stop_attempts SET code = '1' WHERE task_id = 'ended'")
        run(
            engine,
            "INSERT INTO zego_stop_attempts (task_id, kind, room_id, reason, outcome, instance)"
            " VALUES ('new', 'asr', 'e', 'bots_only', 'stopped', 'host/1')",
        )
        assert [row["id"] for row in rows(engine, "zego_stop_attempts")] == [1, 2, 3]

    def test_what_is_refused_today_stays_and_can_be_written(self, engine: sa.Engine) -> None:
        run(
            engine,
            "INSERT INTO zego_tasks (task_id, room_id, max_idle_seconds, user_count) VALUES ('7.0', '1e+20', 2, 1)",
        )
        schema.migrate(engine)
        assert short_windows(engine) == (1, ["7.0"])
        run(
            engine,
            "UPDATE zego_tasks SET user_count = 0 WHERE task_id = '7.0'",
            "UPDATE zego_tasks SET room_id = room_id, max_idle_seconds = 2, claimed_by = 'me' WHERE task_id = '7.0'",
            "UPDATE zego_tasks SET attempts = 1, claimed_by = 'host/1' WHERE task_id = '7.0'",
        )
        with pytest.raises(DatabaseError, match="zego_max_idle_seconds_at_least_30"):
            run(engine, "UPDATE zego_tasks SET max_idle_seconds = 3 WHERE task_id = '7.0'")
        run(engine, "UPDATE zego_tasks SET max_idle_seconds = NULL, status = 'stopped' WHERE task_id = '7.0'")
        assert short_windows(engine) == (0, [])
        (row,) = (row for row in rows(engine, "zego_tasks") if row["task_id"] == "7.0")
        assert (row["attempts"], row["claimed_by"], row["status"]) == (1, None, "stopped")

    def test_what_the_application_built_upon_the_view_stays(self, engine: sa.Engine) -> None:
        run(engine, "CREATE VIEW stopped_rooms AS SELECT room_id, outcome FROM zego_stop_history")
        before = rows(engine, "stopped_rooms")
        assert len(before) == 2
        schema.migrate(engine)
        assert rows(engine, "stopped_rooms") == before

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has no rights
    def test_rights_that_were_granted_stay(self, engine: sa.Engine) -> None:
        run(engine, "GRANT SELECT ON zego_tasks, zego_stop_history TO pg_monitor")
        schema.migrate(engine)
        with reading(engine) as connection:
            for name in ("zego_tasks", "zego_stop_history"):
                allowed = connection.execute(sa.select(sa.func.has_table_privilege("pg_monitor", name, "SELECT")))
                assert allowed.scalar() is True, name


def run(engine: sa.Engine, *statements: str) -> None:
    """Run each statement in a transaction of its own."""
    for statement in statements:
        with writing(engine) as connection:
            connection.execute(sa.text(statement))


def rows(engine: sa.Engine, name: str) -> list[dict[str, Any]]:
    """Return all rows of a table or view, in the order of its first column."""
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY 1")).mappings()]


class TestRequire:
    def test_missing_tables_name_the_command(self, engine: sa.Engine) -> None:
        with pytest.raises(SchemaMismatch, match="do not exist; create them with: zego-watchdog migrate"):
            schema.require(engine)

    def test_its_own_version_will_do(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        schema.require(engine)

    @pytest.mark.parametrize(
        ("found", "advice"),
        [("0000", "is older .* zego-watchdog migrate"), ("9999", "is newer .* newer zego-watchdog")],
    )
    def test_another_version_is_refused(self, engine: sa.Engine, found: str, advice: str) -> None:
        schema.migrate(engine)
        with writing(engine) as connection:
            connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '{found}'"))
        with pytest.raises(SchemaMismatch, match=advice):
            schema.require(engine)

    def test_a_newer_one_is_not_taken_back(self, engine: sa.Engine) -> None:
        schema.migrate(engine)
        with writing(engine) as connection:
            connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        with pytest.raises(SchemaMismatch, match="newer"):
            schema.migrate(engine)
        assert schema.version(engine) == "9999"


class TestDocumentation:
    """docs/schema.md says what is there."""

    PAGE = (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")

    def rows(self, heading: str) -> list[list[str]]:
        """Return the cells of the first table under a heading."""
        section = self.PAGE.partition(f"\n{heading}\n")[2]
        table = re.search(r"(\|.*\n)+", section)
        assert table is not None, heading
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]

    @pytest.mark.parametrize("table", metadata.sorted_tables, ids=str)
    def test_every_column_in_its_order(self, table: sa.Table) -> None:
        assert [row[0] for row in self.rows(f"## {table.name}")] == [f"`{column.name}`" for column in table.columns]

    @pytest.mark.parametrize(("view", "columns"), [*zip(VIEWS, (VIEW_COLUMNS, SAVINGS_COLUMNS), strict=True)])
    def test_every_column_of_the_views(self, view: str, columns: list[str]) -> None:
        names = [name for row in self.rows(f"## {view}") for name in re.findall(r"`(\w+)`", row[0])]
        assert sorted(names) == sorted(columns)

    def test_every_outcome_and_what_the_task_becomes(self) -> None:
        told = {row[0].strip("`"): row[2].strip("`|– ") or None for row in self.rows("### Outcome")}
        assert told == dict(TASK_BECOMES)

    def test_every_status_is_in_the_diagram(self) -> None:
        diagram = self.PAGE.partition("### Status")[2].partition("```")[2].partition("```")[0]
        for outcome, status in TASK_BECOMES.items():
            assert (status is None) == (outcome not in diagram)
            assert status is None or status in diagram
        assert all(status in diagram for status in Status)

    def test_every_constraint_and_index_that_is_named_exists(self) -> None:
        folder = shipped("migrations")
        built = "".join(file.read_text() for file in (*folder.glob("versions/*.py"), *folder.glob("sql/*.sql")))
        for name in re.findall(r"zego_[a-z_0-9]+", self.PAGE):
            assert name in built or name == VERSION_TABLE, name
