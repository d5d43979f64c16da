"""The answer spool: what is on disk, who may read it, and what happens to torn and foreign files."""

import os
import pickle
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.spool import noted
from watchdog.core.model import Outcome, Status
from watchdog.store.aio.answer_spool import AnswerSpool, Left
from watchdog.store.records import Answer

DATABASE = "sqlite:/somewhere/watchdog.db"
ANSWER = Answer(
    attempt_id=7,
    attempt=1,
    task_id="task",
    room_id="room 🙂",
    app_id=None,
    instance="host-1-abcd",
    token="host-1-abcd/3",
    outcome=Outcome.STOPPED,
    replied_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
    http_status=200,
    code="0",
    message="Success",
    request_id="003151527792559699732",
    detail=None,
    status=Status.STOPPED,
    wake_seconds=0.5,
)
PROCESS = """
import pickle, sys
from watchdog.store.aio.answer_spool import AnswerSpool
folder, database, answers = pickle.load(sys.stdin.buffer)
spool = AnswerSpool(folder, database, "host-2")
for answer in answers:
    spool.note([answer])
print(flush=True)
sys.stdin.read()
"""


def answers(*numbers: int) -> list[Answer]:
    return [replace(ANSWER, attempt_id=number, task_id=f"task-{number}") for number in numbers]


def spool(folder: Path, instance: str = "host-1", *, database: str = DATABASE) -> AnswerSpool:
    return AnswerSpool(folder, database, instance)


def close_with(folder: Path, *noted: Answer, database: str = DATABASE) -> None:
    """End a process in good order that has answers left."""
    ending = spool(folder, "host-2", database=database)
    ending.note(noted)
    ending.close()


