"""How the databases are opened, and what becomes of everything that may go wrong with them."""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.pgbouncer import pgbouncer
from tests.support.store_steps import REPLY, take
from watchdog.config.addresses import with_driver
from watchdog.core.model import Evidence, Outcome, Reason, Source
from watchdog.core.policy import Plan
from watchdog.errors import ConfigError, DatabaseError, DatabaseUnavailable, StatementRefused
from watchdog.store import contract, schema
from watchdog.store import engine as module
from watchdog.store.attempts import Ledger
from watchdog.store.engine import open_engine, place, reading, writing
from watchdog.store.heartbeats import Heartbeats
from watchdog.store.records import Intent
from watchdog.store.tasks import Tasks

INSERT = sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES ('task', 'room')")


@contextmanager
def opened(url: str, **options: object) -> Iterator[sa.Engine]:
    engine = open_engine(url, **options)  # type: ignore[arg-type] # each test says which
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def file(sqlite_url: str, sqlite_template: Path) -> Path:
    """Return a SQLite file with the schema, where ``sqlite_url`` says."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.write_bytes(sqlite_template.read_bytes())
    return path


class TestSqlite:
    @pytest.mark.usefixtures("file")
    def test_is_set_up_to_survive_a_power_cut(self, sqlite_url: str) -> None:
        with opened(sqlite_url) as engine, reading(engine) as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2

    def test_the_application_cannot_set_another_mode_meanwhile(self, sqlite_url: str, file: Path) -> None:
        with opened(sqlite_url) as engine, closing(sqlite3.connect(file, timeout=0)) as application:
            Tasks(engine, "host/1").peek()
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                application.execute("PRAGMA journal_mode=DELETE")
            assert application.execute("SELECT count(*) FROM zego_tasks").fetchone() == (0,)

    @pytest.mark.usefixtures("file")
    def test_a_writer_begins_as_one_and_a_reader_does_not(self, sqlite_url: str) -> None:
        """Going from reading to writing would fail at once, whatever the time-out."""
        with opened(sqlite_url) as one, opened(sqlite_url, statement_timeout_seconds=0.05) as two:
            with reading(one) as first, writing(two) as second:
                first.execute(sa.text("SELECT count(*) FROM zego_tasks"))
                second.execute(INSERT)
            with writing(one), pytest.raises(DatabaseUnavailable, match="locked"), writing(two):
                pytest.fail("both had begun to write")

    @pytest.mark.usefixtures("file")
    def test_a_write_that_sqlite_refuses_is_no_outage(self, sqlite_url: str) -> None:
        def refuse(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA query_only = on")

        with opened(sqlite_url) as engine:
            sa.event.listen(engine, "connect", refuse)
            with pytest.raises(StatementRefused, match=r"readonly.*writable"), writing(engine) as connection:
                connection.execute(INSERT)

    @pytest.mark.usefixtures("file")
    def test_a_transaction_is_whole_or_not_at_all(self, sqlite_url: str) -> None:
        with opened(sqlite_url) as engine:

            def write_and_fail() -> None:
                with writing(engine) as connection:
                    connection.execute(INSERT)
                    connection.execute(sa.text("CREATE TABLE another (x)"))
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                write_and_fail()
            with reading(engine) as connection:
                assert connection.execute(sa.text("SELECT count(*) FROM zego_tasks")).scalar() == 0
                assert not sa.inspect(connection).has_table("another")

    def test_an_old_library_is_refused(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SQLITE_MINIMUM", (99, 1))
        with pytest.raises(ConfigError, match=r"SQLite 3\.[\d.]+ is too old: 99\.1 or later is needed"):
            open_engine(sqlite_url, must_exist=False)

    @pytest.mark.parametrize("name", ["a b.db", "50%.db", "%41.db", "a#b.db", "a?b.db", "日本.db", "a&mode=memory.db"])
    def test_a_file_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        url = sa.URL.create("sqlite", database=str(tmp_path / name))
        with opened(url.render_as_string(), must_exist=False) as engine:
            schema.migrate(engine)
        assert {entry.name for entry in tmp_path.iterdir()} == {name}

    def test_a_file_that_is_not_there_is_refused_and_not_made(self, sqlite_url: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"watchdog\.db.*zego-watchdog migrate"):
            open_engine(sqlite_url)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_goes_before_it_is_opened_is_not_made_anew(self, sqlite_url: str, file: Path) -> None:
        with opened(sqlite_url) as engine:
            file.unlink()
            with pytest.raises(DatabaseUnavailable, match=re.escape(str(file))):
                schema.require(engine)
            assert not file.exists()

    def test_a_file_that_the_system_will_not_even_look_for(self, tmp_path: Path) -> None:
        """As in a directory that is closed to us; as root only the length of a name stops us."""
        with (
            opened(f"sqlite:///{tmp_path / ('x' * 300)}") as engine,
            pytest.raises(DatabaseUnavailable, match="unable to open"),
        ):
            schema.require(engine)

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with (
            opened(f"sqlite:///{tmp_path}/none/watchdog.db", must_exist=False) as engine,
            pytest.raises(DatabaseUnavailable, match=r"none/watchdog\.db"),
        ):
            schema.migrate(engine)

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
    def test_memory_is_no_place_for_a_record(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"database\.url"):
            open_engine(url, must_exist=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_writer_that_holds_on_is_waited_for_and_no_longer(self, sqlite_url: str, file: Path) -> None:
        with (
            opened(sqlite_url, statement_timeout_seconds=0.1) as engine,
            closing(sqlite3.connect(file, isolation_level=None)) as application,
        ):
            tasks = Tasks(engine, "host/1")
            application.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match="locked"):
                Heartbeats(engine).depart("host/1")
            assert tasks.peek().wake_at is None, "reading goes on"
            application.execute("COMMIT")
            Heartbeats(engine).depart("host/1")

    @pytest.mark.usefixtures("file")
    def test_a_connection_in_use_is_waited_for_and_no_longer(self, sqlite_url: str) -> None:
        with opened(sqlite_url, statement_timeout_seconds=0.1) as engine, reading(engine):
            found: list[object] = []

            def another() -> None:
                try:
                    Tasks(engine, "host/1").peek()
                except DatabaseUnavailable as error:
                    found.append(error)

            thread = threading.Thread(target=another)
            thread.start()
            thread.join()
            assert len(found) == 1
            assert "busy" in str(found[0])

    def test_a_file_that_is_no_database(self, sqlite_url: str, file: Path) -> None:
        file.write_bytes(b"these are not the bytes" * 1000)
        with (
            opened(sqlite_url) as engine,
            pytest.raises(DatabaseError, match=r"watchdog\.db.*not a database") as caught,
        ):
            schema.require(engine)
        assert not isinstance(caught.value, DatabaseUnavailable)
        assert isinstance(caught.value.__cause__, sa.exc.DBAPIError)

    def test_a_file_cut_short(self, sqlite_url: str, file: Path) -> None:
        with file.open("r+b") as stream:
            stream.truncate(8192)
        with opened(sqlite_url) as engine, pytest.raises(DatabaseError, match="malformed"):
            Tasks(engine, "host/1").peek()

    @pytest.mark.parametrize("to_bytes", [0, 8192])
    def test_a_file_cut_short_while_it_is_open(self, sqlite_url: str, file: Path, to_bytes: int) -> None:
        """What is in the log and in the connection's cache would hide it for as long as nobody else writes."""
        with opened(sqlite_url) as engine:
            tasks = Tasks(engine, "host/1")
            assert tasks.peek().wake_at is None
            with writing(engine) as connection:
                connection.execute(INSERT)
            assert tasks.peek().wake_at is None
            with file.open("r+b") as stream:
                stream.truncate(to_bytes)
            with pytest.raises(DatabaseError):
                tasks.peek()

    def test_a_file_that_a_vacuum_has_shortened(self, sqlite_url: str, file: Path) -> None:
        with opened(sqlite_url) as engine, closing(sqlite3.connect(file, isolation_level=None)) as application:
            application.execute("CREATE TABLE filler AS SELECT randomblob(1000000)")
            application.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            tasks = Tasks(engine, "host/1")
            assert tasks.peek().wake_at is None
            before = file.stat().st_size
            application.execute("DROP TABLE filler")
            application.execute("VACUUM")
            application.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert file.stat().st_size < before
            assert tasks.peek().wake_at is None
            Heartbeats(engine).depart("host/1")

    @pytest.mark.usefixtures("file")
    def test_a_database_that_may_not_be_written(self, sqlite_url: str) -> None:
        with opened(sqlite_url) as engine:

            @sa.event.listens_for(engine, "connect")
            def read_only(connection: sqlite3.Connection, _record: object) -> None:
                connection.execute("PRAGMA query_only = ON")

            tasks = Tasks(engine, "host/1")
            assert tasks.peek().wake_at is None
            with pytest.raises(DatabaseError, match="readonly") as caught:
                Heartbeats(engine).depart("host/1")
            assert not isinstance(caught.value, DatabaseUnavailable)

    @pytest.mark.usefixtures("file")
    def test_a_full_disk_passes(self, sqlite_url: str) -> None:
        with opened(sqlite_url) as engine:
            with writing(engine) as connection:
                connection.exec_driver_sql("PRAGMA max_page_count = 1")
            with pytest.raises(DatabaseUnavailable, match="full"), writing(engine) as connection:
                connection.execute(sa.text("CREATE TABLE filler AS SELECT randomblob(1000000)"))
            with writing(engine) as connection:
                connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
                connection.execute(INSERT)

    def test_connections_that_fail_leave_no_open_file(self, sqlite_url: str, file: Path) -> None:
        file.write_bytes(b"these are not the bytes" * 1000)
        with opened(sqlite_url) as engine:
            before = open_files()
            for _ in range(5):
                with pytest.raises(DatabaseError):
                    schema.require(engine)
            assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestPostgresql:
    def test_every_wait_is_bounded(self, postgresql_url: str) -> None:
        with opened(postgresql_url, statement_timeout_seconds=2) as engine, reading(engine) as connection:

            def setting(name: str) -> str:
                return str(connection.execute(sa.text(f"SHOW {name}")).scalar())

            assert (setting("statement_timeout"), setting("lock_timeout")) == ("2s", "1s")
            assert setting("idle_in_transaction_session_timeout") == "4s"
            assert setting("timezone") == "UTC"
            assert setting("application_name") == "zego-watchdog"

    def test_what_the_operator_wrote_into_the_url_counts_too(self, postgresql_url: str) -> None:
        url = f"{postgresql_url}&options=-csearch_path%3Dwatched&application_name=mine&connect_timeout=2"
        with opened(url, statement_timeout_seconds=2) as engine, reading(engine) as connection:
            assert connection.execute(sa.text("SHOW search_path")).scalar() == "watched"
            assert connection.execute(sa.text("SHOW application_name")).scalar() == "mine"
            assert connection.execute(sa.text("SHOW statement_timeout")).scalar() == "2s"

    def test_a_statement_that_takes_too_long(self, postgresql_url: str) -> None:
        with (
            opened(postgresql_url, statement_timeout_seconds=0.1) as engine,
            pytest.raises(DatabaseUnavailable, match="statement timeout"),
            writing(engine) as connection,
        ):
            connection.execute(sa.text("SELECT pg_sleep(5)"))

    def test_a_row_that_somebody_holds(self, postgresql_url: str) -> None:
        with (
            opened(postgresql_url, statement_timeout_seconds=0.1) as engine,
            psycopg.connect(postgresql_url) as application,
        ):
            application.execute("CREATE TABLE held (x int)")
            application.execute("INSERT INTO held VALUES (1)")
            application.commit()
            application.execute("UPDATE held SET x = 2")
            with pytest.raises(DatabaseUnavailable, match="timeout"), writing(engine) as connection:
                connection.execute(sa.text("UPDATE held SET x = 3"))

    def test_a_backend_that_is_terminated_is_replaced(self, postgresql_url: str, postgresql_server: str) -> None:
        with (
            opened(postgresql_url) as engine,
            psycopg.connect(postgresql_server, autocommit=True) as maintenance,
        ):

            def backend(connection: sa.Connection) -> object:
                return connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()

            def terminate(pid: object) -> None:
                maintenance.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

            def lose_it_midway() -> None:
                with writing(engine) as connection:
                    terminate(backend(connection))
                    backend(connection)

            with pytest.raises(DatabaseUnavailable):
                lose_it_midway()
            with writing(engine) as connection:
                idle = backend(connection)
            terminate(idle)
            with writing(engine) as connection:
                assert backend(connection) != idle

    def test_a_missing_right_is_no_outage(self, postgresql_url: str) -> None:
        with opened(postgresql_url) as engine:
            schema.migrate(engine)
            with writing(engine) as connection:
                connection.execute(sa.text("DROP ROLE IF EXISTS limited"))
                connection.execute(sa.text("CREATE ROLE limited"))
        with (
            opened(f"{postgresql_url}&options=-c%20role%3Dlimited") as engine,
            pytest.raises(StatementRefused, match=r"permission denied for table zego_tasks.*docs/roles\.sql"),
            writing(engine) as connection,
        ):
            connection.execute(INSERT)

    def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        for host in (f"?host={tmp_path}", "?host=127.0.0.1&port=1"):
            with (
                opened(f"postgresql://watchdog:planted-password@/nowhere{host}") as engine,
                pytest.raises(DatabaseUnavailable, match="nowhere") as caught,
            ):
                schema.require(engine)
            assert "planted-password" not in str(caught.value)

    def test_a_database_that_is_not_there(self, postgresql_server: str) -> None:
        with (
            opened(postgresql_server.replace("/postgres?", "/nowhere?")) as engine,
            pytest.raises(DatabaseUnavailable, match='database "nowhere" does not exist'),
        ):
            schema.require(engine)

    @pytest.mark.parametrize("how", ["in the URL", "apart"])
    def test_a_wrong_password_is_not_repeated(self, postgresql_server: str, postgresql_url: str, how: str) -> None:
        rules = Path(str(sa.make_url(postgresql_server).query["host"])) / "pg_hba.conf"
        before = rules.read_text()
        with psycopg.connect(postgresql_server, autocommit=True) as maintenance:
            maintenance.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
            rules.write_text(f"local all locked scram-sha-256\n{before}")
            maintenance.execute("SELECT pg_reload_conf()")
            wrong = postgresql_url.replace(
                "postgres@", "locked:planted-password@" if how == "in the URL" else "locked@"
            )
            try:
                with (
                    opened(wrong, password=None if how == "in the URL" else "planted-password") as engine,
                    pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught,
                ):
                    schema.require(engine)
                assert "planted-password" not in str(caught.value)
                assert "planted-password" not in place(engine)
                with opened(wrong, password="right") as engine, reading(engine) as connection:
                    assert connection.execute(sa.text("SELECT current_user")).scalar() == "locked"
            finally:
                rules.write_text(before)
                maintenance.execute("SELECT pg_reload_conf()")
                maintenance.execute("DROP ROLE locked")

    def test_a_replica_after_a_failover_passes(self, postgresql_url: str) -> None:
        with (
            opened(f"{postgresql_url}&options=-cdefault_transaction_read_only%3Don") as engine,
            pytest.raises(DatabaseUnavailable, match="read-only"),
            writing(engine) as connection,
        ):
            connection.execute(sa.text("CREATE TABLE another (x int)"))

    def test_a_row_that_is_refused_stays_refused(self, postgresql_url: str) -> None:
        with opened(postgresql_url) as engine:
            schema.migrate(engine)
            for _ in range(2):
                with (
                    pytest.raises(DatabaseError, match="zego_task_id_not_empty") as caught,
                    writing(engine) as connection,
                ):
                    connection.execute(sa.text("INSERT INTO zego_tasks (task_id, room_id) VALUES ('', 'room')"))
                assert not isinstance(caught.value, DatabaseUnavailable)


