"""Each error of the database says what to do, in our words; and commands of the database need no other secret."""

from pathlib import Path

import pytest

from tests.support.operator import Operator
from tests.support.running import Application
from watchdog.cli.checks.advice import advised
from watchdog.config.settings import DatabaseConfig
from watchdog.errors import ConfigError, DatabaseError, DatabaseUnavailable

READ_ONLY = [["tasks"], ["history"], ["explain", "1"], ["status"], ["history", "export"], ["guard"], ["migrate"]]


@pytest.fixture
def application(sqlite_url: str) -> Application:
    application = Application(sqlite_url)
    application.execute("INSERT INTO zego_tasks (task_id, room_id) VALUES ('1', 'lecture')")
    return application


@pytest.mark.parametrize("words", READ_ONLY, ids=" ".join)
@pytest.mark.parametrize("mode", ["open", "gone"])
def test_a_command_that_only_reads_needs_no_secret_of_zego(
    application: Application, tmp_path: Path, words: list[str], mode: str
) -> None:
    operator = Operator(tmp_path, application.url)
    operator.secret.chmod(0o644)
    if mode == "gone":
        operator.secret.unlink()
    result = operator.types(*words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", [["run"], ["check", "--offline"], ["stop", "1"], ["room", "lecture"]], ids=" ".join)
def test_what_speaks_to_zego_refuses_an_open_secret(application: Application, tmp_path: Path, words: list[str]) -> None:
    operator = Operator(tmp_path, application.url)
    operator.secret.chmod(0o644)
    result = operator.types(*words, COLUMNS="400")
    assert (result.exit_code, "chmod 600" in result.output) == (78, True), result.output


@pytest.mark.parametrize(
    ("words", "code"), [(["status"], 78), (["migrate"], 78), (["check", "--offline"], 78), (["run"], 1)]
)
def test_a_file_that_is_no_database(tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "x.db").write_text("no database " * 1000)
    result = Operator(tmp_path, f"sqlite:///{tmp_path}/x.db").types(*words, COLUMNS="400")
    assert (result.exit_code, "correct the path in database.url" in result.output) == (code, True), result.output


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    result = Operator(tmp_path, f"sqlite:///{tmp_path}").types("status")
    assert (result.exit_code, "it is a directory; correct the path" in result.stderr) == (75, True), result.output


@pytest.mark.parametrize("words", [["status"], ["run"], ["migrate"], ["check", "--offline"]], ids=" ".join)
def test_a_missing_directory_is_named_before_the_file(tmp_path: Path, words: list[str]) -> None:
    result = Operator(tmp_path, f"sqlite:///{tmp_path}/nowhere/x.db").types(*words, COLUMNS="400")
    assert result.exit_code == 78
    assert f"there is no directory {tmp_path}/nowhere" in result.output
    assert "zego-watchdog migrate" not in result.output


@pytest.mark.parametrize("words", [["status"], ["run"], ["check", "--offline"]], ids=" ".join)
def test_a_relative_path_is_said_to_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    operator = Operator(tmp_path, "sqlite:///x.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = operator.types(*words, COLUMNS="1000")
    assert result.exit_code == 78
    assert f"there is no file {tmp_path}/elsewhere/x.db" in result.output
    assert f"relative to the working directory {tmp_path}/elsewhere" in result.output
    assert "zego-watchdog migrate" in result.output


def test_migrate_says_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"SQLite {tmp_path}/x.db: schema none" in Operator(tmp_path, "sqlite:///x.db").types("migrate").stdout


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
@pytest.mark.parametrize("hosts", ["127.0.0.1:1", "127.0.0.1:1,[::1]:1", "[::1]:1,127.0.0.1:1"])
@pytest.mark.parametrize("words", [["status"], ["run"]], ids=" ".join)
def test_a_refused_connection_shows_the_address_as_it_was_written_and_the_next_step(
    tmp_path: Path, words: list[str], scheme: str, hosts: str
) -> None:
    result = Operator(tmp_path, f"{scheme}://me@{hosts}/db").types(*words, COLUMNS="1000")
    assert result.exit_code == 75
    assert f"PostgreSQL {scheme}://me@{hosts}/db: " in result.stderr
    assert "psycopg" not in result.output
    assert "; start PostgreSQL, or correct the host and the port in database.url" in result.stderr


@pytest.mark.parametrize(
    ("error", "kind", "todo"),
    [
        (DatabaseUnavailable('FATAL: password authentication failed for user "me"'), None, "database.password_file"),
        (DatabaseUnavailable('FATAL:  database "shop" does not exist'), None, "createdb"),
        (DatabaseUnavailable('FATAL:  role "me" does not exist'), None, "correct the user"),
        (DatabaseUnavailable("[Errno -2] failed to resolve host 'db'"), None, "correct the host"),
        (DatabaseUnavailable("connection timeout expired"), None, "firewalls"),
        (DatabaseUnavailable("database is locked"), None, "try again"),
        (DatabaseError("SQLite x.db: no such table: zego_tasks"), ConfigError, "zego-watchdog check"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_database_says_gets_a_next_step(error: DatabaseError, kind: type | None, todo: str) -> None:
    with pytest.raises(DatabaseError if kind is None else kind) as told, advised(DatabaseConfig()):
        raise error
    assert type(told.value) is (kind or type(error))
    assert todo in str(told.value).partition("; ")[2]


def test_an_error_that_names_its_step_is_left_alone() -> None:
    with pytest.raises(DatabaseError, match=r"^permission denied; grant it$"), advised(DatabaseConfig()):
        raise DatabaseError("permission denied; grant it")