@contextmanager
def living(folder: Path, *noted: Answer) -> Iterator[Path]:
    """Run a process that notes the answers one by one; it is killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps((folder, DATABASE, noted)))
        process.stdin.flush()
        process.stdout.readline()
        try:
            yield folder / "answers-host-2.sqlite"
        finally:
            process.kill()


@contextmanager
def left(reader: AnswerSpool) -> Iterator[list[Left]]:
    found = reader.left()
    try:
        yield found
    finally:
        for one in found:
            one.release()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


numbers = st.integers(min_value=0, max_value=2**63 - 1)
moments = st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC))
anything = st.builds(
    Answer,
    attempt_id=numbers,
    attempt=numbers,
    app_id=numbers | st.none(),
    replied_at=moments | st.none(),
    http_status=numbers | st.none(),
    wake_seconds=st.floats(allow_nan=False),
)


@settings(max_examples=10, deadline=None, phases=[Phase.generate])
@given(st.lists(anything, min_size=10, unique_by=lambda answer: answer.attempt_id))
def test_answers_that_the_database_lacks_survive_their_process_unchanged(noted: list[Answer]) -> None:
    with TemporaryDirectory() as folder:
        close_with(Path(folder), *noted)
        with left(spool(Path(folder))) as (one,):
            assert one.answers == noted
            assert {type(answer.outcome) for answer in one.answers} == {Outcome}


def test_the_file_exists_only_while_it_is_needed(tmp_path: Path) -> None:
    mine = spool(tmp_path)
    assert files(tmp_path) == []
    mine.note(answers(1, 2))
    assert noted(tmp_path) == ["task-1", "task-2"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    mine.forget([1])
    assert noted(tmp_path) == ["task-2"]
    mine.note(answers(2, 3))
    assert noted(tmp_path) == ["task-2", "task-3"]
    mine.forget([2, 3])
    mine.close()
    assert files(tmp_path) == []


def test_a_file_is_taken_by_one_process_and_only_after_its_owner_died(tmp_path: Path) -> None:
    mine = spool(tmp_path)
    mine.note(answers(9))
    with living(tmp_path, *answers(1, 2, 3)) as file, structlog.testing.capture_logs() as logs:
        assert mine.left() == []
        assert logs == []
    with left(mine) as (one,):
        assert (one.path, one.answers) == (file, answers(1, 2, 3))
        assert spool(tmp_path, "host-4").left() == []
    with left(mine) as (one,):
        assert one.answers == answers(1, 2, 3), "not done with"
        one.done()
    assert mine.left() == []
    mine.forget([9])
    mine.close()
    assert files(tmp_path) == []


def test_a_note_that_was_torn_is_passed_over(tmp_path: Path) -> None:
    with living(tmp_path, *answers(1, 2)) as file:
        log = file.with_name(f"{file.name}-wal")
    os.truncate(log, log.stat().st_size - 20)
    with left(spool(tmp_path)) as (one,):
        assert one.answers == answers(1)
        one.done()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE answers SET outcome = 'unheard of' WHERE attempt_id = 1",
        "UPDATE answers SET replied_at = 1",
        "ALTER TABLE answers RENAME COLUMN code TO elsewhere",
        "DROP TABLE answers",
    ],
)
def test_the_file_of_another_version_is_kept_and_said_once(tmp_path: Path, change: str) -> None:
    close_with(tmp_path, *answers(1, 2))
    with closing(sqlite3.connect(tmp_path / "answers-host-2.sqlite", isolation_level=None)) as connection:
        connection.execute(change)
    assert_kept(tmp_path, "journal_unreadable")


def test_the_file_of_another_database_is_kept_and_said_once(tmp_path: Path) -> None:
    close_with(tmp_path, *answers(1), database="sqlite:/elsewhere.db")
    assert_kept(tmp_path, "journal_of_another_database")
    with left(spool(tmp_path, database="sqlite:/elsewhere.db")) as (one,):
        assert one.answers == answers(1)


def assert_kept(folder: Path, event: str) -> None:
    reader = spool(folder)
    with structlog.testing.capture_logs() as logs:
        assert reader.left() == []
        assert reader.left() == []
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [(event, "warning")]
    assert "answers-host-2.sqlite" in files(folder)


def test_other_files_do_not_stop_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "answers-a.sqlite")
    (tmp_path / "answers-b.sqlite").symlink_to("/etc/passwd")
    (tmp_path / "answers-c.sqlite").mkdir()
    with (tmp_path / "answers-d.sqlite").open("wb") as huge:
        huge.truncate(1 << 30)
    (tmp_path / "answers-e.sqlite").touch()
    with structlog.testing.capture_logs() as logs:
        assert spool(tmp_path).left() == []
    assert [event["event"] for event in logs] == ["journal_unreadable"] * 3
    assert len(files(tmp_path)) == 5
    assert spool(tmp_path / "nowhere").left() == []


def test_a_directory_that_does_not_exist_is_an_error_until_it_does(tmp_path: Path) -> None:
    mine = spool(tmp_path / "later")
    with pytest.raises(FileNotFoundError):
        mine.note(answers(1))
    (tmp_path / "later").mkdir()
    mine.note(answers(2))
    mine.close()
    with left(spool(tmp_path / "later")) as (one,):
        assert one.answers == answers(2)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond ``limit`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_until_there_is_room(tmp_path: Path) -> None:
    mine = spool(tmp_path)
    with full_disk(50), pytest.raises(OSError):  # noqa: PT011 - SQLite's text differs by version
        mine.note(answers(0))
    assert files(tmp_path) == []
    mine.note(answers(1))
    size = max(file.stat().st_size for file in tmp_path.iterdir())
    with full_disk(size + 50), pytest.raises(OSError):  # noqa: PT011 - as above
        mine.note(answers(2))
    mine.note(answers(3))
    with full_disk(50):
        mine.close()
    with full_disk(50), left(spool(tmp_path)) as (one,):
        assert one.answers == answers(1, 3)
        one.done()
    assert files(tmp_path) == []


def test_it_does_not_grow_while_one_answer_waits_for_ever(tmp_path: Path) -> None:
    mine = spool(tmp_path)
    mine.note(answers(0))
    many = [replace(answer, detail="x" * 4000) for answer in answers(*range(1, 201))]
    sizes = []
    for _ in range(10):
        mine.note(many)
        mine.forget(range(1, 201))
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert max(sizes) < 6_000_000, "SQLite empties its log at 1,000 pages"
    mine.close()
    with left(spool(tmp_path)) as (one,):
        assert one.answers == answers(0)