class TestBoth:
    def test_the_apps_mistakes_are_not_ours_to_repeat(self, database_url: str) -> None:
        mistakes: tuple[Callable[[sa.Connection], object], ...] = (
            lambda connection: connection.execute(sa.text("SELECT nonsense")),
            lambda connection: connection.execute(sa.text("SELECT :missing")),
            lambda connection: connection.execute(sa.text("SELEC")),
        )
        with opened(database_url, must_exist=False) as engine:
            for mistake in mistakes:
                with pytest.raises(DatabaseError) as caught, writing(engine) as connection:
                    mistake(connection)
                assert type(caught.value) is DatabaseError
                assert isinstance(caught.value.__cause__, sa.exc.SQLAlchemyError)
                assert "\n" not in str(caught.value)

    def test_other_errors_pass_through(self, database_url: str) -> None:
        with opened(database_url, must_exist=False) as engine, pytest.raises(KeyError), writing(engine):
            raise KeyError

    def test_a_message_says_where(self, database_url: str) -> None:
        with opened(database_url, must_exist=False) as engine:
            database = sa.make_url(database_url).database
            assert database is not None
            assert database in place(engine)

    def test_another_kind_of_database(self) -> None:
        with pytest.raises(ConfigError, match=r"mysql is not supported.*postgresql://"):
            open_engine("mysql://root@localhost/zego")


def test_several_hosts_as_libpq_takes_them(postgresql_url: str) -> None:
    """The first does not answer, the second can be written to."""
    parts = sa.make_url(postgresql_url)
    folder = quote(str(parts.query["host"]), safe="")
    url = f"postgresql://{parts.username}@127.0.0.1:1,{folder}/{parts.database}"
    with opened(with_driver(url), shown=url) as several, reading(several) as connection:
        assert place(several) == f"PostgreSQL {url}"
        assert connection.execute(sa.select(sa.func.current_database())).scalar_one() == parts.database


# Settings of the server, and poolers

ODD_SETTINGS = {
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
}


def recorded(url: str, message: str, **options: Any) -> str:
    """Bring a task all the way through a stop whose answer has this message; return the message on record."""
    with opened(url, **options) as engine:
        schema.migrate(engine)
        contract.require(engine)
        with writing(engine) as connection:
            connection.exec_driver_sql("INSERT INTO zego_tasks (task_id, room_id, user_count) VALUES ('t', 'r', 0)")
        store, ledger = Tasks(engine, "me"), Ledger(engine, "me")
        now, (task,) = store.newly_empty(10)
        assert task.empty_since is not None
        store.save_plans([Plan("t", task.empty_since, now, now + timedelta(seconds=60))])
        (claim,) = take(store)
        (attempt,) = ledger.intend([Intent(claim, 1, Reason.EMPTY_ROOM, Evidence(0, now, Source.API), None)])
        assert attempt is not None
        reply = replace(REPLY, message=message)
        assert ledger.record([attempt.answer(Outcome.STOPPED, replied_at=now, reply=reply, wake_seconds=0)]) == [True]
        with reading(engine) as connection:
            row = connection.exec_driver_sql("SELECT message, request_id, replied_at FROM zego_stop_attempts").one()
            assert row.request_id == REPLY.request_id
            assert row.replied_at == now
            return str(row.message)


def database(server: str, name: str, options: str = "") -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" {options}')
        yield server.replace("/postgres?", f"/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize(
    ("encoding", "message", "kept"),
    [
        ("UTF8", "任务不存在 🚀", "任务不存在 🚀"),
        ("SQL_ASCII", "任务不存在 🚀", "任务不存在 🚀"),
        ("LATIN1", "é 任务", r"é \u4efb\u52a1"),
        ("EUC_CN", "任务 🚀", r"任务 \U0001f680"),
        ("WIN1251", "и 任", r"и \u4efb"),
        ("EUC_TW", "é 任", r"\xe9 \u4efb"),
    ],
)
def test_an_answer_can_be_recorded_whatever_the_encoding(
    postgresql_server: str, encoding: str, message: str, kept: str
) -> None:
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    for url in database(postgresql_server, f"encoded_{encoding.lower()}", options):
        assert recorded(url, message) == kept


def test_the_servers_settings_do_not_matter(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for name, value in ODD_SETTINGS.items():
            connection.execute(f"ALTER DATABASE \"{connection.info.dbname}\" SET {name} = '{value}'")
    assert recorded(postgresql_url, "任务") == "任务"


def test_a_pooler_in_transaction_mode(postgresql_url: str) -> None:
    with pgbouncer(postgresql_url, servers=1) as pooled:
        with (
            opened(pooled) as engine,
            pytest.raises(DatabaseUnavailable, match=r"database\.transaction_pooling to true"),
        ):
            schema.migrate(engine)
        assert recorded(pooled, "Success", pooled=True) == "Success"
        with opened(pooled, pooled=True, statement_timeout_seconds=2) as engine, reading(engine) as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "2s"
            assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "UTC"
        # Nothing of it stays on the pooler's only connection to the server, and no statement is prepared there twice.
        with psycopg.connect(pooled) as other:
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
        with opened(pooled, pooled=True) as one, opened(pooled, pooled=True) as another:
            for _ in range(20):
                for engine in (one, another):
                    assert Tasks(engine, "me").newly_empty(10)[1] == []
